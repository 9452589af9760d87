"""Beside a real llama.cpp: a model with `kv: off`, and an engine that is something else. Nothing is asked of either."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.real_engine import needs_real_engine
from support.real_swap import AT_STOPS, WARM, Talk, process, real
from support.swap_models import fake
from support.swap_rig import swap_rig

pytestmark = pytest.mark.real_engine


@pytest.fixture(autouse=True)
def real_engine() -> None:
    needs_real_engine()


async def test_with_kv_off_nothing_is_added_and_nothing_kept(tmp_path: Path) -> None:
    """It is swapped as llama-swap would do it: its command as it stands, and cold when it comes back."""
    async with swap_rig(tmp_path, {"a": real(0, kv="off"), "b": real(1)}, kv=AT_STOPS) as rig:
        a, b = Talk(rig, "a"), Talk(rig, "b")
        await a.cold()
        words = Path(f"/proc/{await process(rig, 'a')}/cmdline").read_bytes()
        assert b"--slot-save-path" not in words
        await b.cold()
        assert (await rig.overview())["a"]["snapshots"] == 0
        assert (await a.say("And the last one?")).cached <= WARM
        await b.warm()


async def test_another_engine_gets_its_health_check_and_requests(tmp_path: Path) -> None:
    """And in each life one question about what it is, to which it has no answer."""
    models = {"a": real(0), "other": fake()}
    async with swap_rig(tmp_path, models, kv=AT_STOPS) as rig:
        a = Talk(rig, "a")
        await a.cold()
        assert (await rig.post("/upstream/a/slots%2F0?action=erase", {})).status == 400
        assert (await rig.get("/upstream/a/user%2Fdata")).status == 404  # its own word for it
        await rig.chat("other")
        await a.warm()
        await rig.chat("other")
        await a.warm()
    looked = rig.log.of("looked", "other")
    assert rig.log.starts() == ["other", "other"]
    assert [(told.method, told.path) for told in looked] == [("GET", "/props")] * 2
    assert len({told.pid for told in looked}) == 2
    assert [told.path for told in rig.log.of("begin", "other")] == ["/v1/chat/completions"] * 2


async def test_another_engine_with_kv_off_is_asked_nothing(tmp_path: Path) -> None:
    """Not even what it is."""
    models = {"a": real(0), "other": fake(kv="off")}
    async with swap_rig(tmp_path, models, kv=AT_STOPS) as rig:
        a = Talk(rig, "a")
        await a.cold()
        await rig.chat("other")
        await a.warm()
    assert not rig.log.of("looked", "other")
    assert [told.path for told in rig.log.of("begin", "other")] == ["/v1/chat/completions"]


async def test_beside_each_other_without_a_swap(tmp_path: Path) -> None:
    """In a group that does not swap nothing is stopped, and nothing saved for it."""
    group = {"all": {"swap": False, "exclusive": False, "members": ["a", "b"]}}
    async with swap_rig(tmp_path, {"a": real(0), "b": real(1)}, kv=AT_STOPS, groups=group) as rig:
        a, b = Talk(rig, "a"), Talk(rig, "b")
        await a.cold()
        await b.cold()
        await a.warm()
        await b.warm()
        assert await rig.running() == {"a": "ready", "b": "ready"}
        assert all(one["snapshots"] == 0 for one in (await rig.overview()).values())
