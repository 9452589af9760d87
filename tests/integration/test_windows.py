"""The whole program on Windows: it starts an engine by a command with backslashes, serves it, and leaves nothing."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from bioproxy.config.schema import Limits
from bioproxy.engines.commands import joined
from bioproxy.engines.launch import free_port
from bioproxy.wire.http1.message import Request, Responder
from support.http import call
from support.kv_rig import text
from support.page import ROOT
from support.wire_rig import client, get
from support.wire_rig import serving as served

pytestmark = [
    pytest.mark.skipif(sys.platform != "win32", reason="every other test is about other systems"),
    pytest.mark.timeout(120),
]


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """The program with one model, and its port; killed at the end."""
    port, slots = free_port(), folder / "slots"
    slots.mkdir()
    engine = [sys.executable, str(ROOT / "tests" / "fakes" / "llama_server.py"), "--slot-save-path", str(slots)]
    engine += ["--tokens-per-second", "5000"]
    config = {
        "kv": {"min_seconds": 0.001, "min_free": 0},
        "models": {"alpha": {"cmd": f"{joined(engine)} --port ${{PORT}}"}},
        "state_directory": str(folder / "state"),
    }
    (folder / "config.json").write_text(json.dumps({**config, "admin_port": free_port()}))
    words = ["-m", "bioproxy", "-config", str(folder / "config.json"), "-listen", f"127.0.0.1:{port}"]
    program = await asyncio.create_subprocess_exec(sys.executable, *words, stderr=asyncio.subprocess.PIPE)
    assert program.stderr is not None
    while b"listening on" not in (line := await program.stderr.readline()):
        assert line, "it did not start"
    try:
        yield program, port
    finally:
        if program.returncode is None:
            program.kill()
        await program.communicate()


async def test_the_program_serves_a_model_and_its_engine_ends_with_it(tmp_path: Path) -> None:
    """Though nothing asked the engine to end: the system closes the job that it lies in."""
    body = {"model": "alpha", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    async with serving(tmp_path) as (program, port):
        answer = await call(port, "POST", "/v1/chat/completions", data=body)
        assert answer.status == 200
        engines = psutil.Process(program.pid).children(recursive=True)
        assert engines
        program.kill()
        await program.wait()
    _, alive = psutil.wait_procs(engines, timeout=10)
    assert alive == []


async def test_an_unloaded_model_is_gone(tmp_path: Path) -> None:
    """And the next request starts it again."""
    body = {"model": "alpha", "prompt": "hello", "max_tokens": 2}
    async with serving(tmp_path) as (program, port):
        for _ in range(2):
            assert (await call(port, "POST", "/v1/completions", data=body)).status == 200
            engines = psutil.Process(program.pid).children(recursive=True)
            assert (await call(port, "POST", "/api/models/unload")).status == 200
            _, alive = await asyncio.to_thread(psutil.wait_procs, engines, timeout=10)
            assert alive == []


async def test_a_conversation_outlives_its_engine(tmp_path: Path) -> None:
    """It is saved before the engine is stopped, and the next one has it again."""
    body = {"model": "alpha", "prompt": text(400), "max_tokens": 2}
    async with serving(tmp_path) as (_, port):
        asked = await call(port, "POST", "/v1/completions", data=body)
        assert (await call(port, "POST", "/api/models/unload")).status == 200
        again = await call(port, "POST", "/v1/completions", data=body)
    assert asked.json()["timings"]["cache_n"] == 0
    assert again.json()["timings"]["cache_n"] > 300


async def test_a_port_goes_on_after_its_listeners_were_replaced() -> None:
    """As a reload does that turns TLS on or off, and a port that was full."""

    async def answer(_: Request, responder: Responder) -> None:
        responder.send(200, [], b"here")

    async with served(answer, limits=Limits()) as server:
        for _ in range(2):
            await server.secure(None)
        async with client(server.port) as wire:
            await wire.send(get())
            assert (await wire.answer())[0] == 200
