"""`hooks.on_startup.preload`: models that are there before anybody asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.swap_client import server
from support.swap_models import apart, fake, fakes
from support.swap_rig import swap_rig

Json = Any


def preload(*names: str) -> Json:
    """The key."""
    return {"on_startup": {"preload": list(names)}}


async def test_models_are_loaded_at_the_start(tmp_path: Path) -> None:
    """All that fit together, and nobody had to ask; an alias names its model, an unknown name nothing."""
    models = {"a": fake(), "b": fake(aliases=["short"]), "c": fake()}
    async with swap_rig(tmp_path, models, groups=apart("a b c"), hooks=preload("a", "short", "x")) as rig:
        await rig.until_running(a="ready", b="ready")
        assert server(await rig.chat("a")) == "a"
    assert sorted(rig.log.starts()) == ["a", "b"]


async def test_of_models_that_exclude_one_another_the_first_is_loaded(tmp_path: Path) -> None:
    """llama-swap loads each of them, and stops it for the next."""
    async with swap_rig(tmp_path, fakes("a b"), hooks=preload("a", "b")) as rig:
        await rig.until_running(a="ready")
        await rig.chat("a")
    assert rig.log.starts() == ["a"]


async def test_a_preload_that_fails_keeps_nothing_from_working(tmp_path: Path) -> None:
    """The program serves its other models."""
    models = {"a": fake("--exit 1"), "b": fake()}
    async with swap_rig(tmp_path, models, groups=apart("a b"), hooks=preload("a", "b")) as rig:
        await rig.until_running(b="ready")
        assert server(await rig.chat("b")) == "b"


async def test_requests_do_not_wait_for_preloads_of_others(tmp_path: Path) -> None:
    """The port is open and other models serve while one is loaded for ever."""
    models = {"a": fake("--health-503-for 60"), "b": fake()}
    async with swap_rig(tmp_path, models, groups=apart("a b"), hooks=preload("a")) as rig:
        await rig.until_event("listening", "a")
        assert server(await rig.chat("b")) == "b"


async def test_who_comes_during_a_preload_waits_for_it(tmp_path: Path) -> None:
    """And gets its own model then."""
    models = {"a": fake("--health-503-for 0.3"), "b": fake()}
    async with swap_rig(tmp_path, models, hooks=preload("a")) as rig:
        await rig.until_event("listening", "a")
        assert server(await rig.chat("b")) == "b"
    assert not rig.log.overlap("a", "b")
