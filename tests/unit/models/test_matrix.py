"""The matrix: its language, its messages, and who must stop."""

from __future__ import annotations

from contextlib import suppress
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.dialect.schema import Matrix as MatrixSettings
from bioproxy.errors import ConfigError
from bioproxy.models.expression import Branch, ExpressionError, Leaf, Node, parse
from bioproxy.models.matrix import Matrix
from support.swap_world import together

VARS = {"g": "gemma", "q": "qwen", "m": "mistral", "v": "voxtral", "e": "reranker", "L": "llama70B"}
MODELS = [*VARS.values(), "org/big:7b"]
STANDARD = {"standard": "(g|q|m) & v", "full": "L"}
NESTED = {"llms": "g|q|m", "with_tts": "+llms & v", "mega": "+with_tts & e"}


def matrix(sets: dict[str, str], costs: dict[str, int] | None = None, names: str = "") -> Matrix:
    """A matrix over the models above, or over one model per letter of `names`."""
    if names:
        return Matrix(MatrixSettings(sets=sets, evict_costs=costs or {}), list(names))
    return Matrix(MatrixSettings(sets=sets, vars=VARS, evict_costs=costs or {}), MODELS)


def combinations(node: Node, sets: dict[str, Node]) -> list[frozenset[str]]:
    """Everything an expression stands for, multiplied out, in order."""
    if isinstance(node, Leaf):
        return combinations(sets[node.name], sets) if node.reference else [frozenset([node.name])]
    parts = [combinations(part, sets) for part in node.parts]
    if node.kind == "any":
        return [one for part in parts for one in part]
    return [frozenset().union(*chosen) for chosen in product(*parts)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L", ["L"]),
        ("a & b", ["ab"]),
        ("a | b", ["a", "b"]),
        ("a | b & c", ["a", "bc"]),
        ("a & b | c", ["ab", "c"]),
        ("(a|b)&(c|d)", ["ac", "ad", "bc", "bd"]),
        ("a&(b|(c&d))", ["ab", "acd"]),
        ("((a))", ["a"]),
        ("a & a", ["a"]),
        (" a\t|\n b ", ["a", "b"]),
        ("+s & v", ["xv", "yv"]),
    ],
)
def test_what_an_expression_means(text: str, expected: list[str]) -> None:
    """And binds tighter than or; a reference stands for the whole set; blanks count nothing."""
    sets: dict[str, Node] = {"s": Branch("any", (Leaf("x"), Leaf("y")))}
    assert combinations(parse(text), sets) == [frozenset(one) for one in expected]


def test_names_may_have_dots_dashes_digits_and_underscores() -> None:
    """What a name consists of, also behind a plus."""
    assert parse("a-b_c.1 & +set-1.x") == Branch("all", (Leaf("a-b_c.1"), Leaf("set-1.x", reference=True)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty DSL expression"),
        ("  ", "empty DSL expression"),
        ("(a | b", "missing closing parenthesis at position 6"),
        ("(a b)", "missing closing parenthesis at position 3"),
        ("a b", "unexpected token 'b' at position 2"),
        ("a)", r"unexpected token '\)' at position 1"),
        ("& a", "unexpected token '&' at position 0"),
        ("a |", "unexpected token end of expression at position 3"),
        ("()", r"unexpected token '\)' at position 1"),
        ("a @ b", "unexpected character '@' at position 2"),
        ("org/big", "unexpected character '/' at position 3"),
        ("+", r"expected set name after '\+' at position 1"),
        ("a & + b", r"expected set name after '\+' at position 5"),
    ],
)
def test_what_cannot_be_read(text: str, message: str) -> None:
    """Each mistake has its message, and says at which character."""
    with pytest.raises(ExpressionError, match=f"^{message}$"):
        parse(text)


@given(st.text(alphabet="ab+&|() @-", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text breaks the reader in another way."""
    with suppress(ExpressionError):
        assert isinstance(parse(text), Leaf | Branch)


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        (MatrixSettings(sets={"s": ""}), ['set "s": empty DSL expression']),
        (MatrixSettings(sets={"s": "(a"}), ['set "s": missing closing parenthesis at position 2']),
        (MatrixSettings(sets={"s": "z"}), ['set "s": unknown var or model "z"']),
        (MatrixSettings(sets={"s": "+t"}), ['set "s" references undefined set "t"']),
        (MatrixSettings(sets={"s": "+s"}), ['circular reference detected involving set "s"']),
        (MatrixSettings(sets={"s": "+t", "t": "a | +s"}), ['circular reference detected involving set "s"']),
        (
            MatrixSettings(sets={"s": "a @", "t": "z"}),
            [
                "set \"s\": unexpected character '@' at position 2",
                'set "t": unknown var or model "z"',
            ],
        ),
    ],
)
def test_what_cannot_be_used(settings: MatrixSettings, messages: list[str]) -> None:
    """Every mistake of a matrix is told at once, in the words that scripts match on."""
    with pytest.raises(ConfigError) as caught:
        Matrix(settings, ["a", "b"])
    assert [problem.message for problem in caught.value.problems] == [f"matrix: {one}" for one in messages]
    assert all(problem.key.startswith("matrix.") for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("sets", "costs", "running", "model", "evicted"),
    [
        (STANDARD, {"L": 30, "v": 50}, ["voxtral"], "gemma", []),
        (STANDARD, {"L": 30, "v": 50}, ["voxtral"], "llama70B", ["voxtral"]),
        (STANDARD, {"L": 30, "v": 50}, ["gemma", "voxtral"], "qwen", ["gemma"]),
        (NESTED, {}, ["gemma", "voxtral"], "reranker", []),
        ({"base": "g | qwen", "combo": "+base & voxtral"}, {}, ["voxtral"], "qwen", []),
        (STANDARD, {}, ["gemma"], "org/big:7b", ["gemma"]),
        (STANDARD, {}, ["gemma", "llama70B"], "gemma", []),
    ],
)
def test_worked_examples(
    sets: dict[str, str], costs: dict[str, int], running: list[str], model: str, evicted: list[str]
) -> None:
    """The worked examples with short names."""
    assert matrix(sets, costs).evict(model, running) == set(evicted)


@pytest.mark.parametrize(
    ("sets", "costs", "running", "model", "evicted"),
    [
        ({"s_a": "a", "s_b": "b"}, {}, "a", "b", "a"),
        ({"s_ab": "a & b"}, {}, "a", "b", ""),
        ({"a_with_c": "a & c", "a_with_b": "a & b"}, {"b": 10, "c": 1}, "bc", "a", "c"),
        ({"first": "a & b", "second": "a & c"}, {}, "bc", "a", "c"),
        ({"s": "a & b | a & c"}, {}, "bc", "a", "c"),
        ({"s": "c & (a | (a & b))"}, {}, "ab", "c", ""),
        ({"known": "a & b"}, {}, "ab", "z", "ab"),
        ({"s": "a & a"}, {}, "b", "a", "b"),
        ({"use": "+base & c", "base": "a"}, {}, "c", "a", ""),
    ],
)
def test_worked_examples_in_letters(
    sets: dict[str, str], costs: dict[str, int], running: str, model: str, evicted: str
) -> None:
    """Costs decide, then the earlier set, then the earlier alternative; in no set: alone."""
    assert matrix(sets, costs, names="abcz").evict(model, set(running)) == set(evicted)


def test_measured_seconds_decide_where_no_costs_are_configured() -> None:
    """Whoever is back sooner goes, though the earlier set would keep it."""
    rules = matrix({"first": "a & b", "second": "a & c"}, names="abc")
    assert rules.evict("a", "bc", {"b": 2.0, "c": 60.0}) == {"b"}
    assert rules.evict("a", "bc", {"b": 60.0, "c": 2.0}) == {"c"}


def test_configured_costs_come_before_measured_seconds() -> None:
    """What the operator said counts more; among equals the measure decides."""
    sets = {"first": "a & b", "second": "a & c", "third": "a & d"}
    rules = matrix(sets, {"b": 5, "c": 9, "d": 9}, names="abcd")
    assert rules.evict("a", "bc", {"b": 99.0, "c": 1.0}) == {"b"}
    assert rules.evict("a", "bcd", {"c": 1.0, "d": 9.0}) == {"b", "c"}


def test_a_million_combinations_are_no_work() -> None:
    """Six places with ten alternatives each: what runs in them stays, only what is outside of them stops."""
    names = [f"m{place}{one}" for place in range(6) for one in range(10)]
    places = ["(" + "|".join(f"m{place}{one}" for one in range(10)) + ")" for place in range(6)]
    rules = Matrix(MatrixSettings(sets={"s": "target & " + " & ".join(places)}), [*names, "target", "outside"])
    running = [f"m{place}{place}" for place in range(6)]
    assert rules.evict("target", [*running, "outside"]) == {"outside"}


def test_more_than_64_models() -> None:
    """The number of models is not bounded by a machine word."""
    names = [f"m{one}" for one in range(200)]
    rules = Matrix(MatrixSettings(sets={"s": "&".join(names)}), names)
    assert rules.evict("m0", names[1:]) == frozenset()


def test_alternatives_that_all_run_do_not_explode() -> None:
    """Forty models that run, two for each of twenty places: an answer comes, with one of each place kept."""
    names = [f"{side}{place}" for place in range(20) for side in "ab"]
    pairs = " & ".join(f"(a{place} | b{place})" for place in range(20))
    rules = Matrix(MatrixSettings(sets={"s": "z & " + pairs}), [*names, "z"])
    gone = rules.evict("z", names)
    assert len(gone) == 20
    assert together(set(names) - gone | {"z"}, rules)


nodes = st.recursive(
    st.sampled_from("abcdef"),
    lambda inner: st.tuples(st.sampled_from("&|"), st.lists(inner, min_size=2, max_size=3)).map(
        lambda pair: "(" + pair[0].join(pair[1]) + ")"
    ),
    max_leaves=8,
)


@given(
    st.lists(nodes, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9)),
    st.sets(st.sampled_from("abcdefgh")),
    st.sampled_from("abcdefg"),
)
def test_the_cheapest_of_all_combinations(
    texts: list[str], costs: dict[str, int], running: set[str], model: str
) -> None:
    """The answer costs as little as the best of all combinations, and is one of them."""
    sets = {f"s{at}": text for at, text in enumerate(texts)}
    evicted = matrix(sets, costs, names="abcdefgh").evict(model, running)
    if model in running:
        assert not evicted
        return
    families = [one for text in texts for one in combinations(parse(text), {}) if model in one]
    choices = [running - one for one in families] or [running]
    assert evicted in choices
    assert sum(costs.get(name, 1) for name in evicted) == min(
        sum(costs.get(name, 1) for name in choice) for choice in choices
    )
