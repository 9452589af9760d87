"""The warm-up before a fake engine that misbehaves, over real sockets: nothing is lost, users never wait for it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bioproxy.events import WarmupEnded, WarmupFailed, WarmupStarted, WarmupYielded
from bioproxy.warmup import plan
from fakes.fake_engine import FakeEngine
from support.kv_rig import text
from support.leaks import until
from support.warm_rig import SHORT, warm_rig

CODE = text(700, "code")
SPEED = 4000  # tokens a second


def engine(tmp_path: Path, **flags: Any) -> FakeEngine:
    return FakeEngine(slot_folder=tmp_path / "slots", **{"tokens_per_second": SPEED, **flags})


async def unharmed(fake: FakeEngine) -> None:
    """Nothing was done to the engine that must not be done to it."""
    assert await fake.violations() == []


async def test_a_user_waits_for_one_chunk_at_most(tmp_path: Path) -> None:
    """Requests that arrive at any moment of a long warm-up start within a chunk's time."""
    config: Any = {"enabled": False, "chunk_seconds": SHORT}
    async with engine(tmp_path) as fake, warm_rig(fake, tmp_path, {"code": CODE}, **config) as warm:
        for tokens in (200, 400, 600):
            warm.during(tokens, warm.user)
        await warm.runner.warm("@code")
        await warm.until(WarmupEnded)
        sent = [one.json()["prompt"] for one in await fake.requests("/completion")]
        users = [place for place, prompt in enumerate(sent) if str(prompt).startswith("user ")]
        assert [len(sent[place - 1]) for place in users] == [256, 448, 640]
        ends = [len(prompt) for prompt in sent if not isinstance(prompt, str)]
        assert max(end - start for start, end in pairwise([0, *ends])) <= plan.FIRST_CHUNK
        await unharmed(fake)


async def test_what_killed_two_engines_in_a_row_does_not_kill_the_third(tmp_path: Path) -> None:
    """A template whose evaluation ends the engine is left alone until its text changes or somebody asks for it."""
    async with engine(tmp_path) as fake, warm_rig(fake, tmp_path, {"code": CODE}, enabled=False) as warm:
        await warm.runner.warm("@code")
        for deaths in (1, 2):
            await fake.faults(die="prefill")
            await warm.until(WarmupFailed, times=deaths)
            await fake.wait()
            warm.gone()
            await fake.restart()
            await warm.attach()
        assert warm.states()["@code"].startswith("failed: 2 engines in a row were lost while it was warmed up")
        await warm.runner.warm("@code")
        await warm.until(WarmupEnded)
        await warm.settled()
        assert warm.states() == {"@code": "saved"}


async def test_an_engine_that_dies_in_prefill(tmp_path: Path) -> None:
    """The fault is told, no grant is lost, and the template is warmed when the engine is back."""
    async with engine(tmp_path) as fake, warm_rig(fake, tmp_path, {"code": CODE}, enabled=False) as warm:
        await fake.faults(die="prefill")
        await warm.runner.warm("@code")
        await warm.until(WarmupFailed)
        await fake.wait()
        assert warm.parts.gate.idle
        warm.gone()
        await fake.restart()
        await warm.attach()
        await warm.until(WarmupEnded)
        await warm.settled()
        assert warm.states() == {"@code": "saved"}


@pytest.mark.parametrize("answer", ["status", "garbage", "half_head", "wrong_length", "close"])
async def test_broken_answers_are_tried_again(answer: str, tmp_path: Path) -> None:
    """One broken answer costs a pause; the next attempt succeeds, and evaluates only what is missing."""
    # a connection that is closed before the first byte is tried once more by the pool
    faults = {"answer": answer, "paths": ["/completion"], "times": 2 if answer == "close" else 1}
    async with engine(tmp_path, tokens_per_second=0) as fake:
        async with warm_rig(fake, tmp_path, {"code": CODE}, enabled=False) as warm:
            await fake.faults(**faults)
            await warm.runner.warm("@code")
            await warm.until(WarmupFailed)
            await warm.until(WarmupEnded)
            await warm.settled()
            assert warm.states() == {"@code": "saved"}
        await unharmed(fake)


async def test_a_hanging_engine_can_be_left(tmp_path: Path) -> None:
    """Where a chunk never ends, the warm-up can still be cancelled, and the grant comes back as cut."""
    async with engine(tmp_path) as fake:
        async with warm_rig(fake, tmp_path, {"code": CODE}) as warm:
            await warm.until(WarmupStarted)
            await fake.faults(stuck=True)
            await until(lambda: warm.parts.gate.statistics().running["background"])
        assert warm.parts.gate.idle
        await fake.faults(stuck=False)


async def test_without_a_ram_cache_a_displaced_warm_up_begins_in_short_chunks(tmp_path: Path) -> None:
    """`--cache-ram 0` is read from the engine's command line: no chunk after a user's request is a long one."""
    config: Any = {"enabled": False, "chunk_seconds": SHORT}
    async with engine(tmp_path, cache_ram=0) as fake, warm_rig(fake, tmp_path, {"code": CODE}, **config) as warm:
        warm.during(500, warm.user)
        await warm.runner.warm("@code")
        await warm.until(WarmupEnded)
        assert warm.runner.evaluator.remembers is False
        evaluated = [one["evaluated"] for one in await chunks(fake)]
        assert max(evaluated) <= plan.FIRST_CHUNK
        await unharmed(fake)


async def chunks(fake: FakeEngine) -> list[dict[str, int]]:
    """What each chunk evaluated, as far as the requests tell: its length less the longest beginning just before."""
    found: list[dict[str, int]] = []
    slot: list[int] = []
    for one in await fake.requests("/completion"):
        prompt = one.json()["prompt"]
        if isinstance(prompt, str):
            slot = []
            continue
        shared = len(slot) if prompt[: len(slot)] == slot else 0
        found.append({"length": len(prompt), "evaluated": len(prompt) - shared})
        slot = prompt
    return found


async def test_an_engine_that_renders_no_templates(tmp_path: Path) -> None:
    """It gets one chat request with the template's beginning, and the template counts as warm."""
    missing = {"answer": "status", "status": 404, "paths": ["/apply-template"]}
    async with engine(tmp_path, faults=missing) as fake, warm_rig(fake, tmp_path, {"code": CODE}) as warm:
        await warm.until(WarmupEnded)
        (request,) = await fake.requests("/v1/chat/completions")
        assert request.json()["messages"][0]["content"] == CODE
        assert warm.states() == {"@code": "warm"}
        timings = await warm.parts.llama.chat(request.body.encode())
        assert timings.cached is not None
        assert timings.cached > 500
        await unharmed(fake)


async def test_an_engine_that_does_not_tokenize_for_us(tmp_path: Path) -> None:
    """The common text is evaluated in chunks; a request finds it, and no snapshot is made of an inexact end."""
    missing = {"answer": "status", "status": 404, "paths": ["/tokenize"]}
    texts = {"code": CODE}
    async with engine(tmp_path, faults=missing) as fake, warm_rig(fake, tmp_path, texts, chunk_seconds=SHORT) as warm:
        await warm.until(WarmupEnded)
        assert warm.states() == {"@code": "warm"}
        assert len(await fake.requests("/completion")) > 2
        timings = await warm.ask("@code", "what does it do?")
        assert timings.evaluated is not None
        assert timings.evaluated < 40
        await unharmed(fake)


async def test_a_template_that_does_not_fit(tmp_path: Path) -> None:
    """It is not sent at all, and says by how much it is too long."""
    async with engine(tmp_path, ctx_size=256) as fake, warm_rig(fake, tmp_path, {"code": CODE}) as warm:
        await warm.settled()
        assert warm.states()["@code"].startswith("too long: ")
        assert warm.runner.too_long("@code").endswith(" of 256 tokens")
        sent = await fake.requests("/completion")
        assert all(len(one.json()["prompt"]) < 100 for one in sent), "only the keeper's own sentence is evaluated"


async def test_without_a_slot_folder_it_is_warm_in_memory(tmp_path: Path) -> None:
    """No --slot-save-path: the prompt prefix is resident, once, and a request finds it."""
    async with FakeEngine() as fake, warm_rig(fake, tmp_path, {"code": CODE}) as warm:
        await warm.until(WarmupEnded)
        assert warm.states() == {"@code": "warm"}
        timings = await warm.ask("@code", "what does it do?")
        assert timings.cached is not None
        assert timings.cached >= warm.runner.statistics().targets[0].total


async def test_a_full_disk_does_not_make_it_evaluate_for_ever(tmp_path: Path) -> None:
    """A save that fails leaves the template warm; looks that follow cost no token."""
    async with engine(tmp_path, faults={"save": "full"}) as fake, warm_rig(fake, tmp_path, {"code": CODE}) as warm:
        await warm.until(WarmupEnded)
        sent = len(await fake.requests("/completion"))
        for _ in range(3):
            await warm.runner.look()
        await warm.settled()
        assert warm.states() == {"@code": "warm"}
        assert len(await fake.requests("/completion")) == sent


async def test_a_change_in_the_middle_begins_anew(tmp_path: Path) -> None:
    """The old text is left between two chunks, and what both share is not evaluated again."""
    config: Any = {"enabled": False, "chunk_seconds": SHORT}
    async with engine(tmp_path) as fake, warm_rig(fake, tmp_path, {"code": CODE}, **config) as warm:

        async def change() -> None:
            warm.write("code", CODE[: len(CODE) // 2] + text(100, "changed"))
            await warm.catalogue.check()

        warm.during(500, change)
        await warm.runner.warm("@code")
        await warm.until(WarmupEnded)
        await warm.settled()
        (ended,) = warm.parts.heard(WarmupEnded)
        assert ended.evaluated < 0.5 * ended.tokens
        assert warm.runner.statistics().targets[0].version == warm.catalogue.current("@code").version
        assert ended.tokens == warm.runner.statistics().targets[0].total
        assert not warm.parts.heard(WarmupYielded)
        await unharmed(fake)
