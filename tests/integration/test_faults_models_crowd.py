"""Many at once: clients that leave while they wait or read nothing, and as many models as a file may have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from support.http import build, call
from support.swap_client import CHAT, server
from support.swap_models import apart, fake, fakes
from support.swap_rig import Rig, swap_rig

Json = Any


async def connected(rig: Rig, model: str, **body: Json) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has sent its request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    data = json.dumps({"model": model, "messages": [], **body}).encode()
    writer.write(build("POST", CHAT, body=data, headers={"Content-Type": "application/json"}))
    return reader, writer


async def test_a_thousand_clients_that_leave_while_they_wait(tmp_path: Path) -> None:
    """None of them starts anything, none is left in a table, and whoever stays is served."""
    async with swap_rig(tmp_path, fakes("a b c"), queue_limit=2000) as rig:
        held = await rig.ask_held("a")
        clients = [await connected(rig, "bc"[number % 2], stream=number % 3 == 0) for number in range(1000)]
        await rig.until_waiting(1000)
        stays = await rig.ask_queued("b")
        for number, (_, writer) in enumerate(clients):
            writer.transport.abort() if number % 2 else writer.close()
        await rig.until_waiting(1)
        await rig.release("a")
        assert server(await held) == "a"
        assert server(await stays) == "b"
        overview = await rig.overview()
        assert [(one["waiting"], one["running"]) for one in overview.values()] == [(0, 0)] * 3
        status = (await call(rig.ports.admin, "GET", "/status")).json()
        assert status["running"] == 0
    assert rig.log.starts() == ["a", "b"]


async def test_clients_that_leave_in_the_moment_in_which_they_are_served(tmp_path: Path) -> None:
    """In a swap, in a start, in the first bytes: the models go on, one at a time."""
    async with swap_rig(tmp_path, fakes("a b", "--slow-stop 0.01")) as rig:
        for number in range(20):
            _, writer = await connected(rig, "ab"[number % 2], stream=True, events=50, rate=500)
            await asyncio.sleep(0.013 * (number % 9))
            writer.transport.abort()
        assert server(await rig.chat("a")) == "a"
        assert server(await rig.chat("b")) == "b"
        assert await rig.waiting() == 0
    assert not rig.log.overlap("a", "b")


async def test_clients_that_read_nothing_do_not_keep_their_model(tmp_path: Path) -> None:
    """After `limits.write_timeout` it is cut, and the model makes way for whoever waits."""
    async with swap_rig(tmp_path, fakes("a b"), limits={"write_timeout": 1}) as rig:
        clients = [await connected(rig, "a", bytes=30_000_000, stream=stream) for stream in (True, False)]
        await rig.until_event("begin", "a", count=2)
        assert server(await asyncio.wait_for(rig.chat("b"), 25)) == "b"
        for _, writer in clients:
            writer.transport.abort()
    assert not rig.log.overlap("a", "b")


async def test_a_client_that_sends_half_a_request_keeps_nothing(tmp_path: Path) -> None:
    """A body that does not come is no request yet: nothing is started for it."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(f'POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{{"model":"a"'.encode())
        await writer.drain()
        assert (await rig.get("/running")).json() == {"running": []}
        assert await rig.waiting() == 0
        writer.close()
    assert rig.log.starts() == []


async def test_loads_that_nobody_waits_for_do_not_gather(tmp_path: Path) -> None:
    """A script that asks again and again, and gives up each time, asks once."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        held = await rig.ask_held("a")
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(build("POST", "/models/load", body=b'{"model": "b"}'))
            await rig.until_waiting(1)
            writer.transport.abort()
        joined = aio.spawn(rig.post("/models/load", {"model": "b"}), name="load")
        assert await rig.waiting() == 1
        await rig.release("a")
        assert server(await held) == "a"
        assert (await joined).status == 200
        assert await rig.running() == {"b": "ready"}
        assert await rig.waiting() == 0


async def test_an_engine_that_never_answers_has_a_limit_where_one_is_set(tmp_path: Path) -> None:
    """`timeouts.responseHeader`: 504, and the model makes way for whoever waits."""
    models = {"a": fake(timeouts={"responseHeader": 1}), "b": fake()}
    async with swap_rig(tmp_path, models) as rig:
        held = await rig.ask_held("a")
        assert server(await asyncio.wait_for(rig.chat("b"), 25)) == "b"
        assert (await held).status == 504
    assert len(rig.log.of("begin", "a")) == 1  # it may be at it still, and is not asked twice


class Answers:
    """One server for all models: it answers what is asked, and lives in the test."""

    def __init__(self) -> None:
        self.most = self.now = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
            )
            body = await reader.readexactly(length)
            text = b"404" if b"/props" in head.split(b" ", 2)[1] else b"200"
            writer.write(
                b"HTTP/1.1 %b x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (text, len(body), body)
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.now -= 1
            writer.close()


@asynccontextmanager
async def answering() -> AsyncIterator[int]:
    """Its port."""
    listener = await asyncio.start_server(Answers().serve, "127.0.0.1", 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


@pytest.mark.timeout(120)
async def test_as_many_models_as_a_file_may_have(tmp_path: Path) -> None:
    """All asked for at once, in a group in which nobody stops anybody; then all stop at once."""
    names = [f"m{number}" for number in range(200)]
    async with answering() as port:
        model = {"cmd": "sleep 1000", "proxy": f"http://127.0.0.1:{port}", "checkEndpoint": "none"}
        models = dict.fromkeys(names, model)
        async with swap_rig(tmp_path, models, groups=apart(" ".join(names)), child=True) as rig:
            answers = await asyncio.gather(*(rig.chat(name) for name in names))
            assert {answer.status for answer in answers} == {200}
            assert set((await rig.running()).values()) == {"ready"}
            assert len(rig.children()) == 2 * len(names)
            assert (await rig.get("/unload")).status == 200
            assert rig.children() == []
