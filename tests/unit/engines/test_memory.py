"""How much memory an engine and its descendants take, out of a /proc of the test's own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bioproxy.engines.listener import PAGE, resident

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")


def process(proc: Path, pid: int, *, pages: int, children: str = "") -> None:
    """A process with one thread."""
    task = proc / str(pid) / "task" / str(pid)
    task.mkdir(parents=True)
    (task / "children").write_text(children)
    (proc / str(pid) / "statm").write_text(f"99999 {pages} 10 1 0 5 0\n")


def test_grandchildren_count(tmp_path: Path) -> None:
    """A shell that runs a server that runs workers is one engine; a neighbour is not."""
    process(tmp_path, 10, pages=1, children="11 ")
    process(tmp_path, 11, pages=100, children="12 13 ")
    process(tmp_path, 12, pages=1000)
    process(tmp_path, 13, pages=2000)
    process(tmp_path, 14, pages=50_000)
    assert resident(10, proc=tmp_path) == 3101 * PAGE


def test_who_just_ended_counts_nothing(tmp_path: Path) -> None:
    """Between the list of children and the look at one."""
    process(tmp_path, 10, pages=7, children="11 ")
    assert resident(10, proc=tmp_path) == 7 * PAGE


def test_a_process_that_is_gone_is_not_known(tmp_path: Path) -> None:
    """Nought would be a lie."""
    assert resident(10, proc=tmp_path) is None


def test_we_ourselves_take_some() -> None:
    """The real /proc."""
    found = resident(os.getpid())
    assert found is not None
    assert found > 1 << 20
