"""Files that somebody names: none of them holds anybody up, and what is written is whole."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bioproxy import aio, files
from support.faults import hung

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it has no FIFOs")


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """One that nobody writes to."""
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def test_a_regular_file_is_read_up_to_a_size(tmp_path: Path) -> None:
    """One byte more tells that there is more; links are followed."""
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert files.read(tmp_path / "file", most=5) == b"12345"
    assert files.read(tmp_path / "link", most=3) == b"1234"


@pytest.mark.parametrize("path", ["fifo", "link", "/dev/zero", "/dev/tty"])
def test_what_is_no_regular_file_is_refused_at_once(path: str, fifo: Path) -> None:
    """However one gets to it; nobody waits for a writer."""
    (fifo.parent / "link").symlink_to("fifo")
    with pytest.raises(files.Irregular, match="it is no regular file"):
        files.read(fifo.parent / path, most=100)


def test_a_file_that_becomes_a_fifo_before_it_is_opened(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was opened is looked at, not only what was there before."""
    regular = Path(__file__).stat()
    monkeypatch.setattr(files, "stat", lambda _path: regular)
    with pytest.raises(files.Irregular):
        files.read(fifo, most=100)


def test_a_pipe_that_somebody_writes_to_is_read_if_it_may_be(tmp_path: Path) -> None:
    """As shells make them for `-config <(...)`, with pauses in between."""
    reading, writing = os.pipe()

    def write() -> None:
        for part in (b"one ", b"two"):
            os.write(writing, part)
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    assert files.read(f"/dev/fd/{reading}", most=100, pipes=True) == b"one two"
    writer.join()
    os.close(reading)


def test_a_call_that_does_not_come_back_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is named, the same path leaves no second thread behind, and when it answers again it is read."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "file").write_text("here")
    with hung(tmp_path / "net", monkeypatch) as folder:
        for _ in range(3):
            with pytest.raises(files.Stuck, match=r"net/file does not answer; is it in a network folder"):
                files.patiently(files.read, tmp_path / "net" / "file", most=10)
        assert len(folder.threads) == 1
        assert folder.threads[0].daemon
    assert files.patiently(files.read, tmp_path / "net" / "file", most=10) == b"here"


def test_what_goes_on_is_waited_for(tmp_path: Path) -> None:
    """Many calls that each take half of the patience are slow, not stuck."""

    def slow() -> str:
        for number in range(6):
            with files.touching(f"file {number}"):
                path, since = files.calls[threading.get_ident()]
                files.calls[threading.get_ident()] = path, since - files.PATIENCE / 2
        return "done"

    assert files.patiently(slow) == "done"


def test_what_the_work_raises_is_raised(tmp_path: Path) -> None:
    """Nothing is made of the system's own errors."""
    with pytest.raises(FileNotFoundError):
        files.patiently(files.read, tmp_path / "missing", most=10)
    assert files.found(tmp_path / "missing") is None
    assert files.found(tmp_path / "a\0b") is None


async def test_who_waits_for_a_file_that_hangs_can_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: the thread goes on alone."""
    with hung(tmp_path, monkeypatch, long=False) as folder:
        task = aio.spawn(files.away(files.stat, tmp_path), name="look")
        await asyncio.to_thread(folder.reached.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert folder.threads[0].is_alive()


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0600 unless it is said otherwise; a disk that refuses leaves the old file and nothing beside it."""
    path = tmp_path / "file"
    files.write_whole(path, b"old")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    files.write_whole(path, b"newer", mode=0o640)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_whole(path, b"newest")
    with pytest.raises(OSError, match="directory"):
        files.write_whole(tmp_path / "missing" / "x", b"")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"newer")]


HANGS = """
import asyncio, os
from bioproxy.cli import serve

async def main():
    reading, _ = os.pipe()
    hung = asyncio.ensure_future(asyncio.to_thread(os.read, reading, 1))
    await asyncio.to_thread(print, "working", flush=True)
    hung.cancel()
    return 7

raise SystemExit(serve.run(main))
"""


def test_the_program_ends_although_a_thread_hangs() -> None:
    """Neither the event loop nor the interpreter waits for a read that will never end."""
    ended = subprocess.run([sys.executable, "-c", HANGS], stdout=subprocess.PIPE, timeout=15, check=False)
    assert (ended.returncode, ended.stdout) == (7, b"working\n")


def test_threads_are_used_again_and_bounded() -> None:
    """As the library's: a new one only if none is idle; work beyond their number waits for the next."""
    threads, both = aio.Threads(2), threading.Barrier(2)
    found = [threads.submit(both.wait, 10) for _ in range(2)]
    assert sorted(one.result(10) for one in found) == [0, 1]
    assert [threads.submit(pow, 2, number).result(10) for number in range(5)] == [1, 2, 4, 8, 16]
    assert threads.started == 2
    threads.shutdown()
    with pytest.raises(RuntimeError):
        threads.submit(pow, 2, 2)


def test_what_a_crash_left_unfinished_is_removed(tmp_path: Path) -> None:
    """In the folder and those in it; what is finished stays, and so do other folders' depths."""
    for name in (".new-a", "pins/.new-b", "pins/index", "pins/deep/.new-c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    files.remove_unfinished(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"pins/index", "pins/deep/.new-c"}
