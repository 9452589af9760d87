"""Opening a compressed request body without holding up the others."""

from __future__ import annotations

import asyncio
import gzip
import random
import threading
from collections.abc import Callable, Iterator

import pytest

from bioproxy.aio import spawn
from bioproxy.front.ways import SMALL, unpack
from bioproxy.wire import coding
from bioproxy.wire.coding import BLOCK
from bioproxy.wire.http1.message import Request

NOISE = random.Random(2).randbytes(SMALL)


def request(body: bytes) -> Request:
    headers = [(b"Content-Encoding", b"gzip"), (b"Repr-Digest", b"x"), (b"Content-Type", b"application/json")]
    fields = {name.lower(): value for name, value in headers}
    return Request("POST", b"/x", path="/x", headers=headers, fields=fields, body=body)


async def opened(request: Request, *, limit: int = 1 << 20) -> None:
    await unpack(request, limit=limit, turn=asyncio.Semaphore(1))


async def test_the_words_about_a_coding_go_with_it() -> None:
    """A digest of the compressed bytes would be wrong of the plain ones."""
    one = request(gzip.compress(b"{}"))
    await opened(one)
    assert (one.body, one.headers) == (b"{}", [(b"Content-Type", b"application/json")])
    assert one.fields == {b"content-type": b"application/json"}


async def test_nothing_compressed_is_nothing() -> None:
    """A GET may carry the header all the same."""
    one = request(b"")
    await opened(one)
    assert one.body == b""


@pytest.mark.parametrize(("body", "elsewhere"), [(b"x" * 100, False), (b"x" * (9 * BLOCK), True), (NOISE * 2, True)])
async def test_what_takes_longer_is_opened_in_a_thread(
    body: bytes, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is long, or only becomes so."""
    threads: list[int] = []
    real: Callable[..., Iterator[bytes]] = coding.plain

    def watched(*given: object, **named: object) -> Iterator[bytes]:
        for block in real(*given, **named):
            threads.append(threading.get_ident())
            yield block

    monkeypatch.setattr(coding, "plain", watched)
    one = request(gzip.compress(body))
    await opened(one)
    assert one.body == body
    assert (threads[-1] != threading.get_ident()) is elsewhere


async def test_a_client_that_leaves_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its body is opened a few blocks at a time."""
    begun, made = asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def endless(*_given: object, **_named: object) -> Iterator[bytes]:
        while True:
            made.append(1)
            loop.call_soon_threadsafe(begun.set)
            yield b"x"

    monkeypatch.setattr(coding, "plain", endless)
    turn = asyncio.Semaphore(1)
    task = spawn(unpack(request(NOISE * 2), limit=1, turn=turn), name="unpack")
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not turn.locked()
