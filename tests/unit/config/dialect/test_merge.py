"""Several files become one config: what is joined, what must agree, what may stand only once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.dialect.go import builtins
from bioproxy.config.dialect.read import merge
from bioproxy.config.notes import Notes
from bioproxy.config.tree import Node, shift
from bioproxy.config.yaml_tree import parse_yaml
from support.config_files import yaml_text
from support.swap_models import messages, problems, swap


def merged(*values: Any) -> tuple[Any, Notes]:
    """What values become when each is a file, and the notes about it."""
    notes = Notes([f"{index}.yaml" for index in range(len(values))])
    roots = [parse_yaml(yaml_text(value)).root or Node({}) for value in values]
    return builtins(merge([shift(root, index) for index, root in enumerate(roots)], notes)), notes


def test_models_of_all_files_stand_beside_each_other() -> None:
    """Macros and lists are joined in the order of the files."""
    config = swap(
        "macros: {a: 1}\napiKeys: [one]\nmodels: {m: {cmd: '${b} ${PORT}'}}",
        "macros: {b: '<${a}>'}\napiKeys: [two]\nmodels: {n: {cmd: '${a} ${PORT}'}}",
    )
    assert [model.cmd for model in config.models.values()] == ["<1> 5800", "1 5801"]
    assert config.api_keys == ("one", "two")


@pytest.mark.parametrize("section", ["models", "groups", "profiles", "selectors", "peers", "matrix"])
def test_a_name_stands_in_one_file_only(section: str) -> None:
    """Even if both say the same."""
    text = f"{section}: {{x: {{}}}}"
    found = problems(text, text)
    assert found[0].message == f'duplicate {section} "x" found in b.yaml (already defined in another config source)'
    assert (found[0].where, found[0].key) == ("b.yaml:1", f"{section}.x")


@pytest.mark.parametrize("section", ["groups", "matrix"])
def test_the_same_holds_inside_of_routing(section: str) -> None:
    """The newer place of groups and matrix."""
    text = f"routing: {{router: {{settings: {{{section}: {{x: {{}}}}}}}}}}"
    assert messages(text, text) == [
        f'duplicate routing.router.settings.{section} "x" found in b.yaml (already defined in another config source)'
    ]


def test_scalars_must_agree() -> None:
    """Two values for one key are a conflict; the same twice is none."""
    assert swap("globalTTL: 5", "globalTTL: 5").global_ttl == 5
    assert messages("globalTTL: 5", "globalTTL: 6") == [
        'conflict at "globalTTL": b.yaml sets a different value than a previous source'
    ]
    assert messages("macros: {a: 1}", "macros: {a: 2}") == [
        'conflict at "macros.a": b.yaml sets a different value than a previous source'
    ]
    assert messages("logRequests: true", "logRequests: 1") == [
        'conflict at "logRequests": b.yaml sets a different value than a previous source'
    ]


def test_only_an_empty_value_gives_way() -> None:
    """`key:` does, a null that is written out does not."""
    assert swap("globalTTL:", "globalTTL: 6").global_ttl == 6
    assert swap("globalTTL: 6", "globalTTL:").global_ttl == 6
    assert messages("globalTTL: 6", "globalTTL: null") == [
        'conflict at "globalTTL": b.yaml sets a different value than a previous source'
    ]


def test_kinds_must_agree() -> None:
    """A list and a mapping cannot be one value."""
    assert messages("hooks: [a]", "hooks: {on_startup: {}}") == [
        'conflict at "hooks": incompatible YAML node kinds (sequence and mapping)'
    ]


def test_every_conflict_of_every_file_is_named() -> None:
    """And a file that is no mapping, and one that is no YAML, with the others' mistakes."""
    found = problems("startPort: 1\nglobalTTL: 2", "startPort: 2\nglobalTTL: 3", "- a", "a: b: c")
    assert [problem.where for problem in found] == ["c.yaml:1", "d.yaml:1", "b.yaml:1", "b.yaml:2"]
    assert found[0].message == "config c.yaml: top-level YAML must be a mapping"


def test_empty_files_are_skipped() -> None:
    """So are those with nothing but comments."""
    assert swap("", "# nothing", "globalTTL: 6").global_ttl == 6


def test_a_problem_names_the_file_that_it_stands_in() -> None:
    """Lines count from each file's own beginning."""
    found = problems("models:\n  a: {cmd: 'x ${PORT}'}", "\n\nmodels:\n  b: {cmd: 'x ${one} ${PORT}'}")
    assert [problem.where for problem in found] == ["b.yaml:4"]


def test_anchors_do_not_cross_files() -> None:
    """A file must be YAML on its own."""
    assert "not valid YAML" in messages("x-a: &a {ttl: 1}", "models: {m: *a}")[0]


SCALARS = st.one_of(st.integers(), st.text("xyz", min_size=1), st.booleans())
FILES = st.dictionaries(
    st.sampled_from("abcd"),
    st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.sampled_from("efg"), SCALARS, max_size=3)),
)


@given(FILES)
def test_one_file_is_itself(file: dict[str, Any]) -> None:
    """And stays so beside empty ones."""
    found, notes = merged({}, file, {})
    assert (found, notes.problems) == (file, [])


@given(st.lists(FILES, max_size=4))
def test_keys_keep_the_order_of_the_files(files: list[dict[str, Any]]) -> None:
    """Every key of every file is there, the first file's first; lists are all files' lists in order."""
    found, _ = merged(*files)
    assert list(found) == list(dict.fromkeys(key for file in files for key in sorted(file)))
    for key, value in found.items():
        given_values = [file[key] for file in files if key in file]
        if all(isinstance(each, list) for each in given_values):
            assert value == [item for each in given_values for item in each]


@given(FILES, FILES, FILES)
def test_merging_in_steps_is_the_same(first: dict[str, Any], second: dict[str, Any], third: dict[str, Any]) -> None:
    """Where nothing conflicts, two files may as well be one."""
    together, notes = merged(first, second, third)
    if not notes.problems:
        pair, _ = merged(first, second)
        assert merged(pair, third)[0] == together
