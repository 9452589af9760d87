"""Engines as child processes on Windows: a job object ends them with everything that they started, and with us."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest

from bioproxy.engines.process import Process
from bioproxy.errors import EngineUnavailable

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="job objects are Windows' own")

FOR_EVER = "import sys, time\nprint('up', flush=True)\ntime.sleep(3600)"
HAS_A_CHILD = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {FOR_EVER!r}])
print("child", child.pid, flush=True)
time.sleep(3600)
"""
DEAF = f"import signal\nsignal.signal(signal.SIGBREAK, signal.SIG_IGN)\n{FOR_EVER}"


def python(program: str, heard: asyncio.Queue[bytes] | None = None) -> Process:
    output = heard.put_nowait if heard is not None else None
    return Process([sys.executable, "-c", program], name="engine", output=output)


async def first_line(heard: asyncio.Queue[bytes]) -> str:
    said = b""
    while b"\n" not in said:
        said += await heard.get()
    return said.decode()


async def gone(pid: int) -> None:
    while psutil.pid_exists(pid):  # noqa: ASYNC110 - the system tells nobody else
        await asyncio.sleep(0.01)


async def test_a_child_is_heard_and_its_exit_code_told() -> None:
    """What it wrote last is there by then."""
    process = python("print('last words'); raise SystemExit(3)")
    await process.start()
    ended = await process.wait()
    assert (ended.code, ended.expected) == (3, False)
    assert "ended with exit code 3" in ended.reason
    assert 'said "last words"' in ended.reason


@pytest.mark.parametrize("program", [FOR_EVER, DEAF])
async def test_a_stop_ends_a_child(program: str) -> None:
    """With Ctrl-Break, or after the grace."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    process = python(program, heard)
    pid = await process.start()
    await first_line(heard)
    ended = await process.stop(grace=0.1)
    assert ended is not None
    assert ended.expected
    await gone(pid)


@pytest.mark.parametrize("by_itself", [False, True])
async def test_what_a_child_started_ends_with_it(*, by_itself: bool) -> None:
    """However it ends."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    process = python(HAS_A_CHILD, heard)
    pid = await process.start()
    child = int((await first_line(heard)).split()[1])
    if by_itself:
        psutil.Process(pid).kill()
        await process.wait()
    else:
        await process.stop(grace=0.1)
    await gone(child)


async def test_an_engine_does_not_outlive_us(tmp_path: Path) -> None:
    """The system closes our handle of its job when we are killed."""
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import asyncio, sys\n"
        "from bioproxy.engines.process import Process\n"
        f"process = Process([sys.executable, '-c', {FOR_EVER!r}], name='engine')\n"
        "async def main():\n"
        "    print(await process.start(), flush=True)\n"
        "    await process.wait()\n"
        "asyncio.run(main())\n"
    )
    ours = await asyncio.create_subprocess_exec(sys.executable, str(parent), stdout=asyncio.subprocess.PIPE)
    assert ours.stdout is not None
    engine = int(await ours.stdout.readline())
    ours.kill()
    await ours.wait()
    await gone(engine)


async def test_a_program_that_is_not_there_is_named() -> None:
    """In a sentence that says where it was looked for."""
    with pytest.raises(EngineUnavailable, match="no-such-engine"):
        await Process(["no-such-engine"], name="engine", folder=os.getcwd()).start()
