"""The logs that are kept in memory and can be followed: ours, the engines', each model's, and a combined one.

A log is a `Ring`: the newest 100 KiB as bytes, exactly as they came (terminal codes and halves of characters too),
taken from memory when the first byte is written. Whoever follows it has a bounded backlog of its own, so a writer never
waits: a reader that is too slow loses what does not fit, and finds a line in its place that says how much. Any thread
may write; each reader is woken on its own loop.

The `Logbook` owns the rings and decides which of them a line goes to. What `logToStdout` routes is the combined log,
and what our standard error shows (README of llama-swap, logging). Standard error may be a pipe that no program reads,
so a thread of its own writes there, from the same kind of backlog.

What a line of ours looks like lives in log.py, how a child is read in engines/child.py, HTTP in admin/logs.py.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Self

import msgspec

CAPACITY = 100 << 10  # bytes of history
MOST_BEHIND = 1 << 20  # bytes that a reader may be behind
TOGETHER = 0.02  # seconds in which lines for standard error are gathered
LAST_LINES = 1.0  # seconds that standard error gets at the end for what still waits

Destination = Literal["proxy", "upstream", "both", "none"]


class RingStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """`held` of `capacity` bytes are kept, `bytes_in` ever came; `dropped` are those that slow readers lost."""

    capacity: int
    held: int
    bytes_in: int
    subscribers: int
    dropped: int


class ConsoleStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What our standard error took; `fault` says why it takes nothing any more."""

    written: int
    waiting: int
    dropped: int
    fault: str


class LogbookStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Every ring by the name that it can be asked for with; the combined one is `mux`."""

    to_stdout: Destination
    rings: dict[str, RingStatistics]
    console: ConsoleStatistics | None


class Backlog:
    """Bytes that one reader has not taken yet, `limit` at most. The owner sees to locking."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting = bytearray()
        self.missing = 0  # bytes lost since the last `take`

    def put(self, data: bytes) -> int:
        """Add what fits; how many bytes did not. Once one is lost all are, up to the next `take`: the gap is one."""
        room = max(0, self.limit - len(self.waiting))
        if len(data) <= room:
            self.waiting += data
            return 0
        self.waiting += data[:room]
        self.missing += len(data) - room
        return len(data) - room

    def take(self) -> bytes:
        """Everything that waits, and a line for what was lost after it."""
        data = bytes(self.waiting)
        self.waiting = bytearray()
        if self.missing:
            data += (b"" if data.endswith(b"\n") else b"\n") + f"— {self.missing} bytes dropped —\n".encode()
            self.missing = 0
        return data


class Subscription:
    """One reader of a ring: an async iterator of pieces, until `close` (also by `with`) or the ring's end."""

    def __init__(self, ring: Ring, limit: int) -> None:
        self.ring = ring
        self.backlog = Backlog(limit)
        self.over = False
        self.awake = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not (data := self.take()):
            if self.over:
                raise StopAsyncIteration
            await self.awake.wait()
        return data

    def take(self) -> bytes:
        """What has come since the last time, perhaps nothing."""
        with self.ring.lock:
            self.awake.clear()
            return self.backlog.take()

    def push(self, data: bytes) -> int:
        """Add a piece; how much of it is lost. The ring's lock is held."""
        lost = self.backlog.put(data)
        self.wake()
        return lost

    def close(self) -> None:
        """Hear no more; what waits can still be taken."""
        with self.ring.lock:
            self.ring.subscriptions.discard(self)
            self.over = True
            self.wake()

    def wake(self) -> None:
        """Let the reader look, from whatever thread; one that has not looked since the last time is awake already."""
        if self.awake.is_set():
            return
        if threading.get_ident() == self.thread:
            self.awake.set()
        else:
            with suppress(RuntimeError):  # its loop is closed: there is no reader any more
                self.loop.call_soon_threadsafe(self.awake.set)


class Ring:
    """The newest `capacity` bytes of one log, and who follows it."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.kept: memoryview | None = None  # of a bytearray: assigning to it copies once, and never moves it
        self.place = 0  # where the next byte goes
        self.bytes_in = 0
        self.dropped = 0
        self.over = False
        self.subscriptions: set[Subscription] = set()
        self.lock = threading.RLock()  # not Lock: a finalizer that logs may run in the middle of a write

    def write(self, data: bytes) -> None:
        """Add `data` to the history, over its oldest bytes, and to what its readers have to take."""
        with self.lock:
            kept = self.kept
            if kept is None:
                kept = self.kept = memoryview(bytearray(self.capacity))
            self.bytes_in += len(data)
            newest = data[-self.capacity :]
            end = self.place + len(newest)
            if end <= self.capacity:
                kept[self.place : end] = newest
            else:
                split = self.capacity - self.place
                kept[self.place :] = newest[:split]
                kept[: end - self.capacity] = newest[split:]
            self.place = end % self.capacity
            for subscription in self.subscriptions:
                self.dropped += subscription.push(data)

    def history(self) -> bytes:
        """What is kept, oldest first."""
        with self.lock:
            if self.kept is None:
                return b""
            if self.bytes_in < self.capacity:
                return bytes(self.kept[: self.place])
            return bytes(self.kept[self.place :]) + bytes(self.kept[: self.place])

    def subscribe(self, *, history: bool = False, limit: int = MOST_BEHIND) -> Subscription:
        """A reader of what is written from now on, with the `history` before it: no byte is lost or comes twice."""
        subscription = Subscription(self, limit)
        with self.lock:
            if history:
                subscription.backlog.waiting += self.history()  # whole, even if the limit is less
            subscription.over = self.over
            if not self.over:
                self.subscriptions.add(subscription)
        return subscription

    def close(self) -> None:
        """End every reader; one that comes later ends once it has the history."""
        with self.lock:
            self.over = True
            for subscription in tuple(self.subscriptions):
                subscription.close()

    def statistics(self) -> RingStatistics:
        with self.lock:
            return RingStatistics(
                capacity=self.capacity,
                held=min(self.bytes_in, self.capacity),
                bytes_in=self.bytes_in,
                subscribers=len(self.subscriptions),
                dropped=self.dropped,
            )


class Console:
    """Our standard error, written by a thread of its own, so that the program never waits for its reader."""

    def __init__(self, descriptor: int = 2, *, limit: int = MOST_BEHIND) -> None:
        self.descriptor = descriptor
        self.backlog = Backlog(limit)
        self.changed = threading.Condition()
        self.thread: threading.Thread | None = None
        self.over = threading.Event()
        self.written = self.dropped = 0
        self.fault = ""

    def write(self, data: bytes) -> None:
        """Have `data` written soon; what does not fit is lost, and marked."""
        with self.changed:
            if self.fault or self.over.is_set():
                self.dropped += len(data)
                return
            self.dropped += self.backlog.put(data)
            if self.thread is None:  # a daemon: a reader that sleeps must not keep the program from ending
                self.thread = threading.Thread(target=self.run, name="log", daemon=True)
                self.thread.start()
            self.changed.notify()  # wakes the thread only if it sleeps in `next`

    def run(self) -> None:
        """The thread: write what comes until `close`, or until standard error is closed."""
        while data := self.next():
            try:
                write_all(self.descriptor, data)
            except OSError as error:
                with self.changed:
                    self.fault = f"standard error cannot be written: {error.strerror}"
                    self.dropped += len(data) + len(self.backlog.take())
                return
            self.written += len(data)
            self.over.wait(TOGETHER)  # lines that follow go out together: waking for each costs more than writing it

    def next(self) -> bytes:
        """What waits, as soon as something does; nothing at the end."""
        with self.changed:
            self.changed.wait_for(lambda: self.over.is_set() or self.backlog.waiting)
            return self.backlog.take()

    def close(self, *, deadline: float = LAST_LINES) -> None:
        """Write what waits, for `deadline` seconds at most, and nothing after it. Blocks; for the program's end."""
        self.over.set()
        with self.changed:
            self.changed.notify()
        if self.thread is not None:
            self.thread.join(deadline)

    def statistics(self) -> ConsoleStatistics:
        with self.changed:
            waiting = len(self.backlog.waiting)
            return ConsoleStatistics(written=self.written, waiting=waiting, dropped=self.dropped, fault=self.fault)


def write_all(descriptor: int, data: bytes) -> None:
    """Write `data` and wait as long as it takes, also if another program made the descriptor non-blocking."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


class Logbook:
    """All logs. `to_stdout` says what the combined log and `console` get; without a console nothing is shown.

    With `as_json`, which makes JSON lines of what a model's engine wrote, the console gets JSON lines only: ours come
    by `show`.
    """

    def __init__(
        self, *, to_stdout: Destination = "proxy", console: Console | None = None, capacity: int = CAPACITY
    ) -> None:
        self.console = console
        self.as_json: Callable[[str, bytes], bytes] | None = None
        self.capacity = capacity
        self.mux, self.proxy, self.upstream = Ring(capacity), Ring(capacity), Ring(capacity)
        self.models: dict[str, Ring] = {}
        self.route(to_stdout)

    def route(self, to_stdout: Destination) -> None:
        """Route what comes from now on."""
        self.to_stdout = to_stdout
        self.shows_proxy = to_stdout in {"proxy", "both"}
        self.shows_upstream = to_stdout in {"upstream", "both"}

    def proxy_line(self, text: str) -> None:
        """A line of ours, without its newline; from any thread."""
        data = text.encode("utf-8", "backslashreplace") + b"\n"
        self.proxy.write(data)
        if self.shows_proxy:
            self.mux.write(data)
            if self.console is not None and self.as_json is None:
                self.console.write(data)

    def show(self, text: str) -> None:
        """A line of ours for the console alone; from any thread."""
        if self.shows_proxy and self.console is not None:
            self.console.write(text.encode("utf-8", "backslashreplace") + b"\n")

    def model(self, model_id: str) -> Callable[[bytes], None]:
        """Where the output of `model_id` goes. Asking makes its log known, though it may never start."""
        ring = self.models.get(model_id)
        if ring is None:
            ring = self.models[model_id] = Ring(self.capacity)

        def sink(data: bytes) -> None:
            ring.write(data)
            self.upstream.write(data)
            if self.shows_upstream:
                self.mux.write(data)
                if self.console is not None:
                    self.console.write(data if self.as_json is None else self.as_json(model_id, data))

        return sink

    def forget(self, model_id: str) -> None:
        """A model that is configured no more: its log goes, and its readers come to their end."""
        ring = self.models.pop(model_id, None)
        if ring is not None:
            ring.close()

    def source(self, name: str) -> Ring | None:
        """The log of that name: "" is the combined one, then `proxy`, `upstream`, and models by their ID."""
        named = {"": self.mux, "proxy": self.proxy, "upstream": self.upstream}.get(name)
        return self.models.get(name) if named is None else named

    def close(self) -> None:
        """End every reader, and write to standard error what still waits. Blocks up to LAST_LINES seconds."""
        for ring in (self.mux, self.proxy, self.upstream, *self.models.values()):
            ring.close()
        if self.console is not None:
            self.console.close()

    def statistics(self) -> LogbookStatistics:
        rings = {"mux": self.mux, "proxy": self.proxy, "upstream": self.upstream, **self.models}
        return LogbookStatistics(
            to_stdout=self.to_stdout,
            rings={name: ring.statistics() for name, ring in rings.items()},
            console=self.console.statistics() if self.console else None,
        )
