"""The demo's second half: two models take turns on one machine, and a conversation outlives each swap.

`bioproxy serve` runs here as its users run it, a process of its own with a configuration of two models, because it is
to be killed. A conversation with the first of them is asked three times, each time when it has to be started for it:

    cold          the other model ran; nothing of the conversation was ever evaluated
    swapped back  the other model was asked in between, and the first one's process ended for it (the save of the
                  conversation is in the other one's row)
    restarted     bioproxy itself was killed (kill -9), and its engine with it, after `kv.save_after` without a request

Where the time went is what bioproxy says itself: `Server-Timing` of each answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from bioproxy.cli.demo_program import (
    CONTEXT,
    ENOUGH_TOKENS,
    RATIO,
    Asked,
    Measured,
    Program,
    ask,
    excerpts,
    show_rows,
    until,
)
from bioproxy.cli.output import Output, Progress, count, duration
from bioproxy.engines.commands import joined
from bioproxy.engines.launch import find_program, free_port

Json: TypeAlias = Any
FIRST, OTHER = NAMES = ("first", "other")  # the models' names
BETWEEN = "other model"  # the row of the request between two of the conversation
PARTS_OF_TALK = 3  # sources that the conversation is about: some 3500 tokens
LITTLE = 64  # tokens that are evaluated at most if the rest came back
OURS = 0.3  # seconds after the engine's start, in which a first token may come that is not RATIO times sooner than cold
QUESTIONS = ("What is it for?", "And why?", "Who says so?")
PARTS = {"stop": "stop", "save": "save", "start": "start", "restore": "swap_restore"}  # ours: Server-Timing's


class Swapped(Measured, frozen=True):
    """One request that had to wait for its model; in seconds. `stop` and `save` are the other model's."""

    stop: float
    save: float
    start: float
    restore: float


def configuration(folder: Path, models: Mapping[str, Path], *, context: int = CONTEXT) -> Json:
    """Two models that the same engine program runs; all state is in `folder`. `context`: tokens of each."""
    program, _ = find_program(os.environ.get("PATH", ""))
    words = ["--host", "127.0.0.1", "--ctx-size", str(context), "--parallel", "1", "--batch-size", "512"]
    return {
        "models": {
            name: {"cmd": f"{joined([*program, '--model', str(path), *words])} --port ${{PORT}}"}
            for name, path in models.items()
        },
        "startPort": free_port(run=len(models)),
        "state_directory": str(folder / "state"),
        "kv": {
            "disk_budget": "1GiB",
            "min_free": "64MiB",
            "save_after": "1s",
            "min_seconds": "10ms",
        },  # turns are short
        "swap": {"min_resident": 0},  # the swap is measured, not how long a model may stay
    }


def on_disk(folder: Path) -> frozenset[str]:
    """The names of all snapshots; a conversation that grew has another one."""
    return frozenset(path.name for path in folder.rglob("bp-*-*.json"))


def measure(output: Output, folder: Path, models: Mapping[str, Path]) -> list[Swapped]:
    """The four rows. `models`: the files of FIRST and OTHER."""
    folder.mkdir(exist_ok=True)
    with Program(folder, configuration(folder, models)) as program:
        talk = Talk(program)
        with Progress(output, "two models") as progress:
            progress.say("the other one is started")
            program.start()
            talk.about_something_else()
            progress.say("cold: the whole conversation is evaluated")
            cold = talk.go_on("cold", QUESTIONS[0])
            progress.say(f"first token after {duration(cold.first)}")
        with Progress(output, "swap") as progress:
            progress.say("to the other one and back")
            other = talk.about_something_else()
            before = on_disk(folder)
            back = talk.go_on("swapped back", QUESTIONS[1])
            progress.say(f"first token after {duration(back.first)}")
        with Progress(output, "restart") as progress:
            progress.say("the conversation is saved when no requests come")
            until(lambda: bool(on_disk(folder) - before), "the conversation was not saved")
            progress.say("kill -9 of bioproxy itself")
            program.kill()
            started = time.monotonic()
            program.start()
            progress.say(f"bioproxy is back after {duration(time.monotonic() - started)}")
        return [cold, other, back, talk.go_on("restarted", QUESTIONS[2])]


class Talk:
    """A conversation with the first model, and a word with the other one in between."""

    def __init__(self, program: Program) -> None:
        self.program = program
        text = "\n".join([*excerpts().values()][:PARTS_OF_TALK])
        self.messages: list[Json] = [{"role": "system", "content": f"You know this program well.\n{text}"}]

    def go_on(self, state: str, question: str) -> Swapped:
        self.messages.append({"role": "user", "content": question})
        asked = ask(self.program.port, self.messages, model=FIRST)
        self.messages.append({"role": "assistant", "content": asked.text})
        return swapped(state, asked)

    def about_something_else(self) -> Swapped:
        """The other model is asked something short."""
        messages = [{"role": "user", "content": "What time is it?"}]
        return swapped(BETWEEN, ask(self.program.port, messages, model=OTHER))


def swapped(state: str, asked: Asked) -> Swapped:
    parts = {ours: asked.parts.get(theirs, 0.0) for ours, theirs in PARTS.items()}
    return Swapped(state, asked.first, asked.cached, asked.evaluated, **parts)


def show(output: Output, rows: list[Swapped]) -> None:
    show_rows(output, "two models", rows, parts=tuple(PARTS), apart=BETWEEN)


def complaints(rows: list[Swapped]) -> list[str]:
    """What does not show what it should, as sentences."""
    cold, others = rows[0], [one for one in rows[1:] if one.state != BETWEEN]
    found = [
        f"{one.state}: {count(one.evaluated)} tokens were evaluated again, {count(one.cached)} came from the cache"
        for one in others
        if one.evaluated > LITTLE or one.cached < ENOUGH_TOKENS
    ]
    found += [
        f"{one.state}: the first token came after {duration(one.first)}, more than a tenth of the "
        f"{duration(cold.first)} that it took cold, and more than {OURS:g} s after the engine's start "
        f"({duration(one.start)}); is this machine busy with something else?"
        for one in others
        if one.first * RATIO > cold.first and one.first > one.start + OURS
    ]
    return found
