"""Patterns of `clients`: fixed texts, between which `*` stands for any text. Nothing else is special.

They are compared with what strangers send, so a comparison must take a time that grows with the text alone. Pieces are
looked for from left to right, each once, and what was passed is never gone back to: no pattern can make that slow, and
none has to be refused for what it might do. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

LONGEST = 500  # characters of a pattern
MOST_STARS = 8
LEAST_PIECE = 3  # letters in a row that a line's pattern must have: `*` alone would be every line


def pattern_fault(pattern: str, *, line: bool = False) -> str:
    """Why a text is no pattern (of a `line`, if it is for one); "" if it is one."""
    if len(pattern) > LONGEST or pattern.count("*") > MOST_STARS:
        return f"a pattern has {LONGEST} characters and {MOST_STARS} `*` at most; this one has more"
    if line and "\n" in pattern:
        return "a pattern is for one line, and this one has several"
    if line and len(longest_piece(pattern)) < LEAST_PIECE:
        return f"{pattern!r} fits nearly every line; write at least {LEAST_PIECE} letters of it in a row"
    return ""


def longest_piece(pattern: str) -> str:
    """The longest fixed text in a pattern: whatever fits has it."""
    return max(pattern.split("*"), key=len)


def fits(pattern: str, text: str) -> bool:
    """Whether all of a text is what a pattern says."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == first
    *middle, last = rest
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in middle:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def lines(pattern: str, text: str) -> Iterator[tuple[int, int]]:
    """Where the lines begin and end that a pattern fits, without their line ends."""
    piece, at = longest_piece(pattern), 0
    while (found := text.find(piece, at)) >= 0:
        start = text.rfind("\n", 0, found) + 1
        end = text.find("\n", found)
        end = len(text) if end < 0 else end
        if fits(pattern, text[start:end].removesuffix("\r")):
            yield start, end
        at = end + 1
