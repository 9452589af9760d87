"""From a configuration to what runs: llama-swap's worked examples of groups and of the matrix, asked in the same order.

Everything but the processes is real: the file is read, its rules are made, and a schedule follows them in a simulated
machine. Whole programs do the same in tests/integration/test_models_rules.py, for one example of each kind.
"""

from __future__ import annotations

from typing import Any

import pytest

from bioproxy.models.plan import rules_of
from support.config_files import yaml_text
from support.swap_models import group, swap
from support.swap_world import World, plain

Json = Any
OWN = {"swap": True, "exclusive": True}
OPEN = {"swap": True, "exclusive": False}
NAMES = {"g": "gemma", "q": "qwen", "m": "mistral", "v": "voxtral", "e": "reranker", "L": "llama70B"}
TTS = {"llms": "g | q | m", "with_tts": "+llms & v", "mega": "+with_tts & e"}
STANDARD = {"standard": "(g | q | m) & v", "full": "L"}

GROUPS: list[tuple[Json, str, str]] = [  # groups, asked for in this order, what runs then
    ({}, "a b c", "c"),
    ({"g": group("a b")}, "a b", "b"),
    ({"g": group("a b", swap=False)}, "a b", "a b"),
    ({"g": group("a", **OWN), "h": group("b", **OWN)}, "a b", "b"),
    ({"p": group("p", persistent=True), "g": group("a")}, "p a", "a p"),
    ({"p": group("p q", persistent=True), "g": group("a")}, "p q a", "a q"),
    ({"x": group("x"), "n": group("n", **OPEN)}, "x n", "n x"),
    ({"x": group("x"), "n": group("n", **OPEN)}, "n x", "x"),
    ({"n": group("n", **OPEN)}, "a n", "a n"),
]


def runs_after(asked: str, models: str, **config: Json) -> list[str]:
    """The models that run after requests for `asked`, one after the other, each served."""
    names = models.split()
    entries = {name: {"cmd": "x ${PORT}"} for name in names}
    world = World(plain(*names), rules_of(swap(yaml_text({**config, "models": entries}))))
    for name in asked.split():
        request = world.ask(name)
        world.run()
        assert request.served is not None
    return sorted(world.running())


@pytest.mark.parametrize(("groups", "asked", "runs"), GROUPS)
def test_groups_decide_what_stays(groups: Json, asked: str, runs: str) -> None:
    """Every request is served, and afterwards exactly the models run that the rule lets run together."""
    assert runs_after(asked, "a b c n p q x", groups=groups) == runs.split()


MATRIX: list[tuple[Json, Json, str, str, str]] = [  # sets, costs, what runs before, what is asked for, what runs then
    (STANDARD, {"L": 30, "v": 50}, "voxtral", "gemma", "gemma voxtral"),
    (STANDARD, {"L": 30, "v": 50}, "voxtral", "llama70B", "llama70B"),
    (TTS, {}, "gemma voxtral", "reranker", "gemma reranker voxtral"),
    ({"base": "g | qwen", "combo": "+base & voxtral"}, {}, "voxtral", "qwen", "qwen voxtral"),
    ({"one": "a", "two": "b"}, {}, "a", "b", "b"),
    ({"both": "a & b"}, {}, "a", "b", "a b"),
    ({"with_c": "a & c", "with_b": "a & b", "others": "b & c"}, {"b": 10, "c": 1}, "b c", "a", "a b"),
    ({"known": "a & b"}, {}, "a b", "c", "c"),
    ({"s": "c & (a | (a & b))"}, {}, "a b", "c", "a b c"),
]


@pytest.mark.parametrize(("sets", "costs", "before", "asked", "runs"), MATRIX)
def test_the_matrix_decides_what_stays(sets: Json, costs: Json, before: str, asked: str, runs: str) -> None:
    """The combination is taken that stops what costs least."""
    matrix = {"vars": NAMES, "sets": sets, "evict_costs": costs}
    assert runs_after(f"{before} {asked}", f"a b c {' '.join(NAMES.values())}", matrix=matrix) == runs.split()
