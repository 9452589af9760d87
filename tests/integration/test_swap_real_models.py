"""Two models of the real llama.cpp swap, and each comes back with its conversations: by the engine's own `cache_n`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.real_engine import needs_real_engine
from support.real_swap import (
    APART,
    AT_STOPS,
    FOUR,
    ONE,
    Talk,
    model_file,
    real,
    server_script,
    slot_files,
    slot_folder,
    two,
    words_of,
)
from support.swap_models import fake
from support.swap_rig import swap_rig

pytestmark = pytest.mark.real_engine
SLOTS = pytest.mark.parametrize("flags", [ONE, FOUR, APART], ids=["one slot", "four that share", "four apart"])


@pytest.fixture(autouse=True)
def real_engine() -> None:
    needs_real_engine()


@SLOTS
async def test_each_comes_back_warm(tmp_path: Path, flags: str) -> None:
    """There and back, twice: only the new question is computed."""
    async with swap_rig(tmp_path, two(flags), kv=AT_STOPS) as rig:
        a, b = Talk(rig, "a"), Talk(rig, "b")
        await a.cold()
        await b.cold()
        for question in ("And the last one?", "And now?"):
            await a.warm(question)
            await b.warm(question)


@SLOTS
async def test_two_conversations_with_each_model(tmp_path: Path, flags: str) -> None:
    """The one that was resident at the stop and the one that was displaced before: both come from disk."""
    async with swap_rig(tmp_path, two(flags), kv=AT_STOPS) as rig:
        talks = [Talk(rig, model, seed) for model in "ab" for seed in (1, 2)]
        for talk in talks:
            await talk.cold()
        for talk in talks:
            await talk.warm()


async def test_what_comes_back_is_what_was_computed(tmp_path: Path) -> None:
    """The words are those of an engine that was never stopped: a slot file of the other model would be taken, too."""
    stay = {"c": real(0, kv="off"), "d": real(1, kv="off")}
    async with swap_rig(tmp_path, {**two(), **stay}, kv=AT_STOPS) as rig:
        words = {}
        for model, original in (("c", "a"), ("d", "b")):
            never = Talk(rig, model, like=original)
            words[original] = [(await never.cold()).said, (await never.warm()).said]
        talks = [Talk(rig, "a"), Talk(rig, "b")]
        first = [(await talk.cold()).said for talk in talks]
        second = [(await talk.warm()).said for talk in talks]
    assert {talk.model: [*pair] for talk, *pair in zip(talks, first, second, strict=True)} == words


@pytest.mark.parametrize(
    "wrapper",
    [
        "{server} {rest}",
        'sh -c "exec {server} {rest}"',
        'sh -c "{server} {rest}; exit 0"',
        "env COLOUR=red nice -n 1 {server} {rest}",
        "env {python} {rest}",
    ],
    ids=["by its name", "sh exec", "sh and more", "env nice", "env python"],
)
async def test_behind_wrappers(tmp_path: Path, wrapper: str) -> None:
    """The flag is added behind the server's name, wherever in the command that stands."""
    python, _, rest = words_of(model_file(0)).partition(" --model")
    rest = f"--model{rest}"
    cmd = wrapper.format(server=server_script(tmp_path), python=python, rest=rest)
    async with swap_rig(tmp_path, {"a": {"cmd": cmd}, "other": fake()}, kv=AT_STOPS) as rig:
        a = Talk(rig, "a")
        await a.cold()
        await rig.chat("other")
        await a.warm()
        shown = (await rig.overview())["a"]["command"]
    assert shown.count(f"--slot-save-path {slot_folder(rig)}") == 1


async def test_a_folder_of_the_commands_own(tmp_path: Path) -> None:
    """Nothing is added to it, and the snapshots lie there."""
    (tmp_path / "own").mkdir()
    cmd = words_of(model_file(0), f"-np 1 --slot-save-path {tmp_path / 'own'}")
    async with swap_rig(tmp_path, {"a": {"cmd": cmd}, "other": fake()}, kv=AT_STOPS) as rig:
        a = Talk(rig, "a")
        await a.cold()
        await rig.chat("other")
        await a.warm()
    assert list((tmp_path / "own").glob("bp-*.kv"))
    assert not slot_folder(rig).exists()


async def test_nobody_else_can_read_the_slot_files(tmp_path: Path) -> None:
    """They hold what users wrote."""
    async with swap_rig(tmp_path, {**two(), "other": fake()}, kv=AT_STOPS) as rig:
        await Talk(rig, "a").cold()
        await Talk(rig, "b").cold()
        await rig.chat("other")
        await rig.until(lambda: len(list(slot_folder(rig).glob("bp-*.json"))) >= 3)
        modes = {path.name: path.stat().st_mode & 0o777 for path in slot_files(rig)}
        assert slot_folder(rig).stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o600}, modes
