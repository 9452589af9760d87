"""What a grammar leaves open about a request's head, decided: one meaning, or an error.

llhttp accepts what the grammar allows. These are the places where two readers of the same head can still disagree about
where the message ends, whom it is for or which protocol follows; request smuggling lives there (RFC 9112, 11.2). Each
function looks at the header fields (lower-case name to first value) and either returns the one meaning or raises a
RequestError that says which line is wrong. reader.py calls them in order. Pure.
"""

from __future__ import annotations

import re

from bioproxy.errors import RequestError
from bioproxy.wire.http1.heads import Headers, tokens
from bioproxy.wire.http1.target import shown, valid_host

Fields = dict[bytes, bytes]

ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"upgrade", b"expect"})
REQUEST_LINE = re.compile(rb"[^ \r\n]* [^ \r\n]* HTTP/1\.([01])\r\n")
OTHER_VERSION = re.compile(rb"\S+ \S+ [A-Za-z][A-Za-z0-9+.-]*/\d+(\.\d+)?")
METHOD = re.compile(rb"[A-Z][A-Z0-9_-]*")
CHUNKED = -1  # a body length that only the body itself tells


def is_http_10(head: bytes) -> bool:
    """Whether the request line ends in HTTP/1.0; RequestError for all but 1.0 and 1.1 (other protocols: 505).

    Its three words have one blank between them (RFC 9112, 3). llhttp takes several; a reader that takes each for the
    end of a word finds another target.
    """
    if (good := REQUEST_LINE.match(head)) is not None:
        return good[1] == b"0"
    line = head.partition(b"\r\n")[0]
    if line.endswith((b" HTTP/1.1", b" HTTP/1.0")) and line.count(b" ") > 2:
        raise RequestError(f"the request line {shown(line)} has more than one blank between its parts")
    if OTHER_VERSION.fullmatch(line):
        raise RequestError(f"only HTTP/1.1 and HTTP/1.0 are spoken here, not {shown(line.split()[-1])}", status=505)
    raise RequestError(f"the request line {shown(line)} is not valid")


def unknown_method(head: bytes) -> RequestError:
    """The error for a method that llhttp does not know: 501 for a plausible word, 400 for anything else."""
    word = head.partition(b"\r\n")[0].partition(b" ")[0]
    return RequestError(f"the method {shown(word)} is not known", status=501 if METHOD.fullmatch(word) else 400)


def unknown_coding(coding: bytes) -> RequestError:
    """The error for a transfer coding that we cannot undo."""
    return RequestError(f"the transfer coding {shown(coding)} is not known; send `chunked`", status=501)


def broken_head(error: Exception, fields: Fields, *, http_10: bool) -> RequestError:
    """The error for a head that llhttp refused; it finds unknown codings only after it has called the head complete."""
    coding = fields.get(b"transfer-encoding", b"chunked")
    if coding.lower() != b"chunked" and not http_10 and b"content-length" not in fields:
        return unknown_coding(coding)
    return RequestError(f"the request's head is not valid HTTP: {error}")


def check_repeated(headers: Headers) -> None:
    """RequestError if a header that may be there only once is there again."""
    names = [name.lower() for name, _ in headers]
    twice = [name for name in sorted(ONCE) if names.count(name) > 1]
    if twice:
        raise RequestError(f"the header {twice[0].decode('ascii')} stands there more than once")


def check_host(fields: Fields, *, http_10: bool) -> None:
    """RequestError unless there is a Host that names a host; only HTTP/1.0 may do without."""
    host = fields.get(b"host")
    if host is None:
        if not http_10:
            raise RequestError("the request has no Host header")
    elif not valid_host(host):
        raise RequestError(f"the Host header {shown(host)} names no host")


def keeps_alive(values: list[bytes], *, http_10: bool) -> bool:
    """Whether the client will use the connection again, by all its Connection headers."""
    words = tokens(b",".join(values))
    return b"close" not in words and (not http_10 or b"keep-alive" in words)


def body_length(fields: Fields, *, http_10: bool, limit: int) -> int:
    """The body's length in bytes, or CHUNKED; 413 for more than `limit`."""
    coding = fields.get(b"transfer-encoding")
    length = fields.get(b"content-length")
    if coding is None:
        if length is None:
            return 0
        size = int(length)
        if size > limit:
            raise too_large(limit)
        return size
    if http_10:
        raise RequestError("HTTP/1.0 knows no Transfer-Encoding")
    if length is not None:
        raise RequestError("the request has both Content-Length and Transfer-Encoding")
    if coding.lower() != b"chunked":
        raise unknown_coding(coding)
    return CHUNKED


def expects_continue(fields: Fields, *, http_10: bool) -> bool:
    """Whether the client waits for a 100 before it sends the body; 417 for any other expectation."""
    expect = fields.get(b"expect")
    if expect is None or http_10:
        return False
    if expect.lower() != b"100-continue":
        raise RequestError(f"the expectation {shown(expect)} cannot be met", status=417)
    return True


def wants_websocket(fields: Fields, method: bytes, *, http_10: bool) -> bool:
    """Whether an upgrade that llhttp found is one that we pass on: a websocket's, without a body."""
    if http_10 or method != b"GET" or fields.get(b"upgrade", b"").lower() != b"websocket":
        return False
    return fields.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in fields


def too_large(limit: int) -> RequestError:
    """The error for a body over the limit."""
    return RequestError(f"the request's body is longer than {limit} bytes (limits.body)", status=413)
