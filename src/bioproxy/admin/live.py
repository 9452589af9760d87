"""What the web page lives on: `GET /api/live`, one stream that says what is, and then what changes.

A client gets a `state`, which holds `/status`, the requests under way and the last swaps; after it `change` (what is
different in the status, at most twice a second), `request`, `inflight`, `swap` and `notice` (any other event) as they
come. So a page shows the truth all the time and never asks again.

Each event has a number, told as `id: <boot>-<number>`. A client that was away says the last one that it had, and gets
what it missed, if that is still in the ring and this run of the program is the one that it knew; else a `state`. One
that does not keep up loses what waits for it, and gets a `state` as soon as it reads again.

While nobody watches, this costs the program nothing: a minute after the last client left, the bus is left alone and the
ring emptied. Only the history of swaps (swaps.py) is always kept.

A client that is one of several keys is told of its own requests, and sees the status without what tells of others
(difference.py, `reduced`). The ring is the same for all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from bioproxy import __version__
from bioproxy.activity import InflightRequest
from bioproxy.admin.difference import difference, reduced
from bioproxy.admin.events import HEADERS, Listener, flow
from bioproxy.admin.routes import Entry, Json, Question, asked
from bioproxy.admin.swaps import SwapRecord, Swaps
from bioproxy.config.settings import Settings
from bioproxy.events import (
    ActivityAdded,
    Bus,
    ConfigReloaded,
    Event,
    InflightChanged,
    ModelChanged,
    RequestEnded,
    SnapshotDropped,
    SnapshotMissing,
    SnapshotRestored,
    SnapshotSaved,
    SwapEnded,
    WarmupChecked,
    WarmupEnded,
    WarmupFailed,
    WarmupStarted,
    WarmupYielded,
)
from bioproxy.explain import explained
from bioproxy.wire.http1.message import Request

log = logging.getLogger(__name__)

AT_MOST = 0.5  # seconds between two looks at the status
AT_LEAST = 2.0  # the same while nothing happens: some figures move without an event
SOON = 0.05  # seconds from an event to the look, in which other events may come
SHARE = 20  # a look that cost a second is followed by one after twenty: it may use a twentieth of a core
LINGER = 60.0  # seconds after the last client left
MOST_KEPT = 2000  # events for clients that come back
MOST_BYTES = 4 << 20  # the same in bytes
LONGEST = 20  # digits of an event's number
MOST_BEHIND = 1000  # events that may wait for one client
MOST_HELD = 4 << 20  # the same in bytes; a state alone may be more
KEYS = ("api_keys", "admin_key")
OPENING = b": the web page's stream\nretry: 1000\n\n"
TITLE = "bioproxy"
# what is told in another form, or to nobody
OTHERWISE = (RequestEnded, InflightChanged, ModelChanged, SwapEnded, WarmupChecked)
OF_OTHERS = (ActivityAdded, SnapshotSaved, SnapshotRestored, SnapshotMissing, SnapshotDropped)
OF_A_PREFIX = (WarmupStarted, WarmupYielded, WarmupEnded, WarmupFailed)  # or, without one, of a group's head


class PageInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the page is told about itself and who looks at it.

    `proxy` is where programs ask models: "." where the page came from, "" if it cannot be told.
    `many`: models are configured, not one engine. `admin`: this key may start, stop and change; `own`: it is shown only
    its own requests. `edit_config`: the configuration can be changed here.
    """

    version: str
    title: str
    many: bool
    proxy: str
    edit_config: bool
    admin: bool
    own: bool


class LiveState(msgspec.Struct, frozen=True, kw_only=True):
    """All that is (`event: state`). `boot` names this run of the program, `now` is its unix time."""

    boot: str
    now: float
    page: PageInfo
    status: Any  # Status or FleetStatus
    inflight: list[InflightRequest]
    swaps: list[SwapRecord]


class LiveChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is different in `status` (`event: change`): paths of names and indexes below it, and what is there now."""

    now: float
    set: list[tuple[list[str | int], Any]]


class LiveInflight(msgspec.Struct, frozen=True, kw_only=True):
    """A request came or moved on (`upsert`, with its `request`), or ended (`remove`); `event: inflight`."""

    operation: Literal["upsert", "remove"]
    id: str
    request: InflightRequest | None = None


class Told(msgspec.Struct, frozen=True):
    """One event as it is sent. `full`: to clients that see everything; `client`: to this one of several keys, too.

    "" is all of them, None is none.
    """

    number: int
    block: bytes
    full: bool = True
    client: str | None = None


class Viewer(Listener):
    """One client. One that lost what waited for it gets a new state."""

    def __init__(self, question: Question) -> None:
        super().__init__(question.responder.abort)
        self.question = question
        self.own = question.only is not None
        self.lost = False

    def push(self, block: bytes) -> None:
        if self.lost or self.over:
            return
        if len(self.blocks) < MOST_BEHIND and self.held < MOST_HELD:
            self.add(block)
            return
        log.warning("a web page does not keep up with its stream: it gets a new state once it reads again")
        self.blocks.clear()
        self.held = 0
        self.lost = True

    def sees(self, told: Told) -> bool:
        if not self.own:
            return told.full
        return told.client is not None and (not told.client or self.question.shows(told.client))


class Since(msgspec.Struct, frozen=True):
    """The query: the id of the last event that a client had."""

    last: str = ""


class Live:
    """The stream's one hub.

    `status` is what `/status` answers, `inflight` are the requests under way, `proxy` says where the proxy port is for
    who asked the admin port.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        status: Callable[[], msgspec.Struct],
        inflight: Callable[[], list[InflightRequest]],
        settings: Settings,
        proxy: Callable[[Request], str],
    ) -> None:
        self.bus, self.status_now, self.inflight, self.settings, self.proxy = bus, status, inflight, settings, proxy
        self.swaps = Swaps(bus, one=settings.one)
        self.boot = os.urandom(6).hex()
        self.viewers: set[Viewer] = set()
        self.ring: deque[Told] = deque()
        self.bytes = 0  # in the ring
        self.number = 0  # of the newest event
        self.base = 0  # clients that had this one can be told all that came after it
        self.known: Json = None  # the status as it was told; None while nobody watches
        self.reduces = False  # since somebody watches, one of several keys does, or did and may come back
        self.looked, self.pause = 0.0, AT_MOST
        self.timer: asyncio.TimerHandle | None = None  # of the next look; of leaving the bus if nobody watches
        self.subscriptions: list[Callable[[], None]] = []
        self.closed = False

    def entries(self) -> tuple[Entry, ...]:
        return (Entry("GET", "/api/live", "What the web page shows, live.", self.serve, guard="manage"),)

    async def serve(self, question: Question) -> None:
        """Stream to one client until it leaves (which cancels this) or the program ends."""
        responder = question.responder
        if question.request.method == "HEAD":
            responder.send(200, HEADERS)
            return
        viewer = Viewer(question)
        self.join(viewer)
        try:
            responder.start(200, HEADERS, length=None)
            responder.write(OPENING)
            await flow(viewer, responder, lambda: self.catch_up(viewer))
        finally:
            self.leave(viewer)

    # who watches

    def join(self, viewer: Viewer) -> None:
        """Tell a client what it missed, or what is; from now on it hears what changes.

        If that can't be told, nothing has begun.
        """
        self.look()
        first = self.missed(viewer) or self.state(viewer)
        if not self.subscriptions:
            self.subscriptions = [self.bus.subscribe(Event, self.hear), self.bus.subscribe(InflightChanged, self.moved)]
            self.swaps.tell = self.swapped
        viewer.push(first)
        if not self.viewers:
            self.disarm()
        self.viewers.add(viewer)
        self.reduces = self.reduces or viewer.own
        self.arm(AT_LEAST)
        if self.closed:
            viewer.end()

    def leave(self, viewer: Viewer) -> None:
        """End a client; the last one may come back within a minute and miss nothing."""
        self.viewers.discard(viewer)
        if not self.viewers:
            self.disarm()
            self.timer = asyncio.get_running_loop().call_later(0 if self.closed else LINGER, self.rest)

    def rest(self) -> None:
        """Nobody watches: leave the bus alone, and forget what was told."""
        self.disarm()
        for unsubscribe in self.subscriptions:
            unsubscribe()
        self.subscriptions, self.known, self.reduces = [], None, False
        self.swaps.tell = lambda _: None
        self.forget()

    def forget(self) -> None:
        """From here on a client that comes back gets a state."""
        self.ring.clear()
        self.bytes = 0
        self.number += 1
        self.base = self.number

    def close(self) -> None:
        """End all streams; clients connect again by themselves."""
        self.closed = True
        for viewer in self.viewers:
            viewer.end()
        if not self.viewers:
            self.rest()

    def catch_up(self, viewer: Viewer) -> None:
        """Give a client that lost events a new state, once it has read all that was sent."""
        if viewer.lost:
            self.look()
            viewer.lost = False
            viewer.push(self.state(viewer))

    def missed(self, viewer: Viewer) -> bytes:
        """What came after the last event that a client had, or a comment; b"" if that is not known any more."""
        request = viewer.question.request
        said = (request.header(b"last-event-id") or b"").decode("latin-1")
        said = asked(request, Since).last or said
        boot, _, number = said.rpartition("-")
        known = boot == self.boot and number.isdecimal() and len(number) < LONGEST
        if not known or not self.base <= int(number) <= self.number:
            return b""
        told = (told.block for told in self.ring if told.number > int(number) and viewer.sees(told))
        return b"".join([b": nothing is lost\n\n", *told])

    # what is

    def state(self, viewer: Viewer) -> bytes:
        """Everything, as this client may see it."""
        now = time.time()
        status = {**self.known, "uptime": now - self.known["started"]}
        state = LiveState(
            boot=self.boot,
            now=now,
            page=self.page(viewer),
            status=reduced(status) if viewer.own else status,
            inflight=[one for one in self.inflight() if viewer.question.shows(one.client)],
            swaps=list(self.swaps.records),
        )
        return self.block("state", state)

    def page(self, viewer: Viewer) -> PageInfo:
        principal = viewer.question.principal
        return PageInfo(
            version=__version__,
            title=TITLE,
            many=not self.settings.one,
            proxy="." if viewer.question.proxy else self.proxy(viewer.question.request),
            edit_config=self.settings.config.ui.edit_config,
            admin=principal is None or not principal.models,
            own=viewer.own,
        )

    # what changes

    def look(self) -> None:
        """Tell what is different in the status."""
        self.looked, began = asyncio.get_running_loop().time(), time.thread_time()
        before, self.known = self.known, msgspec.to_builtins(self.status_now())
        if before is not None:
            self.change(before, self.known, full=True)
            if self.reduces:
                self.change(reduced(before), reduced(self.known), full=False)
        self.pause = max(AT_MOST, SHARE * (time.thread_time() - began))

    def change(self, before: Json, now: Json, *, full: bool) -> None:
        """One `change`, for clients that see everything or for the others."""
        if found := list(difference(before, now)):
            self.add("change", LiveChange(now=time.time(), set=found), full=full, client=None if full else "")

    def arm(self, seconds: float) -> None:
        """Look again after so many seconds, unless a look is due before that."""
        loop = asyncio.get_running_loop()
        at = max(loop.time() + seconds, self.looked + self.pause)
        if self.timer is None or self.timer.when() > at:
            self.disarm()
            self.timer = loop.call_at(at, self.look_again)

    def disarm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def look_again(self) -> None:
        self.timer = None
        try:
            self.look()
        finally:
            self.arm(AT_LEAST)

    def hear(self, event: Event) -> None:
        """Something happened."""
        if isinstance(event, RequestEnded):
            if not event.record.for_model:  # the page's own questions are not shown to it
                return
            self.add("request", explained(event.record), client=event.record.client or None)
        elif not isinstance(event, OTHERWISE):
            told = msgspec.to_builtins(event) | {"at": time.time()}
            of_a_head = isinstance(event, OF_A_PREFIX) and not event.prefix
            self.add("notice", told, client=None if of_a_head or isinstance(event, OF_OTHERS) else "")
        if isinstance(event, ConfigReloaded) and not event.error:
            self.reloaded(event)
        if self.viewers and not isinstance(event, InflightChanged | WarmupChecked):
            self.arm(SOON)

    def moved(self, event: InflightChanged) -> None:
        """A request came, moved on or ended."""
        change = LiveInflight(operation=event.operation, id=event.id, request=event.request)
        self.add("inflight", change, client=event.client or None)
        if self.viewers:
            self.arm(SOON)

    def swapped(self, record: SwapRecord) -> None:
        self.add("swap", record, client="")

    def reloaded(self, event: ConfigReloaded) -> None:
        """Another configuration: who may see what, if keys changed, is asked anew; else everything is told anew."""
        if any(name.startswith(KEYS) for name in event.changed):
            self.forget()
            for viewer in self.viewers:
                viewer.end()
            return
        self.look()
        for viewer in self.viewers:
            viewer.push(self.state(viewer))

    def add(self, kind: str, value: object, *, full: bool = True, client: str | None = None) -> None:
        """Send an event to those who may see it, and keep it for those who come back."""
        self.number += 1
        told = Told(self.number, self.block(kind, value), full, client)
        self.ring.append(told)
        self.bytes += len(told.block)
        while len(self.ring) > MOST_KEPT or self.bytes > MOST_BYTES:
            gone = self.ring.popleft()
            self.bytes -= len(gone.block)
            self.base = gone.number
        for viewer in tuple(self.viewers):
            if viewer.sees(told):
                viewer.push(told.block)

    def block(self, kind: str, value: object) -> bytes:
        data = msgspec.json.encode(value)
        return b"id: %b-%d\nevent: %b\ndata: %b\n\n" % (self.boot.encode(), self.number, kind.encode(), data)
