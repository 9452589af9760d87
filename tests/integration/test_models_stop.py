"""How a model is stopped: SIGTERM or `cmdStop`, time to end, then SIGKILL, and everything that it started goes too."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from bioproxy import aio
from support.swap_client import message, server
from support.swap_models import apart, fake, fakes
from support.swap_rig import swap_rig


async def test_a_swap_stops_one_model_and_then_starts_the_other(tmp_path: Path) -> None:
    """The first has SIGTERM and is gone before the second begins."""
    async with swap_rig(tmp_path, fakes("a b", "--slow-stop 0.1")) as rig:
        await rig.chat("a")
        assert server(await rig.chat("b")) == "b"
        assert await rig.running() == {"b": "ready"}
    assert rig.log.of("sigterm", "a")
    assert rig.log.of("exit", "a")[0].t < rig.log.of("start", "b")[0].t
    assert not rig.log.overlap("a", "b")


async def test_an_engine_gets_its_time_to_end(tmp_path: Path) -> None:
    """What it does after SIGTERM is not cut short."""
    async with swap_rig(tmp_path, {"a": fake("--slow-stop 0.5", unloadTimeout=5)}) as rig:
        await rig.chat("a")
        await rig.post("/api/models/unload/a")
        assert rig.log.of("exit", "a")[0].why == "sigterm"


async def test_an_engine_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """After `unloadTimeout`, and the call that wanted it gone returns when it is."""
    async with swap_rig(tmp_path, {"a": fake("--ignore-sigterm", unloadTimeout=1)}) as rig:
        await rig.chat("a")
        assert (await rig.post("/api/models/unload/a")).status == 200
        assert rig.children() == []
    assert rig.log.of("sigterm", "a")
    assert not rig.log.of("exit", "a")


async def test_a_swap_does_not_wait_for_ever_for_an_engine_that_ignores_sigterm(tmp_path: Path) -> None:
    """`unloadTimeout` counts here too; llama-swap waits for `healthCheckTimeout`."""
    async with swap_rig(tmp_path, {"a": fake("--ignore-sigterm", unloadTimeout=1), "b": fake()}) as rig:
        await rig.chat("a")
        assert server(await rig.chat("b")) == "b"
    assert not rig.log.overlap("a", "b")


@pytest.mark.parametrize(
    "child",
    ["", "--deaf-child", "--setsid", "--setsid --deaf-child"],
    ids=["in the group", "deaf", "apart", "apart, deaf"],
)
async def test_what_an_engine_started_goes_with_it(child: str, tmp_path: Path) -> None:
    """A child in its group, and one that has left the group; also if they ignore SIGTERM."""
    async with swap_rig(tmp_path, {"a": fake(f"--fork-child {child}", unloadTimeout=1)}) as rig:
        await rig.chat("a")
        assert len(rig.log.of("child")) == 1
        await rig.post("/api/models/unload/a")
        assert rig.children() == []


async def test_a_stop_command_is_run_instead_of_a_signal(tmp_path: Path) -> None:
    """It gets the engine's pid and environment."""
    stop = f'sh -c "echo $COLOUR ${{PID}} > {tmp_path}/told; kill -9 ${{PID}}"'
    async with swap_rig(tmp_path, {"a": fake(cmdStop=stop, env=["COLOUR=red"])}) as rig:
        await rig.chat("a")
        await rig.post("/api/models/unload/a")
        assert rig.children() == []
        await rig.until(lambda: rig.said("was ended by SIGKILL after"))
        assert not rig.said("[ERROR]")
    assert (tmp_path / "told").read_text().split() == ["red", str(rig.log.of("start")[0].pid)]
    assert not rig.log.of("sigterm")


@pytest.mark.parametrize(
    ("stop", "why"),
    [
        ('sh -c "echo no such container >&2; exit 3"', "its stop command failed"),
        ("/no/such/program", "its stop command (cmdStop) cannot be run"),
        ('sh -c "exit 1"', "its stop command failed"),
    ],
)
async def test_a_stop_command_that_fails_is_followed_by_a_signal_at_once(stop: str, why: str, tmp_path: Path) -> None:
    """Its time to end is an hour, and it ends now, in order; the log says what became of the command."""
    async with swap_rig(tmp_path, {"a": fake(cmdStop=stop, unloadTimeout=3600)}) as rig:
        await rig.chat("a")
        assert (await rig.post("/api/models/unload/a")).status == 200
        assert rig.children() == []
        assert await rig.running() == {}
        await rig.until(lambda: rig.said(why))  # a line may be read after the answer
        (told,) = rig.said(why)
    assert "SIGTERM" in told
    assert 'said "no such container" and ended with exit code 3' in told or "echo" not in stop
    assert rig.log.of("sigterm")


async def test_a_stop_command_without_effect_is_followed_by_a_signal_when_its_time_is_over(tmp_path: Path) -> None:
    """SIGTERM before SIGKILL: what runs behind the process hears of the first only."""
    async with swap_rig(tmp_path, {"a": fake(cmdStop="true", unloadTimeout=1)}) as rig:
        await rig.chat("a")
        await rig.post("/api/models/unload/a")
        assert rig.children() == []
        await rig.until(lambda: len(rig.said("did not end within 1 s of its stop command")) == 1)
        assert not rig.said("[ERROR]")  # the command itself ended well
    assert rig.log.of("sigterm")


async def test_a_model_that_is_asked_for_while_it_stops_starts_again(tmp_path: Path) -> None:
    """Afterwards: there are never two processes of one model."""
    async with swap_rig(tmp_path, {"a": fake("--slow-stop 0.4")}) as rig:
        await rig.chat("a")
        unload = aio.spawn(rig.post("/api/models/unload/a"), name="unload")
        await rig.until_event("sigterm", "a")
        assert server(await rig.chat("a")) == "a"
        assert (await unload).status == 200
    assert rig.log.starts() == ["a", "a"]
    assert not rig.log.overlap("a a", "a a")


async def test_a_model_that_is_being_evicted_comes_back_afterwards(tmp_path: Path) -> None:
    """Its new request waits until the other model has served who displaced it."""
    async with swap_rig(tmp_path, fakes("a b", "--slow-stop 0.3")) as rig:
        await rig.chat("a")
        displacing = rig.ask("b")
        await rig.until_event("sigterm", "a")
        assert server(await rig.chat("a")) == "a"
        assert server(await displacing) == "b"
    assert rig.log.starts() == ["a", "b", "a"]
    assert rig.log.served() == ["a", "b", "a"]


async def test_a_stop_ends_a_start(tmp_path: Path) -> None:
    """The process that was not ready yet is gone when the unload returns."""
    async with swap_rig(tmp_path, {"a": fake("--health-503-for 60")}) as rig:
        rig.ask("a")
        await rig.until_event("listening", "a")
        await rig.post("/api/models/unload/a")
        assert rig.children() == []


async def test_the_end_of_the_program_stops_its_engines(tmp_path: Path) -> None:
    """Politely, all of them, and its exit code is 0."""
    async with swap_rig(tmp_path, fakes("a b"), groups=apart("a b"), child=True) as rig:
        await rig.chat("a")
        await rig.chat("b")
        assert await rig.child.stop() == 0
        assert rig.children() == []
    assert {told.model for told in rig.log.of("sigterm")} == {"a", "b"}


async def test_streams_finish_before_the_program_ends(tmp_path: Path) -> None:
    """Who is being served is served to the end; who waits for a model is told at once."""
    async with swap_rig(tmp_path, fakes("a b"), child=True) as rig, rig.stream("a", events=4, hold=2) as stream:
        await stream.head()
        await rig.until_event("held", "a")
        queued = await rig.ask_queued("b")
        rig.child.signal(signal.SIGTERM)
        answer = await queued
        await rig.release("a")
        assert (await stream.rest())[-1] == "[DONE]"
        assert await rig.child.wait() == 0
    assert answer.status == 503
    assert "shutting down" in message(answer)


async def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """And the engines go all the same."""
    async with swap_rig(tmp_path, fakes("a", "--slow-stop 0.3"), child=True) as rig:
        await rig.ask_held("a")
        rig.child.signal(signal.SIGTERM)
        await rig.until(lambda: rig.said("stopping"))
        rig.child.signal(signal.SIGTERM)
        assert await rig.child.wait() == 128 + signal.SIGTERM
        await rig.until(lambda: not rig.children())
    assert rig.log.of("exit", "a")[0].why == "sigterm"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("state", ["starting", "ready", "stopping"])
async def test_no_engine_outlives_a_program_that_is_killed(state: str, tmp_path: Path) -> None:
    """In whatever state it was, children of the engine included."""
    words = "--fork-child --slow-stop 0.5" + " --health-503-for 60" * (state == "starting")
    async with swap_rig(tmp_path, {"a": fake(words)}, child=True) as rig:
        rig.ask("a")
        await rig.until_event("child", "a")
        if state != "starting":
            await rig.until_event("end", "a")
        if state == "stopping":
            unload = aio.spawn(rig.post("/api/models/unload/a"), name="unload")
            await rig.until_event("sigterm", "a")
            rig.asked.append(unload)
        await rig.child.kill()
        await rig.until(lambda: not rig.children())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_the_next_start_ends_what_an_earlier_one_left(tmp_path: Path) -> None:
    """The watcher of the engine was frozen when the program was killed, so the engine lived on."""
    async with swap_rig(tmp_path, {"a": fake()}, child=True) as rig:
        await rig.chat("a")
        engine = rig.log.of("start")[0].pid
        shim = int(Path(f"/proc/{engine}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(shim, signal.SIGSTOP)
        try:
            await rig.noted()
            await rig.child.kill()
            assert engine in rig.children()
            await rig.child.start()
            await rig.until(lambda: engine not in rig.children())
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(shim, signal.SIGCONT)
        assert server(await rig.chat("a")) == "a"
