"""The one table of the proxy port: which paths there are, what answers them, and what that may do.

A route says what bioproxy must know about a request before it reads the body:

- **gate**: whether it uses the engine. `grant` computes, `free` does not, `slot_action` runs alone, `shared` is one
  answer for two seconds.
- **dialect**: in which shape its messages are, if templates are expanded in them.
- **endpoint**: the name under which metrics count it; everything unknown is `other`, or a scanner could fill the disk
  of a Prometheus server.
- **starts**: with many models, whether it may start one. What computes, and what a client asks right before it computes
  (counting, tokenizing, voices, LoRAs), does. What only looks (`/props`, `/slots`, `/metrics`, `/lora-adapters`) does
  not: chat pages and monitors ask every few seconds, and would swap out what a user works with. llama-swap starts a
  model for `/props`; its users asked for what we do. Slot actions do not either: a stopped model has nothing to save.

Two kinds of a fleet read this table. With **one engine** what is not in it goes to the engine unchanged; an unknown
POST takes a grant and an unknown GET does not, because a new computing route of the engine would pass by the gate, and
llama-server has no GET that computes (kv-rule 4). With **many models** it is unknown which engine an unknown path is
for: it is a 404 that names what was meant, and a known path with another method a 405. The paths of many models are
llama-swap's, and beside them those of llama-server that its own router takes with a `model`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from bioproxy.errors import NotFound, RequestError
from bioproxy.front.body.model import field
from bioproxy.front.llamaswap_errors import Unserved
from bioproxy.templates.bodies import Dialect
from bioproxy.wire.http1.message import Request
from bioproxy.wire.http1.router import NotAllowed, Router
from bioproxy.wire.http1.target import hidden_slash, hides_slash

READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
Gate = Literal["grant", "free", "slot_action", "shared"]
By = Literal["engine", "list", "listed", "health", "options", "upstream", "comfyui", "ollama"]


class Route(msgspec.Struct, frozen=True):
    """One route. `by`: what answers, an engine (or what manages models, if there is a `guard`) or a part of ours.

    `changes`: its GET starts, stops or changes something, as every POST may; a foreign page may not ask for that.
    `guard`: it manages models (`manage`) or a key's own requests (`own`), or shows what others asked and got
    (`private`), or is of that kind and open to all (`open`); "": a client's own business. `path` is what the engine is
    asked for, if not what the client asked for. `metered`: its answers have tokens to count, so it is a row of the
    activity page. `loading`: its streams may tell that the model is being loaded.
    """

    endpoint: str
    gate: Gate = "free"
    dialect: Dialect | None = None
    public: bool = False  # served without a key
    guard: Literal["", "open", "manage", "own", "private"] = ""
    changes: bool = False
    by: By = "engine"
    path: bytes = b""
    starts: bool = True
    metered: bool = False
    loading: bool = False

    def changed_by(self, request: Request) -> bool:
        """Whether something may be another after this request."""
        return self.changes or request.method not in READING_METHODS

    @property
    def admin(self) -> bool:
        """Whether the admin key opens it, too."""
        return self.gate == "slot_action" or self.guard == "open"


OTHER_FREE = Route("other")
OTHER_GRANT = Route("other", "grant")
OPTIONS = Route("other", public=True, by="options")
UPSTREAM = Route("/upstream", guard="manage", changes=True, by="upstream")  # a GET of any path may start the model
COMFYUI = Route("/comfyui", changes=True, by="comfyui")
LISTED = Route("/v1/models/{id}", by="listed")
ACTION = Route("/slots/{slot}", "slot_action", starts=False)

LOADING = "/v1/chat/completions"  # the only route whose streams tell that a model is being loaded
TEMPLATED: dict[str, Dialect] = {
    "/v1/chat/completions": "chat",
    "/chat/completions": "chat",
    "/v1/messages": "anthropic",
    "/v1/responses": "responses",
    "/v1/completions": "completion",
    "/completion": "completion",
    "/completions": "completion",
}
# These compute nothing but depend on the full text: a client that counts tokens wants those of the filled template.
COUNTED: dict[str, Dialect] = {
    "/v1/messages/count_tokens": "anthropic",
    "/v1/chat/completions/input_tokens": "chat",
    "/v1/responses/input_tokens": "responses",
    "/apply-template": "chat",
}
COMPUTING = (  # by POST with JSON or a form
    *TEMPLATED,
    "/infill", "/embedding", "/embeddings", "/v1/embeddings", "/rerank", "/reranking", "/v1/rerank",
)  # fmt: skip
MORE_COMPUTING = (  # only with many models, as in llama-swap; `/v/…`: engines whose base path is not `/v1`
    "/v1/reranking",
    "/v1/audio/speech", "/v1/audio/voices", "/v1/audio/transcriptions", "/v1/images/generations", "/v1/images/edits",
    "/sdapi/v1/txt2img", "/sdapi/v1/img2img", "/audioapi/v1/tasks/run",
    "/v/chat/completions", "/v/responses", "/v/completions", "/v/messages", "/v/embeddings", "/v/rerank",
    "/v/reranking",
)  # fmt: skip
COUNTING = (*COUNTED, "/tokenize", "/detokenize")
METERED_COUNTING = ("/v1/messages/count_tokens", "/v/messages/count_tokens")
STARTING = ("/v1/audio/voices", "/sdapi/v1/loras")  # by GET, and they may start a model
OLLAMA_COMPUTING = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings")
OLLAMA: tuple[tuple[str, str], ...] = (  # what else Ollama has; what changes its store of models is refused
    ("GET", "/api/tags"), ("GET", "/api/ps"), ("POST", "/api/show"), ("POST", "/api/pull"), ("POST", "/api/create"),
    ("POST", "/api/copy"), ("POST", "/api/push"), ("DELETE", "/api/delete"), ("*", "/api/blobs/{digest}"),
)  # fmt: skip
OLLAMA_VERSION = "/api/version"  # with many models it is llama-swap's on the proxy port
PROBES: dict[str, Gate] = {"/props": "free", "/lora-adapters": "free", "/slots": "shared", "/metrics": "shared"}
LISTS = ("/v1/models", "/models")
HEALTH = ("/health", "/v1/health")  # an engine's own
OUR_HEALTH = (*HEALTH, "/wol-health", "/livez", "/readyz")
MODELS = "/v1/models/"  # a model's name follows
MODEL = f"{MODELS}{{id}}"
NAMED_ONLY = "/metrics"  # with many models: without a model in the query it is another route
UPSTREAM_PATH = "/upstream/"
COMFYUI_PATH = "/comfyui"
MOST_SHOWN = 200  # characters of a path in an error's sentence


def posted(path: str, gate: Gate, *, metered: bool) -> Route:
    """A POST route; where its messages are is known by its usual path."""
    usual = path.replace("/v/", "/v1/", 1) if path.startswith("/v/") else path
    sent = path.removeprefix("/v" if path.startswith("/v/") else "/audioapi")
    return Route(
        path,
        gate,
        TEMPLATED.get(usual) or COUNTED.get(usual),
        path=b"" if sent == path else sent.encode(),
        metered=metered,
        loading=path == LOADING,
    )


def common() -> Router[Route]:
    """The routes of llama-server, and of Ollama."""
    router: Router[Route] = Router()
    for path in COMPUTING:
        router.add("POST", path, posted(path, "grant", metered=True))
    for path in COUNTING:
        router.add("POST", path, posted(path, "free", metered=path in METERED_COUNTING))
    for path in OLLAMA_COMPUTING:
        router.add("POST", path, Route(path, "grant", by="ollama"))
    for method, path in OLLAMA:
        router.add(method, path, Route(path, by="ollama"))
    for path, gate in PROBES.items():
        router.add("GET", path, Route(path, gate, starts=False))
    for path in ("/slots/{slot}", "/slots/{slot}/"):  # llama-server takes both
        router.add("POST", path, ACTION)
    return router


def may_prompt(method: str, path: str) -> bool:
    """Whether a request that takes a grant may go on from what a slot holds; what is embedded or ranked does not."""
    found = ONE.find(method, path)
    return found is None or found[0].dialect is not None or found[0].endpoint == "/infill"


def of_one() -> Router[Route]:
    """With what only one engine has; the rest is unknown, and passes."""
    router = common()
    for path in HEALTH:
        router.add("*", path, Route(path, public=True))
    for path in (*LISTS, "/"):
        router.add("GET", path, Route(path))
    router.add("GET", OLLAMA_VERSION, Route(OLLAMA_VERSION, by="ollama"))
    router.add("GET", f"{MODELS}{{id...}}", LISTED)
    return router


def of_many() -> Router[Route]:
    """With what only many models have; the rest is not served."""
    router = common()
    for path in MORE_COMPUTING:
        router.add("POST", path, posted(path, "grant", metered=True))
    router.add("POST", METERED_COUNTING[1], posted(METERED_COUNTING[1], "free", metered=True))
    for path in STARTING:
        router.add("GET", path, Route(path, changes=True))
    return router


ONE, MANY = of_one(), of_many()
OLLAMA_PORT = {  # what Ollama's own port answers otherwise than the proxy port
    "/": Route("/", public=True, by="ollama"),
    OLLAMA_VERSION: Route(OLLAMA_VERSION, by="ollama"),
}
OURS = {  # what many models answer by GET without an engine
    **dict.fromkeys(LISTS, Route("/v1/models", by="list")),
    **dict.fromkeys(OUR_HEALTH, Route("/health", public=True, by="health")),
}
HOT = {("POST", path): MANY.exact[path]["POST"] for path in (*COMPUTING, *MORE_COMPUTING)}  # without walking a router


# one engine


def find_for_one(request: Request) -> Route:
    """The route of a request; RequestError if the engine would read the target otherwise than we do."""
    route = HOT.get((request.method, request.path)) if request.path in TEMPLATED else None
    if route is None:
        check_action(request)
        match = ONE.find(request.method, request.path)
        route = match[0] if match is not None else None
    if route is None:
        return OTHER_FREE if request.method in READING_METHODS else OTHER_GRANT
    if hides_slash(request.target) and route.endpoint != MODEL:
        raise hidden_slash(request.target)
    return route


def check_action(request: Request) -> None:
    """RequestError if two readers could take one slot action for two."""
    if sum(name == "action" for name, _ in request.query) > 1:
        raise RequestError("the query names `action` more than once; send it once")


# many models


def find_for_many(request: Request, managing: Route | None) -> Route:
    """The route of a request, OTHER_FREE if there is none; `managing` is the one that manages models.

    RequestError if the query names two slot actions.
    """
    method, path = request.method, request.path
    if method == "OPTIONS":
        return OPTIONS
    ours = answered_by_us(path) if method in {"GET", "HEAD"} else None
    if ours is not None or managing is not None:
        return ours or managing or OTHER_FREE
    if path.startswith(UPSTREAM_PATH):
        return UPSTREAM
    if path == COMFYUI_PATH or path.startswith(f"{COMFYUI_PATH}/"):
        return COMFYUI
    check_action(request)
    found = find_model_path(method, path, request.target.partition(b"?")[2])
    return found if isinstance(found, Route) else OTHER_FREE


def answered_by_us(path: str) -> Route | None:
    """The route of a GET that needs no engine."""
    if path.startswith(MODELS) and path != MODELS:
        return LISTED
    return OURS.get(path)


def find_model_path(method: str, path: str, query: bytes = b"") -> Route | NotAllowed | None:
    """The route to a model; what methods its path has; or None for a path that leads to no model."""
    route = HOT.get((method, path))
    if route is not None:
        return route
    if path == NAMED_ONLY and not field(query, "model"):
        return None
    found = MANY.match(method, path)
    return found[0] if isinstance(found, tuple) else found


def unserved(request: Request) -> Unserved:
    """The error for a path that leads nowhere, or not by this method."""
    found = find_model_path(request.method, request.path, request.target.partition(b"?")[2])
    known = answered_by_us(request.path) is not None
    refusal = found if isinstance(found, NotAllowed) else NotAllowed("GET, HEAD") if known else None
    return not_served(request.method, request.path, refusal)


def not_served(method: str, path: str, found: NotAllowed | None, *, managing: bool = False) -> Unserved:
    """The sentence; it names what was meant, if that can be told."""
    shown = path[:MOST_SHOWN]
    if found is not None:
        return Unserved(f"{shown} is served by {found.allow}, not by {method}", allow=found.allow, managing=managing)
    known = (
        one
        for one in meant(path)
        if one != path and (f"{one}/".startswith(MODELS) or find_model_path(method, one, b"model=x") is not None)
    )
    hint = next(
        (f"did you mean {one}?" for one in known), "docs/api.md lists the routes; those of models begin with /v1/"
    )
    return Unserved(f"nothing is served at {shown}; {hint}")


def meant(path: str) -> Iterator[str]:
    """What a wrong path may stand for: its base URL has a part too many, or one too few, or it ends with a slash."""
    bare = path.rstrip("/")
    yield bare
    yield bare.removeprefix("/v1")
    yield bare[max(bare.rfind("/v1/"), 0) :]
    yield f"/v1{bare}"


def recorded(method: str, rest: str) -> bool:
    """Whether a request to `/upstream/<model><rest>` is a row of the activity page: a POST on a metered route."""
    found = find_model_path(method, rest)
    return isinstance(found, Route) and found.metered


def only_looks(method: str, rest: str) -> bool:
    """Whether a request to `/upstream/<model><rest>` only looks: it starts nothing, and keeps no model loaded."""
    found = find_model_path(method, rest, b"model=any")
    return (method in {"GET", "HEAD"} and rest in HEALTH) or (isinstance(found, Route) and not found.starts)


def engine_target(route: Route, target: bytes) -> bytes:
    """The target for the engine: the route's path with the client's query; the same object if nothing changes."""
    if not route.path:
        return target
    _, mark, query = target.partition(b"?")
    return route.path + mark + query


def look_target(requested: str, *, loaded: Sequence[str]) -> str:
    """The model that a look without a name means: the only one that is loaded; NotFound if it is not the only one."""
    if requested:
        return requested
    if len(loaded) == 1:
        return loaded[0]
    raise NotFound(
        f"no model id could be identified: {len(loaded)} models are loaded, so name one, as in `?model=<id>`"
    )


def not_loaded(model: str, path: str) -> RequestError:
    """The answer to a look at a model that is not ready."""
    return RequestError(
        f"model {model} is not loaded; {path} does not start it, a request that computes does", status=409
    )
