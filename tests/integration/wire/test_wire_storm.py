"""Everything at once: clients and engines that do what they like, and nothing that stays behind.

What each of them does comes from a fixed seed; how they meet does not. Only two things are asserted, and they hold for
any order: every fault is one that we know, and in the end nothing is held. A client is then served as ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from bioproxy.config.schema import Limits
from bioproxy.errors import EngineProtocolError, EngineUnavailable
from support.leaks import until
from support.wire_rig import MS, Wire, chunk, client, get, ok, post, proxying

STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = [
    ok(b"x"),
    ok(b"x" * 3_000_000),
    STREAM + chunk(b"data: 1\n\n") * 50 + b"0\r\n\r\n",
    STREAM + chunk(b"half"),
    ok(b"hi")[:-1],
    ok(b"hi") + b"extra",
    b"garbage\r\n\r\n",
    b"",
]
CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"z" * 70_000) + b"0\r\n\r\n"
REQUESTS = [
    get(),
    get() * 3,
    get(b"/", b"Connection: close"),
    post(b"y" * 300_000),
    CHUNKED,
    b"GET / HTTP/1.0\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/2.0\r\n\r\n",
    b"\x16\x03\x01",
]


def moody(dice: random.Random) -> object:
    """An engine that answers well, badly, late or not at all."""

    async def script(wire: Wire) -> None:
        while True:
            await wire.request()
            await asyncio.sleep(dice.choice([0, 0, 5 * MS]))
            answer = dice.choice(ANSWERS)
            cut = dice.randrange(len(answer) + 1)
            await wire.send(answer[:cut], answer[cut:])
            if answer not in ANSWERS[:3]:
                return

    return script


async def visit(port: int, dice: random.Random) -> None:
    """One client: a few requests, some broken off, and a way of leaving."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, RuntimeError):
        async with client(port) as wire:
            for _ in range(dice.randrange(1, 4)):
                raw = dice.choice(REQUESTS)
                cut = dice.randrange(len(raw) + 1)
                await wire.send(raw[:cut], raw[cut:] if dice.random() < 0.8 else b"")
                await asyncio.sleep(dice.choice([0, MS, 10 * MS]))
                await asyncio.wait_for(wire.reader.read(dice.choice([1, 1000, 10_000_000])), 50 * MS)
            getattr(wire, dice.choice(["close", "reset", "end"]))()


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_stays_behind(seed: int) -> None:
    """After a storm of clients and engines no connection and no task is left, and the next good request is served."""
    dice = random.Random(seed)
    limits = Limits(idle_timeout=200 * MS, head_timeout=200 * MS, body_timeout=200 * MS, write_timeout=500 * MS)
    async with proxying(moody(dice), limits=limits) as proxy:  # type: ignore[arg-type]
        for _ in range(5):
            await asyncio.gather(*(visit(proxy.port, dice) for _ in range(25)))
        server, pool = proxy.server.statistics, proxy.pool.statistics
        await until(lambda: not server().running and not server().connections and not pool().active)
        known = (asyncio.CancelledError, EngineProtocolError, EngineUnavailable)
        assert [fault for fault in proxy.faults if not isinstance(fault, known)] == []

        async def well(wire: Wire) -> None:
            await wire.request()
            await wire.send(ok(b"well"))

        proxy.engine.script = well
        proxy.pool.drop_idle()
        async with client(proxy.port) as wire:
            await wire.send(get())
            assert await wire.answer() == (200, b"well")
