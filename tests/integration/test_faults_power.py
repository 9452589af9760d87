"""What is left after everything was killed at once, as by a power cut. Kill -9 in a save: test_kv_kill.py."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fakes.fake_engine import FakeEngine
from support.apps import Bioproxy
from support.faults import CHAT, SPEED
from support.http import call
from support.kv_rig import text
from support.leaks import until

Json = Any


def configured(folder: Path, engine: FakeEngine) -> Bioproxy:
    """The program on free ports, with idle saves after some milliseconds."""
    program = Bioproxy(folder / "conf.json")
    kv = "{min_seconds: 1ms, save_after: 10ms, min_free: 0}"
    program.file = folder / "conf.yaml"
    program.file.write_text(
        f"proxy_port: {program.proxy_port}\nadmin_port: {program.admin_port}\nbackend_url: {engine.url}\n"
        f"state_directory: {folder / 'state'}\nkv: {kv}\n"
    )
    return program


async def turn(program: Bioproxy, messages: Json, words: str) -> Json:
    """Say something in a conversation; the engine's `timings` of the answer."""
    messages.append({"role": "user", "content": words})
    answer = await call(program.proxy_port, "POST", CHAT, data={"messages": messages, "max_tokens": 4})
    assert answer.status == 200, answer.text
    messages.append(answer.json()["choices"][0]["message"])
    return answer.json()["timings"]


def ready(status: Json) -> bool:
    """Whether the engine is."""
    return bool(status["engine"]["state"] == "ready")


async def test_a_power_cut_loses_only_what_came_after_the_last_idle_save(tmp_path: Path) -> None:
    """Two turns were saved when nobody asked, the third was not: after the cut the first two are not computed again."""
    async with FakeEngine(slot_folder=tmp_path / "slots", tokens_per_second=SPEED) as engine:
        messages: Json = []
        async with configured(tmp_path, engine) as program:
            await program.until(ready)
            for number in (1, 2):
                await turn(program, messages, text(300, f"turn {number}"))
                at_least = 300 * number
                await program.until(lambda status, n=at_least: any(one["tokens"] > n for one in status["snapshots"]))
            kept = max(one["tokens"] for one in (await program.status())["snapshots"])
            await engine.faults(save_seconds=60)
            await turn(program, messages, text(300, "turn 3"))
            await asyncio.gather(program.kill(), engine.kill())
        await engine.start()
        async with configured(tmp_path, engine) as program:
            await program.until(ready)
            timings = await turn(program, messages, "and then?")
            assert kept - 8 <= timings["cache_n"] <= kept
            assert timings["prompt_n"] > 300
            await program.until(lambda status: [one["tokens"] > kept for one in status["snapshots"]] == [True])
            await until(lambda: not list((tmp_path / "slots").glob("bp-tmp-*")))
        assert await engine.violations() == []
