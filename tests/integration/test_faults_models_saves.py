"""A save before a swap that fails or hangs: whoever waits for the other model waits no longer than the limit."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from support.apps import MS
from support.http import call
from support.kv_rig import text
from support.swap_models import fakes
from support.swap_rig import Rig, swap_rig

Json = Any
LLAMA = Path(__file__).parents[1] / "fakes" / "llama_server.py"
KV: Json = {"min_seconds": 1 * MS, "min_free": 0, "save_after": "1h", "save_timeout": 0.5}
LONG: Json = {"messages": [{"role": "user", "content": text(500, "long")}], "max_tokens": 4}


def llama(folder: Path) -> Json:
    """The fake llama-server with a slot folder."""
    slots = folder / "slots"
    slots.mkdir(exist_ok=True)
    words = [sys.executable, str(LLAMA), "--slot-save-path", str(slots), "--tokens-per-second", "3000"]
    return {"cmd": f"{shlex.join(words)} --port ${{PORT}}", "unloadTimeout": 2}


async def faults(rig: Rig, **change: Json) -> None:
    """Switch faults of the engine of `a`, which has the first port."""
    answer = await call(rig.ports.models, "POST", "/fake/faults", data=change)
    assert answer.status == 200, answer.text


async def state(rig: Rig) -> Json:
    """What the engine of `a` holds."""
    return (await call(rig.ports.models, "GET", "/fake/state")).json()


@pytest.mark.parametrize(
    "fault",
    [
        {"save": "full"},
        {"save": "short"},
        {"save_seconds": 60},
        {"die": "save"},
        {"answer": "hang", "paths": ["/slots/0"]},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
async def test_a_swap_goes_on_without_the_save(fault: Json, tmp_path: Path) -> None:
    """And the model that could not be saved comes back, cold."""
    async with swap_rig(tmp_path, {"a": llama(tmp_path), **fakes("b")}, kv=KV) as rig:
        assert (await rig.chat("a", **LONG)).status == 200
        await faults(rig, **fault)
        answer = await asyncio.wait_for(rig.chat("b"), 15)  # one that hangs is given up after four seconds
        assert answer.status == 200, answer.text
        again = await rig.chat("a", **LONG)
        assert again.status == 200, again.text
        assert again.json()["timings"]["cache_n"] < 100
        assert not (await state(rig))["violations"]


async def test_a_slot_folder_that_is_gone(tmp_path: Path) -> None:
    """Taken away while the engine ran; it is a file now."""
    async with swap_rig(tmp_path, {"a": llama(tmp_path), **fakes("b")}, kv=KV) as rig:
        assert (await rig.chat("a", **LONG)).status == 200
        shutil.rmtree(tmp_path / "slots")
        (tmp_path / "slots").write_text("")
        assert (await asyncio.wait_for(rig.chat("b"), 15)).status == 200
        (tmp_path / "slots").unlink()
        (tmp_path / "slots").mkdir()
        assert (await rig.chat("a", **LONG)).status == 200


async def test_an_unload_of_an_engine_that_hangs_in_a_save(tmp_path: Path) -> None:
    """It is stopped after the limit, and nothing of it is left."""
    async with swap_rig(tmp_path, {"a": llama(tmp_path)}, kv=KV) as rig:
        assert (await rig.chat("a", **LONG)).status == 200
        await faults(rig, save_seconds=60)
        assert (await asyncio.wait_for(rig.post("/api/models/unload/a"), 15)).status == 200
        assert rig.children() == []


async def test_the_end_of_the_program_while_a_save_hangs(tmp_path: Path) -> None:
    """It ends all the same, with 0."""
    async with swap_rig(tmp_path, {"a": llama(tmp_path), **fakes("b")}, kv=KV, child=True) as rig:
        assert (await rig.chat("a", **LONG)).status == 200
        await faults(rig, save_seconds=60)
        rig.ask("b")
        await rig.until_running(a="stopping")
        assert await asyncio.wait_for(rig.program.stop(), 15) == 0
