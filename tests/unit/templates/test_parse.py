"""What a template's text says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bioproxy.templates.parse import Filled, Place, faults, parse, version_of


def test_text_and_places_come_in_order() -> None:
    """Literal text stays as it is; a place knows its name and its line."""
    assert parse("Rules:\n<{a.md}>\n\nQ: <{message}>!") == (
        "Rules:\n",
        Place("a.md", 2),
        "\n\nQ: ",
        Place("message", 4),
        "!",
    )


def test_blanks_around_a_path_do_not_belong_to_it() -> None:
    """Blanks inside a path do."""
    assert parse("<{  my file.md\t}>") == (Place("my file.md", 1),)


def test_a_place_ends_on_its_line() -> None:
    """An opening without an end is text, and so are braces of other kinds."""
    text = "<{a\n}> <{ {message} <message>"
    assert parse(text) == (text,)


def test_an_opening_before_a_place_is_text() -> None:
    """Only the inner pair counts."""
    assert parse("<{ <{message}>") == ("<{ ", Place("message", 1))


def test_a_place_may_stand_beside_another() -> None:
    """No empty text lies between them."""
    assert parse("<{message}><{message}>") == (Place("message", 1), Place("message", 1))


def test_only_the_exact_word_is_the_message() -> None:
    """A file may be called `./message`."""
    assert [place.message for place in parse("<{message}><{./message}><{Message}>") if isinstance(place, Place)] == [
        True,
        False,
        False,
    ]


def test_a_template_without_a_message_is_refused() -> None:
    """The sentence says what to write."""
    assert faults(parse("<{a.md}>")) == ((0, "<{message}> is missing; put it where the user's message shall stand"),)


def test_an_empty_place_is_refused_with_its_line() -> None:
    """It names nothing."""
    assert [line for line, _ in faults(parse("<{message}>\n\n<{ }>"))] == [3]


def test_a_message_is_filled_in_at_every_place() -> None:
    """And it is not scanned: what looks like a place in it stays as it is."""
    filled = Filled(prefix="@x", version="", parts=("A ", " B ", ""))
    assert filled.fill("<{message}>") == "A <{message}> B <{message}>"


@given(st.lists(st.text(), min_size=1), st.lists(st.text(), min_size=1))
def test_versions_are_equal_where_texts_and_places_are(one: list[str], other: list[str]) -> None:
    """Moving a place without changing a letter is another version."""
    assert (version_of(one) == version_of(other)) == (one == other)


@given(st.text())
def test_nothing_of_a_text_is_lost(text: str) -> None:
    """Putting the segments together again gives the text, but for blanks inside places."""
    whole = "".join(segment if isinstance(segment, str) else f"<{{{segment.name}}}>" for segment in parse(text))
    assert whole.replace(" ", "") == text.replace(" ", "") or "<{" in text
