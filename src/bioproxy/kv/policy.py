"""When to restore, when to save, what to throw away: every decision as a function of numbers.

No clock, no file, no loop in here; the keeper brings the figures and does what is decided. Seconds are the common
currency: a token in the cache is worth the prefill that it spares (measured, seconds per token), a byte on disk costs
what reading or writing it takes (measured, bytes per second).

What was measured of an engine is its `Knowledge`: speeds, whether a restore is worth anything on this model, which
builds' files the present build misreads; none of it holds for good. It stands in the folder's ledger (ledger.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

GIB = 1 << 30
SLACK = 8  # tokens that may be missing after a restore (kv-rule 6): the server evaluates the last ones again
SHORT = 0.5  # share of a conversation that must come back: its last answer may be rendered differently
DISPLACED = 0.1  # a save in the way of a user may cost this share of the prefill that it preserves (kv-rule 17)
HALF_LIFE = 7 * 86400.0  # seconds in which an unused snapshot loses half its value
HEAD = 2.0  # times its seconds that a head is worth: each new conversation wants it, a conversation only itself
LARGEST_BUDGET = 20 * GIB
FREE_SHARE = 10  # the default budget is this part of what is free
POKE_PAYS = 4.0  # what is kept must be worth this many times the poke
NEWEST = 0.3  # what the newest figure counts in a mean
SPARING = 0.5  # part of the day's bytes after which they go to what is worth most
ENOUGH = 64  # evaluated tokens below which a response says nothing about prefill speed
TYPICAL = 128  # tokens below which a slot file is mostly its head, or a checkpoint
SIZEABLE = 1 << 20  # bytes below which a slot action's time is mostly overhead
# Of the values of one field, as many as settle what the field does whatever its value, and as many as are asked about.
ENOUGH_VALUES, MOST_VALUES = 4, 16
MOST_FIELDS = 64  # names that are remembered


class Speeds(msgspec.Struct, frozen=True, kw_only=True):
    """What this engine was measured to do. The defaults are a mid-range machine, used until something was seen.

    `prefill` and `poke` are seconds (per token, per poke); `restore` and `save` bytes per second; `token_bytes` what
    one token takes in a slot file (0: not known yet).
    """

    prefill: float = 0.002
    restore: float = 1e9
    save: float = 5e8
    poke: float = 0.02
    token_bytes: float = 0.0


TOKENS_PER_BYTE = 0.25  # as long as no prompt was counted
ANSWER = 200.0  # tokens of an answer, as long as none was seen
TOKEN = 0.02  # seconds for a token of it


class Measured:
    """What this engine's answers taught: tokens of a byte of a prompt, tokens of an answer, seconds for one of them."""

    __slots__ = ("answer", "read", "size", "token")

    def __init__(self) -> None:
        self.size = self.read = 0.0  # bytes and tokens of prompts; of the older ones less and less
        self.answer: float | None = None
        self.token: float | None = None

    def note(self, size: int, prompt: int, generated: int | None, decode: float | None) -> None:
        """An answer has ended: bytes and tokens of its prompt, its own tokens, and the seconds that they took."""
        if size and prompt:  # a long prompt tells more than a short one
            self.size += size - NEWEST * self.size
            self.read += prompt - NEWEST * self.read
        if generated:
            self.answer = newer(self.answer, generated)
            if decode:
                self.token = newer(self.token, decode / generated)

    def tokens(self, size: float) -> float:
        """About how many tokens `size` bytes of a prompt are."""
        return size * (self.read / self.size if self.size else TOKENS_PER_BYTE)

    def seconds(self, most: int = 0) -> float:
        """How long an answer will take, of `most` tokens at most (0: any number)."""
        tokens = ANSWER if self.answer is None else self.answer
        return (min(tokens, most) if most > 0 else tokens) * (TOKEN if self.token is None else self.token)


def newer(old: float | None, seen: float) -> float:
    """An average in which the newest counts most."""
    return seen if old is None else old + NEWEST * (seen - old)


def restore_gain(tokens: int, size: int, speeds: Speeds) -> float:
    """Seconds that a user gains when `tokens` come from a file of `size` bytes instead of from prefill (rule 15)."""
    return tokens * speeds.prefill - size / speeds.restore


def worth_restoring(tokens: int, size: int, *, speeds: Speeds, min_seconds: float) -> bool:
    """Whether a restore that brings `tokens` more than the slot holds pays (rule 15, and `kv.min_seconds`)."""
    return tokens * speeds.prefill >= min_seconds and restore_gain(tokens, size, speeds) > 0


def worth_saving(
    unsaved: int, total: int, size: int, *, speeds: Speeds, min_seconds: float, displaced: bool = False
) -> bool:
    """Whether `total` tokens (`size` bytes), of which `unsaved` are on no disk, shall be saved (rules 17 and 20).

    What is not worth a restore is not worth a save. `displaced`: a user waits for it, so it must be cheap too.
    """
    preserved = unsaved * speeds.prefill
    if preserved < min_seconds or unsaved <= 0 or restore_gain(total, size, speeds) <= 0:
        return False
    return not displaced or size / speeds.save <= DISPLACED * preserved


def findable(tokens: int, covered: int, *, lasting: int) -> int:
    """Of a conversation's `tokens`, those that a save would make findable: `covered` are on disk already.

    `lasting`: those that will be asked for again; what is after them is written for nobody.
    """
    return max(0, min(tokens, lasting) - covered)


def worth_poking(unsaved: int, speeds: Speeds) -> bool:
    """Whether what a restore would discard is worth a token's work to move it into the server's RAM cache (rule 16)."""
    return unsaved * speeds.prefill > POKE_PAYS * speeds.poke


# What a request does with a snapshot: it goes on from all of a template's, or of a conversation's; asks the same prompt
# again; leaves it before its end.
Question = Literal["templates", "extends", "repeats", "diverges"]
Verdict = Literal["good", "short", "worthless"]
Answer = Literal["unknown", "good", "worthless"]
# Failures that settle a question: before any success, and in a row after one.
ENOUGH_BAD: dict[Question, tuple[float, float]] = {
    "templates": (2, math.inf),
    "extends": (2, math.inf),
    "repeats": (1, 3),
    "diverges": (1, 3),
}


def judge(expected: int, cached: int, *, question: Question) -> Verdict:
    """What a snapshot is worth as a file, from the next response's `cache_n` (rule 6).

    A template's must come back to eight tokens. A conversation's holds an answer that the client may send back in other
    words (thinking left out), so half of it is `short`: counted, kept. If a request repeats the prompt or diverges from
    it, the file is never `worthless`; whether the engine can do that at all is `came_back`'s question.
    """
    if cached >= expected - SLACK:
        return "good"
    if question == "templates" or (question == "extends" and cached < SHORT * expected):
        return "worthless"
    return "short"


def came_back(expected: int, cached: int) -> bool:
    """Whether the engine used at least half of what was counted on, as far as it is known to the token."""
    return cached > 0 and cached >= SHORT * (expected - SLACK)


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """What the eviction needs to know of a snapshot. `rank`: 0 (worthless) goes first (budget.py)."""

    id: str
    size: int
    seconds: float
    age: float  # seconds since its last use
    rank: int = 1

    @property
    def worth(self) -> float:
        return worth(self.seconds, self.size, self.age)


def worth(seconds: float, size: int, age: float) -> float:
    """Seconds saved per byte, halved for each week without use."""
    return seconds * math.pow(0.5, max(0.0, age) / HALF_LIFE) / max(1, size)


def in_order(snapshots: Iterable[Value]) -> list[Value]:
    """In the order in which they go: least valuable first, what is needed last."""
    return sorted(snapshots, key=lambda one: (one.rank, one.worth, one.id))


def evict(snapshots: Iterable[Value], excess: int) -> tuple[str, ...]:
    """Ids to drop, in order, so that at least `excess` bytes are freed."""
    gone: list[str] = []
    for snapshot in in_order(snapshots):
        if excess <= 0:
            break
        gone.append(snapshot.id)
        excess -= snapshot.size
    return tuple(gone)


class Template(msgspec.Struct, frozen=True):
    """A good snapshot of a template: enough to tell whether it is the one that must not go."""

    id: str
    prefix: str
    version: str
    used: float


def needed(templates: Iterable[Template], current: Mapping[str, str]) -> frozenset[str]:
    """Of each prefix the snapshot that goes last: of its `current` version if there is one, the latest used."""
    last: dict[str, tuple[tuple[bool, float], str]] = {}
    for one in templates:
        key = (one.version == current.get(one.prefix), one.used)
        if one.prefix not in last or key > last[one.prefix][0]:
            last[one.prefix] = (key, one.id)
    return frozenset(identity for _, identity in last.values())


def disk_budget(configured: int, *, ours: int, free: int) -> int:
    """Bytes that all snapshots may take; `configured` 0: the smaller of 20 GiB and a tenth of what is free.

    What our snapshots take counts as free, or the budget would shrink while they grow.
    """
    return configured or min(LARGEST_BUDGET, (free + ours) // FREE_SHARE)


class Refusal(msgspec.Struct, frozen=True):
    """Why a save is not tried: `kind` for the metric, `reason` for people. `pauses`: all saves, not just this one."""

    kind: str
    reason: str
    pauses: bool = True


def refuses(size: int, *, budget: int, free: int, min_free: int, written: int, write_budget: int) -> Refusal | None:
    """Whether the disk allows a save of `size` bytes (0: not known); None: go ahead (rule 18)."""
    if size > budget:
        return Refusal("too_large", f"{mib(size)} are more than the disk budget of {mib(budget)}", pauses=False)
    takes = f", a snapshot takes {mib(size)}" if size else ""
    if free - size < min_free:
        mend = "free some space or lower kv.min_free" if min_free else "free some space"
        return Refusal("min_free", f"{mib(free)} are free{takes} and kv.min_free keeps {mib(min_free)}; {mend}")
    if written + size > write_budget:
        reason = f"{mib(written)} were written today{takes} and kv.write_budget allows {mib(write_budget)}"
        return Refusal("write_budget", f"{reason}; goes on tomorrow")
    return None


def mib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / (1 << 20):.1f} MiB"


def least_worth(written: int, preserved: float, write_budget: int) -> float:
    """Seconds of prefill per byte that a save must preserve, so that the day's bytes go to what is worth most.

    `preserved`: seconds in what was `written` today. While half of the budget is left anything may be saved; then the
    bar rises, to the day's average at the end.
    """
    used = written / max(1, write_budget)
    return 2 * (used - SPARING) * preserved / written if used > SPARING else 0.0


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
        """Whether the value with this digest shapes prompts; None: not known."""
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
    `guess`: bytes per token as the build's reference had them: too many if a file has a large head or a checkpoint.
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
        known = self.fields.setdefault(field, FieldKnowledge())
        (known.prints if prints else known.same).append(value)
        while len(self.fields) > MOST_FIELDS:
            del self.fields[next(name for name in self.fields if name != field)]

    def evaluated(self, tokens: int, seconds: float) -> None:
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
        """Move the exponential means towards what was measured; a first figure replaces a guess of 0."""
        old = {name: float(getattr(self.speeds, name)) for name in measured}
        new = {
            name: old[name] + NEWEST * (value - old[name]) if old[name] else value for name, value in measured.items()
        }
        self.speeds = msgspec.structs.replace(self.speeds, **new)
