"""The end: what runs may finish, what is idle goes at once, what takes too long is cut."""

from __future__ import annotations

import asyncio

import pytest

from bioproxy import aio
from bioproxy.config.schema import Limits
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.server import Server
from support.leaks import until
from support.wire_rig import client, get, post, serving


class Held:
    """A handler that sends a beginning, waits to be let go, and sends the end."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.ended = 0

    async def handle(self, request: Request, responder: Responder) -> None:
        try:
            if request.path == "/begun":
                responder.start(200, [], length=None)
                responder.write(b"begun")
            await self.go.wait()
            if request.path == "/begun":
                responder.write(b"ended")
                responder.finish()
            else:
                responder.send(200, [], b"whole")
        finally:
            self.ended += 1


async def refused(port: int) -> bool:
    """Whether nobody listens any more."""
    try:
        async with client(port):
            return False
    except ConnectionRefusedError:
        return True


async def test_running_requests_finish() -> None:
    """Answers under way are completed; the connections close behind them and say so where they still can."""
    held = Held()
    async with serving(held.handle) as server, client(server.port) as begun, client(server.port) as waiting:
        await begun.send(get(b"/begun"))
        await begun.head()
        await waiting.send(get())
        await until(lambda: server.statistics().running == 2)
        closing = aio.spawn(server.close(deadline=10), name="test")
        await until(lambda: server.shared.closing)
        assert await refused(server.port)
        held.go.set()
        assert await begun.chunks() == b"begunended"
        assert await begun.rest() == b""
        assert b"Connection: close" in await waiting.head()
        assert await waiting.rest() == b"whole"
        await closing
        assert held.ended == 2


async def test_idle_connections_go_at_once() -> None:
    """Kept connections without a request do not hold the stop up."""
    held = Held()
    held.go.set()
    async with serving(held.handle) as server, client(server.port) as silent, client(server.port) as kept:
        await kept.send(get())
        await kept.answer()
        await until(lambda: server.statistics().connections == 2 and not server.statistics().running)
        await server.close(deadline=60)
        assert await silent.rest() == b""
        assert await kept.rest() == b""


async def test_what_takes_too_long_is_cut() -> None:
    """After the deadline a stream ends without its end, and its handler is cancelled and awaited."""
    held = Held()
    async with serving(held.handle) as server, client(server.port) as wire:
        await wire.send(get(b"/begun"))
        await wire.head()
        await server.close(deadline=0.02)
        assert held.ended == 1
        with pytest.raises(asyncio.IncompleteReadError):
            await wire.chunks()


async def test_half_a_request_is_cut_at_the_deadline() -> None:
    """A body that is still on its way does not get more time than answers do."""
    held = Held()
    async with serving(held.handle) as server, client(server.port) as wire:
        await wire.send(post(b"body")[:-1])
        await until(lambda: any(not connection.reader.idle for connection in server.shared.connections))
        await server.close(deadline=0.02)
        await wire.gone()


async def test_tidying_up_is_waited_for() -> None:
    """A handler that has sent its answer may still finish what it does."""
    tidy = asyncio.Event()
    done = asyncio.Event()

    async def tidies(request: Request, responder: Responder) -> None:
        responder.send(200, [], b"hi")
        await tidy.wait()
        done.set()

    async with serving(tidies) as server, client(server.port) as wire:
        await wire.send(get(b"/", b"Connection: close"))
        await wire.answer()
        closing = aio.spawn(server.close(deadline=10), name="test")
        await until(lambda: server.shared.closing)
        tidy.set()
        await closing
        assert done.is_set()


async def test_stop_accepting_keeps_what_is_connected() -> None:
    """Before the end comes, those who are here are still served."""
    held = Held()
    held.go.set()
    async with serving(held.handle) as server, client(server.port) as wire:
        await wire.send(get())
        await wire.answer()
        server.stop_accepting()
        await until(lambda: not server.listeners)
        assert await refused(server.port)
        await wire.send(get())
        assert await wire.answer() == (200, b"whole")


async def test_close_is_repeatable_and_needs_no_listener() -> None:
    """Closing twice, or what never listened, does nothing."""
    server = Server(Held().handle, limits=Limits(), name="x")
    await server.close(deadline=1)
    await server.listen("127.0.0.1", 0)
    await server.close(deadline=1)
    await server.close(deadline=1)


async def test_port_is_free_again_at_once() -> None:
    """A restart can listen on the same port while old connections linger in the system."""
    held = Held()
    held.go.set()
    async with serving(held.handle) as server:
        port = server.port
        async with client(port) as wire:
            await wire.send(get())
            await wire.answer()
            await server.close(deadline=1)
    again = Server(held.handle, limits=Limits(), name="x")
    await again.listen("127.0.0.1", port)
    async with client(port) as wire:
        await wire.send(get())
        assert await wire.answer() == (200, b"whole")
    await again.close(deadline=0)
