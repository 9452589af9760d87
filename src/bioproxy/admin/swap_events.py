"""`GET /api/events`: llama-swap's stream of events, which its page and people's dashboards live from; and the router's.

Each message is JSON whose `data` is JSON *again*, as a string; clients decode twice. A client first gets what is (both
logs, the models, the page's settings, the profile, the requests under way), and then what changes. Our own stream
(`stream.py`) cuts off who does not keep up, because a stream with holes would look whole. Here messages are dropped, as
llama-swap's clients expect, but what they show would then be wrong for ever: so as soon as such a client has read all
that waited, it gets the whole state once more.

Logs are another matter: a client that is behind takes no more of them for a while, and the log itself (logbook.py)
marks how much it missed.

A message is put together once for all clients, and not at all while there is none.

`GET /models/sse` is the stream of llama.cpp's router (its server-models.cpp, `notify_sse`), for clients that show how a
model loads: what changes from now on, one JSON object each, plain. They look at `/models` for what is.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol, TypeAlias

import msgspec

from bioproxy import aio
from bioproxy.activity import InflightRequest
from bioproxy.admin.admin import ALWAYS, Question
from bioproxy.admin.stream import HEADERS, Hub, Listener
from bioproxy.events import (
    ActivityAdded,
    Bus,
    ConfigReloaded,
    Event,
    InflightChanged,
    ModelChanged,
    ProfileChanged,
)
from bioproxy.logbook import Ring, Subscription
from bioproxy.wire.http1.message import Responder

Json: TypeAlias = Any
log = logging.getLogger(__name__)

MOST_WAITING = 1024  # messages that a client may be behind
LOGS_WAIT = 1 << 20  # bytes behind which a client gets no more of the logs


class SwapViews(Protocol):
    """What the stream shows of the others; given by app."""

    def models(self) -> Json:
        """All models with their states, as `modelStatus` lists them."""

    def profile(self) -> str:
        """The active profile; "" for none."""

    def sessions(self) -> Sequence[str]:
        """The headers in which clients name their conversation."""

    def inflight(self) -> Sequence[InflightRequest]:
        """The requests under way."""


def message(kind: str, data: Json) -> bytes:
    """One message of the stream."""
    inner = msgspec.json.encode(data).decode()
    return b"event:message\ndata:%b\n\n" % msgspec.json.encode({"type": kind, "data": inner})


class Mailbox(Listener):
    """One client's queue; where it is full, messages are dropped and counted."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.held = 0  # bytes
        self.dropped = 0
        self.taken = asyncio.Event()

    def push(self, block: bytes) -> None:
        """Add a message, or drop it."""
        if self.over:
            return
        if len(self.blocks) < MOST_WAITING:
            self.blocks.append(block)
            self.held += len(block)
            self.awake.set()
            return
        if not self.dropped:
            log.warning("a client of /api/events does not keep up: messages to it are dropped until it does")
        self.dropped += 1

    async def take(self) -> bytes:
        """All that waits, or a comment after a while of silence."""
        blocks = await super().take()
        self.held = 0
        self.taken.set()
        return blocks

    async def room(self) -> None:
        """Return when the client has read what is too much to add a log to."""
        while self.held > LOGS_WAIT or len(self.blocks) > MOST_WAITING // 2:
            self.taken.clear()
            await self.taken.wait()


class SwapEvents:
    """All clients of `/api/events`. `close` ends their streams, at the shutdown."""

    def __init__(self, bus: Bus, *, views: SwapViews, logs: Mapping[str, Ring]) -> None:
        self.bus = bus
        self.views = views
        self.logs = logs  # by the name in messages: proxy, upstream
        self.closed = False
        self.clients: set[Mailbox] = set()
        self.subscriptions: list[Callable[[], None]] = []

    async def serve(self, question: Question) -> None:
        """Stream to one client until it leaves (which cancels this) or `close` is called."""
        responder = question.responder
        headers = [*HEADERS, *ALWAYS]
        if question.request.method == "HEAD":
            responder.send(200, headers)
            return
        mailbox = self.join()
        try:
            responder.start(200, headers, length=None)
            with ExitStack() as subscriptions:
                pumps = [
                    Pump(source, subscriptions.enter_context(ring.subscribe(history=True)), mailbox)
                    for source, ring in self.logs.items()
                ]
                self.tell_state(mailbox)
                await self.stream(mailbox, responder, pumps)
        finally:
            self.leave(mailbox)

    async def stream(self, mailbox: Mailbox, responder: Responder, pumps: Sequence[Pump]) -> None:
        """Send what comes until the end; whoever lost messages gets the state anew once it is up to date."""
        tasks = [aio.spawn(pump.run(), name=f"events: log of {pump.source}") for pump in pumps]
        try:
            while not mailbox.over:
                responder.write(await mailbox.take())
                await responder.drain()
                if mailbox.dropped and not mailbox.blocks:
                    mailbox.dropped = 0
                    self.tell_state(mailbox)
            responder.finish()
        finally:
            await aio.finish(tasks)

    def join(self) -> Mailbox:
        """A new client; with the first one we listen to the bus."""
        if not self.clients:
            self.subscriptions = [
                self.bus.subscribe(ModelChanged, lambda _: self.push("modelStatus", self.views.models())),
                self.bus.subscribe(ProfileChanged, lambda _: self.tell_profile()),
                self.bus.subscribe(ConfigReloaded, self.reloaded),
                self.bus.subscribe(ActivityAdded, lambda event: self.push("activity", {"id": event.id})),
                self.bus.subscribe(InflightChanged, lambda event: self.push("inflight", inflight_data(event))),
            ]
        mailbox = Mailbox()
        if self.closed:
            mailbox.end()
        self.clients.add(mailbox)
        return mailbox

    def leave(self, mailbox: Mailbox) -> None:
        """A client is gone; with the last one the bus is left alone."""
        self.clients.discard(mailbox)
        if not self.clients:
            for unsubscribe in self.subscriptions:
                unsubscribe()
            self.subscriptions = []

    def push(self, kind: str, data: Json) -> None:
        """Tell all clients."""
        block = message(kind, data)
        for client in tuple(self.clients):
            client.push(block)

    def tell_state(self, mailbox: Mailbox) -> None:
        """Tell one client all that is, except the logs."""
        running = list(self.views.inflight())
        mailbox.push(message("modelStatus", self.views.models()))
        mailbox.push(message("uiConfig", {"activity": {"session_id": list(self.views.sessions())}}))
        mailbox.push(message("profileChanged", {"active": self.views.profile() or None}))
        mailbox.push(message("inflight", {"operation": "snapshot"} | ({"requests": running} if running else {})))

    def tell_profile(self) -> None:
        """Another profile is active, and names mean other models."""
        self.push("profileChanged", {"active": self.views.profile() or None})
        self.push("modelStatus", self.views.models())

    def reloaded(self, event: ConfigReloaded) -> None:
        """After a reload that was taken over, anything may be different."""
        if not event.error:
            for client in tuple(self.clients):
                self.tell_state(client)

    def close(self) -> None:
        """End all streams; clients connect again by themselves."""
        self.closed = True
        for client in self.clients:
            client.end()


def inflight_data(event: InflightChanged) -> Json:
    """The data of an `inflight` message."""
    if event.operation == "upsert":
        return {"operation": "upsert", "request": event.request}
    return {"operation": "remove", "id": event.id}


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


class RouterEvents(Hub):
    """All clients of `/models/sse`."""

    def hear(self, event: Event) -> None:
        """Pass on what the router would tell of it."""
        if (told := router_event(event)) is not None:
            block = b"data: %b\n\n" % msgspec.json.encode(told)
            for listener in tuple(self.listeners):
                listener.push(block)


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
