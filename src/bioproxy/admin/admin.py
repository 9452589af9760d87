"""The admin port: its own routes, the guard before all of its routes, and the handler that serves them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from bioproxy import __version__
from bioproxy.activity import Outcome, Record
from bioproxy.admin.events import Hub, event_blocks
from bioproxy.admin.guard import Guard
from bioproxy.admin.page import WebPage
from bioproxy.admin.routes import ALWAYS, UNREADY, Entry, Question, answer, asked, refuse, wrong_method
from bioproxy.config.settings import Settings
from bioproxy.errors import BioproxyError, ForeignPage, NotFound, RequestError
from bioproxy.events import Bus
from bioproxy.explain import explained
from bioproxy.front.cors import Refusals
from bioproxy.metrics import Metrics
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.http1.router import Router
from bioproxy.wire.http1.target import check_slashes

log = logging.getLogger(__name__)


class Admin:
    """Serves the admin port. `close` is called at the shutdown.

    `status` is everything about now. `unready` says why a request would not be served now, in words that anyone may
    read; "" if it would. `reload` reads the configuration again and returns the keys that changed (ConfigError, nothing
    changed then). A person at a browser is sent to `page`.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        metrics: Metrics,
        records: Sequence[Record],
        bus: Bus,
        status: Callable[[], msgspec.Struct],
        unready: Callable[[], str],
        reload: Callable[[], Awaitable[tuple[str, ...]]],
        more: Iterable[Entry] = (),
        page: WebPage | None = None,
        stream: Hub | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.records = records
        self.of_now, self.unready, self.read_again = status, unready, reload
        self.page = page
        self.stream = stream or Hub(bus, event_blocks)
        self.refusals = Refusals()
        self.table: Router[Entry] = Router()
        self.entries = [*self.own(), *(entry for entry in more if entry.access is not None)]
        for entry in self.entries:
            self.table.add(entry.method, entry.path, entry)

    def own(self) -> tuple[Entry, ...]:
        """The routes that only this port has."""
        return (
            Entry("GET", "/", "This list; a browser is sent to the web page.", self.index, "page"),
            Entry("GET", "/health", "The program is well; `ready` says whether the engine is.", self.health, "open"),
            Entry("GET", "/livez", "200 as long as the program answers.", self.live, "open"),
            Entry("GET", "/readyz", "200 when requests are served, 503 with the reason otherwise.", self.ready, "open"),
            Entry("GET", "/metrics", "Metrics for Prometheus; wants metrics_key if set.", self.show_metrics, "metrics"),
            Entry("GET", "/status", "Engine, gate, templates, snapshots, warm-ups, warnings.", self.status),
            Entry("GET", "/requests", "The last 1000 requests; ?limit= and ?outcome= narrow it.", self.requests),
            Entry("GET", "/events", "What happens, as server-sent events.", self.stream.serve),
            Entry("POST", "/reload", "Read the configuration again.", self.reload, forms=True),
        )

    @property
    def guard(self) -> Guard:
        return self.settings.made(Guard)

    def close(self) -> None:
        """End the event streams, so that the server need not cut them."""
        self.stream.close()

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
        """Find the route, ask the guard, answer. A client that may not ask does not learn which routes exist."""
        check_slashes(request.target)
        found = self.table.match(request.method, request.path)
        if isinstance(found, tuple):
            entry, parameters = found
            assert entry.access is not None
            self.guard.check(request, entry.access, changes=entry.changes)
            await entry.run(Question(request, responder, parameters))
            return
        self.guard.check(request, "admin")
        if found is None:
            raise NotFound(f"the admin port has no {request.path}; GET / lists what it has")
        refuse(responder, wrong_method(request, found.allow), (b"Allow", found.allow.encode()))

    async def index(self, question: Question) -> None:
        """The list wants the key, the way to the page does not."""
        if self.page is not None and self.page.wanted(question.request):
            await self.page.from_root(question)
            return
        self.guard.check(question.request, "admin")
        routes = [{"method": one.method, "path": one.path, "about": one.about} for one in self.entries]
        answer(question.responder, {"name": "bioproxy", "version": __version__, "routes": routes}, pretty=True)

    async def health(self, question: Question) -> None:
        reason = self.unready()
        answer(question.responder, {"status": "ok", "ready": not reason, "reason": reason})

    async def live(self, question: Question) -> None:
        answer(question.responder, {"status": "ok"})

    async def ready(self, question: Question) -> None:
        reason = self.unready()
        if reason:
            answer(question.responder, {"status": "unready", "reason": reason}, status=UNREADY)
        else:
            answer(question.responder, {"status": "ready"})

    async def show_metrics(self, question: Question) -> None:
        send_metrics(self.metrics, question)

    async def status(self, question: Question) -> None:
        answer(question.responder, self.of_now(), pretty=True)

    async def requests(self, question: Question) -> None:
        """The newest requests, newest first; `limit` and `outcome` narrow it."""
        wanted = asked(question.request, Wanted)
        if wanted.limit < 1:
            raise RequestError(f"limit must be 1 or more, not {wanted.limit}")
        records: list[Record] = []
        for record in reversed(self.records):
            if len(records) == wanted.limit:
                break
            if wanted.outcome is None or record.outcome == wanted.outcome:
                records.append(explained(record))
        answer(question.responder, {"requests": records})

    async def reload(self, question: Question) -> None:
        answer(question.responder, {"changed": await self.read_again()})


class Wanted(msgspec.Struct, frozen=True):
    """The query of `/requests`."""

    limit: int = 1000
    outcome: Outcome | None = None


def send_metrics(metrics: Metrics, question: Question) -> None:
    """Send the metrics in Prometheus' text format."""
    from bioproxy.metrics_page import render

    kind, page = render(metrics)
    question.responder.send(200, [(b"Content-Type", kind.encode()), *ALWAYS], page)
