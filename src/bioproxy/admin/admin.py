"""The admin port's routes and the handler that serves them.

Everything is JSON but the metrics and the event stream; nothing may be cached, for all of it is about now. What the
routes answer comes from two protocols that app fills: `Views` (what is) and `Commands` (what to do), so this package
knows no engine, no gate and no cache.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeAlias

import msgspec

from bioproxy import __version__
from bioproxy.activity import Outcome, Record, Ring
from bioproxy.admin.guard import Access, Guard
from bioproxy.admin.stream import Hub
from bioproxy.config.settings import Settings
from bioproxy.errors import BioproxyError, ConfigError, ForeignPage, NotFound, RequestError, Unauthorized
from bioproxy.events import Bus
from bioproxy.explain import explained
from bioproxy.front.cors import Refusals
from bioproxy.metrics import Metrics
from bioproxy.wire.http1.message import Headers, Request, Responder
from bioproxy.wire.http1.router import NotAllowed, Parameters, Router
from bioproxy.wire.http1.target import check_slashes

log = logging.getLogger(__name__)
Json: TypeAlias = Any
NOT_ALLOWED, UNREADY, ACCEPTED, BROKEN_CONFIG = 405, 503, 202, 422
ALWAYS: Headers = [(b"Cache-Control", b"no-store"), (b"X-Content-Type-Options", b"nosniff")]


class Views(Protocol):
    """What the admin port shows of the others; given by app."""

    def status(self) -> msgspec.Struct:
        """Everything about now, for `/status`."""

    def unready(self) -> str:
        """Why a request would not be served now, in words that anyone may read; empty when it would."""


class Commands(Protocol):
    """What the admin port may ask for; given by app."""

    async def warm(self, prefix: str) -> Json:
        """Warm a template up now; its states. NotFound where there is no such prefix."""

    async def reload(self) -> tuple[str, ...]:
        """Read the configuration again; the keys that changed. ConfigError if it is broken, nothing changed then."""


class Question(msgspec.Struct, frozen=True):
    """One request, and where its answer goes. `own`: it shows nothing of what others ask."""

    request: Request
    responder: Responder
    parameters: Parameters
    own: bool = False


class Route(msgspec.Struct, frozen=True):
    """One route: `access` is what guard.py checks, `about` a sentence for `GET /` and the docs."""

    method: str
    path: str
    access: Access
    about: str
    serve: Callable[[Admin, Question], Awaitable[None]]


class Mounted(msgspec.Struct, frozen=True):
    """A route that another part serves on this port, under what the port always asks for."""

    method: str
    path: str
    about: str
    serve: Callable[[Question], Awaitable[None]]
    changes: bool = False  # its GET changes something


class Admin:
    """Serves the admin port. `close` is called at the shutdown."""

    def __init__(
        self, *, settings: Settings, views: Views, commands: Commands, metrics: Metrics, ring: Ring, bus: Bus
    ) -> None:
        self.settings = settings
        self.views = views
        self.commands = commands
        self.metrics = metrics
        self.ring = ring
        self.hub = Hub(bus)
        self.refusals = Refusals()
        self.mounted: Router[Mounted] = Router()
        self.listed: list[Mounted] = []

    def mount(self, routes: Iterable[Mounted]) -> None:
        """Serve further routes; what this port has itself stays."""
        for route in routes:
            found = ROUTER.match(route.method, route.path)
            if found is None or isinstance(found, NotAllowed):
                self.mounted.add(route.method, route.path, route)
                self.listed.append(route)

    @property
    def guard(self) -> Guard:
        """The rule about keys and hosts."""
        return self.settings.made(Guard)

    def close(self) -> None:
        """End the event streams, so that the server need not cut them."""
        self.hub.close()

    async def handle(self, request: Request, responder: Responder) -> None:
        """Serve one request of the admin port."""
        try:
            await self.serve(request, responder)
        except BioproxyError as error:
            if isinstance(error, ForeignPage) and self.refusals.add(error.page):
                log.warning("%s", error.message)
            if responder.started:
                raise
            refuse(responder, error)

    async def serve(self, request: Request, responder: Responder) -> None:
        """Find the route, ask the guard, answer. Who may not ask learns nothing about which routes exist."""
        check_slashes(request.target)
        found = ROUTER.match(request.method, request.path)
        if found is None or isinstance(found, NotAllowed):
            other = self.mounted.find(request.method, request.path)
            if other is not None:
                self.guard.check(request, "admin", changes=other[0].changes)
                await other[0].serve(Question(request, responder, other[1]))
                return
            self.guard.check(request, "admin")
            if found is None:
                raise NotFound(f"the admin port has no {request.path}; GET / lists what it has")
            refuse(responder, wrong_method(request, found.allow), (b"Allow", found.allow.encode()))
            return
        route, parameters = found
        self.guard.check(request, route.access)
        await route.serve(self, Question(request, responder, parameters))

    async def index(self, question: Question) -> None:
        """The list of routes."""
        shown: tuple[Route | Mounted, ...] = (*ROUTES, *self.listed)
        routes = [{"method": route.method, "path": route.path, "about": route.about} for route in shown]
        answer(question.responder, {"name": "bioproxy", "version": __version__, "routes": routes}, pretty=True)

    async def health(self, question: Question) -> None:
        """Whether the program is well, and in a word whether the engine is."""
        reason = self.views.unready()
        answer(question.responder, {"status": "ok", "ready": not reason, "reason": reason})

    async def live(self, question: Question) -> None:
        """That it answers is the proof."""
        answer(question.responder, {"status": "ok"})

    async def ready(self, question: Question) -> None:
        """Whether requests are served: 200, or 503 with the reason."""
        reason = self.views.unready()
        if reason:
            answer(question.responder, {"status": "unready", "reason": reason}, status=UNREADY)
        else:
            answer(question.responder, {"status": "ready"})

    async def show_metrics(self, question: Question) -> None:
        """The metrics in Prometheus' text format."""
        from bioproxy.metrics_page import render  # loads Prometheus' library, which many never need

        kind, page = render(self.metrics)
        question.responder.send(200, [(b"Content-Type", kind.encode()), *ALWAYS], page)

    async def status(self, question: Question) -> None:
        """Everything about now."""
        answer(question.responder, self.views.status(), pretty=True)

    async def requests(self, question: Question) -> None:
        """The newest requests, newest first; `limit` and `outcome` narrow it."""
        wanted = Wanted.of(question.request)
        records: list[Record] = []
        for record in self.ring:
            if len(records) == wanted.limit:
                break
            if wanted.outcome is None or record.outcome == wanted.outcome:
                records.append(explained(record))
        answer(question.responder, {"requests": records})

    async def events(self, question: Question) -> None:
        """The event stream; HEAD gets its head only."""
        if question.request.method == "HEAD":
            question.responder.send(200, [(b"Content-Type", b"text/event-stream"), *ALWAYS])
        else:
            await self.hub.serve(question.responder, ALWAYS)

    async def warm(self, question: Question) -> None:
        """Ask for a warm-up; it runs when no user waits."""
        prefix = question.parameters["prefix"]
        answer(question.responder, {"prefix": prefix, "warmup": await self.commands.warm(prefix)}, status=ACCEPTED)

    async def reload(self, question: Question) -> None:
        """Read the configuration again."""
        answer(question.responder, {"changed": await self.commands.reload()})


class Wanted(msgspec.Struct, frozen=True):
    """The query of `/requests`."""

    limit: int = 1000
    outcome: Outcome | None = None

    @classmethod
    def of(cls, request: Request) -> Wanted:
        """Read the query; RequestError names the parameter that is wrong."""
        try:
            wanted = msgspec.convert(dict(request.query), cls, strict=False)
        except msgspec.ValidationError as error:
            raise RequestError(f"the query of {request.path} cannot be read: {error}") from error
        if wanted.limit < 1:
            raise RequestError(f"limit must be 1 or more, not {wanted.limit}")
        return wanted


ROUTES = (
    Route("GET", "/", "admin", "This list.", Admin.index),
    Route("GET", "/health", "open", "The program is well; `ready` says whether the engine is.", Admin.health),
    Route("GET", "/livez", "open", "200 as long as the program answers.", Admin.live),
    Route("GET", "/readyz", "open", "200 when requests are served, 503 with the reason otherwise.", Admin.ready),
    Route("GET", "/metrics", "metrics", "Metrics for Prometheus; wants metrics_key if set.", Admin.show_metrics),
    Route("GET", "/status", "admin", "Engine, gate, templates, snapshots, warm-ups, warnings.", Admin.status),
    Route("GET", "/requests", "admin", "The last 1000 requests; ?limit= and ?outcome= narrow it.", Admin.requests),
    Route("GET", "/events", "admin", "What happens, as server-sent events.", Admin.events),
    Route("POST", "/warmup/{prefix}", "admin", "Warm a template up now.", Admin.warm),
    Route("POST", "/reload", "admin", "Read the configuration again.", Admin.reload),
)


def table() -> Router[Route]:
    """The routes as a router."""
    router: Router[Route] = Router()
    for route in ROUTES:
        router.add(route.method, route.path, route)
    return router


ROUTER = table()


def wrong_method(request: Request, allow: str) -> RequestError:
    """The path is known, with another method."""
    return RequestError(f"{request.path} takes {allow}, not {request.method}", status=NOT_ALLOWED)


def answer(responder: Responder, value: Json, *, status: int = 200, pretty: bool = False) -> None:
    """Send `value` as JSON; `pretty` for what people read with curl."""
    body = msgspec.json.encode(value)
    body = msgspec.json.format(body, indent=2) + b"\n" if pretty else body
    responder.send(status, [(b"Content-Type", b"application/json"), *ALWAYS], body)


def refuse(responder: Responder, error: BioproxyError, *more: tuple[bytes, bytes]) -> None:
    """Send an error as JSON, with what HTTP wants beside it."""
    told: dict[str, Json] = {"message": error.message, "type": error.code, "code": error.status}
    status = error.status
    if isinstance(error, ConfigError):
        told["problems"] = error.problems
        status = told["code"] = BROKEN_CONFIG
    headers: Headers = [(b"Content-Type", b"application/json"), *ALWAYS, *more]
    if isinstance(error, Unauthorized):
        headers.append((b"WWW-Authenticate", b'Basic realm="bioproxy"'))
    if error.retry_after is not None:
        headers.append((b"Retry-After", str(error.retry_after).encode()))
    responder.send(status, headers, msgspec.json.encode({"error": told}))
