"""The official packages of OpenAI and Anthropic where models are many: lists, chats, streams, errors as they know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio

from support.conversation import openai_client
from support.swap_api import program_with_rules
from support.swap_models import fake
from support.swap_rig import Rig, swap_rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
HELLO: Json = [{"role": "user", "content": "hello"}]
MODELS = {
    "a": fake(aliases=["gpt-4o"]),
    "slow": fake("--start-delay 0.2", sendLoadingState=True),
    "bad": fake("--exit 3", sendLoadingState=True),
    "worse": fake("--exit 3"),
    "one": fake(concurrencyLimit=1),
    "cuts": fake("--crash-on-request 1 --crash-mid-stream"),
}
rig = program_with_rules(MODELS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(rig: Rig) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client before it."""
    async with openai_client(rig.port) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def claude(rig: Rig) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's."""
    url = f"http://127.0.0.1:{rig.port}"
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as opened:
        yield opened


async def test_models(client: openai.AsyncOpenAI) -> None:
    """The list as it types it."""
    listed = await client.models.list()
    assert {"a", "slow", "a+rules"} <= {one.id for one in listed.data}
    assert all(one.created and one.owned_by for one in listed.data)


@pytest.mark.parametrize("name", ["a", "gpt-4o"])
async def test_chat(name: str, client: openai.AsyncOpenAI) -> None:
    """By a name and an alias; the answer has the name that was asked for."""
    answer = await client.chat.completions.create(model=name, messages=HELLO)
    assert (answer.model, answer.choices[0].message.content) == (name, "word0 word1 word2 word3 ")


async def test_a_template_by_name(client: openai.AsyncOpenAI, rig: Rig) -> None:
    """`a+rules`."""
    await client.chat.completions.create(model="a+rules", messages=HELLO)
    assert "The rules.\\nhello" in (await rig.last("a"))["body"]


async def test_completions_and_embeddings(client: openai.AsyncOpenAI) -> None:
    """The other routes that it has."""
    assert (await client.completions.create(model="a", prompt="hello")).choices[0].text
    vectors = await client.embeddings.create(model="a", input=["one", "three"], encoding_format="float")
    assert [one.embedding[0] for one in vectors.data] == [3.0, 5.0]


async def test_a_transcription(client: openai.AsyncOpenAI) -> None:
    """A form with a recording, as it sends one."""
    answer = await client.audio.transcriptions.create(model="a", file=("a.wav", b"\x00\xff" * 500), language="de")
    assert answer.text == "hello"


async def test_a_stream_that_loads(client: openai.AsyncOpenAI, rig: Rig) -> None:
    """What is said of the load is reasoning to it; the answer is whole."""
    await rig.post("/api/models/unload/slow")
    stream = await client.chat.completions.create(model="slow", messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks]
    reasoning = "".join((delta.model_extra or {}).get("reasoning_content", "") for delta in deltas)
    assert "loading model: slow" in reasoning
    assert "".join(delta.content or "" for delta in deltas) == "word0 word1 word2 word3 "


async def test_an_unknown_model(client: openai.AsyncOpenAI) -> None:
    """NotFoundError, with our words."""
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="zzz", messages=HELLO)
    assert "no router for requested model" in caught.value.message
    assert caught.value.code == "not_found"


async def test_too_many(client: openai.AsyncOpenAI, rig: Rig) -> None:
    """RateLimitError."""
    held = await rig.ask_held("one")
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model="one", messages=HELLO)
    assert caught.value.code == "concurrency_limit"
    assert int(caught.value.response.headers["retry-after"]) >= 1
    await rig.release("one")
    await held


async def test_a_load_that_fails_in_a_stream(client: openai.AsyncOpenAI) -> None:
    """An APIError while it reads, not half an answer."""
    stream = await client.chat.completions.create(model="bad", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="upstream command exited prematurely"):
        async for _ in stream:
            pass


async def test_an_engine_that_dies_in_a_stream(client: openai.AsyncOpenAI) -> None:
    """The same."""
    stream = await client.chat.completions.create(model="cuts", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError) as caught:
        async for _ in stream:
            pass
    assert caught.value.message


async def test_messages(claude: anthropic.AsyncAnthropic) -> None:
    """Anthropic's whole answer."""
    answer = await claude.messages.create(model="gpt-4o", messages=HELLO, max_tokens=4)
    assert answer.content[0].type == "text"
    assert answer.model == "gpt-4o"


async def test_messages_stream(claude: anthropic.AsyncAnthropic, rig: Rig) -> None:
    """Also while its model is being loaded."""
    await rig.post("/api/models/unload/slow")
    stream = await claude.messages.create(model="slow", messages=HELLO, max_tokens=4, stream=True)
    events = [event async for event in stream]
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    assert "".join(delta.text for delta in deltas if delta.type == "text_delta") == "word0 word1 word2 word3 "
    assert events[-1].type == "message_stop"


async def test_anthropics_errors(claude: anthropic.AsyncAnthropic) -> None:
    """In the classes that it has for them."""
    with pytest.raises(anthropic.NotFoundError, match="no router for requested model"):
        await claude.messages.create(model="zzz", messages=HELLO, max_tokens=4)
    with pytest.raises(anthropic.InternalServerError, match="upstream command exited prematurely"):
        await claude.messages.create(model="worse", messages=HELLO, max_tokens=4)


async def test_keys(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Either way in which they send them; a wrong one is an AuthenticationError."""
    async with swap_rig(tmp_path_factory.mktemp("swap"), {"a": fake()}, apiKeys=["right"]) as rig:
        async with openai_client(rig.port, key="right") as client:
            assert (await client.chat.completions.create(model="a", messages=HELLO)).choices
        async with openai_client(rig.port, key="wrong") as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="a", messages=HELLO)
        url = f"http://127.0.0.1:{rig.port}"
        async with anthropic.AsyncAnthropic(base_url=url, api_key="right", max_retries=0) as claude:
            assert (await claude.messages.create(model="a", messages=HELLO, max_tokens=4)).content
        async with anthropic.AsyncAnthropic(base_url=url, api_key="wrong", max_retries=0) as claude:
            with pytest.raises(anthropic.AuthenticationError):
                await claude.messages.create(model="a", messages=HELLO, max_tokens=4)
