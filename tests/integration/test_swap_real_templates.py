"""Templates per model on the real llama.cpp: each is evaluated once, whatever swaps come between."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from fakes.real_engine import needs_real_engine
from support.real_swap import AT_STOPS, FOUR, ONE, WARM, WHEN_IDLE, WORDS, evaluated, real, saved
from support.swap_rig import Rig, swap_rig

pytestmark = pytest.mark.real_engine
Json = Any
QUICK: Json = {"settle": 0}


@pytest.fixture(autouse=True)
def real_engine() -> None:
    needs_real_engine()


def template(folder: Path, name: str, *, words: int = 430) -> str:
    """A template of about 1200 tokens that differs from every other from its first word on."""
    path = folder / f"{name}.txt"
    path.write_text(f"{name} " + " ".join(random.Random(name).choices(WORDS, k=words)) + "\n<{message}>")
    return str(path)


def models(folder: Path, flags: str = ONE) -> Json:
    """Two models with a prefix @code of their own."""
    return {
        name: real(seed, flags, prefixes={"@code": template(folder, f"template-of-{name}")})
        for seed, name in enumerate("ab")
    }


async def ask(rig: Rig, model: str, words: str) -> tuple[int, int]:
    """One question behind @code: the tokens that the engine had, and those that it computed."""
    answer = await rig.chat(model, messages=[{"role": "user", "content": f"@code {words}"}], max_tokens=2)
    assert answer.status == 200, answer.text
    timings = answer.json()["timings"]
    return timings["cache_n"], timings["prompt_n"]


async def load(rig: Rig, model: str, *, warmups: int) -> None:
    """Load a model, and wait until so many warm-ups in all were told of."""
    await rig.post(f"/api/models/load/{model}")
    await rig.until(lambda: len(rig.said("@code is saved")) >= warmups)


@pytest.mark.parametrize("flags", [ONE, FOUR], ids=["one slot", "four that share"])
async def test_each_is_evaluated_once(tmp_path: Path, flags: str) -> None:
    """In its model's first life by the warm-up; later lives compute the questions alone."""
    async with swap_rig(tmp_path, models(tmp_path, flags), kv=AT_STOPS, warmup=QUICK) as rig:
        for place, model in enumerate("ab", 1):
            await load(rig, model, warmups=place)
            assert 1000 < await evaluated(rig, model) < 1500
        for question in ("what is this?", "and that?"):
            for model in "ab":
                cached, computed = await ask(rig, model, question)
                assert cached > 1000
                assert computed <= WARM
                assert await evaluated(rig, model) <= WARM
        await rig.until(lambda: len(rig.said("@code is")) == 2)


async def test_each_model_has_its_own(tmp_path: Path) -> None:
    """The same prefix means another text, with another number of tokens."""
    made = models(tmp_path)
    template(tmp_path, "template-of-b", words=300)
    async with swap_rig(tmp_path, made, kv=AT_STOPS, warmup={"enabled": False}) as rig:
        sizes = {model: sum(await ask(rig, model, "what?")) for model in "ab"}
    assert sizes["a"] > sizes["b"] + 200


async def test_a_request_that_starts_its_model_finds_the_template(tmp_path: Path) -> None:
    """After kill -9 of ours the first request of the first life computes its question only."""
    async with swap_rig(tmp_path, models(tmp_path), kv=WHEN_IDLE, warmup=QUICK, child=True) as rig:
        await rig.post("/api/models/load/a")
        await saved(rig, "a")
        await rig.child.kill()
        await rig.program.start()
        cached, computed = await ask(rig, "a", "what is this?")
        assert cached > 1000
        assert computed <= WARM


async def test_a_prefix_for_all_is_warmed_on_each(tmp_path: Path) -> None:
    """One template at the top level: every model evaluates it once."""
    prefixes = {"@code": template(tmp_path, "for-all")}
    both = {"a": real(0), "b": real(1)}
    async with swap_rig(tmp_path, both, kv=AT_STOPS, warmup=QUICK, prefixes=prefixes) as rig:
        await load(rig, "a", warmups=1)
        await load(rig, "b", warmups=2)
        for model in "ab":
            assert (await ask(rig, model, "what is this?"))[1] <= WARM
            assert await evaluated(rig, model) <= WARM
        await rig.until(lambda: len(rig.said("@code is")) == 2)
