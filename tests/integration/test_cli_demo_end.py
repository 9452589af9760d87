"""How `make demo` ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import signal, sys
from bioproxy.cli.demo import own_terminal
with own_terminal():
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    print("serving", flush=True)
    signal.pause()
"""
TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(['make', 'demo'])))"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is missing")
def test_ctrl_c_after_the_tables_is_no_error_of_make(tmp_path: Path) -> None:
    """It ends the demo, which is what it was pressed for, and make has nothing to complain about."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "Makefile").write_text(f"demo:\n\t@{sys.executable} program.py\n")
    words, pipe = [sys.executable, "-c", TERMINAL], subprocess.PIPE
    own = {
        name: value for name, value in os.environ.items() if not name.startswith("MAKE")
    }  # `make test` is another make
    with subprocess.Popen(words, cwd=tmp_path, env=own, stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = process.stdout.readline()
        process.stdin.write(b"\x03")
        process.stdin.flush()
        shown += process.stdout.read()
    assert b"serving" in shown
    assert process.returncode == 0, shown.decode()
    assert b"***" not in shown
