"""What differs between two texts of a template."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bioproxy.templates.catalogue import Estimate
from bioproxy.templates.difference import LONGEST, SHOWN, Difference, difference_of, lines_of
from bioproxy.templates.reading import Reading
from support.templates import site

MEASURED = Estimate(tokens_per_byte=0.5, seconds_per_token=0.01)


def lines(old: str, new: str) -> list[str]:
    return [f"{line.kind}{line.text}" for line in lines_of(old, new)]


def numbered(count: int) -> str:
    return "".join(f"line {number}\n" for number in range(1, count + 1))


async def change(folder: Path, files: dict[str, str], later: dict[str, str]) -> tuple[Reading, Reading]:
    """A template's readings before and after `later` was written."""
    made = site(folder, files)
    before = made.catalogue.reading("@code")
    made.write(later)
    await made.catalogue.check()
    return before, made.catalogue.reading("@code")


def test_a_changed_line_stands_between_some_that_are_the_same() -> None:
    """As `diff -u` shows it."""
    assert lines(numbered(20), numbered(20).replace("line 10\n", "line ten\n")) == [
        "@@@ -7,7 +7,7 @@",
        " line 7",
        " line 8",
        " line 9",
        "-line 10",
        "+line ten",
        " line 11",
        " line 12",
        " line 13",
    ]


def test_changes_far_apart_are_stretches_of_their_own() -> None:
    """What lies between them is left out."""
    new = numbered(40).replace("line 5\n", "").replace("line 30\n", "line 30\nnew\n")
    found = lines(numbered(40), new)
    assert [line for line in found if line[0] in "@-+"] == ["@@@ -2,7 +2,6 @@", "-line 5", "@@@ -28,6 +27,7 @@", "+new"]


@pytest.mark.parametrize(("old", "new"), [("", "a\n"), ("a\n", ""), ("a\nb\n", "b\n"), ("b\n", "b\na")])
def test_what_is_shown_leads_from_one_text_to_the_other(old: str, new: str) -> None:
    """Also at the ends."""
    found = lines_of(old, new)
    assert [line.text for line in found if line.kind in " -"] == old.splitlines()
    assert [line.text for line in found if line.kind in " +"] == new.splitlines()


def test_equal_texts_show_nothing() -> None:
    """There is no stretch."""
    assert lines(numbered(3), numbered(3)) == []


def test_of_a_long_line_the_place_is_shown() -> None:
    """A line of a megabyte is cut around what differs."""
    old = "x" * 100_000 + "old" + "y" * 1000
    gone, come = (line for line in lines_of(old, old.replace("old", "new")) if line.kind in "-+")
    assert "xxold" in gone.text
    assert "xxnew" in come.text
    assert len(come.text) <= LONGEST + 2


def test_empty_lines_bring_nothing_together() -> None:
    """Two texts that share nothing else are not compared at each of them, which would take seconds."""
    old, new = ("".join(f"{name}{n}\n\n" for n in range(490)) for name in "ab")
    kinds = Counter(line.kind for line in lines_of(old, new))
    assert kinds["-"] == kinds["+"] == 980
    assert kinds[" "] == 0


def test_a_very_long_change_is_shown_without_being_compared() -> None:
    """That would take the square of it."""
    found = lines_of("".join(f"a{n}\n" for n in range(3000)), "".join(f"b{n}\n" for n in range(3000)))
    assert [found[0].text, found[1].text, found[-1].text] == ["@@ -1,3000 +1,3000 @@", "a0", "b2999"]


async def test_the_cost_is_in_tokens_and_seconds(tmp_path: Path) -> None:
    """From where the text differs to its end; the sentence says the same."""
    before, after = await change(tmp_path, {"t.md": "<{a}><{message}>", "a": "x" * 800}, {"a": "x" * 200 + "y" * 600})
    found = difference_of(before, after, MEASURED)
    assert (found.file, found.at, found.total) == ("a", 200, 800)
    assert (found.from_token, found.tokens, found.seconds) == (100, 400, 3.0)
    assert found.said.startswith("a changed at 25 % of the template: 300 of 400 tokens again, about 3 s")


async def test_without_a_measure_there_are_no_tokens(tmp_path: Path) -> None:
    """The place is known all the same."""
    before, after = await change(tmp_path, {"t.md": "one <{message}>"}, {"t.md": "two <{message}>"})
    found = difference_of(before, after, Estimate())
    assert (found.from_token, found.tokens, found.seconds, found.at) == (None, None, None, 0)


async def test_what_stands_after_the_message_costs_nothing(tmp_path: Path) -> None:
    """And is shown, after the place of the message."""
    before, after = await change(tmp_path, {"t.md": "one <{message}> two"}, {"t.md": "one <{message}> three"})
    found = difference_of(before, after, MEASURED)
    assert (found.at, found.seconds) == (-1, 0.0)
    assert [line.text for line in found.lines] == ["@@ -1,2 +1,2 @@", "one <{message}>", " two", " three"]


async def test_more_lines_than_a_page_shows_are_counted(tmp_path: Path) -> None:
    """Nobody reads ten thousand."""
    before, after = await change(
        tmp_path, {"t.md": "<{message}>", "unused": ""}, {"t.md": numbered(SHOWN + 50) + "<{message}>"}
    )
    found: Difference = difference_of(before, after, Estimate())
    assert len(found.lines) == SHOWN
    assert found.left_off > 0
