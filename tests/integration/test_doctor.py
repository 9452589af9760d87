"""The doctor on the whole road, before the fake engine: who sees what, and what comes from outside."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy.activity import Finding
from bioproxy.app import App
from bioproxy.doctor import doctor as module
from bioproxy.doctor.doctor import NO_CACHE, NO_PROMPT
from fakes.fake_engine import PROGRAM, FakeEngine
from support.apps import running_app
from support.http import Answer, call
from support.kv_rig import text
from support.leaks import until
from support.real_engine import crash, line

Json = Any
RULES = text(200, "Rules. Today is Monday.")
CHAT = "/v1/chat/completions"
KEYS = [
    {"key": "ka", "name": "anna", "group": "one"},
    {"key": "kb", "name": "bert", "group": "two"},
    {"key": "kc", "name": "carl", "group": "one"},
]


class Rig:
    """A program before a fake engine that remembers one prompt and keeps nothing on disk, and what was asked of it."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.doctor = app.doctor
        self.seen = 0  # requests that the doctor must look at

    async def ask(self, data: Json, *, path: str = CHAT, **headers: str) -> Answer:
        """One request, which the doctor looks at; an underscore in a header's name is a dash."""
        self.seen += 1
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await call(self.app.proxy_port, "POST", path, data=data, headers=named)
        assert answer.status == 200, answer.text
        return answer

    async def finding(self) -> Finding:
        """What was found about the last request, when all were looked at."""
        await until(lambda: self.doctor.requests == self.seen and not self.doctor.cases)
        finding = self.app.records[-1].finding
        assert finding is not None
        return finding

    async def found(self, *data: Json, **headers: str) -> Finding:
        """What was found about the last of these requests."""
        for one in data:
            await self.ask(one, **headers)
        return await self.finding()


@asynccontextmanager
async def rigged(folder: Path, *, engine: FakeEngine | None = None, **values: Json) -> AsyncIterator[Rig]:
    engine = engine or FakeEngine(cache_ram=0)
    async with engine, line(engine, folder, **{"kv": {"policy": "off"}, **values}) as app:
        yield Rig(app)


def body(*said: str, system: Json = RULES, **more: Json) -> Json:
    """A conversation in which user and assistant take turns."""
    roles = ("user", "assistant")
    turns = [{"role": roles[number % 2], "content": content} for number, content in enumerate(said)]
    return {"messages": [{"role": "system", "content": system}, *turns], "max_tokens": 2, **more}


async def test_a_changed_system_message_is_told(tmp_path: Path) -> None:
    """In the record, its sentence (without words of the prompt), the totals and the metrics."""
    async with rigged(tmp_path) as rig:
        finding = await rig.found(body("hello"), body("hello", "hi", "why?", system=RULES.replace("Mon", "Fri")))
        assert finding.cause == "system_changed"
        assert finding.place is not None
        assert (finding.place.same, finding.place.now[:6]) == ("es. Today is ", "Friday") or finding.place.now[
            :3
        ] == "Fri"
        answer = (await call(rig.app.admin_port, "GET", "/requests")).json()["requests"][0]
        assert answer["finding"]["cause"] == "system_changed"
        assert "because the system message changed at character 16" in answer["why"]
        assert "Fri" not in answer["why"]
        report = (await call(rig.app.admin_port, "GET", "/api/doctor")).json()
        assert report["doctor"]["requests"] == 2
        assert {row["cause"]: row["misses"] for row in report["totals"]} == {"system_changed": 1, "first_time": 1}
        page = (await call(rig.app.admin_port, "GET", "/metrics")).text
        assert 'bioproxy_prompt_misses_total{cause="system_changed"} 1.0' in page
        assert 'bioproxy_prompt_miss_seconds_total{cause="system_changed"}' in page


async def test_who_drove_a_conversation_out_is_named(tmp_path: Path) -> None:
    """One of one's own by the client; what belongs to another group is another key's."""
    async with rigged(tmp_path, api_keys=KEYS) as rig:
        await rig.ask(body(text(200, "A story.")), X_Api_Key="ka")
        await rig.ask(body(text(200, "Another story.")), X_Api_Key="kb")
        finding = await rig.found(body(text(200, "A story."), "so", "go on"), X_Api_Key="ka")
        assert (finding.cause, finding.by) == ("evicted", "another key")
        assert finding.tokens >= 200
        await rig.ask(body(text(200, "A third story.")), X_Api_Key="kc")
        finding = await rig.found(body(text(200, "A story."), "so", "go on", "well", "go on"), X_Api_Key="ka")
        assert (finding.cause, finding.by) == ("evicted", "carl")


async def test_another_groups_conversation_is_a_new_one(tmp_path: Path) -> None:
    """Its key learns nothing; the operator sees in the totals that two groups share a conversation."""
    async with rigged(tmp_path, api_keys=KEYS) as rig:
        await rig.ask(body(text(200, "A story.")), X_Api_Key="ka")
        await rig.ask(body(text(200, "Another story."), system="Other rules."), X_Api_Key="ka")
        finding = await rig.found(body(text(200, "A story."), "so", "go on"), X_Api_Key="kb")
        assert finding == Finding(cause="first_time")
        assert [row.client for row in rig.doctor.totals.worst() if row.cause == "group_changed"] == ["bert"]
        finding = await rig.found(body(text(200, "A story."), "so", "go on"), X_Api_Key="kc")
        assert finding.cause == "grown"


async def test_what_must_not_be_kept_is_not_seen(tmp_path: Path) -> None:
    """`Cache-Control: no-store`, and requests that only count."""
    async with rigged(tmp_path) as rig:
        await rig.ask(body("secret"), Cache_Control="no-store")
        await rig.ask(body("secret"), path="/v1/messages/count_tokens")
        rig.seen = 0
        assert (await rig.found(body("secret", "so", "go on"))).cause == "first_time"
        assert rig.doctor.statistics().prompts == 1


async def test_a_restart_before_a_save(tmp_path: Path) -> None:
    """The engine's process is another one, and nothing was on disk: it says why nothing is saved."""
    engine = FakeEngine(cache_ram=0)
    async with rigged(tmp_path, engine=engine) as rig:
        await rig.found(body(text(200, "A story.")))
        await crash(engine, rig.app)
        finding = await rig.found(body(text(200, "A story."), "so", "go on"))
        assert (finding.cause, finding.note) == ("not_saved", "kv.policy is off")


async def test_a_swap_before_a_save(tmp_path: Path) -> None:
    """Of many models: the model made way for another one, and came back without its cache."""
    (tmp_path / "slots").mkdir()
    command = f"{sys.executable} {PROGRAM} --port ${{PORT}} --cache-ram 0 --slot-save-path {tmp_path / 'slots'}"
    models = {name: {"cmd": command} for name in ("a", "b")}
    known: Json = {"models": models, "kv": {"policy": "off"}, "swap": {"min_resident": 0}}
    async with running_app(tmp_path, **known) as app:
        rig = Rig(app)
        await rig.ask(body(text(200, "A story."), model="a"))
        await rig.ask(body("hello", model="b"))
        finding = await rig.found(body(text(200, "A story."), "so", "go on", model="a"))
        assert (finding.cause, finding.note) == ("not_saved", "kv.policy is off")
        finding = await rig.found(body(text(200, "A story."), "so", "go on", model="b"))
        assert (finding.cause, finding.note) == ("model_changed", "the earlier one went to a")


async def test_what_cannot_be_compared_says_so(tmp_path: Path) -> None:
    """With the reason; it is kept for no comparison."""
    async with rigged(tmp_path) as rig:
        finding = await rig.found(body("hello", cache_prompt=False))
        assert finding == Finding(cause="not_comparable", note=NO_CACHE)
        await rig.ask({"prompt": ["one", "two"], "n_predict": 1}, path="/completion")
        assert await rig.finding() == Finding(cause="not_comparable", note=NO_PROMPT)
        assert rig.doctor.statistics().prompts == 0


async def test_an_edited_template(tmp_path: Path) -> None:
    """The client's words are the same, the text behind its prefix is not."""
    path = tmp_path / "code.txt"
    path.write_text(text(200, "The old text.") + "<{message}>")
    quiet = {"enabled": False, "settle": 0}
    async with rigged(tmp_path, prefixes={"@code": str(path)}, warmup=quiet) as rig:
        await rig.ask(body("@code why?"))
        path.write_text(text(200, "The new text.") + "<{message}>")
        await rig.app.catalogue.check()
        finding = await rig.found(body("@code why?"))
        assert (finding.cause, finding.note) == ("template_edited", "template @code")
        assert finding.place is not None
        assert (finding.place.at, finding.place.now[:3]) == (4, "new")


@pytest.mark.parametrize("session", ["", "s1"])
async def test_two_conversations_of_one_session(tmp_path: Path, session: str) -> None:
    """An agent and its helper send the same header: what they say tells them apart."""
    headers = {"X_Session_ID": session} if session else {}
    async with rigged(tmp_path) as rig:
        one, other = text(100, "Build it."), text(100, "Find the file.")
        await rig.found(body(one), body(other), **headers)
        finding = await rig.found(body(one, "done", "test it"), **headers)
        assert finding.cause == "evicted"
        assert (await rig.found(body(other, "found", "read it"), **headers)).cause == "evicted"


async def test_large_bodies_are_compared_in_a_thread(tmp_path: Path) -> None:
    """With a change in the middle of a message."""
    async with rigged(tmp_path, engine=FakeEngine(cache_ram=0, ctx_size=20_000_000)) as rig:
        large = "0123456789 words\n" * 40_000
        half = len(large) // 2
        later = body(f"{large[:half]}#{large[half:]}", "so", "go on")
        finding = await rig.found(body(large, "so", "go on"), later)
        assert finding.cause == "message_changed"
        assert finding.place is not None
        assert finding.place.at == half
        assert rig.doctor.statistics().bytes <= rig.app.settings.config.doctor.memory


async def test_a_large_prompt_is_looked_at_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are wanted for the next request's; small ones wait until answers are out."""
    monkeypatch.setattr(module, "REST", 3600.0)
    async with rigged(tmp_path, engine=FakeEngine(cache_ram=0, ctx_size=20_000_000)) as rig:
        await rig.ask(body("small"))
        assert len(rig.doctor.cases) == 1
        assert (await rig.found(body("0123456789 words\n" * 5_000))).cause == "first_time"


async def test_a_prompt_that_was_forgotten_is_a_new_one(tmp_path: Path) -> None:
    """There is not memory for two of them."""
    async with rigged(tmp_path, doctor={"memory": "64KiB"}) as rig:
        story = text(3000, "A story.")
        await rig.found(body(story), body(text(3000, "Another story.")))
        assert (await rig.found(body(story, "so", "go on"))).cause == "first_time"
        assert rig.doctor.statistics().bytes <= 64 << 10


async def test_pictures_are_compared_by_what_they_are(tmp_path: Path) -> None:
    """A part that is no text counts; a `cache_control` mark that moves does not."""

    def look(name: str, **mark: Json) -> Json:
        picture = {"type": "image_url", "image_url": {"url": f"https://example.org/{name}.png"}, **mark}
        return [{"type": "text", "text": text(100, "Look.")}, picture]

    async with rigged(tmp_path) as rig:
        marked = {"cache_control": {"type": "ephemeral"}}
        one = body("x")
        one["messages"][1]["content"] = look("cat", **marked)
        other = body("x", "a cat", "and now?")
        other["messages"][1]["content"] = look("cat")
        third = body("x", "a cat", "and now?")
        third["messages"][1]["content"] = look("dog")
        assert (await rig.found(one, other)).cause == "grown"
        finding = await rig.found(third)
        assert finding.cause == "message_changed"
        assert finding.place is not None
        assert finding.place.path == "content[1].image_url.url"


async def test_a_request_is_found_by_its_answers_id(tmp_path: Path) -> None:
    """At once, looked at or not; streamed or not; of its own group only."""
    async with rigged(tmp_path, api_keys=KEYS) as rig:
        answer = (await rig.ask(body("a"), X_Api_Key="ka", X_Request_Id="mine")).json()
        for identity in ("mine", answer["id"]):
            kept = rig.doctor.find("one", identity)
            assert kept is not None
            assert kept.prompt.pieces[-1].data.startswith(b"user\xffa\xff")
            assert rig.doctor.find("two", identity) is None
        await rig.finding()
        stream = await rig.ask(body("a", "b", "c", stream=True), X_Api_Key="kc")
        identity = stream.text.partition('"id":')[2].split('"')[1]
        assert rig.doctor.find("one", identity) is not None
        await rig.finding()
        assert rig.doctor.find("one", identity) is not None
        assert rig.doctor.find("one", answer["id"]) is not None
