"""The client of an engine's own routes, against the fake and the real engine; faults against the fake alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bioproxy.engines.llama import Llama
from bioproxy.errors import EngineProtocolError, EngineRefused, EngineUnavailable
from bioproxy.wire.upstream import Pool, parse_origin
from fakes.engine_process import EngineProcess
from fakes.fake_engine import FakeEngine
from fakes.side_by_side import KINDS, make
from support.http import free_port

IDS = list(range(100, 600))


class Client:
    """A client with its pool, closed with the block."""

    def __init__(self, url: str, *, key: str = "") -> None:
        self.pool = Pool(parse_origin(url))
        self.llama = Llama(self.pool, key=key)

    async def __aenter__(self) -> Llama:
        return self.llama

    async def __aexit__(self, *_: object) -> None:
        await self.llama.close()
        await self.pool.close()


@pytest.fixture(params=KINDS)
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EngineProcess]:
    """One of the two engines, with slot files under `tmp_path/slots`."""
    async with make(request.param, tmp_path / "slots") as process:
        yield process


@pytest.fixture
async def llama(engine: EngineProcess) -> AsyncIterator[Llama]:
    """A client of `engine`."""
    async with Client(engine.url) as client:
        yield client


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    """The fake alone, where a fault is needed."""
    async with FakeEngine(slot_folder=tmp_path / "slots") as process:
        yield process


async def test_what_it_is(llama: Llama) -> None:
    """Health, properties, names and slots come as values."""
    assert await llama.health() == "ok"
    assert (await llama.props())["total_slots"] == 1
    assert len(await llama.models()) == 1
    (slot,) = await llama.slots()
    assert (slot.id, slot.is_processing, slot.n_prompt_tokens) == (0, False, None)


async def test_prompt_of_a_chat(llama: Llama) -> None:
    """A rendered and tokenized chat is what a chat request evaluates, to the token."""
    body = json.dumps({"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 1}).encode()
    tokens = await llama.tokenize(await llama.apply_template(body))
    cost = await llama.chat(body)
    assert (cost.cached, cost.evaluated) == (0, len(tokens))
    assert (await llama.prefill(tokens)).cached == len(tokens) - 1


async def test_prefill_in_chunks(llama: Llama) -> None:
    """What a chunk evaluated the next one finds; figures come with seconds."""
    first = await llama.prefill(IDS[:300])
    second = await llama.prefill(IDS)
    assert (first.cached, first.evaluated, first.generated) == (0, 300, 1)
    assert (second.cached, second.evaluated) == (300, 200)
    assert second.prefill is not None
    assert second.prefill > 0


async def test_prefill_of_text(llama: Llama) -> None:
    """Text works as tokens do; `cache_prompt` false evaluates it all again."""
    cost = await llama.prefill("the quick brown fox")
    again = await llama.prefill("the quick brown fox", cache_prompt=False)
    assert (again.cached, again.evaluated) == (0, cost.evaluated)


async def test_save_restore_erase(llama: Llama, tmp_path: Path) -> None:
    """Slot actions tell tokens, bytes and seconds."""
    await llama.prefill(IDS)
    saved = await llama.save(0, "a.bin")
    assert saved.tokens == 500
    assert saved.bytes == (tmp_path / "slots" / "a.bin").stat().st_size
    assert await llama.erase(0) == 500
    restored = await llama.restore(0, "a.bin")
    assert (restored.tokens, restored.bytes) == (saved.tokens, saved.bytes)
    assert min(saved.seconds, restored.seconds) > 0
    assert (await llama.prefill([*IDS, 700])).cached == 500


async def test_failed_restore(llama: Llama) -> None:
    """A refusal carries the engine's own status and sentence."""
    with pytest.raises(EngineRefused, match=r"400 to POST /slots/0\?action=restore: Unable to restore slot") as caught:
        await llama.restore(0, "missing.bin")
    assert caught.value.status == 400


async def test_probe_is_the_same_cached_or_cold(llama: Llama) -> None:
    """The same prompt gives the same token and log-probabilities, computed from nothing or from the cache."""
    cold = await llama.probe(IDS, cache_prompt=False)
    cached = await llama.probe(IDS)
    assert (cold.timings.cached, cached.timings.cached) == (0, 499)
    assert cold.token == cached.token == cold.logprobs[0][0]
    assert len(cold.logprobs) == 10
    assert [pair[1] for pair in cached.logprobs] == pytest.approx([pair[1] for pair in cold.logprobs], abs=0.1)


async def test_slots_are_asked_at_most_once_in_two_seconds(fake: FakeEngine) -> None:
    """However often and by whomever /slots is wanted, the engine is asked once (kv-rule 5)."""
    async with Client(fake.url) as llama:
        await asyncio.gather(*(llama.slots() for _ in range(20)))
        await llama.slots()
        assert (await llama.look(b"/slots")).status == 200
    assert len(await fake.requests("/slots")) == 1
    assert await fake.violations() == []


async def test_nothing_forbidden_is_sent(fake: FakeEngine) -> None:
    """No request of ours carries X-Conversation-Id or id_slot (kv-rules 3 and 8)."""
    async with Client(fake.url) as llama:
        await llama.prefill(IDS)
        await llama.probe(IDS)
        await llama.chat(b'{"messages":[]}')
        await llama.save(0, "a")
    for request in await fake.requests():
        assert request.header("x-conversation-id") is None
        assert '"id_slot":' not in request.body


async def test_key() -> None:
    """The engine's own key is sent; without it the refusal says what is wrong."""
    async with FakeEngine(api_key="secret") as fake:
        async with Client(fake.url, key="secret") as llama:
            assert (await llama.props())["total_slots"] == 1
        async with Client(fake.url) as llama:
            with pytest.raises(EngineRefused, match="401 to GET /props: Invalid API Key"):
                await llama.props()


async def test_loading(fake: FakeEngine) -> None:
    """While the model loads health says so, and everything else is refused with 503."""
    await fake.faults(loading=60)
    async with Client(fake.url) as llama:
        assert await llama.health() == "loading"
        with pytest.raises(EngineRefused, match="Loading model") as caught:
            await llama.props()
    assert caught.value.status == 503


async def test_nothing_listens() -> None:
    """An absent engine is unavailable, with its address in the sentence."""
    port = free_port()
    async with Client(f"http://127.0.0.1:{port}") as llama:
        with pytest.raises(EngineUnavailable, match=str(port)):
            await llama.health()


@pytest.mark.parametrize("how", ["garbage", "half_head", "wrong_length", "half_chunk"])
async def test_broken_answers(fake: FakeEngine, how: str) -> None:
    """What is no whole HTTP answer is a protocol error, and the next request is served."""
    await fake.faults(answer=how, times=1)
    async with Client(fake.url) as llama:
        with pytest.raises(EngineProtocolError):
            await llama.props()
        assert await llama.health() == "ok"


async def test_answers_of_another_server(fake: FakeEngine) -> None:
    """Good JSON of another shape is a protocol error that names the route; under `base` the fake echoes."""
    async with Client(f"{fake.url}/elsewhere") as llama:
        for question in (
            llama.slots(),
            llama.tokenize("x"),
            llama.apply_template(b"{}"),
            llama.probe(IDS),
            llama.erase(0),
        ):
            with pytest.raises(EngineProtocolError, match="engine's answer to"):
                await question


async def test_engine_dies_in_a_save(fake: FakeEngine) -> None:
    """A save that the engine does not survive is unavailable, not a hang."""
    await fake.faults(die="save")
    async with Client(fake.url) as llama:
        await llama.prefill(IDS)
        with pytest.raises(EngineUnavailable):
            await llama.save(0, "a")
    assert await fake.wait() == -9


async def test_full_disk(fake: FakeEngine) -> None:
    """A save on a full disk is refused; a lying one is only seen in the file's size."""
    await fake.faults(save="full")
    async with Client(fake.url) as llama:
        await llama.prefill(IDS)
        with pytest.raises(EngineRefused, match="Unable to save slot"):
            await llama.save(0, "a")


async def test_cancelled_prefill_stops_the_engine() -> None:
    """Cancelling the caller closes the connection; the engine stops and keeps what it has."""
    async with FakeEngine(tokens_per_second=2000, batch_size=64) as fake, Client(fake.url) as llama:
        async with asyncio.TaskGroup() as group:
            prefill = group.create_task(llama.prefill(list(range(20_000))))
            await fake.until(lambda state: state["slots"][0]["tokens"])
            prefill.cancel()
        state = await fake.until(lambda state: not state["slots"][0]["busy"])
    assert state["totals"]["cancelled"] == 1
    assert 0 < len(state["slots"][0]["tokens"]) < 20_000
