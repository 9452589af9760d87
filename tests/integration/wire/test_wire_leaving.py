"""Clients that leave, at every stage: what runs for them ends, and nothing stays behind."""

from __future__ import annotations

import asyncio

import pytest

from bioproxy import aio
from bioproxy.config.schema import Limits
from bioproxy.wire import relay
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.relay import Tail
from support.leaks import until
from support.wire_rig import MS, Wire, chunk, client, get, ok, post, proxying, serving

LEAVINGS = ["close", "reset", "end"]
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("how", LEAVINGS)
@pytest.mark.parametrize("raw", [b"", b"G", get()[:-1], post(b"body")[:-1], get() + b"GET /half"])
async def test_before_a_request_is_whole(raw: bytes, how: str) -> None:
    """A client that leaves in mid-head or mid-body costs nothing, and no handler runs for its fragment."""
    served: list[str] = []

    async def handle(request: Request, responder: Responder) -> None:
        served.append(request.path)
        responder.send(200, [])

    async with serving(handle) as server, client(server.port) as wire:
        await wire.send(raw)
        await until(lambda: server.statistics().connections)
        getattr(wire, how)()
        await until(lambda: not server.statistics().connections)
        assert "/half" not in served


@pytest.mark.parametrize("how", LEAVINGS)
async def test_while_the_handler_waits(how: str) -> None:
    """The task of a request is cancelled when its client leaves; its `finally` runs."""
    outcome: list[str] = []

    async def waits(request: Request, responder: Responder) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise
        finally:
            outcome.append("cleaned up")

    async with serving(waits) as server, client(server.port) as wire:
        await wire.send(get())
        await until(lambda: server.statistics().running)
        getattr(wire, how)()
        await until(lambda: not server.statistics().running)
        assert outcome == ["cancelled", "cleaned up"]


@pytest.mark.parametrize("how", LEAVINGS)
async def test_before_the_handler_began(how: str) -> None:
    """A client that leaves in the same breath as it asks is counted out like any other."""

    async def handle(request: Request, responder: Responder) -> None:
        await asyncio.sleep(60)

    async with serving(handle) as server:
        for _ in range(20):
            async with client(server.port) as wire:
                wire.writer.write(get())
                getattr(wire, how)()
                await wire.gone()
        await until(lambda: not server.statistics().running)


@pytest.mark.parametrize("how", LEAVINGS)
@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200", STREAM, STREAM + chunk(b"data: 1\n\n"), ok(b"half more")[:-4]])
async def test_engine_is_told(begin: bytes, how: str) -> None:
    """Whatever of an answer there is: when the client leaves, the engine's connection closes, and it can stop."""
    told = asyncio.Event()
    asked = asyncio.Event()

    async def computes(wire: Wire) -> None:
        await wire.head()
        await wire.send(begin)
        asked.set()
        await wire.gone()
        told.set()

    async with proxying(computes) as proxy, client(proxy.port) as wire:
        await wire.send(get())
        await asked.wait()
        if b"\r\n\r\n" in begin:
            await wire.head()
        getattr(wire, how)()
        await told.wait()
        await until(lambda: not proxy.server.statistics().running and not proxy.pool.statistics().open)
        assert isinstance(proxy.faults[0], asyncio.CancelledError)


async def test_while_an_answer_waits_unread() -> None:
    """A client that left with megabytes unread does not hold the engine."""
    told = asyncio.Event()

    async def floods(wire: Wire) -> None:
        await wire.head()
        try:
            await wire.send(STREAM)
            while True:
                await wire.send(chunk(b"x" * 60_000))
        finally:
            told.set()

    async with proxying(floods) as proxy, client(proxy.port) as wire:
        await wire.send(get())
        await until(lambda: any(connection.paused for connection in proxy.server.shared.connections))
        wire.reset()
        await told.wait()
        await until(lambda: not proxy.server.statistics().connections)


async def test_right_after_the_last_byte() -> None:
    """A client that has everything and leaves does not cancel what its handler does afterwards."""
    done = asyncio.Event()
    left = asyncio.Event()

    async def tidies(request: Request, responder: Responder) -> None:
        responder.send(200, [], b"hi")
        await left.wait()
        done.set()

    async with serving(tidies) as server, client(server.port) as wire:
        await wire.send(get())
        assert await wire.answer() == (200, b"hi")
        wire.close()
        await until(lambda: not server.statistics().connections)
        left.set()
        await done.wait()


async def test_relay_that_ended_is_no_cancellation() -> None:
    """A client that hangs up on the last byte of a relayed answer was served."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(ok(b"hi"))

    async with proxying(script) as proxy:
        for _ in range(30):
            async with client(proxy.port) as wire:
                await wire.send(get())
                await wire.head()
                await wire.exactly(2)
                wire.reset()
        await until(lambda: not proxy.server.statistics().running)
        assert not proxy.faults


async def test_drain_returns_when_the_client_left() -> None:
    """Who waits for a client to read is not left waiting."""
    ended = asyncio.Event()

    async def floods(request: Request, responder: Responder) -> None:
        responder.start(200, [], length=None)
        try:
            while True:
                responder.write(b"x" * 100_000)
                await responder.drain()
        finally:
            ended.set()

    async with serving(floods) as server, client(server.port) as wire:
        await wire.send(get())
        await until(lambda: any(connection.paused for connection in server.shared.connections))
        wire.reset()
        await ended.wait()


async def test_silent_client_is_closed_after_the_idle_time() -> None:
    """A connection on which nothing was ever said, or nothing more, is closed."""

    async def handle(request: Request, responder: Responder) -> None:
        responder.send(200, [])

    async with serving(handle, limits=Limits(idle_timeout=30 * MS)) as server:
        async with client(server.port) as wire:
            assert await wire.rest() == b""
        async with client(server.port) as wire:
            await wire.send(get())
            await wire.answer()
            assert await wire.rest() == b""


@pytest.mark.parametrize(
    ("raw", "limit"),
    [(b"GET / HT", "head"), (b"\r\n", "head"), (post(b"body")[:-1], "body"), (post(b"body")[:-4], "body")],
)
async def test_slow_sender_is_told(raw: bytes, limit: str) -> None:
    """A request that does not arrive in time is answered 408, and the connection closes."""

    async def handle(request: Request, responder: Responder) -> None:
        responder.send(200, [])

    limits = Limits(head_timeout=30 * MS, body_timeout=40 * MS)
    async with serving(handle, limits=limits) as server, client(server.port) as wire:
        await wire.send(raw)
        status, body = await wire.answer()
        assert status == 408
        assert f"limits.{limit}_timeout".encode() in body
        assert await wire.rest() == b""


async def test_dripping_head_does_not_extend_its_time() -> None:
    """The time of a head counts from its first byte, however steadily the others drip."""

    async def handle(request: Request, responder: Responder) -> None:
        responder.send(200, [])

    async with serving(handle, limits=Limits(head_timeout=50 * MS)) as server, client(server.port) as wire:

        async def drip() -> None:
            while True:
                await wire.send(b"G")
                await asyncio.sleep(5 * MS)

        dripping = aio.spawn(drip(), name="test")
        assert (await wire.answer())[0] == 408
        dripping.cancel()


async def test_dripping_body_does() -> None:
    """The time of a body counts from its last bytes: a slow line is no fault."""

    async def handle(request: Request, responder: Responder) -> None:
        responder.send(200, [], request.body)

    async with serving(handle, limits=Limits(body_timeout=800 * MS)) as server, client(server.port) as wire:
        await wire.send(post(b"01234")[:-5])
        for byte in b"01234":
            await asyncio.sleep(200 * MS)
            await wire.send(bytes([byte]))
        assert await wire.answer() == (200, b"01234")


@pytest.mark.parametrize("whole", [True, False])
async def test_client_that_reads_nothing_is_cut(whole: bool) -> None:
    """A client that takes nothing of its answer for the write time-out is cut, whether or not the answer is whole."""

    async def floods(request: Request, responder: Responder) -> None:
        body = b"x" * (16 << 20)
        if whole:
            responder.send(200, [], body)
            return
        responder.start(200, [], length=None)
        responder.write(body)
        await responder.drain()
        raise AssertionError("a client that reads nothing is never ready for more")

    async with serving(floods, limits=Limits(write_timeout=40 * MS)) as server, client(server.port) as wire:
        await wire.send(get(b"/", b"Connection: close"))
        await until(lambda: server.statistics().accepted and not server.statistics().connections)


async def test_client_that_reads_slowly_is_not() -> None:
    """One that takes a little now and then gets all of it, long after the idle and write times have passed."""
    part = 3 << 20  # more than a third of what the system buffers, or it would not notice progress

    async def floods(request: Request, responder: Responder) -> None:
        responder.send(200, [], b"x" * 14 * part)

    limits = Limits(write_timeout=600 * MS, idle_timeout=40 * MS)
    async with serving(floods, limits=limits) as server, client(server.port) as wire:
        await wire.send(get())
        await wire.head()
        for _ in range(14):
            assert len(await wire.exactly(part)) == part
            await asyncio.sleep(50 * MS)


@pytest.mark.parametrize("how", LEAVINGS)
async def test_after_an_answer_that_ended_by_its_own_account(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client was served: nothing is cancelled, and the engine's connection is kept if it ends the answer, too."""
    monkeypatch.setattr(relay, "ENDING", 60.0)
    may_end = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(STREAM + chunk(b"data: [DONE]\n\n"))
        await may_end.wait()
        await wire.send(b"0\r\n\r\n")
        await wire.gone()

    async with proxying(script) as proxy, client(proxy.port) as wire:
        proxy.ended = lambda tail: tail.last().endswith(b"[DONE]\n\n")
        await wire.send(get())
        await wire.head()
        await wire.chunk()
        getattr(wire, how)()
        await until(lambda: not proxy.server.statistics().connections)
        assert proxy.server.statistics().running == 1
        may_end.set()
        await until(lambda: not proxy.server.statistics().running)
        assert (proxy.faults, proxy.pool.statistics().idle) == ([], 1)


@pytest.mark.parametrize("goes_on", [False, True])
async def test_an_engine_that_does_not_end_its_answer(goes_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut off after a moment; if the answer went on after all, its client left in the middle."""
    monkeypatch.setattr(relay, "ENDING", 10 * MS)
    looks: list[bool] = []

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(STREAM + chunk(b"data: 1\n\n"))
        await wire.gone()

    def ended(tail: Tail) -> bool:
        looks.append(not (looks and goes_on))
        return looks[-1]

    async with proxying(script) as proxy, client(proxy.port) as wire:
        proxy.ended = ended
        await wire.send(get())
        await wire.head()
        wire.close()
        await until(lambda: proxy.server.statistics().requests and not proxy.server.statistics().running)
        assert [type(fault) for fault in proxy.faults] == [asyncio.CancelledError] * goes_on
        assert (len(looks), proxy.pool.statistics().open) == (2, 0)


async def test_a_client_that_was_slow_when_it_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it did not read holds the engine's last chunk back no longer."""
    monkeypatch.setattr(relay, "ENDING", 60.0)

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(STREAM, *(chunk(b"x" * 60_000) for _ in range(200)), b"0\r\n\r\n")
        await wire.gone()

    async with proxying(script) as proxy, client(proxy.port) as wire:
        proxy.ended = lambda _tail: True
        await wire.send(get())
        await until(lambda: any(connection.paused for connection in proxy.server.shared.connections))
        wire.reset()
        await until(lambda: not proxy.server.statistics().running)
        assert (proxy.faults, proxy.pool.statistics().idle) == ([], 1)
