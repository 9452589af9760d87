"""What to warm next, and how much of it at once: decisions over values, without a clock, a loop or a file.

A *target* is one prompt prefix that should be resident or on disk: a template's text at one version, after one head;
or a long head without a prefix, for one group. The runner holds one Target per (prefix, head), asks `pick` which comes
next, and replaces it as things happen; nothing here does anything, so that every order of events can be tried in a test
without an engine.

    waiting ──► warming ──► warm ──► saved          warm: resident once, but no snapshot (policy off, no slot folder)
       ▲           │  └───► too long                the template does not fit the engine's context
       │           └──────► too short               a head that is read sooner than it is worth keeping
       └── failed ◄┘                                tried again after `delay`, longer each time

Chunks (kv-rule 13): a warm-up evaluates the first n tokens, then the first n + chunk, and so on; between two chunks the
gate is free for users. A chunk is as long as `chunk_seconds` allows at the speed measured so far, never under 64
tokens: below that the fixed cost of a call outweighs the work (2770 tokens took 2.2 s at 256, 4.1 s at 32).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
from msgspec.structs import replace

from bioproxy.kv.resident import Want
from bioproxy.prompt import Head

# `off`: warm-up is off, or the engine cannot say where a head without a prefix ends
Phase = Literal["waiting", "warming", "warm", "saved", "too long", "too short", "failed", "off"]

SHORTEST_CHUNK = 64  # tokens; below that the calls cost more than the work
FIRST_CHUNK = 128  # tokens, until a speed was measured: modest, for a CPU may do 200 tokens a second
LONGEST_CHUNK = 8192  # tokens; a fast engine gains nothing from more, and the request body stays small
HEADROOM = 0.7  # of chunk_seconds is aimed at: speed varies from chunk to chunk, by half and more on a busy machine
REACH = 1.3  # of chunk_seconds, before a chunk: a user waits for two at most if the engine's RAM cache lost it
NEWEST = 0.5  # weight of the newest measurement: prefill slows down as the context grows
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # seconds between attempts after a fault
DEADLY, REST = 2, 600.0  # deaths in a row that make a warm-up their cause, and seconds until it is tried again

Key = tuple[str, str]  # (prefix, head's name)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt prefix to warm, and how far that is. Counts are tokens, `retry_at` is a loop's time.

    `head` is the name of its `opening`, which stands before it in the prompt. Without a `prefix` it is that head alone,
    and `group` says whose; of an unstable one only the beginning, up to byte `cut` (plain.py). `want` names it for the
    keeper, once it was worked on. `older`: an earlier text of the same template, and the tokens of its prompt prefix,
    that the engine evaluated last.
    """

    prefix: str
    head: str
    opening: Head = Head()
    group: str = ""
    cut: int = 0
    other: Head | None = None
    version: str
    want: Want | None = None
    older: tuple[Want, tuple[int, ...]] | None = None
    phase: Phase = "waiting"
    done: int = 0
    total: int = 0
    limit: int = 0  # the context, if the prompt prefix is too long for it
    evaluated: int = 0
    seconds: float = 0.0
    failures: int = 0
    retry_at: float = 0.0
    reason: str = ""
    deaths: int = 0  # engines in a row that were lost in the middle of it
    ended: float = 0.0  # a loop's time
    warmed_at: float = 0.0  # unix time at which it was evaluated to its end; 0: never, as far as we know
    asked: bool = False  # an operator asked for it: goes first, even if warm-up is off

    @property
    def label(self) -> str:
        """What it is called in the log."""
        return self.prefix or f"head {self.head}"

    @property
    def key(self) -> Key:
        """What the target is known by; its version is not part of it, for a new text replaces the old."""
        return (self.prefix, self.head)


def measured(speed: float | None, *, tokens: int, seconds: float) -> float | None:
    """The prefill speed after a chunk of `tokens` that took `seconds`; one too short to tell anything changes nothing.

    Tokens per second; None before the first measurement.
    """
    if tokens < SHORTEST_CHUNK // 2 or seconds <= 0:
        return speed
    newest = tokens / seconds
    return newest if speed is None else NEWEST * newest + (1 - NEWEST) * speed


def chunk(*, left: int, speed: float | None, seconds: float) -> int:
    """How many of the `left` tokens to evaluate at once, so that a user waits `seconds` at most.

    A rest shorter than the shortest chunk is taken along rather than left for a call of its own.
    """
    wanted = FIRST_CHUNK if speed is None else int(speed * seconds * HEADROOM)
    length = min(max(wanted, SHORTEST_CHUNK), LONGEST_CHUNK)
    return left if left < length + SHORTEST_CHUNK else length


def reach(*, speed: float | None, seconds: float) -> int:
    """How many tokens a first chunk may count on the engine's RAM cache for, although it may have lost them."""
    return 0 if speed is None else int(speed * seconds * REACH)


def resume_at(*, done: int, remembers: bool) -> int:
    """How many tokens to count on when a warm-up goes on after `done`, another request having run in between.

    Then the slot holds something else, and only an engine that `remembers` (llama-server's RAM cache) gives the tokens
    back. If it does not, the next chunk must be short again, or it would evaluate everything in one go while a user
    waits.
    """
    return done if remembers else 0


def delay(failures: int) -> float:
    """Seconds to wait after the `failures`-th fault in a row: 1, 2, 4, ... 60."""
    return min(FIRST_DELAY * 2.0 ** max(0, min(failures, 16) - 1), LONGEST_DELAY)


def merge(known: Mapping[Key, Target], wanted: Iterable[Target]) -> dict[Key, Target]:
    """The targets that are `wanted`, in that order.

    What is known and unchanged stays as it is; a new version waits anew, and knows what the engine had of the old one.
    """
    merged: dict[Key, Target] = {}
    for new in wanted:
        old = known.get(new.key)
        if old is None or old.version == new.version:
            merged[new.key] = old or new
        else:
            merged[new.key] = replace(new, asked=old.asked, older=old.older)
    return merged


def forgotten(targets: Mapping[Key, Target]) -> dict[Key, Target]:
    """The targets after the engine changed: nothing is known of any, each is looked at again.

    But what engines died of, one after the other, keeps its back-off, or each new process would die of it.
    """
    return {
        key: replace(target, want=None, older=None)
        if target.deaths >= DEADLY and target.phase == "failed"
        else Target(
            prefix=target.prefix,
            head=target.head,
            opening=target.opening,
            group=target.group,
            cut=target.cut,
            other=target.other,
            version=target.version,
            asked=target.asked,
            deaths=target.deaths,
        )
        for key, target in targets.items()
    }


def pick(targets: Iterable[Target], *, now: float, enabled: bool = True) -> Target | None:
    """The target to work on now: what was asked for first, then what was begun, then in order; None if nothing is due.

    With `enabled` false only what an operator asked for is worked on.
    """
    due = [target for target in targets if is_due(target, now=now) and (enabled or target.asked)]
    return min(due, key=lambda target: (not target.asked, target.phase != "warming"), default=None)


def is_due(target: Target, *, now: float) -> bool:
    """Whether there is something to do for `target` now: it waits, was begun, or its back-off is over."""
    if target.phase == "failed":
        return now >= target.retry_at
    return target.phase in ("waiting", "warming")


def pause(targets: Iterable[Target], *, now: float, longest: float) -> float:
    """Seconds until the next target is due, `longest` at most."""
    waits = [target.retry_at - now for target in targets if target.phase == "failed"]
    return max(0.0, min([longest, *waits]))


def failed(target: Target, *, reason: str, now: float) -> Target:
    """The target after a fault: tried again after a back-off; `reason` is one sentence."""
    failures = target.failures + 1
    return replace(target, phase="failed", failures=failures, reason=reason, retry_at=now + delay(failures))


def lost(target: Target, *, reason: str, now: float) -> Target:
    """The target after the engine was lost in the middle of its warm-up; that may have been the cause."""
    deaths = target.deaths + 1
    if deaths < DEADLY:
        return replace(failed(target, reason=reason, now=now), deaths=deaths)
    said = f"{deaths} engines in a row were lost while it was warmed up ({reason}); it is left alone for 10 minutes"
    return replace(target, phase="failed", deaths=deaths, reason=said, retry_at=now + REST)


def describe(target: Target) -> str:
    """One phrase for `/status`: `warming 1,024 of 3,310 tokens`, `too long: 61,233 of 32,768 tokens`."""
    if target.phase == "warming" and target.total:
        return f"warming {target.done:,} of {target.total:,} tokens"
    if target.phase == "too long":
        return f"too long: {target.total:,} of {target.limit:,} tokens"
    if target.phase == "too short":
        return f"too short: {target.total:,} tokens are read too fast to be kept"
    if target.phase == "failed":
        return f"failed: {target.reason}"
    return target.phase
