"""A side request beside a long conversation, before real engines: afterwards the conversation is as warm as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fakes.real_engine import needs_real_engine
from support.http import Answer, call
from support.real_swap import AT_STOPS, Talk, evaluated, real, saved, two
from support.requests_of_clients import SIDE
from support.swap_rig import Rig, swap_rig

Json = Any
pytestmark = pytest.mark.real_engine
TITLE = next(sent for sent in SIDE if sent.side == "opencode-title")
PROMPT = " ".join(["omega", "iota", "kappa"] * 22)  # a sixth of the conversation
ALL_AT_ONCE: Json = {"side_wait": 0}


@pytest.fixture(autouse=True)
def real_engine() -> None:
    needs_real_engine()


async def title(rig: Rig, model: str, text: str = PROMPT) -> Answer:
    """A title as opencode asks for it, of a conversation that is as long as `text`."""
    body = TITLE.body | {"model": model, "stream": False, "max_tokens": 4}
    body["messages"] = [*body["messages"][:-1], {"role": "user", "content": text}]
    headers = {**TITLE.headers, "User-Agent": TITLE.agent, "Content-Type": "application/json"}
    return await call(rig.port, "POST", TITLE.path, body=json.dumps(body).encode(), headers=headers)


@pytest.mark.parametrize("flags", ["-np 1", "-np 1 --cache-ram 0"])
async def test_a_conversation_is_warm_after_a_title_and_an_unload(flags: str, tmp_path: Path) -> None:
    """What the title displaces is saved before, whether the engine keeps a copy in memory or not."""
    async with swap_rig(tmp_path, {"a": real(0, flags)}, kv=AT_STOPS, clients=ALL_AT_ONCE) as rig:
        main = Talk(rig, "a")
        await main.cold()
        assert (await title(rig, "a")).status == 200
        await saved(rig, "a")
        await rig.post("/api/models/unload/a")
        await rig.until_running()
        await main.warm()


async def test_after_the_title_the_conversation_is_warm_at_once(tmp_path: Path) -> None:
    """It comes back from the disk without a restart, too, though it is not quite a snapshot yet."""
    async with swap_rig(tmp_path, {"a": real(0, "-np 1 --cache-ram 0")}, kv=AT_STOPS, clients=ALL_AT_ONCE) as rig:
        main = Talk(rig, "a")
        await main.cold()
        for _ in range(2):
            assert (await title(rig, "a")).status == 200
            await main.warm()


async def test_a_titles_own_prompt_is_not_saved(tmp_path: Path) -> None:
    """It does not come again, so it would be written for nothing."""
    async with swap_rig(tmp_path, {"a": real(0)}, kv=AT_STOPS, clients=ALL_AT_ONCE) as rig:
        assert (await title(rig, "a")).status == 200
        await rig.post("/api/models/unload/a")
        await rig.until_running()
        assert (await rig.overview())["a"]["snapshots"] == 0


async def test_a_refused_title_costs_the_engine_nothing(tmp_path: Path) -> None:
    """The engine's own count of evaluated tokens stays."""
    refused = {"side": [{"name": TITLE.side, "side": "refuse"}]}
    async with swap_rig(tmp_path, {"a": real(0)}, kv=AT_STOPS, clients=refused) as rig:
        main = Talk(rig, "a")
        await main.cold()
        before = await evaluated(rig, "a")
        answer = await title(rig, "a")
        assert (answer.status, answer.json()["choices"][0]["message"]["content"]) == (200, "")
        assert await evaluated(rig, "a") == before
        await main.warm()


async def test_another_model_answers_the_title(tmp_path: Path) -> None:
    """Both run, and the conversation's slot is not touched."""
    clients = {"side": [{"name": TITLE.side, "model": "b"}], "side_wait": 0}
    async with swap_rig(tmp_path, two(), groups={}, kv=AT_STOPS, clients=clients) as rig:
        main = Talk(rig, "a")
        await main.cold()
        answer = await title(rig, "a")
        assert answer.status == 200, answer.text
        await main.warm()
