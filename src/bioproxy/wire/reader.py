"""From bytes to requests: what a client sent, judged before anybody acts on it.

httptools (Node's llhttp) knows the grammar. This module knows what a grammar leaves open, and where request smuggling
lives: two parties that disagree about where a message ends, or about what its path is. Three things are done here for
that, and they are why a reader is more than a call of `feed_data`:

- **We cut, llhttp judges.** A head is fed only when it is whole, in one piece; a body with a length exactly to its last
  byte; a chunked body up to each place where it could end. So we always know which byte belongs to which message, the
  same bytes give the same requests however they were split on the way, and limits count raw bytes. Callbacks cannot
  count: one header value can arrive in ten thousand pieces before the first one (131 MB of it took 73 s of CPU).
- **One meaning or none.** Two lengths, a length and chunks, chunks on HTTP/1.0, a folded line, no Host or two: 400, and
  the connection closes, since nobody knows where the next message would begin.
- **A request is handed over after its feed returned**, because llhttp finds some faults only after it said that the
  headers are complete.

What comes in behind a complete request is kept unread (`keep`), 64 KiB at most, until the answer is out. No sockets
here: connection.py feeds, and answers what is raised.
"""

from __future__ import annotations

import re

import httptools

from bioproxy.config.schema import Limits
from bioproxy.errors import RequestError
from bioproxy.wire.heads import Headers, tokens
from bioproxy.wire.message import Request
from bioproxy.wire.target import read_target, shown, valid_host

HEAD, SIZED, CHUNKED, WHOLE = range(4)  # what the next byte belongs to; WHOLE: to a later request
PIPELINED = 64 << 10  # bytes kept behind a request that is being served
ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"upgrade", b"expect"})
OTHER_VERSION = re.compile(rb"\S+ \S+ [A-Za-z][A-Za-z0-9+.-]*/\d+(\.\d+)?")
TOKEN_FIRST = re.compile(rb"[A-Z][A-Z0-9_-]*")


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
        self.arrived = 0.0
        self.restart()

    def restart(self) -> None:
        """Get ready for the next request; what was kept is its beginning."""
        self.state = HEAD
        self.searched = 0
        self.blank = False  # one empty line before a request was skipped
        self.request: Request | None = None
        self.headers: Headers = []
        self.fields: dict[bytes, bytes] = {}
        self.repeated: list[bytes] = []
        self.pieces: list[bytes] = []
        self.url = b""
        self.complete = self.overrun = self.expects = False
        self.needed = self.received = self.quiet = 0
        self.carry = b""

    # what llhttp calls

    def on_message_begin(self) -> None:
        """A message begins; where one was complete, we cut in the wrong place and must not go on."""
        self.overrun = self.overrun or self.complete

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
        """Take bytes that came at `now`; the request that they complete, else None.

        RequestError: answer it and close, for nobody knows where the next request would begin.
        """
        if self.state == HEAD:
            rest = self.take_head(data, now)
            if rest is None:
                return None
        else:
            rest = data
        if self.state == SIZED:
            rest = self.take_sized(rest)
        elif self.state == CHUNKED:
            rest = self.take_chunked(rest)
        if self.state != WHOLE:
            return None
        if rest:
            self.arrived = now
            self.kept += rest
        return self.request

    def keep(self, data: bytes, now: float) -> bool:
        """Keep bytes behind the request that is being served; False when they are too many."""
        if not self.kept:
            self.arrived = now
        self.kept += data
        return len(self.kept) <= PIPELINED

    # heads

    def take_head(self, data: bytes, now: float) -> bytes | None:
        """Look for the end of the head and read it; what came behind it, or None while it is unfinished."""
        kept = self.kept
        if kept:
            kept += data
            return self.search(kept)
        if not data:
            return None
        self.arrived = now
        end = head_end(data, 0)
        if end < 0 or not 65 <= data[0] <= 90 or end > self.limits.head:
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
        http_10 = line.endswith(b" HTTP/1.0")
        if not http_10 and not line.endswith(b" HTTP/1.1"):
            raise version_error(line)
        upgrade = self.parse_head(head, line, http_10=http_10)
        assert self.parser is not None
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise RequestError("CONNECT is not served here: this is no forward proxy", status=405)
        target, path, authority = read_target(self.url, method)
        self.judge_host(authority, http_10=http_10)
        fields = self.fields
        connection = fields.get(b"connection")
        keep_alive = not http_10 if connection is None else keeps(tokens(connection), http_10=http_10)
        self.request = Request(
            method.decode("ascii"),
            target,
            path=path,
            headers=self.headers,
            fields=fields,
            http_10=http_10,
            keep_alive=keep_alive,
            peer=self.peer,
            arrived=self.arrived,
        )
        if upgrade or b"upgrade" in fields:
            self.judge_upgrade(head, self.request, upgraded=upgrade)
        self.judge_body(http_10=http_10)

    def parse_head(self, head: bytes, line: bytes, *, http_10: bool) -> bool:
        """Let llhttp read the head; True where it asks to change the protocol."""
        if self.parser is None:
            self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            return True
        except httptools.HttpParserInvalidMethodError as error:
            word = line.split(b" ", 1)[0]
            status = 501 if TOKEN_FIRST.fullmatch(word) else 400
            raise RequestError(f"the method {shown(word)} is not known", status=status) from error
        except httptools.HttpParserError as error:
            coding = self.fields.get(b"transfer-encoding", b"chunked").lower()
            if coding != b"chunked" and not http_10 and b"content-length" not in self.fields:
                raise unknown_coding(coding) from error
            raise RequestError(f"the request's head is not valid HTTP: {error}") from error
        return False

    def judge_host(self, authority: bytes | None, *, http_10: bool) -> None:
        """One Host, and one that names a host; an absolute target's authority takes its place (RFC 9112, 3.2.2)."""
        if self.repeated and (twice := ONCE.intersection(self.repeated)):
            raise RequestError(f"the header {min(twice).decode()} stands there more than once")
        host = self.fields.get(b"host")
        if host is None and not http_10:
            raise RequestError("the request has no Host header")
        if host is not None and not valid_host(host):
            raise RequestError(f"the Host header {shown(host)} names no host")
        if authority is not None:
            self.fields[b"host"] = authority
            others = [pair for pair in self.headers if pair[0].lower() != b"host"]
            self.headers[:] = [(b"Host", authority), *others]

    def judge_upgrade(self, head: bytes, request: Request, *, upgraded: bool) -> None:
        """Grant a websocket's upgrade; any other is ignored, as a server may, and the request is an ordinary one.

        llhttp stops at every upgrade and takes a body for the new protocol's bytes (curl offers h2c with a POST), so
        that body is read by a parser that saw the head without the offer.
        """
        fields = self.fields
        websocket = upgraded and fields[b"upgrade"].lower() == b"websocket" and not request.http_10
        bodiless = fields.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in fields
        if websocket and bodiless and request.method == "GET":
            request.upgrade = True
            self.parser = None
            return
        request.headers[:] = [pair for pair in request.headers if pair[0].lower() != b"upgrade"]
        fields.pop(b"upgrade", None)
        if upgraded:
            self.reparse(head)

    def reparse(self, head: bytes) -> None:
        """Feed the head once more, to a new parser and without `Upgrade`."""
        lines = head[:-2].split(b"\r\n")
        plain = [line for line in lines if not line.lower().startswith(b"upgrade:")]
        headers, fields, url = self.headers, self.fields, self.url
        self.headers, self.fields, self.complete = [], {}, False
        self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(b"\r\n".join(plain) + b"\r\n")
        except httptools.HttpParserError as error:
            raise RequestError(f"the request's head is not valid HTTP: {error}") from error
        self.headers, self.fields, self.url = headers, fields, url

    def judge_body(self, *, http_10: bool) -> None:
        """Find out how the body ends, and whether its length is one that we take."""
        fields = self.fields
        coding = fields.get(b"transfer-encoding")
        length = fields.get(b"content-length")
        if coding is not None:
            if http_10:
                raise RequestError("HTTP/1.0 knows no Transfer-Encoding")
            if length is not None:
                raise RequestError("the request has both Content-Length and Transfer-Encoding")
            if coding.lower() != b"chunked":
                raise unknown_coding(coding)
            self.state = CHUNKED
        elif length is not None and length != b"0":
            self.needed = int(length)
            if self.needed > self.limits.body:
                raise self.too_large()
            self.state = SIZED if self.needed else WHOLE
        else:
            self.state = WHOLE
        expect = fields.get(b"expect")
        if expect is not None and not http_10:
            if expect.lower() != b"100-continue":
                raise RequestError(f"the expectation {shown(expect)} cannot be met", status=417)
            self.expects = self.state != WHOLE
        if self.complete != (self.state == WHOLE) and not (self.request and self.request.upgrade):
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
            self.end_body()
        return data[len(piece) :]

    def take_chunked(self, data: bytes) -> bytes:
        """Take what belongs to a chunked body; returns what came behind it.

        It ends with an empty line, behind its last chunk or its trailers: so llhttp is fed up to each empty line, and
        says whether that was the end. The last three bytes are carried over for one that is split.
        """
        start = position = len(self.carry)
        text = self.carry + data
        while position < len(text) and not self.complete:
            found = text.find(b"\r\n\r\n", max(0, position - 3))
            end = len(text) if found < 0 else found + 4
            self.parse_body(text[position:end])
            position = end
        self.received += position - start
        if self.received > self.limits.body:
            raise self.too_large()
        self.carry = text[-3:]
        if self.complete:
            self.end_body()
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

    def end_body(self) -> None:
        """The body is whole: put it together."""
        if not self.complete or self.overrun:
            raise RequestError("the end of the request's body cannot be told")
        assert self.request is not None
        self.request.body = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        self.pieces = []
        self.state = WHOLE

    def too_large(self) -> RequestError:
        """The error for a body over the limit."""
        return RequestError(f"the request's body is longer than {self.limits.body} bytes (limits.body)", status=413)


def head_end(data: bytes | bytearray, start: int) -> int:
    """The index behind the empty line that ends a head, or -1. Bare line feeds end it too: llhttp then refuses it."""
    found = data.find(b"\n\r\n", start)
    bare = data.find(b"\n\n", start, found + 1 if found >= 0 else len(data))
    if bare >= 0:
        return bare + 2
    return found + 3 if found >= 0 else -1


def keeps(words: list[bytes], *, http_10: bool) -> bool:
    """Whether a Connection header's words keep the connection."""
    return b"close" not in words and (not http_10 or b"keep-alive" in words)


def version_error(line: bytes) -> RequestError:
    """The error for a first line that does not end in HTTP/1.1 or HTTP/1.0."""
    if OTHER_VERSION.fullmatch(line):
        return RequestError(f"only HTTP/1.1 and HTTP/1.0 are spoken here, not {shown(line.split()[-1])}", status=505)
    return RequestError(f"the request line {shown(line)} is not valid")


def unknown_coding(coding: bytes) -> RequestError:
    """The error for a transfer coding that we cannot undo."""
    return RequestError(f"the transfer coding {shown(coding)} is not known; send `chunked`", status=501)
