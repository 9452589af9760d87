"""Websockets: after the 101 bytes go both ways, and nothing looks at them."""

from __future__ import annotations

import asyncio

import pytest

from bioproxy import aio
from support.leaks import until
from support.wire_rig import Wire, client, get, ok, proxying

ASKED = get(b"/ws", b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket", b"Sec-WebSocket-Key: k")
SWITCH = b"HTTP/1.1 101 Switch\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\n"


async def echo(wire: Wire) -> None:
    """Switch, greet in the same packet, and send back what comes."""
    head = await wire.head()
    assert b"\r\nSec-WebSocket-Key: k\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n" in head
    await wire.send(SWITCH + b"hello")
    while data := await wire.reader.read(1 << 16):
        await wire.send(data)


async def test_bytes_go_both_ways() -> None:
    """What either side sends reaches the other, also what came before the switch and with it."""
    async with proxying(echo) as proxy, client(proxy.port) as wire:
        await wire.send(ASKED + b"early")
        head = await wire.head()
        assert head.startswith(b"HTTP/1.1 101 Switch\r\nSec-WebSocket-Accept: a\r\n")
        assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in head
        assert b"Transfer-Encoding" not in head
        assert await wire.exactly(10) == b"helloearly"
        for number in range(5):
            await wire.send(b"GET / HTTP/1.1 \x00\xff %d" % number)
            assert (await wire.exactly(19))[-1:] == b"%d" % number


async def test_engine_ends_it() -> None:
    """When the engine closes, the client has every byte and sees the end."""

    async def short(wire: Wire) -> None:
        await wire.head()
        await wire.send(SWITCH, b"x" * 5_000_000)

    async with proxying(short) as proxy, client(proxy.port) as wire:
        await wire.send(ASKED)
        await wire.head()
        assert len(await wire.rest()) == 5_000_000
        await until(lambda: not proxy.server.statistics().connections)
        assert not proxy.faults


@pytest.mark.parametrize("how", ["close", "reset", "end"])
async def test_client_ends_it(how: str) -> None:
    """When the client leaves, the engine's connection closes."""
    told = asyncio.Event()

    async def listens(wire: Wire) -> None:
        await wire.head()
        await wire.send(SWITCH)
        await wire.gone()
        told.set()

    async with proxying(listens) as proxy, client(proxy.port) as wire:
        await wire.send(ASKED)
        await wire.head()
        getattr(wire, how)()
        await told.wait()
        await until(lambda: not proxy.pool.statistics().open)


async def test_declined_upgrade_is_an_ordinary_answer() -> None:
    """An engine without websockets answers as to any request, and the connection goes on."""

    async def declines(wire: Wire) -> None:
        while True:
            await wire.head()
            await wire.send(ok(b"no"))

    async with proxying(declines) as proxy, client(proxy.port) as wire:
        await wire.send(ASKED + get())
        assert await wire.answer() == (200, b"no")
        assert await wire.answer() == (200, b"no")
        assert proxy.engine.connections == 1


async def test_other_upgrades_never_reach_the_engine() -> None:
    """The offer of h2c that curl makes with a body is an ordinary POST to the engine."""

    async def script(wire: Wire) -> None:
        head, body = await wire.request()
        assert b"upgrade" not in head.lower()
        await wire.send(ok(body))

    async with proxying(script) as proxy, client(proxy.port) as wire:
        await wire.send(b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n")
        await wire.send(b"HTTP2-Settings: x\r\nContent-Length: 2\r\n\r\nhi")
        assert await wire.answer() == (200, b"hi")


@pytest.mark.parametrize("slow", ["client", "engine"])
async def test_slow_side_holds_the_other_back(slow: str) -> None:
    """Neither direction fills our memory, and nothing is lost."""
    size = 24 << 20
    sent = 0
    go = asyncio.Event()

    async def pump(wire: Wire) -> None:
        nonlocal sent
        for _ in range(size >> 16):
            await wire.send(b"x" * (1 << 16))
            sent += 1 << 16

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(SWITCH)
        if slow == "client":
            await pump(wire)
        else:
            await go.wait()
            await wire.exactly(size)
            await wire.send(b"all")
        await wire.gone()

    async with proxying(script) as proxy, client(proxy.port) as wire:
        await wire.send(ASKED)
        await wire.head()
        if slow == "client":
            await until(lambda: any(connection.paused for connection in proxy.server.shared.connections))
            assert sent < size
            assert len(await wire.exactly(size)) == size
        else:
            pumping = aio.spawn(pump(wire), name="test")
            await until(lambda: any(connection.deaf for connection in proxy.server.shared.connections))
            assert sent < size
            go.set()
            assert await wire.exactly(3) == b"all"
            await pumping
