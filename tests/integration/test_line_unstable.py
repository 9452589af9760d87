"""Conversations whose head changes at each turn, before the real engine: what nobody can use is not written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bioproxy.app import App
from support.apps import station
from support.conversation import Conversation, openai_client
from support.http import call
from support.kv_rig import text
from support.leaks import until
from support.real_engine import crash, idle_saved, line, llama_server, real_engine

Json = Any
pytestmark = real_engine
RULES = "".join(f"Rule {number}: nobody leaves before {number % 24} without a {text(3)}.\n" for number in range(60))
AFTER = "".join(f"Hint {number}: whoever asks gets a {text(3)}.\n" for number in range(40))
TOOLS: Json = [
    {
        "type": "function",
        "function": {"name": f"tool_{number}", "description": text(20), "parameters": {"type": "object"}},
    }
    for number in range(12)
]
SLACK = 16  # tokens at the end of what comes back that the engine may evaluate again
LITTLE = 60  # tokens of a question
LEARNT = 3  # turns, until it is known that the head changes at each


def system(turn: int) -> str:
    """Rules, a line that changes, and more rules."""
    return f"{RULES}It is the {turn}th minute of {text(turn % 7)}.\n{AFTER}"


class Clocked(Conversation):
    """A conversation of a client that writes its clock into the middle of its system message."""

    async def turn(self, app: App, number: int) -> int:
        """The next turn; bytes that were written because of it."""
        before = station(app).keeper.tenant.shelf.today()
        self.messages[0] = {"role": "system", "content": system(number)}
        await self.say(f"What is rule {number}?")
        await settled(app)
        return station(app).keeper.tenant.shelf.today() - before


async def settled(app: App) -> None:
    """Wait until nothing is left to warm or to save."""
    await until(lambda: not {"waiting", "warming"} & {one.state for one in station(app).runner.statistics().targets})
    await idle_saved(app)


@pytest.mark.parametrize("shape", ["tiny", "swa", "mamba"])
async def test_only_the_stable_beginning_is_kept(shape: Any, tmp_path: Path) -> None:
    """After three turns nothing is written any more, and what all turns share comes back after a kill -9."""
    engine = llama_server(tmp_path, shape=shape)
    async with engine, line(engine, tmp_path) as app, openai_client(app.proxy_port) as client:
        talk = Clocked(client, system="-")
        written = [await talk.turn(app, number) for number in range(1, 8)]
        assert all(written[:LEARNT])
        assert not any(written[LEARNT:])
        (kept,) = [one for one in station(app).keeper.list() if one.head]
        assert written[LEARNT - 1] == kept.size < 0.8 * written[0]
        await crash(engine, app)
        assert await talk.turn(app, 9) == 0
        assert talk.turns[-1].cached >= kept.tokens - SLACK
        assert station(app).keeper.statistics().restores == {"ok": 1}
        assert station(app).keeper.statistics().unstable == len(talk.turns) - LEARNT + 1
        await until(lambda: app.doctor.requests == len(talk.turns))
        records = (await call(app.admin_port, "GET", "/requests?limit=9")).json()["requests"]
        notes = [one["finding"]["note"] for one in records if one["finding"]["cause"] == "system_changed"]
        assert sum("only what stands before it is kept on disk" in one for one in notes) >= LEARNT
        (told,) = station(app).heads.statistics().unstable
        assert 0.5 * told.bytes < told.stable < told.bytes


async def test_a_new_session_begins_with_the_stable_beginning(tmp_path: Path) -> None:
    """What was learnt in one conversation holds for the next from its first turn, and what stays is saved again."""
    engine = llama_server(tmp_path)
    async with engine, line(engine, tmp_path) as app, openai_client(app.proxy_port) as client:
        talk = Clocked(client, system="-")
        for number in range(1, 4):
            await talk.turn(app, number)
        other = Clocked(client, system="-")
        assert await other.turn(app, 20) == 0
        await other.say("And what about the same minute?")
        await idle_saved(app)
        assert station(app).keeper.tenant.shelf.today() > sum(one.size for one in station(app).keeper.list()[1:])
        await crash(engine, app)
        assert (await other.say("Go on.")).evaluated < LITTLE


async def test_tools_in_another_order(tmp_path: Path) -> None:
    """What stands before them is kept."""
    engine = llama_server(tmp_path)
    async with engine, line(engine, tmp_path) as app, openai_client(app.proxy_port) as client:
        messages: Json = [{"role": "system", "content": RULES}]
        for turn in range(6):
            messages.append({"role": "user", "content": f"What is rule {turn}?"})
            tools = [TOOLS[(turn * 5 + 3 * number) % len(TOOLS)] for number in range(len(TOOLS))]
            answer = await client.chat.completions.create(model="any", messages=messages, tools=tools, max_tokens=3)
            messages.append({"role": "assistant", "content": answer.choices[0].message.content or "nothing"})
            await settled(app)
        (kept,) = [one for one in station(app).keeper.list() if one.head]
        conversations = [one for one in station(app).keeper.list() if not one.head]
        assert len(conversations) < LEARNT
        assert kept.tokens < conversations[0].tokens
