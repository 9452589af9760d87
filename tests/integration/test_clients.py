"""Clients' rules on the road: who it was, side requests, prompts that are mended; one engine and many models."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from bioproxy.activity import Record
from bioproxy.app import App
from bioproxy.events import RequestEnded
from bioproxy.models.state import State
from fakes.fake_engine import PROGRAM, FakeEngine
from support.apps import engine_ready, running_app, station, write_config
from support.http import Answer, call
from support.requests_of_clients import CLAUDE, MAIN, MESSAGES, SIDE, Sent, chat, claude, user

Json = Any
TITLE = next(sent for sent in SIDE if sent.side == "opencode-title")
MS = 0.001
BILLING = {"name": "claude-code-billing", "mode": "on"}


@asynccontextmanager
async def program(tmp_path: Path, engine: FakeEngine, **clients: Json) -> AsyncIterator[tuple[App, list[Record]]]:
    """One engine with rules, and the records of what was asked."""
    (folder := tmp_path / "app").mkdir()
    async with running_app(folder, backend_url=engine.url, clients=clients) as app:
        records: list[Record] = []
        app.bus.subscribe(RequestEnded, lambda event: records.append(event.record))
        await engine_ready(app)
        yield app, records


async def send(app: App, sent: Sent, **changes: Json) -> Answer:
    """Ask as that client does."""
    headers = {**sent.headers, "User-Agent": sent.agent, "Content-Type": "application/json"}
    body = json.dumps(sent.body | changes).encode()
    return await call(app.proxy_port, "POST", sent.path, body=body, headers=headers)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    async with FakeEngine(slot_folder=tmp_path / "slots") as one:
        yield one


@pytest.mark.parametrize("sent", [*SIDE, *MAIN], ids=lambda sent: f"{sent.app} {sent.side} {sent.path}")
async def test_a_request_says_who_sent_it_and_what_it_is(sent: Sent, tmp_path: Path, engine: FakeEngine) -> None:
    """On the road as in the rules: with each of them, as its client sends it."""
    async with program(tmp_path, engine, side_wait=0) as (app, records):
        answer = await send(app, sent)
        assert answer.status == 200, answer.text
        (record,) = records
    assert (record.app, record.side, record.work) == (sent.app, sent.side, "side" if sent.side else "user")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("sent", SIDE, ids=lambda sent: f"{sent.side} {sent.path}")
async def test_a_side_request_can_be_refused_in_its_clients_form(
    sent: Sent, stream: bool, tmp_path: Path, engine: FakeEngine
) -> None:
    """It is answered with nothing, and the engine never sees it."""
    rules: Json = [{"name": sent.side, "side": "refuse"}, {"name": "mine", "side": "refuse", "first": ["### Task:*"]}]
    async with program(tmp_path, engine, side=rules) as (app, records):
        await engine.forget()
        answer = await send(app, sent, stream=stream)
        assert answer.status == 200
        assert await engine.requests() == []
        assert (records[0].work, records[0].outcome, records[0].gated) == ("side", "ok", False)
        assert app.dispatch.sides[records[0].side].refused == 1
    kind = answer.headers["content-type"]
    ollama = sent.path.startswith("/api/")
    assert kind.startswith(
        "application/x-ndjson" if ollama and stream else "text/event-stream" if stream else "application/json"
    )
    if not stream or ollama:
        assert json.loads(answer.body.split(b"\n")[-2] if ollama and stream else answer.body)


async def test_a_side_request_waits_for_the_next_turn(tmp_path: Path, engine: FakeEngine) -> None:
    """Of its conversation, and goes after it; another turn comes as soon as it did before."""
    main = Sent(agent=TITLE.agent, headers=TITLE.headers, body=chat(*user("hi")))
    async with program(tmp_path, engine, side_wait=600) as (app, records):
        await send(app, main)
        title = aio.spawn(send(app, TITLE), name="title")

        async def steps_aside() -> bool | None:
            return station(app).gate.statistics().aside == 1 or None

        assert await aio.poll(steps_aside, interval=0.005, deadline=30)
        told = (await call(app.admin_port, "GET", "/api/queue")).json()
        await send(app, main)
        assert (await title).status == 200
    assert "lets other requests go first" in json.dumps(told)
    assert [record.side for record in records] == ["", "", "opencode-title"]
    assert "others go before a side request (opencode-title)" in records[2].why or records[2].queue < 0.05
    assert records[2].queue > 0.0


async def test_a_client_that_leaves_while_it_waits_leaves_nothing(tmp_path: Path, engine: FakeEngine) -> None:
    """A side request whose conversation never goes on, and whose client does not wait for it."""
    async with program(tmp_path, engine, side_wait=600) as (app, records):
        await send(app, MAIN[0])
        title = aio.spawn(send(app, TITLE), name="title")

        async def steps_aside() -> bool | None:
            return station(app).gate.statistics().aside == 1 or None

        assert await aio.poll(steps_aside, interval=0.005, deadline=30)
        await aio.finish([title])

        async def gone() -> bool | None:
            return (station(app).gate.statistics().aside == 0 and len(records) == 2) or None

        assert await aio.poll(gone, interval=0.005, deadline=30)
        assert records[1].outcome == "client_left"
        assert (await send(app, MAIN[0])).status == 200


async def test_one_whose_conversation_never_goes_on_runs_when_it_is_quiet(tmp_path: Path, engine: FakeEngine) -> None:
    """After `clients.side_wait`."""
    async with program(tmp_path, engine, side_wait=0.05) as (app, records):
        await send(app, MAIN[0])
        assert (await send(app, TITLE)).status == 200
    assert records[1].queue >= 0.03


async def test_rules_that_are_for_everything_starve_nothing(tmp_path: Path, engine: FakeEngine) -> None:
    """The start says that they are, and all that is asked is answered."""
    async with program(tmp_path, engine, side=[{"name": "all"}], side_wait=600) as (app, records):
        assert [warning for warning in app.loaded.warnings if "is for every request" in str(warning)]
        answers = await asyncio.gather(*(send(app, sent, max_tokens=4) for sent in [*MAIN[:6], *SIDE[:4]]))
        assert {answer.status for answer in answers} == {200}
    assert {record.work for record in records} == {"side"}


async def test_a_prompt_is_mended_on_its_way(tmp_path: Path, engine: FakeEngine) -> None:
    """The engine gets the same prompt whatever the client signs, and the second turn finds it."""
    async with program(tmp_path, engine, stabilize=[BILLING]) as (app, records):
        await engine.forget()
        for number in ("a1b", "7ff"):
            sent = Sent(agent=CLAUDE, path=MESSAGES, body=claude(*user("hi"), number=number))
            assert (await send(app, sent)).status == 200
        bodies = [request.json() for request in await engine.requests(MESSAGES)]
    assert bodies[0] == bodies[1]
    assert "billing" not in json.dumps(bodies)
    assert [record.mended for record in records] == [("claude-code-billing",)] * 2


async def test_observing_changes_nothing_and_counts(tmp_path: Path, engine: FakeEngine) -> None:
    """As it is by default."""
    async with program(tmp_path, engine) as (app, records):
        await engine.forget()
        sent = [Sent(agent=CLAUDE, path=MESSAGES, body=claude(*user("hi"), number=number)) for number in ("a1b", "7ff")]
        for one in sent:
            await send(app, one)
        assert [request.json()["system"] for request in await engine.requests(MESSAGES)] == [
            one.body["system"] for one in sent
        ]
        counts = app.dispatch.memory.counts["claude-code-billing"]
    assert (counts.matched, counts.changed, counts.mended) == (2, 1, 0)
    assert counts.spared > 0
    assert [record.mended for record in records] == [(), ()]


async def test_rules_are_changed_in_the_running_program(tmp_path: Path, engine: FakeEngine) -> None:
    """A reload takes them over."""
    async with program(tmp_path, engine, side_wait=0) as (app, records):
        await send(app, TITLE)
        write_config(tmp_path / "app", backend_url=engine.url, clients={"side": [{"name": TITLE.side, "side": "off"}]})
        await app.reload()
        await send(app, TITLE)
    assert [record.side for record in records] == [TITLE.side, ""]


async def test_another_model_may_answer(tmp_path: Path) -> None:
    """If the key may use it; else the one that was asked for does."""
    rules = [{"name": TITLE.side, "model": "small"}]
    keys = [{"key": "all", "name": "all"}, {"key": "main", "name": "main", "models": ["main"]}]
    (tmp_path / "slots").mkdir()
    command = f"{sys.executable} {PROGRAM} --port ${{PORT}} --slot-save-path {tmp_path / 'slots'}"
    models = {name: {"cmd": command} for name in ("main", "small")}
    async with running_app(tmp_path, models=models, clients={"side": rules, "side_wait": 0}, api_keys=keys) as app:
        records: list[Record] = []
        app.bus.subscribe(RequestEnded, lambda event: records.append(event.record))
        for key in ("all", "main"):
            sent = Sent(
                agent=TITLE.agent, body=TITLE.body | {"model": "main"}, headers={"Authorization": f"Bearer {key}"}
            )
            answer = await send(app, sent)
            assert answer.status == 200, answer.text
        await send(
            app, Sent(agent=TITLE.agent, body=chat(*user("hi"), model="main"), headers={"Authorization": "Bearer all"})
        )
        assert app.dispatch.sides[TITLE.side].rerouted == 1
    assert [record.model for record in records] == ["small", "main", "main"]


async def held(app: App, model: str) -> None:
    """Wait until a side request steps aside at a model."""

    async def steps_aside() -> bool | None:
        return app.fleet.stations[model].gate.statistics().aside == 1 or None

    assert await aio.poll(steps_aside, interval=0.005, deadline=30)


@asynccontextmanager
async def two_models(tmp_path: Path, **clients: Json) -> AsyncIterator[tuple[App, list[Record]]]:
    """Models main and other, of which one runs at a time, and the records of what was asked."""
    (tmp_path / "slots").mkdir()
    command = f"{sys.executable} {PROGRAM} --port ${{PORT}} --slot-save-path {tmp_path / 'slots'}"
    models = {name: {"cmd": command} for name in ("main", "other")}
    async with running_app(tmp_path, models=models, clients=clients, swap={"min_resident": 0}) as app:
        records: list[Record] = []
        app.bus.subscribe(RequestEnded, lambda event: records.append(event.record))
        yield app, records


async def test_one_that_steps_aside_keeps_no_user_from_another_model(tmp_path: Path) -> None:
    """The swap does not wait for it; it is served once somebody else has its model back."""
    main = Sent(agent="x", body=chat(*user("hi"), max_tokens=4), headers=TITLE.headers)
    async with two_models(tmp_path, side_wait=600) as (app, records):
        await send(app, main, model="main")
        title = aio.spawn(send(app, TITLE, model="main", max_tokens=4), name="title")
        await held(app, "main")
        assert (await send(app, main, model="other")).status == 200
        assert not title.done()
        assert (await send(app, main, model="main")).status == 200
        assert (await title).status == 200
    assert [(record.model, record.work) for record in records] == [
        ("main", "user"), ("other", "user"), ("main", "user"), ("main", "side"),
    ]  # fmt: skip


async def test_one_that_steps_aside_does_not_undo_an_unload(tmp_path: Path) -> None:
    """It neither holds the unload up nor has the model loaded again."""
    async with two_models(tmp_path, side_wait=600) as (app, records):
        await send(app, Sent(agent="x", body=chat(*user("hi"), max_tokens=4)), model="main")
        title = aio.spawn(send(app, TITLE, model="main", max_tokens=4), name="title")
        await held(app, "main")
        await app.fleet.unload("main")
        assert not title.done()
        assert app.fleet.supervisor.schedule.state("main") is State.STOPPED
        await aio.finish([title])
    assert records[-1].outcome == "client_left"


async def test_a_model_that_there_is_not_is_told_at_the_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The requests stay with the model that they ask for."""
    async with two_models(tmp_path, side=[{"name": TITLE.side, "model": "gone"}], side_wait=0) as (app, records):
        assert (await send(app, TITLE, model="main", max_tokens=4)).status == 200
    assert [record.model for record in records] == ["main"]
    assert f"the rule {TITLE.side} names the model 'gone', and there is none" in capfd.readouterr().err
