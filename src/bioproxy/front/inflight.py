"""The requests that are under way: who can be watched, and cancelled.

An entry lives from the moment its model is known until its last byte. It costs a dictionary entry; nothing of it is put
into words before a client asks (`snapshot`) or listens (`InflightChanged` on the bus). The bytes of a stream run past
this table: an entry gets a callable that tells how many there were, and one timer for all entries looks four times a
second what moved. So a stream of a thousand tokens a second is reported four times, whatever it does.

A cancellation is asked for here and carried out by the request's own task, which finds its entry's `cancelled` set and
can tell it from a client that left.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from bioproxy.activity import InflightRequest
from bioproxy.config.settings import Settings
from bioproxy.errors import BioproxyError
from bioproxy.events import Bus, InflightChanged
from bioproxy.front.exchange import Exchange
from bioproxy.front.shown import shown
from bioproxy.models.names import Target
from bioproxy.wire.http1.message import Headers

Busy = Counter[tuple[str, str]]  # requests by selector and target

INTERVAL = 0.25  # seconds between two looks at what moved
PLAIN = re.compile(r"[A-Za-z0-9._-]{1,128}")  # an id that can stand in a path as it is


class InflightStatistics(msgspec.Struct, frozen=True):
    """How many requests are under way, and how many were cancelled by hand."""

    running: int
    cancelled: int


class Entry(msgspec.Struct, kw_only=True, eq=False):
    """One request under way. `update` may be called for every chunk; a `source` spares that."""

    id: str
    model: str
    path: str
    method: str
    headers: Headers
    remote: str
    metadata: dict[str, str]
    client: str
    session: str
    started: float  # unix time
    cancel: Callable[[], object]
    cancelled: bool = False
    replied: Headers = []  # the answer's headers, as soon as there are any
    received: int = 0  # bytes of the answer's body
    told: tuple[int, int] = (0, 0)  # bytes and number of headers that were told of last
    source: Callable[[], int] | None = None

    def update(self, received: int, headers: Headers | None = None) -> None:
        """The answer has `received` bytes so far, and these headers; told of within a quarter of a second."""
        self.received = received
        if headers is not None:
            self.replied = headers

    def moved(self) -> bool:
        """Whether there is news since the last time this was asked."""
        if self.source is not None:
            self.received = self.source()
        now = (self.received, len(self.replied))
        moved, self.told = now != self.told, now
        return moved

    def view(self) -> InflightRequest:
        """The entry as the API shows it."""
        if self.source is not None:
            self.received = self.source()
        return InflightRequest(
            id=self.id,
            timestamp=datetime.fromtimestamp(self.started, UTC),
            model=self.model,
            req_path=self.path,
            method=self.method,
            req_headers=shown(self.headers),
            remote_ip=self.remote,
            resp_headers=shown(self.replied),
            resp_bytes=self.received,
            elapsed_ms=max(0, int((time.time() - self.started) * 1000)),
            metadata=dict(self.metadata) if self.metadata else msgspec.UNSET,
            client=self.client,
            session=self.session,
        )


class Inflight:
    """All requests under way."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self.bus = bus
        self.settings = settings
        self.entries: dict[str, Entry] = {}
        self.number = 0
        self.cancellations = 0
        self.timer: asyncio.TimerHandle | None = None

    @property
    def sessions(self) -> tuple[str, ...]:
        """The headers in which clients name their conversation."""
        return self.settings.dialect.ui.activity.session_id

    def add(
        self,
        identity: str,
        *,
        model: str,
        path: str,
        method: str,
        headers: Headers,
        remote: str,
        metadata: dict[str, str] | None = None,
        client: str = "",
        session: str = "",
        started: float | None = None,
        cancel: Callable[[], object] | None = None,
    ) -> Entry:
        """Enter a request; `cancel` ends it if an operator asks for that (default: it cancels the calling task).

        `identity` is kept if it is free and can stand in a path: clients may choose it, and send one twice.
        """
        self.number += 1
        free = identity not in self.entries and PLAIN.fullmatch(identity) is not None
        entry = Entry(
            id=identity if free else f"~{self.number}",
            model=model,
            path=path,
            method=method,
            headers=headers,
            remote=remote,
            metadata=metadata if metadata is not None else {},
            client=client,
            session=session,
            started=time.time() if started is None else started,
            cancel=cancel if cancel is not None else canceller(),
        )
        self.entries[entry.id] = entry
        if self.heard:
            self.tell(entry)
        if self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(INTERVAL, self.look)
        return entry

    def remove(self, entry: Entry) -> None:
        """The request has ended, whatever way."""
        if self.entries.pop(entry.id, None) is not None and self.heard:
            self.bus.publish(InflightChanged(operation="remove", id=entry.id, client=entry.client))

    def cancel(self, identity: str) -> bool:
        """End a request; False if there is none of that id. Its own clean-up takes it off the table."""
        entry = self.entries.get(identity)
        if entry is None:
            return False
        if not entry.cancelled:
            entry.cancelled = True
            self.cancellations += 1
            entry.cancel()
        return True

    def snapshot(self) -> list[InflightRequest]:
        """All entries as the API shows them, the oldest first."""
        return [entry.view() for entry in sorted(self.entries.values(), key=lambda entry: (entry.started, entry.id))]

    def session(self, header: Callable[[bytes], bytes | None]) -> str:
        """What a request says which conversation it belongs to: the first of `sessions` that it has; "" for none.

        `header` gives the first value of a header by its lower-case name.
        """
        for name in self.sessions:
            if value := header(name.lower().encode("latin-1", "replace")):
                return value.decode("utf-8", "replace")
        return ""

    @property
    def heard(self) -> bool:
        """Whether anyone listens."""
        return bool(self.bus.subscribers.get(InflightChanged))

    def tell(self, entry: Entry) -> None:
        """Publish one entry as it is now."""
        entry.moved()
        view = entry.view()
        self.bus.publish(InflightChanged(operation="upsert", id=entry.id, request=view, client=entry.client))

    def look(self) -> None:
        """Tell of what moved since the last look; the timer ends with the last entry."""
        self.timer = None
        if not self.entries:
            return
        self.timer = asyncio.get_running_loop().call_later(INTERVAL, self.look)
        if self.heard:
            for entry in tuple(self.entries.values()):
                if entry.moved():
                    self.tell(entry)

    def close(self) -> None:
        """Look no more; for the shutdown."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def statistics(self) -> InflightStatistics:
        """The counts of now and since the start."""
        return InflightStatistics(running=len(self.entries), cancelled=self.cancellations)


def canceller() -> Callable[[], object]:
    """What cancels the task that runs now."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancel


class Counted:
    """Enters the request when it is made, and takes it out at the end of the block.

    A cancellation by an operator becomes an answer that says so; a client that left stays one.
    """

    __slots__ = ("busy", "entry", "inflight", "selected")

    def __init__(self, inflight: Inflight, busy: Busy, exchange: Exchange, target: Target) -> None:
        self.inflight = inflight
        self.busy = busy
        self.selected = (target.selector, target.name) if target.selector else None
        request, record = exchange.request, exchange.record
        record.session = inflight.session(request.header)
        self.entry = inflight.add(
            exchange.id,
            model=target.model,
            path=record.req_path or request.path,
            method=request.method,
            headers=request.headers,
            remote=request.peer,
            metadata=record.metadata,
            client=record.client,
            session=record.session,
            started=record.started,
            cancel=exchange.task.cancel if exchange.task is not None else None,
        )
        self.entry.source, self.entry.replied = lambda: exchange.responder.bytes_out, exchange.reply

    def __enter__(self) -> None:
        if self.selected is not None:
            self.busy[self.selected] += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self.selected is not None:
            self.busy[self.selected] -= 1
        self.inflight.remove(self.entry)
        if isinstance(error, asyncio.CancelledError) and self.entry.cancelled:
            task = asyncio.current_task()
            if task is not None and task.uncancel() == 0:
                raise BioproxyError("the request was cancelled by an operator", status=503) from None
