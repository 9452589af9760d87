"""Groups and the matrix, end to end: llama-swap's worked examples, asked of the program in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.swap_client import server
from support.swap_models import apart, fakes, group
from support.swap_rig import swap_rig

Json = Any
OPEN = {"swap": True, "exclusive": False}


async def test_groups_decide_what_stays(tmp_path: Path) -> None:
    """Of many configurations (tests/unit/models/test_rules.py) this one goes through the whole program."""
    groups = {"p": group("p q", persistent=True), "g": group("a")}
    async with swap_rig(tmp_path, fakes("p q a"), groups=groups) as rig:
        for name in "pqa":
            assert server(await rig.chat(name)) == name
        assert await rig.running() == {"a": "ready", "q": "ready"}


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


async def test_the_matrix_decides_what_stays(tmp_path: Path) -> None:
    """The combination is taken that stops what costs least; of many, this one goes through the whole program."""
    names = {"g": "gemma", "q": "qwen", "v": "voxtral", "L": "llama70B"}
    matrix = {"vars": names, "sets": {"standard": "(g | q) & v", "full": "L"}, "evict_costs": {"L": 30, "v": 50}}
    async with swap_rig(tmp_path, fakes(" ".join(names.values())), matrix=matrix) as rig:
        for name in ("voxtral", "llama70B", "qwen", "voxtral"):
            assert server(await rig.chat(name)) == name
        assert await rig.running() == {"qwen": "ready", "voxtral": "ready"}


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
