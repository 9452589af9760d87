"""`bioproxy requests` and `bioproxy top` beside a running program."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.command import COMMAND, environment, run
from support.swap_api import found_by, running, verb
from support.swap_models import fakes
from support.swap_rig import Rig, swap_rig

Json = Any


async def test_requests_are_listed_with_the_newest_last(tmp_path: Path) -> None:
    """With status, outcome and model."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        await rig.chat("a")
        await rig.chat("b")
        await rig.chat("zzz")
        lines = (await verb(rig, "requests")).out.splitlines()
    assert lines[0].split()[:4] == ["time", "status", "outcome", "model"]
    assert [line.split()[1:4] for line in lines[1:]] == [
        ["200", "ok", "a"],
        ["200", "ok", "b"],
        ["404", "client_error", "zzz"],
    ]
    assert "no router for requested model" in lines[3]


async def test_requests_can_be_narrowed(tmp_path: Path) -> None:
    """By number and outcome; as JSON too."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        for model in ("a", "zzz", "a"):
            await rig.chat(model)
        newest = (await verb(rig, "requests", "-n", "1", "--json")).json()
        failed = (await verb(rig, "requests", "--outcome=client_error", "--json")).json()
        none = await verb(rig, "requests", "--outcome", "timeout")
    assert [one["model"] for one in newest] == ["a"]
    assert [one["model"] for one in failed] == ["zzz"]
    assert none.out == "no requests\n"


@pytest.mark.parametrize("words", [["-n", "0"], ["-n", "many"], ["--outcome", "strange"]])
async def test_a_wrong_question_is_2(words: list[str], tmp_path: Path) -> None:
    """Before anybody is asked."""
    ended = await run(tmp_path, "requests", *words)
    assert (ended.code, ended.out) == (2, "")
    assert words[0] in ended.err


async def test_requests_are_followed(tmp_path: Path) -> None:
    """What was, and what comes, each once; Ctrl-C is the end of it."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        await rig.chat("a")
        async with running(rig, "requests", "-f") as command:
            await command.out(" a ")
            await rig.chat("zzz")
            await command.out(" zzz ")
            assert await command.end(signal.SIGINT) == 130
    assert [line.split()[3] for line in command.printed] == ["model", "a", "zzz"]


async def test_requests_are_followed_as_json(tmp_path: Path) -> None:
    """A line for each, of one outcome if one is named."""
    words = ["requests", "-f", "--json", "--outcome", "client_error"]
    async with swap_rig(tmp_path, fakes("a")) as rig, running(rig, *words) as command:
        await rig.chat("yyy")
        await command.out("yyy")
        await rig.chat("a")
        await rig.chat("zzz")
        await command.out("zzz")
        await command.end(signal.SIGINT)
    assert [json.loads(line)["model"] for line in command.printed] == ["yyy", "zzz"]


async def test_a_list_that_is_cut_is_a_sentence(tmp_path: Path) -> None:
    """The program stopped: 1, for more may have come."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        await rig.chat("a")
        async with running(rig, "requests", "--follow") as command:
            await command.out(" a ")
            await rig.program.stop()
            await command.line("the list of requests was cut off")
            assert await command.process.wait() == 1


async def test_logs_are_those_of_the_model(tmp_path: Path) -> None:
    """By an alias, too; our own are called `proxy`, and an unknown name is a sentence."""
    async with swap_rig(tmp_path, fakes("a", "--say hello-from-a", aliases=["alpha"])) as rig:
        await rig.chat("a")
        logs = await verb(rig, "logs", "alpha")
        own = await verb(rig, "logs", "proxy")
        unknown = await verb(rig, "logs", "zzz")
    assert logs.out.startswith("hello-from-a\n")
    assert "a started, pid" in own.out
    assert unknown.code == 1
    assert "invalid logger" in unknown.err


async def test_logs_are_followed(tmp_path: Path) -> None:
    """From before the model's first start, to Ctrl-C."""
    async with swap_rig(tmp_path, fakes("a", "--say hello-from-a")) as rig, running(rig, "logs", "-f", "a") as command:
        await rig.chat("a")
        await command.out("hello-from-a")
        assert await command.end(signal.SIGINT) == 130


# top


async def test_top_without_a_terminal_prints_once(tmp_path: Path) -> None:
    """Models, and requests with what they wait for."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        await rig.ask_held("a")
        await rig.ask_queued("b")
        ended = await verb(rig, "top")
        document = (await verb(rig, "top", "--json")).json()
    assert ended.code == 0
    assert ended.out.startswith("1 of 2 models ready, ")
    assert "2 requests, 1 wait for a model\n" in ended.out
    assert "is being read" in ended.out
    assert "waits for its model, 1 in line" in ended.out
    assert "\x1b" not in ended.out
    assert [(one["model"], one["stage"], one["position"]) for one in document["requests"]] == [
        ("a", "prompt", 0),
        ("b", "model", 1),
    ]


class Terminal:
    """A command on a terminal of its own; `seen` is what it wrote there."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process, self.master = process, master
        self.seen = b""
        self.grew = asyncio.Event()

    def read(self) -> None:
        """Take what is there."""
        try:
            self.seen += os.read(self.master, 1 << 16)
        except OSError:  # the other side is closed
            asyncio.get_running_loop().remove_reader(self.master)
        self.grew.set()

    async def until(self, text: bytes, *, count: int = 1) -> None:
        """Wait until it wrote `text` so often."""
        async with asyncio.timeout(30):
            while self.seen.count(text) < count:
                self.grew.clear()
                await self.grew.wait()


@asynccontextmanager
async def terminal(rig: Rig, *words: str) -> AsyncIterator[Terminal]:
    """Run `bioproxy words` on a terminal."""
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *words, *found_by(rig), stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        cwd=rig.folder, env=environment(rig.folder, TERM="xterm", COLUMNS="120", LINES="40"),
    )  # fmt: skip
    os.close(slave)
    made = Terminal(process, master)
    loop = asyncio.get_running_loop()
    loop.add_reader(master, made.read)
    try:
        yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        loop.remove_reader(master)
        os.close(master)


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are POSIX ones")
@pytest.mark.parametrize("end", ["q", "SIGINT", "SIGTERM"])
async def test_top_on_a_terminal_goes_on_until_it_is_told(end: str, tmp_path: Path) -> None:
    """On a screen of its own, which is left at the end, whatever ends it."""
    async with swap_rig(tmp_path, fakes("a")) as rig, terminal(rig, "top") as top:
        await top.until(b"0 of 1 models ready")
        held = await rig.ask_held("a")
        await top.until(b"is being read")
        await rig.release("a")
        await held
        if end == "q":
            os.write(top.master, b"q")
        else:
            top.process.send_signal(getattr(signal, end))
        assert await asyncio.wait_for(top.process.wait(), 25) == (0 if end == "q" else 130)
        await top.until(b"\x1b[?25h\x1b[?1049l")
    assert top.seen.startswith(b"\x1b[?1049h\x1b[?25l\x1b[H")
    assert b"Traceback" not in top.seen


async def test_top_tells_that_the_program_has_gone(tmp_path: Path) -> None:
    """It waits for it to come back."""
    async with swap_rig(tmp_path, fakes("a")) as rig, terminal(rig, "top") as top:
        await top.until(b"0 of 1 models ready")
        await rig.program.stop()
        await top.until(b"no bioproxy answers on")
        os.write(top.master, b"q")
        assert await asyncio.wait_for(top.process.wait(), 25) == 0
