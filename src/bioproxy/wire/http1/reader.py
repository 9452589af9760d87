"""From bytes to requests: what a client sent, judged before anybody acts on it.

httptools (Node's llhttp) knows the grammar, and judge.py what the grammar leaves open. This module decides which bytes
belong together, and why that takes more than a call of `feed_data`:

- **We cut, llhttp judges.** A head is fed only when it is whole, in one piece; a body with a length exactly to its last
  byte; a chunked body up to each place where it could end. So we always know which byte belongs to which message, the
  same bytes give the same requests however they were split on the way, and limits count raw bytes. Callbacks cannot
  count: one header value can arrive in ten thousand pieces before the first of them (131 MB of it took 73 s of CPU).
- **A request is handed over after its feed returned**, because llhttp finds some faults only after it said that the
  headers are complete.
- **After an error nothing more is read**: nobody knows where the next message would begin.

What comes in behind a complete request is kept unread (`keep`), 64 KiB at most, until the answer is out. No sockets
here: connection.py feeds, and answers what is raised.
"""

from __future__ import annotations

import httptools

from bioproxy.config.schema import Limits
from bioproxy.errors import RequestError
from bioproxy.wire.http1 import judge
from bioproxy.wire.http1.heads import Headers
from bioproxy.wire.http1.message import Request
from bioproxy.wire.http1.target import read_target, shown

HEAD, SIZED, CHUNKED, WHOLE = range(4)  # what the next byte belongs to; WHOLE: to a later request
PIPELINED = 64 << 10  # bytes kept behind a request that is being served
EMPTY_LINE = b"\r\n\r\n"


class RequestReader:
    """One connection's reader. `feed` until it returns a request, `keep` while that is served, then `restart`."""

    __slots__ = (
        "arrived",
        "blank",
        "carry",
        "complete",
        "expects",
        "fields",
        "headers",
        "kept",
        "limits",
        "needed",
        "overrun",
        "parser",
        "peer",
        "pieces",
        "quiet",
        "received",
        "repeated",
        "request",
        "searched",
        "state",
        "url",
    )

    def __init__(self, limits: Limits, peer: str = "") -> None:
        self.limits = limits
        self.peer = peer
        self.parser: httptools.HttpRequestParser | None = None
        self.kept = bytearray()  # an unfinished head, or what came behind a request
        self.arrived = 0.0  # when the first byte of the head came
        self.restart()

    def restart(self) -> None:
        """Get ready for the next request; what was kept is its beginning."""
        self.state = HEAD
        self.searched = 0  # how much of what is kept has no end of a head in it
        self.blank = False  # one empty line before the request was skipped
        self.request: Request | None = None
        self.headers: Headers = []
        self.fields: dict[bytes, bytes] = {}
        self.repeated: list[bytes] = []  # names that came again
        self.pieces: list[bytes] = []
        self.url = b""
        self.complete = False  # llhttp has seen the message's end
        self.overrun = False  # and the beginning of another one, which we must never feed
        self.expects = False  # the client waits for a 100
        self.needed = 0  # bytes of a sized body still to come
        self.received = 0  # raw bytes of a chunked body
        self.quiet = 0  # of those, the last ones without content
        self.carry = b""  # the last three, in which an empty line may have begun

    # what llhttp calls

    def on_message_begin(self) -> None:
        """A message begins; behind a complete one that means that we cut in the wrong place."""
        self.overrun = self.complete

    def on_url(self, url: bytes) -> None:
        """The target, in one piece because the head is fed in one piece."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the head; those behind a chunked body (trailers) are dropped."""
        if self.state != HEAD:
            return
        if value[-1:] in {b" ", b"\t"}:  # blanks behind a value do not belong to it; llhttp leaves them
            value = value.rstrip(b" \t")
        self.headers.append((name, value))
        key = name.lower()
        if key in self.fields:
            self.repeated.append(key)
        else:
            self.fields[key] = value

    def on_body(self, data: bytes) -> None:
        """A piece of the body, without its framing."""
        self.pieces.append(data)

    def on_message_complete(self) -> None:
        """The last byte of the message was fed."""
        self.complete = True

    # what the connection calls

    @property
    def idle(self) -> bool:
        """Whether nothing of a request has arrived yet."""
        return self.state == HEAD and not self.kept and not self.blank

    def feed(self, data: bytes, now: float) -> Request | None:
        """Take bytes that came at `now`; the request that they complete, else None. RequestError: answer and close."""
        rest: bytes | None = data
        if self.state == HEAD:
            rest = self.take_head(data, now)
        if rest is None:
            return None
        if self.state == SIZED:
            rest = self.take_sized(rest)
        elif self.state == CHUNKED:
            rest = self.take_chunked(rest)
        if self.state != WHOLE:
            return None
        self.kept += rest
        return self.request

    def keep(self, data: bytes) -> bool:
        """Keep bytes behind the request that is being served; False when they are too many."""
        self.kept += data
        return len(self.kept) <= PIPELINED

    # heads

    def take_head(self, data: bytes, now: float) -> bytes | None:
        """Look for the end of the head and read it; what came behind it, or None while it is unfinished."""
        kept = self.kept
        if not kept or not self.searched:
            self.arrived = now
        if kept or not data or not 65 <= data[0] <= 90:
            kept += data
            return self.search(kept)
        end = head_end(data, 0)
        if end < 0 or end > self.limits.head:
            kept += data
            return self.search(kept)
        if end == len(data):
            self.read_head(data)
            return b""
        self.read_head(data[:end])
        return data[end:]

    def search(self, kept: bytearray) -> bytes | None:
        """The same for a head that came in pieces, or that begins strangely."""
        if not self.blank and kept.startswith(b"\r\n"):  # RFC 9112, 2.2: some clients send one too many
            self.blank = True
            del kept[:2]
        if kept and not 65 <= kept[0] <= 90 and (self.blank or kept != b"\r"):
            raise RequestError(f"this is no HTTP request: it begins with {shown(bytes(kept[:16]))}")
        end = head_end(kept, max(0, self.searched - 3))
        self.searched = len(kept)
        if end > self.limits.head or (end < 0 and len(kept) > self.limits.head):
            raise RequestError(f"the request's head is longer than {self.limits.head} bytes (limits.head)", status=431)
        if end < 0:
            return None
        head, rest = bytes(kept[:end]), bytes(kept[end:])
        kept.clear()
        self.read_head(head)
        return rest

    def read_head(self, head: bytes) -> None:
        """Parse and judge a whole head; afterwards `request` is there and `state` says what its body is."""
        line = head[: head.find(b"\r\n")]
        http_10 = judge.is_http_10(line)
        upgrade = self.parse_head(head, line, http_10=http_10)
        assert self.parser is not None
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise RequestError("CONNECT is not served here: this is no forward proxy", status=405)
        target, path, authority = read_target(self.url, method)
        judge.check_host(self.fields, self.repeated, http_10=http_10)
        if authority is not None:
            self.replace(b"host", (b"Host", authority))
        self.request = Request(
            method.decode("ascii"),
            target,
            path=path,
            headers=self.headers,
            fields=self.fields,
            http_10=http_10,
            keep_alive=self.keeps_alive(http_10=http_10),
            peer=self.peer,
            arrived=self.arrived,
        )
        if upgrade or b"upgrade" in self.fields:
            self.settle_upgrade(head, self.request, offered=upgrade)
        self.open_body(http_10=http_10)

    def parse_head(self, head: bytes, line: bytes, *, http_10: bool) -> bool:
        """Let llhttp read the head; True where it asks to change the protocol."""
        if self.parser is None:
            self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            return True
        except httptools.HttpParserInvalidMethodError as error:
            raise judge.unknown_method(line) from error
        except httptools.HttpParserError as error:
            raise judge.broken_head(error, self.fields, http_10=http_10) from error
        return False

    def keeps_alive(self, *, http_10: bool) -> bool:
        """Whether the client will use the connection again."""
        if b"connection" not in self.fields:
            return not http_10
        values = [value for name, value in self.headers if name.lower() == b"connection"]
        return judge.keeps_alive(values, http_10=http_10)

    def replace(self, key: bytes, *lines: tuple[bytes, bytes]) -> None:
        """Take the header `key` out, in place; `lines` come first instead."""
        self.headers[:] = [*lines, *(pair for pair in self.headers if pair[0].lower() != key)]
        self.fields.pop(key, None)
        self.fields.update((name.lower(), value) for name, value in lines)

    def settle_upgrade(self, head: bytes, request: Request, *, offered: bool) -> None:
        """Grant a websocket's upgrade; any other is ignored, as a server may, and the request is an ordinary one.

        llhttp stops at every upgrade and takes a body for the new protocol's bytes (curl offers h2c with a POST), so
        that body is read by a parser that saw the head without the offer.
        """
        if offered and judge.wants_websocket(self.fields, request.method.encode(), http_10=request.http_10):
            request.upgrade = True
            self.parser = None
            return
        self.replace(b"upgrade")
        if offered:
            lines = head.split(b"\r\n")
            kept = [line for line in lines if not line.lower().startswith(b"upgrade:")]
            self.parse_again(b"\r\n".join(kept))

    def parse_again(self, head: bytes) -> None:
        """Feed a head to a new parser, only for where its body ends."""
        noted = self.headers, self.fields, self.url
        self.headers, self.fields, self.complete = [], {}, False
        self.parser = None
        if self.parse_head(head, b"", http_10=False):
            raise RequestError("the request asks for an upgrade in a way that cannot be read")
        self.headers, self.fields, self.url = noted

    def open_body(self, *, http_10: bool) -> None:
        """Find out how the body ends; llhttp must be of the same opinion about whether there is one."""
        length = judge.body_length(self.fields, http_10=http_10, limit=self.limits.body)
        expects = judge.expects_continue(self.fields, http_10=http_10)
        if length:
            self.state = SIZED if length > 0 else CHUNKED
            self.needed = length
            self.expects = expects
        else:
            self.state = WHOLE
        if self.complete != (not length):
            raise RequestError("the end of the request's head cannot be told")

    # bodies

    def take_sized(self, data: bytes) -> bytes:
        """Take what belongs to a body with a length; returns what came behind it."""
        if not data:
            return b""
        piece = data if len(data) <= self.needed else data[: self.needed]
        self.parse_body(piece)
        self.needed -= len(piece)
        if not self.needed:
            self.close_body()
        return data[len(piece) :]

    def take_chunked(self, data: bytes) -> bytes:
        """Take what belongs to a chunked body; returns what came behind it.

        It ends with an empty line, behind its last chunk or its trailers: so llhttp is fed up to each empty line, and
        says whether that was the end.
        """
        start = position = len(self.carry)
        text = self.carry + data
        while position < len(text) and not self.complete:
            found = text.find(EMPTY_LINE, max(0, position - 3))
            end = len(text) if found < 0 else found + 4
            self.parse_body(text[position:end])
            position = end
        self.received += position - start
        if self.received > self.limits.body:
            raise judge.too_large(self.limits.body)
        self.carry = text[-3:]
        if self.complete:
            self.close_body()
        return text[position:]

    def parse_body(self, piece: bytes) -> None:
        """Feed bytes of a body; a long run without any content (extensions, trailers) is an attack on our time."""
        assert self.parser is not None
        pieces = len(self.pieces)
        try:
            self.parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise RequestError(f"the request's body is not valid HTTP: {error}") from error
        self.quiet = 0 if len(self.pieces) > pieces else self.quiet + len(piece)
        if self.quiet > self.limits.head:
            raise RequestError(f"the body's framing has more than {self.limits.head} bytes without content")

    def close_body(self) -> None:
        """The body is whole: put it together."""
        if not self.complete or self.overrun:
            raise RequestError("the end of the request's body cannot be told")
        assert self.request is not None
        self.request.body = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        self.pieces = []
        self.state = WHOLE


def head_end(data: bytes | bytearray, start: int) -> int:
    """The index behind the empty line that ends a head, or -1. Bare line feeds end it too: llhttp then refuses it."""
    found = data.find(b"\n\r\n", start)
    bare = data.find(b"\n\n", start, found + 1 if found >= 0 else len(data))
    if bare >= 0:
        return bare + 2
    return found + 3 if found >= 0 else -1
