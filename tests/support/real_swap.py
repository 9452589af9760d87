"""Several real llama.cpp engines behind the real program, and conversations with them.

The models are small ones of random weights, each with a seed of its own: equal in shape, so that a slot file of the one
would be taken by the other, which then wrote nonsense. What came from the cache is told by the engine itself
(`timings` in its answer, its `/metrics`), which no mistake of ours can embellish.
"""

from __future__ import annotations

import random
import shlex
import sys
from pathlib import Path
from typing import Any

import msgspec

from bioproxy.embedded.model import Name, ensure_model
from fakes.real_engine import MODELS
from support.apps import MS
from support.http import call
from support.swap_rig import Rig

Json = Any
ONE = "-np 1"
FOUR = "-np 4 --kv-unified"  # what llama-server makes of a command without -np
APART = "-np 4 --no-kv-unified"
WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "omega",
]  # 2.7 tokens each
LENGTH = 430  # words: about 1200 tokens
WARM = 40  # tokens that a warm request computes at most: its question, and what closes the turn before

AT_STOPS: Json = {"min_seconds": 1 * MS, "min_free": 0, "save_after": "1h"}  # only a stop saves
WHEN_IDLE: Json = {"min_seconds": 1 * MS, "min_free": 0, "save_after": 20 * MS}  # as soon as nobody asks


def model_file(seed: int, shape: Name = "tiny") -> Path:
    """The file of a model."""
    return ensure_model(MODELS, shape=shape, seed=seed)


def words_of(model: Path, flags: str = ONE) -> str:
    """A command that runs the engine."""
    program = f"{shlex.quote(sys.executable)} -m bioproxy.embedded"
    return f"{program} --model {shlex.quote(str(model))} --port ${{PORT}} -c 8192 -t 1 --metrics {flags}"


def real(seed: int, flags: str = ONE, **keys: Json) -> Json:
    """A model for `swap_rig`; `keys` are llama-swap's for a model."""
    return {"cmd": words_of(model_file(seed), flags), **keys}


def two(flags: str = ONE, **keys: Json) -> Json:
    """Models a and b, of the same shape with other weights."""
    return {"a": real(0, flags, **keys), "b": real(1, flags, **keys)}


def server_script(folder: Path) -> Path:
    """A program named llama-server that is the embedded engine."""
    script = folder / "llama-server"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bioproxy.embedded "$@"\n')
    script.chmod(0o755)
    return script


class Turn(msgspec.Struct, frozen=True):
    """One answer: its words, and the prompt tokens that the engine had and those that it computed."""

    said: str
    cached: int
    evaluated: int

    @property
    def prompt(self) -> int:
        """The prompt's length in tokens."""
        return self.cached + self.evaluated

    @property
    def warm(self) -> bool:
        """Whether all but the new question came from the cache."""
        return self.evaluated <= WARM < self.cached


class Talk:
    """A long conversation with a model: each question is sent with all that was said before.

    Of each model and seed it is another one; `like` gives the one of another model.
    """

    def __init__(self, rig: Rig, model: str, seed: int = 0, *, like: str = "") -> None:
        self.rig, self.model = rig, model
        chosen = random.Random(f"{like or model} {seed}").choices(WORDS, k=LENGTH)
        self.messages: list[Json] = [{"role": "system", "content": " ".join(chosen)}]

    async def say(self, question: str) -> Turn:
        """The next turn."""
        self.messages.append({"role": "user", "content": question})
        answer = await self.rig.chat(self.model, messages=self.messages, max_tokens=4, temperature=0)
        assert answer.status == 200, answer.text
        found = answer.json()
        said = found["choices"][0]["message"]["content"] or ""
        self.messages.append({"role": "assistant", "content": said})
        return Turn(said, found["timings"]["cache_n"], found["timings"]["prompt_n"])

    async def cold(self) -> Turn:
        """The first turn: nothing is in any cache."""
        turn = await self.say("What is the first word?")
        assert turn.cached <= WARM, f"{self.model} was not cold: {turn}"
        assert turn.prompt > 1000
        return turn

    async def warm(self, question: str = "And the last one?") -> Turn:
        """A later turn, of which all but the question must come from the cache."""
        turn = await self.say(question)
        assert turn.warm, f"{self.model} did not come back warm: {turn}"
        return turn


async def saved(rig: Rig, model: str, count: int = 1) -> None:
    """Wait until a model has so many snapshots, each whole."""

    async def as_wanted() -> bool:
        return bool((await rig.overview())[model]["snapshots"] >= count)

    await rig.look(as_wanted, f"{count} snapshots of {model}")


async def port(rig: Rig, model: str) -> int:
    """The port that a model's engine was given."""
    command: str = (await rig.overview())[model]["command"]
    return int(command.partition("--port ")[2].split()[0])


async def process(rig: Rig, model: str) -> int:
    """The pid of the engine itself, whatever shells or shims stand before it."""
    own = str(await port(rig, model)).encode()
    for pid in rig.children():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[1:3] == [b"-m", b"bioproxy.embedded"] and own in words:
            return pid
    raise AssertionError(f"no engine of {model}")


async def evaluated(rig: Rig, model: str) -> int:
    """Prompt tokens that the engine of `model` computed in this life, by its own count.

    Asked of the engine itself: the proxy passes no more than one such question in two seconds on.
    """
    page = (await call(await port(rig, model), "GET", "/metrics")).text
    line = next(line for line in page.splitlines() if line.startswith("llamacpp:prompt_tokens_total "))
    return int(line.split()[1])


def slot_files(rig: Rig) -> list[Path]:
    """Everything in the slot folder."""
    return sorted(slot_folder(rig).iterdir())


def slot_folder(rig: Rig) -> Path:
    """The folder that the engines were given; it is not there if they were given none."""
    return next((rig.folder / "state").glob("*/slots"), rig.folder / "state" / "slots")
