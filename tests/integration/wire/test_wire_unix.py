"""The server at a unix socket: who may connect, whose file it is, and what is left at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bioproxy.config.schema import Limits
from bioproxy.errors import ConfigError
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.server import Server
from support.sockets import needs_unix, short_folder
from support.wire_rig import Wire, get

short = short_folder()
pytestmark = needs_unix


async def peer(request: Request, responder: Responder) -> None:
    """Say where the client is."""
    responder.send(200, [], request.peer.encode())


@contextlib.asynccontextmanager
async def serving(path: Path, *, mode: int = 0o600) -> AsyncIterator[Server]:
    """A server at `path`."""
    server = Server(peer, limits=Limits(), name="test")
    await server.listen(f"unix:{path}", 0, mode=mode)
    try:
        yield server
    finally:
        await server.close(deadline=0)


async def asked(path: Path) -> tuple[int, bytes]:
    """What the server at `path` answers."""
    wire = Wire(*await asyncio.open_unix_connection(path))
    try:
        await wire.send(get(b"/"))
        return await wire.answer()
    finally:
        wire.writer.transport.abort()


@pytest.mark.parametrize("mode", [0o600, 0o660])
async def test_it_serves_whom_its_mode_lets_in(mode: int, short: Path) -> None:
    """Whatever the umask is; at the end the file is gone."""
    path = short / "s"
    async with serving(path, mode=mode) as server:
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert await asked(path) == (200, b"unix")
        assert (server.addresses, server.port) == ([(f"unix:{path}", 0)], 0)
    assert not path.exists()


async def test_what_a_dead_program_left_is_taken_over(short: Path) -> None:
    """A socket at which nobody listens."""
    path = short / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(path):
        assert await asked(path) == (200, b"unix")


async def test_what_is_alive_is_left_alone(short: Path) -> None:
    """The second one does not start, and the first one goes on."""
    path = short / "s"
    async with serving(path):
        with pytest.raises(ConfigError, match="another program listens"):
            async with serving(path):
                pass
        assert await asked(path) == (200, b"unix")


async def test_what_is_no_socket_is_left_alone(short: Path) -> None:
    """It may be somebody's file."""
    path = short / "s"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is no socket; remove it"):
        async with serving(path):
            pass
    assert path.read_text() == "mine"


async def test_a_missing_folder_is_named(short: Path) -> None:
    """With what to do."""
    with pytest.raises(ConfigError, match=f"the folder {short}/no is missing; make it"):
        async with serving(short / "no" / "s"):
            pass


async def test_a_file_that_another_program_put_there_stays(short: Path) -> None:
    """We remove only our own."""
    path, theirs = short / "s", short / "t"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(theirs))
        async with serving(path):
            os.replace(theirs, path)
        assert path.exists()
