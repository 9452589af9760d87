"""What was learnt about an engine, and what is kept of it on disk.

Speeds, whether a restore is worth anything on this model, which builds' files the present build misreads: all of it
was measured, none of it is assumed for good. It stands in the folder's `bp-index.json` beside the counts of use, and it
is the only thing in there that cannot be rebuilt from the sidecars; losing it costs a few measurements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import msgspec

from bioproxy.kv.policy import Question, Speeds, smoothed

VERSION = 1
MOST_ENGINES = 256  # fingerprints that are remembered: each change of a model's arguments makes a new one
ENOUGH = 64  # evaluated tokens below which a response says nothing about prefill speed
TYPICAL = 128  # tokens below which a slot file is mostly its head, or a checkpoint
SIZEABLE = 1 << 20  # bytes below which a slot action's time is mostly overhead
# Failures that settle a question: before any success, and in a row after one.
ENOUGH_BAD: dict[Question, tuple[float, float]] = {
    "templates": (2, math.inf),
    "extends": (2, math.inf),
    "repeats": (1, 3),
    "diverges": (1, 3),
}

# Of the values of one field, as many as settle what the field does whatever its value, and as many as are asked about.
ENOUGH_VALUES, MOST_VALUES = 4, 16
MOST_FIELDS = 64  # names that are remembered

Answer = Literal["unknown", "good", "worthless"]


class Trial(msgspec.Struct):
    """How restores went: good ones, bad ones since the last good one, and when the last bad one was (unix time)."""

    good: int = 0
    bad: int = 0
    at: float = 0.0


class FieldKnowledge(msgspec.Struct):
    """What a field of a request does to the prompt: digests of the values that left it `same`, and that it `prints`."""

    same: list[bytes] = []
    prints: list[bytes] = []

    def answer(self, value: bytes) -> bool | None:
        """Whether the value with this digest shapes prompts; None: nobody knows."""
        if value in self.same or value in self.prints:
            return value in self.prints
        if len(self.prints) >= ENOUGH_VALUES or len(self.same) + len(self.prints) >= MOST_VALUES:
            return bool(self.prints)
        return False if len(self.same) >= ENOUGH_VALUES and not self.prints else None


class Knowledge(msgspec.Struct, kw_only=True):
    """Of one fingerprint.

    `trials`: what restores were worth with `build`, by what the request did with them. Each question has its own
    answer: a recurrent model can go on from a snapshot, and neither repeat it nor diverge from it.
    `fields`: what fields of a request do to a prompt, by name.
    `refused`: builds whose files this one misreads.
    `guess`: bytes per token as the build's reference had them: too many where a file has a large head or a checkpoint.
    """

    build: str = ""
    speeds: Speeds = Speeds()
    guess: float = 0.0
    trials: dict[Question, Trial] = {}
    fields: dict[str, FieldKnowledge] = {}
    refused: tuple[str, ...] = ()

    def answer(self, question: Question, since: float, *, cuttable: bool = False) -> Answer:
        """What is known of such restores; failures count if the last one was after the unix time `since`.

        `cuttable`: the cache can be cut anywhere, as far as the model's file tells; one failure then says that the
        shared beginning was overestimated, for a chat template may print the tools first.
        """
        trial = self.trials.get(question, Trial())
        proved = trial.good > 0 or (cuttable and question in {"repeats", "diverges"})
        if trial.bad >= ENOUGH_BAD[question][proved] and trial.at > since:
            return "worthless"
        return "good" if trial.good else "unknown"

    def upgraded(self, build: str) -> Knowledge:
        """What still holds with another build: the speeds."""
        return self if build == self.build else Knowledge(build=build, speeds=self.speeds, guess=self.guess)

    def tried(self, question: Question, *, good: bool, now: float) -> None:
        """Take in how such a restore went, at the unix time `now`."""
        trial = self.trials.setdefault(question, Trial())
        if good:
            trial.good, trial.bad = trial.good + 1, 0
        else:
            trial.bad, trial.at = trial.bad + 1, now

    def know(self, field: str, value: bytes, *, prints: bool) -> None:
        """The value of a field with this digest shapes prompts, or does not."""
        known = self.fields.setdefault(field, FieldKnowledge())
        (known.prints if prints else known.same).append(value)
        while len(self.fields) > MOST_FIELDS:
            del self.fields[next(name for name in self.fields if name != field)]

    def evaluated(self, tokens: int, seconds: float) -> None:
        """A prefill of `tokens` took `seconds`."""
        if tokens >= ENOUGH and seconds > 0:
            self.learn(prefill=seconds / tokens)

    def moved(self, *, save: bool, size: int, tokens: int, seconds: float) -> None:
        """A slot action moved `size` bytes that hold `tokens`."""
        if tokens >= TYPICAL:
            self.learn(token_bytes=size / tokens)
        elif tokens > 0:
            self.guess = size / tokens
        if size >= SIZEABLE and seconds > 0:
            rate = size / seconds
            self.learn(**({"save": rate} if save else {"restore": rate}))

    def learn(self, **measured: float) -> None:
        """Move the means towards what was measured; a first figure replaces a guess of 0."""
        old = {name: float(getattr(self.speeds, name)) for name in measured}
        new = {name: smoothed(old[name], value) if old[name] else value for name, value in measured.items()}
        self.speeds = msgspec.structs.replace(self.speeds, **new)


class Use(msgspec.Struct):
    """How a snapshot was used: last time (unix), how often, seconds of prefill that it spared."""

    used: float = 0.0
    uses: int = 0
    gained: float = 0.0


class Ledger(msgspec.Struct, kw_only=True):
    """The file `bp-index.json`. `day` (UTC) and `written`: bytes of snapshots written on that day.

    `engines`: the last used last.
    """

    version: int = VERSION
    engines: dict[str, Knowledge] = {}
    uses: dict[str, Use] = {}
    day: str = ""
    written: int = 0

    def of(self, fingerprint: str, build: str) -> Knowledge:
        """What is known of an engine that is in use now."""
        known = self.engines.pop(fingerprint, None) or Knowledge(build=build)
        self.engines[fingerprint] = found = known.upgraded(build)
        return found

    def prune(self, snapshots: Iterable[str]) -> None:
        """Forget the uses of other snapshots than these, and engines that many others were used after."""
        self.uses = {identity: self.uses[identity] for identity in snapshots if identity in self.uses}
        for fingerprint in list(self.engines)[:-MOST_ENGINES]:
            del self.engines[fingerprint]


def read_ledger(data: bytes) -> Ledger:
    """The ledger from its bytes; a fresh one where they are empty, broken or of another version (never fatal)."""
    try:
        ledger = msgspec.json.decode(data, type=Ledger)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Ledger()
    return ledger if ledger.version == VERSION else Ledger()
