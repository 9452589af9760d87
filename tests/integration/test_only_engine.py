"""An unload of the only engine, and requests that come before, during and after it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bioproxy import aio
from bioproxy.app import App
from bioproxy.errors import ModelFailed
from bioproxy.models.only import ENGINE
from fakes.fake_engine import PROGRAM, FakeEngine
from support.apps import MS, looks_follow, only, running_app, station
from support.faults import ask, good, ready, sent
from support.http import build, call, exchange
from support.leaks import until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a shell script stands for llama-server")


def llama_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake one that takes its time, on PATH."""
    program = folder / "llama-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {PROGRAM} --decode-rate 200 "$@"\n')
    program.chmod(0o755)
    (folder / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@asynccontextmanager
async def serving(folder: Path, monkeypatch: pytest.MonkeyPatch, **values: Any) -> AsyncIterator[App]:
    """`serve --model` with that."""
    llama_server(folder, monkeypatch)
    async with running_app(folder, model=str(folder / "m.gguf"), **values) as app:
        await ready(app)
        yield app


async def test_a_request_that_comes_during_an_unload_starts_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that runs is finished first; nobody has to ask once more."""
    async with serving(tmp_path, monkeypatch) as app:
        first = aio.spawn(good(app, tokens=100), name="first")
        await until(lambda: station(app).gate.running)
        unload = aio.spawn(app.fleet.unload(""), name="unload")
        await until(lambda: app.fleet.supervisor.schedule.is_leaving(ENGINE))
        second = aio.spawn(good(app), name="second")
        assert [(await first).status, (await second).status] == [200, 200]
        await unload
        assert only(app).process.statistics().starts == 2


async def test_an_answer_that_outlasts_the_unload_is_cut_and_not_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets `kv.save_timeout`, as does what waits for it; clients hear why, and the engine stays unloaded."""
    async with serving(tmp_path, monkeypatch, kv={"save_timeout": 0.1}) as app:
        async with sent(app, data=ask(tokens=100_000)) as reader:
            await until(lambda: station(app).gate.running)
            waiting = aio.spawn(good(app), name="waiting")
            await until(lambda: station(app).gate.user_waiting)
            await app.fleet.unload("")
            answer = await reader.readuntil(b"(unload)")
            late = await waiting
        assert (late.status, '"the engine was unloaded"' in late.text) == (500, True)
        assert answer.startswith(b"HTTP/1.1 502")
        assert b'"the engine was stopped while it had this request (unload)' in answer
        assert (only(app).pid, only(app).process.statistics().starts) == (None, 1)
        assert only(app).unready() == "the engine is absent: it was unloaded, and starts again for the next request"


async def test_a_stream_that_outlasts_the_unload_ends_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with what the engine did then: it closed the connection."""
    async with serving(tmp_path, monkeypatch, kv={"save_timeout": 0.1}) as app:
        async with sent(app, data={**ask(tokens=100_000), "stream": True}) as reader:
            await reader.readuntil(b"data: ")
            await app.fleet.unload("")
            answer = await reader.readuntil(b"(unload)")
        assert b"the engine was stopped while it had this request (unload)" in answer


async def test_an_engine_that_cannot_be_started_again_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its program is gone since the unload: who asks for it does not wait for nothing."""
    async with serving(tmp_path, monkeypatch) as app:
        await app.fleet.unload("")
        (tmp_path / "llama-server").unlink()
        with pytest.raises(ModelFailed, match="cannot start llama-server"):
            await app.fleet.load("")
        assert "cannot start llama-server" in app.fleet.unready()
        answer = await good(app)
        assert answer.status == 500
        assert "cannot start llama-server" in answer.text


async def test_what_waits_for_nothing_is_told_why_there_is_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its health, or its list: that it was unloaded, or is paused; not that nothing answers at a port of ours."""
    async with serving(tmp_path, monkeypatch) as app:
        await app.fleet.unload("")
        for path in ("/health", "/v1/models", "/v1/models/m"):
            answer = await call(app.proxy_port, "GET", path)
            assert (answer.status, "it was unloaded, and starts again for" in answer.text) == (502, True)
        await app.pause.begin(None)
        for path in ("/health", "/v1/models", "/v1/models/m"):
            answer = await call(app.proxy_port, "GET", path)
            assert (answer.status, "bioproxy is paused" in answer.text) == (503, True)
            assert answer.headers["retry-after"] == "60"


async def test_who_waits_for_an_engine_that_does_not_come_is_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is being started, then how it ended: not that it was unloaded once, or that nothing answers."""
    async with serving(tmp_path, monkeypatch) as app:
        await app.fleet.unload("")
        assert "was unloaded" in app.fleet.unready()
        (tmp_path / "llama-server").write_text(f"#!/bin/sh\nread line < {tmp_path}/go\necho no card >&2\nexit 3\n")
        os.mkfifo(tmp_path / "go")
        asking = aio.spawn(good(app), name="request")
        await until(lambda: only(app).pid)
        assert app.fleet.unready() == "the engine is absent: it is being started"
        app.settings.take(msgspec.structs.replace(app.config, queue_timeout=0.05))
        late = await good(app)
        assert (late.status, "it is being started" in late.text) == (503, True)
        await asyncio.to_thread((tmp_path / "go").write_text, "\n")
        await until(lambda: "no card" in app.fleet.unready())
        late = await good(app)
        assert (late.status, "ended with exit code 3" in late.text) == (503, True)
        await aio.finish([asking])


async def test_the_end_of_the_program_says_nothing_of_an_engine_that_is_not_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on: it is not called absent because we leave."""
    async with FakeEngine() as engine:
        async with running_app(tmp_path, backend_url=engine.url) as app:
            await ready(app)
            caplog.clear()
        assert "is absent" not in caplog.text
        assert station(app).attachment.state == "ready"


async def test_a_pause_takes_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its end, with which it comes back without a request."""
    async with serving(tmp_path, monkeypatch, adjust=looks_follow) as app:
        await asyncio.gather(app.pause.begin(None), app.pause.begin(None))
        assert only(app).pid is None
        assert station(app).attachment.reason == "bioproxy is paused"
        assert (await good(app)).status == 503
        await app.pause.end()
        await ready(app)
        assert only(app).process.statistics().starts == 2


async def test_a_folder_for_slot_files_that_is_gone_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody tidied up. llama-server does not start without it, so no request would be answered any more."""
    async with serving(tmp_path, monkeypatch) as app:
        plan, pid = only(app).plan, only(app).pid
        assert plan is not None
        assert pid is not None
        shutil.rmtree(plan.slot_folder)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: only(app).process.statistics().starts == 2)
        assert Path(plan.slot_folder).is_dir()


async def test_a_folder_for_slot_files_of_models_that_is_gone_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same at a model's next start."""
    llama_server(tmp_path, monkeypatch)
    async with running_app(tmp_path, models={"a": {"cmd": "llama-server --port ${PORT}"}}) as app:
        for path in ("load/a", "unload/a"):
            assert (await call(app.proxy_port, "POST", f"/api/models/{path}")).status == 200
        shutil.rmtree(app.fleet.folder)
        assert (await call(app.proxy_port, "POST", "/api/models/load/a")).status == 200
        assert Path(app.fleet.folder).is_dir()


async def test_one_that_hangs_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why, and what it said last; who waited behind the request that hung gets the new process."""
    async with serving(tmp_path, monkeypatch, stall_timeout=0.2, adjust=looks_follow) as app:
        station(app).attachment.stall.recovery = 100 * MS
        faults = build("POST", "/fake/faults", body=b'{"stuck": true}')
        assert (await exchange(int(station(app).pool.origin.port), faults)).startswith(b"HTTP/1.1 200")
        first = aio.spawn(good(app), name="first")
        await until(lambda: station(app).gate.running)
        second = aio.spawn(good(app), name="second")
        assert (await first).status == 504
        station(app).attachment.stall.timeout = 60
        assert (await second).status == 200
        assert only(app).process.statistics().starts == 2
    [said] = [line for line in caplog.messages if line.startswith("the engine is started again: ")]
    assert "no sign of life" in said
    assert "last lines of its log:\nlistening on" in said
