"""Threads share one heap: what they have freed does not stay with each of them."""

from __future__ import annotations

import platform
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives each thread a heap")
THREADS = 8
PROGRAM = f"""
import sys
from threading import Barrier, Thread
from bioproxy.cli.serve import share_one_heap

if "shared" in sys.argv:
    share_one_heap()
all_at_once = Barrier({THREADS} + 1)

def work():
    all_at_once.wait()
    bytearray(1 << 16)
    all_at_once.wait()
    all_at_once.wait()

for _ in range({THREADS}):
    Thread(target=work).start()
all_at_once.wait()
all_at_once.wait()
sys.stdout.write(open("/proc/self/maps").read())
all_at_once.wait()
"""


def heaps(*words: str) -> int:
    """How many heaps threads have: glibc reserves 64 MiB for each, of which only the beginning may be written."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True)
    begin = r"^([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0 *$"
    pairs = re.findall(begin + r"\n\2-([0-9a-f]+) ---p", ended.stdout, re.MULTILINE)
    return sum(int(end, 16) - int(start, 16) == 64 << 20 for start, _, end in pairs)


def test_threads_have_no_heap_of_their_own() -> None:
    """As they have without it."""
    assert heaps() > 1
    assert heaps("shared") == 0


FREED = """
import sys
from pathlib import Path
from bioproxy.cli.serve import give_back, share_one_heap
from bioproxy.events import ModelChanged

share_one_heap()
blocks = [bytes(10_000) for _ in range(4_000)]
last = bytes(10_000)  # above all of them
del blocks
for new in ("stopping", "stopped"):
    give_back(ModelChanged(model="a", old="ready", new=new))
    print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20)
"""


def test_what_is_free_between_other_blocks_goes_back_when_a_model_has_gone() -> None:
    """40 MB of them; what they take is the test's own measure."""
    ended = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    before, after = map(int, ended.stdout.split())
    assert before - after > 30
