"""The event streams of both ports: `/events`, llama-swap's `/api/events`, and `/models/sse` of llama.cpp's router.

One hub serves each. An event becomes bytes once, whatever the number of clients, and not at all while there is none:
a hub subscribes to the bus with its first client and leaves it with its last. A publisher never waits for a client:
each has a queue of bounded length.

`/events` cuts off a client that does not keep up, because a stream with holes would look whole. A request's `finding`
(words of a prompt) is left out there; it stands in `/requests`.

`/api/events` feeds llama-swap's page and people's dashboards. Each message is JSON whose `data` is JSON *again*, as a
string; clients decode twice. A client first gets what is (both logs, the models, the page's settings, the profile, the
requests under way), and then what changes. If it does not keep up, messages are dropped, as llama-swap's clients
expect; what they show would then be wrong for ever, so as soon as such a client has read all that waited, it gets the
whole state once more. Logs are another matter: a client that is behind takes no more of them for a while, and the log
itself (logbook.py) marks how much it missed.

`/models/sse` is for clients that show how a model loads (its server-models.cpp, `notify_sse`): what changes from now
on, one JSON object each, plain. They look at `/models` for what is.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack

import msgspec
from msgspec.structs import replace

from bioproxy import aio
from bioproxy.admin.routes import ALWAYS, Json, Question
from bioproxy.events import (
    ActivityAdded,
    Bus,
    ConfigReloaded,
    Event,
    InflightChanged,
    ModelChanged,
    ProfileChanged,
    RequestEnded,
)
from bioproxy.explain import explained
from bioproxy.front.inflight import Inflight
from bioproxy.logbook import Ring, Subscription
from bioproxy.wire.http1.message import Headers, Responder

log = logging.getLogger(__name__)

MOST_WAITING = 1000  # events that a client of `/events` may be behind
MOST_MESSAGES = 1024  # the same of `/api/events`
LOGS_WAIT = 1 << 20  # bytes behind which a client gets no more of the logs
SILENCE = 15.0  # seconds after which a comment shows that the stream lives
HEADERS: Headers = [(b"Content-Type", b"text/event-stream"), (b"X-Accel-Buffering", b"no"), *ALWAYS]
TOLD = (ModelChanged, ProfileChanged, ConfigReloaded, ActivityAdded, InflightChanged)  # by `/api/events`
OPENING = b": events of bioproxy\nretry: 3000\n\n"


class Listener:
    """One client's queue, of `held` bytes; `cut` ends its connection when it is too far behind.

    It may never read again.
    """

    def __init__(self, cut: Callable[[], None]) -> None:
        self.cut = cut
        self.blocks: deque[bytes] = deque()
        self.held = 0
        self.awake = asyncio.Event()
        self.over = False

    def push(self, block: bytes) -> None:
        if self.over:
            return
        if len(self.blocks) >= MOST_WAITING:
            log.warning("a client of an event stream was %d events behind and was cut off", MOST_WAITING)
            self.blocks.clear()
            self.end()
            self.cut()
        else:
            self.add(block)

    def add(self, block: bytes) -> None:
        self.blocks.append(block)
        self.held += len(block)
        self.awake.set()

    def end(self) -> None:
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
        self.held = 0
        return blocks


class Mailbox(Listener):
    """One client's queue; if it is full, messages are dropped and counted."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.dropped = 0
        self.taken = asyncio.Event()

    def push(self, block: bytes) -> None:
        if self.over:
            return
        if len(self.blocks) < MOST_MESSAGES:
            self.add(block)
            return
        if not self.dropped:
            log.warning("a client of /api/events does not keep up: messages to it are dropped until it does")
        self.dropped += 1

    async def take(self) -> bytes:
        blocks = await super().take()
        self.taken.set()
        return blocks

    async def room(self) -> None:
        """Return when the client has read what is too much to add a log to."""
        while self.held > LOGS_WAIT or len(self.blocks) > MOST_MESSAGES // 2:
            self.taken.clear()
            await self.taken.wait()


class Hub:
    """All clients of one stream; `blocks_of` says what they are sent of an event of these `kinds`.

    What nothing subscribes to by its kind is not published at all (`InflightChanged`). `close` is for the shutdown.
    """

    def __init__(
        self, bus: Bus, blocks_of: Callable[[Event], Iterable[bytes]], kinds: Iterable[type[Event]] = (Event,)
    ) -> None:
        self.bus = bus
        self.blocks_of = blocks_of
        self.kinds = tuple(kinds)
        self.listeners: set[Listener] = set()
        self.subscriptions: list[Callable[[], None]] = []
        self.closed = False

    def join(self, listener: Listener) -> None:
        """Let a client hear everything from now on, until `leave`."""
        if not self.subscriptions:
            self.subscriptions = [self.bus.subscribe(kind, self.hear) for kind in self.kinds]
        if self.closed:
            listener.end()
        self.listeners.add(listener)

    def leave(self, listener: Listener) -> None:
        """End a client; with the last one the bus is left alone."""
        self.listeners.discard(listener)
        if not self.listeners:
            for unsubscribe in self.subscriptions:
                unsubscribe()
            self.subscriptions = []

    def hear(self, event: Event) -> None:
        for block in self.blocks_of(event):
            for listener in tuple(self.listeners):
                listener.push(block)

    def close(self) -> None:
        """End all streams; clients connect again by themselves."""
        self.closed = True
        for listener in self.listeners:
            listener.end()

    async def serve(self, question: Question) -> None:
        """Stream to one client until it leaves (which cancels this), lags too far behind, or the hub closes."""
        responder = question.responder
        if question.request.method == "HEAD":
            responder.send(200, HEADERS)
            return
        listener = Listener(responder.abort)
        self.join(listener)
        try:
            responder.start(200, HEADERS, length=None)
            responder.write(OPENING)
            await flow(listener, responder)
        finally:
            self.leave(listener)


async def flow(listener: Listener, responder: Responder, each: Callable[[], None] = lambda: None) -> None:
    """Send what comes until the end; `each` is called whenever the client has read all."""
    while not listener.over:
        responder.write(await listener.take())
        await responder.drain()
        each()
    responder.finish()


def event_blocks(event: Event) -> tuple[bytes, ...]:
    """An event for `/events`: its class's name, and its fields as JSON.

    What moves four times a second, with headers, is for `/api/events` only.
    """
    if isinstance(event, InflightChanged):
        return ()
    if isinstance(event, RequestEnded):
        event = RequestEnded(record=replace(explained(event.record), finding=None))
    return (b"event: %b\ndata: %b\n\n" % (type(event).__name__.encode(), msgspec.json.encode(event)),)


def router_blocks(event: Event) -> tuple[bytes, ...]:
    told = router_event(event)
    return () if told is None else (b"data: %b\n\n" % msgspec.json.encode(told),)


def router_event(event: Event) -> Json | None:
    """What llama.cpp's router says when this happens; None for what it does not know.

    It has no word for a model that is stopping: until its process is gone it is loaded. A start that failed has another
    exit code than 0.
    """
    if isinstance(event, ConfigReloaded) and not event.error:
        return {"model": "*", "event": "models_reload"}
    if not isinstance(event, ModelChanged):
        return None
    if event.new == "starting":
        return {"model": event.model, "event": "model_status", "data": {"status": "loading"}}
    data: Json = {"status": "loaded"}
    if event.new in {"stopped", "failed"} and event.old in {"starting", "ready", "stopping"}:
        data = {"status": "unloaded", "exit_code": int(event.new == "failed")}
    elif event.new != "ready":
        return None
    return {"model": event.model, "event": "status_change", "data": data}


def message(kind: str, data: Json) -> bytes:
    inner = msgspec.json.encode(data).decode()
    return b"event:message\ndata:%b\n\n" % msgspec.json.encode({"type": kind, "data": inner})


class SwapEvents(Hub):
    """All clients of `/api/events`.

    `models` lists all models with their states, `profile` is the active one ("": none); `logs` by the name in messages:
    proxy, upstream.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        models: Callable[[], Json],
        profile: Callable[[], str],
        inflight: Inflight,
        logs: Mapping[str, Ring],
    ) -> None:
        super().__init__(bus, self.messages, TOLD)
        self.models, self.profile = models, profile
        self.inflight = inflight
        self.logs = logs

    def messages(self, event: Event) -> list[bytes]:
        """What all clients are told of an event; after a reload that was taken over, anything may be different."""
        match event:
            case ModelChanged():
                return [message("modelStatus", self.models())]
            case ProfileChanged():  # names mean other models
                return [self.active(), message("modelStatus", self.models())]
            case ConfigReloaded(error=""):
                return self.state()
            case ActivityAdded():
                return [message("activity", {"id": event.id})]
            case InflightChanged(operation="upsert"):
                return [message("inflight", {"operation": "upsert", "request": event.request})]
            case InflightChanged():
                return [message("inflight", {"operation": "remove", "id": event.id})]
        return []

    def active(self) -> bytes:
        return message("profileChanged", {"active": self.profile() or None})

    def state(self) -> list[bytes]:
        """All that is, except the logs."""
        running = list(self.inflight.snapshot())
        return [
            message("modelStatus", self.models()),
            message("uiConfig", {"activity": {"session_id": list(self.inflight.sessions)}}),
            self.active(),
            message("inflight", {"operation": "snapshot"} | ({"requests": running} if running else {})),
        ]

    def tell_state(self, mailbox: Mailbox) -> None:
        for block in self.state():
            mailbox.push(block)

    def catch_up(self, mailbox: Mailbox) -> None:
        """Tell a client that lost messages the state anew, once it is up to date."""
        if mailbox.dropped and not mailbox.blocks:
            mailbox.dropped = 0
            self.tell_state(mailbox)

    async def serve(self, question: Question) -> None:
        """Stream to one client until it leaves (which cancels this) or `close` is called."""
        responder = question.responder
        if question.request.method == "HEAD":
            responder.send(200, HEADERS)
            return
        mailbox = Mailbox()
        self.join(mailbox)
        try:
            responder.start(200, HEADERS, length=None)
            with ExitStack() as subscriptions:
                pumps = [
                    Pump(source, subscriptions.enter_context(ring.subscribe(history=True)), mailbox)
                    for source, ring in self.logs.items()
                ]
                self.tell_state(mailbox)
                await self.flow(mailbox, responder, pumps)
        finally:
            self.leave(mailbox)

    async def flow(self, mailbox: Mailbox, responder: Responder, pumps: Sequence[Pump]) -> None:
        """Send what comes, and the logs beside it, until the end."""
        tasks = [aio.spawn(pump.run(), name=f"events: log of {pump.source}") for pump in pumps]
        try:
            await flow(mailbox, responder, lambda: self.catch_up(mailbox))
        finally:
            await aio.finish(tasks)


class Pump:
    """Passes one log on to one client, what it holds at once. As text: a character may be cut between two pieces."""

    def __init__(self, source: str, lines: Subscription, mailbox: Mailbox) -> None:
        self.source = source
        self.lines = lines
        self.mailbox = mailbox
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.tell(lines.take())

    def tell(self, piece: bytes) -> None:
        """Send a piece, perhaps an empty one."""
        self.mailbox.push(message("logData", {"source": self.source, "data": self.decoder.decode(piece)}))

    async def run(self) -> None:
        """Send what is written from now on, as the client reads."""
        async for piece in self.lines:
            self.tell(piece)
            await self.mailbox.room()
