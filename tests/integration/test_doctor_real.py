"""The doctor before the real engine: each cause by construction, and its tokens against the engine's own count."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bioproxy.activity import Cause, Finding, Record
from bioproxy.app import App
from bioproxy.doctor.doctor import RECURRENT
from support.http import call
from support.kv_rig import text
from support.leaks import until
from support.real_engine import crash, line, llama_server, real_engine

Json = Any
pytestmark = real_engine
CONVERSATIONS = 100
QUIET: Json = {"policy": "off", "min_seconds": "1ms"}  # nothing is kept; each miss is worth a question
WAYS = ("grown", "field", "system", "tools", "message", "appended and gone", "changed and gone")


CAUSES: dict[str, Cause] = {
    "grown": "grown", "field": "field_changed", "tools": "tools_changed", "appended and gone": "evicted",
}  # fmt: skip


class Expected(NamedTuple):
    """What a request must be found to be."""

    way: str
    record: str
    causes: tuple[Cause, ...]
    label: str = ""
    at: int = 0


class Client:
    """Sends chats one after the other, and keeps what the engine said of each."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.sent = 0
        self.timings: dict[str, Json] = {}

    async def chat(self, body: Json, *, path: str = "/v1/chat/completions") -> str:
        """One request; its id."""
        self.sent += 1
        name = f"r{self.sent}"
        data = {"max_tokens": 1, "temperature": 0, **body}
        answer = await call(self.app.proxy_port, "POST", path, data=data, headers={"X-Request-Id": name})
        assert answer.status == 200, answer.text
        self.timings[name] = answer.json().get("timings")
        return name

    async def finding(self, body: Json, *, path: str = "/v1/chat/completions") -> tuple[Finding, Record]:
        """What is found about one more request."""
        name = await self.chat(body, path=path)
        record = (await self.findings())[name]
        assert record.finding is not None
        return record.finding, record

    async def findings(self) -> dict[str, Record]:
        """The records by id, when all of them were looked at."""
        await until(lambda: self.app.doctor.requests == self.sent)
        return {record.id: record for record in self.app.records}


def conversation(dice: random.Random, number: int) -> Json:
    """A system message, tools, and some turns, all of their own."""
    turns: list[Json] = [{"role": "system", "content": text(dice.randint(18, 30), f"Rules {number}.")}]
    for turn in range(dice.randint(1, 3)):
        turns.append({"role": "user", "content": text(dice.randint(10, 14), f"Question {number} {turn}.")})
        turns.append({"role": "assistant", "content": text(dice.randint(3, 8), f"Answer {turn}.")})
    turns[-1] = {"role": "user", "content": text(12, f"And {number}?")}
    names = [f"tool_{number}_{place}" for place in range(3)]
    tools = [{"type": "function", "function": {"name": name, "description": text(8, name)}} for name in names]
    return {"messages": turns, "tools": tools}


def goes_on(body: Json, dice: random.Random) -> Json:
    """The same, one turn later."""
    later = copy.deepcopy(body)
    later["messages"] += [
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": text(dice.randint(3, 9))},
    ]
    return later


def with_another_letter(body: Json, place: int, dice: random.Random) -> int:
    """Change one character of a message in its first half; where it stands."""
    content = body["messages"][place]["content"]
    at = dice.randrange(len(content) // 2)
    body["messages"][place]["content"] = f"{content[:at]}#{content[at + 1 :]}"
    return at


async def one(client: Client, way: str, number: int, dice: random.Random) -> Expected:
    """One conversation of two requests, the second of which is what `way` says."""
    body = conversation(dice, number)
    await client.chat(body)
    later = goes_on(body, dice)
    if "gone" in way:
        await client.chat(conversation(dice, 1000 + number))
    if way == "field":
        later = {**body, "top_k": number + 2}
    elif way == "tools":
        later["tools"].reverse()
    elif way == "system":
        at = with_another_letter(later, 0, dice)
        return Expected(way, await client.chat(later), ("system_changed",), "system message", at)
    elif way in {"message", "changed and gone"}:
        at = with_another_letter(later, 1, dice)
        causes: tuple[Cause, ...] = ("message_changed",) if way == "message" else ("message_changed", "evicted")
        return Expected(way, await client.chat(later), causes, "message 1 (user)", at)
    return Expected(way, await client.chat(later), (CAUSES[way],))


def check(expected: Expected, record: Record, timings: Json) -> None:
    """The cause is right, and tokens agree with the engine's `cache_n`."""
    found, cached = record.finding, timings["cache_n"]
    assert found is not None
    assert found.cause in expected.causes, (expected, found)
    if expected.label:
        assert found.place is not None
        assert (found.place.label, found.place.at) == (expected.label, expected.at), (expected, found)
    if expected.way in {"system", "tools", "message"}:
        assert found.exact
        assert abs((found.shared or 0) - cached) <= (expected.way == "tools"), (expected, found, timings)
        assert 0 < found.tokens <= timings["prompt_n"]
    if "gone" in expected.way:
        assert found.exact
        assert found.tokens >= (found.shared or 0) - cached > 0, (expected, found, timings)
    if expected.way in {"grown", "field"}:
        assert found.tokens == 0, (expected, found, timings)


@pytest.mark.timeout(120)
async def test_a_hundred_conversations(tmp_path: Path) -> None:
    """Each cause that a conversation on one slot can have, at random places; right on all of them, to the token."""
    dice = random.Random(11)
    engine = llama_server(tmp_path, cache_ram=0)
    async with engine, line(engine, tmp_path, kv=QUIET) as app:
        client = Client(app)
        expected = [await one(client, dice.choice(WAYS), number, dice) for number in range(CONVERSATIONS)]
        records = await client.findings()
        for each in expected:
            check(each, records[each.record], client.timings[each.record])
        assert {each.way for each in expected} == set(WAYS)


async def test_a_restart_before_anything_was_saved(tmp_path: Path) -> None:
    """The conversation was on no disk, and the reason is told."""
    engine = llama_server(tmp_path, cache_ram=0)
    async with engine, line(engine, tmp_path, kv=QUIET) as app:
        client, body = Client(app), conversation(random.Random(1), 1)
        await client.finding(body)
        await crash(engine, app)
        found, record = await client.finding(goes_on(body, random.Random(2)))
        assert (found.cause, found.note, record.tokens_cached) == ("not_saved", "kv.policy is off", 0)
        assert found.tokens == found.shared


async def test_what_a_recurrent_model_cannot_reuse(tmp_path: Path) -> None:
    """It held nearly all of the prompt, and could go back to a checkpoint only: the family is named."""
    engine = llama_server(tmp_path, shape="mamba", cache_ram=0)
    async with engine, line(engine, tmp_path, kv=QUIET) as app:
        client = Client(app)
        said = text(150, "A story.")
        turns = [{"role": "user", "content": said}, {"role": "assistant", "content": "So."}]
        body = {"messages": [*turns, {"role": "user", "content": text(80, "Well?")}]}
        await client.finding(body)
        later = copy.deepcopy(body)
        later["messages"][2]["content"] = body["messages"][2]["content"].replace("lantern75", "a lamp")
        assert later != body
        found, record = await client.finding(later)
        assert found.exact
        assert (record.tokens_cached or 0) + 64 < (found.shared or 0)
        assert (found.cause, found.note) == ("not_reused", RECURRENT)


@pytest.mark.parametrize(("path", "key"), [("/v1/messages", "system"), ("/v1/responses", "instructions")])
async def test_the_other_dialects_are_right_to_the_token(path: str, key: str, tmp_path: Path) -> None:
    """The engine renders one dialect only; its count of cached tokens agrees all the same."""
    engine, turns = llama_server(tmp_path, cache_ram=0), "input" if "responses" in path else "messages"
    async with engine, line(engine, tmp_path, kv=QUIET) as app:
        client, rules = Client(app), text(150, "Rules.")
        body: Json = {key: rules, turns: [{"role": "user", "content": text(40, "Well?")}]}
        if key == "instructions":
            body["max_output_tokens"] = 2
        await client.finding(body, path=path)
        half = len(rules) // 2
        found, record = await client.finding({**body, key: f"{rules[:half]}#{rules[half + 1 :]}"}, path=path)
        assert found.cause == "system_changed"
        assert found.place is not None
        assert (found.place.at, found.exact, found.shared) == (half, True, record.tokens_cached)
