"""The warm-up on the real llama.cpp: what it evaluates, what a request finds, what survives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bioproxy.events import SnapshotRestored, SnapshotSaved, WarmupEnded, WarmupYielded
from bioproxy.prompt import Head
from fakes.real_engine import RealEngine
from support.kv_rig import text
from support.warm_rig import LONG, SHORT, warm_rig

pytestmark = [pytest.mark.real_engine]
CODE = text(700, "code")
SYSTEM = Head(
    messages=b'[{"role":"system","content":"You are a careful reviewer of code."}]',
    tools=b'[{"type":"function","function":{"name":"look","parameters":{"type":"object","properties":{}}}}]',
)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[RealEngine]:
    async with RealEngine(slot_folder=tmp_path / "slots") as running:
        yield running


async def test_the_first_request_finds_the_whole_template(engine: RealEngine, tmp_path: Path) -> None:
    """kv-rule 12: the prompt prefix is exact: everything up to the message comes from the cache."""
    async with warm_rig(engine, tmp_path, {"code": CODE}) as warm:
        await warm.until(WarmupEnded)
        (target,) = warm.runner.statistics().targets
        assert (target.state, target.evaluated) == ("saved", target.total)
        timings = await warm.ask("@code", "what does it do?")
        assert timings.cached is not None
        assert timings.cached >= target.total
        assert timings.evaluated is not None
        assert timings.evaluated < 40


async def test_a_restarted_engine_evaluates_nothing_of_it_again(engine: RealEngine, tmp_path: Path) -> None:
    """After kill -9 the template is saved still, and the next request is restored."""
    async with warm_rig(engine, tmp_path, {"code": CODE}) as warm:
        await warm.until(WarmupEnded)
        await warm.settled()
        total = warm.runner.statistics().targets[0].total
        warm.gone()
        await engine.restart()
        await warm.attach()
        await warm.settled()
        assert warm.states() == {"@code": "saved"}
        timings = await warm.ask("@code", "and now?")
        assert timings.cached is not None
        assert timings.cached >= total
        assert [event.status for event in warm.parts.heard(SnapshotRestored)] == ["ok"]
        assert len(warm.parts.heard(WarmupEnded)) == 1


async def test_another_bioproxy_finds_the_snapshot(engine: RealEngine, tmp_path: Path) -> None:
    """A new process of ours evaluates no token of a template that is on disk."""
    async with warm_rig(engine, tmp_path, {"code": CODE}) as warm:
        await warm.until(WarmupEnded)
        await warm.settled()
    async with warm_rig(engine, tmp_path, {"code": CODE}) as warm:
        await warm.settled()
        assert warm.states() == {"@code": "saved"}
        assert warm.parts.heard(WarmupEnded) == []


async def test_heads_are_warmed_as_clients_send_them(engine: RealEngine, tmp_path: Path) -> None:
    """With system message and tools in front, the first request through the template is a hit, too."""
    async with warm_rig(engine, tmp_path, {"code": CODE}) as warm:
        warm.heads.note("@code", SYSTEM, b"1")
        warm.heads.note("@code", SYSTEM, b"2")
        await warm.settled()
        (target,) = warm.runner.statistics().targets
        assert target.head != "bare"
        timings = await warm.ask("@code", "what does it do?", head=SYSTEM)
        assert timings.cached is not None
        assert timings.cached >= target.total


@pytest.mark.parametrize("chunk_seconds", [SHORT, LONG])
async def test_a_change_at_sixty_percent_evaluates_the_rest_only(
    chunk_seconds: float, engine: RealEngine, tmp_path: Path
) -> None:
    """What an older text shares with the new one is not evaluated again, even if a user displaced it."""
    async with warm_rig(engine, tmp_path, {"code": CODE}, chunk_seconds=chunk_seconds) as warm:
        await warm.until(WarmupEnded)
        await warm.settled()
        before = warm.runner.statistics().targets[0].total
        await warm.parts.ask(text(300, "foreign"))
        warm.write("code", CODE[: len(CODE) * 6 // 10] + text(300, "changed"))
        await warm.catalogue.check()
        await warm.until(WarmupEnded, times=2)
        ended = warm.parts.heard(WarmupEnded)[1]
        assert ended.evaluated < 0.5 * before
        timings = await warm.ask("@code", "what changed?")
        assert timings.cached is not None
        assert timings.cached >= ended.tokens


async def test_users_go_first_and_nothing_is_evaluated_twice(engine: RealEngine, tmp_path: Path) -> None:
    """Requests in the middle of a warm-up are served within a chunk; the warm-up resumes where it was."""
    async with warm_rig(engine, tmp_path, {"code": CODE}, enabled=False, chunk_seconds=SHORT) as warm:
        for tokens in (400, 800, 1200):
            warm.during(tokens, warm.user)
        await warm.runner.warm("@code")
        await warm.until(WarmupEnded)
        ended, yielded = warm.parts.heard(WarmupEnded)[0], len(warm.parts.heard(WarmupYielded))
        assert yielded == 3
        assert ended.evaluated <= ended.tokens + 8 * yielded


async def test_two_templates_take_turns_without_harm(engine: RealEngine, tmp_path: Path) -> None:
    """Each has a snapshot of its own, and each is a hit after the other was used."""
    async with warm_rig(engine, tmp_path, {"code": CODE, "manual": text(600, "manual")}) as warm:
        await warm.until(SnapshotSaved, times=2)
        for prefix in ("@code", "@manual", "@code"):
            timings = await warm.ask(prefix, f"a question about {prefix}")
            assert timings.evaluated is not None
            assert timings.evaluated < 40


async def test_a_conversation_in_the_slot_never_gets_into_the_snapshot(engine: RealEngine, tmp_path: Path) -> None:
    """The template's file holds exactly the prompt prefix, whatever a user said behind it before."""
    async with warm_rig(engine, tmp_path, {"code": CODE}, enabled=False) as warm:
        await warm.ask("@code", "something private", predict=8)
        await warm.runner.warm("@code")
        await warm.until(WarmupEnded)
        await warm.settled()
        total = warm.runner.statistics().targets[0].total
        templates = [one for one in warm.parts.keeper.list() if one.template]
        assert [(one.tokens, one.prompt) for one in templates] == [(total, total)]
        assert warm.parts.heard(WarmupEnded)[0].evaluated < 16


@pytest.mark.parametrize("shape", ["swa", "mamba"])
async def test_models_whose_cache_cannot_be_cut_anywhere(shape: str, tmp_path: Path) -> None:
    """On sliding-window and recurrent models the prompt prefix ends a little earlier, and survives a restart."""
    async with (
        RealEngine(slot_folder=tmp_path / "slots", shape=shape) as engine,  # type: ignore[arg-type]
        warm_rig(engine, tmp_path, {"code": CODE}) as warm,
    ):
        await warm.until(WarmupEnded)
        await warm.settled()
        total = warm.runner.statistics().targets[0].total
        warm.gone()
        await engine.restart()
        await warm.attach()
        await warm.settled()
        timings = await warm.ask("@code", "what does it do?")
        assert timings.cached is not None
        assert timings.cached >= total - 8
