"""`models`, `load`, `unload`, `top` and `logs` of a program with one engine: ours, or one that we attach to."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fakes.fake_engine import FakeEngine
from support.apps import engine_ready, running_app
from support.command import Ended, run
from support.http import call

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a shell script stands for llama-server")
FAKE = Path(__file__).parents[1] / "fakes" / "llama_server.py"
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@asynccontextmanager
async def ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Program]:
    """`serve --model tiny.gguf`, with a fake llama-server on PATH."""
    program = folder / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho hello-from-the-engine\nexec {sys.executable} {FAKE} "$@"\n')
    program.chmod(0o755)
    (folder / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    async with running_app(folder, model=str(folder / "tiny.gguf")) as app:
        await engine_ready(app)
        yield Program(folder, app.proxy_port, app.admin_port)


class Program:
    """A running bioproxy, and its command line."""

    def __init__(self, folder: Path, proxy: int, admin: int) -> None:
        self.folder, self.proxy, self.admin = folder, proxy, admin

    async def verb(self, *words: str) -> Ended:
        """A verb, with the program's own configuration."""
        config = str(self.folder / "conf.json")
        return await run(self.folder, *words, "-config", config, "-admin-port", str(self.admin))

    async def chat(self) -> int:
        """The status of a request."""
        return (await call(self.proxy, "POST", "/v1/chat/completions", data=CHAT)).status


async def test_models_and_top_show_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a row, as one of many; the command can be pasted, and the log says what the engine wrote."""
    async with ours(tmp_path, monkeypatch) as program:
        assert await program.chat() == 200
        models, top = await program.verb("models", "--json"), await program.verb("top")
        logs, own = await program.verb("logs", "engine"), await program.verb("logs", "proxy")
        wrong = await program.verb("logs", "engin")
    (row,) = json.loads(models.out)
    assert (row["state"], row["starts"], row["running"]) == ("ready", 1, 0)
    assert row["pid"]
    assert "tiny" in [row["model"], *row["aliases"]]
    assert "--model" in row["command"]
    assert "1 of 1 models ready" in top.out
    assert "hello-from-the-engine" in logs.out
    assert (own.code, wrong.code) == (0, 1)
    assert "did you mean engine?" in wrong.err


async def test_unload_stops_an_engine_of_ours_and_the_next_request_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so does `load`; unloading it twice is no error."""
    async with ours(tmp_path, monkeypatch) as program:
        first = json.loads((await program.verb("models", "--json")).out)[0]["pid"]
        stopped, again = await program.verb("unload"), await program.verb("unload", "tiny")
        (row,) = json.loads((await program.verb("models", "--json")).out)
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        assert await program.chat() == 200
        await program.verb("unload")
        loaded = await program.verb("load", "tiny")
        (last,) = json.loads((await program.verb("models", "--json")).out)
    assert (stopped.code, again.code) == (0, 0)
    assert "was not loaded" in again.out
    assert (row["state"], row["pid"], row["reason"]) == ("stopped", None, "")
    assert "is ready" in loaded.out
    assert (last["state"], last["starts"]) == ("ready", 3)


async def test_an_engine_that_is_not_ours_is_not_stopped(tmp_path: Path) -> None:
    """It is looked at, `load` says that it is there, and `unload` says whose it is."""
    async with FakeEngine() as engine, running_app(tmp_path, backend_url=engine.url) as app:
        await engine_ready(app)
        program = Program(tmp_path, app.proxy_port, app.admin_port)
        models, loaded = await program.verb("models"), await program.verb("load", "engine")
        stopped, unknown = await program.verb("unload"), await program.verb("load", "engin")
        assert await program.chat() == 200
    assert "ready" in models.out
    assert loaded.code == 0
    assert stopped.code == 1
    assert "was not started by this bioproxy" in stopped.err
    assert "did you mean engine?" in unknown.err


LOOKING = ("models", "status", "requests", "doctor", "logs", "snapshots list", "snapshots verify", "contexts list")
CHANGING = (
    "unload", "load engine", "pause", "resume", "warm @code", "snapshots prune --older 0", "snapshots delete x",
    "snapshots pin x", "snapshots unpin x", "contexts keep x y", "contexts rename x y", "contexts delete x",
    "contexts import x",
)  # fmt: skip


async def test_a_program_with_another_configuration_is_named(tmp_path: Path) -> None:
    """What only shows says who answered; what changes something is refused, and says how to choose another."""
    async with FakeEngine() as engine, running_app(tmp_path, backend_url=engine.url) as app:
        await engine_ready(app)
        other = tmp_path / "other.json"
        other.write_text("{}")
        words = ("-config", str(other), "-admin-port", str(app.admin_port))
        shown = [await run(tmp_path, *verb.split(), *words) for verb in LOOKING]
        refused = [await run(tmp_path, *verb.split(), *words) for verb in CHANGING]
        unlike = await run(tmp_path, "models", "-admin-port", str(app.admin_port))
    for verb, ended in zip(LOOKING, shown, strict=True):
        assert (verb, ended.code, f"pid {os.getpid()}" in ended.err) == (verb, 0, True), ended.err
    for verb, ended in zip(CHANGING, refused, strict=True):
        assert (verb, ended.code, "runs the configuration conf.json-" in ended.err) == (verb, 1, True), ended.err
        assert "-admin-port" in ended.err
    assert unlike.err == ""  # no configuration was named
