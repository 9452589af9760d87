"""The requests that are under way: who can be watched, and cancelled.

A request stands here from the moment its model is known until its last byte. It costs two entries in dictionaries;
nothing of it is put into words before a client asks (`snapshot`) or listens (`InflightChanged` on the bus). The bytes
of a stream run past this table: one timer for all looks four times a second what moved. So a stream of a thousand
tokens a second is reported four times, whatever it does.

A cancellation is asked for here and carried out by the request's own task, which finds its exchange `cancelled` and can
tell it from a client that left (proxy.py).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from bioproxy.activity import InflightRequest, Standing
from bioproxy.config.settings import Settings
from bioproxy.events import Bus, InflightChanged
from bioproxy.front.exchange import Exchange
from bioproxy.front.shown import shown

NEAR = 10  # places from the head of a queue that are told one by one
INTERVAL = 0.25  # seconds between two looks at what moved
PLAIN = re.compile(r"[A-Za-z0-9._-]{1,128}")  # an id that can stand in a path as it is


class InflightStatistics(msgspec.Struct, frozen=True):
    """How many requests are under way, and how many were cancelled by hand."""

    running: int
    cancelled: int


class Inflight:
    """All requests under way, by the ids under which they are listed."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self.bus = bus
        self.settings = settings
        self.exchanges: dict[str, Exchange] = {}
        self.told: dict[str, tuple[object, ...]] = {}  # what was told of last
        self.standing: Callable[[Exchange], Standing] = lambda _: Standing()  # where one stands; the road sets it
        self.number = 0
        self.cancellations = 0
        self.timer: asyncio.TimerHandle | None = None

    @property
    def sessions(self) -> tuple[str, ...]:
        """The headers in which clients name their conversation; the first that a request has counts."""
        return self.settings.dialect.ui.activity.session_id

    def add(self, exchange: Exchange) -> None:
        """Enter a request, and note which conversation its client says that it belongs to.

        It is listed by its id if that is free and can stand in a path: clients may choose it, and send one twice.
        """
        self.number += 1
        record, fields = exchange.record, exchange.request.fields
        for name in self.settings.dialect.ui.activity.session_id:
            if value := fields.get(name.lower().encode("latin-1", "replace")):
                record.session = value.decode("utf-8", "replace")
                break
        free = exchange.id not in self.exchanges and PLAIN.fullmatch(exchange.id) is not None
        exchange.listed = listed = exchange.id if free else f"~{self.number}"
        self.exchanges[listed] = exchange
        if self.bus.subscribers.get(InflightChanged):
            self.tell(exchange)
        if self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(INTERVAL, self.look)

    def remove(self, exchange: Exchange) -> None:
        """The request has ended, whatever way, and whether it was listed or not."""
        listed, exchange.listed = exchange.listed, ""
        self.told.pop(listed, None)
        if self.exchanges.pop(listed, None) is not None and self.bus.subscribers.get(InflightChanged):
            self.bus.publish(InflightChanged(operation="remove", id=listed, client=exchange.record.client))

    def cancel(self, identity: str, shows: Callable[[str], bool]) -> bool:
        """End a request; False if there is none of that id, or its client is not one that `shows`.

        The request's own task takes it off the table.
        """
        exchange = self.exchanges.get(identity)
        if exchange is None or not shows(exchange.record.client):
            return False
        if not exchange.cancelled and exchange.task is not None:
            exchange.cancelled = True
            self.cancellations += 1
            exchange.task.cancel()
        return True

    def snapshot(self) -> list[InflightRequest]:
        """All of them as the API shows them, the oldest first."""
        return [
            self.view(one) for one in sorted(self.exchanges.values(), key=lambda one: (one.record.started, one.listed))
        ]

    def tell(self, exchange: Exchange) -> None:
        """Publish one as it is now."""
        self.told[exchange.listed] = self.moved(exchange)
        event = InflightChanged(
            operation="upsert", id=exchange.listed, request=self.view(exchange), client=exchange.record.client
        )
        self.bus.publish(event)

    def look(self) -> None:
        """Tell of what moved since the last look; the timer ends with the last request."""
        self.timer = None
        if not self.exchanges:
            return
        self.timer = asyncio.get_running_loop().call_later(INTERVAL, self.look)
        if not self.bus.subscribers.get(InflightChanged):
            self.told.clear()
            return
        for exchange in tuple(self.exchanges.values()):
            if self.told.get(exchange.listed) != self.moved(exchange):
                self.tell(exchange)

    def close(self) -> None:
        """Look no more; for the shutdown."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def statistics(self) -> InflightStatistics:
        """The counts of now and since the start."""
        return InflightStatistics(running=len(self.exchanges), cancelled=self.cancellations)

    def moved(self, exchange: Exchange) -> tuple[object, ...]:
        """What is another once there is something to tell: of the answer, or of where it stands.

        A thousand that wait are not all told anew each time that one of them goes: those far behind stand in tens.
        """
        answer = exchange.responder.bytes_out, len(exchange.reply)
        if exchange.tail.first is not None:
            return answer
        one = self.standing(exchange)
        return *answer, one.stage, one.part, one.place if one.place <= NEAR else one.place // NEAR, one.reason

    def view(self, exchange: Exchange) -> InflightRequest:
        """One request as the API shows it."""
        request, record = exchange.request, exchange.record
        return InflightRequest(
            id=exchange.listed,
            timestamp=datetime.fromtimestamp(record.started, UTC),
            model=record.model,
            req_path=record.req_path or request.path,
            method=request.method,
            req_headers=shown(request.headers),
            remote_ip=request.peer,
            resp_headers=shown(exchange.reply),
            resp_bytes=exchange.responder.bytes_out,
            elapsed_ms=max(0, int((time.time() - record.started) * 1000)),
            metadata=dict(record.metadata) if record.metadata else msgspec.UNSET,
            client=record.client,
            session=record.session,
            standing=self.standing(exchange),
        )
