"""A request as handlers get it, and the one way to answer it.

A `Request` is complete: its head was judged, its body is here. A handler never meets a half-read request, so it cannot
hold a grant while a slow client is still sending. A `Responder` belongs to one request; it knows what the client can
read (no chunks with HTTP/1.0, no body after HEAD) and does the framing: handlers speak of status, headers and bytes
only.

The one rule that matters here: **a truncated answer must never look whole.** An answer with a length is cut when fewer
bytes came, a chunked one ends with its last chunk only through `finish`, and one that the end of the connection ends is
reset instead of closed when it is aborted. What reads requests lives in reader.py, what owns the socket in
connection.py.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

import msgspec

from bioproxy.wire.http1.heads import FRAMING, Headers, block, status_line
from bioproxy.wire.http1.target import query_of

__all__ = ["Carrier", "Headers", "Request", "Responder", "Source"]

JOINED = 64 << 10  # bytes up to which head and body go out in one piece


class Framing(Enum):
    """How a client learns where an answer ends."""

    NO_BODY = auto()
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()
    HELD = auto()  # nothing is out before the body is whole: a rewriter makes another one of it


NO_BODY, LENGTH, CHUNKED, UNTIL_CLOSE, HELD = Framing


class Request(msgspec.Struct, eq=False):
    """One request. `headers` are as they came; `header` looks names up in lower case."""

    method: str
    target: bytes  # origin form, as received
    path: str  # decoded; what could be read in two ways was refused
    headers: Headers
    fields: dict[bytes, bytes]  # lower-case name to first value
    http_10: bool = False
    keep_alive: bool = True  # the client wants to use the connection again
    peer: str = ""  # the client's address
    arrived: float = 0.0  # loop.time() of the head's first byte
    upgrade: bool = False  # wants to become a websocket
    body: bytes = b""
    base: bytes = b""  # what a reverse proxy has before `target`, and we took off

    def header(self, name: bytes) -> bytes | None:
        """The first value of the header `name` (lower case)."""
        return self.fields.get(name)

    @property
    def query(self) -> list[tuple[str, str]]:
        """The decoded pairs of the query, in order."""
        return query_of(self.target)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path} from {self.peer or 'a unix socket'}, {len(self.body)} bytes>"


class Source(Protocol):
    """What produces an answer's bytes and can be told to wait: an engine's response."""

    def pause(self) -> None:
        """Produce nothing more for now."""

    def resume(self) -> None:
        """Go on."""


class Carrier(Protocol):
    """What a Responder needs of the connection that carries it."""

    keep: bool

    def write(self, data: bytes) -> None:
        """Send bytes; nothing happens once the client is gone."""

    async def drain(self) -> None:
        """Return when the client has read enough for more."""

    def cut(self, *, reset: bool = False) -> None:
        """Close the connection at once; `reset` if a plain close would look like the answer's end."""

    def take_from(self, source: Source | None) -> None:
        """Pause and resume `source` as the client reads."""

    def tunnel_to(self, receive: Callable[[bytes], None]) -> None:
        """From here on the client's bytes go to `receive` alone."""

    def pause(self) -> None:
        """Read nothing from the client."""

    def resume(self) -> None:
        """Read again."""


class Rewriter(Protocol):
    """Makes another answer of the one that is sent, for a client of another API."""

    status: int  # of the other answer, once its body is whole

    def begin(self, status: int, headers: Headers) -> tuple[Headers, bool]:
        """The other answer's headers, and whether its body goes out as it comes; else it does once it is whole."""

    def feed(self, data: bytes) -> bytes:
        """Take a piece of the body; what of the other one can go out now."""

    def end(self) -> bytes:
        """The body has ended: what is left of the other one."""


def never() -> bool:
    """The default of `let_go`: only its framing ends an answer."""
    return False


class Responder:
    """The answer to one request. Either `send`, or `start`, `write`…, `finish`; `abort` at any time.

    `let_go` is asked when the client leaves before the end: True if it had the whole answer all the same. A `rewriter`
    may be set before the head is out: then the client gets what that makes of the answer.
    """

    def __init__(self, carrier: Carrier, request: Request) -> None:
        self.carrier = carrier
        self.request = request
        self.extra: Headers = []  # goes with whatever head is sent
        self.status = 0
        self.bytes_out = 0  # of the body, before framing
        self.finished = False  # nothing more is sent: the answer is whole, was cut, or the client left
        self.framing = NO_BODY
        self.left = 0  # bytes of the body still owed, if it has a length
        self.let_go: Callable[[], bool] = never
        self.rewriter: Rewriter | None = None
        self.held: Headers = []  # of an answer that is held back

    @property
    def started(self) -> bool:
        """Whether the head is out, and a status can no longer be chosen."""
        return self.status != 0

    @property
    def bounded(self) -> bool:
        """Whether the head that is out tells how much follows, so that nothing can be added."""
        return self.framing is LENGTH or self.framing is NO_BODY

    def send(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Send a whole answer with its Content-Length."""
        head = self.head(status, headers, length=len(body))
        self.put(head, self.frame(body, last=True))
        self.finished = True

    def put(self, head: bytes, framed: bytes) -> None:
        """Send both, in one piece unless they are long."""
        if len(framed) > JOINED:
            self.carrier.write(head)
            self.carrier.write(framed)
        elif head or framed:
            self.carrier.write(head + framed)

    def start(self, status: int, headers: Headers, *, length: int | None) -> None:
        """Send the head of an answer of `length` bytes, or of unknown length (None)."""
        self.carrier.write(self.head(status, headers, length=length))

    def head(self, status: int, headers: Headers, *, length: int | None) -> bytes:
        """Decide the framing and return the head instead of sending it: the caller writes it with the first bytes."""
        if self.status:
            raise RuntimeError(f"an answer with status {self.status} has begun already")
        kept = [pair for pair in headers if pair[0].lower() not in FRAMING]
        if length is not None and status >= 200 and status != 204:
            kept.append((b"Content-Length", b"%d" % length))
        return self.relayed_head(status, kept, length=length)

    def relayed_head(self, status: int, headers: Headers, *, length: int | None, reason: bytes = b"") -> bytes:
        """The same for headers that were cleaned already and hold their own Content-Length, if any."""
        if self.rewriter is not None:
            headers, streams = self.rewriter.begin(status, headers)
            if not streams:
                self.framing, self.held = HELD, headers
                return b""
            length = None
        line = status_line(status, reason) + block(headers)
        if self.extra:
            line += block(self.extra)
        self.status = status
        if self.request.method == "HEAD" or status < 200 or status in {204, 304}:
            self.framing = NO_BODY
        elif length is not None:
            self.framing, self.left = LENGTH, length
        elif self.request.http_10:
            self.framing, self.carrier.keep = UNTIL_CLOSE, False
        else:
            self.framing = CHUNKED
            line += b"Transfer-Encoding: chunked\r\n"
        if status == 101:
            return line + b"\r\n"
        if not self.carrier.keep:
            return line + b"Connection: close\r\n\r\n"
        return line + b"Connection: keep-alive\r\n\r\n" if self.request.http_10 else line + b"\r\n"

    def frame(self, data: bytes, *, last: bool = False) -> bytes:
        """`data` as it goes over the wire; `last` ends the answer. ValueError for more than was announced."""
        if self.rewriter is not None:
            data = self.rewriter.feed(data) + (self.rewriter.end() if last else b"")
        framing = self.framing
        if framing is HELD:
            return self.let_out(data) if last else b""
        if framing is CHUNKED:
            self.bytes_out += len(data)
            if not data:
                return b"0\r\n\r\n" if last else b""
            return (b"%x\r\n%b\r\n0\r\n\r\n" if last else b"%x\r\n%b\r\n") % (len(data), data)
        if framing is NO_BODY:
            return b""
        if framing is LENGTH:
            self.left -= len(data)
            if self.left < 0:
                raise ValueError(f"an answer is {-self.left} bytes longer than announced")
        self.bytes_out += len(data)
        return data

    def let_out(self, body: bytes) -> bytes:
        """Head and body of an answer that was held back, now that it is whole."""
        assert self.rewriter is not None
        status, self.rewriter = self.rewriter.status, None
        return self.head(status, self.held, length=len(body)) + self.frame(body)

    def write(self, data: bytes) -> None:
        """Send bytes of the body; the caller awaits `drain` now and then."""
        if not self.finished and (framed := self.frame(data)):
            self.carrier.write(framed)

    async def drain(self) -> None:
        """Return at once while the client keeps up, else when it has read enough."""
        await self.carrier.drain()

    def finish(self) -> None:
        """End the answer; an answer with bytes still owed is cut instead."""
        if self.finished:
            return
        if self.rewriter is not None:
            self.carrier.write(self.frame(b"", last=True))
            self.finished = True
            return
        if self.framing is LENGTH and self.left:
            self.abort()
            return
        self.finished = True
        if self.framing is CHUNKED:
            self.carrier.write(b"0\r\n\r\n")

    def abandoned(self) -> bool:
        """The client has left, and nothing more is sent; whether its answer was whole by then."""
        whole = self.finished or self.let_go()
        self.finished = True
        return whole

    def abort(self) -> None:
        """Cut the connection; does nothing after the end."""
        if not self.finished:
            self.finished = True
            self.carrier.keep = False
            self.carrier.cut(reset=self.framing is UNTIL_CLOSE)
