"""Slot actions: alone on the engine, on the right slot, and honest about what nobody knows any more."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from bioproxy import aio
from bioproxy.config.schema import Kv
from bioproxy.engines.answers import Timings
from bioproxy.engines.pace import Look
from bioproxy.errors import EngineRefused, EngineUnavailable
from bioproxy.events import Bus
from bioproxy.gate.gate import Gate
from bioproxy.kv import actions
from bioproxy.kv.actions import Actions
from bioproxy.kv.chain import chain
from bioproxy.kv.decisions import Decisions, Plan
from bioproxy.kv.resident import Brought, Prepared, Resident, Residents, State
from bioproxy.kv.restorer import Restorer
from bioproxy.kv.saver import Pause, Saver
from bioproxy.kv.shelves import Tenant
from bioproxy.kv.snapshot import Snapshot
from bioproxy.prompt import Piece
from support.config_files import settings

REFUSED = EngineRefused("no slots here", status=501)


class Engine:
    """An engine that tells how full its slots are, and whose erase may be refused."""

    def __init__(self, *sizes: int | None, tasks: tuple[int, ...] = (), error: Exception | None = None) -> None:
        self.sizes = sizes
        self.tasks = tasks or (None,) * len(sizes)
        self.error = error
        self.busy: int | None = None
        self.erased: list[int] = []
        self.asked: list[tuple[str, bytes]] = []
        self.kept = 699  # tokens of 700 that its RAM cache has
        self.hangs = False
        self.never = asyncio.Event()

    async def ask(self, target: bytes) -> Look:
        assert target == b"/slots"
        if self.error is not None:
            raise self.error
        if not self.sizes:
            await self.never.wait()
        both = enumerate(zip(self.sizes, self.tasks, strict=True))
        views = [
            {"id": number, "n_prompt_tokens": size, "id_task": task, "is_processing": number == self.busy}
            for number, (size, task) in both
        ]
        return Look(200, [], msgspec.json.encode(views), 5.0)

    async def erase(self, slot: int) -> object:
        if self.error is not None:
            raise self.error
        self.erased.append(slot)
        return None

    async def again(self, path: str, body: bytes) -> Timings:
        if self.error is not None:
            raise self.error
        self.asked.append((path, body))
        if self.hangs:
            await self.never.wait()
        return Timings(cached=self.kept, evaluated=700 - self.kept)


def made(engine: Any, *, slots: int = 1) -> Actions:
    config, bus = Kv(), Bus()
    tenant = Tenant(config=config, bus=bus)
    saver, decisions = Saver(engine, tenant, Pause(tenant)), Decisions(config, tenant)
    return Actions(engine, saver, Restorer(engine, tenant, decisions), Residents(slots), decisions)


SOMETHING = Brought(Snapshot(id="0", fingerprint="", build="", cuts=(), tokens=9, prompt=9, size=9), 0.0)
NOBODYS: Any = {"group": "", "prefix": "", "version": ""}


def filled(place: Resident, text: str, tokens: int) -> Resident:
    cuts = chain("", [Piece("", text.encode())])
    place.fill(cuts, prompt=tokens, tokens=tokens, group="", prefix="", version="")
    return place


def slots_with(found: Actions, *tokens: int) -> list[Resident]:
    """The slots, with so many tokens each."""
    return [filled(slot, str(count), count) for slot, count in zip(found.residents.slots, tokens, strict=True)]


async def test_one_slot_is_never_looked_for() -> None:
    """Rule 5: with one slot nothing is asked."""
    made_up = made(Engine(error=REFUSED))
    place = made_up.residents.slots[0]
    assert (await made_up.holding(place), await made_up.slot_for(place)) == (0, 0)


async def test_a_slot_is_known_by_its_tokens() -> None:
    """Rule 23: the only one with that many; two of them tell nothing."""
    found = made(Engine(120, 700, 300), slots=3)
    place = filled(found.residents.slots[0], "a", 700)
    assert await found.holding(place) == 1
    ambiguous = made(Engine(700, 700, 300), slots=3)
    assert await ambiguous.holding(filled(ambiguous.residents.slots[0], "a", 700)) is None
    assert await found.holding(Resident()) is None


async def test_slots_with_as_many_tokens_are_told_apart_by_their_turns() -> None:
    """Their tasks have numbers, and our requests had an order; the exact count goes first."""
    found = made(Engine(700, 701, 700, tasks=(9, 7, 4)), slots=3)
    old, odd, new = found.residents.slots
    for turn, (place, tokens) in enumerate(((old, 700), (odd, 701), (new, 700))):
        filled(place, str(turn), tokens).turn = turn
    assert [await found.holding(place) for place in (old, odd, new)] == [2, 1, 0]


async def test_what_the_counts_disprove_is_forgotten() -> None:
    """The server chose another slot than we thought. What it overwrote is lost, and hides nobody's slot any more."""
    found = made(Engine(700, 300, None), slots=3)
    wrong, lost, right = slots_with(found, 500, 400, 700)
    found.residents.found(wrong, 0)
    assert await found.holding(right) == 0
    assert [one.whole for one in (wrong, lost, right)] == [False, False, True]
    assert wrong.slot is None


async def test_what_a_slot_at_work_tells_disproves_nothing() -> None:
    """Nor does a slot into which something was restored: until a task ran there it tells nothing."""
    engine = Engine(700, 300, None)
    engine.busy = 0
    found = made(engine, slots=3)
    one, other, restored = slots_with(found, 500, 300, 9)
    found.residents.found(one, 0)
    assert await found.holding(other) == 1
    assert one.whole
    engine.busy = None
    restored.brought = SOMETHING
    assert await found.holding(other) == 1
    assert (one.whole, restored.whole) == (False, True)


async def test_what_no_slot_holds_is_not_looked_for() -> None:
    """It is in the server's RAM cache."""
    found = made(Engine(700, None), slots=2)
    place = filled(found.residents.slots[0], "a", 700)
    place.state = State.PARKED
    assert await found.holding(place) is None


async def test_a_slot_that_was_restored_is_not_empty() -> None:
    """facts, 1: until a task ran there the engine tells nothing of it."""
    found = made(Engine(None, None), slots=2)
    found.residents.settle(filled(found.residents.slots[0], "a", 700), 0)
    assert await found.slot_for(found.residents.slots[1]) == 1


async def test_a_slot_whose_number_is_known_is_not_looked_for() -> None:
    """Our own prefills and restores tell where they went."""
    found = made(Engine(error=REFUSED), slots=2)
    place = filled(found.residents.slots[1], "a", 700)
    found.residents.found(place, 1)
    assert await found.holding(place) == 1


async def test_two_conversations_are_never_in_one_slot() -> None:
    """Whoever was thought to be where another turned out to be is not there."""
    residents = Residents(2)
    one, other = (filled(slot, text, 5) for slot, text in zip(residents.slots, "ab", strict=True))
    residents.found(one, 0)
    residents.found(other, 0)
    assert (one.slot, one.whole, other.slot, other.whole) == (None, False, 0, True)


async def test_an_empty_slot_is_restored_into_first() -> None:
    """Nothing is lost there; else the one that the request would take anyway."""
    found = made(Engine(120, None, 300), slots=3)
    assert await found.slot_for(filled(found.residents.slots[0], "a", 300)) == 1
    full = made(Engine(120, 700, 300), slots=3)
    assert await full.slot_for(filled(full.residents.slots[0], "a", 300)) == 2


async def test_restoring_into_an_unknown_slot_forgets_the_others() -> None:
    """One of them is overwritten, and nobody can say which."""
    found = made(Engine(120, 700), slots=2)
    other = filled(found.residents.slots[1], "b", 700)
    assert await found.slot_for(found.residents.slots[0]) == 0
    assert not other.whole


@pytest.mark.parametrize("engine", ["refuses", "hangs"])
async def test_slots_that_cannot_be_looked_at_are_not_told_apart(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user does not wait for `/slots`."""
    monkeypatch.setattr(actions, "LOOK", 0.01)
    found = made(Engine(error=REFUSED) if engine == "refuses" else Engine(), slots=2)
    assert await found.holding(filled(found.residents.slots[0], "a", 700)) is None


def parked(found: Actions, text: str) -> Resident:
    """A conversation that the server moved into its RAM cache."""
    found.residents.memory = 1e9
    place = filled(Resident(), text, 700)
    place.again = ("/completion", b"{}")
    found.residents.park(place)
    return found.residents.parked[0]


async def test_what_the_server_keeps_in_memory_is_brought_into_a_slot() -> None:
    """Its request is asked again, and the account says that the slot holds its prompt."""
    engine = Engine(700)
    found = made(engine)
    place = await found.unpark(parked(found, "a"))
    assert place is found.residents.slots[0]
    assert (engine.asked, place.tokens, place.savable) == ([("/completion", b"{}")], 700, True)
    assert (found.residents.parked, found.lost) == ([], {})


async def test_what_the_server_did_not_keep_is_asked_for_once_only() -> None:
    """It was evaluated anew, which a user may have waited for; the others are given up."""
    engine = Engine(700)
    engine.kept = 0
    found = made(engine)
    one, other = parked(found, "a"), parked(found, "b")
    assert await found.unpark(one) is not None
    assert await found.unpark(other) is None
    assert (len(engine.asked), found.lost) == (1, {"forgotten": 1})


async def test_a_slot_that_the_server_would_go_on_from_is_not_taken() -> None:
    """It shares most of what it holds with the request, so the server would not look into its memory."""
    engine = Engine(700)
    found = made(engine)
    found.residents.slots[0].fill(chain("", [Piece("", b"a"), Piece("", b"b")]), prompt=700, tokens=700, **NOBODYS)
    place = parked(found, "a")
    place.cuts = chain("", [Piece("", b"a"), Piece("", b"other")])
    assert await found.unpark(place) is None
    assert (engine.asked, found.lost) == ([], {"forgotten": 1})


@pytest.mark.parametrize(("error", "doubt"), [(REFUSED, False), (EngineUnavailable("it is gone"), True)])
async def test_a_request_that_cannot_be_asked_again_is_lost(error: Exception, *, doubt: bool) -> None:
    """Refused: the next one may work. Gone in the middle: nobody knows what the slot holds (rule 4)."""
    found = made(Engine(700, error=error))
    assert await found.unpark(parked(found, "a")) is None
    assert (found.lost, bool(found.decisions.doubt), found.residents.parked) == ({"forgotten": 1}, doubt, [])


async def test_no_more_than_some_requests_are_kept() -> None:
    """While saving is paused for long, the oldest are given up: each is text in our memory."""
    found = made(Engine(700))
    found.residents.memory = 1e9
    for number in range(actions.PARKED + 3):
        place = filled(Resident(), str(number), 700)
        place.again = ("/completion", b"{}")
        found.displace(Plan(place, displaces=True), "busy")
    assert (len(found.residents.parked), found.lost) == (actions.PARKED, {"forgotten": 3})


async def test_a_request_that_is_asked_again_in_vain_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user may wait for it. The engine may be at it for a while yet (rule 4); what other slots hold stays known."""
    monkeypatch.setattr(actions, "RECALL", 0.01)
    engine = Engine(700, 600)
    engine.hangs = True
    found = made(engine, slots=2)
    other = filled(found.residents.slots[1], "b", 600)
    other.turn = 1
    assert await found.unpark(parked(found, "a")) is None
    assert (found.lost, bool(found.decisions.doubt), other.whole) == ({"forgotten": 1}, True, True)


async def test_strict_isolation_refuses_rather_than_mixes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 22: while another request runs the slot cannot be erased; after a while that is a 503."""
    monkeypatch.setattr(actions, "STRICT_WAIT", 0.05)
    engine = Engine(100)
    found, gate = made(engine), Gate(settings(), capacity=2)
    running, user = await gate.acquire(), await gate.acquire()
    plan = Plan(found.residents.slots[0], erase=True)
    with pytest.raises(EngineUnavailable) as refused:
        await found.carry_out(plan, user, Prepared())
    assert (refused.value.status, engine.erased) == (503, [])
    running.release()
    await found.carry_out(plan, user, Prepared())
    assert (engine.erased, user.exclusive) == ([0], False)


async def test_an_erase_that_fails_is_told() -> None:
    """Rule 22: the promise cannot be kept, so the request is not served; others can be."""
    found, gate = made(Engine(error=REFUSED)), Gate(settings())
    grant = await gate.acquire()
    with pytest.raises(EngineRefused):
        await found.carry_out(Plan(found.residents.slots[0], erase=True), grant, Prepared())
    assert not grant.exclusive


async def test_cancelling_the_wait_for_an_erase_leaves_the_grant_shared() -> None:
    """A client that leaves while it waits to be alone."""
    found, gate = made(Engine()), Gate(settings(), capacity=2)
    running, user = await gate.acquire(), await gate.acquire()
    plan = Plan(found.residents.slots[0], erase=True)
    waiting = aio.spawn(found.carry_out(plan, user, Prepared()), name="client")
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    running.release()
    user.release()
    assert gate.idle


async def test_doubt_forgets_what_is_resident() -> None:
    """Rule 4: after an action that timed out nothing is known."""
    found = made(Engine())
    filled(found.residents.slots[0], "a", 5)
    known = []
    for reason in ("", "a restore did not end within 5 s"):
        found.doubted(reason)
        known.append((found.residents.slots[0].whole, bool(found.decisions.doubt)))
    assert known == [(True, False), (False, True)]


async def test_what_nobody_expected_fails_no_request(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, what the slots hold is unknown; only a slot that must be erased first is a reason to refuse."""
    made_ready = made(Engine(700, error=ValueError("a bug")))
    place = filled(made_ready.residents.slots[0], "a", 700)
    grant = await Gate(settings(), capacity=1).acquire()
    prepared = Prepared(place=place)

    async def wrong(*_: object, **__: object) -> bool:
        raise ValueError("a bug")

    made_ready.saver.save = wrong  # type: ignore[method-assign]
    await made_ready.carry_out(Plan(place, b"", save=True), grant, prepared)
    assert (prepared.status, place.cuts, grant.exclusive) == ("failed", (), False)
    assert "a bug" in caplog.text
    with pytest.raises(EngineUnavailable, match="a bug"):
        await made_ready.carry_out(Plan(place, b"", erase=True), grant, prepared)
    grant.release()
