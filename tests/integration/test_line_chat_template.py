"""Prompts in which more stands than the client sent, through the whole line: dates, efforts, adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bioproxy.app import App
from bioproxy.embedded.vocabulary import CHAT_TEMPLATE
from bioproxy.kv.chat_template import QUARTER
from fakes.fake_engine import FakeEngine
from support.apps import station
from support.http import call
from support.kv_rig import text
from support.leaks import until
from support.real_engine import (
    conversations_saved,
    crash,
    evaluated,
    idle_saved,
    line,
    llama_server,
    lora_adapter,
    real_engine,
    warmed,
)

Json = Any
CODE = text(300, "You know this code.") + "\nQuestion: <{message}>\n"
STORY = text(300, "A long story.")
FIRST = "{{- '<|im_start|>system\\n%s<|im_end|>\\n' }}\n"
DATED = FIRST % "Today is ' + strftime_now('%%d %%B %%Y') + '.".replace("%%", "%")
EFFORT = FIRST % "Effort: ' + (reasoning_effort or 'some') + '."
EARLIER, LATER = "XXX-14", "XXX+12"  # time zones in which it is never the same day


async def post(app: App, *words: str, **more: Json) -> Json:
    """What a chat with these words took."""
    return (await ask(app, *words, **more))["timings"]


async def ask(app: App, *words: str, **more: Json) -> Json:
    """The answer to a chat of words of the user, of the assistant, of the user and so on."""
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": each} for number, each in enumerate(words)]
    body = {"messages": messages, "max_tokens": 4, "temperature": 0} | more
    answer = await call(app.proxy_port, "POST", "/v1/chat/completions", data=body)
    assert answer.status == 200, answer.text
    return answer.json()


def restores(app: App) -> set[str]:
    """The kinds of restores that there were."""
    return set(station(app).keeper.statistics().restores)


def template(tmp_path: Path, first: str) -> Path:
    """A chat template that begins with `first`, in a file."""
    path = tmp_path / "template.jinja"
    path.write_text(first + CHAT_TEMPLATE)
    return path


async def next_day(engine: FakeEngine, app: App, today: str) -> None:
    """It is another day for the engine, and some time has passed for us."""
    await engine.faults(today=today)
    before = station(app).keeper.tenant.shelf.wall
    station(app).keeper.tenant.shelf.wall = lambda: before() + QUARTER


async def test_at_midnight_a_template_is_warmed_anew(tmp_path: Path) -> None:
    """The first user of the day is warm; yesterday's files are no good and nobody's fault."""
    engine = FakeEngine(slot_folder=tmp_path / "slots", faults={"today": "the 14th"})
    async with engine, line(engine, tmp_path, CODE) as app:
        await warmed(app)
        whole = station(app).runner.statistics().targets[0].total
        assert (await post(app, "@code what is it?"))["cache_n"] >= whole
        await next_day(engine, app, "the 15th")
        station(app).keeper.template.news.set()
        await until(lambda: len({one.day for one in station(app).keeper.list() if one.template}) == 2)
        await warmed(app)
        assert (await post(app, "@code what else is it?"))["cache_n"] >= whole
        assert len({one.day for one in station(app).keeper.list() if one.template}) == 2
        assert [one.unused for one in station(app).keeper.snapshots() if one.unused and one.template] == [
            "written on another day: the chat template prints the date"
        ]
        assert restores(app) <= {"ok", "unused", "displaced"}
        assert not station(app).keeper.statistics().notes


async def test_yesterdays_conversation_is_no_verdict(tmp_path: Path) -> None:
    """The day changes while it is in the slot, on disk, and between our look and the engine's answer."""
    engine = FakeEngine(slot_folder=tmp_path / "slots", faults={"today": "the 14th"})
    async with engine, line(engine, tmp_path) as app:
        for number in range(3):
            await post(app, STORY)
            await conversations_saved(app, number + 1)
            await crash(engine, app)
            if number == 1:
                await engine.faults(today="the 15th, though nobody looked")
            else:
                await next_day(engine, app, f"the {15 + number}th, {number}")
            found = await post(app, STORY, "so", "go on")
            assert found["prompt_n"] > 300
            await station(app).keeper.template.look_again()
        assert {"displaced"} <= restores(app) <= {"displaced", "unused"}
        assert not any(one.quarantined for one in station(app).keeper.list())
        assert station(app).keeper.decisions.restoring
        assert not station(app).keeper.statistics().notes


@real_engine
async def test_a_date_in_the_chat_template_belongs_to_the_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On llama.cpp: what was saved today comes back today, and on another day it is evaluated and saved anew."""
    engine = llama_server(tmp_path, chat_template_file=str(template(tmp_path, DATED)))
    monkeypatch.setenv("TZ", EARLIER)
    async with engine, line(engine, tmp_path, CODE) as app:
        await warmed(app)
        whole = station(app).runner.statistics().targets[0].total
        await crash(engine, app)
        assert (await post(app, "@code what is it?"))["cache_n"] >= whole
        monkeypatch.setenv("TZ", LATER)
        await crash(engine, app)
        await warmed(app)
        whole = station(app).runner.statistics().targets[0].total  # `01 December` is a token longer than `30 November`
        assert await evaluated(engine) >= whole > 1000
        assert (await post(app, "@code what is it?"))["cache_n"] >= whole
        assert "worthless" not in restores(app)
        assert not any(one.quarantined for one in station(app).keeper.list())


async def test_a_field_that_changes_no_prompt_brings_nothing_old_back(tmp_path: Path) -> None:
    """A client that sends `tool_choice` with some turns and not with others: the slot is ahead of the snapshot."""
    engine = FakeEngine(slot_folder=tmp_path / "slots")
    async with engine, line(engine, tmp_path) as app:
        await post(app, STORY)
        await conversations_saved(app)
        talk = [STORY, "so", text(300, "More of it.")]
        for field in ({"tool_choice": "auto"}, {}, {"tool_choice": "auto", "parallel_tool_calls": True}, {"new": [1]}):
            before = await post(app, *talk, **field)
            talk += ["so", "go on"]
        assert before["prompt_n"] < 50
        assert restores(app) == set()


@real_engine
async def test_a_field_that_the_chat_template_prints_makes_another_prompt(tmp_path: Path) -> None:
    """On llama.cpp: the effort stands at the beginning, and what was thought with another one is no use."""
    engine = llama_server(tmp_path, chat_template_file=str(template(tmp_path, EFFORT)))
    async with engine, line(engine, tmp_path) as app:
        known = station(app).keeper.tenant.knowledge.fields
        await post(app, STORY, reasoning_effort="high", tool_choice="auto", reasoning={"effort": "low"})
        await until(lambda: len(known) == 3)
        assert {name for name, field in known.items() if field.prints} == {"reasoning_effort"}
        await post(app, STORY, "so", "go on", reasoning_effort="high")
        await conversations_saved(app)
        await crash(engine, app)
        assert (await post(app, STORY, "so", "and now?", reasoning_effort="low"))["cache_n"] < 50
        await crash(engine, app)
        assert (await post(app, STORY, "so", "and now?", reasoning_effort="high"))["prompt_n"] < 50
        assert {"ok"} <= restores(app) <= {"ok", "unused"}


OTHER: Json = [{"id": 0, "scale": 0.0}]  # without the adapter that is on


@real_engine
async def test_what_was_computed_with_other_lora_scales_is_never_saved(tmp_path: Path) -> None:
    """llama.cpp gives a request without `lora` what another one left; it must not outlive the process."""
    engine = llama_server(tmp_path, lora=lora_adapter(tmp_path / "lora.gguf"))
    async with engine, line(engine, tmp_path) as app:
        cold = (await ask(app, STORY, cache_prompt=False))["choices"]
        await post(app, STORY, lora=OTHER)
        await conversations_saved(app)
        mixed = await ask(app, STORY)
        assert mixed["timings"]["cache_n"] > 300  # the engine's own fault, on which the rest of this stands
        assert mixed["choices"] != cold
        await post(app, STORY, "so", text(100, "go on"))
        await post(app, text(300, "Another story."))
        await post(app, STORY, "so", text(200, "go on and on"))
        await idle_saved(app)
        assert [one.lora for one in station(app).keeper.list()] == [b"[[0,0.0]]"]
        await crash(engine, app)
        again = await ask(app, STORY)
        assert (again["timings"]["cache_n"], again["choices"]) == (0, cold)


@real_engine
async def test_lora_scales_of_requests_are_no_verdict_on_snapshots(tmp_path: Path) -> None:
    """The engine empties a slot for other scales: what was restored there would be gone, and is not missed."""
    engine = llama_server(tmp_path, lora=lora_adapter(tmp_path / "lora.gguf"))
    async with engine, line(engine, tmp_path) as app:
        for scale in (0.0, 0.25, 0.5):
            scales: Json = [{"id": 0, "scale": scale}]
            await post(app, STORY, lora=scales)
            await idle_saved(app)
            await crash(engine, app)
            assert (await post(app, STORY, "so", "go on", lora=scales))["cache_n"] == 0
            assert (await post(app, STORY, "so", "go on", "so", "and?", lora=scales))["prompt_n"] < 50
        assert restores(app) <= {"unused", "displaced"}
        assert station(app).keeper.decisions.restoring
        assert not any(one.quarantined for one in station(app).keeper.list())
        assert not station(app).keeper.statistics().notes
        await crash(engine, app)
        await post(app, STORY, lora=[{"id": 0, "scale": 1.0}])  # what the engine has anyway
        await conversations_saved(app)
