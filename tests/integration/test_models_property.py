"""Two hundred requests for five models at random, and what must be true of all that happened."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from support.http import Answer
from support.swap_client import message
from support.swap_models import fake
from support.swap_rig import Rig, swap_rig

Json = Any

# a, b and c exclude one another and what is in no group; d and e run beside each other and beside anything else.
GROUPS = {
    "one": {"members": ["a", "b", "c"]},
    "free": {"members": ["d", "e"], "swap": False, "exclusive": False, "persistent": True},
}
MODELS = {
    "a": fake("--health-503-for 0.02"),
    "b": fake("--slow-stop 0.02"),
    "c": fake("--start-delay 0.02"),
    "d": fake("--drop-before-byte 1"),
    "e": fake("--crash-on-request 9"),
}
COUNT, CLIENTS = 200, 8
SETTINGS: Json = {"swap": {"min_resident": 0, "max_wait": 0.2}}


async def client(rig: Rig, chance: random.Random, turns: list[int], answers: list[Answer | None]) -> None:
    """Asks for models at random until there are no more turns; sometimes it does not wait for the answer."""
    while turns:
        number = turns.pop()
        model = chance.choice("aaabbcde")
        await asyncio.sleep(chance.choice([0, 0.02, 0.1]))
        request = rig.chat(model, delay=chance.choice([0, 0, 0.01, 0.05]), stream=chance.random() < 0.4)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(chance.choice([60, 60, 60, 60, 0.05])):
                answers[number] = await request


async def meddle(rig: Rig, chance: random.Random, turns: list[int]) -> None:
    """Unloads models at awkward moments, kills their engines, and has the configuration read again."""
    while turns:
        await asyncio.sleep(chance.random() * 0.4)
        match chance.choice(["unload", "unload", "kill", "reload"]):
            case "unload":
                await rig.post(f"/api/models/unload/{chance.choice('abde')}")
            case "kill":
                alive = [one["pid"] for one in (await rig.overview()).values() if one["pid"]]
                with contextlib.suppress(OSError, IndexError):
                    os.kill(chance.choice(alive), signal.SIGKILL)
            case _:
                await rig.reload(MODELS, groups=GROUPS, **SETTINGS)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1])
async def test_whatever_is_asked_for_when(seed: int, tmp_path: Path) -> None:
    """No two models of an exclusive group at once; every request ends, with a reason if not well; nothing stays."""
    chance = random.Random(seed)
    turns = list(range(COUNT))
    found: list[Answer | None] = [None] * COUNT
    async with swap_rig(tmp_path, MODELS, groups=GROUPS, **SETTINGS) as rig:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client(rig, chance, turns, found))
            group.create_task(meddle(rig, chance, turns))
        await rig.until_waiting(0)
        await rig.get("/unload")
        assert rig.children() == []
    for names in rig.log.together():
        assert len(names & set("abc")) <= 1, names
        assert not any(" " in name for name in names), f"two processes of one model: {names}"
    for answer in found:
        if answer is None:
            continue  # its client had no patience
        if answer.status != 200:
            assert message(answer)
        elif answer.headers["content-type"].startswith("text/event-stream"):
            assert "data: [DONE]" in answer.text or '"error"' in answer.text
    assert sum(answer is not None and answer.status == 200 for answer in found) > COUNT // 3
