"""The way of a request past the keeper, on the fake engine: what is restored, when, and what it must never do.

Prompts are joined from their pieces, so a shared row of texts is a shared beginning of tokens.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bioproxy import aio
from bioproxy.engines.answers import Timings
from bioproxy.engines.pace import PERIOD
from bioproxy.events import SnapshotDropped, SnapshotMissing, SnapshotRestored
from fakes.fake_engine import FakeEngine
from support.kv_rig import Rig, rig, text
from support.leaks import until

SPEED = 5000  # prompt tokens per second
LONG = text(500, "a")


@asynccontextmanager
async def started(folder: Path, *, engine: dict[str, Any] | None = None, **config: Any) -> AsyncIterator[Rig]:
    """A fake engine with a keeper; `engine` are its flags."""
    flags = {"tokens_per_second": SPEED, **(engine or {})}
    async with FakeEngine(slot_folder=folder, **flags) as process, rig(process, **config) as one:
        yield one
        assert await process.violations() == []


def fake(one: Rig) -> FakeEngine:
    """The engine, which is a fake one here."""
    assert isinstance(one.engine, FakeEngine)
    return one.engine


async def restart(one: Rig, **flags: Any) -> None:
    """Kill the engine, start it again, attach again."""
    await fake(one).restart(**flags)
    one.keeper.gone("killed")
    await one.attach()


async def displace(one: Rig) -> None:
    """Let a conversation that nobody keeps take the slot."""
    await one.ask(text(60, "another"), store=False)


async def test_a_conversation_comes_back_after_a_restart(tmp_path: Path) -> None:
    """Saved when idle, restored when it goes on: only the new words are evaluated."""
    async with started(tmp_path) as one:
        first = await one.ask(LONG)
        assert await one.save_idle() == 1
        await restart(one)
        second = await one.ask(LONG, first.answer, " and more?")
        assert second.prepared.status == "restored"
        assert second.evaluated < 10
        assert [event.status for event in one.heard(SnapshotRestored)] == ["ok"]
        assert one.keeper.list()[0].uses == 1


async def test_what_is_resident_is_not_restored(tmp_path: Path) -> None:
    """Rule 15: the slot holds the conversation, so nothing is asked of the disk."""
    async with started(tmp_path) as one:
        first = await one.ask(LONG)
        await one.save_idle()
        second = await one.ask(LONG, first.answer, " and more?")
        assert (second.prepared.status, second.prepared.seconds) == ("resident", 0.0)
        assert second.evaluated < 10


async def test_a_restore_that_does_not_pay_is_left_out(tmp_path: Path) -> None:
    """Rule 15: less prefill than `kv.min_seconds` is simply computed."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        await one.save_idle()
    async with started(tmp_path, min_seconds=60.0) as one:
        again = await one.ask(LONG, " more")
        assert again.prepared.status == ""
        assert again.cached == 0


async def test_another_question_gets_the_common_beginning_back(tmp_path: Path) -> None:
    """Rule 19: after [system, question 1] was saved, [system, question 2] finds the system part on disk."""
    async with started(tmp_path) as one:
        await one.ask(LONG, text(40, "first question"))
        await one.save_idle()
        await restart(one)
        other = await one.ask(LONG, text(40, "second question"))
        assert (other.prepared.status, other.prepared.question) == ("restored", "diverges")
        assert other.cached >= 490
        assert one.keeper.statistics().works["diverges"] == "good"


async def test_a_question_to_a_saved_document_is_not_saved_with_it(tmp_path: Path) -> None:
    """Rule 17, by the engine's own count: how much of the slot stands on disk is known to the token."""
    document = text(500, "doc")
    async with started(tmp_path, min_seconds=150 / SPEED) as one:
        await one.ask(f"{document} what is it?")
        assert await one.save_idle() == 1
        for _ in range(2):
            assert (await one.ask(f"{document} who wrote it?")).cached > 400
            assert await one.save_idle() == 0
            await restart(one)
        await one.ask(f"{document} who wrote it?", text(200, "in short"))
        assert await one.save_idle() == 1


async def test_what_the_engine_kept_in_memory_is_not_taken_for_saved(tmp_path: Path) -> None:
    """A conversation that comes back from the RAM cache takes the slot of one on disk, and stands on none itself."""
    async with started(tmp_path) as one:
        talk = text(500, "talk")
        first = await one.ask(talk, store=False)
        await one.ask(LONG)
        assert await one.save_idle() == 1
        again = await one.ask(talk, first.answer, " and?")
        assert again.cached > 400
        assert await one.save_idle() == 1


async def test_a_model_on_which_diverging_restores_are_worthless_is_remembered(tmp_path: Path) -> None:
    """Rule 19: on SWA and hybrid models only snapshots that the request extends count, once that was seen."""
    async with started(tmp_path, engine={"faults": {"worthless": True}}) as one:
        await one.ask(LONG, text(40, "first question"))
        await one.save_idle()
        await restart(one)
        tried = await one.ask(LONG, text(40, "second question"), store=False)
        assert tried.prepared.status == "restored"
        assert one.keeper.statistics().works["diverges"] == "worthless"
        assert one.keeper.list()[0].quarantined == ""
        await displace(one)
        assert (await one.ask(LONG, text(40, "third question"), store=False)).prepared.status == ""


async def test_a_worthless_snapshot_is_quarantined(tmp_path: Path) -> None:
    """Rule 6: restored, and the engine used nothing of it: counted, said, never tried again."""
    async with started(tmp_path, engine={"faults": {"worthless": True}}) as one:
        assert await one.warm(LONG)
        await restart(one)
        used = await one.ask(LONG, " question", template=True, store=False)
        assert (used.prepared.status, used.cached) == ("restored", 0)
        assert [event.status for event in one.heard(SnapshotRestored)] == ["worthless"]
        assert "used 0 of" in one.keeper.snapshots()[0].unused
        await displace(one)
        assert (await one.ask(LONG, " question", template=True, store=False)).prepared.status == ""


async def test_a_quarantine_outlives_a_restart(tmp_path: Path) -> None:
    """Rule 6: the verdict stands beside the file."""
    async with started(tmp_path, engine={"faults": {"worthless": True}}) as one:
        await one.warm(LONG)
        await restart(one)
        await one.ask(LONG, " question", template=True, store=False)
    async with started(tmp_path) as one:
        assert [bool(found.quarantined) for found in one.keeper.list()] == [True]
        assert (await one.ask(LONG, " question", template=True)).prepared.status == ""


async def test_a_template_that_was_worthless_is_not_saved_again(tmp_path: Path) -> None:
    """A warm-up must not write the same file for ever."""
    async with started(tmp_path, engine={"faults": {"worthless": True}}) as one:
        await one.warm(LONG)
        await restart(one)
        await one.ask(LONG, " question", template=True, store=False)
        assert not await one.warm(LONG)
        assert len(one.keeper.list()) == 1


async def test_the_reason_is_told_as_long_as_it_holds(tmp_path: Path) -> None:
    """Rule 6: in `/status` and beside each snapshot, over another attach, until a restore is tried again."""
    async with started(tmp_path, engine={"faults": {"worthless": True}}) as one:
        for name in ("first", "second", "third"):
            await one.warm(text(300, name), prefix=f"@{name}")
        for name in ("first", "second"):
            await one.ask(text(300, name), " question", template=True, store=False)
        for _ in range(2):
            await restart(one)
            assert "brought nothing back" in "".join(one.keeper.statistics().notes)
            assert all(snapshot.unused for snapshot in one.keeper.snapshots())
        now = one.keeper.tenant.shelf.wall()
        one.keeper.tenant.shelf.wall = lambda: now + 90000
        assert "brought nothing back" not in "".join(one.keeper.statistics().notes)
        assert [bool(snapshot.unused) for snapshot in one.keeper.snapshots()].count(False) == 1


async def test_a_restore_of_which_nothing_was_used_is_no_success(tmp_path: Path) -> None:
    """Also where it is no fault of the file: another question to the same beginning, and the same question again."""
    async with started(tmp_path, engine={"faults": {"worthless": True}}) as one:
        for number, asked in enumerate((text(40, "another question"), text(40, "a question"))):
            long = text(500, str(number))
            await one.ask(long, text(40, "a question"))
            await one.save_idle()
            await displace(one)
            await one.ask(long, asked, store=False)
        assert one.keeper.statistics().restores == {"worthless": 2}
        assert [event.status for event in one.heard(SnapshotRestored)] == ["worthless", "worthless"]
        assert not any(snapshot.unused or snapshot.uses for snapshot in one.keeper.snapshots())


async def test_a_truncated_snapshot_never_reaches_the_engine(tmp_path: Path) -> None:
    """Rule 1: a cut file would kill the engine; it is dropped, and the request is served cold."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        await one.save_idle()
        await restart(one)
        os.truncate(tmp_path / one.keeper.list()[0].name, 5000)
        again = await one.ask(LONG, " more")
        assert (again.prepared.status, again.cached) == ("skipped", 0)
        assert one.engine.running
        assert [event.reason for event in one.heard(SnapshotDropped)] == ["changed"]
        assert one.keeper.list() == ()


async def test_a_snapshot_that_the_engine_refuses_is_quarantined(tmp_path: Path) -> None:
    """Rule 10: a failed restore leaves the slot empty; the request is served cold and the file not tried again."""
    async with started(tmp_path, known={"command": ("llama-server",)}) as one:
        await one.ask(LONG)
        await one.save_idle()
        # another model, and nothing that we can see tells so
        await restart(one, shape="other")
        again = await one.ask(LONG, " more")
        assert again.prepared.status == "failed"
        assert again.cached == 0
        assert "restoring it failed" in one.keeper.list()[0].quarantined
        assert [event.status for event in one.heard(SnapshotRestored)] == ["failed"]


async def test_a_snapshot_that_the_engine_dies_of_is_never_tried_again(tmp_path: Path) -> None:
    """Kill in a restore: the request falls back, and after the restart the file stays unused."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        await one.save_idle()
        await restart(one)
        await fake(one).faults(die="restore")
        want = one.want(LONG, " more")
        with await one.gate.acquire() as grant:
            prepared = await one.keeper.prepare(want, grant)
        assert prepared.status == "failed"
        await restart(one)
        assert (await one.ask(LONG, " more")).prepared.status == ""


async def test_nobody_gets_another_groups_conversation(tmp_path: Path) -> None:
    """Rule 22: the same words from another group are computed; the owner gets the file."""
    async with started(tmp_path) as one:
        await one.ask(LONG, group="alice")
        await one.save_idle()
        await restart(one)
        foreign = await one.ask(LONG, " more", group="bob", store=False)
        assert (foreign.prepared.status, foreign.cached) == ("", 0)
        await displace(one)
        assert (await one.ask(LONG, " more", group="alice")).prepared.status == "restored"


async def test_templates_are_shared_by_all_groups(tmp_path: Path) -> None:
    """Rule 22: a template's snapshot holds nothing of a user."""
    async with started(tmp_path) as one:
        assert await one.warm(LONG)
        await restart(one)
        for group in ("alice", "bob"):
            asked = await one.ask(LONG, f" question of {group}", group=group, template=True, store=False)
            assert asked.cached >= 490


async def test_a_template_that_stays_resident_is_in_use(tmp_path: Path) -> None:
    """Rule 21: it is the likeliest to be wanted next, and does not age, though its file was not read for days."""
    async with started(tmp_path) as one:
        await one.warm(LONG)
        await one.warm(text(300, "another"), prefix="@other")
        await one.ask(LONG, " question", template=True, prefix="@code", store=False)
        now = one.keeper.tenant.shelf.wall() + 86400
        one.keeper.tenant.shelf.wall = lambda: now
        asked = await one.ask(LONG, " another question", template=True, prefix="@code", store=False)
        assert (asked.prepared.status, asked.prepared.snapshot) == ("resident", None)
        assert [(one.prefix, one.used == now, one.uses) for one in one.keeper.list()] == [
            ("@code", True, 1),
            ("@other", False, 0),
        ]


async def test_a_template_that_is_nowhere_is_counted(tmp_path: Path) -> None:
    """Neither in a slot nor on disk; a conversation without a template has nothing that could be missing."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        for question in (" one", " two"):
            await one.ask(text(300, "other"), question, template=True, prefix="@code", store=False)
        assert [event.prefix for event in one.heard(SnapshotMissing)] == ["@code"]
        assert one.heard(SnapshotRestored) == []


async def test_a_templates_end_is_restored_in_mid_message(tmp_path: Path) -> None:
    """The prompt prefix ends at a mark inside a message, and is found by the request that goes on from there."""
    async with started(tmp_path) as one:
        await one.warm(LONG)
        await restart(one)
        asked = await one.ask(LONG + " what does it do?", marks=(len(LONG),))
        assert (asked.prepared.status, asked.prepared.question) == ("restored", "templates")


async def test_what_a_restore_discards_survives_in_the_engines_memory(tmp_path: Path) -> None:
    """Rule 16: a poke before the restore moves the resident conversation into the server's RAM cache."""
    async with started(tmp_path) as one:
        await one.warm(LONG)
        mine = await one.ask(text(600, "mine"), store=False)
        assert (await one.ask(LONG, " question", template=True, store=False)).prepared.status == "restored"
        back = await one.ask(text(600, "mine"), mine.answer, " more", store=False)
        assert back.evaluated < 10


async def test_nothing_is_poked_without_a_ram_cache(tmp_path: Path) -> None:
    """Rule 16: with --cache-ram 0 the poke would be for nothing."""
    async with started(tmp_path, engine={"cache_ram": 0}) as one:
        await one.warm(LONG)
        await one.ask(text(600, "mine"), store=False)
        await fake(one).forget()
        assert (await one.ask(LONG, " question", template=True)).prepared.status == "restored"
        paths = [request.target for request in await fake(one).requests()]
        assert paths == ["/slots/0?action=restore", "/completion"]


async def test_a_displaced_conversation_is_saved_first(tmp_path: Path) -> None:
    """Rule 17: it costs a fraction of what it preserves, so the next one waits for that save."""
    async with started(tmp_path) as one:
        first = await one.ask(text(600, "mine"))
        other = await one.ask(text(100, "yours"))
        assert other.prepared.save_seconds > 0
        await one.settle()
        await restart(one)
        assert (await one.ask(text(600, "mine"), first.answer, " more")).prepared.status == "restored"


async def talk_while_another_runs(one: Rig, *, conversations: int) -> list[str]:
    """One conversation after the other on two slots, while another request holds the engine; what was said."""
    one.gate.resize(2)
    running = await one.gate.acquire()
    said = [(await one.ask(text(300 + 20 * number, f"talk {number}"))).answer for number in range(conversations)]
    running.release()
    return said


async def test_what_is_displaced_while_others_run_is_saved_when_nobody_asks(tmp_path: Path) -> None:
    """Rules 17 and 23: the engine keeps a copy in memory, and gives it back for the request that made it."""
    async with started(tmp_path, engine={"parallel": 2}) as one:
        said = await talk_while_another_runs(one, conversations=4)
        assert await one.save_idle() == 4
        await restart(one)
        for number in range(4):
            again = await one.ask(text(300 + 20 * number, f"talk {number}"), said[number], " more", store=False)
            assert (again.prepared.status, again.evaluated < 20) == ("restored", True)
        assert one.keeper.statistics().lost == {}


async def test_what_is_displaced_while_the_engine_drains_is_saved_when_nobody_asks(tmp_path: Path) -> None:
    """Rule 4 forbids the save before; on one slot, too."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        (await one.gate.acquire()).release(cut=True)
        await one.ask(text(400, "another"))
        assert await one.save_idle() == 2
        assert one.keeper.statistics().lost == {}


async def test_what_is_lost_is_counted_with_the_reason(tmp_path: Path) -> None:
    """Without a copy in the engine's memory; with one that the engine has no room for; with an engine that ends."""
    async with started(tmp_path / "none", engine={"parallel": 2, "cache_ram": 0}) as one:
        await talk_while_another_runs(one, conversations=3)
        assert await one.save_idle() == 2
        assert one.keeper.statistics().lost == {"busy": 1}
    async with started(tmp_path / "full", engine={"parallel": 2}) as one:
        await talk_while_another_runs(one, conversations=3)
        one.keeper.residents.memory = 1000.0
        assert await one.save_idle() == 2
        assert one.keeper.statistics().lost == {"forgotten": 1}
        assert await one.save_idle() == 0
        await one.ask(LONG)
        one.keeper.gone("killed")
        assert one.keeper.statistics().lost == {"forgotten": 1, "ended": 1}


async def test_a_conversation_that_went_on_is_not_asked_for_again(tmp_path: Path) -> None:
    """Its older state would cut off what was said since."""
    async with started(tmp_path, engine={"parallel": 2}) as one:
        said = await talk_while_another_runs(one, conversations=3)
        running = await one.gate.acquire()
        await one.ask(text(300, "talk 0"), said[0], " more")
        running.release()
        await fake(one).forget()
        await one.save_idle()
        assert [len(json.loads(each.body)["prompt"]) for each in await fake(one).requests("/completion")] == [
            len(text(320, "talk 1"))
        ]


async def test_saving_makes_room_for_a_user_after_each_conversation(tmp_path: Path) -> None:
    """A user waits for one save at most; the rest is saved at the next moment."""
    async with started(tmp_path, engine={"parallel": 2}) as one:
        await talk_while_another_runs(one, conversations=2)
        grant = await one.gate.acquire(work="background", exclusive=True)
        waiting = aio.spawn(one.gate.acquire(), name="user")
        await asyncio.sleep(0)
        one.keeper.moments.grown.clear()
        assert await one.keeper.moments.save_idle(grant) == 1
        assert one.keeper.moments.grown.is_set()
        grant.release()
        (await waiting).release()
        assert await one.save_idle() == 1


async def test_a_save_too_dear_for_a_waiting_user_is_left_out(tmp_path: Path) -> None:
    """Rule 17: more than a tenth of the prefill that it preserves."""
    async with started(tmp_path) as one:
        one.keeper.tenant.knowledge.learn(token_bytes=1e6, save=2e6)
        await one.ask(text(600, "mine"))
        other = await one.ask(text(100, "yours"))
        assert other.prepared.save_seconds == 0


async def test_what_must_not_be_stored_is_never_written(tmp_path: Path) -> None:
    """`Cache-Control: no-store`: not when idle, not when displaced; a later turn that may be stored is."""
    async with started(tmp_path) as one:
        first = await one.ask(LONG, store=False)
        assert await one.save_idle() == 0
        await displace(one)
        assert one.keeper.list() == ()
        await one.ask(LONG, first.answer, " you may keep this")
        assert await one.save_idle() == 1


async def test_a_request_that_was_cut_off_leaves_only_what_is_sure(tmp_path: Path) -> None:
    """A client left in mid-stream: what the slot had in common with it counts, and nothing is saved from it."""
    async with started(tmp_path) as one:
        first = await one.ask(LONG)
        await one.save_idle()
        await one.ask(LONG, first.answer, text(300, " cut off"), complete=False)
        assert await one.save_idle() == 0
        again = await one.ask(LONG, first.answer, " in other words")
        assert again.prepared.status == "resident"
        assert again.evaluated < 10


async def test_leaving_in_a_restore_leaves_no_doubt(tmp_path: Path) -> None:
    """A client that is gone in the middle of a slot action: it runs to its end, the account is right afterwards."""
    async with started(tmp_path) as one:
        first = await one.ask(LONG)
        await one.save_idle()
        await restart(one)
        await fake(one).faults(restore_seconds=0.3)
        grant = await one.gate.acquire()
        task = aio.spawn(one.keeper.prepare(one.want(LONG, " more"), grant), name="client")
        await engine_has(one, "/slots/0?action=restore")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not grant.exclusive
        grant.release()
        resident = await one.ask(LONG, first.answer, " more")
        assert (resident.prepared.status, resident.cached >= 490) == ("resident", True)


async def engine_has(one: Rig, target: str) -> None:
    """Wait until a request to `target` reached the fake engine."""

    async def look() -> bool | None:
        return any(request.target == target for request in await fake(one).requests()) or None

    assert await aio.poll(look, interval=0.01, deadline=30)


async def test_a_restore_waits_for_nobody(tmp_path: Path) -> None:
    """Rule 23: while another slot is busy, users are not made to wait; the request goes without its snapshot."""
    async with started(tmp_path, engine={"parallel": 2}) as one:
        one.gate.resize(2)
        assert await one.warm(LONG)
        await restart(one)
        running = await one.gate.acquire()
        asked = await one.ask(LONG, " question", template=True, predict=1, store=False)
        assert asked.prepared.status == "skipped"
        assert "other requests are running" in asked.prepared.reason
        running.release()


async def test_an_engine_with_several_slots_gets_its_snapshots_back(tmp_path: Path) -> None:
    """Rule 23: saved from the slot that holds it, restored while all are idle, found by the server without id_slot."""
    async with started(tmp_path, engine={"parallel": 2}) as one:
        one.gate.resize(2)
        await one.ask(text(50, "first"), store=False)
        mine = await one.ask(LONG)
        await asyncio.sleep(PERIOD)  # an answer of /slots is good for that long, and this one is older than the request
        assert await one.save_idle() == 1
        await restart(one)
        again = await one.ask(LONG, mine.answer, " more")
        assert (again.prepared.status, again.evaluated < 10) == ("restored", True)
        bodies = [request.body for request in await fake(one).requests("/completion")]
        assert not any('"id_slot":' in body for body in bodies)


async def test_after_a_cut_off_request_no_slot_action_runs(tmp_path: Path) -> None:
    """Rule 4: the engine drains; the next request goes without a restore, the one after it may."""
    async with started(tmp_path) as one:
        await one.warm(LONG)
        await restart(one)
        (await one.gate.acquire()).release(cut=True)
        first = await one.ask(LONG, " question", template=True, store=False)
        assert first.prepared.status == "skipped"
        await displace(one)
        second = await one.ask(LONG, " question", template=True, store=False)
        assert second.prepared.status == "restored"


async def test_after_a_slot_action_that_hangs_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 4: a restore that did not end in time: no slot action until a response has ended, then all goes on."""
    async with started(tmp_path) as one:
        await one.warm(LONG)
        await restart(one)
        await fake(one).faults(restore_seconds=0.5)
        with monkeypatch.context() as impatient:
            impatient.setattr("bioproxy.kv.engine.AT_LEAST", 0.05)
            hung = await one.ask(LONG, " question", template=True, store=False)
        assert hung.prepared.status == "failed"
        assert "did not end within" in hung.prepared.reason
        await fake(one).faults(restore_seconds=0)
        await displace(one)
        assert (await one.ask(LONG, " question", template=True, store=False)).prepared.status == "restored"


async def test_a_foreign_slot_action_makes_what_is_resident_unknown(tmp_path: Path) -> None:
    """Rule 4: after a client's own restore or erase the snapshot is read again."""
    async with started(tmp_path) as one:
        await one.warm(LONG)
        await one.ask(LONG, " question", template=True, store=False)
        one.keeper.unknown("a client's own slot action")
        assert (await one.ask(LONG, " question", template=True)).prepared.status == "restored"


async def test_an_engine_that_slept_has_forgotten(tmp_path: Path) -> None:
    """--sleep-idle-seconds: after so many idle seconds nothing counts as resident."""
    async with started(tmp_path) as one:
        await one.warm(LONG)
        one.keeper.residents.sleeps_after = 60.0
        one.keeper.residents.last -= 61.0
        assert (await one.ask(LONG, " question", template=True)).prepared.status == "restored"


async def test_strict_isolation_erases_between_groups(tmp_path: Path) -> None:
    """Rule 22: nothing of another group is left in the slot, not even its timing; within a group all stays."""
    async with started(tmp_path, engine={"cache_ram": 0}, isolate="strict") as one:
        await one.ask(LONG, group="alice")
        await fake(one).forget()
        assert (await one.ask(LONG, " mine", group="bob", store=False)).cached == 0
        targets = [request.target for request in await fake(one).requests()]
        assert targets == ["/slots/0?action=save", "/slots/0?action=erase", "/completion"]
        assert (await one.ask(LONG, " mine", " too", group="bob", store=False)).evaluated < 10


async def test_strict_isolation_erases_every_slot(tmp_path: Path) -> None:
    """Rule 22: the server chooses a slot by itself; nothing of another group is in any of them then."""
    engine = {"cache_ram": 0, "parallel": 2}
    async with started(tmp_path, engine=engine, isolate="strict", policy="off") as one:
        one.gate.resize(2)
        for name in ("alice's", "hers, too"):
            await one.ask(text(300, name), group="alice")
        assert (await one.ask(text(300, "alice's"), " mine", group="bob")).cached == 0
        assert (await one.ask(text(300, "hers, too"), " mine", group="bob")).cached == 0
        assert (await one.ask(text(300, "alice's"), " mine", " too", group="bob")).evaluated < 10


async def test_strict_isolation_holds_after_a_client_left_a_template(tmp_path: Path) -> None:
    """Rule 22: what it asked beside the template is its group's, though the slot was everybody's before."""
    async with started(tmp_path, engine={"cache_ram": 0}, isolate="strict") as one:
        await one.warm(LONG)
        secret = text(100, " mine")
        await one.ask(LONG, secret, group="alice", template=True, complete=False)
        own = await one.ask(LONG, secret, " and", group="alice", template=True, complete=False)
        assert own.evaluated < 10
        other = await one.ask(LONG, secret, group="bob", template=True)
        assert other.prepared.status == "restored"
        assert other.evaluated >= 100


async def test_strict_isolation_looks_at_every_slot(tmp_path: Path) -> None:
    """Rule 22: a request may run in another slot than the one that we take it to, and find there what we don't know."""
    async with started(tmp_path, engine={"cache_ram": 0, "parallel": 2}, isolate="strict", policy="off") as one:
        one.gate.resize(2)
        one.keeper.residents.clear(empty=True)
        await one.ask(LONG, group="alice", complete=False)
        assert (await one.ask(LONG, " mine", group="bob")).cached == 0


async def test_strict_isolation_waits_for_what_runs_in_another_slot(tmp_path: Path) -> None:
    """Rule 22: what another group's request leaves there would be in reach; those of one group run side by side."""
    async with started(tmp_path, engine={"cache_ram": 0, "parallel": 2}, isolate="strict", policy="off") as one:
        one.gate.resize(2)
        one.keeper.residents.clear(empty=True)
        want = one.want(LONG, group="alice")
        grant = await one.gate.acquire(key=want)
        prepared = await one.keeper.prepare(want, grant)
        await one.ask("hers, too", group="alice")
        asking = aio.spawn(one.ask(LONG, group="bob"), name="bob")
        await until(lambda: one.gate.queue.unbegun)
        one.keeper.served(want, prepared, Timings(), complete=False)
        grant.release()
        assert (await asking).cached == 0


async def test_who_waited_for_an_erased_slot_saves_nothing_that_is_gone(tmp_path: Path) -> None:
    """Of two that wait for the same, the first one saved and erased what the second one meant to; it wants no file."""
    async with started(tmp_path, engine={"cache_ram": 0, "parallel": 2}, isolate="strict") as one:
        one.gate.resize(4)
        await one.ask(LONG, group="alice")
        grant = await one.gate.acquire()
        asked = [one.ask(LONG, f" {name}'s", group=name, store=False) for name in ("bob", "carl")]
        asking = [aio.spawn(each, name="asks") for each in asked]
        await until(lambda: len(one.gate.queue.unbegun) == 2)
        grant.release(unsent=True)
        await asyncio.gather(*asking)
        await one.settle()
        assert [snapshot.group for snapshot in one.keeper.list()] == ["alice"]


async def test_a_prompt_that_we_do_not_read_leaves_no_slot_behind(tmp_path: Path) -> None:
    """Nobody takes down when it ends, and other requests find both slots as free as they are."""
    async with started(tmp_path, engine={"cache_ram": 0, "parallel": 2}, isolate="strict") as one:
        one.gate.resize(2)
        for _ in range(3):
            with await one.gate.acquire() as grant:
                await one.keeper.admit("alice", grant)
                one.keeper.unknown("it may have used a slot", group="alice")
        await one.ask(LONG, group="alice")
        await one.ask(text(500, "b"), group="alice")
        assert await one.save_idle() == 2


async def test_strict_isolation_needs_no_slot_actions(tmp_path: Path) -> None:
    """Rule 22: without --slot-save-path another prompt takes the content's place."""
    async with started(tmp_path, engine={"cache_ram": 0, "faults": {"slot_actions": False}}, isolate="strict") as one:
        await one.ask(LONG, group="alice")
        assert (await one.ask(LONG, " mine", group="bob")).cached <= 1  # what every prompt begins with
        assert (await one.ask(LONG, " mine", " too", group="bob")).evaluated < 10


async def test_a_template_that_is_saved_before_its_warm_up_could_is_everybodys(tmp_path: Path) -> None:
    """A request came at its end, so its save was put off; then that of what is displaced is of the template."""
    async with started(tmp_path) as one:
        want = one.want(LONG, template=True, prefix="@code", version="1")
        want = msgspec.structs.replace(want, background=True)
        tokens = (await one.llama.tokenize(LONG))[:-1]
        grant = await one.gate.acquire(work="background", key=want)
        prepared = await one.keeper.prepare(want, grant)
        one.keeper.served(want, prepared, await one.llama.prefill(tokens), complete=True)
        grant.release()
        assert await one.save_idle() == 1
        assert one.keeper.has_snapshot(want) is not None
        await restart(one)
        asked = await one.ask(LONG, " question", group="alice", template=True)
        assert asked.prepared.status == "restored"


async def test_what_is_no_llama_server_is_not_erased(tmp_path: Path) -> None:
    """Rule 22: it can't be, so it is served, and the log says that the key does not hold there."""
    async with started(tmp_path, isolate="strict") as one:
        await one.attach(build="")
        await fake(one).forget()
        for group in ("alice", "bob"):
            await one.ask(LONG, group=group)
        assert {request.target for request in await fake(one).requests()} == {"/completion"}
        assert any("no llama-server" in note for note in one.keeper.statistics().notes)


async def test_policy_always_restores_and_saves_around_each_templated_request(tmp_path: Path) -> None:
    """The seed's literal way: load, run, save, also when it is resident; other requests are left alone."""
    async with started(tmp_path, policy="always") as one:
        for number in range(2):
            await one.ask(LONG, f" question {number}", template=True, prefix="@code")
            await one.settle()
        await one.ask("no template at all")
        await fake(one).forget()
        third = await one.ask(LONG, " question 2", template=True, prefix="@code")
        assert third.prepared.status == "restored"
        targets = [request.target.split("bp-")[0] for request in await fake(one).requests()]
        assert targets[-3:] == ["/slots/0?action=restore", "/completion", "/slots/0?action=save"]


async def test_policy_off_touches_nothing(tmp_path: Path) -> None:
    """No slot action, no file, no lock."""
    async with started(tmp_path, policy="off") as one:
        await one.ask(LONG)
        await one.ask(text(100, "other"))
        assert await one.save_idle() == 0
        targets = {request.target for request in await fake(one).requests()}
        assert not any("save" in target or "restore" in target for target in targets)
        assert list(tmp_path.iterdir()) == []
