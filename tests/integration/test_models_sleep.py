"""Models that sleep instead of being stopped (vLLM's sleep mode), through the whole program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.http import call
from support.swap_client import server
from support.swap_models import fake
from support.swap_rig import Rig, swap_rig

Json = Any


async def asleep(rig: Rig) -> list[str]:
    """The models that are stopped and have a process."""
    return [one["model"] for one in (await call(rig.port + 1, "GET", "/status")).json()["models"] if one["asleep"]]


async def test_a_swap_puts_it_to_sleep(tmp_path: Path) -> None:
    """It makes room and comes back as the same process; a pause, a reload and the end of the program end it."""
    models = {"a": fake("--sleeps", sleep=1), "b": fake()}
    async with swap_rig(tmp_path, models) as rig:
        for name in ("a", "b"):
            assert server(await rig.chat(name)) == name
        assert (await asleep(rig), await rig.running()) == (["a"], {"b": "ready"})
        assert server(await rig.chat("a")) == "a"
        assert (rig.log.starts(), await asleep(rig)) == (["a", "b"], [])
        await rig.chat("b")
        await rig.post("/api/pause", {})
        assert (await asleep(rig), rig.children()) == ([], [])
        await rig.post("/api/resume", {})
        await rig.chat("a")
        await rig.chat("b")
        assert await asleep(rig) == ["a"]
        await rig.reload({**models, "a": fake("--sleeps")})
        assert await asleep(rig) == []
        await rig.reload(models)
        await rig.chat("a")
        await rig.chat("b")
        assert await asleep(rig) == ["a"]
    assert rig.log.starts().count("a") == 3
