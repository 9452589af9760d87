"""`/events`: what the bus tells, as server-sent events, to anyone who listens.

An event is encoded once, whatever the number of listeners, and not at all while there is none: the hub subscribes with
its first listener and leaves with its last. A publisher never waits for a listener: each has a queue of bounded length,
and one that does not keep up is cut off, for a stream with holes would look whole.

A request's `miss` (words of a prompt) is left out here; it stands in `/requests`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from bioproxy.events import Bus, Event, InflightChanged, RequestEnded
from bioproxy.explain import explained
from bioproxy.wire.http1.message import Headers, Responder

log = logging.getLogger(__name__)

MOST_WAITING = 1000  # events that a listener may be behind
SILENCE = 15.0  # seconds after which a comment shows that the stream lives
HEADERS: Headers = [
    (b"Content-Type", b"text/event-stream"),
    (b"X-Accel-Buffering", b"no"),
]


def encode(event: Event) -> bytes:
    """One event as a block of the stream: its class's name, and its fields as JSON."""
    if isinstance(event, RequestEnded):
        event = RequestEnded(record=replace(explained(event.record), miss=""))
    return b"event: %b\ndata: %b\n\n" % (type(event).__name__.encode(), msgspec.json.encode(event))


class Listener:
    """One client's queue; `cut` ends its connection when it is too far behind."""

    def __init__(self, cut: Callable[[], None]) -> None:
        self.cut = cut
        self.blocks: deque[bytes] = deque()
        self.awake = asyncio.Event()
        self.over = False

    def push(self, block: bytes) -> None:
        """Add a block; a listener that is too far behind is cut off, for it may never read again."""
        if self.over:
            return
        if len(self.blocks) >= MOST_WAITING:
            log.warning("a client of an event stream was %d events behind and was cut off", MOST_WAITING)
            self.blocks.clear()
            self.end()
            self.cut()
        else:
            self.blocks.append(block)
            self.awake.set()

    def end(self) -> None:
        """Let the stream come to its end."""
        self.over = True
        self.awake.set()

    async def take(self) -> bytes:
        """All that waits, or a comment after a while of silence."""
        try:
            async with asyncio.timeout(SILENCE):
                await self.awake.wait()
        except TimeoutError:
            return b": alive\n\n"
        self.awake.clear()
        blocks = b"".join(self.blocks)
        self.blocks.clear()
        return blocks


class Hub:
    """All listeners of one bus."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.listeners: set[Listener] = set()
        self.unsubscribe: Callable[[], None] | None = None

    def join(self, cut: Callable[[], None]) -> Listener:
        """A new listener, which hears everything from now on, until `leave` or `cut`."""
        if self.unsubscribe is None:
            self.unsubscribe = self.bus.subscribe(Event, self.hear)
        listener = Listener(cut)
        self.listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """End a listener; with the last one the bus is left alone."""
        self.listeners.discard(listener)
        if not self.listeners and self.unsubscribe is not None:
            self.unsubscribe()
            self.unsubscribe = None

    def hear(self, event: Event) -> None:
        """Pass one event to all; what moves four times a second, with headers, is for `/api/events` only."""
        if isinstance(event, InflightChanged):
            return
        block = encode(event)
        for listener in tuple(self.listeners):
            listener.push(block)

    def close(self) -> None:
        """End all streams; for the shutdown."""
        for listener in self.listeners:
            listener.end()

    async def serve(self, responder: Responder, headers: Headers) -> None:
        """Stream to one client until it leaves (which cancels this), lags too far behind, or the hub closes."""
        listener = self.join(responder.abort)
        try:
            responder.start(200, [*HEADERS, *headers], length=None)
            responder.write(b": events of bioproxy\nretry: 3000\n\n")
            while not listener.over:
                responder.write(await listener.take())
                await responder.drain()
            responder.finish()
        finally:
            self.leave(listener)
