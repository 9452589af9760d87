"""What a chat template prints beside the conversation: asked of the engine, seldom, and mixed into what a prompt is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest

from bioproxy import aio
from bioproxy.config.schema import Kv
from bioproxy.engines.facts import Capabilities, EngineFacts
from bioproxy.errors import EngineRefused, EngineUnavailable
from bioproxy.events import Bus
from bioproxy.kv.chain import chain
from bioproxy.kv.chat_template import BURST, CLOCK, LAST, QUARTER, RETRY, SHAPES, WAITING, ChatTemplate
from bioproxy.kv.policy import MOST_FIELDS
from bioproxy.kv.resident import Prepared, Residents, Want
from bioproxy.kv.shelves import Tenant
from bioproxy.prompt import Doubt, Head, Piece

Json = Any
PIECES = [Piece("head", b"[]"), Piece("message", b"hello" * 300)]
NIGHT = 1_800_000_000.0 - 1_800_000_000.0 % 86400  # unix time of a midnight in Greenwich


class Engine:
    """Renders as `prints` says: what stands first and what stands last, for a body."""

    def __init__(self, prints: Callable[[Json], tuple[str, str]] = lambda _body: ("", "")) -> None:
        self.prints = prints
        self.bodies: list[Json] = []
        self.fault: Exception | None = None

    async def apply_template(self, body: bytes) -> str:
        asked = msgspec.json.decode(body)
        self.bodies.append(asked)
        if self.fault is not None:
            raise self.fault
        first, last = self.prints(asked)
        return first + "".join(f"<{each['role']}>{each['content']}" for each in asked["messages"]) + last


class World:
    """A chat template before `engine`, with clocks that stand still."""

    def __init__(self, engine: Engine, *, dated: bool = False, renders: bool = True) -> None:
        self.engine = engine
        self.time = NIGHT - 3600
        self.ticks = 0.0
        self.tenant = Tenant(config=Kv(), bus=Bus())
        self.tenant.use("f" * 16, "b1")
        self.tenant.shelf.wall = lambda: self.time
        self.residents = Residents()
        self.template = ChatTemplate(cast("Any", engine), self.tenant, self.residents)
        self.template.clock = lambda: self.ticks
        self.template.began = 0.0
        self.changes = 0
        self.template.on_change = self.change
        self.facts = EngineFacts(url="", dated=dated, capabilities=Capabilities(apply_template=renders))

    def change(self) -> None:
        self.changes += 1

    def want(self, head: Head = Head()) -> Want:  # noqa: B008 - frozen
        cuts = chain("", PIECES)
        return Want(cuts, cuts[-1].offset, shape=head.shape, fields=head.fields)

    def read(self, **extra: Json) -> Want:
        return self.template.read(self.want(Head(extra=msgspec.json.encode(extra) if extra else b"")))

    async def pass_time(self, seconds: float) -> None:
        self.time += seconds
        self.ticks += seconds
        await self.template.refresh()


def dated(body: Json, day: str) -> tuple[str, str]:
    """Granite's way: the date stands there only if there is no system message."""
    return ("", "") if body["messages"][0]["role"] == "system" else (f"Today is {day}.", "")


async def test_a_template_without_a_date_and_a_request_without_fields_cost_nothing() -> None:
    """The engine is not asked, and the prompt is what the client sent."""
    world = World(Engine())
    await world.template.meet(world.facts)
    want = world.want()
    assert world.template.read(want) is want
    assert world.engine.bodies == []


async def test_on_another_day_it_is_another_prompt() -> None:
    """For as long as the template prints another date, and where it prints one; asked once in a quarter of an hour."""
    day = "the 14th"
    world = World(Engine(lambda body: dated(body, day)), dated=True)
    await world.template.meet(world.facts)
    system = Head(messages=b'[{"role":"system","content":"s"}]')
    plain, other = world.read(), world.template.read(world.want(system))
    assert plain.end != other.end != world.want().end
    assert (plain.doubts, plain.day in world.tenant.scope.days) == (frozenset(), True)
    for _ in range(10):
        await world.pass_time(QUARTER / 11)
    assert len(world.engine.bodies) <= 2 * len(SHAPES)
    assert (world.read(), world.changes) == (plain, 0)
    day = "the 15th"
    await world.pass_time(QUARTER)
    assert world.read().end != plain.end
    assert world.template.read(world.want(system)).end == other.end
    assert (world.changes, plain.day in world.tenant.scope.days) == (1, False)


async def test_a_reading_is_read_as_itself() -> None:
    """Whoever passes it on need not know."""
    world = World(Engine(lambda body: dated(body, "today")), dated=True)
    await world.template.meet(world.facts)
    want = world.want()
    assert world.template.read(want) is world.template.read(want)
    assert world.template.read(world.template.read(want)) is world.template.read(want)


async def test_what_goes_past_the_chat_template_has_no_day() -> None:
    """A completion's prompt is text."""
    world = World(Engine(lambda body: dated(body, "today")), dated=True)
    await world.template.meet(world.facts)
    raw = Want(chain("", PIECES), 1)
    assert world.template.read(raw) is raw


async def test_a_clock_in_a_template_is_told_and_nothing_is_saved(caplog: pytest.LogCaptureFixture) -> None:
    """It changes at every look; warming anew for each would never end."""
    world = World(Engine(), dated=True)
    world.engine.prints = lambda body: dated(body, f"{world.time}")
    await world.template.meet(world.facts)
    with caplog.at_level(logging.WARNING):
        for _ in range(8):
            await world.pass_time(QUARTER)
    assert world.changes == 1
    assert [record.message for record in caplog.records] == [CLOCK]
    assert world.read().doubts
    assert not world.template.read(world.want(Head(messages=b'[{"role":"system"}]'))).doubts


async def test_a_date_that_changes_every_day_is_no_clock() -> None:
    """Also when a day was long or short."""
    world = World(Engine(), dated=True)
    world.engine.prints = lambda body: dated(body, f"{world.time // 86400}")
    await world.template.meet(world.facts)
    for number in range(5):
        await world.pass_time(86400 if number % 2 else 23 * 3600)
    assert world.changes == 5
    assert not world.read().doubts


async def test_of_an_engine_that_does_not_tell_nothing_is_taken_for_today() -> None:
    """It is asked again after a while, not by each request; and what was known before counts when it tells again."""
    world = World(Engine(lambda body: dated(body, "today")), dated=True)
    await world.template.meet(world.facts)
    known = world.tenant.scope.days
    world.engine.fault = EngineUnavailable("gone")
    await world.pass_time(QUARTER)
    asked = len(world.engine.bodies)
    for _ in range(5):
        await world.template.refresh()
    assert len(world.engine.bodies) == asked
    assert world.read().doubts
    assert not world.tenant.scope.days & known
    world.engine.fault = None
    await world.pass_time(RETRY)
    assert (world.read().doubts, world.changes) == (frozenset(), 0)


async def test_where_nothing_is_rendered_our_own_date_counts() -> None:
    """An engine without /apply-template."""
    world = World(Engine(), dated=True, renders=False)
    await world.template.meet(world.facts)
    today = world.read()
    await world.pass_time(86400)
    assert world.read().end != today.end
    assert world.engine.bodies == []


@pytest.mark.parametrize("noticed", [False, True], ids=["", "it was seen already"])
@pytest.mark.parametrize(("after", "unsure"), [("the 15th", True), ("the 14th", False)])
async def test_a_restore_that_brought_little_back_is_judged_after_a_look_at_the_day(
    after: str, *, unsure: bool, noticed: bool
) -> None:
    """The engine's clock runs before ours: what a new date did is no verdict, what the file did is one."""
    day = "the 14th"
    world = World(Engine(lambda body: dated(body, day)), dated=True)
    await world.template.meet(world.facts)
    judged: list[bool] = []
    prepared = Prepared(expected=1000, snapshot=cast("Any", object()), want=world.read())
    day = after
    if noticed:
        await world.pass_time(QUARTER)
    world.template.settle(prepared, 999, lambda: judged.append(True))
    world.template.settle(prepared, 10, lambda: judged.append(prepared.unsure))
    assert judged == [True]
    await world.template.look_again()
    assert judged == [True, unsure]


async def test_a_field_is_asked_about_and_then_known() -> None:
    """Until then it is not in the way of what is resident, and nothing is saved that may be another prompt."""
    world = World(Engine(lambda body: (f"effort {body.get('effort')}", "")))
    await world.template.meet(world.facts)
    bare = world.want()
    before = world.read(effort="high", choice="auto")
    assert (before.end, len(before.doubts)) == (bare.end, 2)
    world.residents.slots[0].doubts = before.doubts
    await world.template.ask_all()
    after = world.read(effort="high", choice="auto")
    assert after.end == world.read(effort="high").end != world.read(effort="low").end
    assert (after.doubts, world.read(choice="auto").end) == (frozenset(), bare.end)
    assert (world.residents.slots[0].doubts, world.changes) == (frozenset(), 1)


async def test_what_stands_after_the_last_message_shapes_nothing() -> None:
    """The generation prompt, an empty thought: what could be shared stands before it."""
    world = World(Engine(lambda body: ("", "<assistant>" if body.get("add_generation_prompt", True) else "")))
    await world.template.meet(world.facts)
    world.read(add_generation_prompt=False)
    await world.template.ask_all()
    assert world.read(add_generation_prompt=False).end == world.want().end


async def test_a_field_that_matters_with_tools_only_matters() -> None:
    """It is tried in both kinds of conversation; one that is refused with tools is tried without."""
    world = World(Engine(lambda body: ("parallel" if body.get("parallel") and "tools" in body else "", "")))

    def refuse(body: Json) -> tuple[str, str]:
        if "grammar" in body and "tools" in body:
            raise EngineRefused("no grammar with tools", status=400)
        return ("", "")

    await world.template.meet(world.facts)
    assert await world.template.ask("parallel", b"true")
    world.engine.prints = refuse
    assert not await world.template.ask("grammar", b"{}")
    world.engine.fault = EngineRefused("never", status=400)
    assert await world.template.ask("continue", b"true")


async def test_any_variety_of_fields_makes_a_bounded_number_of_questions() -> None:
    """Names and values that a client draws at random: a few are asked about, and as few remembered."""
    world = World(Engine())
    await world.template.meet(world.facts)
    for number in range(5000):
        world.read(**{f"name{number}": 1}, same_name=number)
        assert len(world.template.questions) <= WAITING
        await world.template.ask_all()
    assert world.template.asked <= BURST
    assert len(world.engine.bodies) <= 4 * BURST
    for number in range(5000, 10000):
        world.ticks += 3600.0
        world.read(**{f"name{number}": 1})
        await world.template.ask_all()
    assert len(world.tenant.knowledge.fields) <= MOST_FIELDS
    assert len(world.read(**{"n" * 1000: 1}, large="x" * (1 << 20)).doubts) == 0


async def test_a_field_whose_values_all_did_nothing_is_not_asked_about_again() -> None:
    """A request's own number: four of them tell."""
    world = World(Engine())
    await world.template.meet(world.facts)
    for number in range(20):
        world.read(number=number)
        await world.template.ask_all()
    assert world.template.asked == 4
    assert world.template.relevant(Head(extra=b'{"number":99}', kwargs=b"{}")) == Head(kwargs=b"{}")
    assert msgspec.json.decode(msgspec.json.encode(world.tenant.knowledge.fields)).keys() == {"number"}


async def test_an_engine_that_does_not_answer_is_asked_later() -> None:
    """The question stays, and does not go round in circles."""
    world = World(Engine())
    await world.template.meet(world.facts)
    world.engine.fault = EngineUnavailable("gone")
    world.read(new=1)
    await world.template.ask_all()
    await world.template.ask_all()
    assert len(world.engine.bodies) == 1
    assert world.template.patience() > 0
    world.engine.fault = None
    world.ticks += 60
    await world.template.ask_all()
    assert not world.read(new=1).doubts


async def test_the_service_asks_as_soon_as_there_is_something() -> None:
    """And can be cancelled at any time."""
    world = World(Engine())
    await world.template.meet(world.facts)
    learnt, learn = asyncio.Event(), world.template.learn

    def learning(doubt: Doubt, *, prints: bool) -> None:
        learn(doubt, prints=prints)
        learnt.set()

    world.template.learn = learning  # type: ignore[method-assign]
    service = aio.spawn(world.template.run(), name="chat template")
    assert world.read(new=1).doubts
    await learnt.wait()
    assert not world.read(new=1).doubts
    service.cancel()
    await aio.finish([service])
    assert LAST in str(world.engine.bodies)
