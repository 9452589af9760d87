"""Ollama's routes on the proxy port: what computes goes the road of every request, the rest is answered here.

    /api/chat ─► requests.translate ─► the exchange asks for /v1/chat/completions ─► dispatch.serve ─► answers.Rewriting

So templates, gate, cache, fairness, records and errors are those of the route that it becomes. `/api/version` is the
version of Ollama whose API this is: clients refuse one that is too old.

Ollama's clients write `qwen:latest` for `qwen`, whatever they were told, so `:latest` is taken off a name that is not
known with it. `keep_alive` counts only without anything to compute: then the model is loaded, or unloaded if it is 0
and its client may manage models. How long a model stays is decided by its `ttl`.

What can be cancelled: nothing here waits but for the road, and for a load, which goes on without its client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeAlias

import msgspec

from bioproxy.errors import BioproxyError, Forbidden, NotFound, RequestError
from bioproxy.front import routes
from bioproxy.front.access import Access
from bioproxy.front.dialects import dialect_of
from bioproxy.front.dispatch import JSON_TYPE, Dispatch
from bioproxy.front.exchange import MOST_SHOWN, Exchange
from bioproxy.front.many import ManyModels
from bioproxy.front.ollama import requests
from bioproxy.front.ollama.answers import LINES, Moment, Rewriting, nothing_said
from bioproxy.front.ollama.requests import Call, Load
from bioproxy.front.ways import apart
from bioproxy.models.fleet import Fleet

Json: TypeAlias = Any

VERSION = "0.12.6"
RUNNING = b"Ollama is running"
TEXT = (b"Content-Type", b"text/plain; charset=utf-8")
LATEST = ":latest"
ZONE = len("+00:00")
REPLACED = frozenset({b"content-type", b"accept", b"accept-encoding"})  # of the request: the engine answers in plain
REFUSED = "bioproxy keeps no store of models: add, change and remove them in its configuration"


class Ollama:
    """What answers. `describe` makes the bodies of `tags` and `ps`, and of `show` for a name (None: no such model)."""

    def __init__(self, dispatch: Dispatch, fleet: Fleet, *, describe: Callable[[str, str], Awaitable[Json]]) -> None:
        self.dispatch, self.fleet, self.describe = dispatch, fleet, describe

    async def serve(self, exchange: Exchange, access: Access) -> None:
        """Answer, or raise what the client shall be told."""
        exchange.envelope = False
        path = exchange.route.endpoint
        if path in routes.OLLAMA_COMPUTING:
            await self.compute(exchange, access, path)
        elif path == "/":
            exchange.responder.send(200, [TEXT], RUNNING)
        elif path == routes.OLLAMA_VERSION:
            send(exchange, {"version": VERSION})
        elif path in {"/api/tags", "/api/ps"}:
            send(exchange, await self.describe(path.removeprefix("/api/"), ""))
        elif path in {"/api/show", "/api/pull"}:
            await self.one(exchange, path)
        else:
            raise BioproxyError(f"{path.partition('{')[0]} is not served: {REFUSED}", status=501)

    async def one(self, exchange: Exchange, path: str) -> None:
        """What is known of a model; to pull one that is there is done at once."""
        name, streams = requests.named(exchange.request.body)
        found = await self.describe("show", self.bare(name))
        if found is None:
            said = f"model {name[:MOST_SHOWN]!r} not found; /api/tags lists those that there are"
            raise NotFound(said if path == "/api/show" else f"{said}. {REFUSED}")
        if path == "/api/show":
            send(exchange, found)
        else:
            send(exchange, {"status": "success"}, lines=streams)

    # what computes

    async def compute(self, exchange: Exchange, access: Access, path: str) -> None:
        """A request of the road, once it is translated; of a large body in a thread."""
        raw = exchange.request.body
        named, asked = await apart(len(raw), requests.translate, path, raw)
        name = self.bare(named)
        if isinstance(asked, Load):
            await self.load(exchange, access, asked, named=named, name=name)
            return
        body = await apart(len(raw), msgspec.json.encode, {**asked.body, "model": name})
        rewriting = Rewriting(asked.shape, named, moment=partial(moment, exchange))
        become(exchange, asked, body)
        exchange.responder.rewriter = rewriting
        await self.dispatch.serve(exchange, access)

    async def load(self, exchange: Exchange, access: Access, asked: Load, *, named: str, name: str) -> None:
        """Have a model loaded or unloaded."""
        model = self.local(exchange, access, name)
        if asked.unloads:
            access.admit_operator(exchange)
            if exchange.principal is not None and exchange.principal.models:
                raise Forbidden("a key for certain models unloads none; that wants admin_key")
            await self.fleet.unload(model)
        else:
            await self.fleet.load(model)
        exchange.record.model = model[:MOST_SHOWN]
        reason = "unload" if asked.unloads else "load"
        told = nothing_said(asked.shape, named, written=written(), reason=reason)
        send(exchange, told, lines=asked.shape in {"chat", "generate"})

    def local(self, exchange: Exchange, access: Access, name: str) -> str:
        """The model of ours that a name means, for a client that may ask for it; "" for the only engine."""
        if self.fleet.only is not None:
            access.allow_model(exchange, name)
            return ""
        assert isinstance(self.dispatch, ManyModels)
        target = self.dispatch.target(name)
        access.allow_model(exchange, name, target.name, target.model)
        if target.peer:
            raise RequestError(f"{name} is a model of the peer {target.peer}, which loads it when it is asked for")
        return target.model

    def bare(self, name: str) -> str:
        """The name without Ollama's tag, unless it is known with it."""
        plain = name.removesuffix(LATEST)
        return name if plain == name or self.known(name) else plain

    def known(self, name: str) -> bool:
        """Whether one of many models has this very name."""
        registry = self.fleet.plan.registry
        return name in registry.pins or name in registry.selectors or registry.find(name) is not None


def become(exchange: Exchange, call: Call, body: bytes) -> None:
    """From here on the exchange is a request of the road; its record keeps the path that the client asked for."""
    request = exchange.request
    request.body = exchange.body = body
    request.headers[:] = [pair for pair in request.headers if pair[0].lower() not in REPLACED]
    request.headers += [JSON_TYPE, (b"Accept", b"*/*"), (b"Accept-Encoding", b"identity")]
    for name in REPLACED:
        request.fields.pop(name, None)
    request.fields[b"content-type"] = JSON_TYPE[1]
    exchange.route = routes.HOT["POST", call.path]
    exchange.target, exchange.record.req_path = call.path.encode(), call.path
    exchange.dialect = dialect_of(call.path)


def send(exchange: Exchange, value: Json, *, lines: bool = False) -> None:
    """An answer of ours; as the one line of a stream if its client reads `lines`."""
    body = msgspec.json.encode(value)
    kind = (b"Content-Type", LINES) if lines else JSON_TYPE
    exchange.responder.send(200, [kind, (b"Cache-Control", b"no-store")], body + b"\n" if lines else body)


def moment(exchange: Exchange) -> Moment:
    """Now, for one request."""
    return Moment(written(), exchange.since_arrival(), exchange.record.swap)


def written() -> str:
    """The time as Ollama writes it."""
    return f"{datetime.now(UTC).isoformat()[:-ZONE]}Z"
