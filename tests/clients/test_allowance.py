"""Tokens per day: what the official packages make of the 429, and that streams, cut ones too, are counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import ollama
import openai
import pytest
import pytest_asyncio

from bioproxy import aio
from bioproxy.activity import Record
from bioproxy.events import RequestEnded
from bioproxy.front.allowance import KeyStatistics, Used, midnight
from support.apps import station
from support.clients import Line, fake_line
from support.http import Answer, call
from support.leaks import until

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
HELLO: Json = [{"role": "user", "content": "hello"}]
NAMES = ("openai", "anthropic", "ollama", "waits", "stream", "cut", "others", "left", "told")
KEYS: Json = [*({"key": name, "name": name, "tokens_per_day": 5} for name in NAMES), {"key": "any", "name": "any"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Line]:
    """One engine, a key for each test, and an admin."""
    async with fake_line(tmp_path_factory.mktemp("line"), api_keys=KEYS, admin_key="root") as running:
        yield running


def used(line: Line, key: str) -> KeyStatistics:
    return next(one for one in line.app.allowances.statistics() if one.key == key)


def spend(line: Line, key: str) -> None:
    """The key has none left."""
    line.app.allowances.now()
    line.app.allowances.note(key, Used(5))


def openai_of(line: Line, key: str, *, retries: int = 2) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{line.url}/v1", api_key=key, max_retries=retries)


async def chat(line: Line, key: str, **more: Json) -> Answer:
    data = {"model": "m", "messages": HELLO, "max_tokens": 4, **more}
    return await call(
        line.app.proxy_port, "POST", "/v1/chat/completions", data=data, headers={"Authorization": f"Bearer {key}"}
    )


async def test_openai(line: Line) -> None:
    """What the engine counted is spent; then a RateLimitError with OpenAI's code, at once: nobody waits for hours."""
    async with openai_of(line, "openai") as client:
        answer = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=4)
        assert answer.usage is not None
        assert used(line, "openai").today.tokens == answer.usage.total_tokens
        before = len(await line.engine.requests("/v1/chat/completions"))
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="m", messages=HELLO, stream=True)
        assert caught.value.code == "rate_limit_exceeded"
        assert "'openai' has used" in str(caught.value)
        assert 0 < int(caught.value.response.headers["retry-after"]) <= 25 * 3600
        assert caught.value.response.headers["x-ratelimit-remaining-tokens"] == "0"
    assert used(line, "openai").today.refused == 1  # the client did not try again
    assert len(await line.engine.requests("/v1/chat/completions")) == before


async def test_an_answer_says_once_what_is_left(line: Line) -> None:
    """The key is judged twice, as the request comes and at its turn; clients read one figure."""
    async with openai_of(line, "told") as client:
        raw = await client.chat.completions.with_raw_response.create(model="m", messages=HELLO, max_tokens=4)
    assert raw.headers.get_list("x-ratelimit-remaining-tokens") == ["5"]


async def test_openai_waits_if_it_is_not_long(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second before midnight the package waits as `Retry-After` says, and is served on the new day."""
    allowances = line.app.allowances
    spend(line, "waits")
    ends = midnight(allowances.clock(), days=1)
    now = ends - 0.5
    monkeypatch.setattr(allowances, "clock", lambda: now)

    def next_day(event: RequestEnded) -> None:
        nonlocal now
        now = ends + 1

    forget = line.app.bus.subscribe(RequestEnded, next_day)
    try:
        async with openai_of(line, "waits") as client:
            assert (await client.chat.completions.create(model="m", messages=HELLO)).choices
    finally:
        forget()
    assert used(line, "waits").total.refused == 1


async def test_anthropic(line: Line) -> None:
    """A rate_limit_error; counting tokens costs none, and is served still."""
    spend(line, "anthropic")
    async with anthropic.AsyncAnthropic(base_url=line.url, api_key="anthropic") as client:
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.create(model="m", messages=HELLO, max_tokens=4)
        assert caught.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]
        assert caught.value.response.headers["anthropic-ratelimit-tokens-remaining"] == "0"
        assert (await client.messages.count_tokens(model="m", messages=HELLO)).input_tokens
    assert used(line, "anthropic").today.refused == 1


async def test_ollama(line: Line) -> None:
    """A ResponseError with the status and the sentence."""
    spend(line, "ollama")
    async with ollama.AsyncClient(host=line.url, headers={"Authorization": "Bearer ollama"}) as client:
        with pytest.raises(ollama.ResponseError) as caught:
            await client.chat("m", HELLO)
    assert (caught.value.status_code, "tokens_per_day" in caught.value.error) == (429, True)


async def test_streams_count(line: Line) -> None:
    """As the engine says at their end."""
    async with openai_of(line, "stream") as client:
        stream = await client.chat.completions.create(
            model="m", messages=HELLO, max_tokens=4, stream=True, stream_options={"include_usage": True}
        )
        usage = [chunk async for chunk in stream][-1].usage
    assert usage is not None
    await until(lambda: used(line, "stream").today.tokens == usage.total_tokens)
    assert used(line, "stream").left == 0


async def test_whoever_hangs_up_used_something_all_the_same(line: Line) -> None:
    """The engine says nothing then: what came counts, and the prompt by what others took."""
    ended: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
    forget = line.app.bus.subscribe(RequestEnded, lambda event: ended.set_result(event.record))
    try:
        async with openai_of(line, "cut") as client:
            stream = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=100_000, stream=True)
            pieces = aiter(stream)
            for _ in range(3):
                await anext(pieces)
            await stream.close()
            assert (await ended).outcome == "client_left"
    finally:
        forget()
    today = used(line, "cut").today
    assert today.generated >= 2
    assert today.prompt > 0


async def test_who_is_in_the_queue_when_the_last_token_goes_is_refused_too(line: Line) -> None:
    """When it is its turn the key has none left, and the engine is not asked."""
    gate = station(line.app).gate
    grant = await gate.acquire()
    asked = aio.spawn(chat(line, "left"), name="one that waits")
    await until(lambda: gate.queue.anyone == 1)
    spend(line, "left")
    grant.release(unsent=True)
    answer = await asked
    assert (answer.status, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert answer.headers["x-ratelimit-remaining-tokens"] == "0"


async def test_an_operator_sees_all_keys(line: Line) -> None:
    """On the admin port, in status, metrics and a route of their own."""
    spend(line, "others")
    port, headers = line.app.admin_port, {"Authorization": "Bearer root"}
    keys = (await call(port, "GET", "/api/keys", headers=headers)).json()["keys"]
    status = (await call(port, "GET", "/status", headers=headers)).json()
    assert [one["key"] for one in keys] == [one["key"] for one in status["keys"]] == [*NAMES, "any"]
    mine = next(one for one in keys if one["key"] == "others")
    assert (mine["left"], mine["today"]["prompt"], mine["tokens_per_day"]) == (0, 5, 5)
    page = (await call(port, "GET", "/metrics", headers=headers)).text
    assert 'bioproxy_key_tokens_total{key="others",kind="prompt"} 5.0' in page
    assert 'bioproxy_key_tokens_left{key="others"} 0.0' in page
    assert 'bioproxy_key_tokens_left{key="any"}' not in page
