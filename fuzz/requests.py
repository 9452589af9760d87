"""Our request reader beside h11: of what we accept, h11 reads the same requests, however the bytes were cut.

Where we are stricter nothing is said. Smuggling is made of requests that two readers read in two ways, not of those
that one of them refuses.
"""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import NamedTuple
from urllib.parse import urlsplit

import h11

from bioproxy.config.schema import Limits
from bioproxy.errors import RequestError
from bioproxy.wire.http1.message import Request
from bioproxy.wire.http1.reader import RequestReader

LIMITS = Limits(head=8 << 10, body=64 << 10)
MOST = 4  # requests of one input that are compared
WORDS = (
    *(bytes([one]) for one in b" \t\r\n:,;\0\x0b\x7f\xff+-0%/?#@"),
    b"\r\n", b"\r\n ", b"\n ", b"\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"5;a=b\r\nhello\r\n", b"0x5", b"00000005",
    b"Host: h\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"content-length:5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"transfer-encoding:chunked\r\n", b"chunked",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n", b"Trailer: x\r\n", b" HTTP/1.0\r\n", b" HTTP/1.1\r\n", b"HTTP/2.0", b"GET ", b"POST ",
    b"HEAD ", b"OPTIONS * ", b"http://other/", b"//", b"%2e%2e/", b"%00", b"99999999999999999999",
)  # fmt: skip


def check(data: bytes, random: Random) -> str:
    """`refused`, `incomplete` or `read`; AssertionError if ours and theirs are not the same."""
    ours, ended = read(data)
    middle = random.randint(0, len(data))
    apart, _ = read(data[:middle], data[middle:])
    assert seen(apart) == seen(ours), f"cut at {middle} they are other requests"
    if not ours:
        return ended
    theirs = as_h11_reads(data, len(ours))
    assert len(theirs) == len(ours), f"we read {len(ours)} requests, h11 {len(theirs)}: {theirs}"
    for mine, other in zip(ours, theirs, strict=True):
        assert (ours_is := compared(mine, other.stays)) == (theirs_is := expected(mine, other)), (ours_is, theirs_is)
    return "read"


def read(*pieces: bytes) -> tuple[list[Request], str]:
    """The requests that we read, and how it ended: `refused` or `incomplete`."""
    reader, found = RequestReader(LIMITS), list[Request]()
    try:
        for piece in pieces:
            request = reader.feed(piece, 1.0)
            while request is not None and len(found) < MOST:
                found.append(request)
                if not request.keep_alive or request.upgrade:
                    return found, "read"
                reader.restart()
                request = reader.feed(b"", 1.0)
    except RequestError:
        return found, "refused"
    return found, "incomplete"


def seen(requests: list[Request]) -> list[tuple[object, ...]]:
    return [(one.method, one.target, one.headers, one.body, one.keep_alive, one.upgrade) for one in requests]


class Theirs(NamedTuple):
    """A request as h11 has it; `stays`: its client keeps the connection.

    None: that depends on our answer to its upgrade, or it is an old client, for which h11 always closes.
    """

    event: h11.Request
    body: bytes
    stays: bool | None


def as_h11_reads(data: bytes, most: int) -> list[Theirs]:
    """The requests that h11 reads, `most` at most: as many as it reads without an error.

    Each by a connection of its own, because one empty line may stand before each (RFC 9112, 2.2), which h11 refuses.
    """
    found = list[Theirs]()
    with suppress(h11.RemoteProtocolError):
        while len(found) < most:
            connection = h11.Connection(h11.SERVER)
            connection.receive_data(data.removeprefix(b"\r\n"))
            event, body = connection.next_event(), b""
            if not isinstance(event, h11.Request):
                break
            while isinstance(more := connection.next_event(), h11.Data):
                body += bytes(more.data)
            if not isinstance(more, h11.EndOfMessage):
                break
            told = event.http_version == b"1.1" and connection.their_state in {h11.DONE, h11.MUST_CLOSE}
            found.append(Theirs(event, body, connection.their_state is h11.DONE if told else None))
            data, _ = connection.trailing_data
    return found


def compared(request: Request, stays: bool | None) -> tuple[object, ...]:
    keeps = None if stays is None else request.keep_alive
    return request.method, request.target, lower(request.headers), request.body, keeps


def expected(mine: Request, theirs: Theirs) -> tuple[object, ...]:
    """What ours must be like: a target with a host is taken apart, and an upgrade that is not granted is taken out."""
    event = theirs.event
    target, headers = bytes(event.target), [(bytes(name), bytes(value)) for name, value in event.headers]
    if target.lower().startswith((b"http://", b"https://")):
        split = urlsplit(target)
        target = (split.path or b"/") + (b"?" + split.query if b"?" in target else b"")
        headers = [(b"host", split.netloc), *(pair for pair in headers if pair[0] != b"host")]
    if not mine.upgrade:
        headers = [pair for pair in headers if pair[0] != b"upgrade"]
    return event.method.decode(), target, lower(headers), theirs.body, theirs.stays


def lower(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers for a comparison: names, and the one value that h11 writes anew, in lower case."""
    return [(name.lower(), value.lower() if name.lower() == b"transfer-encoding" else value) for name, value in headers]
