"""An engine that is no llama-server: what holds for slots does not hold it up."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bioproxy.kv.attaching import UNEMPTIED
from support.http import call
from support.swap_models import fakes
from support.swap_rig import swap_rig


async def test_a_slot_action_after_a_client_left(tmp_path: Path) -> None:
    """Nobody can see whether such an engine is idle, so nobody waits for it: it says itself that it has no slots."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        held = await rig.ask_held("a")
        held.cancel()
        await asyncio.wait([held])
        await rig.release("a")
        async with asyncio.timeout(30):
            answer = await rig.post("/slots/0?action=save", {"model": "a", "filename": "x"})
        assert answer.status in {200, 404}


async def test_strict_isolation_does_not_keep_it_from_answering(tmp_path: Path) -> None:
    """It has no slots that could be emptied; for the models that have some the key holds."""
    async with swap_rig(tmp_path, fakes("a"), kv={"isolate": "strict"}) as rig:
        assert [(await rig.chat("a")).status for _ in range(2)] == [200, 200]
        (model,) = (await call(rig.ports.admin, "GET", "/status")).json()["models"]
        assert model["kv"]["notes"] == [UNEMPTIED]
        await rig.until(lambda: rig.said(f"a: {UNEMPTIED}"))
