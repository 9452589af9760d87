"""Clients that leave, dawdle, say nothing or say too much: the engine stops working for them, nobody else notices."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from fakes.fake_engine import FakeEngine
from support.apps import MS
from support.faults import CHAT, MESSAGES, ask, body_for, good, sent, tried
from support.http import build, call, events, parse
from support.kv_rig import text
from support.leaks import owned, until

Json = Any
SLOW = 100  # generated tokens a second
MIB = 1 << 20
SILENT = 10_000


async def test_leave_while_queued(tmp_path: Path) -> None:
    """Out of the queue at once; the engine never hears of it."""
    async with FakeEngine(decode_rate=SLOW) as fake, tried(fake, tmp_path) as app:
        async with sent(app, data=ask(tokens=2000, stream=True)) as running:
            await running.readuntil(b"data: ")
            for stream in (False, True):
                async with sent(app, data=ask("leaves", stream=stream)):
                    await until(lambda: owned(app)["waiters"] == 1)
                await until(lambda: owned(app)["waiters"] == 0)
        assert all("leaves" not in request.body for request in await fake.requests(CHAT))


@pytest.mark.parametrize("stream", [False, True])
async def test_leave_in_prefill(stream: bool, tmp_path: Path) -> None:
    """The engine's work is cancelled before the first token."""
    async with (
        FakeEngine(tokens_per_second=500, batch_size=16, disconnect_poll=0.02) as fake,
        tried(fake, tmp_path) as app,
    ):
        async with sent(app, data=ask(text(2000), stream=stream)):
            await fake.until(lambda state: state["totals"]["prompt"] > 100)
        state = await fake.until(lambda state: state["totals"]["cancelled"] and not state["slots"][0]["busy"])
        assert state["totals"]["prompt"] < 1500


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/completion"])
async def test_leave_in_mid_answer(path: str, stream: bool, tmp_path: Path) -> None:
    """The engine's work is cancelled; the record says that the client left."""
    async with FakeEngine(decode_rate=SLOW, disconnect_poll=0.02) as fake, tried(fake, tmp_path) as app:
        data = body_for(path, tokens=2000, stream=stream) | ({"prompt": "hello"} if path == "/completion" else {})
        async with sent(app, path, data) as reader:
            await fake.until(lambda state: state["totals"]["predicted"] > 2)
            if stream:
                await reader.readuntil(b"data: ")
        state = await fake.until(lambda state: state["totals"]["cancelled"] and not state["slots"][0]["busy"])
        assert state["totals"]["predicted"] < 1000
        await until(lambda: any(record.outcome == "client_left" for record in app.records))


async def test_leave_in_the_middle_of_a_body(tmp_path: Path) -> None:
    """Half a request is no request."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        _, writer = await asyncio.open_connection("127.0.0.1", app.proxy_port)
        writer.write(build("POST", CHAT, body=json.dumps(ask()).encode())[:-5])
        await until(lambda: app.ports.proxy.statistics().connections == 1)
        writer.transport.abort()
        await until(lambda: app.ports.proxy.statistics().connections == 0)
        assert await fake.requests(CHAT) == []


async def test_read_slowly(tmp_path: Path) -> None:
    """A reader that dawdles over small buffers gets every event, in order."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        client = socket.create_connection(("127.0.0.1", app.proxy_port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        reader, writer = await asyncio.open_connection(sock=client, limit=4096)
        writer.write(build("POST", CHAT, body=json.dumps(ask(tokens=5000, stream=True)).encode()))
        raw = await reader.readuntil(b"data: ")
        await fake.until(lambda state: state["totals"]["predicted"] == 5000)
        while piece := await reader.read(4096):
            raw += piece
        pieces = events(parse(raw, "POST"))
        assert len([one for one in pieces if one["choices"][0]["delta"].get("content")]) == 5000
        assert raw.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        writer.close()


async def test_send_slowly(tmp_path: Path) -> None:
    """A sender that dawdles holds no grant: others are served meanwhile; one that stops is told 408."""
    limits = {"body_timeout": 200 * MS, "head_timeout": 200 * MS}
    async with FakeEngine() as fake, tried(fake, tmp_path, limits=limits) as app:
        raw = build("POST", CHAT, body=json.dumps(ask()).encode())
        for cut in (20, len(raw) - 3):  # in the head, in the body
            reader, writer = await asyncio.open_connection("127.0.0.1", app.proxy_port)
            writer.write(raw[:cut])
            assert (await good(app)).status == 200
            assert owned(app)["grants"] == 0
            assert b" 408 " in await reader.read()
            writer.close()


async def test_send_byte_by_byte(tmp_path: Path) -> None:
    """A request that comes in single bytes is a request like any other."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        raw = build("POST", CHAT, body=json.dumps(ask()).encode())
        reader, writer = await asyncio.open_connection("127.0.0.1", app.proxy_port)
        for place in range(len(raw)):
            writer.write(raw[place : place + 1])
            await asyncio.sleep(0)
        assert parse(await reader.read(), "POST").status == 200
        writer.close()


@pytest.mark.parametrize("path", [CHAT, "/anything"])
async def test_a_body_of_100_mb(path: str, tmp_path: Path) -> None:
    """Passed on byte for byte, whether it is looked into or not."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        body = b'{"messages": [], "filler": "' + b"x" * (100 * MIB) + b'"}'
        answer = await call(app.proxy_port, "POST", path, body=body)
        (request,) = await fake.requests(path)
        assert (request.bytes, request.sha256) == (len(body), hashlib.sha256(body).hexdigest())
        assert answer.status in {200, 400}


async def test_a_body_that_is_too_large(tmp_path: Path) -> None:
    """413 in the dialect of the call, before it is all sent; the engine hears nothing."""
    async with FakeEngine() as fake, tried(fake, tmp_path, limits={"body": "1MiB"}) as app:
        answer = await call(app.proxy_port, "POST", MESSAGES, body=bytes(MIB + 1))
        assert answer.status == 413
        assert answer.json()["error"]["type"] == "request_too_large"
        assert await fake.requests(MESSAGES) == []


SILENCE = """
import socket, sys
held = []
for _ in range(int(sys.argv[2])):
    held.append(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
print("all", flush=True)
sys.stdin.read()
"""


async def test_10000_connections_that_say_nothing(tmp_path: Path) -> None:
    """They cost no task, keep nobody waiting, and are forgotten when they leave."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = SILENT if hard == resource.RLIM_INFINITY else min(SILENT, hard - 200)
    if count < SILENT:
        print(f"only {count} silent connections: this system allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 2 * SILENT, hard))
    limits = {"head_timeout": 60, "idle_timeout": 60}
    try:
        async with FakeEngine() as fake, tried(fake, tmp_path, limits=limits) as app:
            tasks = len(asyncio.all_tasks())
            command = [sys.executable, "-c", SILENCE, str(app.proxy_port), str(count)]
            pipe = asyncio.subprocess.PIPE
            silent = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
            assert silent.stdin is not None
            assert silent.stdout is not None
            await silent.stdout.readline()
            await until(lambda: app.ports.proxy.statistics().connections == count)
            await until(lambda: len(asyncio.all_tasks()) <= tasks + 2)
            answer = await good(app)
            assert answer.status == 200
            silent.stdin.close()
            await silent.wait()
            await until(lambda: app.ports.proxy.statistics().connections == 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_silent_connections_are_closed_in_time(tmp_path: Path) -> None:
    """Whoever says nothing for `limits.idle_timeout` is closed."""
    async with FakeEngine() as fake, tried(fake, tmp_path, limits={"idle_timeout": 50 * MS}) as app:
        many = [await asyncio.open_connection("127.0.0.1", app.proxy_port) for _ in range(50)]
        assert {await reader.read() for reader, _ in many} == {b""}
        for _, writer in many:
            writer.close()


async def test_many_at_once_are_all_served(tmp_path: Path) -> None:
    """A burst waits its turn; half of it leaves; the other half is served."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        calls = [aio.spawn(good(app, f"number {number}"), name="client") for number in range(40)]
        await until(lambda: owned(app)["waiters"] > 10)
        for leaver in calls[::2]:
            leaver.cancel()
        answers = await asyncio.gather(*calls[1::2])
        assert {answer.status for answer in answers} == {200}
