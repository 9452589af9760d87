"""What a change of a template costs: everything after the first byte that differs is evaluated again.

    src/app.py changed at 12 % of the template: 35,000 of 40,000 tokens again, about 50 s;
    further back it would cost less

The sentence teaches the one thing that makes templates cheap: what changes often belongs to the end. How many tokens a
byte is and how long a token takes is the caller's knowledge (the engine was measured); without it the sentence gives
the share.

Only the static beginning counts, the text in front of the first message: what stands after a message is evaluated with
every request anyway. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bioproxy.prompt import common
from bioproxy.templates.reading import Source

EARLY = 0.5  # a change in the first half is worth the advice
MINUTE = 60


class Change(msgspec.Struct, frozen=True):
    """The first difference between two texts of a template: in which file, what happened to it, and where.

    `at` and `total` are bytes of the new static beginning; `at` is -1 if only what stands after a message differs.
    """

    name: str
    verb: str  # changed, was added, was removed
    at: int
    total: int

    @property
    def share(self) -> float:
        """Where the change is, 0 (the beginning) to 1."""
        return self.at / self.total if self.total else 0.0


def change_of(old: str, new: str, *, before: Sequence[Source], after: Sequence[Source]) -> Change:
    """Compare two static beginnings; `before` and `after` say which file stands where in the filled templates."""
    one, other = old.encode(), new.encode()
    at = common(one, other)
    if one == other:
        changed = [source.name for source in (*after, *before) if source.start >= at]
        return Change(changed[0] if changed else "the template", "changed", -1, len(other))
    was, now = at_byte(before, at), at_byte(after, at)
    names_before, names_after = {source.name for source in before}, {source.name for source in after}
    if now is not None and now.name not in names_before:
        return Change(now.name, "was added", at, len(other))
    if was is not None and was.name not in names_after:
        return Change(was.name, "was removed", at, len(other))
    found = now or was
    return Change(found.name if found else "the template", "changed", at, len(other))


def at_byte(sources: Sequence[Source], at: int) -> Source | None:
    """The source in which byte `at` lies."""
    return next((source for source in sources if source.start <= at < source.start + source.size), None)


def sentence(change: Change, *, tokens_per_byte: float | None = None, seconds_per_token: float | None = None) -> str:
    """What a change costs, in one sentence."""
    if change.at < 0:
        return f"{change.name} changed behind the message: nothing in front of it is evaluated again"
    text = (
        f"{change.name} {change.verb} at {100 * change.share:.0f} % of the template: {again(change, tokens_per_byte)}"
    )
    if tokens_per_byte is not None and seconds_per_token is not None:
        text += f", about {duration((change.total - change.at) * tokens_per_byte * seconds_per_token)}"
    return text + ("; further back it would cost less" if change.share < EARLY else "")


def again(change: Change, tokens_per_byte: float | None) -> str:
    """How much is evaluated again, in tokens if they are known."""
    if tokens_per_byte is None:
        return f"{100 * (1 - change.share):.0f} % of it again"
    total, left = round(change.total * tokens_per_byte), round((change.total - change.at) * tokens_per_byte)
    return f"{left:,} of {total:,} tokens again"


def duration(seconds: float) -> str:
    """`0.5 s`, `50 s`, `3 min`: as exact as an estimate is."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 2 * MINUTE else f"{seconds / MINUTE:.0f} min"
