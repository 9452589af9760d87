"""The management surface of many models: its parts, and the one table of its routes, served on both ports.

On the admin port every route wants what that port always wants. On the proxy port, where llama-swap's users look for
them, `guard` says who may (front/access.py): `manage` whoever may use the models, or the admin where there is one;
`private` shows what others asked and got, and is refused to one of several keys; `client` is for every key, as the list
of models is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

import msgspec

from bioproxy.activity import InflightRequest
from bioproxy.admin.activity_api import ActivityApi
from bioproxy.admin.activity_log import ActivityLog
from bioproxy.admin.activity_store import ActivityStore
from bioproxy.admin.admin import ALWAYS, Mounted, Question, answer
from bioproxy.admin.captures import Captures
from bioproxy.admin.hardware import Hardware
from bioproxy.admin.logs import Logs
from bioproxy.admin.performance import Monitor, performance
from bioproxy.admin.stream import HEADERS
from bioproxy.admin.swap_api import Models, SwapApi
from bioproxy.admin.swap_events import RouterEvents, SwapEvents
from bioproxy.config.settings import Settings, among_strangers
from bioproxy.errors import Forbidden, NotFound
from bioproxy.events import Bus
from bioproxy.front import routes
from bioproxy.front.exchange import Exchange
from bioproxy.front.inflight import Inflight
from bioproxy.front.routes import Route
from bioproxy.logbook import Destination, Logbook
from bioproxy.metrics import Metrics
from bioproxy.station import Service
from bioproxy.wire.http1.message import Request
from bioproxy.wire.http1.router import NotAllowed, Router

Json: TypeAlias = Any
Guard = Literal["manage", "private"]
NO_PAGE = "this build of bioproxy has no web page; its API is listed in docs/api.md"


class Entry(msgspec.Struct, frozen=True):
    """One route: who may, what it is, and what serves it."""

    method: str
    path: str
    guard: Guard | Literal["public", "client"]
    about: str
    serve: Callable[[Question], Awaitable[None]]
    changes: bool = False  # its GET changes something


class Shown:
    """What the event stream shows (admin.swap_events.SwapViews)."""

    def __init__(self, status: Callable[[], Json], profile: Callable[[], str], inflight: Inflight) -> None:
        self.models, self.profile, self.table = status, profile, inflight

    def sessions(self) -> Sequence[str]:
        """The headers in which clients name their conversation."""
        return self.table.sessions

    def inflight(self) -> Sequence[InflightRequest]:
        """The requests under way."""
        return self.table.snapshot()


class Management:
    """The parts behind the routes. `connect` is called once the models are there; `start` before any request."""

    def __init__(self, settings: Settings, *, bus: Bus, metrics: Metrics, logbook: Logbook) -> None:
        self.settings, self.bus, self.metrics, self.logbook = settings, bus, metrics, logbook
        self.inflight = Inflight(bus, settings)
        self.captures = Captures(capture_buffer(settings))
        self.store = ActivityStore(settings)
        self.monitor = Monitor(settings.dialect.performance)
        self.hardware = Hardware()
        metrics.host = self.monitor.newest
        self.activity = ActivityApi(store=self.store, captures=self.captures, cancel=self.inflight.cancel)
        self.table: Router[Entry] = Router()
        self.entries: tuple[Entry, ...] = ()
        self.busy: Mapping[tuple[str, str], int] = {}  # of selectors: requests under way, by selector and target

    def connect(self, models: Models, *, status: Callable[[], Json], profile: Callable[[], str]) -> None:
        """Tell the routes of the models."""
        api = SwapApi(models)
        self.logs = Logs(self.logbook, resolve=getattr(models, "known", lambda name: name))
        shown = Shown(status, profile, self.inflight)
        rings = {"proxy": self.logbook.proxy, "upstream": self.logbook.upstream}
        self.events = SwapEvents(self.bus, views=shown, logs=rings)
        self.router_events = RouterEvents(self.bus)
        self.entries = (
            Entry("GET", "/running", "manage", "The models that run.", api.running),
            Entry("GET", "/unload", "manage", "Stop every model.", api.unload_all, changes=True),
            Entry("POST", "/api/models/unload", "manage", "Stop every model.", api.api_unload_all),
            Entry("POST", "/api/models/unload/{model...}", "manage", "Stop one model.", api.api_unload),
            Entry("POST", "/api/models/load/{model...}", "manage", "Load one model.", api.api_load),
            Entry("POST", "/models/load", "manage", "Load one model (llama.cpp's router).", api.router_load),
            Entry("POST", "/models/unload", "manage", "Stop one model (llama.cpp's router).", api.router_unload),
            Entry("GET", "/models/sse", "client", "States of models, live (llama.cpp's router).", self.model_events),
            Entry("GET", "/api/models", "manage", "All models, and what is known of each.", api.overview),
            Entry("GET", "/api/profiles", "manage", "The profiles, and which is active.", api.profiles),
            Entry("PUT", "/api/profiles/active", "manage", "Choose the active profile.", api.activate),
            Entry("GET", "/api/version", "manage", "The version.", api.version),
            Entry("GET", "/api/events", "private", "States, logs, activity and requests, live.", self.events.serve),
            Entry("GET", "/api/metrics/activity", "private", "The activity table.", self.activity.activity),
            Entry("GET", "/api/metrics/stats", "private", "Its sums and distributions.", self.activity.stats),
            Entry("GET", "/api/captures/{id}", "private", "One request and its answer.", self.activity.capture),
            Entry("POST", "/api/inflight/{id}/cancel", "private", "End a request.", self.activity.cancel),
            Entry("GET", "/api/performance", "manage", "Figures of the machine.", self.performance),
            Entry("GET", "/api/hardware", "manage", "What machine this is.", self.machine),
            Entry("GET", "/logs", "private", "The combined log.", self.log_history),
            Entry("GET", "/logs/stream", "private", "The combined log, live.", self.log_stream),
            Entry("GET", "/logs/stream/{id...}", "private", "One log, live.", self.log_stream),
            Entry("GET", "/metrics", "manage", "Metrics for Prometheus.", self.show_metrics),
            Entry("GET", "/", "public", "To the web page.", self.page),
            Entry("GET", "/ui", "manage", "The web page.", self.page),
            Entry("GET", "/ui/{path...}", "manage", "The web page.", self.page),
            Entry("GET", "/upstream", "public", "To the web page.", self.page),
        )
        for entry in self.entries:
            self.table.add(entry.method, entry.path, entry)
        ActivityLog(self.bus, store=self.store, captures=self.captures)

    # life

    async def start(self) -> dict[str, Service]:
        """Open the activity table; the services to run."""
        await self.store.start()
        return {"hardware figures": self.monitor.run}

    def end_streams(self) -> None:
        """The shutdown began: nobody shall wait for the ends of streams that have none."""
        self.events.close()
        self.router_events.close()
        self.logs.close()

    async def close(self) -> None:
        """Keep what waits to be written."""
        self.inflight.close()
        await self.captures.close()
        await self.store.close()

    async def take_over(self) -> None:
        """Other settings are in force: do what they ask for at once."""
        self.captures.configure(capture_buffer(self.settings))
        self.monitor.configure(self.settings.dialect.performance)
        self.logbook.route(cast("Destination", self.settings.dialect.log_to_stdout))  # checked when it was read
        await self.store.start()

    # on the proxy port

    def find(self, request: Request) -> Route | None:
        """The route of a request on the proxy port; None for what manages nothing."""
        if request.path == "/metrics" and any(name == "model" and value for name, value in request.query):
            return None  # an engine's own
        found = self.table.match(request.method, request.path)
        if found is None:
            return None
        if isinstance(found, NotAllowed):
            if request.path == "/models":
                return None
            return Route(request.path, "free", guard="manage")
        entry, _ = found
        if entry.guard == "public" or entry.guard == "client":  # noqa: PLR1714 - mypy knows only this form
            return Route(entry.path, "free", public=entry.guard == "public", guard="open")
        return Route(entry.path, "free", guard=entry.guard, changes=entry.changes)

    async def serve(self, exchange: Exchange) -> None:
        """Serve a request of the proxy port that was let through."""
        request, principal = exchange.request, exchange.principal
        if principal is not None and principal.models and exchange.route.changed_by(request):
            raise Forbidden("a key for certain models manages none; that wants admin_key")
        found = self.table.match(request.method, request.path)
        if isinstance(found, NotAllowed):
            raise routes.not_served(request.method, request.path, found, managing=True)
        assert found is not None
        entry, parameters = found
        await entry.serve(Question(request, exchange.responder, parameters, own=among_strangers(self.settings.config)))

    def mounted(self) -> list[Mounted]:
        """The routes for the admin port."""
        return [Mounted(one.method, one.path, one.about, one.serve, one.changes) for one in self.entries]

    # routes that need more than one part

    async def performance(self, question: Question) -> None:
        """`GET /api/performance`."""
        status, body = performance(self.monitor, question.request.query)
        answer(question.responder, body, status=status)

    async def machine(self, question: Question) -> None:
        """`GET /api/hardware`."""
        answer(question.responder, await self.hardware.snapshot())

    async def model_events(self, question: Question) -> None:
        """`GET /models/sse`."""
        if question.request.method == "HEAD":
            question.responder.send(200, [*HEADERS, *ALWAYS])
        else:
            await self.router_events.serve(question.responder, ALWAYS)

    async def log_history(self, question: Question) -> None:
        """`GET /logs`."""
        await self.logs.history(question.request, question.responder)

    async def log_stream(self, question: Question) -> None:
        """`GET /logs/stream[/id]`."""
        await self.logs.stream(question.request, question.responder, question.parameters.get("id", ""))

    async def show_metrics(self, question: Question) -> None:
        """`GET /metrics`."""
        from bioproxy.metrics_page import render  # loads Prometheus' library, which many never need

        kind, page = render(self.metrics)
        question.responder.send(200, [(b"Content-Type", kind.encode()), *ALWAYS], page)

    async def page(self, question: Question) -> None:  # noqa: ARG002 - a handler's signature
        """The web page, which this build does not have."""
        raise NotFound(NO_PAGE)


def capture_buffer(settings: Settings) -> int:
    """MB for captures; none where several keys could look at each other's, and nobody is the admin."""
    return 0 if among_strangers(settings.config) else settings.dialect.capture_buffer
