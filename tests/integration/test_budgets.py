"""How much of the program a request enters: modules, functions and calls, counted.

A road that grows shows here first. Counted is a streamed chat whose prompt is resident, on a connection that is open
already, from its first byte to the record of its end. What is under way beside it (timers, other tasks), and an answer
that comes in several reads, count as well, so the chat that enters least counts.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bioproxy.app import App
from bioproxy.events import RequestEnded
from fakes.fake_engine import FakeEngine
from support.apps import running_app
from support.steps import entered

FAKE = Path(__file__).parents[1] / "fakes" / "llama_server.py"
TIMES = 30  # at most


class Entered(NamedTuple):
    modules: int
    functions: int
    calls: int


class Client:
    """One connection that sends the same chat again and again."""

    def __init__(self, app: App, content: str) -> None:
        self.app = app
        message = {"role": "user", "content": content}
        body = json.dumps({"model": "a", "stream": True, "max_tokens": 4, "messages": [message]}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\nAccept: */*\r\n"
        self.request = head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        self.over = asyncio.Event()
        app.bus.subscribe(RequestEnded, lambda _: self.over.set())

    async def chat(self) -> None:
        """One chat, from its first byte to the record of its end."""
        self.over.clear()
        self.writer.write(self.request)
        assert (await self.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await self.reader.readuntil(b"0\r\n\r\n")
        await self.over.wait()

    async def least(self, bound: Entered) -> Entered:
        """What the chat enters that enters least; no further one is sent if that is within `bound`."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.app.proxy_port)
        for _ in range(3):
            await self.chat()
        found = [await self.entered()]
        while len(found) < TIMES and not is_within(found[-1], bound):
            found.append(await self.entered())
        self.writer.close()
        return found[-1] if is_within(found[-1], bound) else min(found)

    async def entered(self) -> Entered:
        """What is entered while one chat goes its way."""
        with entered() as calls:
            await self.chat()
        return Entered(len({call.partition(":")[0] for call in calls}), len(set(calls)), len(calls))


def is_within(found: Entered, bound: Entered) -> bool:
    return all(one <= most for one, most in zip(found, bound, strict=True))


@pytest.mark.parametrize(
    ("content", "prefixes", "filters", "bound"),
    [
        ("hello", {}, {}, Entered(52, 220, 300)),
        ("@code hello", {"@code": "code.txt"}, {"setParams": {"seed": 1}}, Entered(64, 270, 360)),
    ],
    ids=["plain", "a template and a filter"],
)
async def test_a_chat_with_one_of_many_models(
    tmp_path: Path, content: str, prefixes: dict[str, str], filters: dict[str, Any], bound: Entered
) -> None:
    """With activity, captures and the access log, as they are by default."""
    (tmp_path / "slots").mkdir()
    (tmp_path / "code.txt").write_text("A text. <{message}>")
    command = f"{sys.executable} {FAKE} --port ${{PORT}} --slot-save-path {tmp_path / 'slots'}"
    models = {"a": {"cmd": command, "filters": filters}, "b": {"cmd": command}}
    paths = {name: str(tmp_path / path) for name, path in prefixes.items()}
    async with running_app(tmp_path, models=models, prefixes=paths) as app:
        found = await Client(app, content).least(bound)
    assert is_within(found, bound), f"{found}, and may be {bound}"


async def test_a_chat_with_one_engine(tmp_path: Path) -> None:
    """It enters less than one of many models; also if its stream does not come in one piece with its head."""
    bound = Entered(48, 200, 260)
    (slots := tmp_path / "slots").mkdir()
    async with FakeEngine(slot_folder=slots) as engine, running_app(tmp_path, backend_url=engine.url) as app:
        found = await Client(app, "hello").least(bound)
    assert is_within(found, bound), f"{found}, and may be {bound}"
