"""What was learnt about an engine, and what is kept of it on disk.

Speeds, whether a restore is worth anything on this model, which builds' files the present build misreads: all of it
was measured, none of it is assumed for good. It stands in the folder's `bp-index.json` beside the counts of use, and it
is the only thing in there that cannot be rebuilt from the sidecars; losing it costs a few measurements.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from bioproxy.kv import policy
from bioproxy.kv.policy import Speeds, smoothed

VERSION = 1
ENOUGH = 64  # evaluated tokens below which a response says nothing about prefill speed
TYPICAL = 128  # tokens below which a slot file is mostly its head, or a checkpoint
SIZEABLE = 1 << 20  # bytes below which a slot action's time is mostly overhead
HOPELESS = 2  # worthless restores in a row, before any good one, after which none is tried


class Knowledge(msgspec.Struct, kw_only=True):
    """Of one fingerprint. `good` and `bad` count exact restores with `build`.

    `refused`: builds whose files this one misreads.
    `guess`: bytes per token as the build's reference had them: too many where a file has a large head or a checkpoint.
    `diverging`: whether a snapshot helps a request that leaves it before its end (not on SWA and hybrid models).
    """

    build: str = ""
    speeds: Speeds = Speeds()
    guess: float = 0.0
    good: int = 0
    bad: int = 0
    bad_at: float = 0.0  # unix time
    diverging: Literal["unknown", "good", "worthless"] = "unknown"
    refused: tuple[str, ...] = ()

    def hopeless(self, since: float) -> bool:
        """Whether every restore was worthless with this build, the last one after the unix time `since`."""
        return self.good == 0 and self.bad >= HOPELESS and self.bad_at > since

    def upgraded(self, build: str) -> Knowledge:
        """What still holds with another build: the speeds."""
        return self if build == self.build else Knowledge(build=build, speeds=self.speeds, guess=self.guess)

    def restored(self, expected: int, cached: int, *, exact: bool, template: bool, now: float) -> policy.Verdict:
        """Take in what a restore was worth; the verdict about the file. `now`: unix time."""
        verdict = policy.judge(expected, cached, exact=exact, template=template)
        if not exact:
            self.diverging = "good" if policy.keeps_diverging(expected, cached) else "worthless"
        elif verdict == "worthless":
            self.bad += 1
            self.bad_at = now
        else:
            self.good += 1
        return verdict

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
    """The file `bp-index.json`. `day` (UTC) and `written`: bytes of snapshots written on that day."""

    version: int = VERSION
    engines: dict[str, Knowledge] = {}
    uses: dict[str, Use] = {}
    day: str = ""
    written: int = 0


def read_ledger(data: bytes) -> Ledger:
    """The ledger from its bytes; a fresh one where they are empty, broken or of another version (never fatal)."""
    try:
        ledger = msgspec.json.decode(data, type=Ledger)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Ledger()
    return ledger if ledger.version == VERSION else Ledger()
