"""Conversations without a template through the whole line, before the real engine: what a crash costs, and what not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bioproxy.app import App
from support.apps import MS, station
from support.conversation import Conversation, openai_client
from support.http import call
from support.kv_rig import text
from support.leaks import until
from support.real_engine import (
    KEEN,
    conversations_saved,
    crash,
    evaluated,
    idle_saved,
    line,
    llama_server,
    real_engine,
)

Json = Any
pytestmark = real_engine
SYSTEM = text(300, "House rules.")
SLACK = 16  # tokens at a prompt's end that the engine may evaluate again


async def test_a_conversation_survives_the_engine(tmp_path: Path) -> None:
    """Saved when idle; after a kill -9 the next turn finds it."""
    async with llama_server(tmp_path) as engine, line(engine, tmp_path) as app, openai_client(app.proxy_port) as client:
        talk = Conversation(client)
        await talk.say(text(300, "A long story."))
        await conversations_saved(app)
        await crash(engine, app)
        turn = await talk.say("go on")
        assert turn.cached >= talk.turns[0].prompt - SLACK
        assert await evaluated(engine) < 100


async def test_a_restart_is_noticed_at_once(tmp_path: Path) -> None:
    """With the looks at the engine seconds apart: its end is seen, and who asks first after it does not go in cold."""

    def leisurely(app: App) -> None:
        station(app).attachment.interval = 60

    engine = llama_server(tmp_path)
    async with engine, line(engine, tmp_path, adjust=leisurely) as app, openai_client(app.proxy_port) as client:
        talk = Conversation(client)
        await talk.say(text(300, "A long story."))
        await conversations_saved(app)
        await station(app).attachment.look_now()  # so a connection lies idle: it is closed when the engine ends
        await engine.restart()
        assert (await talk.say("go on")).cached >= talk.turns[0].prompt - SLACK


async def test_another_question_finds_the_common_beginning(tmp_path: Path) -> None:
    """kv-rule 19: [system, question 1] is on disk; after a restart [system, question 2] gets the system part back."""
    async with llama_server(tmp_path) as engine, line(engine, tmp_path) as app, openai_client(app.proxy_port) as client:
        first = await Conversation(client, system=SYSTEM).say("What about noise at night?")
        await conversations_saved(app)
        await crash(engine, app)
        second = await Conversation(client, system=SYSTEM).say("And when is the bath free?")
        assert second.cached >= first.prompt - 40
        assert second.evaluated < 60


@pytest.mark.parametrize("flags", [{"no_kv_unified": True}, {"no_cache_idle_slots": True, "kv_unified": True}])
async def test_several_slots_that_keep_what_they_hold(flags: Json, tmp_path: Path) -> None:
    """-np 4: two conversations are saved from their slots, and both come back after a crash."""
    engine = llama_server(tmp_path, parallel=4, ctx_size=16384, **flags)
    async with engine, line(engine, tmp_path) as app, openai_client(app.proxy_port) as client:
        talks = [Conversation(client), Conversation(client)]
        for number, talk in enumerate(talks):
            await talk.say(text(200 + 50 * number, f"Story {number}."))
        await conversations_saved(app, 2)
        await crash(engine, app)
        for talk in talks:
            assert (await talk.say("go on")).cached >= talk.turns[0].prompt - SLACK


async def test_more_conversations_than_slots_survive_the_engine(tmp_path: Path) -> None:
    """Four at once on two slots: what was driven out while others ran is fetched from the engine's memory and saved."""
    engine = llama_server(tmp_path, parallel=2, ctx_size=16384, no_kv_unified=True)
    async with engine, line(engine, tmp_path) as app, openai_client(app.proxy_port) as client:
        talks = [Conversation(client) for _ in range(4)]
        stories = [text(150 + 20 * number, f"Story {number}.") for number in range(4)]
        await asyncio.gather(*(talk.say(story) for talk, story in zip(talks, stories, strict=True)))
        await idle_saved(app)
        assert station(app).keeper.statistics().lost == {}
        await crash(engine, app)
        turns = [await talk.say("go on") for talk in talks]
        assert sum(turn.evaluated for turn in turns) < 100


async def test_slots_that_the_engine_clears_are_told(tmp_path: Path) -> None:
    """-np 4 as llama-server has it by default: the last conversation comes back, and `/status` says what mends it."""
    engine = llama_server(tmp_path, parallel=4, kv_unified=True)
    async with engine, line(engine, tmp_path) as app, openai_client(app.proxy_port) as client:
        talk = Conversation(client)
        for words in (text(200, "A story."), "go on", "and then?"):
            await talk.say(words)
        assert talk.turns[2].cached >= talk.turns[1].prompt - SLACK
        status = (await call(app.admin_port, "GET", "/status")).json()
        assert any("--no-cache-idle-slots" in note for note in status["kv"]["notes"])
        await conversations_saved(app)
        await crash(engine, app)
        assert (await talk.say("and the end?")).cached >= talk.turns[2].prompt - SLACK


async def test_another_model_of_the_same_shape_gets_nothing(tmp_path: Path) -> None:
    """The port is another model's now: no snapshot of the first is restored; it answers as in a cold run."""
    words = text(200, "A story.")
    async with llama_server(tmp_path) as engine, line(engine, tmp_path) as app, openai_client(app.proxy_port) as client:
        talk = Conversation(client)
        await talk.say(words)
        await conversations_saved(app)
        engine.model = llama_server(tmp_path, seed=1).model
        await crash(engine, app)
        turn = await Conversation(client).say(words, tokens=12)
        await idle_saved(app)
        assert (turn.cached, station(app).keeper.statistics().restores) == (0, {})
    async with llama_server(tmp_path / "cold", seed=1) as engine:
        body: Json = {"messages": [{"role": "user", "content": words}], "max_tokens": 12, "temperature": 0}
        cold = (await engine.post("/v1/chat/completions", body)).json()["choices"][0]["message"]["content"]
    assert turn.answer == cold != talk.turns[0].answer


async def test_a_model_that_came_back_gets_its_own(tmp_path: Path) -> None:
    """Away and back again: the first model's snapshots are there still, and are good."""
    async with llama_server(tmp_path) as engine, line(engine, tmp_path) as app, openai_client(app.proxy_port) as client:
        talk, model = Conversation(client), engine.model
        await talk.say(text(200, "A story."))
        await conversations_saved(app)
        for other in (llama_server(tmp_path, seed=1).model, model):
            engine.model = other
            await crash(engine, app)
        assert (await talk.say("go on")).cached >= talk.turns[0].prompt - SLACK
        await until(lambda: station(app).gate.idle)


RULES = "".join(f"Rule {number}: nobody leaves before {number % 24} without a {text(3)}.\n" for number in range(90))
TOOLS = [
    {"type": "function", "function": {"name": f"tool_{number}", "description": text(30, f"Tool {number}")}}
    for number in range(12)
]
OTHER_TOOL = {"type": "function", "function": {"name": "last", "description": "Another tool."}}


def ask(question: str, *, system: str = "", tools: Json = None) -> Json:
    """A chat body of a few tokens' answer."""
    messages = [{"role": role, "content": content} for role, content in (("system", system), ("user", question))]
    body = {"messages": [each for each in messages if each["content"]], "max_tokens": 4, "temperature": 0}
    return body | ({"tools": tools} if tools else {})


CHANGED_LAST = {
    "a line at the end of a system prompt": (
        ask("Hello?", system=f"{RULES}Today is Monday."),
        ask("Hello?", system=f"{RULES}Today is Tuesday, the 3rd."),
    ),
    "the question to a document in the same message": (
        ask(f"{RULES}\nWhat is this about?"),
        ask(f"{RULES}\nAnd who may leave at noon, and why?"),
    ),
    "the last tool": (ask("Hello?", tools=TOOLS), ask("Hello?", tools=[*TOOLS[:-1], OTHER_TOOL])),
}


@pytest.mark.parametrize("case", CHANGED_LAST)
async def test_what_changes_at_the_end_of_a_long_text_is_all_that_is_evaluated(case: str, tmp_path: Path) -> None:
    """After a kill -9, as many tokens as without one; and the text is not written to disk again for what is new."""
    first, second = CHANGED_LAST[case]
    async with llama_server(tmp_path) as engine:
        whole, differs = [(await post(engine.port, body))["timings"]["prompt_n"] for body in (first, second)]
        assert differs < whole / 4
        await engine.restart()
        async with line(engine, tmp_path, kv=KEEN | {"min_seconds": 150 * MS}) as app:
            await post(app.proxy_port, first)
            await conversations_saved(app)
            await crash(engine, app)
            assert (await post(app.proxy_port, second))["timings"]["prompt_n"] <= 1.05 * differs
            await idle_saved(app)
            assert len(station(app).keeper.list()) == 1


async def post(port: int, body: Json) -> Json:
    """The answer to a chat request."""
    headers = {"Content-Type": "application/json"}
    answer = await call(port, "POST", "/v1/chat/completions", body=json.dumps(body).encode(), headers=headers)
    assert answer.status == 200, answer.text
    return answer.json()
