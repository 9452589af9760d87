"""Systems that this one is not: every module can be imported without what only POSIX has; words and ends on Windows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bioproxy.engines.commands import basename, container_run, joined
from bioproxy.engines.process import how
from bioproxy.models.command import program_at, split

LIKE_WINDOWS = r"""
import sys, os, signal, socket, select, time, types, pkgutil, importlib
import asyncio, ctypes.wintypes, multiprocessing.connection, pathlib, shutil, sqlite3, ssl, subprocess, tempfile
import brotli, crc32c, httptools, msgspec, prometheus_client, psutil, re2, yaml
import bioproxy
names = [module.name for module in pkgutil.walk_packages(bioproxy.__path__, "bioproxy.")]
for name in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty", "uvloop"):
    sys.modules[name] = None
for module, names_of_posix in (
    (os, "fork killpg geteuid getuid getpgrp setpgid setsid sysconf chown mkfifo openpty statvfs wait waitpid "
         "O_NONBLOCK O_NOCTTY O_CLOEXEC O_DIRECTORY O_NOFOLLOW sched_getaffinity getloadavg posix_fadvise pread"),
    (signal, "SIGHUP SIGKILL SIGCHLD SIGPIPE SIGSTOP SIGCONT SIGUSR1 SIGUSR2 SIGQUIT SIGALRM pthread_sigmask"),
    (socket, "AF_UNIX SOCK_CLOEXEC SO_REUSEPORT"),
    (select, "poll epoll"),
    (time, "CLOCK_BOOTTIME CLOCK_MONOTONIC clock_gettime"),
):
    for one in names_of_posix.split():
        vars(module).pop(one, None)
sys.modules["msvcrt"] = types.ModuleType("msvcrt")
signal.SIGBREAK, signal.CTRL_BREAK_EVENT, subprocess.CREATE_NEW_PROCESS_GROUP = 21, 1, 0x200
sys.platform = "win32"
for name in names:
    if not name.endswith(("__main__", "engines.child", "engines.shim")):
        importlib.import_module(name)
from bioproxy.engines import job, process
assert process.child is job and len(job.LIMITS) == 144 and job.LIMITS[16:20] == bytes((0, 0x20, 0, 0))
"""
ENGINE = r'"C:\Program Files\llama\llama-server.exe"'


@pytest.mark.skipif(sys.platform == "win32", reason="there every test imports them so")
def test_every_module_can_be_imported_without_what_only_posix_has() -> None:
    """As on Windows; but what stands between us and a child there is another module."""
    done = subprocess.run([sys.executable, "-c", LIKE_WINDOWS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (rf"{ENGINE} -m D:\models\a.gguf", [r"C:\Program Files\llama\llama-server.exe", "-m", r"D:\models\a.gguf"]),
        (r"\\host\share\e.exe --path C:\x\ ", [r"\\host\share\e.exe", "--path", "C:\\x\\"]),
        (r"""e --kwargs '{"a": "b\n"}'""", ["e", "--kwargs", r'{"a": "b\n"}']),
        (r'e "say \"x\"" C:/x/y', ["e", 'say "x"', "C:/x/y"]),
        ("e \\\n  -m C:\\x", ["e", "-m", r"C:\x"]),
        ("e C:\\\\doubled", ["e", r"C:\\doubled"]),
        (r"""e "C:\O'Brien\m" 'D:\my m' 'E:\open""", ["e", r"C:\O'Brien\m", r"D:\my m", r"E:\open"]),
    ],
)
def test_a_command_of_windows_is_split(command: str, words: list[str]) -> None:
    r"""A backslash is a part of a path there, unless a `"` or the line's end follows."""
    assert split(command, windows=True) == words


@pytest.mark.parametrize("windows", [True, False])
def test_words_are_joined_as_their_system_takes_them_apart(*, windows: bool) -> None:
    """What we write into a configuration is read again: blanks, quotes, a backslash at the end, nothing at all."""
    words = [r"C:\Program Files\e.exe", "-m", r"C:\m\a b.gguf", "--port", "${PORT}", "", "C:\\slots\\"]
    words += ["D:\\my slots\\", r"\\host\O'Brien\x", r"C:\O'B \\", r"""'{"a": "\n"}'""", 'say "x\\"', "'\\"]
    assert split(joined(words, windows=windows), windows=windows) == words


def test_a_path_of_windows_is_joined_as_people_write_it_there() -> None:
    """In double quotes if it has blanks."""
    words = [r"C:\Program Files\e.exe", "-m", r"C:\m\a.gguf"]
    assert joined(words, windows=True) == r'"C:\Program Files\e.exe" -m C:\m\a.gguf'


@pytest.mark.parametrize(
    "word", ["/opt/llama-server", r"C:\llama\llama-server.exe", "llama-server.EXE", "llama-server"]
)
def test_a_program_is_known_by_its_name(word: str) -> None:
    """In whatever folder it is, and with the ending of Windows."""
    assert basename(word) == "llama-server"
    assert program_at([word, "-m", "x"]) == 1


def test_a_container_shares_a_folder_of_a_drive() -> None:
    """The first colon is the drive's."""
    run = container_run(["docker.exe", "run", "-v", r"C:\models:/models:ro", "image", "-m", "/models/x.gguf"])
    assert run is not None
    assert run.volumes == ((r"C:\models", "/models"),)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (3, "ended with exit code 3"),
        (0xC0000135, "ended with exit code 0xc0000135 (a DLL that it needs was not found)"),
        (-15, "was ended by SIGTERM"),
    ],
)
def test_the_end_of_an_engine_in_words(code: int, said: str) -> None:
    """What Windows puts into an exit code is said as what it is."""
    assert how(code, expected=False) == said
