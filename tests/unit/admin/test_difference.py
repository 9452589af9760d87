"""What is different between two looks at the status."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.admin.difference import TICKING, difference, reduced
from support.live import applied

Json = Any
VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b", 0.5])
TREES: st.SearchStrategy[Json] = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(TREES, min_size=2, max_size=4))
def test_all_changes_applied_to_the_first_look_are_the_last_one(looks: list[Json]) -> None:
    """Whatever became of it; by value and by type."""
    found = looks[0]
    for before, now in pairwise(looks):
        found = applied(found, list(difference(before, now)) if before != now else [])
    assert found == looks[-1]


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}, [(["b", "c"], 3)]),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1}, {"b": 3}]}, [(["a", 1, "b"], 3)]),
        ({"a": (1, 2)}, {"a": (1, 3)}, [(["a", 1], 3)]),
        ({"a": [1]}, {"a": [1, 2]}, [(["a"], [1, 2])]),
        ({"a": {"b": 1}}, {"a": {"c": 1}}, [(["a"], {"c": 1})]),
        ({"a": None}, {"a": {"c": 1}}, [(["a"], {"c": 1})]),
        ({"a": 1, "b": 2}, {"a": 3, "b": 4}, [(["a"], 3), (["b"], 4)]),
        ({"a": {"idle": 1, "b": 1}, "uptime": 5}, {"a": {"idle": 9, "b": 1}, "uptime": 6}, []),
        ({"a": 1}, {"a": 1}, []),
    ],
)
def test_a_change_is_told_where_it_is(before: Json, now: Json, expected: Json) -> None:
    """A list of another length and an object with other names whole; what only grows with the clock not at all."""
    assert list(difference(before, now)) == expected


def test_what_grows_with_the_clock_alone() -> None:
    """The page counts it by itself."""
    assert {"uptime", "idle"} == TICKING


def part() -> Json:
    return {
        "gate": {"clients": [{"client": "ann"}], "capacity": 1},
        "kv": {"slots": [{"group": "key:1", "tokens": 5}], "bytes": 3},
        "warmup": {
            "targets": [{"prefix": "@code", "group": ""}, {"prefix": "", "group": "key:1"}],
            "heads": {"known": 1, "plain": 1, "unstable": [{"group": "key:1"}]},
        },
    }


def test_one_of_several_keys_sees_nobody_else_in_the_status() -> None:
    """Neither names nor conversations nor heads; for one engine and for many models."""
    snapshots = [{"template": True, "name": "t"}, {"template": False, "name": "c"}]
    common = {"snapshots": snapshots, "refused_pages": {"proxy": {"http://x": 1}}, "notes": ["n"]}
    for status in (common | part(), common | {"models": [part()], "kv": {}}):
        found = reduced(status)
        (one,) = found.get("models", [found])
        assert (one["gate"], one["kv"]["slots"]) == ({"clients": [], "capacity": 1}, [{"group": "", "tokens": 5}])
        assert one["warmup"]["targets"] == part()["warmup"]["targets"][:1]
        assert one["warmup"]["heads"] == {"known": 1, "plain": 0, "unstable": []}
        assert (found["snapshots"], found["refused_pages"], found["notes"]) == (snapshots[:1], {}, ["n"])
    assert part()["gate"]["clients"]
