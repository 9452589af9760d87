"""An engine's owner: waits, notices gone, back, another one; on the fake engine, and once on the real one.

Stuck engines and sleeping machines have a module of their own, test_attach_stuck.py.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bioproxy.engines import listener
from bioproxy.engines.facts import WANTS_KEY, EngineFacts
from bioproxy.engines.listener import Listener
from bioproxy.errors import EngineUnavailable
from fakes.fake_engine import FakeEngine
from fakes.real_engine import RealEngine
from support.http import free_port
from support.leaks import no_files_left, until
from support.station_rig import QUICK, Told, make, running, state

pytestmark = pytest.mark.usefixtures("no_eager_looks")


@pytest.fixture
def no_eager_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow one another quickly, so that no test waits for a clock."""
    monkeypatch.setattr("bioproxy.engines.attach.EAGER", QUICK)


MODEL = Path(__file__).parents[1] / "fakes" / "fake.gguf"


async def test_ready_engine(tmp_path: Path) -> None:
    """An engine that serves is found with everything that it and the kernel tell."""
    told = Told()
    async with (
        FakeEngine(slot_folder=tmp_path / "slots", alias="m") as fake,
        running(make(fake.url, told)) as attachment,
    ):
        facts = await attachment.wait_ready()
    assert told.names() == ["loading", "on_ready", "ready"]
    assert (facts.url, facts.alias, facts.build, facts.slots, facts.context) == (fake.url, "m", "b11549-fake", 1, 32768)
    assert (facts.pid, facts.slot_folder) == (fake.pid, str(tmp_path / "slots"))
    assert "--slot-save-path" in facts.command
    can = facts.capabilities
    assert (can.slot_actions, can.tokenize, can.apply_template, can.slots_route, can.notes) == (
        True,
        True,
        True,
        True,
        (),
    )
    assert (attachment.generation, facts.media, facts.sleeping) == (1, False, False)


@pytest.mark.parametrize("fresh", [True, False])
async def test_without_a_file_for_a_look_nothing_is_known_and_nothing_changes(fresh: bool) -> None:
    """Neither a connection that cannot be opened nor a /proc that cannot be read is news of the engine."""
    told = Told()
    async with FakeEngine() as fake, running(make(fake.url, told, interval=60)) as attachment:
        await attachment.wait_ready()
        if fresh:
            for connection in list(attachment.pool.open):
                connection.abort()
            await until(lambda: not attachment.pool.open)
        before = attachment.statistics()
        with no_files_left():
            await attachment.look()
            await attachment.look()
        after = attachment.statistics()
    assert (after.state, after.generation, after.facts) == ("ready", before.generation, before.facts)
    assert told.names() == ["loading", "on_ready", "ready"]


def forbidden() -> None:
    """Requests may run in it, so the pace of `/slots` counts on (rule 5)."""
    pytest.fail("it is the same process")


async def test_a_process_that_a_look_missed_is_seen_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc shows what it shows at that moment; one miss must not leave the engine without snapshots until its end."""
    told, asked, find = Told(), [], listener.find

    def miss_once(host: str, port: int | str) -> Listener | None:
        asked.append(port)
        return find(host, port) if len(asked) > 1 else None

    monkeypatch.setattr(listener, "find", miss_once)
    async with FakeEngine() as fake, running(make(fake.url, told)) as attachment:
        monkeypatch.setattr(attachment.llama.pace, "renew", forbidden)
        assert await told.until("on_gone") == "its process is seen now"
        assert (await told.until("on_ready", 2)).pid == fake.pid
        await attachment.wait_ready()


async def test_a_process_that_cannot_be_seen_is_searched_for_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """One on another machine behind a tunnel is never found, and a search goes through every process of this one."""
    told, asked = Told(), []

    def never(_host: str, port: int | str) -> None:
        asked.append(port)

    monkeypatch.setattr(listener, "find", never)
    async with FakeEngine() as fake, running(make(fake.url, told, interval=60)) as attachment:
        await attachment.wait_ready()
        searches = []
        for _ in range(20):
            await attachment.look()
            searches.append(len(asked))
    assert [look for look in range(1, 20) if searches[look] > searches[look - 1]] == [1, 3, 7, 15]
    assert told.names() == ["loading", "on_ready", "ready"]


async def test_first_look_is_told() -> None:
    """That nobody is there is news at the beginning, and only then: until the first look nobody knows."""
    told = Told()
    async with running(make(f"http://127.0.0.1:{free_port()}", told)) as attachment:
        await told.until("absent")
        for _ in range(3):
            await attachment.look_now()
    assert told.names() == ["absent"]


async def test_look_now_waits_for_what_comes_of_it() -> None:
    """Whoever asks gets the state of a look of now, however far apart the looks are."""
    told = Told()
    async with FakeEngine() as fake, running(make(fake.url, told, interval=60.0)) as attachment:
        await attachment.wait_ready()
        await fake.kill()
        await attachment.look_now()
        assert attachment.state == "absent"


@pytest.mark.real_engine
async def test_real_engine(tmp_path: Path) -> None:
    """The real engine is found likewise; restarted behind our back it is another generation."""
    told = Told()
    async with RealEngine(slot_folder=tmp_path / "slots") as engine, running(make(engine.url, told)) as attachment:
        facts = await attachment.wait_ready()
        assert (facts.pid, facts.model_path) == (engine.pid, str(engine.model))
        assert facts.build.startswith("xllamacpp ")
        assert facts.capabilities.notes == ()
        assert facts.started is not None
        await engine.restart()
        again = await told.until("on_ready", 2)
        assert (again.pid, attachment.generation) == (engine.pid, 2)


async def test_absent_at_start() -> None:
    """Nothing listens: absent, with the address in the reason, until something does."""
    told = Told()
    fake = FakeEngine(port=free_port())
    async with running(make(fake.url, told)) as attachment:
        await state(attachment, "absent")
        attachment.suspect("look at least twice")
        async with fake:
            await attachment.wait_ready()
            await told.until("ready")
            names = told.names()  # before it is gone again
    assert str(fake.port) in told.calls[0][1] or names[0] == "loading"
    assert names[-2:] == ["on_ready", "ready"]


async def test_loading_engine() -> None:
    """503 means that the model loads: not ready, and ready by itself afterwards."""
    told = Told()
    async with FakeEngine(faults={"loading": 60}) as fake, running(make(fake.url, told)) as attachment:
        await told.until("loading")
        assert "Loading model" in attachment.reason
        assert not attachment.is_ready.is_set()
        await fake.faults(loading=0)
        await attachment.wait_ready()
    assert told.names() == ["loading", "on_ready", "ready"]


async def test_killed_engine() -> None:
    """An engine that dies is told gone once, and found again as another generation."""
    told = Told()
    async with FakeEngine() as fake, running(make(fake.url, told)) as attachment:
        first = await attachment.wait_ready()
        await fake.kill()
        attachment.suspect("a request failed")
        reason = await told.until("on_gone")
        assert f"nothing answers at {fake.url}" in reason
        await fake.restart()
        second = await told.until("on_ready", 2)
        await attachment.wait_ready()
    assert told.names().count("on_gone") == 1
    assert first.pid != second.pid
    assert attachment.generation == 2


async def test_restart_between_two_looks() -> None:
    """An engine that was restarted so quickly that nobody saw it gone is another process all the same."""
    told = Told()
    async with FakeEngine() as fake, running(make(fake.url, told, interval=60)) as attachment:
        await attachment.wait_ready()
        await fake.restart()
        attachment.suspect("time to look")
        assert await told.until("on_gone") == "the engine was restarted by something else"
        await told.until("ready", 2)
    assert attachment.generation == 2


async def test_restart_of_an_engine_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process cannot be seen, the media marker tells that it is another one."""
    monkeypatch.setattr("bioproxy.engines.listener.find", lambda *_: None)
    told = Told()
    async with FakeEngine() as fake, running(make(fake.url, told, interval=60)) as attachment:
        facts = await attachment.wait_ready()
        assert (facts.pid, facts.started, facts.command) == (None, None, ())
        await fake.restart()
        attachment.suspect("time to look")
        await told.until("ready", 2)
    assert attachment.generation == 2


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"model": "/models/other.gguf"}, f"model_path is /models/other.gguf, it was {MODEL}"),
        ({"build": "b99999"}, "build_info is b99999, it was b11549-fake"),
        ({"slots": 4}, "total_slots is 4, it was 1"),
        ({"chat_template": "x"}, "other settings"),
    ],
)
async def test_another_engine(fault: dict[str, Any], sentence: str) -> None:
    """Another model, build, number of slots or template: gone, and ready again as what it is now."""
    told = Told()
    async with FakeEngine() as fake, running(make(fake.url, told)) as attachment:
        await attachment.wait_ready()
        await fake.faults(**fault)
        assert sentence in await told.until("on_gone")
        await told.until("ready", 2)
    assert attachment.generation == 2


async def test_same_engine_stays() -> None:
    """Looks at an engine that stays the same change nothing."""
    told = Told()
    async with FakeEngine() as fake, running(make(fake.url, told)) as attachment:
        await attachment.wait_ready()
        looks = attachment.statistics().looks
        while attachment.statistics().looks < looks + 5:
            attachment.suspect("again")
            await asyncio.sleep(0)
        violations = await fake.violations()
    assert told.names() == ["loading", "on_ready", "ready"]
    assert violations == []


@pytest.mark.parametrize("how", ["garbage", "half_head", "wrong_length", "close"])
async def test_broken_answer(how: str) -> None:
    """What answers something that is no HTTP is not ready; it is once it does."""
    told = Told()
    async with FakeEngine(faults={"answer": how}) as fake, running(make(fake.url, told)) as attachment:
        await state(attachment, "absent")
        looks = attachment.looks
        while attachment.looks < looks + 2:
            attachment.suspect("again")
            await asyncio.sleep(0)
        assert attachment.state == "absent"
        await fake.faults(answer="")
        await attachment.wait_ready()


async def test_answering_500() -> None:
    """500 to everything is not ready."""
    told = Told()
    async with FakeEngine() as fake, running(make(fake.url, told)) as attachment:
        await attachment.wait_ready()
        await fake.faults(answer="status", status=500)
        assert "500" in await told.until("on_gone")
        assert attachment.state == "absent"


async def test_failing_preparation() -> None:
    """Where preparing fails the engine is not ready, and it is tried again."""
    told = Told()
    async with FakeEngine() as fake:
        attachment = make(fake.url, told)
        failures = [EngineUnavailable("the probe file failed"), ValueError("a bug")]

        async def on_ready(_: EngineFacts) -> None:
            told.note("on_ready")
            if failures:
                raise failures.pop(0)

        attachment.on_ready = on_ready
        async with running(attachment):
            await attachment.wait_ready()
    assert told.names().count("on_ready") == 3
    assert "on_gone" not in told.names()
    assert attachment.generation == 1


async def test_ready_only_after_preparation() -> None:
    """As long as on_ready has not returned nobody is told that the engine is ready."""
    told, prepared = Told(), asyncio.Event()
    async with FakeEngine() as fake:
        attachment = make(fake.url, told)

        async def on_ready(_: EngineFacts) -> None:
            told.note("on_ready")
            await prepared.wait()

        attachment.on_ready = on_ready
        async with running(attachment):
            await told.until("on_ready")
            assert (attachment.state, attachment.is_ready.is_set()) == ("loading", False)
            prepared.set()
            await attachment.wait_ready()


async def test_missing_capabilities() -> None:
    """What an engine cannot do stands in its facts, with what would mend it."""
    told = Told()
    async with FakeEngine(no_slots=True, no_tokenize=True) as fake, running(make(fake.url, told)) as attachment:
        can = (await attachment.wait_ready()).capabilities
    # the fake echoes what it does not know, so only slot files and /slots are seen to be missing
    assert (can.slot_actions, can.slots_route) == (False, False)
    assert any("--slot-save-path" in note for note in can.notes)


async def test_another_kind_of_server() -> None:
    """A server without /props is served, and nothing that needs to know more is used."""
    told = Told()
    no_props = {"answer": "status", "status": 404, "paths": ["/props"]}
    async with FakeEngine(faults=no_props, alias="gpt") as fake, running(make(fake.url, told)) as attachment:
        facts = await attachment.wait_ready()
    assert (facts.alias, facts.build, facts.slots) == ("gpt", "", 0)
    assert not facts.capabilities.slot_actions
    assert "no llama-server" in facts.capabilities.notes[0]


async def test_engine_with_a_key_that_is_not_ours() -> None:
    """An engine that refuses our key is served for those who have one; the note says what to set."""
    told = Told()
    async with FakeEngine(api_key="secret") as fake, running(make(fake.url, told)) as attachment:
        can = (await attachment.wait_ready()).capabilities
    assert (can.locked, can.slot_actions, can.notes) == (True, False, (WANTS_KEY,))


@pytest.mark.parametrize("status", [401, 403])
async def test_engine_that_tells_its_props_to_everybody(status: int) -> None:
    """A slot action that is refused for want of a key is no missing --slot-save-path."""
    told = Told()
    locked = {"answer": "status", "status": status, "paths": ["/slots/0"]}
    async with FakeEngine(faults=locked) as fake, running(make(fake.url, told)) as attachment:
        can = (await attachment.wait_ready()).capabilities
    assert (can.locked, can.slot_actions, can.notes) == (True, False, (WANTS_KEY,))


async def test_idle_sleep_of_the_engine() -> None:
    """An engine that goes to sleep by itself has freed its cache."""
    told = Told()
    async with FakeEngine() as fake, running(make(fake.url, told)) as attachment:
        await attachment.wait_ready()
        await fake.faults(sleeping=True)
        assert "went to sleep" in await told.until("on_emptied")
        assert attachment.state == "ready"
    assert told.names().count("on_emptied") == 1


async def test_ending_the_service_leaves_nothing() -> None:
    """The service may be cancelled at any point; no task and no connection stays."""
    told = Told()
    async with FakeEngine() as fake:
        before = asyncio.all_tasks()
        for steps in (0, 1, 2, 3, 5, 8, 13, 21):
            attachment = make(fake.url, told)
            async with running(attachment):
                for _ in range(steps):
                    await asyncio.sleep(0)
            pool = attachment.pool.statistics()
            assert (pool.active, pool.idle) == (0, 0)
        assert asyncio.all_tasks() == before
