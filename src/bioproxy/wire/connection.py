"""One client's connection: bytes in, requests to the handler one after another, answers out.

An object per connection, driven by the event loop's callbacks. Its life is short to tell. Bytes go to the reader; a
complete request becomes a task; while that runs, reading stays on, for that is how we notice that the client left (end
of file counts as leaving, as nginx and Go have it), and then the task is cancelled. When the task has ended, the next
request is read, or the connection closes.

Time-outs cost nothing per request: `deadline` is a number that the server's one sweep looks at (server.py). Closing
after an error is done slowly (`linger`): whoever closes while the other side still sends makes the system answer with a
reset, and the client would lose the answer that tells it what was wrong.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from bioproxy.errors import BioproxyError, RequestError
from bioproxy.wire.http1.heads import Headers, block, status_line
from bioproxy.wire.http1.message import Request, Responder, Source
from bioproxy.wire.http1.reader import HEAD, PIPELINED, RequestReader

if TYPE_CHECKING:
    from bioproxy.wire.server import Server

log = logging.getLogger(__name__)
LINGER = 5.0  # seconds that a client gets to read an error and to stop sending
NEVER = math.inf
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
RESET = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # SO_LINGER on with 0 s: closing sends a reset
ALLOW: Headers = [(b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")]
KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # seconds, seconds, tries


class ServerConnection(asyncio.Protocol):
    """The server's side of one connection. `keep`: it will be used again after the answer under way."""

    __slots__ = (
        "__weakref__",
        "deadline",
        "deaf",
        "drained",
        "keep",
        "lingering",
        "lost",
        "paused",
        "reader",
        "responder",
        "server",
        "source",
        "task",
        "transport",
        "tunnel",
        "unsent",
    )

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.server = server
        self.task: asyncio.Task[None] | None = None
        self.responder: Responder | None = None
        self.source: Source | None = None
        self.tunnel: Callable[[bytes], None] | None = None
        self.drained: asyncio.Future[None] | None = None
        self.deadline = NEVER
        self.unsent = 0
        self.keep = True
        self.lost = self.lingering = self.paused = False
        self.deaf = False  # we paused reading

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here; it may say nothing for as long as between two requests."""
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.reader = RequestReader(self.server.limits, peer[0] if isinstance(peer, tuple) else "")
        self.deadline = self.server.time() + self.server.limits.idle_timeout
        self.server.opened(self)

    def data_received(self, data: bytes) -> None:
        """Bytes came: of a request, behind the one that is being served, or after the end (then nobody reads them)."""
        if self.tunnel is not None:
            self.tunnel(data)
            return
        now = self.server.time()
        if self.task is not None:
            if not self.reader.keep(data):
                self.overfull()
        elif not self.lingering and not self.transport.is_closing():
            self.read(data, now)

    def overfull(self) -> None:
        """Too much came behind a request: that closes the connection, unless its answer is out and was only just."""
        if self.responder is not None and self.responder.finished:
            self.pause()
        else:
            log.info("%s sent more than %d bytes behind a request: cut", self.reader.peer, PIPELINED)
            self.cut()

    def eof_received(self) -> None:
        """The client sends no more, so it left: what runs for it ends now, even where answer bytes wait unread."""
        if self.responder is not None and not self.responder.finished:
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a reset is a leaving like any other
        """The connection is gone: cancel what runs for it."""
        self.lost = True
        self.keep = False
        self.reader.kept.clear()
        self.wake()
        self.cancel()
        self.server.closed(self)

    def pause_writing(self) -> None:
        """The client reads more slowly than we send."""
        self.paused = True
        self.unsent = self.transport.get_write_buffer_size()
        self.deadline = self.server.time() + self.server.limits.write_timeout
        if self.source is not None:
            self.source.pause()

    def resume_writing(self) -> None:
        """It has read enough for more."""
        self.paused = False
        limits = self.server.limits
        self.deadline = NEVER if self.task is not None else self.server.time() + limits.idle_timeout
        self.wake()
        if self.source is not None:
            self.source.resume()

    # requests

    def read(self, data: bytes, now: float) -> None:
        """Feed the reader; start what is complete, refuse what is wrong."""
        reader = self.reader
        try:
            request = reader.feed(data, now)
        except RequestError as error:
            self.refuse(error)
            return
        if request is not None:
            if len(reader.kept) > PIPELINED:
                self.cut()
                return
            self.begin(request)
            return
        limits = self.server.limits
        if reader.state == HEAD:
            if not reader.idle:
                self.deadline = reader.arrived + limits.head_timeout
            return
        self.deadline = now + limits.body_timeout
        if reader.expects:
            reader.expects = False
            if not reader.pieces:
                self.transport.write(CONTINUE)

    def begin(self, request: Request) -> None:
        """Hand a request over; from here to `ended` the connection serves it and nothing else."""
        server = self.server
        self.keep = request.keep_alive and not server.closing
        self.responder = responder = Responder(self, request)
        self.deadline = NEVER
        self.task = server.start(self, request, responder)
        self.task.add_done_callback(self.ended)

    def ended(self, task: asyncio.Task[None]) -> None:
        """The handler is through: see that its answer is, then go on with the connection."""
        responder = self.responder
        assert responder is not None
        self.task = self.responder = self.source = None
        self.server.ended(self, task)
        self.settle(task, responder)
        if self.lost:
            return
        if not self.keep or self.server.closing:
            self.end()
            return
        now = self.server.time()
        limits = self.server.limits
        self.deadline = now + (limits.write_timeout if self.paused else limits.idle_timeout)
        self.reader.restart()
        self.resume()
        if self.reader.kept:
            self.read(b"", now)

    def settle(self, task: asyncio.Task[None], responder: Responder) -> None:
        """Make an answer out of whatever the handler left: an exception or silence is a 500, half an answer is cut."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, BioproxyError):
            log.error("the %s handler failed", self.server.name, exc_info=error)
        if responder.finished or self.lost:
            return
        if responder.started or task.cancelled():
            responder.abort()
            return
        if error is None:
            log.error("the %s handler sent no answer", self.server.name)
        if not isinstance(error, BioproxyError):
            error = BioproxyError("an internal error; the log of bioproxy says more")
        path = self.reader.request.path if self.reader.request is not None else ""
        responder.send(error.status, *self.server.error_body(error, path))

    def refuse(self, error: RequestError) -> None:
        """Answer a request that never became one, and close: nobody knows where the next would begin."""
        path = self.reader.url.partition(b"?")[0].decode("utf-8", "replace")
        headers, body = self.server.error_body(error, path)
        self.server.refused += 1
        log.info("%s: refused with %d: %s", self.reader.peer, error.status, error.message)
        headers = [*headers, *(ALLOW if error.status == 405 else []), (b"Content-Length", b"%d" % len(body))]
        self.transport.write(status_line(error.status) + block(headers) + b"Connection: close\r\n\r\n" + body)
        self.linger()

    # ends

    def end(self) -> None:
        """Close after an answer; slowly where bytes of the client may still be on their way."""
        if self.reader.kept:
            self.linger()
        elif not self.lingering:
            self.deadline = self.server.time() + self.server.limits.write_timeout
            self.unsent = self.transport.get_write_buffer_size()
            self.transport.close()

    def linger(self) -> None:
        """Say that nothing more will be sent, and read on for a while without looking."""
        self.lingering = True
        self.keep = False
        self.deadline = self.server.time() + LINGER
        self.unsent = self.transport.get_write_buffer_size()
        try:
            self.transport.write_eof()
        except (OSError, RuntimeError, NotImplementedError):  # the client is gone, or the transport knows no half-close
            self.transport.close()

    def cut(self, *, reset: bool = False) -> None:
        """Close at once; `reset` where a plain close would look like the answer's end."""
        if self.lost:
            return
        if reset:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.keep = False
        self.transport.abort()
        self.cancel()

    def cancel(self) -> None:
        """Nobody waits for the answer any more: end what makes it, unless it is whole already."""
        if self.task is not None and self.responder is not None and not self.responder.abandoned():
            self.task.cancel("the client left")

    def overdue(self, now: float) -> None:
        """The deadline has passed; find out which one it was."""
        if self.paused or self.transport.is_closing():
            self.overdue_writing(now)
        elif self.lingering or (self.task is None and self.reader.idle):
            self.stop_idle(now)
        elif self.task is None:
            what = "head" if self.reader.state == HEAD else "body"
            message = f"the request's {what} did not arrive in time (limits.{what}_timeout)"
            self.refuse(RequestError(message, status=408))

    def overdue_writing(self, now: float) -> None:
        """Cut a client that took nothing at all since the deadline was set."""
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent < self.unsent:
            self.unsent = unsent
            self.deadline = now + self.server.limits.write_timeout
        else:
            log.info("%s reads nothing: cut with %d bytes unsent", self.reader.peer, unsent)
            self.cut()

    def stop_idle(self, now: float) -> None:
        """Close a connection that says nothing, or that was to end; slowly where an answer is still being read."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or (self.lingering and unsent >= self.unsent):
            self.cut()
        elif self.lingering:
            self.unsent = unsent
            self.deadline = now + LINGER
        else:
            self.end()

    # what a Responder needs

    def write(self, data: bytes) -> None:
        """Send bytes; nothing happens once the client is gone."""
        if not self.lost:
            self.transport.write(data)

    async def drain(self) -> None:
        """Return when the client has read enough for more."""
        while self.paused and not self.lost:
            self.drained = asyncio.get_running_loop().create_future()
            await self.drained

    def wake(self) -> None:
        """Let whoever waits in `drain` look again."""
        drained, self.drained = self.drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def take_from(self, source: Source | None) -> None:
        """Pause and resume `source` as the client reads."""
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
        early = bytes(self.reader.kept)
        self.reader.kept.clear()
        if early:
            receive(early)

    def pause(self) -> None:
        """Read nothing from the client: a tunnel's engine is behind, or a handler is after its answer."""
        if not self.deaf and not self.lost and not self.transport.is_closing():
            self.deaf = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self.deaf and not self.lost and not self.transport.is_closing():
            self.deaf = False
            self.transport.resume_reading()


def keep_alive(one: socket.socket | None) -> None:
    """Have the system ask a silent peer for a sign of life, and end the connection where there is none."""
    if one is None or one.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        option = getattr(socket, name, None)  # macOS and Windows have others
        if option is not None:
            one.setsockopt(socket.IPPROTO_TCP, option, value)
