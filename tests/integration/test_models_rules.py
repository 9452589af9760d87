"""Groups and the matrix, end to end: llama-swap's worked examples, asked of the program in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.swap_client import server
from support.swap_models import apart, fakes, group
from support.swap_rig import swap_rig

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


@pytest.mark.parametrize(("groups", "asked", "runs"), GROUPS)
async def test_groups_decide_what_stays(groups: Json, asked: str, runs: str, tmp_path: Path) -> None:
    """Every request is served, and afterwards exactly the models run that the rule lets run together."""
    async with swap_rig(tmp_path, fakes("a b c n p q x"), groups=groups) as rig:
        for name in asked.split():
            assert server(await rig.chat(name)) == name
        assert await rig.running() == dict.fromkeys(runs.split(), "ready")


async def test_a_request_for_a_model_that_runs_stops_nobody(tmp_path: Path) -> None:
    """Both have their memory already; llama-swap stops n here."""
    async with swap_rig(tmp_path, fakes("x n"), groups={"x": group("x"), "n": group("n", **OPEN)}) as rig:
        for name in "xnx":
            await rig.chat(name)
        assert await rig.running() == {"x": "ready", "n": "ready"}
    assert rig.log.starts() == ["x", "n"]


async def test_two_of_a_group_asked_for_at_once_come_one_after_the_other(tmp_path: Path) -> None:
    """Both are served, never side by side."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        tasks = [rig.ask("a"), rig.ask("b")]
        assert [server(await task) for task in tasks] == ["a", "b"]
    assert not rig.log.overlap("a", "b")


async def test_groups_may_stand_under_routing(tmp_path: Path) -> None:
    """The newer place of the same keys."""
    routing = {"router": {"use": "group", "settings": {"groups": apart("a b")}}}
    async with swap_rig(tmp_path, fakes("a b"), routing=routing) as rig:
        await rig.chat("a")
        await rig.chat("b")
        assert await rig.running() == {"a": "ready", "b": "ready"}


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
async def test_the_matrix_decides_what_stays(
    sets: Json, costs: Json, before: str, asked: str, runs: str, tmp_path: Path
) -> None:
    """The combination is taken that stops what costs least."""
    models = fakes(f"a b c {' '.join(NAMES.values())}")
    matrix = {"vars": NAMES, "sets": sets, "evict_costs": costs}
    async with swap_rig(tmp_path, models, matrix=matrix) as rig:
        for name in f"{before} {asked}".split():
            assert server(await rig.chat(name)) == name
        assert await rig.running() == dict.fromkeys(runs.split(), "ready")


async def test_a_matrix_starts_together_what_may_run_together(tmp_path: Path) -> None:
    """Neither waits for the other."""
    matrix = {"sets": {"both": "a & b"}}
    async with swap_rig(tmp_path, fakes("a b", "--health-503-for 0.2"), matrix=matrix) as rig:
        tasks = [rig.ask("a"), rig.ask("b")]
        assert [server(await task) for task in tasks] == ["a", "b"]
    assert rig.log.overlap("a", "b")


async def test_a_model_that_is_loading_serves_first_who_waits_for_it(tmp_path: Path) -> None:
    """Then the other one of the matrix takes its place."""
    matrix = {"sets": {"one": "a", "two": "b"}}
    async with swap_rig(tmp_path, fakes("a b", "--health-503-for 0.2"), matrix=matrix) as rig:
        first = rig.ask("a")
        await rig.until_event("listening", "a")
        assert server(await rig.chat("b")) == "b"
        assert server(await first) == "a"
    assert rig.log.served() == ["a", "b"]
