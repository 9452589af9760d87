"""The JSON Schemas and the loaders agree: what loads fits, and what fits has no value of a wrong kind.

Of a value the kind is judged (a number, a text with a unit, one of some words, a bound). That a model exists, or that a
URL is one, no schema says; nor does it know what a macro or variable will be.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.dialect.go import builtins
from bioproxy.config.dialect.read import read
from bioproxy.config.files import Source, parse
from bioproxy.config.json_schema import dialect_schema, own_schema
from bioproxy.config.keys import KEYS
from bioproxy.config.layers import own_layer
from bioproxy.errors import ConfigError, Problem
from support.config_files import fits
from support.swap_models import every_key

Json = Any
OWN, SWAP = own_schema(), dialect_schema()
KIND = re.compile(
    r"(model \S+: )?(expected |profile must be a mapping|macro '.*' has invalid type|macros must be a mapping)"
    r"|unknown key|the key "
)
VALUES: st.SearchStrategy[Json] = st.sampled_from([
    None, True, False, 0, 1, -1, 5, 70_000, 1.5, 2.0, "", "x", "5", "off", "yes", "auto", "30s", "20GiB", "1x",
    [], ["x"], [1], [None], [[]], {}, {"x": 1}, {"x": None}, {"x": "y"}, {"x": []},
    {"template": "x"}, {"template": 5}, {"key": "k", "priority": 3}, {"key": "k", "priority": "3"},
])  # fmt: skip


def places(value: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The place of each member of a mapping, at any depth."""
    for key, child in value.items() if isinstance(value, dict) else ():
        yield (*path, key)
        yield from places(child, (*path, key))


def with_value(root: Json, path: tuple[str, ...], value: Json) -> Json:
    """The tree with another value at a place."""
    whole = copy.deepcopy(root)
    place = whole
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return whole


def of_kind(problems: list[Problem]) -> list[str]:
    """The problems that are about the kind of a value."""
    return [problem.message for problem in problems if KIND.match(problem.message)]


def wrong_in_swap(values: Json) -> list[str]:
    """What the loader of llama-swap's dialect says about kinds of values."""
    try:
        found = read([Source("a.json", json.dumps(values))], environment={"SECOND_KEY": "sk"})
    except ConfigError as error:
        return of_kind([*error.problems])
    return of_kind(found.notes.problems)


def wrong_in_ours(values: Json) -> list[str]:
    """What the loader of our own dialect says about kinds of values."""
    layer = own_layer(parse(json.dumps(values), "a.json"), "/a.json", shown="a.json", environment={})
    return of_kind(layer.problems)


FILE = every_key()
ALL = {
    "proxy_port": 1, "kv": {"policy": "off", "disk_budget": "1GiB"}, "api_keys": ["k"], "warmup": {"heads": 1},
    "prefixes": {"@x": "y"}, "swap": {"min_resident": "auto", "linger": 1}, "log": {"level": "info"},
    "limits": {"body": 1}, "engine_arguments": ["x"], "admin_key": "k", "queue_timeout": "1s", "$schema": "x",
}  # fmt: skip


def test_the_files_of_the_corpus_fit() -> None:
    """Every key of each dialect."""
    assert fits(FILE, SWAP)
    assert fits(ALL, OWN)
    assert wrong_in_swap(FILE) == wrong_in_ours(ALL) == []


@given(st.sampled_from([path for path in places(FILE) if "macros" not in path]), VALUES)
def test_the_schema_of_llama_swaps_dialect_agrees_with_its_loader(path: tuple[str, ...], value: Json) -> None:
    """With a value of any kind at any place."""
    changed = with_value(FILE, path, value)
    wrong = wrong_in_swap(changed)
    assert fits(changed, SWAP) == (not wrong), wrong


@given(st.sampled_from([*places(ALL), *((key,) for key in KEYS if "." not in key), ("nothing",)]), VALUES)
def test_the_schema_of_ours_agrees_with_its_loader(path: tuple[str, ...], value: Json) -> None:
    """With a value of any kind at any place."""
    changed = with_value(ALL, path, value)
    wrong = wrong_in_ours(changed)
    assert fits(changed, OWN) == (not wrong), wrong


@pytest.mark.parametrize(
    "text",
    ["models: {m: {cmd: x, proxy: 'http://h'}}\nprofiles: {p: {pins: {a: }}}\n", "models:\npeers:\ngroups:\nmacros:\n"],
)
def test_a_key_with_nothing_behind_it_fits(text: str) -> None:
    """As YAML files have them; a pin to nothing switches its name off."""
    root = parse(text, "").root
    assert root is not None
    assert fits(builtins(root), SWAP)


@pytest.mark.parametrize("use", ["${number}", "x${number}", "${env.NUMBER}"])
def test_a_macro_may_stand_for_any_number_or_word(use: str) -> None:
    """Also for bioproxy's own keys in the same file, but not for a list or mapping."""
    for path in (("globalTTL",), ("models", "llama", "unlisted"), ("proxy_port",), ("models", "qwen", "kv")):
        assert fits(with_value(FILE, path, use), SWAP)
    assert not fits(with_value(FILE, ("models",), use), SWAP)
