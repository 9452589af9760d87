"""The owner of a child process: started again, restarted, cancelled at awkward moments."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bioproxy import aio
from bioproxy.engines import child
from bioproxy.engines import process as process_module
from bioproxy.engines.process import Exit, Process, State
from bioproxy.errors import EngineUnavailable
from support.unit_rig import Beacons, beacons

MS = 0.001
SERVES = 'held = beacon("engine"); for_ever()'
HAS_A_CHILD = 'child("grandchild"); held = beacon("engine"); for_ever()'


@pytest.fixture
async def watched() -> AsyncIterator[Beacons]:
    """What hears of the programs' lives and deaths."""
    async with beacons() as found:
        yield found


async def test_run_starts_a_dead_child_again(watched: Beacons) -> None:
    """Each life has a pid of its own, each end is told."""
    ends: asyncio.Queue[Exit] = asyncio.Queue()
    process = Process(watched.command("sys.exit(4)"), name="engine", on_exit=ends.put_nowait, first_delay=1 * MS)
    service = aio.spawn(process.run(), name="service")
    first, second, third = await ends.get(), await ends.get(), await ends.get()
    assert len({first.pid, second.pid, third.pid}) == 3
    await process.stop()
    await service
    assert process.statistics().starts >= 3


async def test_run_keeps_trying_a_command_that_is_not_there_yet(watched: Beacons, tmp_path: Path) -> None:
    """A binary that is being replaced comes back."""
    program = tmp_path / "engine"
    process = Process([str(program)], name="engine", first_delay=1 * MS)
    service = aio.spawn(process.run(), name="service")
    while process.statistics().state != "waiting":  # noqa: ASYNC110 - one turn of the loop
        await asyncio.sleep(0)
    words = " ".join(f"'{word}'" for word in watched.command('held = beacon("engine"); for_ever()'))
    (tmp_path / "new").write_text(f"#!/bin/sh\nexec {words}\n")
    (tmp_path / "new").chmod(0o755)
    (tmp_path / "new").rename(program)
    await watched.arrived("engine")
    await process.stop()
    await service


async def test_a_restart_has_no_pause(watched: Beacons) -> None:
    """What we ended ourselves did not fail: no back-off."""
    process = Process(watched.command(SERVES), name="engine", first_delay=3600.0)
    service = aio.spawn(process.run(), name="service")
    await watched.arrived("engine")
    first = process.pid
    watched.here.clear()
    await process.restart()
    await watched.arrived("engine")
    assert process.pid != first
    await process.stop()
    await service


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shims that never say a word, as one that starts a program on a disk that is away."""
    monkeypatch.setattr(child, "shim_command", lambda: [sys.executable, "-c", "import time; time.sleep(3600)"])
    monkeypatch.setattr(process_module, "SLACK", 20 * MS)


@pytest.mark.usefixtures("silent")
async def test_a_stop_does_not_wait_for_a_start_that_hangs(watched: Beacons, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shim is killed, whoever waits for the start hears why it failed, and nothing is left."""

    def kill(life: child.Life) -> None:
        monkeypatch.setattr(process_module, "SLACK", 10.0)  # a busy machine may take its time to reap it
        real(life)

    real = child.Life.kill
    monkeypatch.setattr(child.Life, "kill", kill)
    process = Process(watched.command(SERVES), name="engine")
    starting = aio.spawn(process.start(), name="start")
    while process.life is None:  # noqa: ASYNC110 - one turn of the loop
        await asyncio.sleep(0)
    shim = process.life.popen
    assert await process.stop(grace=3600.0) is None
    with pytest.raises(EngineUnavailable, match="ended at once"):
        await starting
    assert shim.poll() is not None


@pytest.mark.usefixtures("silent")
async def test_a_stop_does_not_wait_for_what_cannot_be_killed(
    watched: Beacons, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even SIGKILL ends what waits in the kernel for a disk that is away: it is left behind, and named."""
    monkeypatch.setattr(child.Life, "kill", lambda _life: None)
    process = Process(watched.command(SERVES), name="engine")
    starting = aio.spawn(process.start(), name="start")
    while process.life is None:  # noqa: ASYNC110 - one turn of the loop
        await asyncio.sleep(0)
    life = process.life
    assert await process.stop(grace=3600.0) is None
    assert "engine hangs in its start" in caplog.text
    await aio.finish([starting])
    assert f"process {life.popen.pid} is left behind" in caplog.text
    life.popen.kill()
    await life.bury()


async def test_cancelling_run_ends_the_child(watched: Beacons) -> None:
    """The owner's end is the child's, and comes first."""
    process = Process(watched.command(SERVES), name="engine")
    service = aio.spawn(process.run(), name="service")
    await watched.arrived("engine")
    await aio.finish([service])
    assert process.pid is None
    await watched.gone("engine")


async def test_a_cancelled_start_leaves_no_child(watched: Beacons) -> None:
    """Between the process and the news of its pid there is a moment; a cancel that lands there loses nothing."""
    process = Process(watched.command(SERVES), name="engine")
    attempt = aio.spawn(process.start(), name="attempt")
    while process.starts == 0:  # noqa: ASYNC110 - one turn of the loop
        await asyncio.sleep(0)
    await aio.finish([attempt])
    assert attempt.cancelled()
    assert process.statistics().state == "stopped"
    assert process.life is None


async def test_a_stop_during_a_start_wins(watched: Beacons) -> None:
    """Whoever asked for the end last gets it."""
    process = Process(watched.command(SERVES), name="engine")
    attempt = aio.spawn(process.start(), name="attempt")
    while process.starts == 0:  # noqa: ASYNC110 - one turn of the loop
        await asyncio.sleep(0)
    await process.stop()
    await attempt
    assert process.pid is None


async def test_a_state_follows_only_by_the_table(watched: Beacons) -> None:
    """A life is started, runs, and is stopped; nothing runs that was not started."""
    process = Process(watched.command(SERVES), name="engine")
    with pytest.raises(RuntimeError, match="engine cannot be running after it was stopped"):
        process.become(State.RUNNING)
    starting = aio.spawn(process.start(), name="start")
    while process.life is None:  # noqa: ASYNC110 - one turn of the loop
        await asyncio.sleep(0)
    states = [process.state]
    await starting
    states.append(process.state)
    stopping = aio.spawn(process.stop(), name="stop")
    while process.state is State.RUNNING:  # noqa: ASYNC110 - one turn of the loop
        await asyncio.sleep(0)
    states.append(process.state)
    await stopping
    assert [*states, process.state] == [State.STARTING, State.RUNNING, State.STOPPING, State.STOPPED]


async def test_two_starts_are_one_child(watched: Beacons) -> None:
    """They get the same pid."""
    process = Process(watched.command(SERVES), name="engine")
    first, second = await asyncio.gather(process.start(), process.start())
    assert first == second
    assert process.statistics().starts == 1
    await process.stop()


def test_the_same_on_uvloop() -> None:
    """The other loop that bioproxy runs on: start, restart, stop."""

    async def scenario() -> list[str]:
        async with beacons() as watched:
            process = Process(watched.command(HAS_A_CHILD), name="engine")
            service = aio.spawn(process.run(), name="service")
            await watched.arrived("engine")
            watched.here.clear()
            await process.restart()
            await watched.arrived("engine")
            await process.stop()
            await service
            await watched.gone("grandchild")
            return [process.state, str(process.starts)]

    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scenario()) == ["stopped", "2"]
