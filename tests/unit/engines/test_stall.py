"""What counts as a sign of life of a silent engine, and what is done when there is none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bioproxy.engines import listener
from bioproxy.engines.facts import Capabilities, EngineFacts, SlotView
from bioproxy.engines.llama import Llama
from bioproxy.engines.stall import Stall
from bioproxy.errors import EngineUnavailable
from bioproxy.wire.upstream import Pool, parse_origin

HOUR = 3600.0


class Engine(Llama):
    """An engine that answers from memory: `views` one after the other (None: no answer), the last one for ever."""

    def __init__(self, *views: list[SlotView] | None) -> None:
        super().__init__(Pool(parse_origin("http://127.0.0.1:1")))
        self.views = list(views)
        self.prefills: list[Any] = []
        self.healthy = True

    async def slots(self) -> list[SlotView]:
        """The next view."""
        view = self.views.pop(0) if len(self.views) > 1 else self.views[0]
        if view is None:
            raise EngineUnavailable("the engine did not answer GET /slots")
        return view

    async def prefill(self, tokens: Any, **_: Any) -> Any:
        """Note what was asked for."""
        self.prefills.append(tokens)

    async def health(self) -> Any:
        """Answers, or does not."""
        if not self.healthy:
            raise EngineUnavailable("nothing answers")
        return "ok"


class World:
    """A stall detection with its surroundings: the engine, one watched request, a processor clock."""

    def __init__(self, engine: Engine, *, slots_route: bool = True, pid: int | None = None) -> None:
        self.engine = engine
        self.facts: EngineFacts | None = EngineFacts(
            url="x", capabilities=Capabilities(slots_route=slots_route), pid=pid, build="b1"
        )
        self.stuck: list[str] = []
        self.poked: list[str] = []
        self.cancelled: list[str] = []
        self.bytes = 0
        self.stall = Stall(
            engine,
            timeout=100.0,
            facts=lambda: self.facts,
            on_stuck=self.note_stuck,
            on_poked=self.poked.append,
            period=0.001,
            recovery=0.01,
        )
        self.end = self.stall.watch(lambda: self.bytes, self.cancelled.append)

    async def note_stuck(self, reason: str) -> None:
        """The engine was declared stuck."""
        self.stuck.append(reason)

    async def twice(self, seconds: float) -> None:
        """Two looks after so much silence."""
        for _ in range(2):
            self.quiet(seconds)
            await self.stall.look()

    def quiet(self, seconds: float) -> None:
        """Let the last sign of life have been `seconds` ago."""
        self.stall.last_sign = asyncio.get_running_loop().time() - seconds
        self.stall.last_progress = min(self.stall.last_progress, self.stall.last_sign)


def slot(*, busy: bool, done: int = 0) -> list[SlotView]:
    """One slot that has evaluated `done` tokens."""
    return [SlotView(id=0, is_processing=busy, id_task=1, n_prompt_tokens=done, n_prompt_tokens_processed=done)]


BUSY, IDLE = slot(busy=True, done=5), slot(busy=False, done=5)


async def test_bytes_are_life() -> None:
    """A byte since the last look ends the silence."""
    world = World(Engine(BUSY))
    world.quiet(HOUR)
    assert world.stall.silent_for() >= HOUR
    world.bytes = 1
    assert world.stall.silent_for() < 1


async def test_bytes_of_a_request_that_ended_are_life() -> None:
    """What a request got before it ended counts, even if nobody looked in between."""
    world = World(Engine(BUSY))
    world.stall.watch(lambda: 0, world.cancelled.append)
    world.quiet(HOUR)
    world.bytes = 1
    world.end()
    assert world.stall.silent_for() < 1


async def test_a_new_request_is_no_life() -> None:
    """Requests that come and go in silence do not hide a stuck engine."""
    world = World(Engine(BUSY))
    world.quiet(HOUR)
    world.stall.watch(lambda: 0, world.cancelled.append)
    world.end()
    assert world.stall.silent_for() >= HOUR


async def test_first_request_after_a_pause_begins_anew() -> None:
    """An engine that nobody used for an hour is not silent for an hour."""
    world = World(Engine(BUSY))
    world.end()
    world.quiet(HOUR)
    world.stall.watch(lambda: 0, world.cancelled.append)
    assert world.stall.silent_for() < 1


async def test_progress_is_life() -> None:
    """Prompt tokens that increase between two looks end the silence."""
    world = World(Engine(slot(busy=True, done=5), slot(busy=True, done=517)))
    world.quiet(HOUR)
    await world.stall.look()
    world.quiet(HOUR)
    await world.stall.look()
    assert world.cancelled == []
    assert world.stall.silent_for() < 1


async def test_processor_time_is_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that computes is left alone, whatever its slots show."""
    world = World(Engine(BUSY), pid=1)
    used = iter([10.0, 11.0])
    monkeypatch.setattr(listener, "cpu_seconds", lambda _pid: next(used))
    for _ in range(2):
        world.quiet(200)
        await world.stall.look()
    assert (world.cancelled, world.stuck) == ([], [])


async def test_processor_time_alone_is_not_believed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A livelock burns processor time and gets nowhere: after ten time-outs it counts as stuck."""
    world = World(Engine(BUSY), pid=1)
    used = iter(range(10, 100))
    monkeypatch.setattr(listener, "cpu_seconds", lambda _pid: float(next(used)))
    for _ in range(2):
        world.quiet(1001)
        await world.stall.look()
    assert len(world.stuck) == 1


async def test_no_sign_at_all() -> None:
    """Slots taken, nothing moves: the requests are cancelled; still taken after that: stuck, in one sentence."""
    world = World(Engine(BUSY))
    for _ in range(2):
        world.quiet(150)
        await world.stall.look()
    assert world.cancelled == ["the engine gave no sign of life for 150 s"]
    assert world.stuck == [
        "the engine gave no sign of life for 150 s, and its slots did not become free after its requests were cancelled"
    ]


@pytest.mark.parametrize("after", [IDLE, slot(busy=True, done=99)])
async def test_cancelling_helps(after: list[SlotView]) -> None:
    """Slots that are free after the cancellation, or work on something else, are no stuck engine."""
    world = World(Engine(BUSY, BUSY, after))
    for _ in range(2):
        world.quiet(150)
        await world.stall.look()
    assert (len(world.cancelled), world.stuck) == (1, [])


async def test_silence_shorter_than_the_timeout() -> None:
    """Without any sign nothing is done before the time-out is over."""
    world = World(Engine(BUSY))
    for seconds in (30, 60, 99):
        world.quiet(seconds)
        await world.stall.look()
    assert (world.cancelled, world.stuck) == ([], [])


async def test_slots_that_do_not_answer() -> None:
    """An engine that should answer /slots and does not has given no sign."""
    world = World(Engine(None))
    for _ in range(2):
        world.quiet(150)
        await world.stall.look()
    assert (len(world.cancelled), len(world.stuck)) == (1, 1)


async def test_silence_that_proves_nothing() -> None:
    """Where neither slots nor process can be seen a long answer is left alone."""
    world = World(Engine(BUSY), slots_route=False)
    for _ in range(3):
        world.quiet(HOUR)
        await world.stall.look()
    assert (world.cancelled, world.stuck) == ([], [])


@pytest.mark.parametrize("healthy", [True, False])
async def test_without_slots_health_tells(monkeypatch: pytest.MonkeyPatch, *, healthy: bool) -> None:
    """Without /slots an engine whose process stands still is stuck unless it answers after the cancellation."""
    world = standing_still(monkeypatch)
    world.engine.healthy = healthy
    await world.twice(150)
    assert (len(world.cancelled), len(world.stuck)) == (1, 0 if healthy else 1)


def standing_still(monkeypatch: pytest.MonkeyPatch) -> World:
    """An engine without /slots, whose processes do nothing."""
    monkeypatch.setattr(listener, "cpu_seconds", lambda _pid: 10.0)
    return World(Engine(BUSY), slots_route=False, pid=1)


async def test_without_slots_health_is_believed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A web server that is well before an engine that hangs: the second request without a byte says it is stuck."""
    world = standing_still(monkeypatch)
    await world.twice(150)
    assert world.stuck == []
    await world.twice(150)
    assert world.stuck == ["the engine gave no sign of life for 150 s, again, and nothing came out of it in between"]


async def test_without_slots_a_byte_in_between_clears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two requests that hung with an answer between them are no stuck engine."""
    world = standing_still(monkeypatch)
    await world.twice(150)
    world.bytes = 1
    world.end()
    world.stall.watch(lambda: 0, world.cancelled.append)
    await world.twice(150)
    assert (len(world.cancelled), world.stuck) == (2, [])


@pytest.mark.parametrize(("per_second", "alive"), [(0.02, True), (0.005, False)])
async def test_without_slots_the_least_work_is_life(
    monkeypatch: pytest.MonkeyPatch, *, per_second: float, alive: bool
) -> None:
    """An engine that shows nothing else is left alone as long as it does anything, an hour or a film."""
    world = standing_still(monkeypatch)
    loop = asyncio.get_running_loop()
    hours = [loop.time()]
    monkeypatch.setattr(loop, "time", lambda: hours[-1])
    monkeypatch.setattr(listener, "cpu_seconds", lambda _pid: hours[-1] * per_second)
    for _ in range(2):
        hours.append(hours[-1] + HOUR)
        await world.stall.look()
    assert (world.cancelled == []) is alive


async def test_idle_slots_are_poked_once() -> None:
    """Idle slots while a request waits: one token is asked for, once per silence, before anything is cancelled."""
    world = World(Engine(IDLE))
    for _ in range(3):
        world.quiet(60)
        await world.stall.look()
    assert world.engine.prefills == [[1]]
    assert (len(world.poked), world.cancelled) == (1, [])


async def test_idle_slots_that_a_poke_does_not_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no sign that the engine has recovered: it is stuck."""
    world = World(Engine(IDLE))
    monkeypatch.setattr(world.engine, "one_token", refused)
    for _ in range(3):
        world.quiet(150)
        await world.stall.look()
    assert len(world.cancelled) == 1
    assert world.stuck == [
        "the engine gave no sign of life for 150 s, and did not compute the one token that it was asked for"
    ]


async def refused(_: float) -> None:
    """No token comes."""
    raise EngineUnavailable("it computed no token")


async def test_idle_for_one_look_only() -> None:
    """A slot that is idle between two requests is not poked."""
    world = World(Engine(IDLE, BUSY, IDLE, BUSY))
    for _ in range(4):
        world.quiet(60)
        await world.stall.look()
    assert world.engine.prefills == []


async def test_nobody_looks_while_nothing_runs() -> None:
    """The service asks nothing of an engine that nobody uses, nor of one that is not ready."""
    world = World(Engine(BUSY))
    world.end()
    asked: list[str] = []

    async def look() -> None:
        asked.append("look")

    world.stall.look = look  # type: ignore[method-assign]
    service = asyncio.get_running_loop().create_task(world.stall.run())
    await asyncio.sleep(0.02)
    world.facts = None
    world.stall.watch(lambda: 0, world.cancelled.append)
    world.quiet(HOUR)
    await asyncio.sleep(0.02)
    service.cancel()
    assert asked == []


async def test_statistics() -> None:
    """What is watched and how long it is silent can be read."""
    world = World(Engine(BUSY))
    world.quiet(40)
    found = world.stall.statistics()
    assert (found.watched, round(found.quiet), found.pokes, found.cancelled, found.stuck) == (1, 40, 0, 0, 0)
    world.end()
    assert world.stall.statistics().quiet == 0
