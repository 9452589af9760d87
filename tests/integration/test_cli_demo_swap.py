"""The second table of `bioproxy demo` on small models: its rows, and what is left when it is broken off."""

from __future__ import annotations

import asyncio
import io
import signal
import sys
from pathlib import Path

import pytest

from bioproxy.cli import demo_swap
from bioproxy.cli.output import Output
from fakes.real_engine import needs_real_engine
from support.leaks import until
from support.real_swap import model_file

pytestmark = pytest.mark.real_engine


@pytest.fixture(autouse=True)
def real_engine() -> None:
    needs_real_engine()


def models() -> dict[str, Path]:
    """Two small ones."""
    return {demo_swap.FIRST: model_file(0), demo_swap.OTHER: model_file(1)}


def of(folder: Path) -> list[str]:
    """The command lines of all processes that have to do with `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words:
            found.append(words)
    return found


async def test_the_conversation_comes_back_each_time(tmp_path: Path) -> None:
    """After a swap, and after bioproxy was killed; each row has the start that it waited for."""
    told = io.StringIO()
    rows = await asyncio.to_thread(demo_swap.measure, Output(stream=told, notes=told), tmp_path / "two", models())
    assert [row.state for row in rows] == ["cold", demo_swap.BETWEEN, "swapped back", "restarted"]
    cold, other, back, restarted = rows
    assert cold.cached == 0
    assert cold.evaluated > 3000
    for row in (back, restarted):
        assert row.cached > 3000
        assert row.evaluated <= demo_swap.LITTLE
        assert row.restore > 0
    assert all(row.start > 0 for row in rows)
    assert other.save > 0
    assert (restarted.stop, restarted.save) == (0, 0)
    assert not of(tmp_path)


PROGRAM = """
import sys
from pathlib import Path
from bioproxy.cli import demo, demo_swap
from bioproxy.cli.output import Output
folder, *files = map(Path, sys.argv[1:])
with demo.signals_as_interrupts():
    demo_swap.measure(Output(), folder, dict(zip((demo_swap.FIRST, demo_swap.OTHER), files)))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_broken_off_it_leaves_nothing_behind(number: int, tmp_path: Path) -> None:
    """Neither bioproxy nor an engine, whether by Ctrl-C, by another program or because its terminal was closed."""
    folder = tmp_path / "two"
    words = [sys.executable, "-c", PROGRAM, str(folder), *map(str, models().values())]
    devnull = asyncio.subprocess.DEVNULL
    demo = await asyncio.create_subprocess_exec(*words, stdout=devnull, stderr=devnull)
    await until(lambda: any("embedded" in one for one in of(folder)))
    demo.send_signal(number)
    await demo.wait()
    await until(lambda: not of(folder))
