"""A start that ends half way, at each of its steps: nothing is left, and nothing on disk is lost."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import psutil
import pytest

from bioproxy import aio
from bioproxy.app import App
from bioproxy.cli import serve
from bioproxy.config.load import Loaded, load
from bioproxy.errors import ConfigError
from bioproxy.models import fleet
from bioproxy.ports import Ports
from bioproxy.templates.parse import Filled
from support.apps import log_put_back, running_app, write_config
from support.leaks import cut, open_files, tasks, until

Json = Any
KINDS = ["one", "ours", "many"]
# Each step of `App.start`: a part of the app, and what is called of it.
STEPS = [
    ("management", "find_captures"), ("allowances", "load"), ("ports.proxy", "listen"), ("front", "listens_on"),
    ("ports.admin", "listen"), ("pins", "load"),
    ("pins", "forget"), ("fleet", "start"), ("management", "start"),
]  # fmt: skip


class Broken(Exception):
    """What a step raises."""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Loaded]:
    """Gives a configuration of each kind; engines of ours are programs that say nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "llama-server").write_text("#!/bin/sh\nexec sleep 100\n")
    (folder / "llama-server").chmod(0o755)
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(100))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    made: dict[str, Json] = {
        "one": {"backend_url": "http://127.0.0.1:9"},
        "ours": {"model": str(tmp_path / "m.gguf")},
        "many": {"models": {"a": {"cmd": "sleep 100 ${PORT}"}}, "hooks": {"on_startup": {"preload": ["a"]}}},
    }

    def read(kind: str, **values: Json) -> Loaded:
        path = write_config(tmp_path, **made[kind], **values)
        return load(path=str(path), environment={"HOME": str(tmp_path)})

    return read


@pytest.fixture
def failed() -> Iterator[list[str]]:
    """The steps of an end that failed, and models that did, as the log tells."""
    said: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign] # a list is enough
    loggers = [logging.getLogger(module.__name__) for module in (aio, fleet)]
    for logger in loggers:
        logger.addHandler(handler)
    yield said
    for logger in loggers:
        logger.removeHandler(handler)


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Afterwards tasks, open files, threads and processes are as they were."""

    def threads() -> int:
        return sum(not one.name.startswith("asyncio_") for one in threading.enumerate())

    def children() -> int:
        return len(psutil.Process().children(recursive=True))

    count, files, others, processes = tasks(), open_files(), threads(), children()
    with log_put_back():
        yield
    await until(lambda: not tasks() - count and threads() <= others)
    await until(lambda: (open_files(), children()) == (files, processes))


def broken(work: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """`work`, which fails before or after it was done."""

    async def later(*given: Any, **named: Any) -> None:
        if after:
            await work(*given, **named)
        raise Broken

    def now(*given: Any, **named: Any) -> None:
        if after:
            work(*given, **named)
        raise Broken

    return later if inspect.iscoroutinefunction(work) else now


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("part", "step"), STEPS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_step_that_fails(
    kind: str, part: str, step: str, after: bool, program: Callable[..., Loaded], failed: list[str]
) -> None:
    """What came before it is ended, what never came is not missed, and no step of the end fails."""
    async with nothing_left():
        app = App(program(kind), reload=lambda: program(kind))
        owner = attrgetter(part)(app)
        if owner is not None:
            setattr(owner, step, broken(getattr(owner, step), after=after))
            with pytest.raises(Broken):
                await app.start()
        await app.stop(0.0)
        await app.close_log()
    assert failed == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_start_that_is_cancelled_at_each_of_its_awaits(kind: str, program: Callable[..., Loaded]) -> None:
    """A signal may come at any moment, also right after the last one."""
    for at in range(60):
        async with nothing_left():
            app = App(program(kind), reload=lambda: program(kind))
            was_cut = await cut(app.start(), at)
            await app.stop(0.0)
            await app.close_log()
        if not was_cut:
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_port_that_is_taken(kind: str, program: Callable[..., Loaded]) -> None:
    """The sentence is all that comes of it: no trace, no line about streams, and the pins stay."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        loaded = program(kind, proxy_port=taken.getsockname()[1])
        with log_put_back():
            app = App(loaded, reload=lambda: loaded)
            app.pins.put(b"key", Filled(prefix="@t", version="", parts=("text",)))
            await app.pins.flush()
            index = app.pins.folder / "index" if app.pins.folder else Path()
            before = {path.name: path.read_bytes() for path in index.parent.iterdir()}
            async with nothing_left():
                with pytest.raises(ConfigError, match=rf"is taken by .*pid {os.getpid()}.* with -port or -listen"):
                    await serve.serve(loaded, lambda: loaded)
            assert {path.name: path.read_bytes() for path in index.parent.iterdir()} == before


async def test_a_signal_in_the_middle_of_a_start_ends_it(
    program: Callable[..., Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to wait for what the start waits for, and signals do again what they did before."""
    starting = asyncio.Event()

    async def waits(_ports: Ports, *, admin: bool) -> None:
        starting.set()
        await asyncio.Event().wait()

    loaded, before = program("many"), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Ports, "open", waits)
    async with nothing_left():
        served = aio.spawn(serve.serve(loaded, lambda: loaded), name="program")
        await starting.wait()
        signal.raise_signal(signal.SIGTERM)
        assert await served == 0
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("kind", ["ours", "many"])
@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("fleet", "refuse"), ("ports.proxy", "close"), ("page", "close"), ("fleet", "stop"), ("shelves", "close"),
        ("pins", "flush"), ("allowances", "flush"), ("admin", "close"), ("ports.admin", "close"),
        ("management", "close"),
    ],
)  # fmt: skip
async def test_a_step_of_the_end_that_fails_does_not_hinder_the_others(
    kind: str, part: str, step: str, program: Callable[..., Loaded], failed: list[str]
) -> None:
    """It is told in the log, and all the rest is ended: engines, ports, services."""
    async with nothing_left():
        app = App(program(kind), reload=lambda: program(kind))
        await app.start()
        owner = attrgetter(part)(app)
        if owner is not None:
            setattr(owner, step, broken(getattr(owner, step), after=True))
        await app.stop(0.0)
        await app.close_log()
    assert len(failed) == (owner is not None)


async def test_what_a_killed_run_was_writing_is_removed(tmp_path: Path) -> None:
    """A crash cannot tidy up after itself, so the next start does."""

    def leave(app: App) -> None:
        (app.state / ".new-half").write_bytes(b"half")

    async with running_app(tmp_path, adjust=leave, backend_url="http://127.0.0.1:1") as app:
        assert not (app.state / ".new-half").exists()
