"""What differs between two texts of a template, for people: the lines, and what it costs from there on.

reading.py finds the first byte that differs, for the sentence in `/status`. Here are the lines around all that differ,
as `diff -u` shows them. Only the stretch between the common beginning and the common end is compared line by line, and
if that is very long, it is only shown, because finding what belongs together takes the square of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from bioproxy.prompt import common
from bioproxy.templates.catalogue import Estimate
from bioproxy.templates.reading import Change, Reading, change_of, sentence

MESSAGE = "<{message}>\n"  # the place of the message, on a line of its own
AROUND = 3  # lines that are the same, before and after each change
COMPARED = 1000  # lines on either side that are compared one by one
SHOWN = 400  # lines in all
LONGEST = 400  # characters of a line
BEFORE = 80  # of these stand before the first one that differs


class DiffLine(msgspec.Struct, frozen=True):
    """A line that is new (`+`), gone (`-`) or the same (` `); `@` is where the next stretch begins, as diff says it."""

    kind: Literal["+", "-", " ", "@"]
    text: str


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """From one text of a template to a later one. `said`: what it costs, in a sentence.

    `at` and `total` are bytes of the later text's static beginning, -1: only what stands after the message differs.
    `from_token` of `tokens` is where the engine begins to evaluate again, `seconds` what that takes; None: the engine
    was not measured yet. All three are estimates by bytes. `lines` are those that differ, without the last `left_off`.
    """

    file: str
    said: str
    at: int
    total: int
    from_token: int | None
    tokens: int | None
    seconds: float | None
    lines: tuple[DiffLine, ...]
    left_off: int


def difference_of(old: Reading, new: Reading, estimate: Estimate) -> Difference:
    """Compare two good readings. Takes some milliseconds for long ones."""
    assert old.filled is not None
    assert new.filled is not None
    before, after = old.filled.parts, new.filled.parts
    change = change_of(before[0], after[0], before=old.sources, after=new.sources)
    start, whole, seconds = cost_of(change, estimate)
    lines = lines_of(MESSAGE.join(before), MESSAGE.join(after))
    return Difference(
        file=change.name,
        said=sentence(change, **msgspec.structs.asdict(estimate)),
        at=change.at,
        total=change.total,
        from_token=start,
        tokens=whole,
        seconds=seconds,
        lines=tuple(lines[:SHOWN]),
        left_off=max(0, len(lines) - SHOWN),
    )


def cost_of(change: Change, estimate: Estimate) -> tuple[int | None, int | None, float | None]:
    """From which token of how many, and the seconds from there to the end; None for what was not measured."""
    if estimate.tokens_per_byte is None:
        return None, None, None
    whole = round(change.total * estimate.tokens_per_byte)
    start = whole if change.at < 0 else round(change.at * estimate.tokens_per_byte)
    speed = estimate.seconds_per_token
    return start, whole, None if speed is None else (whole - start) * speed


def lines_of(old: str, new: str) -> list[DiffLine]:
    """The lines that differ, with some around them."""
    before, after = old.splitlines(), new.splitlines()
    start = common(before, after)
    end = common(before[start:][::-1], after[start:][::-1])
    first, last = max(0, start - AROUND), max(0, end - AROUND)
    ours, theirs = before[first : len(before) - last], after[first : len(after) - last]
    if max(len(ours), len(theirs)) > COMPARED:
        return [
            mark((first, len(ours)), (first, len(theirs))),
            *(shown("-", line) for line in ours),
            *(shown("+", line) for line in theirs),
        ]
    found: list[DiffLine] = []
    import difflib  # 3 ms that a start is spared

    # lines that stand there again and again, as empty ones do, bring nothing together: that would take the cube of them
    matcher = difflib.SequenceMatcher(None, ours, theirs)
    for group in matcher.get_grouped_opcodes(AROUND):
        here, there = group[0], group[-1]
        found.append(mark((first + here[1], there[2] - here[1]), (first + here[3], there[4] - here[3])))
        for tag, a, b, c, d in group:
            if tag == "equal":
                found += [shown(" ", line) for line in ours[a:b]]
            else:
                found += pairs(ours[a:b], theirs[c:d])
    return found


def mark(old: tuple[int, int], new: tuple[int, int]) -> DiffLine:
    """Where a stretch begins in either text, and how many lines it has there."""
    return DiffLine("@", f"@@ -{old[0] + 1},{old[1]} +{new[0] + 1},{new[1]} @@")


def pairs(gone: Sequence[str], come: Sequence[str]) -> list[DiffLine]:
    """Lines that take each other's place; a long one is shown from a little before where it differs from its twin."""
    places = [common(one, other) for one, other in zip(gone, come, strict=False)]
    places += [0] * (max(len(gone), len(come)) - len(places))
    minus = [shown("-", line, at) for line, at in zip(gone, places, strict=False)]
    plus = [shown("+", line, at) for line, at in zip(come, places, strict=False)]
    return [*minus, *plus]


def shown(kind: Literal["+", "-", " "], line: str, at: int = 0) -> DiffLine:
    """A line of at most `LONGEST` characters, with `at` in it."""
    if len(line) <= LONGEST:
        return DiffLine(kind, line)
    start = max(0, min(at - BEFORE, len(line) - LONGEST))
    end = start + LONGEST
    return DiffLine(kind, f"{'…' if start else ''}{line[start:end]}{'…' if end < len(line) else ''}")
