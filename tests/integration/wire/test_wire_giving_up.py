"""Whoever asked an engine gives up, at every stage: its connection closes, and none is left over."""

from __future__ import annotations

import asyncio

import pytest

from bioproxy import aio
from bioproxy.wire.engine_connection import Response
from bioproxy.wire.upstream import Pool
from support.leaks import until
from support.wire_rig import Wire, engine, ok


async def ask(pool: Pool, body: bytes = b"") -> Response:
    """One plain request."""
    return await pool.request("POST", b"/a", [], body)


async def polite(wire: Wire) -> None:
    """Answer every request."""
    while True:
        await wire.request()
        await wire.send(ok(b"hi"))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 20", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_cancelled_while_the_answer_is_awaited(answer: bytes) -> None:
    """Whoever gives up waiting closes the connection, so that the engine stops computing."""
    left = asyncio.Event()
    asked = asyncio.Event()

    async def silent(wire: Wire) -> None:
        await wire.head()
        await wire.send(answer)
        asked.set()
        await wire.gone()
        left.set()

    async with engine(silent) as (_, pool):
        waiting = aio.spawn(ask(pool), name="test")
        await asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await left.wait()
        await until(lambda: not pool.statistics().open)


@pytest.mark.parametrize("steps", range(8))
async def test_cancelled_at_every_step_of_a_request(steps: int) -> None:
    """Wherever a cancellation lands, while connecting, sending or waiting: no connection is left over."""
    async with engine(polite) as (_, pool):
        for _ in range(5):
            asking = aio.spawn(ask(pool), name="test")
            for _ in range(steps):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
        await until(lambda: pool.statistics().open == pool.statistics().idle + pool.statistics().active)
        assert await (await ask(pool, b"x")).read()
        pool.drop_idle()


async def test_cancelled_while_reading() -> None:
    """The same in the middle of a body."""
    left = asyncio.Event()

    async def halfway(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        await wire.gone()
        left.set()

    async with engine(halfway) as (_, pool):
        response = await ask(pool)
        reading = aio.spawn(response.read(), name="test")
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await left.wait()
