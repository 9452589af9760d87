"""`/logs` and `/logs/stream`: history, what is written, and which log is which."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.http import build, call
from support.swap_api import program
from support.swap_client import message
from support.swap_models import apart, fake, fakes
from support.swap_rig import Rig, swap_rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
MODELS = {"a": fake("--say 'hello from a'"), "org/b": fake("--say 'hello from b'", aliases=["al"])}
rig = program(MODELS, groups=apart("a org/b"))


@asynccontextmanager
async def reading(rig: Rig, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """A client of a stream, after the head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    try:
        writer.write(build("GET", path))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 25)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"text/plain" in head
        assert b"X-Accel-Buffering: no" in head
        yield reader
    finally:
        writer.close()


async def until(reader: asyncio.StreamReader, text: str) -> str:
    """What comes up to `text`."""
    async with asyncio.timeout(30):
        return (await reader.readuntil(text.encode())).decode()


async def test_history(rig: Rig) -> None:
    """Plain text; by default our own lines only."""
    await rig.chat("a")
    answer = await rig.get("/logs")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "[INFO] a is ready" in answer.text
    assert "hello from a" not in answer.text


async def test_a_browser_is_sent_to_the_page(rig: Rig) -> None:
    """302."""
    answer = await call(rig.port, "GET", "/logs", headers={"Accept": "text/html"})
    assert (answer.status, answer.headers["location"]) == (302, "ui/#/logs")


@pytest.mark.parametrize("path", ["/logs/stream", "/logs/stream/proxy"])
async def test_our_lines_live(path: str, rig: Rig) -> None:
    """First what was, then what is written."""
    await rig.chat("a")
    async with reading(rig, path) as reader:
        await until(reader, "listening on http://")
        await rig.post("/api/models/unload/a")
        await until(reader, "a is being stopped")


@pytest.mark.parametrize(
    ("path", "mine", "other"),
    [
        ("/logs/stream/a", "hello from a", "hello from b"),
        ("/logs/stream/org/b", "hello from b", "hello from a"),
        ("/logs/stream/al", "hello from b", "hello from a"),
    ],
)
async def test_one_models_lines(path: str, mine: str, other: str, rig: Rig) -> None:
    """By any of its names, and nobody else's."""
    await rig.chat("a")
    await rig.chat("al")
    async with reading(rig, path) as reader:
        assert other not in await until(reader, mine)


async def test_all_engines_lines(rig: Rig) -> None:
    """`upstream`."""
    await rig.chat("a")
    await rig.chat("al")
    async with reading(rig, "/logs/stream/upstream") as reader:
        text = await until(reader, "hello from a") + await until(reader, "listening on")
        assert "[INFO]" not in text


async def test_without_history(rig: Rig) -> None:
    """Only what comes."""
    async with reading(rig, "/logs/stream/proxy?no-history") as reader:
        await call(rig.port, "GET", "/v1/models", headers={"User-Agent": "marked/1"})
        assert "listening on" not in await until(reader, "marked/1")


async def test_a_log_of_nobody(rig: Rig) -> None:
    """400 in llama-swap's words."""
    answer = await rig.get("/logs/stream/zzz")
    assert (answer.status, message(answer)) == (400, "invalid logger. Use 'proxy', 'upstream' or a model's ID")


async def test_a_model_that_never_ran(rig: Rig, tmp_path: Path) -> None:
    """Its log is empty, and can be waited for; the head comes at once, where llama-swap waits with it."""
    async with swap_rig(tmp_path, fakes("a")) as fresh, reading(fresh, "/logs/stream/a") as reader:
        await fresh.chat("a")
        await until(reader, "listening on")


async def test_access_lines(rig: Rig) -> None:
    """One for each request, but for those that pages and monitors send every few seconds."""
    headers = {"User-Agent": "tester/1", "X-Forwarded-For": "203.0.113.9"}
    await call(rig.port, "GET", "/v1/models?x=1", headers=headers)
    await rig.get("/api/performance?x=access")
    await rig.get("/metrics?x=access")
    await rig.get("/wol-health?x=access")
    text = (await rig.get("/logs")).text
    (line,) = [line for line in text.splitlines() if "tester/1" in line]
    assert line.startswith('[INFO] Request 127.0.0.1 "GET /v1/models HTTP/1.1" 200 ')
    for path in ("/api/performance", "/metrics", "/wol-health"):
        assert path not in text


@pytest.mark.parametrize(
    ("destination", "ours", "theirs"),
    [("proxy", True, False), ("upstream", False, True), ("both", True, True), ("none", False, False)],
)
async def test_where_lines_go(destination: str, ours: bool, theirs: bool, tmp_path: Path) -> None:
    """`logToStdout` decides for standard error and for `/logs`; a reload changes it; each own log has all lines."""
    models = {"a": fake("--say heyho")}
    async with swap_rig(tmp_path, models) as rig:
        rig.configure(models, logToStdout=destination)
        assert (await call(rig.ports.admin, "POST", "/reload")).status == 200
        await rig.chat("a")
        for name, text in (("proxy", "a is ready"), ("upstream", "heyho")):
            async with reading(rig, f"/logs/stream/{name}") as reader:
                await until(reader, text)
        combined = (await rig.get("/logs")).text
        assert ("a is ready" in combined, "heyho" in combined) == (ours, theirs)
    printed = "\n".join(rig.program.lines)
    assert ("a is ready" in printed, "heyho" in printed) == (ours, theirs)
