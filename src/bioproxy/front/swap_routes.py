"""The routes that lead to a model: which paths name one, what the engine is asked for, and what may start it.

The list is llama-swap's, and beside it the routes of llama-server that its own router takes with a `model`: a client
that counts tokens or looks at `/props` should not have to know `/upstream/<model>/…`. Three things differ from one
route to the next:

- **path**: `/v/chat/completions` is `/chat/completions` for engines whose base path is not `/v1`, and
  `/audioapi/v1/tasks/run` is `/v1/tasks/run`.
- **starts**: what computes, and what a client asks right before it computes (counting, tokenizing, voices, LoRAs),
  starts the model. What only looks (`/props`, `/slots`, `/metrics`, `/lora-adapters`) does not: chat pages and monitors
  ask every few seconds, and would swap out what somebody uses. llama-swap starts a model for `/props`; its users asked
  for what we do. Slot actions neither: there is nothing to save in a model that is not there.
- **metered**: its answers have tokens to count, and it is a row of the activity page: all POST routes of llama-swap.

A look that names no model is meant for the model that is loaded, if it is only one: so tools made for one llama-server
find their way. `/metrics` alone is ours, and with `?model=` the engine's.

A known path with another method is a 405 that names the right one. Everything else is not ours to pass on: with many
engines nobody can say which one an unknown path is for. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from bioproxy.errors import NotFound, RequestError
from bioproxy.front.cors import Cors
from bioproxy.front.form import field
from bioproxy.front.routes import COUNTED, MODELS, TEMPLATED, Gate, Route
from bioproxy.front.swap_errors import Unserved
from bioproxy.wire.http1.message import Headers, Request
from bioproxy.wire.http1.router import NotAllowed, Router

LOADING = "/v1/chat/completions"  # the only route whose streams tell that a model is being loaded

# llama-swap's, by POST with JSON or a form
COMPUTING = (
    "/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/messages", "/v1/embeddings",
    "/reranking", "/rerank", "/v1/rerank", "/v1/reranking", "/infill", "/completion",
    "/v1/audio/speech", "/v1/audio/voices", "/v1/audio/transcriptions", "/v1/images/generations", "/v1/images/edits",
    "/sdapi/v1/txt2img", "/sdapi/v1/img2img", "/audioapi/v1/tasks/run",
    "/v/chat/completions", "/v/responses", "/v/completions", "/v/messages", "/v/embeddings", "/v/rerank",
    "/v/reranking",
)  # fmt: skip
COUNTING = ("/v1/messages/count_tokens", "/v/messages/count_tokens")
READING = ("/v1/audio/voices", "/sdapi/v1/loras")  # by GET, and they may start a model
# llama-server's own
OTHER_COMPUTING = ("/chat/completions", "/completions", "/embedding", "/embeddings")
OTHER_COUNTING = (
    "/v1/chat/completions/input_tokens", "/v1/responses/input_tokens", "/apply-template", "/tokenize", "/detokenize",
)  # fmt: skip
PROBES: dict[str, Gate] = {"/props": "free", "/lora-adapters": "free", "/slots": "shared", "/metrics": "shared"}
HEALTH = ("/health", "/v1/health")  # an engine's own
MOST_SHOWN = 200  # characters of a path in an error's sentence
NAMED_ONLY = "/metrics"  # without a model in the query it is another route
TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class ModelRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One route. `path` is what the engine is asked for; `loading`: its streams may tell that the model is loading."""

    route: Route
    path: str
    starts: bool = True
    metered: bool = False
    loading: bool = False


def engine_path(path: str) -> str:
    """What the engine is asked for instead of `path`."""
    return path.removeprefix("/v" if path.startswith("/v/") else "/audioapi")


def described(path: str, gate: Gate, *, metered: bool) -> ModelRoute:
    """A POST route; where its messages are, the tables of routes.py know by its usual path."""
    usual = path.replace("/v/", "/v1/", 1) if path.startswith("/v/") else path
    dialect = TEMPLATED.get(usual) or COUNTED.get(usual)
    return ModelRoute(
        route=Route(path, gate, dialect), path=engine_path(path), metered=metered, loading=path == LOADING
    )


def build() -> Router[ModelRoute]:
    """The table."""
    router: Router[ModelRoute] = Router()
    for path in COMPUTING:
        router.add("POST", path, described(path, "grant", metered=True))
    for path in COUNTING:
        router.add("POST", path, described(path, "free", metered=True))
    for path in OTHER_COMPUTING:
        router.add("POST", path, described(path, "grant", metered=True))
    for path in OTHER_COUNTING:
        router.add("POST", path, described(path, "free", metered=False))
    for path in READING:
        router.add("GET", path, ModelRoute(route=Route(path, "free", changes=True), path=path))
    for path, gate in PROBES.items():
        router.add("GET", path, ModelRoute(route=Route(path, gate), path=path, starts=False))
    action = Route("/slots/{slot}", "slot_action")
    for path in ("/slots/{slot}", "/slots/{slot}/"):
        router.add("POST", path, ModelRoute(route=action, path="", starts=False))  # as it came
    return router


ROUTER = build()
EXACT = {  # without a walk through the router
    ("POST", path): ROUTER.exact[path]["POST"] for path in (*COMPUTING, *OTHER_COMPUTING, *COUNTING, *OTHER_COUNTING)
}


def find(request: Request) -> ModelRoute | NotAllowed | None:
    """The route of a request; what methods its path has; or None for a path that leads to no model."""
    return find_path(request.method, request.path, request.target.partition(b"?")[2])


def find_path(method: str, path: str, query: bytes = b"") -> ModelRoute | NotAllowed | None:
    """The same for a path alone, such as the rest behind `/upstream/<model>`."""
    route = EXACT.get((method, path))
    if route is not None:
        return route
    if path == NAMED_ONLY and not field(query, "model"):
        return None
    found = ROUTER.match(method, path)
    return found[0] if isinstance(found, tuple) else found


def unserved(method: str, path: str, found: NotAllowed | None, *, managing: bool = False) -> Unserved:
    """The error for a path that is not served, or not by this method; it names what was meant, if that can be told."""
    shown = path[:MOST_SHOWN]
    if found is not None:
        return Unserved(f"{shown} is served by {found.allow}, not by {method}", allow=found.allow, managing=managing)
    known = (
        one
        for one in meant(path)
        if one != path and (f"{one}/".startswith(MODELS) or find_path(method, one, b"model=x") is not None)
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
    found = find_path(method, rest)
    return isinstance(found, ModelRoute) and found.metered


def only_looks(method: str, rest: str) -> bool:
    """Whether a request to `/upstream/<model><rest>` only looks: it starts nothing, and keeps no model loaded."""
    found = find_path(method, rest, b"model=any")
    return (method in {"GET", "HEAD"} and rest in HEALTH) or (isinstance(found, ModelRoute) and not found.starts)


def engine_target(route: ModelRoute, target: bytes) -> bytes:
    """The target for the engine: the route's path with the client's query; the same object where nothing changes."""
    path, mark, query = target.partition(b"?")
    wanted = route.path.encode()
    return target if not wanted or path == wanted else wanted + mark + query


def look_target(requested: str, *, loaded: Sequence[str]) -> str:
    """The model that a look without a name means: the only one that is loaded; NotFound where that is not one."""
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


def options_headers(cors: Cors, request: Request) -> Headers:
    """The headers of the 204 that answers OPTIONS on any path, without a key; no engine ever sees one.

    llama-swap says `*` to every page, and its other answers allow none: pages can make models compute, and cannot read
    what they said. Here one rule decides both (front/cors.py). As there, words of the asked-for headers that are no
    tokens are left out, or they could add lines of their own.
    """
    headers = [pair for pair in cors.preflight(request) if pair[0] != b"Access-Control-Allow-Headers"]
    if not cors.headers(request):
        return headers
    asked = (request.header(b"access-control-request-headers") or b"").decode("latin-1")
    names = [name for word in asked.split(",") if (name := word.strip()) and TOKEN.issuperset(name)]
    allowed = ", ".join(names) or "Content-Type, Authorization, Accept, X-Requested-With"
    return [*headers, (b"Access-Control-Allow-Headers", allowed.encode())]
