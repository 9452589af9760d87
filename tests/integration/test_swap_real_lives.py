"""Whatever ends the life of a real engine, the next one has its conversations back: by the engine's own `cache_n`."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from fakes.real_engine import needs_real_engine
from support.http import call
from support.real_swap import (
    AT_STOPS,
    ONE,
    WARM,
    WHEN_IDLE,
    Talk,
    model_file,
    process,
    real,
    saved,
    slot_files,
    two,
    words_of,
)
from support.swap_models import fake
from support.swap_rig import swap_rig

pytestmark = pytest.mark.real_engine


@pytest.fixture(autouse=True)
def real_engine() -> None:
    needs_real_engine()


async def test_over_its_ttl(tmp_path: Path) -> None:
    """Unloaded because nobody asked for a second."""
    async with swap_rig(tmp_path, {"a": real(0, ttl=1)}, kv=AT_STOPS) as rig:
        a = Talk(rig, "a")
        await a.cold()
        await rig.until_running()
        await a.warm()


@pytest.mark.parametrize(("method", "target"), [("POST", "/api/models/unload/a"), ("GET", "/unload")])
async def test_over_an_unload(tmp_path: Path, method: str, target: str) -> None:
    """Of this model, and of all."""
    async with swap_rig(tmp_path, two(), kv=AT_STOPS) as rig:
        a = Talk(rig, "a")
        await a.cold()
        assert (await call(rig.port, method, target)).status == 200
        await rig.until_running()
        await a.warm()


async def test_loaded_again_without_a_request(tmp_path: Path) -> None:
    """The conversation that was used last is back before anybody asks."""
    async with swap_rig(tmp_path, {"a": real(0)}, kv=AT_STOPS) as rig:
        first, second = Talk(rig, "a", 1), Talk(rig, "a", 2)
        await first.cold()
        await second.cold()
        await rig.post("/api/models/unload/a")
        await rig.post("/api/models/load/a")

        async def is_back() -> bool:
            return bool((await rig.overview())["a"]["tokens"] > 1000)

        await rig.look(is_back, "the conversation is back")
        await second.warm()
        await first.warm()


@pytest.mark.parametrize("flags", [f"{ONE} -b 512", f"{ONE} --alias other"])
async def test_over_a_reload_that_touches_its_command(tmp_path: Path, flags: str) -> None:
    """Another process with other flags, none of which shapes the cache."""
    async with swap_rig(tmp_path, {"a": real(0)}, kv=AT_STOPS) as rig:
        a = Talk(rig, "a")
        await a.cold()
        before = await process(rig, "a")
        await rig.reload({"a": real(0, flags)}, kv=AT_STOPS)
        await a.warm()
        assert await process(rig, "a") != before


async def test_over_a_reload_that_touches_something_else(tmp_path: Path) -> None:
    """The same process goes on, and nothing is saved for it."""
    async with swap_rig(tmp_path, {"a": real(0)}, kv=AT_STOPS) as rig:
        a = Talk(rig, "a")
        await a.cold()
        before = await process(rig, "a")
        await rig.reload({"a": real(0, aliases=["short"]), "b": real(1)}, kv=AT_STOPS)
        await a.warm()
        assert await process(rig, "a") == before
        assert (await rig.overview())["a"]["snapshots"] == 0


async def test_over_our_own_restart(tmp_path: Path) -> None:
    """Stopped in order: both models, the one that runs and the one that was swapped out before."""
    async with swap_rig(tmp_path, two(), kv=AT_STOPS) as rig:
        a, b = Talk(rig, "a"), Talk(rig, "b")
        await a.cold()
        await b.cold()
        await rig.program.stop()
        await rig.program.start()
        await a.warm()
        await b.warm()


async def test_over_a_kill_of_ours(tmp_path: Path) -> None:
    """What had been idle for kv.save_after is there after kill -9, and no engine of before."""
    async with swap_rig(tmp_path, two(), kv=WHEN_IDLE, child=True) as rig:
        a, b = Talk(rig, "a"), Talk(rig, "b")
        await a.cold()
        await b.cold()
        await saved(rig, "a")
        await saved(rig, "b")
        before = set(rig.children())
        await rig.child.kill()
        await rig.program.start()
        await a.warm()
        await b.warm()
        await rig.until(lambda: not before & set(rig.children()))


async def test_over_a_kill_of_the_engine(tmp_path: Path) -> None:
    """As an out-of-memory killer does it, while nobody uses it: it counts as a bad start, then the next one is warm."""
    async with swap_rig(tmp_path, two(), kv=WHEN_IDLE) as rig:
        a = Talk(rig, "a")
        await a.cold()
        await saved(rig, "a")
        os.kill(await process(rig, "a"), signal.SIGKILL)
        await rig.until_running()
        await rig.post("/api/models/load/a")
        await a.warm()


async def test_over_a_kill_of_the_engine_in_an_answer(tmp_path: Path) -> None:
    """The stream breaks; the next request finds what was saved before it."""
    async with swap_rig(tmp_path, two(), kv=WHEN_IDLE) as rig:
        a = Talk(rig, "a")
        await a.cold()
        await saved(rig, "a")
        async with rig.stream("a", messages=a.messages, max_tokens=100_000, ignore_eos=True) as stream:
            assert await stream.head() == 200
            await stream.event()
            os.kill(await process(rig, "a"), signal.SIGKILL)
            await stream.rest()
        await a.warm()


async def test_other_weights_under_the_same_name_get_nothing(tmp_path: Path) -> None:
    """The file is overwritten between two lives: its cache is not used; with the old file back it is."""
    model, other = tmp_path / "model.gguf", {"other": fake()}
    shutil.copyfile(model_file(0), model)
    async with swap_rig(tmp_path, {"a": {"cmd": words_of(model)}, **other}, kv=AT_STOPS) as rig:
        a = Talk(rig, "a")
        await a.cold()
        await rig.chat("other")
        shutil.copyfile(model_file(1), model)
        anew = await a.say("And the last one?")
        assert anew.cached <= WARM
        await rig.chat("other")
        shutil.copyfile(model_file(0), model)
        back = await a.say("And now?")
        assert back.cached > 1000
        assert len({path.name.split("-")[1] for path in slot_files(rig) if path.suffix == ".kv"}) == 2


async def test_a_file_that_was_overwritten_under_a_running_engine_gets_nothing_of_it(tmp_path: Path) -> None:
    """The engine still computes with the old weights: what it holds then belongs to no file."""
    model, other = tmp_path / "model.gguf", {"other": fake()}
    shutil.copyfile(model_file(0), model)
    async with swap_rig(tmp_path, {"a": {"cmd": words_of(model, f"{ONE} --no-mmap")}, **other}, kv=AT_STOPS) as rig:
        a = Talk(rig, "a")
        await a.cold()
        shutil.copyfile(model_file(1), model)
        await rig.chat("other")
        assert (await a.say("And the last one?")).cached <= WARM
