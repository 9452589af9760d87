"""From bytes to requests: the same bytes give the same requests, and what has two meanings has none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

import h11
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bioproxy.config.schema import Limits
from bioproxy.errors import RequestError
from bioproxy.wire.http1.judge import is_http_10
from bioproxy.wire.http1.message import Request
from bioproxy.wire.http1.reader import RequestReader
from bioproxy.wire.http1.target import shown

Outcome = tuple[list[tuple[object, ...]], int]  # the requests, and the status of the error behind them (0: none)

SMALL = Limits(head=2048, body=10_000)


def seen(request: Request) -> tuple[object, ...]:
    """What a handler could see of a request."""
    return (
        request.method,
        request.target,
        request.path,
        tuple(request.headers),
        request.body,
        request.http_10,
        request.keep_alive,
        request.upgrade,
    )


def read(pieces: list[bytes], limits: Limits = SMALL) -> Outcome:
    """Feed pieces to one reader as a connection does, and note what comes out."""
    reader = RequestReader(limits, "127.0.0.1")
    requests: list[tuple[object, ...]] = []
    try:
        for piece in pieces:
            request = reader.feed(piece, 1.0)
            while request is not None:
                requests.append(seen(request))
                if not request.keep_alive or request.upgrade:
                    return requests, 0
                reader.restart()
                request = reader.feed(b"", 1.0)
    except RequestError as error:
        return requests, error.status
    return requests, 0


def one(raw: bytes, limits: Limits = SMALL) -> Request:
    """The one request in `raw`."""
    request = RequestReader(limits).feed(raw, 1.0)
    assert request is not None
    return request


def head(*lines: bytes, method: bytes = b"POST", version: bytes = b"HTTP/1.1") -> bytes:
    """A head with a Host and these lines."""
    return b"\r\n".join([method + b" /a " + version, b"Host: h", *lines, b"", b""])


GET = b"GET /a?b=c HTTP/1.1\r\nHost: h\r\nX-A: b\r\n\r\n"
SIZED = head(b"Content-Length: 5") + b"hello"
CHUNKS = head(b"Transfer-Encoding: chunked") + b"5;x=y\r\nhello\r\n6\r\n\r\n\r\n00\r\n0\r\nTrailer: t\r\n\r\n"
SOCKET = head(b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", method=b"GET")
H2C = (
    head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: A", b"Content-Length: 5") + b"hello"
)
OLD = b"GET /old HTTP/1.0\r\n\r\n"
STAYS = b"GET /old HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
ABSOLUTE = b"GET http://other:1/x HTTP/1.1\r\nX: y\r\nHost: h\r\n\r\n"
GOOD = [GET, SIZED, CHUNKS, H2C, STAYS, ABSOLUTE, b"\r\n" + GET]

BAD: list[tuple[int, bytes]] = [
    (400, head(b"Content-Length: 3", b"Content-Length: 3") + b"abc"),
    (400, head(b"Content-Length: 3", b"Content-Length: 4") + b"abc"),
    (400, head(b"Content-Length: 3, 3") + b"abc"),
    (400, head(b"Content-Length: +3") + b"abc"),
    (400, head(b"Content-Length: 0x3") + b"abc"),
    (400, head(b"Content-Length: -1") + b"abc"),
    (400, head(b"Content-Length:") + b"abc"),
    (400, head(b"Content-Length: 1 1") + b"abc"),
    (400, head(b"Content-Length: 99999999999999999999999") + b"abc"),
    (400, head(b"Content-Length: 3", b"Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    (400, head(b"Transfer-Encoding: chunked", b"Content-Length: 3") + b"0\r\n\r\n"),
    (400, head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    (400, head(b"Transfer-Encoding: chunked", version=b"HTTP/1.0") + b"0\r\n\r\n"),
    (400, head(b"Transfer-Encoding: gzip", version=b"HTTP/1.0") + b"0\r\n\r\n"),
    (400, head(b"Transfer-Encoding : chunked") + b"0\r\n\r\n"),
    (400, head(b"Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n"),
    (400, head(b"Transfer-Encoding:\x0bchunked") + b"0\r\n\r\n"),
    (501, head(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
    (501, head(b"Transfer-Encoding: gzip") + b"0\r\n\r\n"),
    (501, head(b"Transfer-Encoding: identity") + b"0\r\n\r\n"),
    (501, head(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n"),
    (400, head(b"X: a", b" folded")),
    (400, head(b"X: a", b"\tfolded")),
    (400, head(b" X: a")),
    (400, head(b"X : a")),
    (400, head(b"X: a\x00b")),
    (400, head(b"X: a\rb")),
    (400, head(b"X\x00: a")),
    (400, head(b": a")),
    (400, head(b"no colon")),
    (400, b"GET / HTTP/1.1\nHost: h\n\n"),
    (400, b"GET / HTTP/1.1\r\nHost: h\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: h\r\n\n"),
    (400, b"GET / HTTP/1.1\r\n\r\n"),
    (400, head(b"Host: i")),
    (400, head(b"Host: h")),
    (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: u@h\r\n\r\n"),
    (400, b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"GET /a\x01 HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"GET /%2e%2e/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"GET * HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"GET a HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"GET /\r\nHost: h\r\n\r\n"),
    (400, b"GET / x HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"GET /  HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"GET  /  HTTP/1.0\r\n\r\n"),
    (400, b"OPTIONS  * HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"GET   http://h/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"GET /\tHTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
    (400, b"GET / HTTP/1.1\t\r\nHost: h\r\n\r\n"),
    (400, b"GET /a\rb HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"GET / HTTP/1.1\rHost: h\r\n\r\n"),
    (400, head(b"X\t: a")),
    (400, head(b"X Y: a")),
    (400, head(b"X: a\r")),
    (400, head(b"\rX: a")),
    (400, head(b"X: a\x0bb")),
    (400, head(b"Transfer-Encoding : chunked") + b"0\r\n\r\n"),
    (400, head(b"Content-Length:", b" 3") + b"abc"),
    (505, b"GET / HTTP/2.0\r\nHost: h\r\n\r\n"),
    (505, b"GET / HTTP/0.9\r\nHost: h\r\n\r\n"),
    (505, b"GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
    (505, b"GET / RTSP/1.0\r\nHost: h\r\n\r\n"),
    (505, b"SOURCE / ICE/1.0\r\nHost: h\r\n\r\n"),
    (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (405, b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n"),
    (501, b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"get / HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    (400, b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b" GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    (400, b"\n"),
    (417, head(b"Expect: tea", b"Content-Length: 1") + b"a"),
    (400, head(b"Expect: 100-continue", b"Expect: 100-continue", b"Content-Length: 1") + b"a"),
    (413, head(b"Content-Length: 10001")),
    (431, head(b"X: " + b"a" * 2048)),
    (431, b"GET /" + b"a" * 3000),
    (400, head(b"Transfer-Encoding: chunked") + b"x\r\n"),
    (400, head(b"Transfer-Encoding: chunked") + b"0x5\r\nhello\r\n0\r\n\r\n"),
    (400, head(b"Transfer-Encoding: chunked") + b" 5\r\nhello\r\n0\r\n\r\n"),
    (400, head(b"Transfer-Encoding: chunked") + b"5 \r\nhello\r\n0\r\n\r\n"),
    (400, head(b"Transfer-Encoding: chunked") + b"-5\r\nhello\r\n0\r\n\r\n"),
    (400, head(b"Transfer-Encoding: chunked") + b"5\nhello\r\n0\r\n\r\n"),
    (400, head(b"Transfer-Encoding: chunked") + b"5\r\nhello\n0\r\n\r\n"),
    (400, head(b"Transfer-Encoding: chunked") + b"5\r\nhelloo\r\n0\r\n\r\n"),
    (400, head(b"Transfer-Encoding: chunked") + b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    (400, head(b"Transfer-Encoding: chunked") + b"5;\x00\r\nhello\r\n0\r\n\r\n"),
    (400, head(b"Transfer-Encoding: chunked") + b"0\r\nX : y\r\n\r\n"),
]


@pytest.mark.parametrize(("status", "raw"), BAD)
def test_refused(status: int, raw: bytes) -> None:
    """Each of these is an error with this status, and what comes behind it is never read."""
    assert read([raw + GET]) == ([], status)
    assert read([GET, raw, GET]) == ([seen(one(GET))], status)


@pytest.mark.parametrize(("status", "raw"), BAD)
def test_refused_byte_by_byte(status: int, raw: bytes) -> None:
    """They are the same errors when every byte comes alone."""
    assert read([bytes([byte]) for byte in raw]) == ([], status)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"GET  / HTTP/1.1", "has more than one blank between its parts"),
        (b"GET / x HTTP/1.0", "has more than one blank between its parts"),
        (b"GET /\nx HTTP/1.1", "is not valid"),
        (b"GET /\rx HTTP/1.0", "is not valid"),
        (b"GET HTTP/1.1", "is not valid"),
    ],
)
def test_what_is_wrong_with_a_request_line(line: bytes, words: str) -> None:
    """Too many blanks are told from any other fault."""
    with pytest.raises(RequestError, match=re.escape(f"the request line {shown(line)} {words}")):
        is_http_10(line + b"\r\nHost: h\r\n\r\n")


def test_a_client_that_speaks_tls_is_told_so() -> None:
    """In the log, that is: the client itself shows what its TLS makes of our answer."""
    with pytest.raises(RequestError, match=r"^the client speaks TLS \(https://\), and here it is plain HTTP"):
        RequestReader(Limits()).feed(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 0.0)


def as_h11_reads(raw: bytes) -> object:
    """Method, target, headers and body as another reader has them, which takes no request for another; or its error."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    try:
        event, body = connection.next_event(), b""
        if not isinstance(event, h11.Request):
            return event
        while isinstance(data := connection.next_event(), h11.Data):
            body += bytes(data.data)
    except h11.RemoteProtocolError as error:
        return error
    return event.method.decode(), bytes(event.target), lower(event.headers), body


def lower(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers for a comparison: names, and the one value that h11 writes anew, in lower case."""
    return [
        (name.lower(), value.lower() if name.lower() == b"transfer-encoding" else bytes(value))
        for name, value in headers
    ]


SOUND = [
    b"GET /x?a=b HTTP/1.1\r\nHost: h\r\nX-Y: a b\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nX: \r\n\r\nabc",
    b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: u\r\n\r\n",
    b"GET /x HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
]
SPOILT = [
    b" ",
    b"\t",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n ",
    b"\n ",
    b":",
    b",",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b"0",
    b"+",
    b";",
]


@example(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n", [(3, b" ")])
@given(st.sampled_from(SOUND), st.lists(st.tuples(st.integers(0, 110), st.sampled_from(SPOILT)), max_size=3))
def test_what_is_read_is_what_h11_reads(raw: bytes, spoilt: list[tuple[int, bytes]]) -> None:
    """Whatever blank, line end or control byte stands wherever: another request than theirs is never made of it."""
    for place, more in spoilt:
        raw = raw[:place] + more + raw[place:]
    try:
        request = RequestReader(SMALL).feed(raw, 1.0)
    except RequestError:
        return  # we may be stricter
    if request is not None:
        mine = request.method, request.target, lower(request.headers), request.body
        assert as_h11_reads(raw.removeprefix(b"\r\n")) == mine  # RFC 9112, 2.2: one empty line may come first


def test_plain_request() -> None:
    """A request is what its bytes say, headers in their order and case."""
    request = one(GET)
    assert (request.method, request.target, request.path) == ("GET", b"/a?b=c", "/a")
    assert request.headers == [(b"Host", b"h"), (b"X-A", b"b")]
    assert request.header(b"x-a") == b"b"
    assert request.header(b"x-b") is None
    assert request.query == [("b", "c")]
    assert (request.body, request.http_10, request.keep_alive, request.upgrade) == (b"", False, True, False)
    assert "GET /a" in repr(request)


def test_chunked_body_without_its_framing() -> None:
    """Chunks are put together, extensions and trailers are dropped, an empty line within a chunk is content."""
    request = one(CHUNKS)
    assert request.body == b"hello\r\n\r\n00"
    assert request.header(b"trailer") is None


def test_values_end_before_blanks() -> None:
    """Blanks around a value do not belong to it."""
    request = one(head(b"Transfer-Encoding: \t chunked", b"X:  a b \t") + b"0\r\n\r\n")
    assert request.header(b"x") == b"a b"
    assert request.body == b""


def test_absolute_form_names_the_host() -> None:
    """A target with a host is rewritten, and its host takes the place of the header's."""
    request = one(ABSOLUTE)
    assert request.target == b"/x"
    assert request.headers == [(b"Host", b"other:1"), (b"X", b"y")]
    assert request.header(b"host") == b"other:1"


def test_websocket_is_let_through() -> None:
    """A websocket's upgrade is marked, and the bytes behind it are kept for the tunnel."""
    reader = RequestReader(SMALL)
    request = reader.feed(SOCKET + b"frame", 1.0)
    assert request is not None
    assert request.upgrade
    assert request.header(b"upgrade") == b"websocket"
    assert bytes(reader.kept) == b"frame"


@pytest.mark.parametrize(
    "raw",
    [
        H2C,
        head(b"Upgrade: websocket", b"Content-Length: 5") + b"hello",
        head(b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 5", method=b"GET") + b"hello",
        head(b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 5") + b"hello",
        head(b"Connection: upgrade", b"upgrade: x", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
        head(b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 5", version=b"HTTP/1.0") + b"hello",
    ],
)
def test_other_upgrades_are_ordinary_requests(raw: bytes) -> None:
    """Any other upgrade is ignored: the body is read, and the header does not reach the engine."""
    request = one(raw)
    assert (request.upgrade, request.body, request.header(b"upgrade")) == (False, b"hello", None)
    assert all(name.lower() != b"upgrade" for name, _ in request.headers)
    if request.keep_alive:
        assert read([raw + GET + raw])[0][1] == seen(one(GET))


@pytest.mark.parametrize(
    ("raw", "stays"),
    [
        (GET, True),
        (LAST, False),
        (OLD, False),
        (STAYS, True),
        (head(b"Connection: x", b"Connection: Close"), False),
        (head(b"Connection: keep-alive, close"), False),
        (head(b"Connection: keep-alive, x", version=b"HTTP/1.0"), True),
    ],
)
def test_who_keeps_the_connection(raw: bytes, stays: bool) -> None:
    """HTTP/1.1 keeps it unless told otherwise, HTTP/1.0 only when asked; all Connection headers count."""
    assert one(raw).keep_alive is stays


def test_expectation_is_told_while_the_body_is_missing() -> None:
    """A client that waits for a 100 is noticed when its head is in."""
    reader = RequestReader(SMALL)
    assert reader.feed(head(b"Expect: 100-Continue", b"Content-Length: 1"), 1.0) is None
    assert reader.expects


def test_body_of_exactly_the_limit() -> None:
    """The limit itself is allowed; one byte more is not, whether it was announced or not."""
    limits = msgspec.structs.replace(SMALL, body=20)
    assert one(head(b"Content-Length: 20") + b"a" * 20, limits).body == b"a" * 20
    assert read([head(b"Content-Length: 21")], limits) == ([], 413)
    chunked = head(b"Transfer-Encoding: chunked")
    assert one(chunked + b"a\r\n" + b"a" * 10 + b"\r\n0\r\n\r\n", limits).body == b"a" * 10
    assert read([chunked + b"b\r\n" + b"a" * 11 + b"\r\n0\r\n\r\n" + GET], limits) == ([], 413)


def test_head_of_exactly_the_limit() -> None:
    """The same for heads, in one piece or in many."""
    fits = head(b"X: " + b"a" * (2048 - len(head(b"X: "))))
    assert len(fits) == 2048
    for pieces in ([fits], [fits[:100], fits[100:]], [fits[:-1], fits[-1:]]):
        assert len(read(pieces)[0]) == 1
    longer = fits.replace(b"X: ", b"X: a")
    for pieces in ([longer], [longer[:100], longer[100:]], [longer[:-1], longer[-1:]]):
        assert read(pieces) == ([], 431)


@pytest.mark.parametrize("filler", [b"5;" + b"x" * 3000, b"0\r\nX: " + b"y" * 3000])
def test_framing_without_content_is_bounded(filler: bytes) -> None:
    """Endless extensions and trailers are refused at the head's limit, long before the body's."""
    pieces = [filler[index : index + 500] for index in range(0, len(filler), 500)]
    assert read([head(b"Transfer-Encoding: chunked"), *pieces]) == ([], 400)


def test_head_in_tiny_pieces_costs_little() -> None:
    """A head that comes byte by byte is searched once: llhttp is called for the whole head only."""
    reader = RequestReader(Limits())
    raw = head(b"X: " + b"a" * 50_000)
    for byte in raw[:-1]:
        assert reader.feed(bytes([byte]), 1.0) is None
    assert (reader.url, reader.headers) == (b"", [])
    assert reader.feed(raw[-1:], 1.0) is not None


def test_arrival_is_the_first_byte_of_the_head() -> None:
    """A request that came in pieces arrived with its first one."""
    reader = RequestReader(SMALL)
    reader.feed(GET[:5], 1.0)
    request = reader.feed(GET[5:], 9.0)
    assert request is not None
    assert request.arrived == 1.0


def test_what_is_kept_behind_a_request_is_bounded() -> None:
    """64 KiB may wait behind a request that is being served."""
    reader = RequestReader(SMALL)
    reader.feed(GET, 1.0)
    assert reader.keep(b"a" * (64 << 10))
    assert not reader.keep(b"a")


def split(raw: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes in the pieces that these cuts make."""
    places = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return [raw[start:end] for start, end in pairwise(places)]


streams = st.lists(st.sampled_from([*GOOD, LAST, OLD, SOCKET, *(raw for _, raw in BAD)]), min_size=1, max_size=5)
cuts = st.lists(st.integers(min_value=0, max_value=5000), max_size=30)


@given(streams, cuts)
@example([CHUNKS, GET], list(range(300)))
@example([CHUNKS, CHUNKS], [len(CHUNKS) - 1])
def test_any_split_gives_the_same_requests(messages: list[bytes], places: list[int]) -> None:
    """How bytes were split on the way changes nothing about what they mean."""
    raw = b"".join(messages)
    assert read(split(raw, places)) == read([raw])


@given(streams, st.integers(min_value=0), st.binary(min_size=1, max_size=3), cuts)
def test_damaged_bytes_mean_the_same_in_any_split(
    messages: list[bytes], where: int, damage: bytes, places: list[int]
) -> None:
    """Nor does it when bytes are overwritten at random: no other exception, and the same outcome."""
    raw = bytearray(b"".join(messages))
    where %= len(raw)
    raw[where : where + len(damage)] = damage
    whole = read([bytes(raw)])
    assert read(split(bytes(raw), places)) == whole


@given(st.binary(max_size=300), cuts)
def test_garbage_is_refused_alike(raw: bytes, places: list[int]) -> None:
    """Bytes that are nothing at all are refused, in any split."""
    assert read(split(raw, places)) == read([raw])


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=6), cuts)
def test_chunked_bodies_come_back(chunks: list[bytes], places: list[int]) -> None:
    """Whatever is in the chunks is the body, and the next request begins right behind it."""
    framed = b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    requests, status = read(split(head(b"Transfer-Encoding: chunked") + framed + GET, places))
    assert status == 0
    assert [request[4] for request in requests] == [b"".join(chunks), b""]
