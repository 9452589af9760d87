"""An engine's bytes mean the same answer however they were split, and damaged ones never a whole other one."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bioproxy.wire.engine_connection import EngineConnection
from bioproxy.wire.upstream import Pool, parse_origin

Outcome = tuple[bool, bool, int, bytes, tuple[tuple[bytes, bytes], ...], bool]


class Transport:
    """Takes what is sent, and closes when it is told to."""

    closing = False

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Shelf(Pool):
    """A pool that only notes what comes back."""

    def __init__(self) -> None:
        super().__init__(parse_origin("http://h:1"))
        self.returned = 0

    def release(self, connection: EngineConnection) -> None:
        self.returned += 1


def receive(pieces: list[bytes], *, head_only: bool) -> Outcome:
    """Feed an answer in pieces, then the end: complete, broken, status, body, headers, used again."""
    pool = Shelf()
    connection = pool.made()
    transport = Transport()
    connection.connection_made(cast("object", transport))  # type: ignore[arg-type]
    response = connection.exchange(b"", b"", head_only=head_only)
    for piece in pieces:
        if not transport.closing:
            connection.data_received(piece)
    if not pool.returned:
        connection.connection_lost(None)
    assert response.complete or response.error is not None
    body = b"".join(response.pieces)
    return (
        response.complete,
        response.error is not None,
        response.status,
        body,
        tuple(response.headers),
        bool(pool.returned) and not transport.closing,
    )


def split(raw: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes in the pieces that these cuts make."""
    places = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return [raw[start:end] for start, end in pairwise(places)]


HEAD = b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\n"
ANSWERS = [
    HEAD + b"Content-Length: 5\r\n\r\nhello",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nTrailer: t\r\n\r\n",
    HEAD + b"\r\nto the end",
    HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" + HEAD + b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 503 Loading\r\nContent-Length: 2\r\n\r\n{}",
]
cuts = st.lists(st.integers(min_value=0, max_value=500), max_size=20)


@given(st.sampled_from(ANSWERS), cuts, st.booleans())
@example(ANSWERS[1], list(range(200)), False)
def test_any_split_gives_the_same_answer(raw: bytes, places: list[int], head_only: bool) -> None:
    """Status, headers, body, end and what becomes of the connection depend on the bytes only."""
    assert receive(split(raw, places), head_only=head_only) == receive([raw], head_only=head_only)


@given(st.sampled_from(ANSWERS), st.integers(min_value=0), st.binary(min_size=1, max_size=3), cuts)
def test_damaged_answers_end_one_way_or_the_other(raw: bytes, where: int, damage: bytes, places: list[int]) -> None:
    """Overwritten bytes give an answer or an error, the same in any split, and no exception gets out."""
    damaged = bytearray(raw)
    where %= len(damaged)
    damaged[where : where + len(damage)] = damage
    whole = receive([bytes(damaged)], head_only=False)
    parts = receive(split(bytes(damaged), places), head_only=False)
    assert parts[:2] == whole[:2]
    if whole[0]:
        assert parts[2:5] == whole[2:5]


@given(st.sampled_from(ANSWERS[:2]), st.data())
def test_truncated_answers_are_never_whole(raw: bytes, data: st.DataObject) -> None:
    """An answer that says its own end and is cut before it is an error."""
    length = data.draw(st.integers(min_value=0, max_value=len(raw) - 1))
    complete, broken, *_ = receive([raw[:length]], head_only=False)
    assert (complete, broken) == (False, True)


@given(st.binary(max_size=200), cuts)
def test_garbage_is_an_error(raw: bytes, places: list[int]) -> None:
    """Bytes that are no HTTP are an error, in any split."""
    if not raw.lstrip().startswith(b"HTTP/"):
        assert receive(split(raw, places), head_only=False)[:2] == (False, True)


@pytest.mark.parametrize("head_only", [False, True])
def test_more_than_was_asked_for_is_no_part_of_the_answer(head_only: bool) -> None:
    """Bytes after an answer, in the same read: the answer is as it was, and the connection is not used again."""
    head = HEAD + b"Content-Length: 5\r\n\r\n"
    surplus = HEAD + b"Content-Length: 5\r\n\r\nother"
    raw = head + surplus if head_only else head + b"hello" + surplus
    complete, broken, status, body, _, used_again = receive([raw], head_only=head_only)
    assert (complete, broken, status, body) == (True, False, 200, b"" if head_only else b"hello")
    assert not used_again
