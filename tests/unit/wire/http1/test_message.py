"""How an answer is framed for whoever reads it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bioproxy.wire.http1.message import Headers, Request, Responder, Source

OLD = b"HTTP/1.0"


class Recorder:
    """Stands for the connection: remembers what was written, and how it ended."""

    def __init__(self) -> None:
        self.keep = True
        self.sent = b""
        self.cuts: list[bool] = []

    def write(self, data: bytes) -> None:
        self.sent += data

    async def drain(self) -> None:
        return None

    def cut(self, *, reset: bool = False) -> None:
        self.cuts.append(reset)

    def take_from(self, source: Source | None) -> None: ...

    def tunnel_to(self, receive: Callable[[bytes], None]) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


def answering(method: str = "GET", *, http_10: bool = False) -> tuple[Recorder, Responder]:
    """A recorder and the responder of one request."""
    recorder = Recorder()
    return recorder, Responder(recorder, Request(method, b"/", path="/", headers=[], fields={}, http_10=http_10))


def test_whole_answer() -> None:
    """A whole answer has its length; framing headers of the caller's are not sent."""
    recorder, responder = answering()
    responder.send(200, [(b"A", b"b"), (b"Content-Length", b"99"), (b"Transfer-Encoding", b"chunked")], b"hi")
    assert recorder.sent == b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\nhi"
    assert (responder.started, responder.finished, responder.status, responder.bytes_out) == (True, True, 200, 2)


def test_long_answer_is_not_copied_into_one_piece() -> None:
    """A long body is written as it is, behind its head."""
    recorder, responder = answering()
    responder.send(200, [], b"x" * 100_000)
    assert recorder.sent.endswith(b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000)


def test_chunks() -> None:
    """Pieces become chunks, empty pieces nothing, the end the last chunk, once."""
    recorder, responder = answering()
    responder.start(200, [], length=None)
    for piece in (b"a" * 10, b"", b"b"):
        responder.write(piece)
    responder.finish()
    responder.finish()
    responder.write(b"late")
    assert recorder.sent.endswith(b"Transfer-Encoding: chunked\r\n\r\na\r\naaaaaaaaaa\r\n1\r\nb\r\n0\r\n\r\n")
    assert responder.bytes_out == 11


@pytest.mark.parametrize(
    ("data", "last", "framed"),
    [
        (b"", False, b""),
        (b"", True, b"0\r\n\r\n"),
        (b"ab", False, b"2\r\nab\r\n"),
        (b"ab", True, b"2\r\nab\r\n0\r\n\r\n"),
    ],
)
def test_last_piece_and_end_in_one(data: bytes, last: bool, framed: bytes) -> None:
    """The last bytes and the end can go out together."""
    _, responder = answering()
    responder.start(200, [], length=None)
    assert responder.frame(data, last=last) == framed


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_no_body_where_there_is_none(method: str, status: int) -> None:
    """What cannot have a body gets none, and no chunks, whatever the handler writes."""
    recorder, responder = answering(method)
    responder.start(status, [], length=None)
    responder.write(b"body")
    responder.finish()
    assert recorder.sent.endswith(b"\r\n\r\n")
    assert b"body" not in recorder.sent
    assert b"chunked" not in recorder.sent
    assert recorder.keep


def test_more_than_announced_is_a_bug() -> None:
    """Bytes over the announced length would be read as the next answer: they are never sent."""
    recorder, responder = answering()
    responder.start(200, [], length=3)
    with pytest.raises(ValueError, match="1 bytes longer"):
        responder.write(b"four")
    assert recorder.sent.endswith(b"\r\n\r\n")


def test_less_than_announced_is_cut() -> None:
    """An answer that ends too early is cut by `finish`, and the connection is not used again."""
    recorder, responder = answering()
    responder.start(200, [], length=3)
    responder.write(b"ab")
    responder.finish()
    assert recorder.cuts == [False]
    assert not recorder.keep


def test_until_close_is_reset_when_cut() -> None:
    """Where the end of the connection is the end of the answer, cutting must look different."""
    recorder, responder = answering(http_10=True)
    responder.start(200, [], length=None)
    responder.abort()
    responder.abort()
    assert recorder.cuts == [True]
    assert b"Connection: close" in recorder.sent


def test_second_head_is_a_bug() -> None:
    """An answer has one head."""
    _, responder = answering()
    responder.send(200, [])
    with pytest.raises(RuntimeError, match="status 200 has begun"):
        responder.send(500, [])


def test_line_ends_in_headers_are_a_bug() -> None:
    """A header of ours that would begin another one is not sent."""
    recorder, responder = answering()
    with pytest.raises(ValueError, match="line end"):
        responder.send(200, [(b"X", b"a\r\nSet-Cookie: b")])
    assert recorder.sent == b""
    assert not responder.started


class Shouting:
    """A rewriter: capitals, as they come or (`streams` False) once all is here, with another status."""

    status = 207

    def __init__(self, *, streams: bool) -> None:
        self.streams = streams
        self.kept = b""

    def begin(self, status: int, headers: Headers) -> tuple[Headers, bool]:
        """Another kind of content."""
        self.kept = b""
        return [(b"Content-Type", b"loud/%d" % status)], self.streams

    def feed(self, data: bytes) -> bytes:
        """Now, or later."""
        if self.streams:
            return data.upper()
        self.kept += data
        return b""

    def end(self) -> bytes:
        """A mark, or everything."""
        return b"!" if self.streams else self.kept.upper()


@pytest.mark.parametrize("ends", ["finish", "last piece"])
@pytest.mark.parametrize("http_10", [False, True])
def test_another_answer_as_it_comes(ends: str, http_10: bool) -> None:
    """Its length is not known, whatever the first answer's was."""
    recorder, responder = answering("POST", http_10=http_10)
    responder.rewriter = Shouting(streams=True)
    responder.start(200, [(b"Content-Type", b"text/plain")], length=5)
    responder.write(b"ab")
    if ends == "finish":
        responder.write(b"c")
        responder.finish()
    else:
        recorder.write(responder.frame(b"c", last=True))
    head, _, body = recorder.sent.partition(b"\r\n\r\n")
    assert b"Content-Type: loud/200" in head
    assert b"Content-Length" not in head
    assert body.replace(b"\r\n", b"").translate(None, b"0123456789") == b"ABC!"
    assert responder.bytes_out == 4


def test_another_answer_once_it_is_whole() -> None:
    """Nothing is out before, so an error still gets a status; then it has its length and a status of its own."""
    recorder, responder = answering("POST")
    responder.rewriter = Shouting(streams=False)
    responder.start(200, [(b"Content-Type", b"text/plain")], length=9)
    responder.write(b"half an ")
    assert (recorder.sent, responder.started) == (b"", False)
    responder.send(502, [], b"error")
    assert recorder.sent == (b"HTTP/1.1 207 Multi-Status\r\nContent-Type: loud/502\r\nContent-Length: 5\r\n\r\nERROR")
    assert responder.finished
