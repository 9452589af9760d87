"""Engines that stand still among many models: whoever waits behind one gets on, and it comes back as a new process."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from bioproxy.app import App
from bioproxy.models.fleet import Fleet
from support.apps import MS, running_app
from support.http import Answer, build, call, exchange
from support.leaks import until
from support.swap_client import CHAT, Stream
from support.swap_models import ENGINE, Ports

Json = Any
LLAMA = Path(__file__).parents[1] / "fakes" / "llama_server.py"


def fleet(app: App) -> Fleet:
    """The side of many models."""
    assert isinstance(app.fleet, Fleet)
    return app.fleet


def quicken(app: App) -> None:
    """Looks at the engines follow within milliseconds, and a stuck one gets a moment to come back."""
    for station in fleet(app).stations.values():
        station.attachment.interval = 20 * MS
        station.attachment.stall.recovery = 100 * MS


@asynccontextmanager
async def two_models(folder: Path, **config: Json) -> AsyncIterator[tuple[App, Ports]]:
    """Two fake llama-servers of which one runs at a time."""
    ports = Ports()
    command = f"{shlex.join([sys.executable, str(LLAMA)])} --port ${{PORT}} --decode-rate 50"
    models = {name: {"cmd": command, "unloadTimeout": 2} for name in "ab"}
    values: Json = {
        "startPort": ports.models,
        "models": models,
        "swap": {"min_resident": 0},
        "stall_timeout": 1,
        "logToStdout": "none",
    }
    try:
        async with running_app(folder, adjust=quicken, **{**values, **config}) as app:
            yield app, ports
    finally:
        ports.close()


async def test_an_engine_of_another_kind_that_hangs(tmp_path: Path) -> None:
    """It answers its health, so the first request only ends with 504; after the second one it is a new process."""
    ports = Ports()
    command = f"{shlex.join([sys.executable, '-I', '-S', str(ENGINE)])} --port ${{PORT}}"
    values: Json = {"startPort": ports.models, "models": {"a": {"cmd": command}}, "logToStdout": "none"}
    try:
        async with running_app(tmp_path, adjust=quicken, stall_timeout=1, **values) as app:
            unit = fleet(app).units["a"]
            assert (await ask(app, "a")).status == 200
            first = unit.pid
            held = await call(app.proxy_port, "POST", "/v1/embeddings", data={"model": "a", "hold": 0})
            assert (held.status, unit.pid) == (504, first), held.text
            assert (await ask(app, "a", hold=0)).status == 504
            assert (await ask(app, "a")).status == 200
            assert unit.pid != first
    finally:
        ports.close()


async def ask(app: App, model: str, **body: Json) -> Answer:
    """A chat."""
    data = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2, **body}
    return await call(app.proxy_port, "POST", CHAT, data=data)


async def faults(ports: Ports, **change: Json) -> None:
    """Switch faults of `a`'s engine, which has the first port."""
    assert (await call(ports.models, "POST", "/fake/faults", data=change)).status == 200


@asynccontextmanager
async def stream(app: App, model: str, tokens: int) -> AsyncIterator[Stream]:
    """A streamed answer."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": tokens, "stream": True}
    reader, writer = await asyncio.open_connection("127.0.0.1", app.proxy_port)
    writer.write(build("POST", CHAT, body=json.dumps(body).encode(), headers={"Content-Type": "application/json"}))
    try:
        yield Stream(reader)
    finally:
        writer.transport.abort()


def running(app: App) -> int:
    """Requests that hold a model."""
    return fleet(app).supervisor.statistics().running


async def test_an_engine_that_stops_in_a_stream(tmp_path: Path) -> None:
    """The stream ends with an error, who waits for the other model gets it, and the engine is a new one next time."""
    async with two_models(tmp_path) as (app, ports):
        async with stream(app, "a", 500) as one:
            assert await one.head() == 200
            await one.event()
            await faults(ports, stuck=True)
            waits = aio.spawn(ask(app, "b"), name="waits")
            events = await asyncio.wait_for(one.rest(), 25)
        assert "error" in events[-1]
        assert (await asyncio.wait_for(waits, 25)).status == 200
        assert (await ask(app, "a")).status == 200
        assert not fleet(app).supervisor.claims
        assert running(app) == 0


async def test_an_engine_that_never_answers(tmp_path: Path) -> None:
    """504 after `stall_timeout`, and it is asked once."""
    async with two_models(tmp_path) as (app, ports):
        assert (await ask(app, "a")).status == 200
        await call(ports.models, "DELETE", "/fake/requests")
        await faults(ports, stuck=True)
        answer = await asyncio.wait_for(ask(app, "a"), 25)
        assert answer.status == 504, answer.text
        assert (await asyncio.wait_for(ask(app, "b"), 25)).status == 200
        assert (await ask(app, "a")).status == 200


async def test_others_of_the_engine_that_stands_still(tmp_path: Path) -> None:
    """They wait in its gate; they are served by the next process, not told of a fault."""
    async with two_models(tmp_path) as (app, ports):
        assert (await ask(app, "a")).status == 200
        await faults(ports, stuck=True)
        first = aio.spawn(ask(app, "a"), name="first")
        await until(lambda: fleet(app).stations["a"].gate.statistics().running.get("user"))
        others = [aio.spawn(ask(app, "a"), name="other") for _ in range(3)]
        answers = await asyncio.wait_for(asyncio.gather(first, *others), 25)
        assert [answer.status for answer in answers] == [504, 200, 200, 200], [answer.text for answer in answers]


@pytest.mark.parametrize("answer", ["close", "garbage", "half_head", "wrong_length", "half_chunk"])
async def test_answers_that_are_none(answer: str, tmp_path: Path) -> None:
    """502 where nothing was out yet, else a cut connection; the model is free afterwards."""
    async with two_models(tmp_path) as (app, ports):
        assert (await ask(app, "a")).status == 200
        await faults(ports, answer=answer, paths=[CHAT])
        body = b'{"model": "a", "messages": []}'
        raw = await asyncio.wait_for(exchange(app.proxy_port, build("POST", CHAT, body=body)), 25)
        assert raw.startswith((b"HTTP/1.1 502", b"HTTP/1.1 504", b"HTTP/1.1 200"))
        assert not raw.startswith(b"HTTP/1.1 200") or not raw.endswith(b"0\r\n\r\n")
        await until(lambda: running(app) == 0)
        await faults(ports, answer="")
        assert (await ask(app, "a")).status == 200
