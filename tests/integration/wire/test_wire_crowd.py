"""Ten thousand connections that say nothing."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Iterator

import pytest

from bioproxy.wire.http1.message import Request, Responder
from support.leaks import until
from support.wire_rig import client, get, serving

CROWD = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
crowd = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(int(sys.argv[2]))]
sys.stdin.read()
"""


@pytest.fixture
def crowd() -> Iterator[int]:
    """As many as the system lets us have, 10,000 where it can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 500 if hard > 0 else 10_000)
    if count < 2000:
        pytest.skip(f"this system allows {hard} open files only")
    yield count
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(180)
async def test_crowd_of_silent_connections(crowd: int) -> None:
    """They cost a connection each and nothing else: who speaks is served, and when they leave they are gone."""

    async def handle(request: Request, responder: Responder) -> None:
        responder.send(200, [], b"hi")

    async with serving(handle) as server:
        command = [sys.executable, "-c", CROWD, str(server.port), str(crowd)]
        child = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        await until(lambda: server.statistics().connections == crowd, seconds=60)
        async with client(server.port) as wire:
            await wire.send(get())
            assert await wire.answer() == (200, b"hi")
        assert child.stdin is not None
        child.stdin.close()
        await child.wait()
        await until(lambda: server.statistics().connections == 0, seconds=20)
