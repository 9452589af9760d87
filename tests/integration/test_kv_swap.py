"""A model is swapped out and comes back: what is saved before, restored after, and how little is asked in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bioproxy import aio
from bioproxy.config.schema import Kv
from bioproxy.events import Bus, SnapshotRestored
from bioproxy.kv import moments
from bioproxy.kv.shelves import Shelves
from fakes.fake_engine import FakeEngine
from fakes.real_engine import RealEngine, reason_to_skip
from support.apps import MS
from support.http import free_port
from support.kv_rig import Rig, rig, text

SPEED = 5000  # prompt tokens per second
LONG, OTHER = text(500, "a"), text(480, "b")
A, B, C = text(330, "conversation a"), text(330, "quite another"), text(340, "a third one")  # 1500 tokens each
real = [pytest.mark.real_engine, pytest.mark.skipif(bool(reason_to_skip), reason=reason_to_skip)]


def fake(one: Rig) -> FakeEngine:
    """The engine, which is a fake one here."""
    assert isinstance(one.engine, FakeEngine)
    return one.engine


@asynccontextmanager
async def started(folder: Path, *, engine: Any = None, options: Any = None, **config: Any) -> AsyncIterator[Rig]:
    """A fake engine with a keeper; `engine` are its flags."""
    flags = {"tokens_per_second": SPEED, "port": free_port(), **(engine or {})}
    async with FakeEngine(slot_folder=folder, **flags) as process, rig(process, options=options, **config) as one:
        yield one
        assert await process.violations() == []


async def actions(one: Rig) -> list[str]:
    """Which slot actions the engine was asked for, since `forget`."""
    found = [request.target.partition("action=")[2] for request in await fake(one).requests()]
    return [action for action in found if action in ("save", "restore", "erase")]


# the real engine, however many slots it has


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param({}, id="one slot", marks=real),
        pytest.param({"parallel": 4, "kv_unified": True}, id="four slots on one buffer", marks=real),
        pytest.param({"parallel": 4, "no_kv_unified": True}, id="four slots", marks=real),
    ],
)
async def test_two_conversations_come_back_after_a_swap(tmp_path: Path, flags: dict[str, Any]) -> None:
    """Rules 17, 20, 21: one after the other, then the engine is stopped; nothing is computed again."""
    engine = RealEngine(slot_folder=tmp_path, ctx_size=16384, **flags)
    async with engine, rig(engine, min_seconds=0.001) as one:
        one.gate.resize(int(flags.get("parallel", 1)))
        first = {words: await one.ask(words) for words in (A, B)}
        wants = [one.want(words, asked.answer, " more") for words, asked in first.items()]
        await one.restart(wants)
        for words, asked in first.items():
            again = await one.ask(words, asked.answer, " more")
            assert again.prepared.status == "restored"
            assert again.cached > 1400
            assert again.evaluated < 10
        assert one.keeper.statistics().restores == {"ok": 2}


@pytest.mark.real_engine
@pytest.mark.skipif(bool(reason_to_skip), reason=reason_to_skip)
async def test_many_conversations_survive_on_slots_that_are_cleared(tmp_path: Path) -> None:
    """facts, 0.10: three in turn, twice: each is saved when the next one drives it out of its slot.

    The second turn is short; whether its save costs a tenth of what it preserves or more is a matter of the machine.
    """
    engine = RealEngine(slot_folder=tmp_path, ctx_size=16384, parallel=4, kv_unified=True)
    async with engine, rig(engine, min_seconds=0.001) as one:
        one.gate.resize(4)
        talks = {words: [words] for words in (A, B, C)}
        for _ in range(2):
            for talk in talks.values():
                asked = await one.ask(*talk)
                talk += [asked.answer, text(20, " and then")]
        await one.restart([])
        for talk in talks.values():
            again = await one.ask(*talk)
            assert again.cached > 1400
            assert again.evaluated < 400


# before the stop


async def test_what_pays_is_saved_before_the_stop(tmp_path: Path) -> None:
    """Rule 20: the seconds that it took come back; what is on disk already is not written again."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        assert await one.keeper.moments.save_before_stop(limit=10) > 0
        await one.settle()
        assert len(one.keeper.list()) == 1
        assert await one.keeper.moments.save_before_stop(limit=10) == 0.0
        assert one.gate.idle


async def test_what_does_not_pay_is_not_saved(tmp_path: Path) -> None:
    """Rule 15, for the save as for the restore."""
    async with started(tmp_path, min_seconds=60.0) as one:
        await one.ask(LONG)
        await fake(one).forget()
        assert await one.keeper.moments.save_before_stop(limit=10) == 0.0
        assert await actions(one) == []


async def test_a_shutdown_saves_through_a_gate_that_is_closed_to_all(tmp_path: Path) -> None:
    """The last save gets its grant after everybody else was refused."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        one.gate.refuse(RuntimeError("shutting down"))  # type: ignore[arg-type]
        assert await one.keeper.moments.save_before_stop(limit=10) > 0


async def test_an_engine_that_is_busy_is_not_waited_for_longer_than_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule 20: then the swap goes on without it, and the log says so."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        one.gate.resize(2)
        running = await one.gate.acquire()
        await one.keeper.moments.save_before_stop(limit=0.05)
        assert caplog.text.count("was not saved") == 1
        running.release()
        assert one.gate.idle
        assert one.keeper.list() == ()


async def test_a_save_that_cannot_end_in_time_is_not_begun(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its file would be cut, and the time gone."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        speeds = msgspec.structs.replace(one.keeper.speeds, save=100.0, restore=1e12, token_bytes=80.0)
        one.keeper.tenant.knowledge.speeds = speeds
        await fake(one).forget()
        await one.keeper.moments.save_before_stop(limit=0.5)
        assert await actions(one) == []
        assert "that takes" in caplog.text


async def test_cancelling_a_swap_waits_for_the_save(tmp_path: Path) -> None:
    """The action runs to its end, the accounts are right, and the grant goes back."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        await fake(one).faults(save_seconds=0.2)
        await fake(one).forget()
        task = aio.spawn(one.keeper.moments.save_before_stop(limit=10), name="swap")

        async def saving() -> bool | None:
            return "save" in await actions(one) or None

        assert await aio.poll(saving, interval=0.01, deadline=30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await one.settle()
        assert one.gate.idle
        assert len(one.keeper.list()) == 1


# after the start


async def test_the_first_waiting_request_gets_its_snapshot(tmp_path: Path) -> None:
    """Rule 21: on one slot; `prepare` finds it resident, and the record says restored."""
    async with started(tmp_path) as one:
        first = await one.ask(LONG)
        await one.ask(OTHER)
        await one.restart([one.want(LONG, first.answer, " more"), one.want(OTHER)])
        await fake(one).forget()
        again = await one.ask(LONG, first.answer, " more")
        assert (again.prepared.status, again.prepared.seconds, again.evaluated < 10) == ("restored", 0.0, True)
        assert again.prepared.earlier > 0
        assert "restore" not in await actions(one)
        restored = one.heard(SnapshotRestored)
        assert [(event.status, event.seconds > 0) for event in restored] == [("ok", True)]


async def test_a_restore_before_the_request_is_counted_once(tmp_path: Path) -> None:
    """The second request of the conversation finds it resident."""
    async with started(tmp_path) as one:
        first = await one.ask(LONG)
        await one.restart([one.want(LONG)])
        statuses = [(await one.ask(LONG, first.answer, f" {number}", store=False)).prepared.status for number in "ab"]
        assert statuses == ["restored", "resident"]
        assert one.keeper.statistics().restores == {"ok": 1}


async def test_without_a_request_what_was_used_last_comes_back(tmp_path: Path) -> None:
    """Rule 21: a preload, or a restart; another conversation's request is served all the same."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        other = await one.ask(OTHER)
        await one.restart([])
        assert (await one.ask(OTHER, other.answer, " more")).prepared.status == "restored"
        await one.restart([])
        assert (await one.ask(text(50, "nobody's"), store=False)).prepared.status == ""
        assert one.keeper.statistics().restores == {"ok": 1, "unused": 1}


async def test_a_user_goes_before_what_nobody_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While somebody uses the engine, or waits for it, nothing is restored unasked; the log says why."""
    monkeypatch.setattr(moments, "FREE", 0.01)
    caplog.set_level("DEBUG", logger=moments.__name__)
    async with started(tmp_path) as one:
        await one.ask(LONG)
        await one.restart()
        await fake(one).forget()
        user = await one.gate.acquire()
        assert await one.keeper.moments.fill() == 0
        assert "nothing is restored: the engine was not free in time" in caplog.messages
        user.release()
        monkeypatch.setattr(type(one.gate), "user_waiting", True)
        assert await one.keeper.moments.fill() == 0
        assert await actions(one) == []
        assert one.gate.idle
        monkeypatch.undo()
        assert await one.keeper.moments.fill() == 1


async def test_one_model_after_the_other_is_filled(tmp_path: Path) -> None:
    """Several that were just started do not fight for the disk."""
    shelves = Shelves(Kv(min_free=0), bus=Bus())
    async with started(tmp_path, options={"shelves": shelves}) as one:
        await one.ask(LONG)
        await one.restart()
        await fake(one).forget()
        async with shelves.filling:
            filling = aio.spawn(one.keeper.moments.fill(), name="fill")
            await asyncio.sleep(0)
            await one.settle()
            assert not filling.done()
            assert await actions(one) == []
        assert await filling == 1
    await shelves.close()


async def test_a_long_restore_waits_until_somebody_asks(tmp_path: Path) -> None:
    """Whoever comes for something else would have to wait for its end."""
    async with started(tmp_path) as one:
        asked = await one.ask(LONG)
        await one.restart()
        slow = msgspec.structs.replace(one.keeper.speeds, restore=1e4, prefill=1.0)
        one.keeper.tenant.knowledge.speeds = slow
        assert await one.keeper.moments.fill() == 0
        assert (await one.ask(LONG, asked.answer, " more")).prepared.status == "restored"


@pytest.mark.parametrize(
    ("clears", "filled"), [pytest.param(False, 2, id="each for itself"), pytest.param(True, 1, id="on one buffer")]
)
async def test_each_empty_slot_is_filled(clears: bool, filled: int, tmp_path: Path) -> None:
    """Rule 23: with what was used last; where a request clears idle slots more than one would only be in its way."""
    engine = FakeEngine(slot_folder=tmp_path, tokens_per_second=SPEED, port=free_port(), parallel=2)
    async with engine, rig(engine) as one:
        one.gate.resize(2)
        for seed in "xyz":
            await one.ask(text(300, seed))
            await one.save_idle()
        await one.restart()
        one.keeper.residents.parks = clears
        assert await one.keeper.moments.fill() == filled
        held = [one.keeper.extends(one.want(text(300, seed), " more")) for seed in "xyz"]
        assert held == [False, filled == 2, True]


async def test_a_request_that_leaves_the_snapshot_early_is_no_fault_of_it(tmp_path: Path) -> None:
    """Rule 19: another question behind the same beginning."""
    async with started(tmp_path) as one:
        await one.ask(LONG, text(40, "first question"))
        await one.restart([one.want(LONG, text(40, "second question"))])
        other = await one.ask(LONG, text(40, "second question"))
        assert (other.prepared.status, other.prepared.question, other.cached >= 490) == ("restored", "diverges", True)
        assert one.keeper.statistics().works["diverges"] == "good"


async def test_a_worthless_snapshot_is_found_out(tmp_path: Path) -> None:
    """Rule 6: judged by the first request, as any other restore."""
    async with started(tmp_path, engine={"faults": {"worthless": True}}) as one:
        first = await one.ask(LONG)
        await one.restart([one.want(LONG)])
        await one.ask(LONG, first.answer, " more", store=False)
        assert [event.status for event in one.heard(SnapshotRestored)] == ["worthless"]
        assert one.keeper.list()[0].quarantined


async def test_nobody_gets_another_groups_conversation(tmp_path: Path) -> None:
    """Rule 22."""
    async with started(tmp_path) as one:
        await one.ask(LONG, group="alice")
        await one.restart([one.want(LONG, " more", group="bob")])
        assert one.keeper.statistics().slots[0].state == "empty"


async def test_a_restore_for_nobody_brings_no_groups_conversation(tmp_path: Path) -> None:
    """Rules 21 and 22: after a load or preload another group's request finds only what is the operator's."""
    async with started(tmp_path, options={"everyone": lambda: None}) as one:
        assert await one.warm(OTHER)
        await one.ask(LONG, group="alice")
        await one.restart([])
        assert (await one.ask(LONG, " more", group="bob", store=False)).cached < 10
        assert (await one.ask(OTHER, " question", group="bob", template=True)).cached >= 470


async def test_nothing_is_restored_where_it_does_not_pay_or_must_not_be(tmp_path: Path) -> None:
    """Rule 15, and `kv.policy: off`."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        await one.save_idle()
    for config in ({"min_seconds": 60.0}, {"policy": "off"}):
        async with started(tmp_path, **config) as one:
            await fake(one).forget()
            await one.keeper.moments.bring_back([one.want(LONG)])
            await one.keeper.moments.fill()
            assert await actions(one) == []


async def test_a_slot_that_may_hold_something_is_left_alone(tmp_path: Path) -> None:
    """Somebody uses the engine past us; `prepare` decides when the request comes."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        await one.save_idle()
        await fake(one).forget()
        await one.keeper.moments.bring_back([one.want(LONG, " more")])
        one.keeper.unknown("a client's own slot action")
        await one.keeper.moments.bring_back([one.want(LONG, " more")])
        assert await actions(one) == []


async def test_what_was_just_saved_is_waited_for(tmp_path: Path) -> None:
    """Sync and rename go on while the engine starts; a start that is faster waits for them."""
    go_on = threading.Event()

    def step(name: str) -> None:
        if name == "private" and armed:
            go_on.wait(10)

    armed = False
    async with started(tmp_path, options={"step": step}) as one:
        first = await one.ask(LONG)
        await one.settle()
        armed = True
        await one.restart()
        assert one.keeper.list() == ()
        bringing = aio.spawn(one.keeper.moments.bring_back([one.want(LONG)]), name="start")
        await asyncio.sleep(0)
        assert not bringing.done()
        go_on.set()
        await bringing
        assert (await one.ask(LONG, first.answer, " more")).prepared.status == "restored"


async def test_an_engine_that_dies_in_a_restore_is_not_given_that_file_again(tmp_path: Path) -> None:
    """It is quarantined, nothing is raised, and the next life begins without it."""
    async with started(tmp_path) as one:
        first = await one.ask(LONG)
        await one.restart()
        await fake(one).faults(die="restore")
        await one.keeper.moments.bring_back([one.want(LONG)])
        assert one.keeper.statistics().restores == {"failed": 1}
        await one.restart([one.want(LONG)])
        assert (await one.ask(LONG, first.answer, " more")).prepared.status == ""


async def test_an_engine_that_was_gone_before_a_restore_takes_no_snapshot_with_it(tmp_path: Path) -> None:
    """It never saw the file, so that is not to blame: the next life has it."""
    async with started(tmp_path) as one:
        first = await one.ask(LONG)
        await one.restart()
        await fake(one).kill()
        await one.keeper.moments.bring_back([one.want(LONG)])
        assert one.keeper.statistics().restores == {"failed": 1}
        await one.restart([one.want(LONG)])
        assert (await one.ask(LONG, first.answer, " more")).prepared.status == "restored"


async def test_an_engine_that_is_stopped_in_a_restore_takes_no_snapshot_with_it(tmp_path: Path) -> None:
    """An unload closes our connections, and that is no fault of the file."""
    async with started(tmp_path) as one:
        first = await one.ask(LONG)
        await one.restart()
        await fake(one).faults(restore_seconds=60.0)

        async def asked() -> bool | None:
            return any("action=restore" in request.target for request in await fake(one).requests()) or None

        bringing = aio.spawn(one.keeper.moments.bring_back([one.want(LONG)]), name="start")
        assert await aio.poll(asked, interval=10 * MS, deadline=30.0)
        await one.pool.close()
        await bringing
        one.pool.reopen()
        await one.restart([one.want(LONG)])
        assert (await one.ask(LONG, first.answer, " more")).prepared.status == "restored"


async def test_several_slots_get_a_snapshot_each(tmp_path: Path) -> None:
    """Rule 23: each into an empty slot of its own, one snapshot once, no more than there are slots."""
    engine = FakeEngine(slot_folder=tmp_path, tokens_per_second=SPEED, port=free_port(), parallel=2)
    async with engine, rig(engine) as one:
        one.gate.resize(2)
        words = [text(300, seed) for seed in "xyz"]
        for each in words:
            await one.ask(each)
            await one.save_idle()
        wants = [one.want(each, " more") for each in (words[0], words[0], words[1], words[2])]
        await one.restart(wants)
        assert [slot.tokens > 250 for slot in one.keeper.residents.slots] == [True, True]
        assert [one.keeper.extends(want) for want in wants] == [True, True, True, False]
        assert [len(one.keeper.list()), one.keeper.statistics().restores] == [3, {}]


async def test_slots_on_one_buffer_get_only_what_fits(tmp_path: Path) -> None:
    """A restore that is refused for want of room would empty the slot, and blame the file."""
    async with started(tmp_path) as one:
        decisions = one.keeper.decisions
        for each in (LONG, OTHER):
            await one.ask(each)
            await one.save_idle()
        one.keeper.residents.resize(4)
        decisions.room = 900
        assert len(one.keeper.moments.wanted([one.want(LONG), one.want(OTHER)], 4)) == 1
        decisions.room = 2000
        assert len(one.keeper.moments.wanted([one.want(LONG), one.want(OTHER)], 4)) == 2


# several models


async def test_two_models_share_a_folder(tmp_path: Path) -> None:
    """One table and one lock: swapped in turn, each comes back with its own."""
    shelves = Shelves(Kv(min_free=0), bus=Bus())
    options = {"shelves": shelves}
    usual = {"weights": "other", "build": "b2"}
    async with started(tmp_path, options=options) as one, started(tmp_path, engine=usual, options=options) as two:
        answers = {id(each): (await each.ask(LONG)).answer for each in (one, two)}
        for each in (one, two, one):
            await each.restart([each.want(LONG)])
            again = await each.ask(LONG, answers[id(each)], " more", store=False)
            assert (again.prepared.status, again.evaluated < 10) == ("restored", True)
        assert [len(each.keeper.list()) for each in (one, two)] == [1, 1]
        assert one.keeper.statistics().notes == two.keeper.statistics().notes
        assert len(shelves.list()) == 2
    await shelves.close()


async def test_a_model_that_is_stopped_keeps_its_folder(tmp_path: Path) -> None:
    """Its snapshots are listed, and nobody else gets the lock; another model's keeper that ends changes nothing."""
    shelves = Shelves(Kv(min_free=0), bus=Bus())
    options = {"shelves": shelves}
    async with started(tmp_path, options=options) as one:
        await one.ask(LONG)
        async with started(tmp_path, engine={"build": "b2"}, options=options):
            await one.save_idle()
            one.keeper.gone("swapped out")
        assert len(one.keeper.list()) == 1
        assert [shelf.open for shelf in shelves.statistics()] == [True]
    assert [shelf.open for shelf in shelves.statistics()] == [False]


# the second life


async def test_a_second_life_is_met_with_one_question(tmp_path: Path) -> None:
    """What the model is, what lies in the folder, and that the engine writes there: all of it is known."""
    async with started(tmp_path, known={"started": None}) as one:
        await one.restart()
        tenure = one.keeper.tenant.shelf.tenure
        await fake(one).forget()
        await one.restart()
        targets = [request.target for request in await fake(one).requests()]
        assert targets == ["/props", "/slots"]
        assert one.keeper.tenant.shelf.tenure == tenure
        assert one.keeper.actions.saving


async def test_another_command_is_proved_anew(tmp_path: Path) -> None:
    """It may write elsewhere."""
    async with started(tmp_path) as one:
        await fake(one).restart(batch_size=256)
        one.keeper.gone("restarted")
        await fake(one).forget()
        await one.attach()
        assert "save" in await actions(one)
