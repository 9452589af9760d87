"""What tests with foreign clients share: an App before a fake engine, templates to try, and a browser without a window.

The browser is a real one, driven over its DevTools websocket.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy.app import App
from fakes.fake_engine import FakeEngine
from support.apps import engine_ready, running_app
from support.http import TEXT, Websocket, connected

Json = Any
RULES = "These are the house rules.\n<{message}>"


class Line:
    """One App before one fake engine."""

    def __init__(self, engine: FakeEngine, app: App) -> None:
        self.engine = engine
        self.app = app

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.app.proxy_port}"

    async def received(self, path: str) -> Json:
        """The body of the last request to `path` as the engine got it."""
        return (await self.engine.requests(path))[-1].json()


@asynccontextmanager
async def fake_line(folder: Path, *, engine: Json = None, **values: Json) -> AsyncIterator[Line]:
    """An App with the template @rules before a fake engine; `engine` are its flags, `values` ours."""
    (folder / "rules.txt").write_text(RULES)
    before: Json = {"stall_timeout": 0, "warmup": {"enabled": False}, "prefixes": {"@rules": str(folder / "rules.txt")}}
    async with (
        FakeEngine(**(engine or {})) as fake,
        running_app(folder, **before | {"backend_url": fake.url} | values) as app,
    ):
        await engine_ready(app)
        yield Line(fake, app)


CURL = shutil.which("curl") or ""


async def curl(*words: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run curl without its own configuration: exit code, what it printed, what it complained of."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        CURL, "--disable", "--silent", "--show-error", "--max-time", "15", *words, stdin=pipe, stdout=pipe, stderr=pipe
    )
    out, err = await process.communicate(stdin)
    return process.returncode or 0, out.decode(), err.decode()


# The shell is the same browser without what only a window has, and takes a third less of the processor.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, BROWSERS)), "")
needs_chromium = pytest.mark.skipif(not PROGRAM, reason="chromium is not installed; the real browser is not tried")
# Names that mean this machine, as a LAN's or an attacker's name server would have it.
NAMES = "MAP box.lan 127.0.0.1, MAP evil.example 127.0.0.1"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-popup-blocking",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
    "--disable-features=LocalNetworkAccessChecks", f"--host-resolver-rules={NAMES}",
)  # fmt: skip


class Browser:
    """One tab."""

    def __init__(self, socket: Websocket) -> None:
        self.socket = socket
        self.number = 0
        self.session: Json = {}

    async def attach(self) -> None:
        """Take the first tab; what follows is for it."""
        tabs = (await self.ask("Target.getTargets"))["targetInfos"]
        tab = next(one["targetId"] for one in tabs if one["type"] == "page")
        self.session = await self.ask("Target.attachToTarget", targetId=tab, flatten=True)

    async def ask(self, method: str, **parameters: Json) -> Json:
        """One command of the DevTools protocol, and its result."""
        self.number += 1
        self.socket.send(
            TEXT, json.dumps({"id": self.number, "method": method, "params": parameters, **self.session}).encode()
        )
        while True:
            _, payload = await self.socket.receive()
            if (answer := json.loads(payload)).get("id") == self.number:
                return answer["result"]

    async def event(self, method: str) -> None:
        """Wait until the browser tells of this."""
        while json.loads((await self.socket.receive())[1]).get("method") != method:
            pass

    async def go(self, url: str) -> None:
        """Open an address, as if it had been typed; returns when the page is loaded."""
        await self.ask("Page.enable")
        await self.ask("Page.navigate", url=url)
        await self.event("Page.loadEventFired")

    async def text(self) -> str:
        """What stands on the page."""
        return str((await self.ask("Runtime.evaluate", expression="document.body.innerText"))["result"]["value"])

    async def click(self, selector: str) -> None:
        """Click, and wait for the page that this leads to."""
        await self.ask("Runtime.evaluate", expression=f"document.querySelector({selector!r}).click()")
        await self.event("Page.loadEventFired")


async def devtools(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """The port and path where the browser takes commands; it says so when it is up."""
    assert process.stderr is not None
    while line := (await process.stderr.readline()).decode():
        if "DevTools listening on" in line:
            place, _, path = line.strip().partition("ws://")[2].partition("/")
            return int(place.rpartition(":")[2]), f"/{path}"
    raise RuntimeError("the browser ended at once")


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Browser]:
    """A browser with a profile of its own in `folder`; nothing of it is left after."""
    process = await asyncio.create_subprocess_exec(
        PROGRAM, *FLAGS, f"--user-data-dir={folder}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        async with connected(*await devtools(process)) as socket:
            tab = Browser(socket)
            await tab.attach()
            yield tab
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
