"""Where requests go when there is one engine: everything that bioproxy does not know goes there unchanged."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bioproxy.front import passthrough, routes
from bioproxy.front.access import Access
from bioproxy.front.dialects import JSON
from bioproxy.front.exchange import Exchange
from bioproxy.front.forward import request_headers
from bioproxy.front.inference import infer, open_body
from bioproxy.front.recent import Recent
from bioproxy.front.routes import Route
from bioproxy.front.seat import Life, Only
from bioproxy.station import Station
from bioproxy.templates import bodies
from bioproxy.wire.http1.message import Headers, Request


class OneEngine:
    """Dispatch to the one engine."""

    envelope = False

    def __init__(self, engine: Station, life: Callable[[], Life | None] = lambda: None) -> None:
        self.engine = engine
        self.life = life  # the engine's present process, if it is ours
        self.recent = Recent()

    def find(self, request: Request) -> Route:
        """The route of a request; RequestError if the engine would read the target otherwise than we do."""
        return routes.find(request)

    def preflight(self, access: Access, request: Request) -> Headers:
        """As the rule for origins says."""
        return access.cors.preflight(request)

    def failed(self, exchange: Exchange, reason: str) -> None:  # noqa: ARG002 - there is only one
        """The engine failed a request: have it looked at."""
        self.engine.attachment.suspect(reason)

    def ended(self, exchange: Exchange, client: str) -> None:
        """The record says it all."""

    async def serve(self, exchange: Exchange, access: Access, *, keepalive: float) -> None:
        """Go the way of the route."""
        request, route, engine, seat = exchange.request, exchange.route, self.engine, Only(self.engine, self.life)
        headers = request_headers(request, request_id=exchange.id, drop_keys=access.keys, engine_key=engine.key)
        if route.gate == "shared":
            await passthrough.shared(exchange, engine)
        elif route.endpoint == routes.MODEL:
            await self.one_model(exchange, headers)
        elif route.dialect is not None:
            await self.expand(exchange, access, headers, keepalive)
        elif route.gate == "grant":
            if exchange.principal is not None and exchange.principal.models and route is not routes.OTHER_GRANT:
                access.allow_model(exchange, bodies.open_body(request.body).model)
            body = passthrough.without_slot(request.body, known=route is not routes.OTHER_GRANT)
            await passthrough.gated(exchange, engine, seat, headers, body)
        elif route.gate == "slot_action":
            passthrough.check_slot_action(exchange, keys=access.keys, admin=access.is_admin(request))
            await passthrough.slot_action(exchange, engine, seat, headers, request.body)
        else:
            await passthrough.free(exchange, engine, headers, request.body)

    async def one_model(self, exchange: Exchange, headers: Headers) -> None:
        """`/v1/models/{id}`, which OpenAI's clients ask for and llama-server has not: as its list shows the model.

        Of a model that is not in the list the engine says itself what it knows.
        """
        plain = [pair for pair in headers if pair[0].lower() != b"accept-encoding"]
        response = await self.engine.pool.request("GET", b"/v1/models", plain, b"")
        found = listed(await response.read(), exchange.request.path.removeprefix(routes.MODELS))
        if response.status != 200 or found is None:
            await passthrough.free(exchange, self.engine, headers, b"")
            return
        exchange.answered(200, [JSON], {})
        exchange.responder.send(200, [JSON], found)

    async def expand(self, exchange: Exchange, access: Access, headers: Headers, keepalive: float) -> None:
        """Fill templates in, then compute (or only count, where the route computes nothing)."""
        expanded = open_body(exchange, self.engine)
        access.allow_model(exchange, expanded.model)
        if exchange.route.gate == "free":
            await passthrough.free(exchange, self.engine, headers, expanded.body)
            return
        await infer(
            exchange,
            self.engine,
            Only(self.engine, self.life),
            expanded,
            headers=headers,
            period=keepalive,
            recent=self.recent,
        )


class Names(msgspec.Struct):
    """What a record of an engine's list of models calls its model."""

    id: str = ""
    aliases: tuple[str, ...] = ()


class Listing(msgspec.Struct):
    """An engine's list of models; each record as it came."""

    data: list[msgspec.Raw] = []


def listed(body: bytes, name: str) -> bytes | None:
    """The record of a model in an engine's list; None if there is none by this name."""
    try:
        for record in msgspec.json.decode(body, type=Listing).data:
            names = msgspec.json.decode(record, type=Names)
            if name == names.id or name in names.aliases:
                return bytes(record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # no list that we know
    return None
