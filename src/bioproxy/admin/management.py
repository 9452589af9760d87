"""What shows and manages models: its parts, and their routes on both ports.

Of one engine there are few, on the admin port only. Of many models llama-swap's are there, too, and on the proxy port
as well, where its users look for them; `Entry.guard` says who may use one there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from bioproxy.admin.activity_api import ActivityApi
from bioproxy.admin.activity_store import ActivityStore
from bioproxy.admin.admin import send_metrics
from bioproxy.admin.capture_folder import CaptureFolder
from bioproxy.admin.captures import Captures
from bioproxy.admin.events import Hub, SwapEvents, router_blocks
from bioproxy.admin.hardware import Hardware
from bioproxy.admin.listing import look_at, model_status
from bioproxy.admin.logs import Logs
from bioproxy.admin.models_api import ModelsApi
from bioproxy.admin.overview import SpeedBook
from bioproxy.admin.performance import Monitor, performance
from bioproxy.admin.queue_api import QueueApi
from bioproxy.admin.routes import Entry, Question, answer
from bioproxy.config.settings import Settings, among_strangers
from bioproxy.errors import Forbidden
from bioproxy.events import Bus, RequestEnded
from bioproxy.front import routes
from bioproxy.front.exchange import Exchange
from bioproxy.front.inflight import Inflight
from bioproxy.front.routes import Route
from bioproxy.logbook import Destination, Logbook
from bioproxy.metrics import Metrics
from bioproxy.models.fleet import Fleet
from bioproxy.station import Service
from bioproxy.wire.http1.message import Request
from bioproxy.wire.http1.router import NotAllowed, Router


class Management:
    """The parts behind the routes; `more` are the web page's. `start` comes before any request.

    Few of them have to do for the only engine.
    """

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        *,
        bus: Bus,
        metrics: Metrics,
        logbook: Logbook,
        state: Path,
        more: Iterable[Entry] = (),
    ) -> None:
        self.settings, self.fleet, self.bus, self.metrics, self.logbook = settings, fleet, bus, metrics, logbook
        self.inflight = Inflight(bus, settings)
        self.folder = CaptureFolder(state / "captures", settings)
        self.captures = Captures(capture_buffer(settings), self.folder)
        self.store = ActivityStore(settings)
        self.monitor = Monitor(settings.dialect.performance)
        self.hardware = Hardware()
        self.speeds = SpeedBook()
        self.logs = Logs(logbook, resolve=fleet.known)
        self.swap_events = SwapEvents(
            bus,
            models=lambda: model_status(fleet.dialect, look_at(fleet)),
            profile=lambda: fleet.plan.registry.profile,
            inflight=self.inflight,
            logs={"proxy": logbook.proxy, "upstream": logbook.upstream},
        )
        self.router_events = Hub(bus, router_blocks)
        activity = ActivityApi(bus, store=self.store, captures=self.captures, cancel=self.inflight.cancel)
        self.entries = (
            *(self.of_only() if fleet.only is not None else self.of_many()),
            *activity.entries(),
            *QueueApi(self.inflight).entries(),
            *self.logs.entries(),
            *self.of_machine(),
            *more,
        )
        self.table: Router[tuple[Entry, Route]] = Router()
        for entry in self.entries:
            if entry.guard is not None:
                self.table.add(entry.method, entry.path, (entry, front_route(entry)))

    def of_only(self) -> tuple[Entry, ...]:
        """The routes of the only engine."""
        self.bus.subscribe(RequestEnded, self.speeds.note_only)
        return ModelsApi(self.fleet, self.speeds, self.inflight).of_only()

    def of_many(self) -> tuple[Entry, ...]:
        """The routes of models."""
        self.bus.subscribe(RequestEnded, self.speeds.note)
        self.metrics.host = self.monitor.newest
        return (*ModelsApi(self.fleet, self.speeds, self.inflight).entries(), *self.own())

    def of_machine(self) -> tuple[Entry, ...]:
        return (
            Entry("GET", "/api/performance", "Figures of the machine.", self.performance, guard="manage"),
            Entry("GET", "/api/hardware", "What machine this is.", self.machine, guard="manage"),
        )

    def own(self) -> tuple[Entry, ...]:
        """The routes that are of no other part."""
        return (
            Entry("GET", "/api/events", "States, logs, activity and requests, live.", self.swap_events.serve,
                  guard="private"),
            Entry("GET", "/models/sse", "States of models, live (llama.cpp's router).", self.router_events.serve,
                  guard="client"),
            Entry("GET", "/metrics", "Metrics for Prometheus.", self.show_metrics, None, guard="manage"),
        )  # fmt: skip

    # life

    async def find_captures(self) -> None:
        """Find those of earlier runs, before any request comes: their numbers are not given again."""
        await self.folder.find()
        self.store.next = max(self.store.next, self.folder.newest + 1)

    async def start(self) -> dict[str, Service]:
        """Open the activity table; the services to run."""
        await self.store.start()
        await self.store.put_back(await self.folder.start())
        return {"hardware figures": self.monitor.run, "captures": self.folder.run}

    def end_streams(self) -> None:
        """The shutdown began: end the streams that have no end of their own."""
        self.swap_events.close()
        self.router_events.close()
        self.logs.close()

    async def close(self) -> None:
        """Write what waits to be kept."""
        self.inflight.close()
        await self.captures.close()
        await self.store.close()

    async def take_over(self) -> None:
        """Other settings are in force: do what they ask for at once."""
        self.captures.configure(capture_buffer(self.settings))
        await self.folder.tidy()
        if self.fleet.only is not None:
            return
        self.monitor.configure(self.settings.dialect.performance)
        self.logbook.route(cast("Destination", self.settings.dialect.log_to_stdout))  # checked when it was read
        await self.store.start()

    # on the proxy port

    def find(self, request: Request) -> Route | None:
        """The route of a request on the proxy port; None for what manages nothing."""
        if request.path == "/metrics" and any(name == "model" and value for name, value in request.query):
            return None  # an engine's own
        found = self.table.match(request.method, request.path)
        if isinstance(found, NotAllowed):
            return None if request.path == "/models" else Route(request.path, guard="manage")
        return found[0][1] if found is not None else None

    async def serve(self, exchange: Exchange) -> None:
        """Serve a request of the proxy port that was let through."""
        request, principal = exchange.request, exchange.principal
        free = exchange.route.guard in {"own", "open"}
        if principal is not None and principal.models and not free and exchange.route.changed_by(request):
            raise Forbidden("a key for certain models manages none; that wants admin_key")
        found = self.table.match(request.method, request.path)
        if isinstance(found, NotAllowed):
            raise routes.not_served(request.method, request.path, found, managing=True)
        assert found is not None
        (entry, _), parameters = found
        own = exchange.route.guard == "own" or among_strangers(self.settings.config)
        await entry.run(Question(request, exchange.responder, parameters, own=own, principal=principal, proxy=True))

    # routes that are of no other part

    async def performance(self, question: Question) -> None:
        status, body = performance(self.monitor, question.request.query)
        answer(question.responder, body, status=status)

    async def machine(self, question: Question) -> None:
        answer(question.responder, await self.hardware.snapshot())

    async def show_metrics(self, question: Question) -> None:
        send_metrics(self.metrics, question)


def front_route(entry: Entry) -> Route:
    """A route as the proxy port knows it."""
    if entry.guard == "manage" or entry.guard == "own" or entry.guard == "private":  # noqa: PLR1714 - for mypy
        return Route(entry.path, guard=entry.guard, changes=entry.changes)
    return Route(entry.path, public=entry.guard == "public", guard="open")


def capture_buffer(settings: Settings) -> int:
    """Bytes for captures; none if several keys could look at each other's, and there is no admin."""
    if among_strangers(settings.config):
        return 0
    return settings.config.ui.captures if settings.one else max(0, settings.dialect.capture_buffer) << 20
