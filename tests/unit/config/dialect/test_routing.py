"""Groups, matrix, scheduler and preload."""

from __future__ import annotations

from functools import cmp_to_key

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.dialect.go import natural
from support.swap_models import messages, problems, swap

MODELS = "models: {a: {cmd: 'x ${PORT}', aliases: [alias]}, b: {cmd: 'x ${PORT}'}, org/c: {cmd: 'x ${PORT}'}}\n"
MIGRATE = (
    "config uses both the legacy top-level 'matrix'/'groups' keys and the new 'routing.router' block; "
    "please migrate the top-level keys to routing.router.settings"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("groups: {g: {members: [a, a]}}", "duplicate model member a found in group: g"),
        ("groups: {g: {members: [a]}, h: {members: [a]}}", "model member a is used in multiple groups: g and h"),
        ("groups: {g: {members: [x]}}", 'no model config for "x"'),
        ("groups: {g: {members: [alias]}}", 'no model config for "alias"; it is an alias, write a'),
        ("matrix: {}", "matrix: matrix must define at least one set"),
        ("matrix: {vars: {v: a}, sets: {}}", "matrix: matrix must define at least one set"),
        (
            "matrix: {vars: {v_1: a}, sets: {s: a}}",
            "matrix: var key \"v_1\" must contain only alphanumeric, '-' or '.' characters and be 1-32 characters long",
        ),
        ("matrix: {vars: {v: x}, sets: {s: a}}", 'matrix: var key "v" references unknown model "x"'),
        (
            "matrix: {vars: {v: alias}, sets: {s: a}}",
            'matrix: var key "v" references unknown model "alias"; it is an alias, write a',
        ),
        (
            "matrix: {evict_costs: {a: 0}, sets: {s: a}}",
            'matrix: evict_cost for "a" must be a positive integer, got 0',
        ),
        ("matrix: {evict_costs: {x: 2}, sets: {s: a}}", 'matrix: evict_costs: unknown var or model "x"'),
        ("groups: {g: {}}\nmatrix: {sets: {s: a}}", "config cannot use both 'groups' and 'matrix'"),
        ("groups: {g: {}}\nrouting: {router: {use: group}}", MIGRATE),
        ("groups: {g: {}}\nrouting: {router: {settings: {groups: {h: {}}}}}", MIGRATE),
        ("matrix: {sets: {s: a}}\nrouting: {router: {settings: {matrix: {sets: {s: a}}}}}", MIGRATE),
        ("routing: {router: {use: lru}}", 'routing.router.use: unknown router "lru" (valid: group, matrix)'),
        (
            "routing: {router: {use: matrix}}",
            "routing.router.use is 'matrix' but routing.router.settings.matrix is not set",
        ),
        ("routing: {scheduler: {use: lifo}}", 'routing.scheduler.use: unknown scheduler "lifo" (valid: fifo)'),
        (
            "routing: {scheduler: {settings: {fifo: {priority: {x: 1}}}}}",
            'routing.scheduler.settings.fifo.priority references unknown model "x"',
        ),
    ],
)
def test_what_refuses_a_routing(text: str, message: str) -> None:
    """With llama-swap's words."""
    assert messages(MODELS + text) == [message]


def test_the_path_says_where_the_router_stands() -> None:
    """In the newer place and in the older one."""
    newer = "routing:\n  router:\n    settings:\n      groups:\n        g:\n          members: [x]\n"
    assert [(each.where, each.key) for each in problems(MODELS + newer)] == [
        ("a.yaml:7", "routing.router.settings.groups.g.members[0]")
    ]
    assert [(each.where, each.key) for each in problems(MODELS + "groups: {g: {members: [x]}}")] == [
        ("a.yaml:2", "groups.g.members[0]")
    ]


def test_only_the_router_in_use_is_checked() -> None:
    """Both may be present; the other one may be wrong."""
    both = (
        "routing: {{router: {{use: {}, settings: {{groups: {{g: {{members: [{}]}}}}, matrix: {{sets: {{s: a}}}}}}}}}}"
    )
    assert swap(MODELS + both.format("matrix", "x")).routing.router.use == "matrix"
    config = swap(MODELS + both.format("group", "a"))
    assert config.routing.router.settings.matrix is not None
    assert [warning.message for warning in config.warnings] == ["is not used, because routing.router.use is not matrix"]


def test_an_empty_section_is_none() -> None:
    """`groups:` and `matrix:` with nothing behind them."""
    router = swap(MODELS + "groups:\nmatrix:\nrouting:").routing.router
    assert (router.use, router.settings.groups, router.settings.matrix) == ("group", {}, None)


def test_sets_are_sorted_as_llama_swap_breaks_ties() -> None:
    """By name, digits by their number; expressions stay as they are."""
    text = MODELS + "matrix: {vars: {c: org/c}, sets: {s10: a, s9: b, B: +s9 & (a | c), _x: a}}"
    matrix = swap(text).routing.router.settings.matrix
    assert matrix is not None
    assert list(matrix.sets.items()) == [("_x", "a"), ("B", "+s9 & (a | c)"), ("s9", "b"), ("s10", "a")]


def test_priority_of_an_alias_has_no_effect() -> None:
    """It is accepted, with a warning."""
    config = swap(MODELS + "routing: {scheduler: {settings: {fifo: {priority: {alias: 1, b: 2}}}}}")
    assert config.routing.scheduler.settings.fifo.priority == {"alias": 1, "b": 2}
    assert [warning.message for warning in config.warnings] == ["is an alias and has no effect here; write a"]


def test_preload_names_ids() -> None:
    """Trimmed, aliases resolved, the order kept, unknown names dropped with a warning."""
    config = swap(MODELS + "hooks: {on_startup: {preload: [org/c, ' alias ', nobody]}}")
    assert config.hooks.on_startup.preload == ("org/c", "a")
    assert [warning.message for warning in config.warnings] == ['"nobody" is no model; it is not preloaded']


def go_order(first: str, second: str) -> int:
    """The order of names pair by pair: at the first difference, letters come after everything else."""
    a, b = natural(first), natural(second)
    return (a > b) - (a < b)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a2", "a10"),
        ("a", "a1"),
        ("a1", "a01"),
        ("-", "1"),
        ("1", "a"),
        ("Z", "a"),
        ("a1b", "a12"),
        ("_a", "a"),
        ("x.9", "x.10"),
    ],
)
def test_names_sort_naturally(first: str, second: str) -> None:
    """Numbers by value, then by length; signs, digits, letters."""
    assert go_order(first, second) == -1
    assert go_order(second, first) == 1


@given(st.lists(st.text("aB10-._"), unique=True))
def test_the_order_is_total(names: list[str]) -> None:
    """Whatever order they come in, names end in one order."""
    backwards = names[::-1]
    assert sorted(names, key=cmp_to_key(go_order)) == sorted(backwards, key=natural)
