"""The demo's first part: sessions of an agent, which all begin with the same long head.

What a coding agent sends before the first word of a session is always the same: rules, and dozens of tools, here some
17,000 tokens. Four sessions are measured, each with another task, in each state in which one may find its engine:

    cold            nobody ever asked
    new session     another session was there before
    restarted       bioproxy was killed (kill -9), and its engine with it, as soon as the head was on disk: no
                    conversation was saved by then
    another model   another model was asked in between, and the first one's process ended for it

No template, no configuration: the second session shows that the head is one (docs/templates.md, "Heads"). The model is
the smallest one that can be generated, or reading 17,000 tokens would take minutes; what a larger one spares is more.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from bioproxy.cli import demo_swap
from bioproxy.cli.demo_program import RATIO, Measured, Program, ask, excerpts, show_rows, until
from bioproxy.cli.output import Output, Progress, count, duration

Json: TypeAlias = Any
CONTEXT = 24_576
HEAD = 17_000  # tokens, about
RULES, TOOL = 20_000, 900  # characters: of the rules, of one tool
TOOLS = 32
LITTLE = 200  # tokens that a new session evaluates at most
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
TASKS = ("Find what ends a task.", "Which errors are there?", "Add a log line.", "Write a test for it.")


class Session(Measured, frozen=True):
    """The first turn of one session; `start`: seconds before its first token in which the engine was started."""

    start: float


def measure(output: Output, folder: Path, models: Mapping[str, Path]) -> list[Session]:
    """The four rows. `models`: the files of demo_swap's FIRST and OTHER, the smallest ones."""
    folder.mkdir(exist_ok=True)
    config = demo_swap.configuration(folder, models, context=CONTEXT)
    config["kv"]["save_after"] = "1h"  # no conversation is saved before the kill
    with Program(folder, config) as program:
        with Progress(output, "an agent") as progress:
            program.start()
            progress.say(f"cold: a head of {count(HEAD)} tokens is evaluated")
            cold = session(program, "cold", TASKS[0])
            progress.say(f"first token after {duration(cold.first)}")
        with Progress(output, "new session") as progress:
            new = session(program, "new session", TASKS[1])
            until(lambda: head_saved(program), "the head was not saved")
            progress.say(f"first token after {duration(new.first)}; now its head counts, and is saved")
        with Progress(output, "restart") as progress:
            progress.say("kill -9 of bioproxy itself")
            program.kill()
            started = time.monotonic()
            program.start()
            progress.say(f"bioproxy is back after {duration(time.monotonic() - started)}")
        restarted = session(program, "restarted", TASKS[2])
        with Progress(output, "swap") as progress:
            progress.say("another model is asked in between")
            ask(program.port, [{"role": "user", "content": "What time is it?"}], model=demo_swap.OTHER)
            back = session(program, "another model", TASKS[3])
            progress.say(f"first token after {duration(back.first)}")
        return [cold, new, restarted, back]


def session(program: Program, state: str, task: str) -> Session:
    """A new session: the agent's head, then its task."""
    messages = [{"role": "system", "content": rules()}, {"role": "user", "content": task}]
    asked = ask(program.port, messages, model=demo_swap.FIRST, tools=tools())
    return Session(state, asked.first, asked.cached, asked.evaluated, asked.parts.get("start", 0.0))


def rules() -> str:
    text = "\n".join(excerpts().values())
    return f"You work on this program.\n{(text * 9)[:RULES]}"


def tools() -> list[Json]:
    text = "\n".join(excerpts().values())
    starts = range(0, TOOLS * TOOL // 4, TOOL // 4)
    described = {f"tool_{start}": text[start % len(text) :][:TOOL] for start in starts}
    functions = [{"name": name, "description": said, "parameters": SCHEMA} for name, said in described.items()]
    return [{"type": "function", "function": function} for function in functions]


def head_saved(program: Program) -> bool:
    return any(one["head"] for one in program.client.get("/status")["snapshots"])


def show(output: Output, rows: list[Session]) -> None:
    show_rows(output, "an agent", rows, parts=("start",))


def complaints(rows: list[Session]) -> list[str]:
    """What does not show what it should, as sentences."""
    cold, *others = rows
    found = [
        f"{one.state}: {count(one.evaluated)} tokens were evaluated again, {count(one.cached)} came from the cache"
        for one in others
        if one.evaluated > LITTLE or one.cached < cold.evaluated - LITTLE
    ]
    found += [
        f"{one.state}: the first token came after {duration(one.first)}, more than a tenth of the "
        f"{duration(cold.first)} that it took cold; is this machine busy with something else?"
        for one in others
        if one.first * RATIO > cold.first and one.first > one.start + demo_swap.OURS
    ]
    if cold.evaluated < HEAD - LITTLE * RATIO:
        found.append(f"the agent's head has only {count(cold.evaluated)} tokens; {count(HEAD)} were meant")
    return found
