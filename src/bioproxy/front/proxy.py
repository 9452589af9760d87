"""The proxy port's handler: from a parsed request to its record.

`Front.handle` is the one task of a request. It names the exchange, judges key and origin, finds the route, hands over
to `inference` or `passthrough`, and in its one `finally` publishes the record, whatever happened. Errors are turned
into answers here and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import msgspec

from bioproxy import log as logs
from bioproxy.activity import Outcome
from bioproxy.config.schema import Config
from bioproxy.errors import (
    BioproxyError,
    EngineProtocolError,
    EngineRefused,
    EngineUnavailable,
    Forbidden,
    QueueFull,
    QueueTimeout,
    Unauthorized,
)
from bioproxy.events import Bus, RequestEnded
from bioproxy.front import passthrough, routes
from bioproxy.front.cors import Cors
from bioproxy.front.engine import Engine
from bioproxy.front.exchange import MOST_SHOWN, Exchange
from bioproxy.front.explain import explain
from bioproxy.front.forward import request_headers
from bioproxy.front.inference import Inference, error_text, open_body
from bioproxy.front.recent import Recent
from bioproxy.keys import Keyring, presented
from bioproxy.templates import bodies
from bioproxy.wire.message import Request, Responder

log = logging.getLogger(__name__)
MISS_TOKENS = 256  # evaluated tokens from which a miss is worth a look at where it differs
ENGINE_ERRORS = (EngineUnavailable, EngineProtocolError, EngineRefused)


class Front:
    """Everything a request on the proxy port needs. `configure` is called again by a reload."""

    def __init__(self, config: Config, *, engine: Engine, bus: Bus) -> None:
        self.engine = engine
        self.bus = bus
        self.recent = Recent()
        self.running = 0
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take over keys, origins and periods; requests under way keep what they began with."""
        self.keyring = Keyring(config.api_keys)
        self.admin_keyring = Keyring((config.admin_key,) if config.admin_key else ())
        self.keys = bool(config.api_keys)
        self.cors = Cors(config.cors_origins, keys=self.keys)
        self.keepalive = config.stream_keepalive
        self.trusted: list[IPv4Network | IPv6Network] = [
            ip_network(net, strict=False) for net in config.trusted_proxies
        ]

    async def handle(self, request: Request, responder: Responder) -> None:
        """Serve one request; never raises but for a cancellation."""
        exchange = Exchange(request, responder, routes.OTHER_FREE)
        logs.request_id.set(exchange.id)
        responder.extra = [(b"X-Request-Id", exchange.id.encode()), *self.cors.headers(request)]
        if exchange.dialect == "anthropic":
            responder.extra.append((b"Request-Id", exchange.id.encode()))
        self.running += 1
        try:
            exchange.turn_to(routes.find(request))
            await self.route(exchange)
        except BioproxyError as error:
            if isinstance(error, ENGINE_ERRORS):
                self.engine.attachment.suspect(error.message)
            exchange.fail(error, outcome_of(error))
        except asyncio.CancelledError:
            exchange.record.outcome = "client_left"
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            exchange.fail(
                BioproxyError(f"bioproxy failed on this request; its log has the trace of {exchange.id}"), "error"
            )
        finally:
            self.running -= 1
            self.end(exchange)

    def end(self, exchange: Exchange) -> None:
        """Publish the record, once."""
        record = exchange.close()
        if record.outcome == "ok" and record.status >= 400:
            record.outcome = "engine_error" if record.status >= 500 else "client_error"
            record.error = record.error or error_text(exchange.tail.last())
        record.why = explain(record)
        self.bus.publish(RequestEnded(record=record))

    async def route(self, exchange: Exchange) -> None:
        """Judge who asks, then go the way of the route."""
        request, route = exchange.request, exchange.route
        if self.cors.is_preflight(request):
            exchange.record.status = 204
            exchange.responder.send(204, self.cors.preflight(request), b"")
            return
        self.admit(exchange)
        headers = request_headers(request, request_id=exchange.id, drop_keys=self.keys, engine_key=self.engine.key)
        if route.gate == "shared":
            await passthrough.shared(exchange, self.engine)
        elif route.dialect is not None:
            await self.infer(exchange, headers)
        elif route.gate == "grant":
            if exchange.principal is not None and exchange.principal.models and route is not routes.OTHER_GRANT:
                self.allow_model(exchange, bodies.open_body(request.body).model)
            body = passthrough.without_slot(request.body, known=route is not routes.OTHER_GRANT)
            await passthrough.gated(exchange, self.engine, headers, body)
        elif route.gate == "slot_action":
            admin = self.admin_keyring.find(presented(request.header)) is not None
            self.cors.check(request)
            passthrough.check_slot_action(exchange, keys=self.keys, admin=admin)
            await passthrough.slot_action(exchange, self.engine, headers, request.body)
        else:
            await passthrough.free(exchange, self.engine, headers, request.body)

    def admit(self, exchange: Exchange) -> None:
        """Find out who asks: the key's owner, or an address; Unauthorized where a key is wanted and none fits."""
        request = exchange.request
        if not self.keys:
            exchange.record.client = self.address(request)
            return
        principal = self.keyring.find(presented(request.header))
        if principal is None and (exchange.route.gate == "slot_action"):
            principal = self.admin_keyring.find(presented(request.header))
            principal = principal and msgspec.structs.replace(principal, name="admin")
        if principal is None:
            if exchange.route.public:
                return
            raise Unauthorized("this server wants an API key: send it as `Authorization: Bearer <key>` or `x-api-key`")
        exchange.record.client = principal.name
        user = request.header(b"x-openwebui-user-id") if principal.forwards_users else None
        if user:
            exchange.record.client = f"{principal.name}/{user.decode('latin-1')[:64]}"
            principal = principal.of_user(user)
        exchange.principal = principal

    def address(self, request: Request) -> str:
        """The client's address: where a trusted proxy asks, the one that it got the request from.

        Each proxy adds an address at the end of X-Forwarded-For, so it is read from there; what stands before the first
        one that is not trusted was written by the client, who may write anything.
        """
        address = request.peer
        if not self.trusted or not self.trusts(address):
            return address
        lines = [value for name, value in request.headers if name.lower() == b"x-forwarded-for"]
        for part in reversed(b",".join(lines).split(b",")):
            try:
                address = str(ip_address(part.strip().decode("latin-1")))
            except ValueError:
                break
            if not self.trusts(address):
                break
        return address

    def trusts(self, address: str) -> bool:
        """Whether `address` is one of `trusted_proxies`."""
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in net for net in self.trusted)

    async def infer(self, exchange: Exchange, headers: list[tuple[bytes, bytes]]) -> None:
        """Expand, then compute (or only count, where the route computes nothing)."""
        expanded = open_body(exchange, self.engine)
        self.allow_model(exchange, expanded.model)
        if exchange.route.gate == "free":
            await passthrough.free(exchange, self.engine, headers, expanded.body)
            return
        inference = Inference(exchange, self.engine, expanded, headers=headers, period=self.keepalive)
        await inference.run()
        if inference.want.store and expanded.pieces:
            record = exchange.record
            group = inference.want.group
            if record.cache == "miss" and (record.tokens_evaluated or 0) >= MISS_TOKENS:
                record.miss = self.recent.difference(group, expanded.pieces)
            self.recent.add(group, expanded.pieces)

    @staticmethod
    def allow_model(exchange: Exchange, model: str) -> None:
        """Forbidden where the key is for other models only."""
        principal = exchange.principal
        if principal is not None and principal.models and model not in principal.models:
            asked = repr(model[:MOST_SHOWN]) if model else "no model at all"
            raise Forbidden(f"this key may ask for {', '.join(principal.models)}, not for {asked}")


def outcome_of(error: BioproxyError) -> Outcome:
    """The metrics' word for an error."""
    if isinstance(error, QueueFull):
        return "rejected"
    if isinstance(error, QueueTimeout):
        return "timeout"
    if isinstance(error, ENGINE_ERRORS):
        return "engine_error"
    return "client_error" if error.status < 500 else "error"
