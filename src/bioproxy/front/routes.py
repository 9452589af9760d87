"""The routes of the proxy port: what bioproxy knows about a request before it reads the body.

Everything that is not in this table goes to the engine unchanged. A route says three things: does it use the engine
(`gate`), in which shape are its messages (`dialect`), and the name under which metrics count it (`endpoint`; everything
unknown is `other`, or a scanner could fill the disk of a Prometheus server).

Why an unknown POST takes a grant and an unknown GET does not: an engine's new computing route would otherwise pass by
the gate, and llama-server has no GET that computes (kv-rule 4).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from bioproxy.errors import RequestError
from bioproxy.templates.bodies import Dialect
from bioproxy.wire.http1.message import Request
from bioproxy.wire.http1.router import Router
from bioproxy.wire.http1.target import hidden_slash, hides_slash

READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
Gate = Literal["grant", "free", "slot_action", "shared"]


class Route(msgspec.Struct, frozen=True):
    """`gate`: grant (computes), free, slot_action (runs alone), shared (one answer for two seconds).

    `changes`: its GET starts, stops or changes something, as every POST may; a foreign page may not ask for that.
    `guard`: it manages models (`manage`), or shows what others asked and got (`private`), or is of that kind and open
    to all (`open`); "": a client's own business.
    """

    endpoint: str
    gate: Gate
    dialect: Dialect | None = None  # where messages or prompts are expanded
    public: bool = False  # served without a key
    guard: Literal["", "open", "manage", "private"] = ""
    changes: bool = False

    def changed_by(self, request: Request) -> bool:
        """Whether something may be another after this request."""
        return self.changes or request.method not in READING_METHODS

    @property
    def admin(self) -> bool:
        """Whether the admin key opens it, too."""
        return self.gate == "slot_action"


OTHER_FREE = Route("other", "free")
OTHER_GRANT = Route("other", "grant")

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
COMPUTING = ("/infill", "/embedding", "/embeddings", "/v1/embeddings", "/rerank", "/reranking", "/v1/rerank")
FREE = ("/tokenize", "/detokenize")
MODELS = "/v1/models/"  # behind it a model's name
MODEL = f"{MODELS}{{id}}"
READING = ("/props", "/v1/models", "/models", "/lora-adapters", "/api/tags", "/")


def build() -> Router[Route]:
    """The table as a router; a path that is in it for other methods only is treated as unknown."""
    router: Router[Route] = Router()
    for path in ("/health", "/v1/health"):
        router.add("*", path, Route(path, "free", public=True))
    for path, dialect in TEMPLATED.items():
        router.add("POST", path, Route(path, "grant", dialect))
    for path, dialect in COUNTED.items():
        router.add("POST", path, Route(path, "free", dialect))
    for path in COMPUTING:
        router.add("POST", path, Route(path, "grant"))
    for path in FREE:
        router.add("POST", path, Route(path, "free"))
    for path in READING:
        router.add("GET", path, Route(path, "free"))
    router.add("GET", f"{MODELS}{{id...}}", Route(MODEL, "free"))
    for path in ("/slots", "/metrics"):
        router.add("GET", path, Route(path, "shared"))
    for path in ("/slots/{slot}", "/slots/{slot}/"):  # llama-server takes both
        router.add("POST", path, Route("/slots/{slot}", "slot_action"))
    return router


ROUTER = build()
EXACT = {  # the hot ones, without walking the router
    ("POST", path): Route(path, "grant", dialect) for path, dialect in TEMPLATED.items()
}


def names_model(path: str) -> bool:
    """Whether a path is `/v1/models/{id}`."""
    return path.startswith(MODELS) and path != MODELS


def check_action(request: Request) -> None:
    """RequestError if two readers could take one slot action for two."""
    if sum(name == "action" for name, _ in request.query) > 1:
        raise RequestError("the query names `action` more than once; send it once")


def find(request: Request) -> Route:
    """The route of a request; RequestError if the engine would read the target otherwise than we do."""
    route = EXACT.get((request.method, request.path))
    if route is None:
        check_action(request)
        match = ROUTER.find(request.method, request.path)
        route = match[0] if match is not None else None
    if route is not None:
        if hides_slash(request.target) and route.endpoint != MODEL:
            raise hidden_slash(request.target)
        return route
    return OTHER_FREE if request.method in READING_METHODS else OTHER_GRANT
