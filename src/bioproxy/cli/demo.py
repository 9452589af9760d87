"""`bioproxy demo` (`make demo`): what a warm cache is worth, measured on this machine, on a real engine.

Everything is real but the model's words: llama.cpp, a model with random weights (written once into the user's cache
folder, no download), a template that includes parts of bioproxy's own sources, `bioproxy serve` and requests over HTTP
as any client sends them (demo_program.py). Three of them are measured, each with another question after the template:

    cold        the engine has just started; the whole template is evaluated
    warm        the warm-up has run; only the question is evaluated
    restarted   the engine was killed (kill -9) and started anew; its KV cache comes back from disk

Before that an agent's sessions are measured (demo_agent.py), and then two models take turns (demo_swap.py). State and
snapshots live in a temporary folder, so that the next run begins cold as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from bioproxy.admin import page
from bioproxy.cli import demo_agent, demo_swap
from bioproxy.cli.command import Command
from bioproxy.cli.demo_program import (
    CONTEXT,
    ENOUGH_TOKENS,
    RATIO,
    SOURCES,
    Measured,
    Program,
    ask,
    excerpts,
    show_rows,
    until,
)
from bioproxy.cli.output import Output, Progress, count, duration
from bioproxy.cli.remote import follow
from bioproxy.embedded.model import ensure_model
from bioproxy.errors import BioproxyError

Json: TypeAlias = Any
PREFIX = "@demo"
PORT, ADMIN_PORT = 8088, 8089  # or others, if these are taken
QUESTIONS = ("What does this code do?", "Which errors can it raise?", "How does a task end?")

if sys.platform == "win32":
    CLOSED = signal.SIGBREAK  # what a closed terminal sends
else:
    CLOSED = signal.SIGHUP


def run(command: Command) -> int:
    """The tables, then serve on until a signal comes; with `--once` end, with 1 if a table disappoints.

    Ending a demo that went on serving is a good end: its notes have been read.
    """
    output, folder = command.output, cache_folder(os.environ)
    with Progress(output, "models") as progress:
        progress.say("looking")
        started = time.monotonic()
        model, other = (ensure_model(folder, seed=seed) for seed in (0, 1))
        smallest = {name: ensure_model(folder, shape="tiny", seed=seed) for seed, name in enumerate(demo_swap.NAMES)}
        progress.say(f"2 of {model.stat().st_size / 1e6:.0f} MB in {folder}, {duration(time.monotonic() - started)}")
    with (
        own_terminal(),
        signals_as_interrupts(),
        tempfile.TemporaryDirectory(dir=folder, prefix="demo-") as state,
        Program(Path(state), configuration(Path(state), model), port=PORT, admin_port=ADMIN_PORT) as program,
    ):
        models = dict(zip(demo_swap.NAMES, (model, other), strict=True))
        code = tables(output, program, folder=Path(state), models=models, smallest=smallest)
        if command.arguments.once:
            return code
        invite(output, program)
        with contextlib.suppress(KeyboardInterrupt):
            program.serve_on()
        return 0


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where the model is kept: `$XDG_CACHE_HOME/bioproxy`, else `~/.cache/bioproxy`; made if it is missing."""
    base = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "bioproxy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BioproxyError(f"cannot make {folder} for the demo's model: {error.strerror}") from error
    return folder


def configuration(folder: Path, model: Path) -> Json:
    """One engine with a template; all state is in `folder`."""
    for name, text in excerpts().items():
        (folder / name).write_text(text, "utf-8")
    files = "\n".join(f"File {name}:\n<{{{folder / name}}}>" for name in SOURCES)
    template = folder / "demo.txt"
    template.write_text(f"You know this program well.\n{files}\nAnswer in one sentence: <{{message}}>", "utf-8")
    return {
        "model": str(model),
        "engine_arguments": ["--ctx-size", str(CONTEXT)],
        "prefixes": {PREFIX: str(template)},
        "state_directory": str(folder),
        "warmup": {"enabled": False},  # until the cold request was measured
        "kv": {"disk_budget": "1GiB", "min_free": "64MiB"},
    }


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the demo as Ctrl-C does, with what it started."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, CLOSED)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def own_terminal() -> Iterator[None]:
    """Let Ctrl-C reach the demo alone if make began it: make would call an orderly end an error."""
    if "MAKELEVEL" not in os.environ or sys.platform == "win32" or not sys.stdin.isatty():
        yield
        return
    before, terminal = os.getpgrp(), sys.stdin.fileno()
    ignored = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # else a process in the background could not come forward
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(terminal, before)
        signal.signal(signal.SIGTTOU, ignored)


def tables(
    output: Output, program: Program, *, folder: Path, models: Mapping[str, Path], smallest: Mapping[str, Path]
) -> int:
    """All tables, each printed as soon as it is there; 0 if they show what they should, else 1."""
    sessions = demo_agent.measure(output, folder / "agent", smallest)
    if not output.json:
        demo_agent.show(output, sessions)
    rows = measure(output, program)
    if not output.json:
        show(output, rows)
    swaps = demo_swap.measure(output, folder / "two-models", models)
    if output.json:
        output.document({"an agent": sessions, "one engine": rows, "two models": swaps})
    else:
        demo_swap.show(output, swaps)
    found = [*demo_agent.complaints(sessions), *complaints(rows), *demo_swap.complaints(swaps)]
    for one in [*found, *program.errors()]:
        output.note(one)
    return 1 if found else 0


def measure(output: Output, program: Program) -> list[Measured]:
    """The three rows of the template's table."""
    with Progress(output, "engine") as progress:
        progress.say("starting")
        program.start()
        until(program.is_ready, "the engine did not start")
        progress.say("ready")
    with Progress(output, "cold") as progress:
        progress.say("the whole template is evaluated")
        cold = asked(program, "cold", QUESTIONS[0])
        progress.say(f"first token after {duration(cold.first)}")
    warm_up(output, program)
    warm = asked(program, "warm", QUESTIONS[1])
    with Progress(output, "restart") as progress:
        progress.say("kill -9 of the engine")
        started = time.monotonic()
        program.kill_engine()
        progress.say(f"the engine is back after {duration(time.monotonic() - started)}")
    return [cold, warm, asked(program, "restarted", QUESTIONS[2])]


def asked(program: Program, state: str, question: str) -> Measured:
    """One streamed chat request through the proxy, as any client sends it."""
    found = ask(program.port, [{"role": "user", "content": f"{PREFIX} {question}"}])
    return Measured(state, found.first, found.cached, found.evaluated)


def warm_up(output: Output, program: Program) -> None:
    """Warm the template up until its snapshot is on disk; from then on the program does so by itself."""
    program.client.warm(PREFIX)
    [target] = follow(output, program.client, PREFIX)
    if target["state"] != "saved":
        raise BioproxyError(f"the demo's template is {target['text']}")
    program.reload(warmup={"enabled": True})


def invite(output: Output, program: Program) -> None:
    url = f"http://localhost:{program.port}/v1/chat/completions"
    body = f'{{"messages":[{{"role":"user","content":"{PREFIX} What is a grant?"}}],"max_tokens":40}}'
    output.line(f"Serving on (the model's words are random). Try:\n\n  curl -s {url} -d '{body}'\n")
    output.line(f"  curl -s http://localhost:{program.admin_port}/status\n")
    if (page.FOLDER / page.INDEX).exists():
        output.line(f"The web page: http://localhost:{program.admin_port}/ui/\n")
    output.line("Ctrl-C ends it.")


def show(output: Output, rows: list[Measured]) -> None:
    """Print the table of the template; its last column says how many times sooner than cold."""
    show_rows(output, "", rows)


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
