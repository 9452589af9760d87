"""Whatever stands in a config, it is a DialectConfig or a ConfigError with places: nothing else ever comes out."""

from __future__ import annotations

import re
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bioproxy.config.dialect.read import read_dialect
from bioproxy.config.files import Source
from bioproxy.errors import ConfigError, Problem
from support.swap_models import every_key

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["", "x", "${x}", "${PORT}", "a b", "\x85", "-1"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["", "a", "llama", "${x}"]), inner, max_size=3)
    ),
    max_leaves=5,
)

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value inside of a value."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in members for place in paths(child, (*path, key)))]


ALL_PLACES = paths(every_key())[1:]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


def refusals(*sources: Source) -> tuple[Problem, ...]:
    """What refuses files; nothing where they are a config."""
    try:
        read_dialect(sources, environment={"SECOND_KEY": "k"})
    except ConfigError as error:
        return error.problems
    return ()


def read(*values: Any) -> None:
    """Read values as files; a refusal must say where."""
    texts = (yaml.dump(value, Dumper=DUMPER) for value in values)
    for problem in refusals(*(Source(f"{index}.yaml", text) for index, text in enumerate(texts))):
        assert re.fullmatch(r"[01]\.yaml(:[0-9]+)?", problem.where), problem


@settings(max_examples=120)
@given(st.sampled_from(ALL_PLACES), VALUES)
def test_any_value_at_any_place(path: tuple[Any, ...], value: Any) -> None:
    """Every key once with a value of every kind."""
    read(replaced(every_key(), path, value))


@given(VALUES, VALUES)
def test_any_two_files(first: Any, second: Any) -> None:
    """Also without a single known key."""
    read({"models": first}, {"models": second, "macros": first})


@given(st.text(alphabet="ab:-[]{}$,\n 1&*<!@\"'#|>%models", max_size=60))
def test_any_text(text: str) -> None:
    """Also what is no YAML."""
    lines = text.count("\n") + 1
    for problem in refusals(Source("0.yaml", text)):
        assert int(problem.where.partition(":")[2] or 1) <= lines, problem
