"""What an earlier run left: found by what it wrote down, stopped for certain, and nobody else is touched."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from bioproxy.engines.listener import start_ticks
from bioproxy.models import orphans
from bioproxy.models.orphans import Register, Started

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
VARIABLE = f"BIOPROXY_TEST_ENGINE_{os.getpid()}"  # not what tests beside this one start
SLEEP = "import time\nprint(flush=True)\ntime.sleep(60)"
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP
Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts a program and waits for its first line; all of them end with the test."""
    made: list[subprocess.Popen[bytes]] = []

    def start(program: str = SLEEP, *, token: str = "", session: bool = False) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], **({VARIABLE: token} if token else {})}
        words = [sys.executable, "-I", "-S", "-c", program]
        one = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, start_new_session=session)
        made.append(one)
        assert one.stdout is not None
        one.stdout.readline()
        return one

    yield start
    for one in made:
        one.kill()
        one.wait()
        assert one.stdout is not None
        one.stdout.close()


@pytest.fixture
def register(tmp_path: Path) -> Register:
    """The next run's."""
    return Register(tmp_path / "engines.json", variable=VARIABLE)


def left_by_another(register: Register, *entries: Started) -> None:
    """What a run that is gone wrote down."""
    register.path.write_bytes(msgspec.json.encode(list(entries)))


def noted(pid: int, *, token: str = "gone/a", ticks: int | None = 0, **more: object) -> Started:
    """An entry of such a run; `ticks` 0: the process's own."""
    known = start_ticks(pid) if ticks == 0 else ticks
    return msgspec.structs.replace(Started("a", pid, known, ("engine",), token), **more)


def test_nothing_was_left(register: Register) -> None:
    """The first start of all."""
    assert register.sweep() == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'[{"model": "a"}]', b"null"])
def test_a_broken_file_stops_nobody(content: bytes, register: Register) -> None:
    """And does not keep the program from starting."""
    register.path.write_bytes(content)
    assert register.sweep() == []
    assert not register.path.exists()


@pytest.mark.parametrize("session", [False, True])
def test_what_carries_the_token_is_stopped(session: bool, register: Register, spawn: Spawn) -> None:
    """Whatever its pid: a grandchild in a session of its own is found by its environment."""
    engine = spawn(token="gone/a", session=session)
    left_by_another(register, noted(2**22 + 1, ticks=None))
    assert register.sweep() == [engine.pid]
    assert engine.wait(5) == -signal.SIGTERM


def test_what_is_the_noted_process_is_stopped(register: Register, spawn: Spawn) -> None:
    """Though it wrote over its environment, as programs that set their own title do."""
    engine = spawn()
    left_by_another(register, noted(engine.pid))
    assert register.sweep() == [engine.pid]


def test_what_does_not_listen_is_killed(register: Register, spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time."""
    monkeypatch.setattr(orphans, "GRACE", 0.1)
    engine = spawn(DEAF, token="gone/a")
    left_by_another(register, noted(engine.pid))
    assert register.sweep() == [engine.pid]
    assert engine.wait(5) == -signal.SIGKILL


def test_the_same_number_is_not_the_same_process(register: Register, spawn: Spawn) -> None:
    """The pid belongs to somebody else by now: its start time is another one."""
    stranger = spawn()
    left_by_another(register, noted(stranger.pid, ticks=12345))
    assert register.sweep() == []
    assert stranger.poll() is None


@pytest.mark.parametrize("token", ["", "gone/ab", "gone/", "gone/a/", "other/a"])
def test_a_like_command_is_not_ours(token: str, register: Register, spawn: Spawn) -> None:
    """The same program with the same arguments, without our token or with another one."""
    stranger = spawn(token=token)
    left_by_another(register, noted(2**22 + 1, ticks=None))
    assert register.sweep() == []
    assert stranger.poll() is None


def test_engines_of_a_program_that_runs_are_no_orphans(register: Register, spawn: Spawn) -> None:
    """Two instances may share a state folder: the same port on two addresses."""
    program, engine = spawn(), spawn(token="gone/a")
    left_by_another(register, noted(engine.pid, program=program.pid, program_ticks=start_ticks(program.pid)))
    assert register.sweep() == []
    assert engine.poll() is None
    program.kill()
    program.wait()
    left_by_another(register, noted(engine.pid, program=program.pid, program_ticks=1))
    assert register.sweep() == [engine.pid]


def test_nothing_outlives_a_boot(register: Register, spawn: Spawn) -> None:
    """Start times count from the boot, and services start in the same order each time."""
    stranger = spawn()
    left_by_another(register, noted(stranger.pid, boot="another"))
    assert register.sweep() == []
    assert stranger.poll() is None


def test_the_sweeper_does_not_stop_itself(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bioproxy may be the engine of another one, and carries that one's token then."""
    monkeypatch.setenv(VARIABLE, "gone/a")
    left_by_another(register, noted(os.getpid()))
    assert register.sweep() == []


def test_what_is_noted_is_found_by_the_next_run(register: Register, spawn: Spawn) -> None:
    """Pid, start time, token, and who it was: the file of one run, read by another."""
    engine = spawn(token="mine/a")
    register.note("a", engine.pid, command=("engine", "--x"), token="mine/a")
    register.write()
    (entry,) = register.left()
    assert (entry.pid, entry.ticks, entry.token) == (engine.pid, start_ticks(engine.pid), "mine/a")
    assert (entry.program, entry.program_ticks) == (os.getpid(), start_ticks(os.getpid()))
    assert stat.S_IMODE(register.path.stat().st_mode) == 0o600
    register.note("a", 0, command=(), token="mine/a")
    register.write()
    assert register.left() == []


async def test_a_folder_that_cannot_be_written_stops_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spawn: Spawn
) -> None:
    """It is said once, not at each swap, and that is all."""
    register = Register(tmp_path / "missing" / "engines.json", variable=VARIABLE)
    register.note("a", spawn().pid, command=("engine",), token="mine/a")
    await register.save()
    await register.save()
    [said] = [one.getMessage() for one in caplog.records]
    assert said.startswith(f"cannot note in {register.path} which engines run: no such file or directory; ")


def test_a_command_that_is_no_text_stops_no_start(register: Register, spawn: Spawn) -> None:
    """Bytes of the environment may stand in a command, and JSON has no such characters."""
    register.note("a", spawn().pid, command=("engine", "\udcff"), token="mine/a")
    register.write()
    assert len(register.left()) == 1


def test_processes_that_come_and_go_while_it_looks(register: Register, tmp_path: Path) -> None:
    """A process that ends between two looks, and one whose environment may not be read."""
    processes = tmp_path / "proc"
    for name in ("self", "1", "99999998", "99999999"):
        (processes / name).mkdir(parents=True)
    (processes / "99999998" / "environ").mkdir()  # reading it fails
    register.processes = processes
    left_by_another(register, noted(99999999, ticks=7))
    assert register.sweep() == []
