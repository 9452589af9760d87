"""One client's connection: bytes in, requests to the handler one after another, answers out.

An object per connection, driven by the event loop's callbacks. Bytes go to the reader; a complete request becomes a
task; while that runs, reading stays on, for that is how we notice that the client left (end of file counts as leaving,
as nginx and Go have it), and then the task is cancelled. When the request has ended, the next one is read, or the
connection closes.

**A connection is in one `State`.** RULES says how long each may last and what happens then. Only `enter` sets the
deadline, a number that the server's one sweep looks at (server.py), so time-outs cost nothing per request; `leave` ends
it. One thing cuts across the states: while the client reads more slowly than we send (`paused`), all that counts is
whether it takes anything.

Closing after an error is done slowly (`linger`): if we close while the other side still sends, the system answers with
a reset, and the client loses the answer that tells it what was wrong.

`Port` is what the connections of one port have in common, and counts them. The listeners are the server's.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import struct
import sys
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from enum import IntEnum
from itertools import islice
from typing import Any, cast

import msgspec

from bioproxy.config.addresses import UNIX_PEERS, host_of
from bioproxy.config.schema import Limits
from bioproxy.errors import BioproxyError, RequestError
from bioproxy.wire.http1.heads import Headers, block, status_line
from bioproxy.wire.http1.message import Request, Responder, Source
from bioproxy.wire.http1.reader import HEAD, PIPELINED, RequestReader

log = logging.getLogger(__name__)
Handler = Callable[[Request, Responder], Coroutine[Any, Any, None]]
ErrorBody = Callable[[BioproxyError, str], tuple[Headers, bytes]]
LINGER = 5.0  # seconds that a client gets to read an error and to stop sending
NEVER = math.inf
SPARED = 32  # connections that are looked at for one that can make way
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # SO_LINGER on with 0 s: closing sends a reset
MAPPED = "::ffff:"  # begins an address of IPv4 as IPv6 writes it
ALLOW: Headers = [(b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")]
KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # seconds, seconds, tries


class State(IntEnum):
    """What a connection does now. The order is that of a life; RULES has the deadlines."""

    IDLE = 0  # waits for a request
    HEAD = 1  # of a request, some of it is here
    BODY = 2  # of a request, of which the head is here
    READY = 3  # a request is complete, and its task has not run yet
    SERVING = 4  # the handler runs
    TUNNEL = 5  # the handler runs, and the client's bytes are no HTTP any more
    CLOSING = 6  # the last answer is on its way out
    LINGERING = 7  # nothing more is sent, and what comes is thrown away
    GONE = 8  # cut, or the client left


class ServerStatistics(msgspec.Struct):
    """What a server has and had: `connections` open and `running` requests now; the others since the start.

    `most`: connections that it may have. `made_way`: idle ones that were closed at that bound; `turned_away`: new ones,
    because no other was idle. `certificate_expires` and `certificate_due` (when it should have been renewed):
    unix time; None without TLS, or if it cannot be read.
    """

    most: int
    connections: int = 0
    running: int = 0
    accepted: int = 0
    made_way: int = 0
    turned_away: int = 0
    requests: int = 0
    refused: int = 0  # requests answered by wire itself: not valid, too large, too slow
    certificate_expires: float | None = None
    certificate_due: float | None = None


class Port:
    """What the connections of one port share: the handler, their limits, the bound on their number, the counts."""

    loop: asyncio.AbstractEventLoop  # set by `Server.listen`

    def __init__(self, handler: Handler, *, limits: Limits, name: str, error_body: ErrorBody, files: int) -> None:
        self.handler = handler
        self.limits = limits
        self.name = name
        self.error_body = error_body
        self.files = files
        self.seconds = [seconds_in(state, limits) for state in State]
        self.connections: set[ServerConnection] = set()
        self.waiting: dict[ServerConnection, None] = {}  # for a request; the one that waits longest stands first
        # TLS handshakes under way, and when they began; weak, because nothing tells us of one that fails
        self.greeting: dict[weakref.ref[ServerConnection], float] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.empty = asyncio.Event()
        self.closing = False
        self.counts = ServerStatistics(most=min(limits.connections, files))

    def crowded(self) -> bool:
        return len(self.connections) + len(self.greeting) >= self.counts.most or self.needs_files()

    def needs_files(self) -> bool:
        """Whether one file more would be one of those that everything else needs."""
        return len(self.connections) + len(self.greeting) + len(self.tasks) >= self.files

    def make_way(self) -> bool:
        """Close the connection that waits longest for a request; False if each of them is being served.

        One whose client still reads its answer is spared, if not too many of these stand before the others.
        """
        oldest = next((one for one in islice(self.waiting, SPARED) if not one.transport.get_write_buffer_size()), None)
        if oldest is None:
            return False
        self.counts.made_way += 1
        self.closed(oldest)  # its place is free now, not when the loop tells
        oldest.cut()
        return True

    def greets(self, connection: ServerConnection) -> None:
        """A client has connected and is to speak TLS; we hear of it again after its handshake."""
        self.greeting[weakref.ref(connection, self.greeting.pop)] = self.loop.time()

    def opened(self, connection: ServerConnection) -> None:
        """A client connected; it is turned away if there are too many, or if we are about to stop."""
        self.counts.accepted += 1
        self.greeting.pop(weakref.ref(connection), None)
        full = self.closing or (self.crowded() and not self.make_way())
        self.connections.add(connection)
        self.waiting[connection] = None
        if full:
            self.counts.turned_away += 1
            connection.cut()

    def closed(self, connection: ServerConnection) -> None:
        """A connection is gone, or counts no longer."""
        self.connections.discard(connection)
        self.waiting.pop(connection, None)
        if not self.tasks and not self.connections:
            self.empty.set()

    def start(self, connection: ServerConnection, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.waiting.pop(connection, None)
        if self.needs_files():
            self.make_way()
        self.counts.requests += 1
        task = self.loop.create_task(work, name="request")
        self.tasks.add(task)
        return task

    def ended(self, connection: ServerConnection, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if connection in self.connections:
            self.waiting[connection] = None
        if not self.tasks and not self.connections:
            self.empty.set()


class ServerConnection(asyncio.Protocol):
    """The server's side of one connection. `keep`: it will be used again after the answer under way."""

    transport: asyncio.Transport
    reader: RequestReader
    write: Callable[[bytes], None]  # the transport's own, until the client is gone: no frame of ours per piece

    def __init__(self, port: Port) -> None:
        self.port = port
        self.state = State.IDLE
        self.deadline = NEVER
        self.task: asyncio.Task[None] | None = None
        self.responder: Responder | None = None
        self.source: Source | None = None
        self.tunnel: Callable[[bytes], None] = nowhere
        self.drained: asyncio.Future[None] | None = None
        self.unsent = 0  # bytes that waited for the client when the deadline was set
        self.keep = True
        self.paused = False  # the client reads more slowly than we send
        self.deaf = False  # we paused reading

    def __repr__(self) -> str:
        return f"<ServerConnection {self.state.name}{' paused' if self.paused else ''} of {self.reader.peer}>"

    def enter(self, state: State, since: float) -> None:
        """Change the state; its time, or that of a client that reads slowly, counts from `since`."""
        self.state = state
        self.deadline = since + (self.port.limits.write_timeout if self.paused else self.port.seconds[state])

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here; it may say nothing for as long as between two requests."""
        self.transport = cast("asyncio.Transport", transport)
        self.write = self.transport.write
        self.reader = RequestReader(self.port.limits, peer_of(transport))
        self.enter(State.IDLE, self.port.loop.time())
        self.port.opened(self)
        if getattr(transport.get_extra_info("ssl_object"), "plain", False) and self.state is State.IDLE:
            self.refuse(RequestError("the client speaks plain HTTP (http://), and here it is TLS: use https://"))

    def data_received(self, data: bytes) -> None:
        """Bytes came: of a request, after the one that is being served, or after the end, when they are thrown away."""
        if self.state <= State.BODY:
            self.read(data)
        elif self.state is State.TUNNEL:
            self.tunnel(data)
        elif self.state <= State.SERVING and not self.reader.keep(data):
            self.overfull()

    def overfull(self) -> None:
        """Too much came after a request: cut, or pause reading if the answer is out and only its handler still runs."""
        if self.responder is not None and self.responder.finished:
            self.pause()
        else:
            log.info("%s sent more than %d bytes after a request: cut", self.reader.peer, PIPELINED)
            self.cut()

    def eof_received(self) -> None:
        """The client sends no more, so it left: what runs for it ends now, even if answer bytes wait unread."""
        if self.responder is not None and not self.responder.finished:
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a reset is a leaving like any other
        self.leave()
        self.reader.kept.clear()
        self.wake()
        self.port.closed(self)

    def pause_writing(self) -> None:
        """The client reads more slowly than we send."""
        self.paused = True
        self.unsent = self.transport.get_write_buffer_size()
        self.enter(self.state, self.port.loop.time())
        if self.source is not None:
            self.source.pause()

    def resume_writing(self) -> None:
        self.paused = False
        self.enter(self.state, self.port.loop.time())
        self.wake()
        if self.source is not None:
            self.source.resume()

    # requests

    def read(self, data: bytes) -> None:
        """Feed the reader; start what is complete, refuse what is wrong."""
        reader = self.reader
        now = self.port.loop.time()
        try:
            request = reader.feed(data, now)
        except RequestError as error:
            self.refuse(error)
            return
        if request is not None:
            if len(reader.kept) > PIPELINED:
                self.cut()
            else:
                self.begin(request, now)
        elif reader.part is not HEAD:
            self.enter(State.BODY, now)
            if reader.expects:
                reader.expects = False
                if not reader.pieces:
                    self.write(CONTINUE)
        elif not reader.idle:
            self.enter(State.HEAD, reader.arrived)

    def begin(self, request: Request, now: float) -> None:
        """Hand a request over; from here to `ended` the connection serves it and nothing else."""
        self.keep = request.keep_alive and not self.port.closing
        self.responder = responder = Responder(self, request)
        self.enter(State.READY, now)
        self.task = self.port.start(self, self.serve(request, responder))

    async def serve(self, request: Request, responder: Responder) -> None:
        """One request's task: the handler, and an answer made out of whatever it left."""
        error: BioproxyError | None = None
        try:
            if self.state is State.GONE:  # the client left before we ran, and such a task is not cancelled: see `leave`
                return
            self.state = State.SERVING
            await self.port.handler(request, responder)
            if not responder.finished and not responder.started:
                log.error("the %s handler sent no answer", self.port.name)
        except asyncio.CancelledError:  # not raised: nobody awaits this task, and a cancelled one keeps all its frames
            responder.abort()
        except BioproxyError as fault:
            error = fault
        except Exception:
            log.exception("the %s handler failed", self.port.name)
        finally:
            self.settle(responder, error)
            self.ended()

    def settle(self, responder: Responder, error: BioproxyError | None) -> None:
        """Make an answer whole: an exception or silence is a 500, half an answer is cut."""
        if responder.finished or self.state is State.GONE:
            return
        if responder.started:
            responder.abort()
            return
        error = error or BioproxyError("an internal error; the log of bioproxy says more")
        responder.send(error.status, *self.port.error_body(error, responder.request.path))

    def ended(self) -> None:
        """A request is through: go on with the connection."""
        task, self.task = self.task, None
        self.responder = self.source = None
        assert task is not None
        self.port.ended(self, task)
        if self.state is State.GONE:
            return
        if not self.keep or self.port.closing:
            self.end()
            return
        self.enter(State.IDLE, self.port.loop.time())
        self.reader.restart()
        self.resume()
        if self.reader.kept:
            self.read(b"")

    def refuse(self, error: RequestError) -> None:
        """Answer a request that never became one, and close: there is no telling where the next would begin."""
        path = self.reader.url.partition(b"?")[0].decode("utf-8", "replace")
        headers, body = self.port.error_body(error, path)
        self.port.counts.refused += 1
        log.info("%s: refused with %d: %s", self.reader.peer, error.status, error.message)
        headers = [*headers, *(ALLOW if error.status == 405 else []), (b"Content-Length", b"%d" % len(body))]
        self.write(status_line(error.status) + block(headers) + b"Connection: close\r\n\r\n" + body)
        self.linger()

    # ends

    def end(self) -> None:
        """Close after an answer; slowly if bytes of the client may still be on their way."""
        if self.reader.kept:
            self.linger()
        elif self.state < State.CLOSING:
            self.unsent = self.transport.get_write_buffer_size()
            self.enter(State.CLOSING, self.port.loop.time())
            self.transport.close()

    def linger(self) -> None:
        """Say that nothing more will be sent, and read on for a while without looking."""
        self.keep = False
        self.unsent = self.transport.get_write_buffer_size()
        self.enter(State.LINGERING, self.port.loop.time())
        try:
            self.transport.write_eof()
        except (OSError, RuntimeError, NotImplementedError):  # the client is gone, or the transport knows no half-close
            self.transport.close()

    def cut(self, *, reset: bool = False) -> None:
        """Close at once; `reset` if a plain close would look like the answer's end."""
        if self.state is State.GONE:
            return
        if reset:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()
        self.leave()

    def leave(self) -> None:
        """The client is gone: end what makes its answer, unless that is whole already."""
        before = self.state
        if before is State.GONE:
            return
        self.state, self.deadline = State.GONE, NEVER
        self.keep = False
        self.write = nowhere
        self.reader.parser = None
        if self.task is None or self.responder is None or self.responder.abandoned():
            return
        # A task that is cancelled before its first step never runs, and could not tell that it ended.
        if before is not State.READY:
            self.task.cancel("the client left")

    def end_if_idle(self, now: float) -> None:
        """Close a connection that waits for a request; the others end after their answers."""
        self.keep = False
        if self.state is State.IDLE:
            self.stop_idle(now)

    # when the deadline has passed

    def overdue(self, now: float) -> None:
        """Do what the state's rule says; while a client reads slowly, only whether it reads at all counts."""
        if self.paused:
            self.stuck(now)
        else:
            RULES[self.state][1](self, now)

    def stuck(self, now: float) -> None:
        """Cut a client that took nothing at all since the deadline was set."""
        unsent = self.transport.get_write_buffer_size()
        if 0 < unsent < self.unsent:
            self.unsent = unsent
            self.enter(self.state, now)
            return
        if unsent:
            log.info("%s reads nothing: cut with %d bytes unsent", self.reader.peer, unsent)
        self.cut()

    def stop_idle(self, now: float) -> None:  # noqa: ARG002 - the shape of a rule
        """Close a connection that says nothing; slowly if an answer is still being read."""
        if self.transport.get_write_buffer_size():
            self.end()
        else:
            self.cut()

    def too_slow(self, now: float) -> None:  # noqa: ARG002 - the shape of a rule
        """Refuse a request that did not arrive in time."""
        what = self.state.name.lower()
        message = f"the request's {what} did not arrive in time (limits.{what}_timeout)"
        self.refuse(RequestError(message, status=408))

    # what a Responder needs

    async def drain(self) -> None:
        """Return when the client has read enough for more."""
        while self.paused and self.state is not State.GONE:
            self.drained = self.port.loop.create_future()
            await self.drained

    def wake(self) -> None:
        """Let what waits in `drain` look again."""
        drained, self.drained = self.drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def take_from(self, source: Source | None) -> None:
        self.source = source
        if source is not None and self.paused:
            source.pause()

    def tunnel_to(self, receive: Callable[[bytes], None]) -> None:
        """From here on the client's bytes go to `receive`, those first that came already.

        A websocket may say nothing for hours, so no time-out ends it; the system asks whether the other side is there.
        """
        self.keep = False
        keep_alive(self.transport.get_extra_info("socket"))
        self.tunnel = receive
        if self.state is State.SERVING:
            self.state = State.TUNNEL
        early = bytes(self.reader.kept)
        self.reader.kept.clear()
        if early:
            receive(early)

    def pause(self) -> None:
        """Read nothing from the client: a tunnel's engine is behind, or a handler has not returned after its answer."""
        if not self.deaf and self.state is not State.GONE and not self.transport.is_closing():
            self.deaf = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.deaf and self.state is not State.GONE and not self.transport.is_closing():
            self.deaf = False
            self.transport.resume_reading()


RULES: dict[State, tuple[str | float, Callable[[ServerConnection, float], None]]] = {
    # how long it may last: seconds, or their key under `limits`; and what happens then. The others last as they do.
    State.IDLE: ("idle_timeout", ServerConnection.stop_idle),
    State.HEAD: ("head_timeout", ServerConnection.too_slow),
    State.BODY: ("body_timeout", ServerConnection.too_slow),
    State.CLOSING: ("write_timeout", ServerConnection.stuck),
    State.LINGERING: (LINGER, ServerConnection.stuck),
}


def seconds_in(state: State, limits: Limits) -> float:
    allowed = RULES[state][0] if state in RULES else NEVER
    return float(getattr(limits, allowed)) if isinstance(allowed, str) else allowed


def nowhere(data: bytes) -> None:
    """Where bytes go that can go to no client any more."""


def peer_of(transport: asyncio.BaseTransport) -> str:
    """The client's address, `UNIX_PEERS` at a unix socket; "" if the client is gone already.

    At a socket for both kinds of addresses, as systemd opens them, one of IPv4 comes as `::ffff:192.0.2.1`.
    """
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        address = str(peer[0])
        return host_of(address) if address.startswith(MAPPED) else address
    return UNIX_PEERS if transport.get_extra_info("socket").family == getattr(socket, "AF_UNIX", None) else ""


def keep_alive(one: socket.socket | None) -> None:
    """Have the system ask a silent peer for a sign of life, and end the connection if there is none."""
    if one is None or one.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        option = getattr(socket, name, None)  # macOS and Windows have others
        if option is not None:
            with suppress(OSError):  # an old Windows does not know what its Python knows
                one.setsockopt(socket.IPPROTO_TCP, option, value)
