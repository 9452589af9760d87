"""One connection to an engine, and the answers that come over it, one after another.

What comes in goes through llhttp, which finds heads and framing; from there the bytes of a body go on untouched. Each
answer has a parser of its own, so nothing of one can leak into the next, and a `Response` that the parser calls. A
response is in one `Stage`.

Where the bytes of a body go is decided there: they are kept until something asks (beyond 256 KiB the engine has to
wait), `read` collects them, or a relay has put its `sink` there and gets the bytes at once, within the loop's callback:
no queue, no task switch per event. Leaving an answer early closes its connection, for that is how an engine learns that
its work is not wanted any more (facts, section 3).

A connection goes back to its pool (`idle`) the moment its answer is whole and both sides may go on. Whatever makes that
doubtful (a byte too many, `Connection: close`, our own request not fully sent) closes it instead, and the pool hears
that it is `gone`.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Callable
from copy import copy
from enum import Enum, auto
from typing import Protocol, TypeAlias, cast

import httptools

from bioproxy.errors import BioproxyError, EngineProtocolError, EngineUnavailable
from bioproxy.wire.http1.heads import Headers, fields_of
from bioproxy.wire.http1.message import JOINED, Source

MAX_HEAD = 256 << 10  # bytes of an answer's head
MIB = 1 << 20
UNREAD = 256 << 10  # bytes kept for a reader that has not come yet

if sys.platform == "win32":
    Poller: TypeAlias = None  # it has no poll
else:
    Poller: TypeAlias = select.poll


class Stage(Enum):
    """How far an answer has come."""

    AWAITED = auto()  # the request was sent
    BODY = auto()  # the head is in
    TUNNEL = auto()  # the engine changed the protocol: what follows is no HTTP
    WHOLE = auto()
    BROKEN = auto()  # `error` says how


AWAITED, BODY, TUNNEL, WHOLE, BROKEN = Stage


class Sink(Protocol):
    """Where the bytes of a body go as they come."""

    def forward(self, data: bytes) -> None:
        """Send bytes on."""

    def end(self) -> None:
        """The answer is whole."""


class Response:
    """An engine's answer. `headers` are in its order and case."""

    def __init__(self, connection: EngineConnection, *, head_only: bool) -> None:
        self.connection = connection
        self.headless = head_only  # the answer to a HEAD: it names a length, and no bytes follow
        self.stage = AWAITED
        self.error: BioproxyError | None = None
        self.status = 0
        self.reason = b""
        self.headers: Headers = []
        self.fields: dict[bytes, bytes] = {}  # lower-case name to first value
        self.fed = 0  # bytes of the head so far
        self.reusable = True  # so far nothing speaks against using the connection again
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append  # llhttp's callback, without a frame of ours: it is called once per event
        self.sink: Sink | None = None
        self.waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Response {self.stage.name} {self.status} from {self.connection!r}>"

    @property
    def complete(self) -> bool:
        return self.stage is WHOLE

    @property
    def upgraded(self) -> bool:
        """Whether a tunnel is open; what it carries is no HTTP."""
        return self.stage is TUNNEL

    @property
    def length(self) -> int | None:
        """The body's length, if the head says it."""
        value = self.fields.get(b"content-length")
        return int(value) if value is not None and value.isdigit() else None

    async def read(self, *, limit: int = 64 * MIB) -> bytes:
        """The whole body; EngineProtocolError if it ends early or is longer than `limit` bytes."""
        whole: list[bytes] = []
        size = 0
        try:
            while True:
                whole += self.pieces
                size += sum(map(len, self.pieces))
                self.pieces.clear()
                self.check()
                if size > limit:
                    raise EngineProtocolError(f"the engine's answer is longer than {limit} bytes")  # noqa: TRY301
                if self.stage is WHOLE:
                    break
                self.connection.resume()
                await self.wait()
        except BaseException:
            self.abort()
            raise
        return whole[0] if len(whole) == 1 else b"".join(whole)

    def check(self) -> None:
        """Raise what broke this answer, if anything did; a copy, for what is raised keeps the frames that keep us."""
        if self.error is not None:
            raise copy(self.error)

    async def begun(self) -> None:
        """Return when the head is in, or the answer is broken."""
        while self.stage is AWAITED:
            await self.wait()

    async def wait(self) -> None:
        """Return when something happened: the head, bytes that nothing relays, the end, or an error."""
        self.waiter = asyncio.get_running_loop().create_future()
        try:
            await self.waiter
        finally:
            self.waiter = None

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def pause(self) -> None:
        """Let the engine wait: what reads this answer is behind."""
        if self.stage is not WHOLE:  # else the connection may be another request's already
            self.connection.pause()

    def resume(self) -> None:
        if self.stage is not WHOLE:
            self.connection.resume()

    def abort(self) -> None:
        """Close the connection now, which cancels the engine's work; does nothing after the answer's end."""
        if self.stage is not WHOLE:
            self.connection.abort()

    # what llhttp calls

    def on_message_begin(self) -> None:
        """A message begins. After an answer none may: this stops its parser, and `misread` ends the connection."""
        if self.stage is not AWAITED:
            raise EngineProtocolError("more came than was asked for")

    def on_status(self, reason: bytes) -> None:
        """The reason phrase, perhaps in pieces."""
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers come here too, and are dropped."""
        if self.stage is AWAITED:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is in, unless it was an interim one (100 Continue)."""
        parser = self.connection.parser
        self.status = parser.get_status_code()
        if self.status < 200 and self.status != 101:
            return
        self.fields = fields = fields_of(self.headers)
        self.stage = BODY
        coding = fields.get(b"transfer-encoding")
        if coding is not None:
            if coding.strip().lower() != b"chunked":
                self.broke(EngineProtocolError(f"the engine's answer has an unknown transfer coding: {coding!r}"))
            self.both_lengths()
        if self.headless and self.stage is BODY:
            self.stage = WHOLE
            self.reusable = self.reusable and parser.should_keep_alive()

    def both_lengths(self) -> None:
        """Believe the chunks of an answer that tells a length as well, and not the connection (RFC 9112, 6.3)."""
        if self.fields.pop(b"content-length", None) is not None:
            self.headers = [pair for pair in self.headers if pair[0].lower() != b"content-length"]
            self.reusable = False

    def on_message_complete(self) -> None:
        """The answer is whole, or an interim one is over."""
        if self.stage is AWAITED:
            self.headers, self.reason = [], b""
        elif self.stage is BODY:
            self.stage = WHOLE
            self.reusable = self.reusable and self.connection.parser.should_keep_alive()

    # what the connection tells

    def misread(self, error: Exception) -> None:
        """Llhttp cannot go on: that breaks the answer, unless it was complete."""
        self.reusable = False
        self.broke(EngineProtocolError(f"the engine's answer is no valid HTTP: {error}"))

    def broke(self, error: BioproxyError) -> None:
        """Note what broke the answer; the first reason stays."""
        if self.stage is not WHOLE and self.stage is not BROKEN:
            self.stage, self.error = BROKEN, error

    def lost(self, *, cleanly: bool) -> None:
        """The connection is gone: that ends an answer without a length, and breaks any other."""
        endless = self.length is None and b"transfer-encoding" not in self.fields
        if self.stage is TUNNEL or (self.stage is BODY and endless and cleanly):
            self.stage = WHOLE
        elif self.stage is BODY:
            self.broke(EngineProtocolError("the engine closed the connection before the end of its answer"))
        elif self.fed:
            self.broke(EngineProtocolError("the engine closed the connection in the head of its answer"))
        else:
            self.broke(EngineUnavailable("the engine closed the connection before it answered"))
        self.advance()

    def flush(self, sink: Sink) -> None:
        """Hand on what one read brought, as one piece: a stream that is behind costs less per event."""
        if self.pieces:
            data = b"".join(self.pieces)
            self.pieces.clear()
            sink.forward(data)

    def advance(self) -> None:
        """Hand on what there is; wake what waits for a head, for bytes that nothing relays, the end, or an error."""
        stage = self.stage
        if self.sink is not None:
            self.flush(self.sink)
            if stage is WHOLE:
                self.sink.end()
            if stage is WHOLE or stage is BROKEN:
                self.wake()
        elif stage is not AWAITED:
            if self.waiter is not None:
                self.wake()
            elif sum(map(len, self.pieces)) > UNREAD:
                self.pause()


class EngineConnection(asyncio.Protocol):
    """One connection to an engine, for one request after another. It says when it is `idle`, and when it is `gone`."""

    transport: asyncio.Transport
    parser: httptools.HttpResponseParser  # of the answer under way

    def __init__(self, *, idle: Callable[[EngineConnection], None], gone: Callable[[EngineConnection], None]) -> None:
        self.idle = idle
        self.gone = gone
        self.response: Response | None = None
        self.client: Source | None = None  # whose reading a tunnel pauses
        self.idle_since = 0.0
        self.poller: Poller | None = None
        self.served = 0
        self.lost = self.paused = False

    def __repr__(self) -> str:
        return f"<EngineConnection{' lost' if self.lost else ''}, {self.served} requests>"

    def exchange(self, head: bytes, body: bytes, *, head_only: bool) -> Response:
        """Send a request; what comes goes to its Response."""
        self.resume()
        self.response = response = Response(self, head_only=head_only)
        self.parser = parser = httptools.HttpResponseParser(response)
        parser.set_dangerous_leniencies(lenient_chunked_length=True)  # `both_lengths` judges instead
        self.served += 1
        if len(body) > JOINED:
            self.transport.write(head)
            self.transport.write(body)
        else:
            self.transport.write(head + body)
        return response

    def is_quiet(self) -> bool:
        """Whether nothing has come since the last answer: no end that the loop has not told, nothing unasked."""
        if sys.platform == "win32":  # no poll there, and no lowest number of a descriptor that select cannot take
            return not select.select([self.transport.get_extra_info("socket")], [], [], 0)[0]
        if self.poller is None:
            self.poller = select.poll()
            self.poller.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self.poller.poll(0)

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer, of a tunnel, or of nothing that we asked for."""
        response = self.response
        if response is None:
            self.abort()
            return
        if response.stage is TUNNEL:
            response.pieces.append(data)
            response.advance()
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            response.stage = TUNNEL
            response.pieces.append(data[error.args[0] :])
        except httptools.HttpParserError as error:
            response.misread(error)
        sink = response.sink
        if sink is None or response.stage is not BODY:
            self.judge(response, len(data))
        elif len(response.pieces) == 1:  # the middle of a stream, one event: once per token, so without a further call
            sink.forward(response.pieces.pop())
        else:
            response.flush(sink)

    def judge(self, response: Response, size: int) -> None:
        """See what the last bytes brought: a head, the end, or an error."""
        response.fed += size
        if response.stage is AWAITED and response.fed > MAX_HEAD:
            response.broke(EngineProtocolError(f"the head of the engine's answer is longer than {MAX_HEAD} bytes"))
        if response.headless and response.pieces:  # a body that nothing asked for
            response.pieces.clear()
            response.reusable = False
        if response.stage is WHOLE:
            self.release(response)
        elif response.stage is BROKEN:
            self.abort()
        response.advance()

    def eof_received(self) -> None:
        """The engine sends no more; `connection_lost` follows and judges."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.gone(self)
        response = self.response
        if response is not None:
            self.let_go()
            response.lost(cleanly=exc is None)

    def pause_writing(self) -> None:
        """The engine reads more slowly than a tunnel's client sends."""
        if self.client is not None:
            self.client.pause()

    def resume_writing(self) -> None:
        if self.client is not None:
            self.client.resume()

    # ends

    def release(self, response: Response) -> None:
        """Say that the connection is idle, or close it if it is not safe to use again."""
        self.let_go()
        if response.reusable and not self.transport.get_write_buffer_size() and not self.transport.is_closing():
            self.resume()
            self.idle(self)
        else:
            self.abort()

    def let_go(self) -> None:
        """The answer is over; its parser knows it, and would keep it alive."""
        self.response = None
        del self.parser

    def send(self, data: bytes) -> None:
        if not self.lost:
            self.transport.write(data)

    def abort(self) -> None:
        if not self.lost:
            self.transport.abort()

    def pause(self) -> None:
        """Read nothing from the engine."""
        if not self.paused and not self.lost and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.paused and not self.lost and not self.transport.is_closing():
            self.paused = False
            self.transport.resume_reading()
