"""kill -9 of the whole program, in each state: nothing is left, and the next start of the same file works."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from bioproxy.models.unit import MARK
from support.swap_client import server
from support.swap_models import engine_words, fake, fakes
from support.swap_rig import Rig, swap_rig

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
Json = Any


def parent(pid: int) -> int:
    """Who started a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def shims(rig: Rig) -> list[int]:
    """The programs between ours and the engines."""
    return [pid for pid in rig.children() if parent(pid) == rig.child.pid]


def behind_a_shell(folder: Path, words: str = "") -> Json:
    """A model whose engine is a shell's child, so that no parent-death signal reaches it."""
    return {"cmd": f'sh -c "{engine_words(folder / "events.jsonl", words)}; true"', "unloadTimeout": 1}


def engine(rig: Rig, model: str = "a") -> int:
    """The newest engine's pid."""
    return rig.log.of("start", model)[-1].pid


async def kill_all_of_ours(rig: Rig) -> None:
    """The program and its shims, at once: nobody is left to clean up."""
    await rig.noted()
    watchers = shims(rig)
    for pid in watchers:
        os.kill(pid, signal.SIGSTOP)
    await rig.child.kill()
    for pid in watchers:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("state", ["starting", "held", "stopping", "mid-swap"])
async def test_a_start_after_a_kill(state: str, tmp_path: Path) -> None:
    """Whatever it was doing: no engine outlives it, and at the next start every model can be had."""
    slow = " --health-503-for 60" if state == "starting" else " --slow-stop 0.2"
    async with swap_rig(tmp_path, {"a": fake("--fork-child --setsid" + slow), "b": fake()}, child=True) as rig:
        rig.ask("a", **({"hold": 0} if state == "held" else {}))
        await rig.until_event({"starting": "listening", "held": "held"}.get(state, "end"), "a")
        if state == "stopping":
            rig.asked.append(aio.spawn(rig.post("/api/models/unload/a"), name="unload"))
        elif state == "mid-swap":
            rig.ask("b")
        if state in {"stopping", "mid-swap"}:
            await rig.until_event("sigterm", "a")
        await rig.child.kill()
        await rig.leave()
        rig.asked.clear()
        rig.configure(fakes("a b"))
        await rig.child.start()
        assert server(await rig.chat("b")) == "b"
        assert server(await rig.chat("a")) == "a"
        await rig.until(lambda: len(rig.children()) == 2)  # the shim and the engine
    assert not rig.log.overlap("a a", "a a")


@pytest.mark.parametrize("words", ["", "--slow-stop 0.7 --fork-child --setsid"])
async def test_the_next_start_ends_an_engine_that_nobody_watches(words: str, tmp_path: Path) -> None:
    """Killed with its shim, behind a shell; it holds the port, and a request that comes at once waits for that."""
    async with swap_rig(tmp_path, {"a": behind_a_shell(tmp_path, words)}, child=True) as rig:
        await rig.chat("a")
        left = engine(rig)
        await kill_all_of_ours(rig)
        assert left in rig.children()
        await rig.child.start()
        assert server(await rig.chat("a")) == "a"
        assert engine(rig) != left
        assert left not in rig.children()
    assert not rig.log.overlap("a a", "a a")


@asynccontextmanager
async def stranger(token: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The same program with the same name, started by somebody else."""
    words = [sys.executable, "-I", "-S", str(Path(__file__).parents[1] / "fakes" / "swap_engine.py"), "--model", "a"]
    environment = {"PATH": os.environ["PATH"], **({MARK: token} if token else {})}
    process = await asyncio.create_subprocess_exec(*words, env=environment, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("token", ["", "0123456789abcdef/a"])
async def test_the_next_start_ends_nothing_else(token: str, tmp_path: Path) -> None:
    """Neither a program that looks the same, nor one that another bioproxy started."""
    async with swap_rig(tmp_path, {"a": behind_a_shell(tmp_path)}, child=True) as rig, stranger(token) as other:
        await rig.chat("a")
        left = engine(rig)
        await kill_all_of_ours(rig)
        await rig.child.start()
        await rig.until(lambda: left not in rig.children())
        assert other.returncode is None
        assert server(await rig.chat("a")) == "a"


async def test_a_register_that_names_strangers(tmp_path: Path) -> None:
    """A file that is broken or made up: the number of a process of somebody else with another start time."""
    async with swap_rig(tmp_path, fakes("a"), child=True) as rig, stranger("") as other:
        await rig.chat("a")
        register = await rig.noted()
        made_up = register.read_text().replace(f'"pid":{engine(rig)}', f'"pid":{other.pid}')
        assert str(other.pid) in made_up
        await rig.child.kill()
        await rig.until(lambda: not rig.children())
        register.write_text(made_up)
        await rig.child.start()
        assert server(await rig.chat("a")) == "a"
        assert other.returncode is None


async def test_nothing_is_noted_after_an_orderly_end(tmp_path: Path) -> None:
    """The next start has nothing to look for."""
    async with swap_rig(tmp_path, fakes("a"), child=True) as rig:
        await rig.chat("a")
        assert await rig.child.stop() == 0
        (register,) = (tmp_path / "state").rglob("engines.json")
        assert register.read_text() == "[]"


async def test_the_register_tells_no_secrets(tmp_path: Path) -> None:
    """A key in a command does not stand in one file more."""
    words = engine_words(tmp_path / "events.jsonl")
    async with swap_rig(tmp_path, {"a": {"cmd": f"{words}", "env": ["HF_TOKEN=s3cret"]}}, child=True) as rig:
        await rig.chat("a")
        register = await rig.noted()
        assert "s3cret" not in register.read_text()


async def test_a_program_that_starts_beside_another_one_ends_nothing_of_it(tmp_path: Path) -> None:
    """A second one on the same port cannot listen, and must not touch the engines of the first on its way out.

    Nor what the first noted of them, or nobody would find them after a crash.
    """
    async with swap_rig(tmp_path, fakes("a"), child=True) as rig:
        await rig.chat("a")
        register = await rig.noted()
        noted = register.read_text()
        second = await asyncio.create_subprocess_exec(
            *rig.child.command(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await second.communicate()
        assert second.returncode == 1
        assert b"taken" in out
        assert register.read_text() == noted
        assert server(await rig.chat("a")) == "a"
    assert rig.log.starts() == ["a"]
