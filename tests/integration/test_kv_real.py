"""The KV cache on the real llama.cpp: what comes back from disk is what was computed, to the last word."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bioproxy.kv import keeping
from fakes.real_engine import RealEngine, reason_to_skip
from support.kv_rig import Asked, Rig, rig, text

pytestmark = [pytest.mark.real_engine, pytest.mark.skipif(bool(reason_to_skip), reason=reason_to_skip)]

LONG = text(300, "a")


@asynccontextmanager
async def started(folder: Path, *, engine: dict[str, Any] | None = None, **more: Any) -> AsyncIterator[Rig]:
    """The real engine with a keeper; `engine` are its arguments."""
    config = {"min_seconds": 0.001, **more}
    async with RealEngine(slot_folder=folder, **(engine or {})) as process, rig(process, **config) as one:
        yield one


async def restart(one: Rig) -> None:
    """Kill -9, start again, attach again."""
    await one.engine.restart()
    one.keeper.gone("killed")
    await one.attach()


async def cold(one: Rig, *texts: str, predict: int = 8) -> str:
    """What the engine says without any cache."""
    body = {"prompt": "".join(texts), "n_predict": predict, "temperature": 0, "cache_prompt": False}
    answer = await one.engine.post("/completion", body)
    said: str = msgspec.json.decode(answer.body)["content"]
    return said


def total(asked: Asked) -> int:
    """Tokens of the whole prompt."""
    return asked.cached + asked.evaluated


FAMILIES = [("tiny", "full attention"), ("swa", "sliding windows"), ("mamba", "recurrent"), ("hybrid", "recurrent")]


@pytest.mark.parametrize(("shape", "family"), FAMILIES)
async def test_each_family_of_models_gets_what_it_can_use(tmp_path: Path, shape: str, family: str) -> None:
    """Saved, killed, restored: a template, what goes on from a conversation, repeats it, leaves it: answers are right.

    `/status` says for each whether it helps.
    """
    async with started(tmp_path, engine={"shape": shape, "cache_ram": 0}, known={"started": None}) as one:
        assert await one.warm(LONG)
        talk = (text(300, "talk"), text(60, " first"))
        first = await one.ask(*talk)
        assert await one.save_idle() == 1
        await restart(one)
        asked = {
            "templates": (LONG, " question"),
            "extends": (*talk, first.answer, " and more?"),
            "repeats": talk,
            "diverges": (talk[0], text(60, " second")),
        }
        for question, texts in asked.items():
            await one.ask(text(30, "another"), store=False)
            answer = await one.ask(*texts, predict=8, store=False, template=question == "templates")
            print(
                "X", shape, question, answer.prepared.status, answer.prepared.question, answer.cached, answer.evaluated
            )
            assert (answer.prepared.status, answer.prepared.question) == ("restored", question)
            assert answer.cached > 0.6 * total(answer)
            assert answer.answer == await cold(one, *texts)
        told = one.keeper.statistics()
        assert told.family.startswith(family)
        assert told.works == dict.fromkeys(asked, "good")
        assert told.restores == {"ok": 4}


async def test_another_question_gets_the_common_beginning_back(tmp_path: Path) -> None:
    """Rule 19 on full attention: the shared part comes from disk, and the answer is right."""
    async with started(tmp_path) as one:
        await one.ask(LONG, text(60, " first question"))
        await one.save_idle()
        await restart(one)
        other = await one.ask(LONG, text(60, " second question"), predict=8)
        assert (other.prepared.status, other.prepared.question) == ("restored", "diverges")
        assert other.cached > 0.7 * total(other)
        assert other.answer == await cold(one, LONG, text(60, " second question"))


async def test_a_template_is_evaluated_once_whatever_restarts(tmp_path: Path) -> None:
    """Rule 14: saved at its boundary, restored for whoever asks."""
    async with started(tmp_path) as one:
        assert await one.warm(LONG)
        for number in range(2):
            await restart(one)
            asked = await one.ask(LONG, f" question {number}", template=True, store=False)
            assert (asked.prepared.status, asked.evaluated < 12) == ("restored", True)


async def test_what_a_restore_discards_is_kept_in_memory(tmp_path: Path) -> None:
    """Rule 16: the poke makes the server keep the conversation that was resident."""
    async with started(tmp_path) as one:
        await one.warm(LONG)
        mine = await one.ask(text(400, "mine"), store=False)
        one.keeper.tenant.knowledge.learn(poke=1e-6)
        assert (await one.ask(LONG, " question", template=True, store=False)).prepared.status == "restored"
        back = await one.ask(text(400, "mine"), mine.answer, " more", store=False)
        assert back.evaluated < 12


async def test_a_truncated_snapshot_never_kills_the_engine(tmp_path: Path) -> None:
    """Rule 1: the real server would abort."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        await one.save_idle()
        await restart(one)
        kept = one.keeper.list()[0]
        os.truncate(tmp_path / kept.name, kept.size - 1)
        asked = await one.ask(LONG, " more")
        assert (asked.prepared.status, asked.cached) == ("skipped", 0)
        assert one.engine.running


async def test_other_weights_of_the_same_shape_get_nothing(tmp_path: Path) -> None:
    """Rule 2: the real server would take the file and write nonsense."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        await one.save_idle()
    async with started(tmp_path, engine={"seed": 1}) as one:
        asked = await one.ask(LONG, " more", predict=8)
        assert (asked.prepared.status, asked.cached) == ("", 0)
        assert asked.answer == await cold(one, LONG, " more")
        assert len(one.keeper.list()) == 1


@pytest.mark.parametrize(("shape", "slots"), [("tiny", 2), ("swa", 1), ("hybrid", 1)])
async def test_an_upgrade_is_tried_on_the_reference(tmp_path: Path, shape: str, slots: int) -> None:
    """Rule 2: restored and cold say the same, so the snapshots of the other build are adopted."""
    engine = {"shape": shape, "parallel": slots, "no_kv_unified": True}
    async with started(tmp_path, engine=engine, known={"build": "b1"}) as one:
        one.gate.resize(slots)
        assert await one.warm(LONG)
    async with started(tmp_path, engine=engine, known={"build": "b2"}) as one:
        one.gate.resize(slots)
        assert "adopted" in one.keeper.statistics().build_check
        assert (await one.ask(LONG, " question", template=True)).prepared.status == "restored"


async def test_with_swa_full_a_template_comes_back_and_a_conversation_does_not(tmp_path: Path) -> None:
    """facts, 0.8: the file holds a window only, and leaving it before its end would be silently wrong."""
    flags = {"shape": "swa", "swa_full": True}
    async with started(tmp_path, engine=flags, known={"started": None}) as one:
        assert "--swa-full" in "".join(one.keeper.statistics().notes)
        assert await one.warm(LONG)
        await one.ask(text(300, "talk"))
        assert await one.save_idle() == 0
        await restart(one)
        talk = await one.ask(text(300, "talk"), " more", store=False)
        assert talk.prepared.status == ""
        asked = await one.ask(LONG, " question", template=True, predict=8, store=False)
        assert asked.prepared.status == "restored"
        assert asked.answer == await cold(one, LONG, " question")


async def test_with_swa_full_a_request_that_leaves_a_restored_slot_early_is_answered_right(tmp_path: Path) -> None:
    """facts, 0.8: the engine would reuse what the file does not hold; so the slot is erased before."""
    flags = {"shape": "swa", "swa_full": True}
    async with started(tmp_path, engine=flags, known={"started": None}) as one:
        assert await one.warm(LONG)
        await restart(one)
        assert (await one.ask(LONG, " question", template=True, store=False)).prepared.status == "restored"
        early = LONG[: len(LONG) - 300]
        other = await one.ask(early, " and otherwise", predict=8, store=False)
        assert other.answer == await cold(one, early, " and otherwise")


async def test_a_recurrent_model_goes_on_from_what_it_cannot_repeat(tmp_path: Path) -> None:
    """Rule 6: regenerations and edits bring nothing back there, and are no verdict on file or model."""
    flags = {"shape": "mamba", "ctx_checkpoints": 0, "cache_ram": 0}
    async with started(tmp_path, engine=flags, known={"started": None}) as one:
        assert await one.warm(LONG)
        talk = (text(200, "talk"), text(10, " first"))
        first = await one.ask(*talk)
        await one.save_idle()
        for asked in (talk, talk, (talk[0], text(10, " second")), (*talk, " other words than the answer", " more")):
            await one.ask(text(30, "another"), store=False)
            assert (await one.ask(*asked, store=False)).cached == 0
        await one.ask(text(30, "another"), store=False)
        assert (await one.ask(*talk, first.answer, " more", store=False)).evaluated < 30
        assert (await one.ask(LONG, " question", template=True, store=False)).evaluated < 30
        told = one.keeper.statistics()
        assert (told.works["repeats"], told.works["diverges"]) == ("worthless", "worthless")
        assert told.restores == {"worthless": 3, "ok": 2}
        assert not any(one.unused for one in one.keeper.snapshots())


async def test_two_slots_share_the_work(tmp_path: Path) -> None:
    """Rule 23: restored into one of two slots while both are idle, and found there without id_slot."""
    async with started(tmp_path, engine={"parallel": 2, "no_kv_unified": True}) as one:
        one.gate.resize(2)
        assert await one.warm(LONG)
        await restart(one)
        asked = await one.ask(LONG, " question", template=True)
        assert (asked.prepared.status, asked.evaluated < 12) == ("restored", True)


@pytest.mark.parametrize("left", ["on disk", "in one slot", "other content in all slots"])
async def test_agents_that_begin_from_one_context_at_once_evaluate_it_never_again(tmp_path: Path, left: str) -> None:
    """Each of the engine's slots gets it, one after the other, before the first of them runs."""
    async with started(tmp_path, engine={"parallel": 4, "no_kv_unified": True, "ctx_size": 8192}) as one:
        one.gate.resize(4)
        first = await one.ask(LONG)
        await one.save_idle()
        shelf = one.keeper.tenant.shelf
        [kept] = one.keeper.list()
        await keeping.keep(shelf, kept, group="", name="repo")
        if left == "on disk":
            await restart(one)
        elif left == "other content in all slots":
            await restart(one)
            for number in range(4):
                await one.ask(text(200, f"other {number}"))
            await one.save_idle()
        asked = await asyncio.gather(*(one.ask(LONG, first.answer, text(30, f" agent {n}")) for n in range(4)))
        assert [each.cached >= kept.tokens - 1 for each in asked] == [True] * 4, [each.cached for each in asked]
        again = [one.ask(LONG, first.answer, text(30, f" agent {n}"), asked[n].answer, " go on") for n in range(4)]
        for turn, each in zip(asked, await asyncio.gather(*again), strict=True):
            assert each.cached >= kept.tokens - 1
            assert each.evaluated < turn.evaluated + 20  # its own end, if another one was so quick that it got the slot


async def test_more_agents_than_slots_begin_from_one_context(tmp_path: Path) -> None:
    """Those that wait find it when a slot is theirs, for a fork holds all of its beginning."""
    async with started(tmp_path, engine={"parallel": 2, "no_kv_unified": True}) as one:
        one.gate.resize(2)
        first = await one.ask(LONG)
        await one.save_idle()
        [kept] = one.keeper.list()
        await keeping.keep(one.keeper.tenant.shelf, kept, group="", name="repo")
        await restart(one)
        asked = await asyncio.gather(*(one.ask(LONG, first.answer, text(30, f" agent {n}")) for n in range(6)))
        assert [each.cached >= kept.tokens - 8 for each in asked] == [True] * 6, [each.cached for each in asked]
