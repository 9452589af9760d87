"""The App in this process, on ports of its own, with a configuration that the test gives as a dict."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from bioproxy.app import App
from bioproxy.config.load import Loaded, load
from bioproxy.models.single import Single
from bioproxy.station import Station

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
    values.setdefault("warmup", {}).setdefault("settle", 0)
    values.setdefault("kv", {}).setdefault("min_free", 0)
    path = folder / "conf.json"
    path.write_text(json.dumps(defaults | values))
    return path


def loader(path: Path) -> Callable[[], Loaded]:
    """What reads the configuration, now and at a reload; the environment is empty."""
    return lambda: load(path=str(path), environment={"HOME": str(path.parent)})


@asynccontextmanager
async def running_app(
    folder: Path, *, adjust: Callable[[App], object] = lambda _app: None, **values: Any
) -> AsyncIterator[App]:
    """Run an App, stopped with the block; `adjust` may change what no configuration reaches before it starts."""
    read = loader(write_config(folder, **values))
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
    logger = logging.getLogger("bioproxy")
    level, handlers, propagate = logger.level, [*logger.handlers], logger.propagate
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def single(app: App) -> Single:
    """The one engine of a program that serves one."""
    assert isinstance(app.fleet, Single)
    return app.fleet


def station(app: App) -> Station:
    """The parts of the one engine."""
    return single(app).station


async def engine_ready(app: App) -> None:
    """Wait until the engine is attached and the gate is open."""
    async with asyncio.timeout(15):
        await station(app).attachment.wait_ready()
