"""bioproxy before an engine: the App in this process, and `bioproxy serve` in a process that a test may kill.

Ports are the test's own, and the configuration is a dict.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bioproxy import aio
from bioproxy.app import App
from bioproxy.config.load import Loaded, load
from bioproxy.models.only import Only
from bioproxy.station import Station
from fakes.engine_process import EngineProcess
from support.http import call, free_port

MS = 0.001


def write_config(folder: Path, **values: Any) -> Path:
    """A conf.json in `folder` with free ports, state in `folder`, and quick timings unless the test says otherwise."""
    defaults: dict[str, Any] = {
        "proxy_host": "127.0.0.1",
        "proxy_port": 0,
        "admin_host": "127.0.0.1",
        "admin_port": 0,
        "state_directory": str(folder / "state"),
        "warmup_check_interval": 60,
    }
    path = folder / "conf.json"
    if values.get("models"):  # the ports stay when the file is written again
        known = json.loads(path.read_text()) if path.exists() else {}
        values.setdefault("startPort", known.get("startPort") or free_port(run=10))
    values.setdefault("warmup", {}).setdefault("settle", 0)
    values.setdefault("kv", {}).setdefault("min_free", 0)
    path.write_text(json.dumps(defaults | values))
    return path


def loader(path: Path) -> Callable[..., Loaded]:
    """What reads the configuration, now and at a reload; the environment is empty."""
    return lambda ports=None: load(path=str(path), environment={"HOME": str(path.parent)}, ports=ports)


@asynccontextmanager
async def running_app(
    folder: Path, *, adjust: Callable[[App], object] = lambda _app: None, **values: Any
) -> AsyncIterator[App]:
    """Run an App, stopped with the block; `adjust` may change what no configuration reaches before it starts.

    Whether an engine has settled after a client left is looked at every 100 ms, not every two seconds.
    """
    read = loader(write_config(folder, **values))
    with patch("bioproxy.station.SETTLE_SECONDS", 100 * MS), log_put_back():
        app = App(read(), reload=read)
        adjust(app)
        await app.start()
        try:
            yield app
        finally:
            await app.stop(2.0)


@contextmanager
def log_put_back() -> Iterator[None]:
    """Afterwards the process's log is set up as it was."""
    logger, loops = logging.getLogger("bioproxy"), logging.getLogger("asyncio")
    level, handlers, propagate, beside = logger.level, [*logger.handlers], logger.propagate, [*loops.handlers]
    try:
        yield
    finally:
        loops.handlers = beside
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def only(app: App) -> Only:
    """The one engine of a program that serves one."""
    assert app.fleet.only is not None
    return app.fleet.only


def station(app: App) -> Station:
    """The parts of the one engine."""
    return only(app).station


def looks_follow(app: App) -> None:
    """The pace of looks at the only engine's slots holds nobody up."""
    station(app).attachment.llama.pace.period = 1 * MS


async def engine_ready(app: App) -> None:
    """Wait until the engine is attached and the gate is open."""
    async with asyncio.timeout(30):
        await station(app).attachment.wait_ready()


Json = Any


class Bioproxy(EngineProcess):
    """`bioproxy serve -config FILE`; what it prints is kept in `lines`. Ports are free ones, the same at each start."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.proxy_port, self.admin_port = free_port(), free_port()

    def command(self) -> list[str]:
        """The command line, as in the README."""
        return [sys.executable, "-m", "bioproxy", "serve", "-config", str(self.file)]

    def ready(self, line: str) -> int:
        """The banner names the proxy's address once both ports are open."""
        return self.proxy_port if f":{self.proxy_port}, admin on " in line else 0

    async def status(self) -> Json:
        """`/status` now."""
        return (await call(self.admin_port, "GET", "/status")).json()

    async def until(self, true: Any, *, seconds: float = 30.0) -> Json:
        """Wait until `true` of the status; the status then. TimeoutError when it never is."""

        async def look() -> Json:
            status = await self.status()
            return status if true(status) else None

        found = await aio.poll(look, interval=0.01, deadline=seconds)
        if found is None:
            raise TimeoutError(f"did not come true within {seconds} s; the log: {self.lines}")
        return found
