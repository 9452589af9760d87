"""Engines as child processes: real ones, that ignore signals, fork, flood, and lose their parent."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bioproxy import aio
from bioproxy.engines import child, shim
from bioproxy.engines.output import LogTail
from bioproxy.engines.process import Exit, Process
from bioproxy.errors import EngineUnavailable
from support.unit_rig import Beacons, beacons

MS = 0.001
SERVES = 'held = beacon("engine"); for_ever()'
IGNORES_SIGTERM = 'deaf(); held = beacon("engine"); for_ever()'
HAS_A_CHILD = 'child("grandchild"); held = beacon("engine"); for_ever()'
HAS_A_DEAF_CHILD = 'child("grandchild", lambda: (deaf(), for_ever())); held = beacon("engine"); for_ever()'
HAS_A_CHILD_IN_ANOTHER_SESSION = (
    'child("grandchild", lambda: (os.setsid(), for_ever())); held = beacon("engine"); for_ever()'
)


@pytest.fixture
async def watched() -> AsyncIterator[Beacons]:
    """What hears of the programs' lives and deaths."""
    async with beacons() as found:
        yield found


async def started(watched: Beacons, program: str) -> Process:
    """A running process that has called itself `engine`."""
    process = Process(watched.command(program), name="engine")
    await process.start()
    await watched.arrived("engine")
    return process


async def run_to_the_end(program: str) -> tuple[Process, Exit]:
    """A program that ends by itself, and how it did."""
    process = Process([sys.executable, "-I", "-S", "-c", program], name="engine")
    await process.start()
    return process, await process.wait()


async def test_a_child_is_started_with_its_own_pid_and_ends_at_a_stop(watched: Beacons) -> None:
    """The pid is the engine's own, not that of what watches it, and SIGTERM is enough."""
    process = await started(watched, SERVES)
    assert process.pid is not None
    assert process.pid == process.statistics().pid
    assert b"for_ever" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    ended = await process.stop()
    assert ended is not None
    assert (ended.code, ended.expected) == (-signal.SIGTERM, True)
    assert process.statistics().state == "stopped"
    await watched.gone("engine")


async def test_a_child_that_ignores_sigterm_is_killed(watched: Beacons) -> None:
    """After the grace, SIGKILL."""
    process = await started(watched, IGNORES_SIGTERM)
    ended = await process.stop(grace=20 * MS)
    assert ended is not None
    assert ended.code == -signal.SIGKILL
    await watched.gone("engine")


async def test_a_second_stop_with_less_grace_counts(watched: Beacons) -> None:
    """A second signal to bioproxy does not wait for the first one's patience."""
    process = await started(watched, IGNORES_SIGTERM)
    patient = aio.spawn(process.stop(grace=3600), name="patient")
    while process.state != "stopping":  # noqa: ASYNC110 - one turn of the loop
        await asyncio.sleep(0)
    await process.stop(grace=0)
    assert (await patient) == process.last_exit


@pytest.mark.parametrize("program", [HAS_A_CHILD, HAS_A_DEAF_CHILD, HAS_A_CHILD_IN_ANOTHER_SESSION])
async def test_a_stop_ends_grandchildren_too(watched: Beacons, program: str) -> None:
    """Whatever the engine started goes with it: in its group, deaf, or in a session of its own."""
    process = await started(watched, program)
    await watched.arrived("grandchild")
    await process.stop(grace=50 * MS)
    await watched.gone("grandchild")


async def test_a_shell_in_between_changes_nothing(watched: Beacons) -> None:
    """`sh -c` gets the signal, and so does what it runs."""
    quoted = " ".join(f"'{word}'" for word in watched.command('held = beacon("engine"); for_ever()'))
    process = Process(["sh", "-c", f"{quoted}; true"], name="engine")
    await process.start()
    await watched.arrived("engine")
    await process.stop()
    await watched.gone("engine")


async def test_what_a_dead_engine_leaves_behind_is_ended(watched: Beacons) -> None:
    """An engine that dies must not leave a child on its port; the end is told when all are gone."""
    process = await started(watched, 'child("grandchild"); held = beacon("engine"); held.recv(1); sys.exit(3)')
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    assert (await process.wait()).code == -signal.SIGKILL
    await watched.gone("grandchild")


async def test_a_group_goes_when_its_parent_is_killed(watched: Beacons, tmp_path: Path) -> None:
    """Kill -9 of bioproxy: the shim reads end of file and ends the engine and its children."""
    program = tmp_path / "parent.py"
    program.write_text(
        textwrap.dedent(f"""
        import asyncio
        from bioproxy.engines.process import Process
        async def main():
            process = Process({watched.command(HAS_A_CHILD)!r}, name="engine")
            await process.run()
        asyncio.run(main())
        """)
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, str(program))
    await watched.arrived("engine")
    parent.kill()
    await parent.wait()
    await watched.gone("engine")
    await watched.gone("grandchild")


async def test_an_engine_does_not_outlive_a_killed_shim(watched: Beacons) -> None:
    """Killing everything called bioproxy hits the shim as well; the engine's end is still seen and told."""
    process = await started(watched, HAS_A_CHILD)
    assert process.life is not None
    process.life.popen.kill()
    ended = await process.wait()
    assert ended.code is None
    assert "killed together with the process that watched it" in ended.reason
    await watched.gone("engine")
    await watched.gone("grandchild")


async def test_a_stopped_shim_does_not_save_its_engine(watched: Beacons, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shim that hangs (SIGSTOP) is killed with its charge once its time is up."""
    monkeypatch.setattr("bioproxy.engines.process.SLACK", 20 * MS)
    process = await started(watched, SERVES)
    assert process.life is not None
    kill = process.life.kill

    def killed() -> None:
        monkeypatch.setattr("bioproxy.engines.process.SLACK", 10.0)  # a busy machine may take its time to reap it
        kill()

    monkeypatch.setattr(process.life, "kill", killed)
    process.life.popen.send_signal(signal.SIGSTOP)
    assert await process.stop(grace=0) is not None
    await watched.gone("engine")


async def test_sigterm_to_the_shim_ends_the_engine(watched: Beacons) -> None:
    """A service manager that signals every process of ours finds each of them willing."""
    process = await started(watched, SERVES)
    assert process.life is not None
    process.life.popen.terminate()
    assert (await process.wait()).code == -signal.SIGTERM


async def test_the_reason_says_exit_code_and_last_line() -> None:
    """What an operator needs stands in one sentence."""
    process, ended = await run_to_the_end(
        "import sys; print('loading', flush=True); print('no such model', file=sys.stderr); sys.exit(7)"
    )
    assert ended.code == 7
    assert not ended.expected
    assert f'engine (pid {ended.pid}) said "no such model" and ended with exit code 7 after' in ended.reason
    assert process.statistics().last_exit == ended.reason
    assert process.said() == ("loading", "no such model")


async def test_an_end_that_is_expected_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    """A brief command's own, and that of one that a command is about to end, which may be done before it says so."""
    brief = Process([sys.executable, "-c", "print('done')"], name="brief", brief=True)
    await brief.start()
    assert (await brief.wait()).expected
    other = Process([sys.executable, "-c", "import time; time.sleep(100)"], name="other")
    pid = await other.start()
    other.expect_end()
    os.kill(pid, signal.SIGKILL)
    assert (await other.wait()).expected
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_the_reason_names_the_signal() -> None:
    """An abort of llama.cpp reads as one."""
    _, ended = await run_to_the_end("import os; os.abort()")
    assert ended.code == -signal.SIGABRT
    assert "was ended by SIGABRT after" in ended.reason


async def test_only_the_end_of_a_flood_is_kept() -> None:
    """100 MB of lines cost neither memory nor the loop's patience; the last 200 lines are there."""
    flood = "import sys\nfor _ in range(1000): sys.stdout.buffer.write((b'x' * 98 + b'\\n') * 1010)\nprint('end')"
    process, _ = await run_to_the_end(flood)
    assert process.tail.bytes_in == 1000 * 1010 * 99 + 4
    assert len(process.said()) == 200
    assert process.said()[-1] == "end"


async def test_a_line_without_end_is_cut() -> None:
    """10 MB without a newline, and bytes that are no text."""
    process, _ = await run_to_the_end("import sys; sys.stdout.buffer.write(b'\\xff\\x00\\x1b' * 3_000_000)")
    assert len(process.said()) == 1
    assert len(process.said()[0]) <= 4096
    assert set(process.said()[0]) == {"\ufffd"}


async def test_a_child_that_closes_its_output_still_runs(watched: Beacons) -> None:
    """The end of its output is not its end."""
    process = await started(watched, 'os.close(1); os.close(2); held = beacon("engine"); for_ever()')
    assert process.life is not None
    assert process.statistics().state == "running"
    await process.stop()


async def test_output_that_an_escaped_process_holds_open_delays_nothing(watched: Beacons) -> None:
    """The end is told though the pipe stays open (here: in our own hands)."""
    process = await started(watched, SERVES)
    held = os.open(f"/proc/{process.pid}/fd/1", os.O_WRONLY)
    try:
        assert await process.stop() is not None
    finally:
        os.close(held)


async def test_the_child_gets_default_signals_and_an_empty_input() -> None:
    """Nothing is blocked, SIGTERM ends it, and reading the input finds its end."""
    process, _ = await run_to_the_end(
        "import signal, sys\n"
        "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.pthread_sigmask(0, []), sys.stdin.read())"
    )
    assert process.said() == ("True set() ",)


async def test_what_python_ignores_is_not_handed_down() -> None:
    """No signal is ignored but those that whoever started us had ignored (a shell does that to what it runs with &)."""
    process = Process(["grep", "SigIgn", "/proc/self/status"], name="engine")
    await process.start()
    await process.wait()
    mask = int(process.said()[0].split()[1], 16)
    ignored = {number for number in range(1, 32) if mask >> (number - 1) & 1}  # those above are the C library's
    ours = {number for number in range(1, 32) if signal.getsignal(number) == signal.SIG_IGN}
    assert ignored <= ours - {signal.SIGPIPE, signal.SIGXFSZ}


async def test_the_child_inherits_no_descriptor_of_ours() -> None:
    """A listener that an engine inherits would keep our port after our end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        os.set_inheritable(listener.fileno(), True)
        process, _ = await run_to_the_end(
            "import os; print(sorted(os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')))"
        )
    assert process.said() == ("['0', '1', '2'] 4",)  # the fourth is the listing itself


async def test_environment_and_folder_reach_the_child(tmp_path: Path) -> None:
    """Exactly what was given."""
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        "import os; print(os.environ.get('COLOUR'), 'HOME' in os.environ, os.getcwd())",
    ]
    process = Process(command, name="engine", environment={"COLOUR": "blue"}, folder=str(tmp_path))
    await process.start()
    await process.wait()
    assert process.said() == (f"blue False {tmp_path}",)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing", "cannot start engine: No such file or directory: "),
        ("plain", "cannot start engine: Permission denied: "),
        ("a\0b", "cannot start "),
    ],
)
async def test_a_command_that_cannot_be_run_is_a_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    """No child, no life, and a reason."""
    (tmp_path / "plain").touch(0o644)
    process = Process([str(tmp_path / name)], name="engine")
    with pytest.raises(EngineUnavailable) as caught:
        await process.start()
    assert caught.value.message.startswith(sentence)
    assert process.statistics().state == "stopped"


async def test_a_folder_that_is_not_there_is_a_sentence() -> None:
    """Said before anything runs."""
    process = Process(["true"], name="engine", folder="/no/such/folder")
    with pytest.raises(EngineUnavailable, match="/no/such/folder"):
        await process.start()


async def test_stopping_what_never_ran_is_nothing() -> None:
    """No error, no exit."""
    process = Process(["true"], name="engine")
    assert await process.stop() is None
    with pytest.raises(EngineUnavailable, match="never started"):
        await process.wait()


async def test_a_fault_in_on_exit_is_not_the_childs(watched: Beacons) -> None:
    """Who waits for the end still gets it."""

    def fail(_: Exit) -> None:
        raise RuntimeError("a bug elsewhere")

    process = Process(watched.command("sys.exit(0)"), name="engine", on_exit=fail)
    await process.start()
    assert (await process.wait()).code == 0


async def test_an_end_that_nobody_waits_for_any_more_is_told_all_the_same() -> None:
    """Who waited was cancelled; the news that comes after that is no fault."""
    life = await child.begin(["sleep", "60"], tail=LogTail())
    burying = aio.spawn(life.bury(), name="burying")
    await life.channel.pid
    await aio.finish([burying])
    life.channel.ask_to_stop(0.0)
    assert await life.channel.ended in (-signal.SIGTERM, -signal.SIGKILL)
    await life.bury()


async def test_many_lives_leave_no_descriptor() -> None:
    """Neither pipes nor sockets nor zombies stay."""
    process = Process(["true"], name="engine")
    await process.start()
    await process.wait()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))  # a count
    for _ in range(20):
        await process.start()
        await process.wait()
    assert len(os.listdir("/proc/self/fd")) == before  # a count


def test_the_shim_imports_nothing_heavy() -> None:
    """It runs beside every engine: small, and without the packages that bioproxy needs."""
    names = {
        line.split()[1]
        for line in Path(shim.__file__).read_text().splitlines()
        if line.startswith(("import ", "from "))
    }
    assert names <= {"__future__", "os", "select", "signal", "sys", "time", "contextlib"}
