"""`bioproxy demo` (`make demo`): what a warm cache is worth, measured on this machine, on a real engine.

Everything is real but the model's words: llama.cpp, a model with random weights (written once into the user's cache
folder, no download), a template that includes parts of bioproxy's own sources, requests over HTTP as any client sends
them. Three of them are measured, each with another question behind the same template:

    cold        the engine has just started; the whole template is evaluated
    warm        the warm-up has run; only the question is evaluated
    restarted   the engine was killed (kill -9) and started anew; its KV cache comes back from disk

Then two models take turns (demo_swap.py), which is the second table. State and snapshots live in a temporary folder,
so that the next run begins cold as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from bioproxy import aio
from bioproxy import log as logs
from bioproxy.app import App
from bioproxy.cli import demo_swap, serve
from bioproxy.cli.command import Command
from bioproxy.cli.demo_ask import PATIENCE, SOURCES, ask, excerpts, sooner
from bioproxy.cli.output import Output, Progress, count, duration
from bioproxy.config.load import Loaded, load
from bioproxy.embedded.model import ensure_model
from bioproxy.errors import BioproxyError
from bioproxy.events import Event
from bioproxy.models.single import Single
from bioproxy.warmup.runner import TargetStatistics

Json: TypeAlias = Any
PREFIX = "@demo"
ENOUGH_TOKENS = 3000
RATIO = 10  # how many times sooner than cold the first token must come
CONTEXT = 8192
QUESTIONS = ("What does this code do?", "Which errors can it raise?", "How does a task end?")
INTERRUPTED = 130


class Measured(msgspec.Struct, frozen=True):
    """One request: seconds to its first token, tokens from the cache, tokens evaluated."""

    state: str
    first: float
    cached: int
    evaluated: int


def run(command: Command) -> int:
    """Run the demo; 0 if each ratio was reached, else 1 with a sentence."""
    output = command.output
    folder = cache_folder(os.environ)
    with Progress(output, "models") as progress:
        progress.say("looking")
        started = time.monotonic()
        model, other = (ensure_model(folder, seed=seed) for seed in (0, 1))
        progress.say(f"2 of {model.stat().st_size / 1e6:.0f} MB in {folder}, {duration(time.monotonic() - started)}")
    with own_terminal(), tempfile.TemporaryDirectory(dir=folder, prefix="demo-") as state:
        loaded = configure(Path(state), model)
        logs.setup(level="warning")
        serve.raise_file_limit()
        models = {demo_swap.FIRST: model, demo_swap.OTHER: other}
        demo = partial(Demo, loaded, output, folder=Path(state) / "two-models", models=models)
        return serve.run(lambda: demo().run(once=command.arguments.once))


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where the model is kept: `$XDG_CACHE_HOME/bioproxy`, else `~/.cache/bioproxy`; made where it is missing."""
    base = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "bioproxy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BioproxyError(f"cannot make {folder} for the demo's model: {error.strerror}") from error
    return folder


def configure(folder: Path, model: Path) -> Loaded:
    """A configuration for the demo alone: no file and no environment counts, all state is in `folder`."""
    template = folder / "demo.txt"
    for name, text in excerpts().items():
        (folder / name).write_text(text, "utf-8")
    files = "\n".join(f"File {name}:\n<{{{folder / name}}}>" for name in SOURCES)
    template.write_text(f"You know this program well.\n{files}\nAnswer in one sentence: <{{message}}>", "utf-8")
    values: dict[str, Json] = {
        "proxy_port": free(8088),
        "admin_port": free(8089),
        "model": str(model),
        "engine_arguments": ["--ctx-size", str(CONTEXT)],
        "prefixes": {PREFIX: str(template)},
        "state_directory": str(folder),
        "warmup.enabled": False,  # until the cold request was measured
        "kv.disk_budget": "1GiB",
        "kv.min_free": "64MiB",
    }
    texts = {key: one if isinstance(one, str) else msgspec.json.encode(one).decode() for key, one in values.items()}
    path = folder / "config.json"
    path.write_text("{}", "utf-8")
    return load(texts, path=str(path), environment={"HOME": str(folder)})


def free(port: int) -> int:
    """`port` if nobody listens there, else 0: the system chooses."""
    with contextlib.closing(socket.socket()) as probe:
        return 0 if probe.connect_ex(("127.0.0.1", port)) == 0 else port


@contextlib.contextmanager
def own_terminal() -> Iterator[None]:
    """Let Ctrl-C reach the demo alone if make began it: make would call an orderly end an error."""
    if "MAKELEVEL" not in os.environ or os.name != "posix" or not sys.stdin.isatty():
        yield
        return
    before, terminal = os.getpgrp(), sys.stdin.fileno()
    ignored = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # else who is in the background could not come forward
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(terminal, before)
        signal.signal(signal.SIGTTOU, ignored)


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    """Keep one logger silent within the block."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(logging.NOTSET)


class Demo:
    """One run before a started program."""

    def __init__(self, loaded: Loaded, output: Output, *, folder: Path, models: Mapping[str, Path]) -> None:
        self.app = app = App(loaded, reload=lambda: loaded)
        assert isinstance(app.fleet, Single)
        self.single = app.fleet
        self.output = output
        self.folder, self.models = folder, models  # of the second table
        self.stop = asyncio.Event()
        self.changes = asyncio.Event()
        app.bus.subscribe(Event, lambda _event: self.changes.set())

    async def run(self, *, once: bool) -> int:
        """Measure, print, and go on serving until a signal comes; with `once` end, with 1 for a table that disappoints.

        Whoever ends a demo that went on serving has read what its notes say: that is a good end.
        """
        async with serve.Signals(self.stop, self.app.reload):
            try:
                await self.app.start()
                work = aio.spawn(self.tables(), name="demo")
                ending = aio.spawn(self.stop.wait(), name="demo waits for a signal")
                await asyncio.wait([work, ending], return_when=asyncio.FIRST_COMPLETED)
                interrupted = not work.done()
                await aio.finish([work, ending])
                if interrupted:
                    return INTERRUPTED
                if once:
                    return work.result()
                work.result()
                self.invite()
                await self.app.run_until(self.stop)
                return 0
            finally:
                await self.app.stop(2.0)

    async def tables(self) -> int:
        """Both tables, each printed as soon as it is there; 0 where they show what they should, else 1."""
        rows = await self.measure()
        if not self.output.json:
            show(self.output, rows)
        swaps = await demo_swap.measure(self.output, self.folder, self.models)
        if self.output.json:
            self.output.document({"one engine": rows, "two models": swaps})
        else:
            demo_swap.show(self.output, swaps)
        found = [*complaints(rows), *demo_swap.complaints(swaps)]
        for one in found:
            self.output.note(one)
        return 1 if found else 0

    async def measure(self) -> list[Measured]:
        """The three rows of the first table."""
        with Progress(self.output, "engine") as progress:
            progress.say("starting")
            await self.ready(0)
            progress.say("ready")
        with Progress(self.output, "cold") as progress:
            progress.say("the whole template is evaluated")
            cold = await self.ask("cold", QUESTIONS[0])
            progress.say(f"first token after {duration(cold.first)}")
        await self.warm_up()
        warm = await self.ask("warm", QUESTIONS[1])
        await self.kill()
        return [cold, warm, await self.ask("restarted", QUESTIONS[2])]

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until `done()` holds, looking whenever something happens."""
        async with asyncio.timeout(PATIENCE):
            while not done():
                self.changes.clear()
                await aio.wait_first(self.changes, timeout=0.25)

    async def ready(self, generation: int) -> None:
        """Wait for an engine later than `generation`."""
        attachment = self.single.station.attachment
        await self.until(lambda: attachment.state == "ready" and attachment.generation > generation)

    async def warm_up(self) -> None:
        """Let the warm-up run, and wait until its snapshot is on disk."""
        with Progress(self.output, "warm-up") as progress:
            await self.single.station.runner.warm(PREFIX)
            await self.until(lambda: self.target().state not in {"waiting", "warming"})
            await self.until(
                lambda: any(one.template for one in self.single.station.keeper.list()) or self.target().state != "saved"
            )
            progress.say(f"{self.target().text}, {count(self.target().total)} tokens")
        if self.target().state != "saved":
            notes = "; ".join(self.single.station.keeper.statistics().notes)
            raise BioproxyError(f"the demo's template is {self.target().text}; {notes}")
        warmup = msgspec.structs.replace(self.app.config.warmup, enabled=True)
        self.app.settings.take(msgspec.structs.replace(self.app.config, warmup=warmup))
        self.single.station.runner.wake()

    def on_disk(self) -> bool:
        """Whether the template's snapshot is whole."""
        return any(one.template for one in self.single.station.keeper.list())

    def target(self) -> TargetStatistics:
        """The warm-up of the demo's template."""
        return self.single.station.runner.statistics().targets[0]

    async def kill(self) -> None:
        """Kill the engine as an out-of-memory killer would, and wait until it is back."""
        launched, generation = self.single.launched, self.single.station.attachment.generation
        assert launched is not None
        assert launched.pid is not None
        with Progress(self.output, "restart") as progress:
            progress.say(f"kill -9 {launched.pid}")
            started = time.monotonic()
            with quiet("bioproxy.engines.process"):  # who is killed on purpose need not make it sound like an accident
                os.kill(launched.pid, signal.SIGKILL)
                self.single.station.attachment.suspect("the demo killed it")
                await self.ready(generation)
            progress.say(f"the engine is back after {duration(time.monotonic() - started)}")

    async def ask(self, state: str, question: str) -> Measured:
        """One streamed chat request through the proxy, as any client sends it."""
        messages = [{"role": "user", "content": f"{PREFIX} {question}"}]
        asked = await asyncio.to_thread(ask, self.app.proxy_port, messages)
        return Measured(state, asked.first, asked.cached, asked.evaluated)

    def invite(self) -> None:
        """Say how to go on."""
        url = f"http://localhost:{self.app.proxy_port}/v1/chat/completions"
        body = f'{{"messages":[{{"role":"user","content":"{PREFIX} What is a grant?"}}],"max_tokens":40}}'
        self.output.line(f"Serving on (the model's words are random). Try:\n\n  curl -s {url} -d '{body}'\n")
        self.output.line(f"  curl -s http://localhost:{self.app.admin_port}/status\n\nCtrl-C ends it.")


def show(output: Output, rows: list[Measured]) -> None:
    """Print the first table; its last column says how many times sooner than cold."""
    cold = rows[0].first
    cells = [
        (
            one.state,
            duration(one.first),
            count(one.cached),
            count(one.evaluated),
            sooner(one.first, cold) if one is not rows[0] else "",
        )
        for one in rows
    ]
    output.line()
    output.table(("", "first token", "cached", "evaluated", ""), cells, right=(1, 2, 3))
    output.line()


def complaints(rows: list[Measured]) -> list[str]:
    """What does not show what it should, as sentences."""
    cold, *others = rows
    found = [
        f"{one.state}: the first token came after {duration(one.first)}, more than a tenth of the "
        f"{duration(cold.first)} that it took cold; is this machine busy with something else?"
        for one in others
        if one.first * RATIO > cold.first
    ]
    if cold.evaluated < ENOUGH_TOKENS:
        found.append(f"the template has only {count(cold.evaluated)} tokens; {count(ENOUGH_TOKENS)} were meant")
    return found
