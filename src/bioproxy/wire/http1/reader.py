"""From bytes to requests: what a client sent, judged before anything acts on it.

httptools (Node's llhttp) knows the grammar, and judge.py what the grammar leaves open. This module decides which bytes
belong together, and why that takes more than a call of `feed_data`:

- **We cut, llhttp judges.** A head is fed only when it is whole, in one piece; a chunked body up to each place where it
  could end; a body with a length is counted and not fed at all. So we always know which byte belongs to which message,
  the same bytes give the same requests however they were split on the way, and limits count raw bytes. Callbacks cannot
  count: one header value can arrive in ten thousand pieces before the first of them (131 MB of it took 73 s of CPU).
- **Each request has a parser of its own** (a quarter of a microsecond), so nothing of one can leak into the next.
- **A request is handed over after its feed returned**, because llhttp finds some faults only after it said that the
  headers are complete.
- **After an error nothing more is read**: there is no telling where the next message would begin.

What comes after a complete request is kept unread (`keep`), 64 KiB at most, until the answer is out. No sockets here:
connection.py feeds, and answers what is raised.
"""

from __future__ import annotations

from enum import Enum, auto

import httptools

from bioproxy.config.schema import Limits
from bioproxy.errors import RequestError
from bioproxy.wire.http1 import judge
from bioproxy.wire.http1.heads import Headers, fields_of
from bioproxy.wire.http1.judge import Fields
from bioproxy.wire.http1.message import Request
from bioproxy.wire.http1.target import read_target, shown

PIPELINED = 64 << 10  # bytes kept after a request that is being served
EMPTY_LINE = b"\r\n\r\n"
HANDSHAKE = b"\x16\x03"  # how TLS begins (RFC 8446, 5.1)


class Part(Enum):
    """What the next byte belongs to."""

    HEAD = auto()
    SIZED = auto()  # a body with a length
    CHUNKED = auto()
    LATER = auto()  # a request after this one, which is complete


HEAD, SIZED, CHUNKED, LATER = Part


class RequestReader:
    """One connection's reader. `feed` until it returns a request, `keep` while that is served, then `restart`."""

    received: int  # raw bytes of a chunked body
    quiet: int  # of those, the last ones without content
    carry: bytes  # the last three, in which an empty line may have begun

    def __init__(self, limits: Limits, peer: str = "") -> None:
        self.limits = limits
        self.peer = peer
        self.kept = bytearray()  # an unfinished head, or what came after a request
        self.arrived = 0.0  # when the first byte of the head came
        self.parser: httptools.HttpRequestParser | None = None  # of a chunked body; it holds our callbacks, and so us
        self.restart()

    def restart(self) -> None:
        """Get ready for the next request; what was kept is its beginning."""
        self.part = HEAD
        self.searched = 0  # how much of what is kept has no end of a head in it
        self.blank = False  # one empty line before the request was skipped
        self.request: Request | None = None
        self.headers: Headers = []
        self.url = b""
        self.complete = False  # llhttp has seen the message's end
        self.overrun = False  # and the beginning of another one, which we must never feed
        self.expects = False  # the client waits for a 100
        self.needed = 0  # bytes of a sized body still to come
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append  # llhttp's callback, without a frame of ours

    # what llhttp calls

    def on_message_begin(self) -> None:
        """A message begins; if one is complete, we cut in the wrong place."""
        self.overrun = self.complete

    def on_url(self, url: bytes) -> None:
        """The target, in one piece because the head is fed in one piece."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the head, or of a chunked body's trailers, which are dropped: the request has its own list.

        Blanks after a value do not belong to it; llhttp leaves them.
        """
        self.headers.append((name, value.rstrip(b" \t")))

    def on_message_complete(self) -> None:
        self.complete = True

    # what the connection calls

    @property
    def idle(self) -> bool:
        """Whether nothing of a request has arrived yet."""
        return self.part is HEAD and not self.kept and not self.blank

    def feed(self, data: bytes, now: float) -> Request | None:
        """Take bytes that came at `now`; the request that they complete, else None. RequestError: answer and close."""
        rest = data
        if self.part is HEAD:
            after = self.take_head(data, now)
            if after is None:
                return None
            rest = after
        if self.part is SIZED:
            rest = self.take_sized(rest)
        elif self.part is CHUNKED:
            rest = self.take_chunked(rest)
        if self.part is not LATER:
            return None
        if rest:
            self.kept += rest
        return self.request

    def keep(self, data: bytes) -> bool:
        """Keep bytes that came after the request that is being served; False if they are too many."""
        self.kept += data
        return len(self.kept) <= PIPELINED

    # heads

    def take_head(self, data: bytes, now: float) -> bytes | None:
        """Look for the end of the head and read it; what came after it, or None while it is unfinished."""
        kept = self.kept
        if not kept or not self.searched:
            self.arrived = now
        if kept or not data or not 65 <= data[0] <= 90:
            kept += data
            return self.search(kept)
        end = head_end(data, 0)
        if not 0 < end <= self.limits.head:
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
        if kept.startswith(HANDSHAKE):
            raise RequestError("the client speaks TLS (https://), and here it is plain HTTP (http://)")
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
        """Parse and judge a whole head; afterwards `request` is there and `part` says what its body is."""
        http_10 = judge.is_http_10(head)
        parser, upgrade = self.parse_head(head, http_10=http_10)
        method = parser.get_method()
        if method == b"CONNECT":
            raise RequestError("CONNECT is not served here: this is no forward proxy", status=405)
        headers = self.headers
        fields = fields_of(headers)
        target, path, authority = read_target(self.url, method)
        if len(fields) != len(headers):
            judge.check_repeated(headers)
        judge.check_host(fields, http_10=http_10)
        if authority is not None:
            replace(headers, fields, b"host", (b"Host", authority))
        self.request = request = Request(
            method.decode("ascii"),
            target,
            path=path,
            headers=headers,
            fields=fields,
            http_10=http_10,
            keep_alive=keeps_alive(headers, fields, http_10=http_10),
            peer=self.peer,
            arrived=self.arrived,
        )
        if upgrade or b"upgrade" in fields:
            parser = self.settle_upgrade(head, request, parser, offered=upgrade)
        self.open_body(fields, parser, http_10=http_10)

    def parse_head(self, head: bytes, *, http_10: bool) -> tuple[httptools.HttpRequestParser, bool]:
        """The parser that has read the head, and whether it asks to change the protocol."""
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            return parser, True
        except httptools.HttpParserInvalidMethodError as error:
            raise judge.unknown_method(head) from error
        except httptools.HttpParserError as error:
            raise judge.broken_head(error, fields_of(self.headers), http_10=http_10) from error
        return parser, False

    def settle_upgrade(
        self, head: bytes, request: Request, parser: httptools.HttpRequestParser, *, offered: bool
    ) -> httptools.HttpRequestParser:
        """Grant a websocket's upgrade; any other is ignored, as a server may, and the request is an ordinary one.

        llhttp stops at every upgrade and takes a body for the new protocol's bytes (curl offers h2c with a POST), so
        that body is read by a parser that saw the head without the offer.
        """
        if offered and judge.wants_websocket(request.fields, request.method.encode(), http_10=request.http_10):
            request.upgrade = True
            return parser
        replace(request.headers, request.fields, b"upgrade")
        if not offered:
            return parser
        kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"upgrade:")]
        self.headers, self.url, self.complete = [], b"", False
        parser, again = self.parse_head(b"\r\n".join(kept), http_10=False)
        if again:
            raise RequestError("the request asks for an upgrade in a way that cannot be read")
        return parser

    def open_body(self, fields: Fields, parser: httptools.HttpRequestParser, *, http_10: bool) -> None:
        """Find out how the body ends; llhttp must be of the same opinion about whether there is one."""
        length = judge.body_length(fields, http_10=http_10, limit=self.limits.body)
        expects = b"expect" in fields and judge.expects_continue(fields, http_10=http_10)
        if not length:
            self.part = LATER
        elif length > 0:
            self.part, self.needed, self.expects = SIZED, length, expects
        else:
            self.part, self.expects, self.parser = CHUNKED, expects, parser
            self.received = self.quiet = 0
            self.carry = b""
            self.headers = []  # what comes to it from here on are trailers
        if self.complete != (not length):
            raise RequestError("the end of the request's head cannot be told")

    # bodies

    def take_sized(self, data: bytes) -> bytes:
        """Take what belongs to a body with a length; returns what came after it."""
        size = len(data)
        if size < self.needed:
            if size:
                self.pieces.append(data)
                self.needed -= size
            return b""
        self.pieces.append(data[: self.needed])
        rest = data[self.needed :]
        self.close_body()
        return rest

    def take_chunked(self, data: bytes) -> bytes:
        """Take what belongs to a chunked body; returns what came after it.

        It ends with an empty line, after its last chunk or its trailers: so llhttp is fed up to each empty line, and
        says whether that was the end.
        """
        start = position = len(self.carry)
        text = self.carry + data
        while position < len(text) and not self.complete:
            found = text.find(EMPTY_LINE, max(0, position - 3))
            end = len(text) if found < 0 else found + 4
            self.parse_chunks(text[position:end])
            position = end
        self.received += position - start
        if self.received > self.limits.body:
            raise judge.too_large(self.limits.body)
        self.carry = text[-3:]
        if self.complete:
            if self.overrun:
                raise RequestError("the end of the request's body cannot be told")
            self.parser = None
            self.close_body()
        return text[position:]

    def parse_chunks(self, piece: bytes) -> None:
        """Feed bytes of a chunked body; a long run without content (extensions, trailers) is an attack on our time."""
        pieces = len(self.pieces)
        assert self.parser is not None
        try:
            self.parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise RequestError(f"the request's body is not valid HTTP: {error}") from error
        self.quiet = 0 if len(self.pieces) > pieces else self.quiet + len(piece)
        if self.quiet > self.limits.head:
            raise RequestError(f"the body's framing has more than {self.limits.head} bytes without content")

    def close_body(self) -> None:
        """The body is whole: put it together."""
        assert self.request is not None
        self.request.body = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        self.pieces.clear()
        self.part = LATER


def replace(headers: Headers, fields: Fields, key: bytes, *lines: tuple[bytes, bytes]) -> None:
    """Take the header `key` out, in place; `lines` come first instead."""
    headers[:] = [*lines, *(pair for pair in headers if pair[0].lower() != key)]
    fields.pop(key, None)
    fields.update((name.lower(), value) for name, value in lines)


def keeps_alive(headers: Headers, fields: Fields, *, http_10: bool) -> bool:
    """Whether the client will use the connection again."""
    if b"connection" not in fields:
        return not http_10
    return judge.keeps_alive([value for name, value in headers if name.lower() == b"connection"], http_10=http_10)


def head_end(data: bytes | bytearray, start: int) -> int:
    """The index after the empty line that ends a head, or -1. Bare line feeds end it too: llhttp then refuses it."""
    found = data.find(b"\n\r\n", start)
    if found >= 0:
        return found + 3  # llhttp refuses bare line feeds before it as well
    bare = data.find(b"\n\n", start)
    return bare + 2 if bare >= 0 else -1
