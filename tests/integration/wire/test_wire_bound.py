"""No more connections than there may be: who waits longest for a request makes way, and who is served does not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from bioproxy import aio
from bioproxy.config.schema import Limits
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.server import ADMIN_SHARE, FEWEST, RESERVED_FILES, Server, files_for_clients
from bioproxy.wire.tls import tls_context
from support.http import certificate, needs_openssl
from support.leaks import no_files_left, until
from support.wire_rig import MS, Wire, client, get, serving


async def answer(request: Request, responder: Responder) -> None:
    """Say something."""
    responder.send(200, [], request.path.encode())


@contextlib.contextmanager
def aborted(writer: asyncio.StreamWriter) -> Iterator[None]:
    """The end of a connection, whose other end may not be waited for."""
    try:
        yield
    finally:
        writer.transport.abort()


async def asked(wire: Wire) -> bool:
    """Whether a request on this connection is served."""
    await wire.send(get())
    return (await wire.answer())[0] == 200


async def test_the_one_that_is_idle_longest_makes_way() -> None:
    """By the time since its last request, not since it came."""
    async with serving(answer, limits=Limits(connections=2)) as server, client(server.port) as first:
        assert await asked(first)
        async with client(server.port) as second:
            assert await asked(second)
            assert await asked(first)
            async with client(server.port) as third:
                assert await asked(third)
                await second.gone()
                assert await asked(first)
        assert (server.statistics().made_way, server.statistics().turned_away) == (1, 0)


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\nHost:", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na"]
)
async def test_whoever_says_little_is_idle(said: bytes) -> None:
    """Nothing, half a head, half a body: all who have no request running make way, so nobody can hold the port."""
    async with serving(answer, limits=Limits(connections=3)) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(10):
            wire = await stack.enter_async_context(client(server.port))
            await wire.send(said)
        await until(lambda: server.statistics().accepted == 10)
        async with client(server.port) as late:
            assert await asked(late)
        assert server.statistics().connections <= 3


async def test_who_is_served_does_not_make_way() -> None:
    """The newcomer is turned away then, and the others do not notice."""
    go = asyncio.Event()

    async def slow(request: Request, responder: Responder) -> None:
        await go.wait()
        await answer(request, responder)

    async with serving(slow, limits=Limits(connections=1)) as server, client(server.port) as wire:
        await wire.send(get())
        await until(lambda: server.statistics().running == 1)
        async with client(server.port) as second:
            await second.gone()
        go.set()
        assert (await wire.answer())[0] == 200
        assert (server.statistics().made_way, server.statistics().turned_away) == (0, 1)


async def test_an_answer_that_is_still_read_is_not_cut() -> None:
    """It would look torn to a client that reads slowly."""
    large = b"x" * 4_000_000

    async def much(request: Request, responder: Responder) -> None:
        responder.send(200, [], large)

    async with serving(much, limits=Limits(connections=1)) as server, client(server.port) as wire:
        await wire.send(get())
        await until(lambda: server.statistics().requests == 1 and server.statistics().running == 0)
        async with client(server.port) as second:
            await second.gone()
        assert (await wire.answer())[1] == large


async def test_an_accept_without_a_file_ends_nothing() -> None:
    """The port serves again as soon as there are files, also whoever connected meanwhile and was not cut."""
    async with serving(answer, limits=Limits(connections=8)) as server:
        sockets = [socket.socket() for _ in range(3)]
        with no_files_left():
            for one in sockets:
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", server.port))
            for _ in range(20):
                await asyncio.sleep(0)
        for one in sockets:
            one.close()
        async with client(server.port) as wire:
            assert await asked(wire)


@needs_openssl
async def test_handshakes_that_never_come_do_not_hold_the_port(tmp_path: Path) -> None:
    """Of these we hear nothing until they are over; the system keeps who comes, and then it goes on."""
    made = certificate(tmp_path)
    server = Server(answer, limits=Limits(connections=4, head_timeout=600 * MS), name="test")
    await server.listen("127.0.0.1", 0, tls_context(made.cert, made.key))
    try:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                await stack.enter_async_context(client(server.port))
            await until(lambda: server.resting)
            assert server.statistics().connections + len(server.shared.greeting) <= 8
            trusted = ssl.create_default_context(cafile=made.cert)

            async def comes_through() -> bool | None:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusted)
                    with aborted(writer):
                        return await asked(Wire(reader, writer))
                except (OSError, asyncio.IncompleteReadError):  # on a busy machine it is late, too, and comes again
                    return None

            assert await aio.poll(comes_through, interval=0.01, deadline=30.0)
    finally:
        await server.close(deadline=0)


async def test_a_request_needs_a_file_for_its_engine() -> None:
    """So of the files that clients may use, each running request takes two."""
    go = asyncio.Event()

    async def slow(request: Request, responder: Responder) -> None:
        await go.wait()
        await answer(request, responder)

    server = Server(slow, limits=Limits(), name="test", files=4)
    await server.listen("127.0.0.1", 0)
    try:
        async with client(server.port) as first, client(server.port) as idle, client(server.port) as second:
            await until(lambda: server.statistics().accepted == 3)
            await first.send(get())
            await until(lambda: server.statistics().running == 1)
            assert server.statistics().made_way == 0
            await second.send(get())
            await idle.gone()
            go.set()
            assert [(await wire.answer())[0] for wire in (first, second)] == [200, 200]
    finally:
        await server.close(deadline=0)


@pytest.mark.parametrize("files", [256, 1024, 4096, 65_536, 1 << 20])
def test_connections_leave_files_for_everything_else(files: int) -> None:
    """The admin port has clients of its own, out of what is reserved or a small share."""
    room = files_for_clients(files)
    assert room + RESERVED_FILES == files
    assert max(FEWEST, room // ADMIN_SHARE) <= max(RESERVED_FILES / 3, room / ADMIN_SHARE)


def test_a_port_has_room_however_few_files_there_are() -> None:
    """It would be of no use without."""
    assert files_for_clients(64) == FEWEST
