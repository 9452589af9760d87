"""How much of the program a request enters: modules, functions and calls, counted.

A road that grows shows here first. The counts are those of a chat on a connection that is open already, from its first
byte to the record of its end, on the fake llama-server; what is under way beside it (timers, other tasks) is counted as
well, so each count is the least of several.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bioproxy.app import App
from bioproxy.config.load import Loaded, load
from bioproxy.events import RequestEnded

FAKE = Path(__file__).parents[1] / "fakes" / "llama_server.py"
TIMES = 5


class Entered(NamedTuple):
    """What a request enters."""

    modules: int
    functions: int
    calls: int


@asynccontextmanager
async def program(folder: Path, **config: Any) -> AsyncIterator[App]:
    """The program in this process, with everything at its default."""
    values = {
        "proxy_host": "127.0.0.1",
        "proxy_port": 0,
        "admin_host": "127.0.0.1",
        "admin_port": 0,
        "state_directory": str(folder / "state"),
        "kv": {"min_free": 0},
        **config,
    }
    path = folder / "conf.json"
    path.write_text(json.dumps(values))

    def read() -> Loaded:
        return load(path=str(path), environment={"HOME": str(folder), "PATH": os.environ["PATH"]})

    app = App(read(), reload=read)
    await app.start()
    try:
        yield app
    finally:
        await app.stop(2.0)


class Client:
    """One connection that sends the same chat again and again."""

    def __init__(self, app: App, model: str, content: str) -> None:
        self.app = app
        message = {"role": "user", "content": content}
        body = json.dumps({"model": model, "stream": True, "max_tokens": 4, "messages": [message]}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\nAccept: */*\r\n"
        self.request = head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def chat(self) -> None:
        """One chat, from its first byte to the record of its end."""
        over = asyncio.Event()
        unsubscribe = self.app.bus.subscribe(RequestEnded, lambda _: over.set())
        self.writer.write(self.request)
        assert (await self.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await self.reader.readuntil(b"0\r\n\r\n")
        await over.wait()
        unsubscribe()

    async def entered(self) -> Entered:
        """What a chat enters whose prompt is resident."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.app.proxy_port)
        for _ in range(3):
            await self.chat()
        found = [await self.counted() for _ in range(TIMES)]
        self.writer.close()
        return Entered(*map(min, zip(*found, strict=True)))

    async def counted(self) -> Entered:
        """What is entered while one chat goes its way."""
        calls: Counter[tuple[str, str]] = Counter()

        def note(frame: Any, event: str, _argument: object) -> None:
            name = frame.f_globals.get("__name__", "")
            if event == "call" and name.startswith("bioproxy"):
                calls[name, frame.f_code.co_qualname] += 1

        before = sys.getprofile()
        sys.setprofile(note)
        try:
            await self.chat()
        finally:
            sys.setprofile(before)
        if os.environ.get("BUDGETS"):
            for (module, function), count in calls.most_common():
                print(count, module, function)
        return Entered(len({module for module, _ in calls}), len(calls), sum(calls.values()))


def within(found: Entered, bound: Entered) -> None:
    assert all(one <= most for one, most in zip(found, bound, strict=True)), f"{found}, and may be {bound}"


@pytest.mark.parametrize(
    ("content", "prefixes", "filters", "bound"),
    [
        ("hello", {}, {}, Entered(72, 345, 470)),
        ("@code hello", {"@code": "code.txt"}, {"setParams": {"seed": 1}}, Entered(79, 390, 530)),
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
    async with program(tmp_path, models=models, prefixes=paths) as app:
        within(await Client(app, "a", content).entered(), bound)
