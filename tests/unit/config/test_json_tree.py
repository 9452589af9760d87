"""JSON with lines: it reads what the standard library reads, and says what is wrong where it is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.json_tree import parse_json
from support.config_files import JSON, builtins


def fault(text: str) -> tuple[int, str]:
    """Line and sentence of a text that cannot be read."""
    parsed = parse_json(text)
    assert parsed.root is None
    return parsed.faults[-1].line, parsed.faults[-1].message.removeprefix("not valid JSON: ")


@given(JSON, st.sampled_from([None, 1, "\t"]))
def test_it_reads_what_the_standard_library_writes(value: Any, indent: Any) -> None:
    """Indented by blanks, by tabs or not at all."""
    assert builtins(parse_json(json.dumps(value, indent=indent)).root) == value


@given(st.text(alphabet="{}[]:,\"\\/ \n\t01.-eEtrufalsn'#", max_size=30))
def test_it_accepts_exactly_what_the_standard_library_accepts(text: str) -> None:
    """Any text: a tree that is equal, or one fault with a line that exists."""
    parsed = parse_json(text)
    try:
        value = json.loads(text)
    except ValueError:
        assert parsed.root is None
        assert all(1 <= each.line <= text.count("\n") + 1 for each in parsed.faults)
    else:
        if not parsed.faults:  # else a key stands twice
            assert builtins(parsed.root) == value


def test_a_member_knows_the_line_of_its_key() -> None:
    """The key's line, not the value's: that is what people look for."""
    root = parse_json('{\n"a":\n\n1,\n"b": {\n"c": [2,\n3]}}').root
    assert root is not None
    assert isinstance(root.value, dict)
    inner = root.value["b"].value
    assert isinstance(inner, dict)
    assert (root.value["a"].line, root.value["b"].line, inner["c"].line) == (2, 5, 6)


def test_a_key_that_stands_twice_is_a_fault_with_both_lines() -> None:
    """The standard library would take the last in silence."""
    parsed = parse_json('{"prefixes": {\n"@code": "a",\n"@x": "b",\n"@code": "c"}}')
    assert [(each.line, each.key) for each in parsed.faults] == [(4, "prefixes.@code")]
    assert "here and in line 2" in parsed.faults[0].message


def test_all_keys_that_stand_twice_are_told() -> None:
    """Not only the first one."""
    assert [each.line for each in parse_json('{"a":1,\n"a":2,\n"a":3,\n"b":1,\n"b":1}').faults] == [2, 3, 5]


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ('{\n"a": 1,\n}', 3, 'no comma before the closing "}"'),
        ("[1,]", 1, 'no comma before the closing "]"'),
        ('{\n"a": 1\n"b": 2}', 2, 'a comma or "}" is missing after this line'),
        ("{\"a\": 'x'}", 1, "double quotes, not in single ones"),
        ("{a: 1}", 1, "a key must stand in double quotes"),
        ('{"a" 1}', 1, 'a colon is missing after the key "a"'),
        ('{"a": 1 // why\n}', 1, "JSON has no comments"),
        ("# why\n{}", 1, "JSON has no comments"),
        ('{"a": {\n"b": 1\n', 1, 'the "{" that stands here is never closed'),
        ('{"a": [1, 2', 1, 'the "[" that stands here is never closed'),
        ('{"a":', 1, "the file ends where a value is missing"),
        ('{"a": "b', 1, "no closing double quote"),
        ('{"a": "b\n"}', 1, "must end in the line in which it begins"),
        ('{"a": "C:\\models"}', 1, "a backslash in a text is written twice"),
        ('{"a": ,}', 1, "a value is missing here"),
        ('{"a": yes}', 1, "yes is no value; texts stand in double quotes"),
        ('{"a": NaN}', 1, "NaN is no JSON value"),
        ('{"a": -Infinity}', 1, "-Infinity is no JSON value"),
        ("{} {}", 1, "something follows after the end"),
        ('{"a": "\\ud83d"}', 1, "half a character"),
        ("[" * 60, 1, "nested deeper than 50 levels"),
    ],
)
def test_each_usual_mistake_has_a_sentence(text: str, line: int, part: str) -> None:
    """With the line in which it is to be mended."""
    found, message = fault(text)
    assert found == line
    assert part in message


def test_nothing_at_all_is_no_root_and_no_fault() -> None:
    """The caller says that the file is empty."""
    assert parse_json(" \n ").root is None
    assert parse_json("").faults == ()
