"""`GET /api/queue`: what each request waits for, its place, how long still; to the admin all, to a key its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bioproxy import aio
from bioproxy.app import App
from bioproxy.front.exchange import Exchange
from bioproxy.front.later import Nowhere
from bioproxy.front.routes import OTHER_GRANT
from bioproxy.models.claim import Claim
from bioproxy.models.only import ENGINE
from bioproxy.wire.http1.message import Request, Responder
from fakes.fake_engine import FakeEngine
from support.apps import MS
from support.faults import CHAT, ask, good, sent, tried
from support.http import call
from support.leaks import owned, until
from support.swap_models import fakes
from support.swap_rig import Rig, swap_rig

Json = Any
ANN = {"Authorization": "Bearer ann-key"}


async def queue(app: App) -> Json:
    """What the admin port shows."""
    return (await call(app.admin_port, "GET", "/api/queue")).json()


async def shown(rig: Rig, key: str) -> Json:
    """What the proxy port shows to a key."""
    return (await call(rig.port, "GET", "/api/queue", headers={"Authorization": f"Bearer {key}"})).json()


async def test_a_queue_for_one_slot(tmp_path: Path) -> None:
    """Who is answered, who is next and for how long: the estimate knows how long the answer may be."""
    async with FakeEngine(decode_rate=100) as fake, tried(fake, tmp_path) as app:
        await good(app, "first", max_tokens=20)  # what its answers teach
        async with sent(app, data=ask(tokens=400, stream=True)) as reader:
            await reader.readuntil(b"data: ")
            tasks = [aio.spawn(good(app, f"later {n}", max_tokens=10), name="waits") for n in range(2)]
            await until(lambda: owned(app)["waiters"] == 2)
            found = await queue(app)
            for task in tasks:
                task.cancel()
    first, *waiting = found["requests"]
    assert found["waiting"] == 2
    assert (first["standing"]["stage"], first["path"]) == ("answer", CHAT)
    assert [one["standing"]["place"] for one in waiting] == [1, 2]
    assert {one["standing"]["reason"] for one in waiting} == {"waits for the one slot of fake.gguf"}
    left = [one["standing"]["left"] for one in waiting]
    assert 0 < left[0] < left[1] < 60  # of the engine's 100 tokens a second, learnt from twenty


async def test_what_waits_for_another_request_of_its_key_says_so(tmp_path: Path) -> None:
    """And goes at once when a reload lets the key run more."""
    keys = [{"key": "ann-key", "name": "ann", "max_running": 1}]
    async with (
        FakeEngine(decode_rate=100, parallel=2) as fake,
        tried(fake, tmp_path, api_keys=keys, admin_key="ours") as app,
        sent(app, data=ask("first", tokens=2000, stream=True), headers=ANN) as first,
    ):
        await first.readuntil(b"data: ")
        async with sent(app, data=ask("second", tokens=2000, stream=True), headers=ANN) as second:
            await until(lambda: owned(app)["waiters"] == 1)
            shown = await call(app.admin_port, "GET", "/api/queue", headers={"Authorization": "Bearer ours"})
            reasons = [one["standing"]["reason"] for one in shown.json()["requests"]]
            assert reasons == ["is being answered", "waits for another request of its key to end (max_running)"]
            app.fleet.bind({"ann": 2})
            await second.readuntil(b"data: ")


async def test_a_stream_is_told(tmp_path: Path) -> None:
    """The same in the comments of a stream that waits."""
    async with (
        FakeEngine(decode_rate=100) as fake,
        tried(fake, tmp_path, stream_keepalive=20 * MS) as app,
        sent(app, data=ask(tokens=2000, stream=True)) as first,
    ):
        await first.readuntil(b"data: ")
        async with sent(app, data=ask("waits", stream=True)) as reader:
            line = await reader.readuntil(b"s\n\n")
    assert b": bioproxy keeps this open: place 1, waits for the one slot of " in line


async def test_an_answer_in_one_piece(tmp_path: Path) -> None:
    """Nobody sees where it begins, so it is not said that the prompt is read all the time."""
    async with FakeEngine(decode_rate=100) as fake, tried(fake, tmp_path) as app:
        for stream in (False, True):
            task = aio.spawn(good(app, max_tokens=2000, stream=stream), name="runs")
            await until(lambda: owned(app)["grants"] == 1)
            (found,) = (await queue(app))["requests"]
            assert ("in one piece" in found["standing"]["reason"]) is not stream
            await aio.finish([task])
            await until(lambda: owned(app)["grants"] == 0)


async def test_how_far_a_prompt_is(tmp_path: Path) -> None:
    """llama-server tells it by its slots; its client did not ask for it, and gets none of it."""
    async with FakeEngine(tokens_per_second=500, batch_size=50) as fake, tried(fake, tmp_path) as app:
        await good(app, "teaches how long prompts are")
        task = aio.spawn(good(app, "word " * 3000, stream=True), name="long")
        read: list[Json] = []

        async def look() -> bool | None:
            read.extend(one["standing"] for one in (await queue(app))["requests"] if one["standing"]["read"])
            return bool(read) or None

        assert await aio.poll(look, interval=0.05, deadline=30)
        answer = await task
    assert "prompt_progress" not in answer.text
    assert read[0]["stage"] == "prompt"
    assert "tokens" in read[0]["reason"]
    assert read[0]["left"] > 0


async def test_each_key_sees_its_own(tmp_path: Path) -> None:
    """With its place among all; the admin sees everybody's."""
    keys = [{"key": "sk-ann", "name": "ann"}, {"key": "sk-bob", "name": "bob"}]
    async with swap_rig(tmp_path, fakes("a b"), api_keys=keys, admin_key="boss", swap={"min_resident": 0}) as rig:
        held = await rig.ask_held("a", headers={"Authorization": "Bearer sk-ann"})
        tasks = [rig.ask("b", headers={"Authorization": f"Bearer sk-{name}"}) for name in ("ann", "bob")]
        await rig.look(lambda: waiting(rig, 2), "two wait")
        ann, bob, boss = [await shown(rig, key) for key in ("sk-ann", "sk-bob", "boss")]
        refused = await call(rig.port, "GET", "/api/queue", headers={"Authorization": "Bearer sk-eve"})
        await rig.release("a")
        for task in [held, *tasks]:
            assert (await task).status == 200
    assert [one["client"] for one in ann["requests"]] == ["ann", "ann"]
    assert [one["client"] for one in bob["requests"]] == ["bob"]
    assert len(boss["requests"]) == 3
    last = bob["requests"][0]["standing"]
    assert (last["stage"], last["place"], last["part"]) == ("model", 2, "in_use")
    assert last["reason"] == "waits for requests of a to end; then b swaps in"
    assert refused.status == 401


async def waiting(rig: Rig, count: int) -> bool:
    """Whether so many requests wait."""
    return int((await shown(rig, "boss"))["waiting"]) == count


async def test_a_request_whose_turn_has_just_come(tmp_path: Path) -> None:
    """Its model is ready and its task has not gone on yet: it stands at the engine, and nothing is missing for that."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        request = Request("POST", CHAT.encode(), path=CHAT, headers=[], fields={})
        exchange = Exchange(request, Responder(Nowhere(), request), OTHER_GRANT)
        claim = exchange.claim = Claim(app.fleet.supervisor, ENGINE, exchange.record, timeout=1, loading=None)
        app.fleet.supervisor.enter(claim)
        assert app.dispatch.standings.of(exchange).stage == "prompt"
        claim.leave()
