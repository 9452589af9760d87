"""docs/architecture.md: the walks that it describes are the ones that the program takes.

Each walk is a numbered list, each step begins with the function that is entered. A step that is renamed, moved or goes
another way fails here.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bioproxy.app import App
from bioproxy.events import Event, PromptMissed, RequestEnded, SnapshotSaved, WarmupEnded
from support import leaks
from support.apps import running_app
from support.http import call
from support.steps import entered

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
FAKE = ROOT / "tests" / "fakes" / "llama_server.py"
WALKS = ("one request", "one swap", "one warm-up", "one idle save", "one finding")
STEP = re.compile(r"^\d+\. `([\w.]+)`", re.MULTILINE)
CHAT = "/v1/chat/completions"


def steps(walk: str) -> list[str]:
    """The functions of a walk, in the order of the page."""
    return STEP.findall(PAGE.partition(f"### The walk of {walk}\n")[2].partition("\n##")[0])


def check(walk: str, calls: list[str]) -> None:
    """Each step is entered, after the one before it."""
    wanted, found = steps(walk), [call.replace(".py:", ".").replace("/", ".") for call in calls]
    assert len(wanted) >= 8, "the page has no such walk"
    place = 0
    for number, step in enumerate(wanted, 1):
        assert step in found, f"step {number} of {walk}: {step} is not entered at all"
        assert step in found[place:], f"step {number} of {walk}: {step} is not entered after {wanted[number - 2]}"
        place += found[place:].index(step) + 1


@asynccontextmanager
async def two_models(folder: Path, **values: Any) -> AsyncIterator[App]:
    """The program in this process with two models that can't run together, and a template."""
    (folder / "slots").mkdir()
    (folder / "code.txt").write_text("What stands in a file. " * 40 + "<{message}>")
    command = f"{sys.executable} {FAKE} --port ${{PORT}} --slot-save-path {folder / 'slots'}"
    models = {name: {"cmd": command} for name in ("a", "b")}
    kv = {"min_seconds": 0, "save_after": 60, "min_free": 0, **values.pop("kv", {})}
    prefixes = values.pop("prefixes", {"@code": str(folder / "code.txt")})
    async with running_app(folder, models=models, prefixes=prefixes, kv=kv, swap={"min_resident": 0}, **values) as app:
        yield app


async def ask(app: App, model: str, text: str = "@code Why?") -> None:
    """One streamed chat."""
    await chat(app, model, [{"role": "user", "content": text}])


async def chat(app: App, model: str, messages: list[dict[str, str]]) -> None:
    """One streamed chat of these messages."""
    body = json.dumps({"model": model, "stream": True, "max_tokens": 4, "messages": messages}).encode()
    answer = await call(app.proxy_port, "POST", CHAT, body=body, headers={"Content-Type": "application/json"})
    assert answer.status == 200, answer.body


@asynccontextmanager
async def until(app: App, kind: type[Event]) -> AsyncIterator[None]:
    """Leave the block once an event of this kind was published in it."""
    over = asyncio.Event()
    unsubscribe = app.bus.subscribe(kind, lambda _: over.set())
    try:
        yield
        await asyncio.wait_for(over.wait(), 25)
    finally:
        unsubscribe()


async def test_the_walk_of_one_request(tmp_path: Path) -> None:
    """A chat with a template, whose model is ready and whose prompt is resident."""
    async with two_models(tmp_path) as app:
        await ask(app, "a")
        async with until(app, RequestEnded):
            with entered() as found:
                await ask(app, "a")
    check("one request", found)


async def test_the_walk_of_one_swap(tmp_path: Path) -> None:
    """A model that has something to save makes way for another one, which has something to bring back."""
    async with two_models(tmp_path) as app:
        await ask(app, "b", "Who?")
        await ask(app, "a")
        with entered() as found:
            await ask(app, "b", "Who?")
    check("one swap", found)


async def test_the_walk_of_one_warm_up(tmp_path: Path) -> None:
    """It begins when the model's engine was met."""
    async with two_models(tmp_path) as app, until(app, WarmupEnded):
        with entered() as found:
            async with until(app, WarmupEnded):
                await ask(app, "a", "Who?")
    check("one warm-up", found)


async def test_the_walk_of_one_idle_save(tmp_path: Path) -> None:
    """After a conversation that no request went on with."""
    async with two_models(tmp_path, prefixes={}, kv={"save_after": 0.05}) as app:
        with entered() as found:
            async with until(app, SnapshotSaved):
                await ask(app, "a", "Who? " * 200)
    check("one idle save", found)


async def test_the_walk_of_one_finding(tmp_path: Path) -> None:
    """A conversation whose first prompt is remembered goes on with another system message."""
    words = "So many words. " * 100
    system, turns = {"role": "system", "content": words}, [{"role": "user", "content": words}]
    async with two_models(tmp_path, prefixes={}) as app:
        async with until(app, PromptMissed):
            await chat(app, "a", [system, *turns])
        with entered() as found:
            async with until(app, PromptMissed):
                await chat(app, "a", [{"role": "system", "content": f"New: {words}"}, *turns])
            await leaks.until(lambda: app.doctor.requests == 2)
    check("one finding", found)
