"""Engines that compute nothing any more, and machines that slept."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from bioproxy.engines.attach import Attachment
from bioproxy.engines.facts import EngineFacts
from fakes.fake_engine import FakeEngine
from support.station_rig import QUICK, Told, make, running
from support.swap_api import Server

pytestmark = pytest.mark.usefixtures("no_eager_looks")


@pytest.fixture
def no_eager_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow one another quickly, so that no test waits for a clock."""
    monkeypatch.setattr("bioproxy.engines.attach.EAGER", QUICK)


async def test_hanging_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that stands still takes connections and answers nothing: stuck; going on again, it must prove it."""
    monkeypatch.setattr("bioproxy.engines.llama.QUICK", 0.5)
    told = Told()
    async with FakeEngine() as fake, running(make(fake.url, told)) as attachment:
        await attachment.wait_ready()
        fake.signal(signal.SIGSTOP)
        assert "did not answer GET /props" in await told.until("on_stuck")
        assert (attachment.state, told.names().count("on_gone")) == ("stuck", 1)
        fake.signal(signal.SIGCONT)
        await told.until("ready", 2)
        completions = await fake.requests("/completion")
    assert [request.json()["prompt"] for request in completions] == [[1]]
    assert attachment.generation == 1


async def test_hanging_engine_of_another_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It need not have llama-server's routes to be ready again."""
    monkeypatch.setattr("bioproxy.engines.llama.QUICK", 0.5)
    told = Told()
    async with Server("vllm", tmp_path) as server:
        await server.request("POST", "/script", {"status": 404}, content_type="application/json")
        async with running(make(server.url, told)) as attachment:
            await attachment.wait_ready()
            server.signal(signal.SIGSTOP)
            await told.until("on_stuck")
            server.signal(signal.SIGCONT)
            await told.until("ready", 2)


class Running:
    """A request that the attachment watches: bytes so far, and how it was cancelled."""

    def __init__(self, attachment: Attachment) -> None:
        self.bytes = 0
        self.cancelled: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.done = attachment.stall.watch(lambda: self.bytes, self.cancel)

    def cancel(self, reason: str) -> None:
        """The stall detection ends it."""
        if not self.cancelled.done():
            self.cancelled.set_result(reason)


async def silent_request(fake: FakeEngine, attachment: Attachment, body: Any) -> None:
    """One request through the pool, watched, cancelled when the stall detection says so."""
    watched = Running(attachment)
    work = aio.spawn(attachment.llama.good("POST", "/completion", body), name="request")
    waits: list[asyncio.Future[Any]] = [work, watched.cancelled]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watched.done()
        await aio.finish([work])


async def test_stuck_thread() -> None:
    """The inference thread stands still: the request is cancelled, then the engine is stuck; waiters may wait on."""
    told = Told()
    async with FakeEngine() as fake:
        attachment = make(fake.url, told, stall_timeout=0.4, interval=60)
        attachment.stall.recovery = 0.2
        attachment.llama.pace.period = QUICK
        async with running(attachment):
            await attachment.wait_ready()
            await fake.post("/completion", {"prompt": "a", "n_predict": 1})
            await fake.faults(stuck=True)
            await silent_request(fake, attachment, {"prompt": "b c d", "n_predict": 1})
            reason = await told.until("on_stuck")
            assert "no sign of life" in reason
            assert attachment.state == "stuck"
            assert attachment.statistics().stall.cancelled == 1
            await fake.faults(stuck=False)
            attachment.suspect("it works again")
            await told.until("ready", 2)


async def test_slow_prefill_is_left_alone() -> None:
    """A request that takes many times the time-out and shows progress in /slots is not touched."""
    told = Told()
    async with FakeEngine(tokens_per_second=1000, batch_size=64) as fake:
        attachment = make(fake.url, told, stall_timeout=0.5, interval=60)
        attachment.llama.pace.period = QUICK
        async with running(attachment):
            await attachment.wait_ready()
            watched = Running(attachment)
            await attachment.llama.prefill(list(range(2000)))
            watched.done()
        looks = await fake.requests("/slots")
    assert not watched.cancelled.done()
    assert (attachment.statistics().stall.cancelled, told.names().count("on_gone")) == (0, 0)
    assert looks


async def test_lost_wake_up() -> None:
    """Slots idle, a request asleep in the engine's queue (facts, 0.4): one token wakes it."""
    told = Told()
    async with FakeEngine(slot_folder="/tmp") as fake:
        attachment = make(fake.url, told, stall_timeout=2.0, interval=60)
        attachment.llama.pace.period = QUICK
        attachment.stall.timeout, soon = 3600.0, attachment.stall.timeout
        async with running(attachment), asyncio.TaskGroup() as group:
            await attachment.wait_ready()
            await fake.faults(stuck=True)
            first = group.create_task(fake.post("/completion", {"prompt": "a", "n_predict": 1}))
            await fake.until(lambda now: now["slots"][0]["busy"])
            erase = group.create_task(fake.slot("erase"))
            await fake.until(lambda now: now["deferred"] == ["erase"])
            asleep = group.create_task(silent_request(fake, attachment, {"prompt": "b", "n_predict": 1}))
            await fake.until(lambda now: now["deferred"] == ["erase", "complete"])
            await fake.faults(stuck=False)
            attachment.stall.timeout = soon
            assert "woken" in await told.until("on_emptied")
            await asyncio.gather(first, erase, asleep)
    assert (attachment.statistics().stall.pokes, attachment.statistics().stall.cancelled) == (1, 0)


async def test_detection_off() -> None:
    """stall_timeout 0: the service of the detection ends at once, the looks go on."""
    told = Told()
    async with FakeEngine() as fake, running(make(fake.url, told, stall_timeout=0)) as attachment:
        await attachment.wait_ready()
        await fake.kill()
        await told.until("on_gone")


# the machine slept


async def test_machine_slept() -> None:
    """After a sleep connections are opened anew and an engine of ours is asked for a token."""
    told, slept = Told(), [100.0]
    async with FakeEngine() as fake:
        attachment = make(fake.url, told, slept=lambda: slept[0], expect_pid=lambda: fake.pid)
        async with running(attachment):
            await attachment.wait_ready()
            slept[0] += 11
            assert "slept" in await told.until("on_emptied")
            assert attachment.state == "ready"
        assert len(await fake.requests("/completion")) == 1


async def test_engine_dead_after_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine of ours that computes nothing after a sleep is stuck."""
    monkeypatch.setattr("bioproxy.engines.attach.FIRST_TOKEN", 0.1)
    told, slept = Told(), [0.0]
    async with FakeEngine() as fake:
        attachment = make(fake.url, told, slept=lambda: slept[0], expect_pid=lambda: fake.pid)
        async with running(attachment):
            await attachment.wait_ready()
            await fake.faults(stuck=True)
            slept[0] += 3600
            assert "after the machine slept" in await told.until("on_stuck")


async def test_engine_elsewhere_is_not_asked_after_sleep() -> None:
    """An engine that is not ours is only looked at."""
    told, slept = Told(), [0.0]
    async with FakeEngine() as fake:
        attachment = make(fake.url, told, slept=lambda: slept[0])
        async with running(attachment):
            await attachment.wait_ready()
            slept[0] += 3600
            looks = attachment.looks
            await until_true(lambda: attachment.looks >= looks + 3)
            assert await fake.requests("/completion") == []


@pytest.mark.parametrize("answer", ["", "close"])
async def test_engine_of_another_kind_after_sleep(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """One that is no llama-server is asked for its health, and is stuck if that is not good."""
    monkeypatch.setattr("bioproxy.engines.attach.FIRST_TOKEN", 0.1)
    told, slept = Told(), [0.0]
    async with FakeEngine() as fake:
        attachment = make(fake.url, told, slept=lambda: slept[0], expect_pid=lambda: fake.pid)
        facts = EngineFacts(url=fake.url, pid=fake.pid)
        service = aio.spawn(attachment.follow_other(lambda: facts), name="other")
        await until_true(lambda: attachment.other is facts)
        await fake.faults(answer=answer, paths=["/health"])
        slept[0] += 3600
        if answer:
            assert "after the machine slept" in await told.until("on_stuck")
        else:
            while not await fake.requests("/health"):  # noqa: ASYNC110 - another process, which tells nothing unasked
                await asyncio.sleep(0.005)
        await aio.finish([service])


async def until_true(condition: Callable[[], bool]) -> None:
    """Wait until `condition()` holds."""

    async def look() -> bool | None:
        return True if condition() else None

    assert await aio.poll(look, interval=0.005, deadline=30)
