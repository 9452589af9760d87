"""What the fault tests share: an App with quick timings before a fake engine, good requests, half-finished ones.

Every fault test runs inside `tried`, which afterwards asks for one more good answer and then compares what the program
holds with what it held before.
"""

from __future__ import annotations

import asyncio
import builtins
import io
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy import files
from bioproxy.app import App
from bioproxy.config.schema import Key
from bioproxy.events import Event
from fakes.fake_engine import FakeEngine
from support.apps import MS, running_app, station
from support.http import Answer, build, call
from support.kv_rig import text
from support.leaks import nothing_leaked, until

Json = Any
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
SAVING: Json = {"min_seconds": 1 * MS, "save_after": 10 * MS}  # what is resident is saved as soon as nobody asks
SPEED = 20_000  # tokens a second: a few hundred are worth a save and cost some milliseconds


def changed(path: Path) -> int:
    """When a file was changed, which no call can set: wait for another one before a change that must be seen."""
    return files.changed(path, path.stat())


def ask(words: str = "hello", *, tokens: int = 4, **more: Json) -> Json:
    """A chat body that every dialect's route of the fake understands."""
    messages = [{"role": "user", "content": words}]
    return {"model": "m", "messages": messages, "max_tokens": tokens, "temperature": 0, **more}


def body_for(path: str, words: str = "hello", *, tokens: int = 4, **more: Json) -> Json:
    """The same request in the dialect of `path`."""
    if path == RESPONSES:
        return {"model": "m", "input": words, "max_output_tokens": tokens, **more}
    return ask(words, tokens=tokens, **more)


def quicken(app: App) -> None:
    """Looks at the engine, at the folder and back at a disk that refused follow within milliseconds."""
    station(app).attachment.interval = 50 * MS
    station(app).attachment.stall.recovery = 200 * MS
    station(app).keeper.moments.tick = 50 * MS
    station(app).keeper.pause.first_retry = station(app).keeper.pause.delay = 20 * MS


@asynccontextmanager
async def tried(
    engine: FakeEngine, folder: Path, *, adjust: Callable[[App], object] = lambda _app: None, **values: Json
) -> AsyncIterator[App]:
    """An App before `engine`, ready. After the block: the next good request is served, and nothing is leaked."""

    def both(app: App) -> None:
        quicken(app)
        adjust(app)

    before = {"backend_url": engine.url, "stall_timeout": 0}
    async with running_app(folder, adjust=both, **before | values) as app:
        await ready(app)
        async with nothing_leaked(app):
            yield app
            await ready(app)
            answer = await good(app, headers=authority(app))
            assert answer.status == 200, answer.text
    assert await engine.violations() == []


def authority(app: App) -> dict[str, str]:
    """The header that the first of `api_keys` asks for; nothing if there are none."""
    keys = [key.key for key in app.config.api_keys if isinstance(key, Key)]
    return {"Authorization": f"Bearer {keys[0]}"} if keys else {}


async def ready(app: App, *, generation: int = 0) -> None:
    """Wait until the engine is ready, in its `generation`-th process or a later one, and seen if it can be."""
    found = station(app).attachment
    await until(
        lambda: (
            found.state == "ready"
            and found.generation >= generation
            and (found.process is not None or sys.platform != "linux")
        )
    )


async def good(app: App, words: str = "hello", *, path: str = CHAT, headers: Json = None, **more: Json) -> Answer:
    """A request that must be served."""
    return await call(app.proxy_port, "POST", path, data=body_for(path, words, **more), headers=headers)


async def saved(app: App, count: int = 1) -> None:
    """Wait until `count` snapshots are on disk."""
    await until(lambda: station(app).keeper.statistics().snapshots >= count)


async def conversation(app: App, name: str, *, words: int = 400) -> Json:
    """A long conversation of one turn, served; its messages for the next turn."""
    first = {"role": "user", "content": text(words, name)}
    answer = await call(app.proxy_port, "POST", CHAT, data={"messages": [first], "max_tokens": 4})
    assert answer.status == 200, answer.text
    return [first, answer.json()["choices"][0]["message"], {"role": "user", "content": "and then?"}]


async def go_on(app: App, messages: Json) -> Json:
    """The next turn: the engine's own `timings` of it."""
    answer = await call(app.proxy_port, "POST", CHAT, data={"messages": messages, "max_tokens": 4})
    assert answer.status == 200, answer.text
    return answer.json()["timings"]


@asynccontextmanager
async def sent(
    app: App, path: str = CHAT, data: Json = None, headers: dict[str, str] | None = None
) -> AsyncIterator[asyncio.StreamReader]:
    """A request that is sent; its answer is read by the test. Leaving the block is the client's leaving."""
    reader, writer = await asyncio.open_connection("127.0.0.1", app.proxy_port)
    try:
        writer.write(build("POST", path, body=json.dumps(data or ask()).encode(), headers=headers))
        await writer.drain()
        yield reader
    finally:
        writer.transport.abort()


def heard(app: App, kind: type[Event]) -> list[Event]:
    """The events of one class from now on."""
    found: list[Event] = []
    app.bus.subscribe(kind, found.append)
    return found


CALLS = ((os, "stat"), (os, "lstat"), (os, "open"), (os, "scandir"), (os, "mkdir"), (io, "open"), (builtins, "open"))


class Hung:
    """What was reached below `path`, by how many threads, and the end of it."""

    def __init__(self, path: Path, *, long: bool) -> None:
        self.path = path
        self.long = long
        self.over = threading.Event()
        self.reached = threading.Event()
        self.threads: list[threading.Thread] = []

    def meets(self, path: object) -> bool:
        """Whether a call for `path` hangs."""
        if isinstance(path, int) or self.over.is_set():
            return False
        name = os.fsdecode(path)  # type: ignore[arg-type]
        return name == str(self.path) or name.startswith(f"{self.path}/")

    def wait(self) -> None:
        """Hang, as a call that has done so for long."""
        me = threading.current_thread()
        self.threads.append(me)
        if self.long and me.ident in files.calls:
            path, since = files.calls[me.ident]
            files.calls[me.ident] = path, since - files.PATIENCE
        self.reached.set()
        self.over.wait()


@contextmanager
def hung(path: Path, monkeypatch: pytest.MonkeyPatch, *, long: bool = True) -> Iterator[Hung]:
    """Let calls for `path`, and for what is below it, hang until the block ends; `long`: for 10 s already."""
    made = Hung(path, long=long)

    def hanging(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *arguments: Any, **more: Any) -> Any:
            if made.meets(path):
                made.wait()
            return real(path, *arguments, **more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(files, "LOOK", 0.01)
        for module, name in CALLS:
            patch.setattr(module, name, hanging(getattr(module, name)))
        try:
            yield made
        finally:
            made.over.set()
            for thread in made.threads:
                thread.join(10)
