"""One connection to an engine: requests out, answers in, one after another.

What comes in goes through llhttp, which finds heads and framing; from there the bytes of a body go on untouched, to
wherever the Response sends them. A parser serves one connection, save after a HEAD, whose answer has a
length and no bytes: that leaves llhttp waiting, so the next answer gets a new one.

A connection goes back to its pool the moment its answer is whole and both sides may go on. Whatever makes that doubtful
(a byte too many, `Connection: close`, our own request not fully sent) closes it instead.

Where an answer's bytes go is decided in its Response: nobody asked yet (they are kept, and beyond 256 KiB the engine
has to wait), `read` collects them, or a relay has put its `sink` there and gets the bytes at once, within the loop's
callback: no queue, no task switch per event. Leaving an answer early closes its connection, for that is how an engine
learns that nobody wants its work any more (facts, section 3).
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from bioproxy.errors import BioproxyError, EngineProtocolError, EngineUnavailable
from bioproxy.wire.http1.heads import Headers
from bioproxy.wire.http1.message import JOINED, Source

if TYPE_CHECKING:
    from bioproxy.wire.upstream import Pool

MAX_HEAD = 256 << 10  # bytes of an answer's head
MIB = 1 << 20
UNREAD = 256 << 10  # bytes kept for a reader that has not come yet


class Sink(Protocol):
    """Where the bytes of a body go as they come."""

    def forward(self, data: bytes) -> None:
        """Send bytes on."""

    def end(self) -> None:
        """The answer is whole."""


class Response:
    """An engine's answer. `headers` are in its order and case; `reused`: the connection had served before."""

    __slots__ = (
        "complete",
        "connection",
        "error",
        "fields",
        "headers",
        "headless",
        "pieces",
        "reason",
        "reused",
        "seen",
        "sink",
        "status",
        "upgraded",
        "waiter",
    )

    def __init__(self, connection: EngineConnection, *, head_only: bool, reused: bool) -> None:
        self.connection = connection
        self.status = 0
        self.reason = b""
        self.headers: Headers = []
        self.fields: dict[bytes, bytes] = {}
        self.reused = reused
        self.headless = head_only  # the answer to a HEAD: lengths are told, bytes do not follow
        self.seen = False  # the head is in
        self.complete = False
        self.upgraded = False
        self.error: BioproxyError | None = None
        self.pieces: list[bytes] = []
        self.sink: Sink | None = None
        self.waiter: asyncio.Future[None] | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first value of the header `name` (lower case)."""
        return self.fields.get(name)

    @property
    def length(self) -> int | None:
        """The body's length, where the head says it."""
        value = self.fields.get(b"content-length")
        return int(value) if value is not None and value.isdigit() else None

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the end of the connection can tell the end of this answer."""
        return self.seen and self.length is None and b"transfer-encoding" not in self.fields

    async def read(self, *, limit: int = 64 * MIB) -> bytes:
        """The whole body; EngineProtocolError if it ends early or is longer than `limit` bytes."""
        whole: list[bytes] = []
        size = 0
        try:
            while True:
                whole += self.pieces
                size += sum(map(len, self.pieces))
                self.pieces.clear()
                if size > limit and self.error is None:
                    self.error = EngineProtocolError(f"the engine's answer is longer than {limit} bytes")
                self.check()
                if self.complete:
                    break
                self.connection.resume()
                await self.wait()
        except BaseException:
            self.abort()
            raise
        return whole[0] if len(whole) == 1 else b"".join(whole)

    def check(self) -> None:
        """Raise what broke this answer, if anything did."""
        if self.error is not None:
            raise self.error

    async def wait(self) -> None:
        """Return when something happened: the head, bytes that nobody relays, the end, or a fault."""
        self.waiter = asyncio.get_running_loop().create_future()
        try:
            await self.waiter
        finally:
            self.waiter = None

    def wake(self) -> None:
        """Something happened."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def pause(self) -> None:
        """Let the engine wait: whoever reads this answer is behind."""
        if not self.complete:  # else the connection may be another request's already
            self.connection.pause()

    def resume(self) -> None:
        """Let it go on."""
        if not self.complete:
            self.connection.resume()

    def abort(self) -> None:
        """Close the connection now, which cancels the engine's work; does nothing after the answer's end."""
        if not self.complete:
            self.connection.abort()

    def send(self, data: bytes) -> None:
        """Send bytes to the engine; for tunnels only."""
        self.connection.send(data)

    # what the connection tells

    def flush(self, sink: Sink) -> None:
        """Hand on what one read brought, as one piece: a stream that is behind costs less per event."""
        if self.pieces:
            data = b"".join(self.pieces)
            self.pieces.clear()
            sink.forward(data)

    def advance(self) -> None:
        """Hand on what there is, and tell whoever waits of a head, of bytes that nobody relays, the end, a fault."""
        if self.sink is not None:
            self.flush(self.sink)
            if self.complete:
                self.sink.end()
            if self.complete or self.error is not None:
                self.wake()
        elif self.seen or self.error is not None:
            if self.waiter is not None:
                self.wake()
            elif sum(map(len, self.pieces)) > UNREAD:
                self.pause()

    def fail(self, error: BioproxyError) -> None:
        """The answer ends here, before its end."""
        if not self.complete and self.error is None:
            self.error = error
            self.advance()


class EngineConnection(asyncio.Protocol):
    """One connection to an engine; serves one request after another."""

    __slots__ = (
        "client",
        "fed",
        "idle_since",
        "lost",
        "parser",
        "paused",
        "poller",
        "pool",
        "response",
        "reusable",
        "served",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.parser: httptools.HttpResponseParser | None = None
        self.response: Response | None = None
        self.client: Source | None = None  # whose reading a tunnel pauses
        self.idle_since = 0.0
        self.poller: select.poll | None = None
        self.served = 0
        self.fed = 0  # bytes of the head so far
        self.lost = self.paused = False
        self.reusable = True

    def exchange(self, head: bytes, body: bytes, *, head_only: bool) -> Response:
        """Send a request; its Response is told of what comes."""
        self.resume()
        self.response = response = Response(self, head_only=head_only, reused=self.served > 0)
        self.served += 1
        self.fed = 0
        if self.parser is None:
            self.parser = httptools.HttpResponseParser(self)
            self.parser.set_dangerous_leniencies(lenient_chunked_length=True)  # `both_lengths` judges instead
        if len(body) > JOINED:
            self.transport.write(head)
            self.transport.write(body)
        else:
            self.transport.write(head + body)
        return response

    def is_quiet(self) -> bool:
        """Whether nothing has come since the last answer: no end that the loop has not told, nothing unasked."""
        if not hasattr(select, "poll"):  # Windows
            return True
        if self.poller is None:
            self.poller = select.poll()
            self.poller.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self.poller.poll(0)

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer, of a tunnel, or of nothing that we asked for."""
        response = self.response
        if response is None:
            self.abort()
            return
        if response.upgraded:
            response.pieces.append(data)
            response.advance()
            return
        try:
            self.parser.feed_data(data)  # type: ignore[union-attr]  # there since `exchange`
        except httptools.HttpParserUpgrade as error:
            response.upgraded, response.complete = True, False
            response.pieces.append(data[error.args[0] :])
        except httptools.HttpParserError as error:
            self.misread(response, error)
        sink = response.sink
        if sink is None or response.complete or response.error is not None:
            self.judge(response, len(data))
        elif len(response.pieces) == 1:  # the middle of a stream, one event: once per token, so without a further call
            sink.forward(response.pieces.pop())
        else:
            response.flush(sink)

    def misread(self, response: Response, error: Exception) -> None:
        """Note that llhttp cannot go on: that breaks the answer, unless it was complete."""
        self.reusable = False
        if not response.complete and response.error is None:
            response.error = EngineProtocolError(f"the engine's answer is no valid HTTP: {error}")

    def judge(self, response: Response, size: int) -> None:
        """See what the last bytes brought: a head, the end, or a fault."""
        self.fed += size
        if not response.seen and self.fed > MAX_HEAD and response.error is None:
            response.error = EngineProtocolError(f"the head of the engine's answer is longer than {MAX_HEAD} bytes")
        if response.error is not None:
            self.abort()
        elif response.complete:
            self.release()
        response.advance()

    def eof_received(self) -> None:
        """The engine sends no more; `connection_lost` follows and judges."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The engine is gone; that ends an answer without a length, and breaks any other."""
        self.lost = True
        self.pool.closed(self)
        response = self.response
        self.response = None
        if response is None or response.complete:
            return
        if response.upgraded or (response.ends_with_connection and exc is None):
            response.complete = True
            response.advance()
        elif response.seen:
            response.fail(EngineProtocolError("the engine closed the connection before the end of its answer"))
        elif self.fed:
            response.fail(EngineProtocolError("the engine closed the connection in the head of its answer"))
        else:
            response.fail(EngineUnavailable("the engine closed the connection before it answered"))

    def pause_writing(self) -> None:
        """The engine reads more slowly than a tunnel's client sends."""
        if self.client is not None:
            self.client.pause()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self.client is not None:
            self.client.resume()

    # what llhttp calls

    def on_message_begin(self) -> None:
        """A message begins; behind a complete answer nothing may."""
        if self.response is None or self.response.complete:
            self.reusable = False

    def on_status(self, reason: bytes) -> None:
        """The reason phrase, perhaps in pieces."""
        if self.response is not None and not self.response.complete:
            self.response.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers come here too, and are dropped."""
        response = self.response
        if response is not None and not response.seen:
            response.headers.append((name, value))
            response.fields.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        """The head is in, unless it was an interim one (100 Continue)."""
        response = self.response
        parser = self.parser
        if response is None or response.complete or parser is None:
            return
        response.status = parser.get_status_code()
        if response.status < 200 and response.status != 101:
            return
        response.seen = True
        coding = response.fields.get(b"transfer-encoding")
        if coding is not None:
            if coding.strip().lower() != b"chunked":
                response.error = EngineProtocolError(f"the engine's answer has an unknown transfer coding: {coding!r}")
            self.both_lengths(response)
        if response.headless:
            self.reusable = self.reusable and parser.should_keep_alive()
            self.parser = None  # this one waits for a body that will not come
            response.complete = True

    def both_lengths(self, response: Response) -> None:
        """Believe the chunks of an answer that tells a length as well, and not the connection (RFC 9112, 6.3)."""
        if response.fields.pop(b"content-length", None) is not None:
            response.headers = [pair for pair in response.headers if pair[0].lower() != b"content-length"]
            self.reusable = False

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        response = self.response
        if response is None or response.complete:
            self.reusable = False
        else:
            response.pieces.append(data)

    def on_message_complete(self) -> None:
        """The answer is whole, or an interim one is over."""
        response = self.response
        if response is None or response.complete:
            return
        if not response.seen:
            response.headers, response.fields, response.reason = [], {}, b""
            return
        response.complete = True
        if self.parser is not None and not self.parser.should_keep_alive():
            self.reusable = False

    # ends

    def release(self) -> None:
        """Give the connection back to the pool, or close it where that is not safe."""
        self.response = None
        if self.reusable and not self.transport.get_write_buffer_size() and not self.transport.is_closing():
            self.resume()
            self.pool.release(self)
        else:
            self.abort()

    def send(self, data: bytes) -> None:
        """Send a tunnel's bytes."""
        if not self.lost:
            self.transport.write(data)

    def abort(self) -> None:
        """Close at once."""
        if not self.lost:
            self.transport.abort()

    def pause(self) -> None:
        """Read nothing from the engine."""
        if not self.paused and not self.lost and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self.paused and not self.lost and not self.transport.is_closing():
            self.paused = False
            self.transport.resume_reading()
