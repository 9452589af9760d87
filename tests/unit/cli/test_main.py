"""How a command line is taken apart."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bioproxy.cli.main import UsageError, understand


@pytest.mark.parametrize("words", [["-n5"], ["-n", "5"], ["--outcome", "ok", "-n5"]])
def test_a_number_may_stand_at_its_flag(words: list[str]) -> None:
    """As everywhere else on a command line; `-no-wait` is no `-n`."""
    assert understand(["requests", *words]).arguments.number == 5
    assert understand(["warm", "@code", "-no-wait"]).arguments.no_wait


def test_no_requests_are_no_number_of_requests() -> None:
    """The sentence says what may stand there."""
    with pytest.raises(UsageError, match="expected a whole number from 1, got '0'"):
        understand(["requests", "-n0"])


@pytest.mark.parametrize(
    "words",
    [
        "captures export --since 1d FILE", "captures --since 1d export FILE", "snapshots pin --json FILE",
        "contexts import --key ann FILE", "contexts import FILE --key ann NAME", "recipes add llama-server --as q FILE",
        "logs -f FILE", "unload --json FILE", "init --yes FILE", "init FILE --yes",
    ],
)  # fmt: skip
def test_flags_stand_where_one_likes(words: str) -> None:
    """Also before a word that may be missing."""
    assert "FILE" in str(understand(words.split()).arguments)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fit M -ngl -1", "argument --ngl/--gpu-layers: expected a whole number from 0 to 999999999, got '-1'"),
        ("requests -n -1", "argument -n: expected a whole number from 1, got '-1'"),
        ("pause --for -3", "argument --for: expected a duration"),
        ("pause --for abc", "argument --for: expected a duration"),
        ("snapshots prune --older xx", "argument --older: expected a duration"),
        ("captures export --since xx", "argument --since: expected a duration"),
        ("init --slots 257", "argument --slots: llama.cpp has 256 slots at most, got '257'"),
        ("fit M -np 257", "argument --np/--parallel: llama.cpp has 256 slots at most, got '257'"),
        ("status extra", "unrecognized arguments: extra"),
    ],
)
def test_what_is_of_no_use_is_named(words: str, said: str) -> None:
    """With the flag that it was given to."""
    with pytest.raises(UsageError, match=re.escape(said)):
        understand(words.split())


CTRL_C = """
import runpy, sys
class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == "bioproxy.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Pressed())
runpy.run_module("bioproxy", run_name="__main__")
"""


def test_ctrl_c_while_modules_are_loaded_leaves_no_trace() -> None:
    """It ends as it does later."""
    done = subprocess.run([sys.executable, "-c", CTRL_C], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.skipif(sys.platform == "win32", reason="shells of Windows close nothing")
@pytest.mark.parametrize(
    ("words", "code"), [("version >&-", 0), ("version >&- 2>&-", 0), ("version <&-", 0), ("zzz >&- 2>&- <&-", 2)]
)
def test_what_is_closed_is_missed_by_nobody(words: str, code: int) -> None:
    """As cron and some supervisors start a program."""
    done = subprocess.run(["sh", "-c", f"{sys.executable} -m bioproxy {words}"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (code, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", ["version", "version --json", "check", "completion bash"])
def test_output_that_cannot_be_written_is_one_sentence(words: str) -> None:
    """A disk that is full, say."""
    command = f"{sys.executable} -m bioproxy {words} >/dev/full"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "bioproxy: cannot write the result: no space left on device\n")
