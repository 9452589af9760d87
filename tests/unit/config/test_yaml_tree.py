"""YAML with lines: words stay words, prefixes get their hint, and aliases can do no harm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.tree import Node
from bioproxy.config.yaml_tree import parse_yaml
from support.config_files import JSON, builtins, yaml_text


def members(text: str) -> dict[str, Node]:
    """The members of a mapping that has no faults."""
    parsed = parse_yaml(text)
    assert parsed.faults == ()
    assert parsed.root is not None
    assert isinstance(parsed.root.value, dict)
    return parsed.root.value


def fault(text: str) -> tuple[int, str]:
    """Line and sentence of the last fault."""
    parsed = parse_yaml(text)
    return parsed.faults[-1].line, parsed.faults[-1].message


@given(JSON.filter(lambda value: isinstance(value, dict | list)))
def test_it_reads_what_pyyaml_writes(value: Any) -> None:
    """Block style with all its quoting."""
    assert builtins(parse_yaml(yaml_text(value)).root) == value


@given(st.text(alphabet="ab:-[]{},\n 1&*<!@\"'#|>%", max_size=40))
def test_no_text_breaks_it(text: str) -> None:
    """Any text is a tree or faults with lines that exist."""
    parsed = parse_yaml(text)
    assert all(1 <= each.line <= text.count("\n") + 1 for each in parsed.faults)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("Off", False),
        ("yes", True),
        ("~", None),
        ("", None),
        ("8088", 8088),
        ("0x1F", 31),
        ("100_000", 100_000),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1:30", "1:30"),
        ("010", "010"),
        ("1_0", "1_0"),
        ("2026-11-22", "2026-11-22"),
        ("30s", "30s"),
        ("'8088'", "8088"),
        ('"off"', "off"),
        ("|\n  8", "8"),
        (".inf", ".inf"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_scalars_are_what_they_look_like(text: str, value: object) -> None:
    """No sexagesimal, no octal, no dates."""
    assert members(f"key: {text}")["key"].value == value


def test_a_word_that_yaml_takes_for_a_boolean_keeps_its_text() -> None:
    """`policy: off` must be able to mean the word."""
    node = members("policy: off")["policy"]
    assert (node.value, node.raw) == (False, "off")


def test_keys_are_texts_whatever_they_look_like() -> None:
    """Numbers and booleans as keys, too."""
    assert list(members("8088: a\non: b\n'@x': c")) == ["8088", "on", "@x"]


def test_a_member_knows_the_line_of_its_key() -> None:
    """Also when its value begins further down."""
    found = members("a: 1\n\nb:\n  # nothing\n  c: 2\n")
    assert (found["a"].line, found["b"].line) == (1, 3)


def test_a_key_that_stands_twice_is_a_fault_with_both_lines() -> None:
    """At every level."""
    parsed = parse_yaml('a: 1\nprefixes:\n  "@code": x\n  "@code": y\na: 2\n')
    assert [(each.line, each.key) for each in parsed.faults] == [(4, "prefixes.@code"), (5, "a")]
    assert "here and in line 3" in parsed.faults[0].message


def test_anchors_and_aliases_work() -> None:
    """An alias is what its anchor names."""
    assert builtins(parse_yaml("a: &x [1, 2]\nb: *x").root) == {"a": [1, 2], "b": [1, 2]}


def test_merge_keys_work_and_what_is_written_wins() -> None:
    """An earlier mapping of the list wins over a later one, as in the YAML specification."""
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  x: 9\n"
    assert builtins(parse_yaml(text).root)["c"] == {"x": 9, "y": 1, "z": 2}


def test_only_mappings_can_be_merged() -> None:
    """The sentence says so."""
    assert fault("a:\n  <<: 5") == (2, "what << takes in must be a mapping or a list of mappings")


@pytest.mark.parametrize("character", ["@", "`", "%"])
def test_a_prefix_without_quotes_gets_a_sentence_that_mends_it(character: str) -> None:
    """YAML reserves these characters, and prefixes like to begin with them."""
    line, message = fault(f"prefixes:\n  {character}code: file.txt\n")
    assert (line, message) == (
        2,
        f'not valid YAML: a text that begins with {character} must stand in quotes: write "{character}code"',
    )


def test_an_alias_that_names_nothing_is_taken_for_a_prefix_without_quotes() -> None:
    """`*` begins an alias; who writes a prefix so wants quotes."""
    assert 'write "*code"' in fault("prefixes:\n  *code : file.txt\n")[1]


def test_a_tab_is_named() -> None:
    """Nobody sees it in an editor."""
    line, message = fault("kv:\n\tpolicy: off\n")
    assert line == 2
    assert "a tab stands in this line" in message


def test_other_syntax_errors_tell_line_and_cause() -> None:
    """In PyYAML's words."""
    line, message = fault("a: 1\nb: [1, 2\nc: 3\n")
    assert line == 3
    assert message.startswith("not valid YAML: did not find expected")


def test_two_documents_are_refused() -> None:
    """Nobody could say which of them counts."""
    assert "not valid YAML" in fault("a: 1\n---\nb: 2\n")[1]


def test_a_control_character_is_refused_with_its_line() -> None:
    """The reader fails before the parser: it has a position only."""
    line, message = fault("a: 1\nb: \x07\n")
    assert line == 2
    assert "not valid YAML" in message


def test_a_value_that_contains_itself_is_refused() -> None:
    """Else it would never end."""
    assert fault("a: &x [1, *x]") == (1, "an alias stands inside the very value that it names")


def test_aliases_of_aliases_cannot_fill_the_memory() -> None:
    """Nine lines that would make 10**9 values."""
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "too many aliases of aliases" in fault("\n".join(lines))[1]


def test_deep_nesting_is_refused() -> None:
    """And does not overflow the stack."""
    assert "levels" in fault("[" * 2000 + "]" * 2000)[1]


@pytest.mark.parametrize("value", ["!!python/name:os.system", "!secret x", "!!set {a, b}", "!mine [1]"])
def test_tags_of_programs_are_refused(value: str) -> None:
    """A config names no Python objects, and nothing is read otherwise than it was meant."""
    line, message = fault(f"a: 1\nb: {value}\n")
    assert line == 2
    assert "unknown here" in message


def test_json_is_read_as_yaml_too() -> None:
    """A file without a telling name may hold either."""
    value = {"proxy_port": 8083, "prefixes": {"@code": "a.txt"}, "list": [1, "x", None]}
    assert builtins(parse_yaml(json.dumps(value, indent=2)).root) == value


def test_comments_alone_are_no_root_and_no_fault() -> None:
    """The caller says that there is nothing in the file."""
    assert parse_yaml("# nothing\n").root is None
    assert parse_yaml("# nothing\n").faults == ()
