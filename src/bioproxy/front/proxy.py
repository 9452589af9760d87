"""The proxy port's handler: from a parsed request to its record.

`Front.handle` is the one task of a request. It names the exchange, judges key and origin, finds the route, hands over
to a dispatch (one engine: dispatch.py; many models: many.py), and in its one `finally` publishes the record, whatever
happened. Errors are turned into answers here and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

from bioproxy import log as logs
from bioproxy.activity import Outcome
from bioproxy.config.addresses import stays_here
from bioproxy.config.settings import Settings
from bioproxy.errors import (
    BioproxyError,
    Closed,
    EngineProtocolError,
    EngineRefused,
    EngineUnavailable,
    ForeignPage,
    QueueFull,
    QueueTimeout,
    RequestError,
    TokensSpent,
)
from bioproxy.events import Bus, RequestEnded
from bioproxy.front import routes
from bioproxy.front.access import Access
from bioproxy.front.allowance import Allowances
from bioproxy.front.cors import Refusals
from bioproxy.front.dispatch import Dispatch
from bioproxy.front.exchange import Exchange
from bioproxy.front.later import Later
from bioproxy.front.ollama.road import Ollama
from bioproxy.front.routes import Route
from bioproxy.front.ways import unpack
from bioproxy.wire.coding import CODINGS
from bioproxy.wire.http1.message import Request, Responder

log = logging.getLogger(__name__)
UNPACKED = 2  # compressed bodies that are opened in threads at once
ENGINE_ERRORS = (EngineUnavailable, EngineProtocolError, EngineRefused)


class Front:
    """Everything a request on the proxy port needs."""

    def __init__(
        self, settings: Settings, *, dispatch: Dispatch, ollama: Ollama, bus: Bus, allowances: Allowances
    ) -> None:
        self.settings, self.allowances = settings, allowances
        self.dispatch = dispatch
        self.ollama = ollama
        self.bus = bus
        self.refusals = Refusals()
        self.local = stays_here(settings.config.proxy_host)
        self.make_access = lambda config: Access(config, local=self.local, allowances=allowances)
        self.unpacking = asyncio.Semaphore(UNPACKED)
        self.later = Later(self.handle)
        dispatch.go_on = self.later.go_on

    @property
    def access(self) -> Access:
        """The rule about keys and origins; a request keeps the one that it began with."""
        found = self.settings.known.get(self.make_access)  # made at the first request after a reload
        return found or self.settings.made(self.make_access)

    async def handle_ollama(self, request: Request, responder: Responder) -> None:
        """Serve one request that came to Ollama's own port."""
        await self.handle(request, responder, port=routes.OLLAMA_PORT)

    async def handle(self, request: Request, responder: Responder, *, port: Mapping[str, Route] | None = None) -> None:
        """Serve one request; never raises but for a cancellation. `port`: what its port answers to a GET itself."""
        exchange, access = Exchange(request, responder, routes.OTHER_FREE), self.access
        request.peer = access.address(request) if access.trusted else request.peer
        exchange.envelope = self.dispatch.envelope
        logs.request_id.set(exchange.id)
        responder.extra = [(b"X-Request-Id", exchange.id.encode())]
        page = b"origin" in request.fields
        if page:
            responder.extra += access.cors.headers(request)
        if exchange.dialect == "anthropic":
            responder.extra.append((b"Request-Id", exchange.id.encode()))
        try:
            own = port.get(request.path) if port is not None and request.method in {"GET", "HEAD"} else None
            exchange.route = route = own or self.dispatch.find(request)
            exchange.record.endpoint = route.endpoint
            if request.method == "OPTIONS" and access.cors.is_preflight(request):
                self.note_unread(exchange, access)
                exchange.record.status = 204
                responder.send(204, self.dispatch.preflight(access, request), b"")
                return
            access.admit(exchange)
            if page:
                self.note_unread(exchange, access)
            if b"content-encoding" in request.fields:
                await self.unpack(exchange)
            road = self.ollama if route.by == "ollama" else self.dispatch
            await road.serve(exchange, access)
        except BioproxyError as error:
            if isinstance(error, ENGINE_ERRORS):
                self.dispatch.failed(exchange, error.message)
            if isinstance(error, ForeignPage):
                self.note(exchange, error.page, error.message)
            exchange.fail(error, outcome_of(error))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not exchange.cancelled or task is None or task.uncancel():
                exchange.record.outcome = "client_left"
                raise
            exchange.fail(BioproxyError("the request was cancelled by an operator", status=503), "error")
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            exchange.fail(
                BioproxyError(f"bioproxy failed on this request; its log has the trace of {exchange.id}"), "error"
            )
        finally:
            self.dispatch.inflight.remove(exchange)
            record = exchange.close()
            capture = exchange.capture() if exchange.tail.copy is not None else None
            self.bus.publish(RequestEnded(record=record, capture=capture))
            self.dispatch.ended(exchange, request.peer)

    def note_unread(self, exchange: Exchange, access: Access) -> None:
        """A page that is served and may not read the answer tells its user nothing of use, so the log says it."""
        if page := access.cors.unread(exchange.request):
            self.note(exchange, page, f"a page of {page!r} may not read answers; if it should, add it to cors_origins")

    def note(self, exchange: Exchange, page: str, sentence: str) -> None:
        """Count a refused page, and tell the log of each once."""
        if self.refusals.add(page):
            log.warning("%s %s: %s", exchange.request.method, exchange.route.endpoint, sentence)

    def listens_on(self, hosts: Iterable[str]) -> None:
        """The port is open: its addresses tell better than its name whether others can reach it."""
        self.local = all(map(stays_here, hosts))
        self.access.local = self.local

    async def unpack(self, exchange: Exchange) -> None:
        """A compressed body goes on as if it had come plain."""
        try:
            await unpack(exchange.request, limit=self.settings.config.limits.body, turn=self.unpacking)
        except RequestError as error:
            if error.status == 415:
                exchange.responder.extra.append((b"Accept-Encoding", ", ".join(CODINGS).encode()))
            raise
        exchange.body = exchange.request.body


def outcome_of(error: BioproxyError) -> Outcome:
    """The metrics' word for an error."""
    if isinstance(error, QueueFull | TokensSpent | Closed):
        return "rejected"
    if isinstance(error, QueueTimeout):
        return "timeout"
    if isinstance(error, ENGINE_ERRORS):
        return "engine_error"
    return "client_error" if error.status < 500 else "error"
