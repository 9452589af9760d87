"""The `bioproxy` command as users run it.

A verb that looks at something, says it and ends is run in this process, by a thread: what it does with its words, its
environment, its folder and its output is the same there, and it costs a tenth of a process. The program that serves, a
command line that names no such verb, and whatever is to get a signal are processes of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from bioproxy.cli.client import Client
from bioproxy.cli.command import Command
from bioproxy.cli.find import another, find
from bioproxy.cli.main import main
from bioproxy.cli.output import Output
from bioproxy.config.load import Loaded
from support.apps import log_put_back

COMMAND = (sys.executable, "-m", "bioproxy")
MARK = "SWAP_RIG"  # swap_rig.py marks its program and all that it starts with this variable
KEPT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONUTF8", "SYSTEMROOT", "TEMP")  # Windows needs the last two
VERBS = frozenset({
    "captures", "check", "completion", "config", "contexts", "doctor", "fit", "help", "import", "load", "logs",
    "models", "pause", "recipes", "requests", "resume", "snapshots", "status", "unload", "version", "warm",
})  # fmt: skip


class Ended(msgspec.Struct, frozen=True):
    """A command that came to its end."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


def environment(home: Path, **more: str) -> dict[str, str]:
    """A bare environment: nothing of the developer's own configuration counts."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {**kept, "HOME": str(home), "USERPROFILE": str(home), "PYTHONUNBUFFERED": "1", **more}


async def run(home: Path, *words: str, command: Sequence[str] = COMMAND, **more: str) -> Ended:
    """Run `bioproxy words` in `home` to its end; `more` are environment variables."""
    if words[:1] and words[0] in VERBS and command is COMMAND:
        return await asyncio.to_thread(run_here, home, words, more)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, *words, cwd=home, env=environment(home, **more), stdout=pipe, stderr=pipe
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def run_here(home: Path, words: Sequence[str], more: Mapping[str, str]) -> Ended:
    """The same in this process; blocks. A program beside it in this process still marks what it starts."""
    marked = {name: os.environ[name] for name in (MARK,) if name in os.environ}
    before, folder, out, err = dict(os.environ), Path.cwd(), io.StringIO(), io.StringIO()
    set_environment({**environment(home, **more), **marked})
    os.chdir(home)
    try:
        with log_put_back(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = ended_by(words)
    finally:
        os.chdir(folder)
        set_environment(before)
    return Ended(code, out.getvalue(), err.getvalue())


def ended_by(words: Sequence[str]) -> int:
    """The exit code of a command line."""
    try:
        return main(words)
    except SystemExit as error:  # argparse, after a help text
        return error.code if isinstance(error.code, int) else 0


def set_environment(variables: Mapping[str, str]) -> None:
    """Exactly these variables from now on."""
    os.environ.clear()
    os.environ.update(variables)


def program(path: Path, prints: str) -> None:
    """A program at `path`, with the ending that this system asks for, that prints this whatever its arguments are."""
    path.parent.mkdir(exist_ok=True)
    if sys.platform == "win32":
        path.with_suffix(".txt").write_text(prints)
        path.with_suffix(".cmd").write_text(f'@type "{path.with_suffix(".txt")}"\n')
        return
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{prints}END\n")
    path.chmod(0o755)


class Serving:
    """A `bioproxy` that goes on running; `log` and `printed` are its lines so far, on stderr and stdout."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[str] = []
        self.printed: list[str] = []
        self.grew = asyncio.Condition()

    async def read(self, stream: asyncio.StreamReader | None, lines: list[str]) -> None:
        """Collect what it writes until it ends."""
        assert stream is not None
        async for raw in stream:
            async with self.grew:
                lines.append(raw.decode().rstrip())
                self.grew.notify_all()

    async def line(self, text: str) -> str:
        """The first line of the log with `text` in it, as soon as there is one."""
        return await self.first(self.log, text, seconds=30)

    async def out(self, text: str, *, seconds: float = 30) -> str:
        """The same for what it prints."""
        return await self.first(self.printed, text, seconds=seconds)

    async def first(self, lines: list[str], text: str, *, seconds: float) -> str:
        """Wait for a line with `text` in it."""
        async with asyncio.timeout(seconds), self.grew:
            await self.grew.wait_for(lambda: any(text in line for line in lines))
        return next(line for line in lines if text in line)

    async def ports(self) -> tuple[int, int]:
        """Proxy and admin port, from the banner."""
        words = (await self.line("proxy on http")).replace(",", " ").split()
        proxy, admin = (int(word.rsplit(":", 1)[1]) for word in words if word.startswith("http://"))
        return proxy, admin

    def send(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def end(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal; its exit code."""
        self.send(number)
        return await self.process.wait()


@asynccontextmanager
async def serving(
    home: Path, *words: str, command: Sequence[str] = COMMAND, pass_fds: Sequence[int] = (), **more: str
) -> AsyncIterator[Serving]:
    """`bioproxy words` (a verb that goes on running) in the background, killed at the end if it still runs."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, *words, cwd=home, env=environment(home, **more), stdout=pipe, stderr=pipe, pass_fds=pass_fds
    )
    made = Serving(process)
    async with asyncio.TaskGroup() as group:
        group.create_task(made.read(process.stderr, made.log))
        group.create_task(made.read(process.stdout, made.printed))
        try:
            yield made
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def told(output: Output, *, client: Client | None = None, loaded: Loaded | None = None, **arguments: Any) -> Command:
    """A command with these `arguments`, which asks `client`, else the program that `loaded` describes."""

    def asked(*, changes: bool = False) -> Client:
        if client is not None:
            return client
        assert loaded is not None
        found = find(loaded)
        assert not (changes and another(found))
        return found

    given = argparse.Namespace(**arguments)
    return cast("Command", SimpleNamespace(output=output, arguments=given, load=lambda: loaded, client=asked))
