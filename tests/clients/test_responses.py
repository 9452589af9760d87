"""`client.responses.stream(...)` of the official openai package: before the fake engine, and before llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from support.clients import fake_line
from support.conversation import openai_client
from support.http import call
from support.real_engine import line as real_line
from support.real_engine import llama_server, real_engine
from support.responses import STREAM, TOOLS, filling

Json = Any
THINKS = 'root ::= "<think>\\nhm\\n</think>\\n\\n" "hello there"'
TEMPLATE = """{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


async def streamed(client: openai.AsyncOpenAI, **extra: Json) -> tuple[list[str], str]:
    """The types of the events of one stream, and the text of the whole answer, whose last event repeats it."""
    async with client.responses.stream(model="m", input="hello", max_output_tokens=40, extra_body=extra) as stream:
        kinds = [str(event.type) async for event in stream]
        answer = await stream.get_final_response()
    Response.model_validate(answer.to_dict(mode="python"), strict=True)
    return kinds, answer.output_text


async def test_a_stream_of_the_fake_engine(tmp_path: Path) -> None:
    """The SDK accumulates it to the same answer that a request without `stream` gets."""
    async with fake_line(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        kinds, text = await streamed(client)
        whole = await client.responses.create(model="m", input="hello", max_output_tokens=40)
        assert text == whole.output_text
        assert kinds[-1] == "response.completed"
        Response.model_validate(whole.to_dict(mode="python"), strict=True)


@real_engine
@pytest.mark.parametrize("extra", [{}, {"grammar": THINKS}, {"return_progress": True}])
async def test_a_stream_of_llama_cpp(tmp_path: Path, extra: Json) -> None:
    """With and without reasoning, with and without progress; each event is strictly one of the SDK's types."""
    (tmp_path / "chat.jinja").write_text(TEMPLATE)
    async with (
        llama_server(tmp_path, chat_template_file=str(tmp_path / "chat.jinja"), jinja=True) as engine,
        real_line(engine, tmp_path) as app,
        openai_client(app.proxy_port) as client,
    ):
        kinds, text = await streamed(client, **extra)
        if "grammar" in extra:
            assert text == "hello there"
            assert "response.reasoning_text.delta" in kinds
        body = {"model": "m", "input": "hello", "max_output_tokens": 4, "stream": True, **extra}
        answer = await call(app.proxy_port, "POST", "/v1/responses", body=json.dumps(body).encode())
        for block in answer.body.decode().split("\n\n"):
            if block.strip():
                TypeAdapter(ResponseStreamEvent).validate_json(block.split("\ndata: ", 1)[1], strict=True)


async def test_thoughts_words_and_a_call() -> None:
    """As llama-server tells them, filled in: the SDK accumulates all three, and knows the call at its end."""
    one = filling(tools=TOOLS)
    data = b"".join(map(one.feed, STREAM)) + one.end()
    sent = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=data)
    )
    async with (
        openai.AsyncOpenAI(
            base_url="http://engine/v1", api_key="k", http_client=httpx2.AsyncClient(transport=sent)
        ) as client,
        client.responses.stream(model="m", input="hello", tools=TOOLS) as stream,
    ):
        found = {event.type: event async for event in stream}
        answer = await stream.get_final_response()
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call"]
    done: Json = found["response.function_call_arguments.done"]
    assert (done.name, done.arguments, done.output_index) == ("look", '{"id": "x"}', 2)
