"""Engines that behave badly as processes: floods of output, last words that a terminal would act upon, daemons."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from support.swap_client import message, server
from support.swap_models import fake
from support.swap_rig import swap_rig

Json = Any
CODES = (
    b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J\x9b1A \xe2\x80\xae rtl \x00 \xff\xfe \xc3( \r\n"
    b"GET / HTTP/1.1\r\n\r\n<script>"
)
WORDS = ("red", "title", "rtl", "script")


def program(text: str) -> Json:
    """A model that runs a few lines of Python; `PORT` in them is its port."""
    return {"cmd": f"{shlex.join([sys.executable, '-I', '-S', '-c', 'PORT = ${PORT}' + chr(10) + text])}"}


def saying(words: bytes) -> Json:
    """A program that says this and ends with code 3."""
    return program(f"import os\nos.write(2, bytes.fromhex({words.hex()!r}))\nraise SystemExit(3)")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/html", "text/event-stream"])
async def test_last_words_are_harmless(kind: str, tmp_path: Path) -> None:
    """Whatever a client does with them: no terminal, no page, no HTTP parser acts upon what an engine wrote."""
    async with swap_rig(tmp_path, {"a": saying(CODES)}) as rig:
        stream = kind == "text/event-stream"
        answer = await rig.chat("a", headers={"Accept": kind}, stream=stream)
    assert answer.status == 500
    assert all(word in answer.text for word in WORDS)
    told = answer.json()["error"]["message"] if "json" in answer.headers["content-type"] else answer.text
    assert all(character.isprintable() or character in "\n\t" for character in told)
    assert "\u202e" not in answer.text
    if kind == "text/html":
        assert "<script>" not in answer.text


async def test_last_words_without_end(tmp_path: Path) -> None:
    """The sentence stays one that can be read."""
    floods = {"line": b"xxxxx", "lines": b"\n\n\n\n\n", "codes": b"\x1b[31m", "binary": b"\xff\xfe\x00\xff\xff"}
    text = "import sys\nsys.stderr.buffer.write({!r} * 1_000_000)\nsys.stderr.flush()\nraise SystemExit(3)"
    async with swap_rig(tmp_path, {name: program(text.format(words)) for name, words in floods.items()}) as rig:
        answers = [await rig.chat(name) for name in floods]
    for answer in answers:
        assert answer.status == 500
        assert len(message(answer)) < 6000


async def test_a_flood_of_output_holds_nobody_up(tmp_path: Path) -> None:
    """100 MB of one model while another one is used; the history that is kept has its bound."""
    groups = {"g": {"swap": False, "members": ["a", "b"]}}
    async with swap_rig(tmp_path, {"a": fake("--log-bytes 100000000 --log-binary"), "b": fake()}, groups=groups) as rig:
        assert server(await rig.chat("a")) == "a"
        for _ in range(5):
            assert server(await asyncio.wait_for(rig.chat("b"), 25)) == "b"
        await rig.until(lambda: rig.log.of("logged", "a"), seconds=30)
        assert server(await rig.chat("a")) == "a"
        assert len((await rig.get("/logs")).body) < 300_000


@pytest.mark.parametrize("again", [False, True])
async def test_a_daemon_is_no_engine(again: bool, tmp_path: Path) -> None:
    """Its command ends, what it left in a session of its own goes too, and the error says what happened."""
    double = "if os.fork(): os._exit(0)\n" if again else ""
    text = f"import os, time\nif os.fork(): os._exit(0)\nos.setsid()\n{double}time.sleep(60)"
    async with swap_rig(tmp_path, {"a": program(text)}) as rig:
        answer = await asyncio.wait_for(rig.chat("a"), 25)
        assert answer.status == 500
        assert "ended with exit code 0" in message(answer)
        await rig.until(lambda: not rig.children())


async def test_a_port_that_is_taken_while_a_model_stops(tmp_path: Path) -> None:
    """A stranger is quicker than its next process: the sentence names the port, and afterwards it works."""
    async with swap_rig(tmp_path, {"a": fake()}) as rig:
        await rig.chat("a")
        await rig.post("/api/models/unload/a")
        taken = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", rig.ports.models)
        answer = await rig.chat("a")
        taken.close()
        await taken.wait_closed()
        assert str(rig.ports.models) in message(answer)
        assert (await rig.post("/models/load", {"model": "a"})).status == 200
        assert server(await rig.chat("a")) == "a"


async def test_commands_that_are_none(tmp_path: Path) -> None:
    """Either the file is refused with a sentence, or the model says why it cannot be started."""
    commands = [" ", "''", '""', "'' x", "/", "/etc", ".", "-", "\u0000", "\ud800", "a" * 5000]
    async with swap_rig(tmp_path, {"b": fake()}) as rig:

        async def reloaded(times: int) -> None:
            done = ("configuration reloaded", "nothing was changed")
            await rig.until(lambda: sum(len(rig.said(text)) for text in done) >= times)

        for times, command in enumerate(commands, 1):
            rig.configure({"b": fake(), "a": {"cmd": command, "proxy": "http://127.0.0.1:9"}})
            rig.program.reload()
            await reloaded(times)
            answer = await rig.chat("a")
            assert answer.status in (404, 500), answer.text
            assert message(answer)
        assert server(await rig.chat("b")) == "b"
        assert not rig.said("Traceback")
