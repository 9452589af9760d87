"""The prompt-cache APIs, through the official packages and judged by their own types."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic

from bioproxy import aio
from bioproxy.app import App
from bioproxy.events import RequestEnded
from bioproxy.front import later
from fakes.fake_engine import FakeEngine
from support.clients import fake_line
from support.conversation import openai_client
from support.faults import sent
from support.http import call
from support.kv_rig import text
from support.leaks import until
from support.real_engine import line as real_line
from support.real_engine import llama_server, real_engine
from support.sdk_types import WHOLE, asked

Json = Any
EPHEMERAL: Json = {"type": "ephemeral"}
EXPLICIT: Json = {"mode": "explicit"}
FORMS = ("/v1/chat/completions", "/v1/responses", "/v1/messages")


def prompt(path: str, *parts: str, mark: int = -1, **fields: Json) -> Json:
    """A request with one user message of these parts, with a breakpoint after one of them."""
    kind = "input_text" if path == "/v1/responses" else "text"
    content: list[Json] = [{"type": kind, "text": part} for part in parts]
    if mark >= 0:
        name, value = ("cache_control", EPHEMERAL) if path == "/v1/messages" else ("prompt_cache_breakpoint", EXPLICIT)
        content[mark][name] = value
    messages = [{"role": "user", "content": content}]
    limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    return {"input" if path == "/v1/responses" else "messages": messages, limit: 4} | fields


def read_and_written(usage: Json) -> tuple[int, int, int]:
    """The prompt, what of it was read, and what was written."""
    if "cache_creation_input_tokens" in usage:
        read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
        return usage["input_tokens"] + read + written, read, written
    details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
    return usage.get("prompt_tokens") or usage["input_tokens"], details["cached_tokens"], details["cache_write_tokens"]


def usage_in(found: Json) -> Json:
    """The usage of a whole answer, or the last one that the events of a stream tell."""
    if isinstance(found, dict):
        return found["usage"]
    said = [one.get("response") or one.get("message") or one for one in found]
    return [one["usage"] for one in said if one.get("usage")][-1]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", FORMS)
async def test_usage_is_honest(path: str, stream: bool, tmp_path: Path) -> None:
    """What is new is written up to the last breakpoint and read the next time; the three parts are the prompt."""
    extra: Json = {"stream_options": {"include_usage": True}} if stream and "chat" in path else {}
    body = prompt(path, text(120), "Why is that so?", mark=0, stream=stream, **extra)
    async with fake_line(tmp_path) as line:
        first = read_and_written(usage_in(await asked(line.app.proxy_port, path, body)))
        again = read_and_written(usage_in(await asked(line.app.proxy_port, path, body)))
        received = await line.received(path)
    assert first[1] < 5  # the fake's first token
    assert first[2] > 100
    assert (first[1] + first[2] < first[0]) is (path == "/v1/messages")  # the prompt's end is a breakpoint with OpenAI
    assert again == (first[0], first[0] - 1, 1) if path != "/v1/messages" else again == (first[0], first[0] - 1, 0)
    assert "cache" not in json.dumps(received)


async def test_openais_fields_through_its_sdk(tmp_path: Path) -> None:
    """The options come back as they were applied, and none of the fields reaches the engine."""
    async with fake_line(tmp_path) as line, openai_client(line.app.proxy_port) as client:
        answer = await client.responses.create(
            model="m",
            input="hello",
            prompt_cache_key="a conversation",
            prompt_cache_options={"mode": "implicit", "ttl": "12h"},
            prompt_cache_retention="24h",
            max_output_tokens=2,
        )
        assert answer.prompt_cache_options is not None
        assert (answer.prompt_cache_options.mode, answer.prompt_cache_options.ttl) == ("implicit", "12h")
        assert answer.prompt_cache_key == "a conversation"
        assert answer.usage is not None
        details = answer.usage.input_tokens_details
        assert details.cache_write_tokens_details is not None
        assert details.cache_write_tokens == details.cache_write_tokens_details.ttl_12h_tokens > 0
        assert "cache" not in json.dumps(await line.received("/v1/responses"))
        chat = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hello"}], prompt_cache_key="k", max_tokens=2
        )
        assert chat.usage is not None
        assert chat.usage.prompt_tokens_details is not None
        assert chat.usage.prompt_tokens_details.cache_write_tokens is not None
        assert "cache" not in json.dumps(await line.received("/v1/chat/completions"))


async def test_anthropics_marks_through_its_sdk(tmp_path: Path) -> None:
    """In a stream, too: what was written by its lifetime in the first event, and the sums in the last one."""
    async with (
        fake_line(tmp_path) as line,
        AsyncAnthropic(base_url=line.url, api_key="none", max_retries=0) as client,
        client.messages.stream(
            model="m",
            max_tokens=2,
            system=[{"type": "text", "text": text(60), "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
            messages=[{"role": "user", "content": "hello"}],
        ) as stream,
    ):
        message = await stream.get_final_message()
        usage = message.usage
        assert usage.cache_creation is not None
        assert usage.cache_creation.ephemeral_1h_input_tokens == usage.cache_creation_input_tokens
        assert usage.cache_creation_input_tokens
        assert usage.cache_creation_input_tokens > 50
        assert usage.input_tokens > 0
        assert (await line.received("/v1/messages"))["system"] == [{"type": "text", "text": text(60)}]


async def test_what_a_client_calls_its_conversation(tmp_path: Path) -> None:
    """The name stands in the record: by header, else by the body."""
    messages: Json = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    async with fake_line(tmp_path) as line:
        port = line.app.proxy_port
        seen: list[str] = []
        line.app.bus.subscribe(RequestEnded, lambda event: seen.append(event.record.session))
        await asked(port, "/v1/chat/completions", {**messages, "prompt_cache_key": "k"})
        user = {"user_id": "user_1_account_2_session_3"}
        await asked(port, "/v1/messages", {**messages, "metadata": user})
        head = {"X-Claude-Code-Session-Id": "4"}
        await asked(port, "/v1/messages", {**messages, "metadata": user}, **head)
        await asked(port, "/v1/chat/completions", messages)
        await asked(port, "/v1/chat/completions", messages, **{"X-OpenWebUI-Chat-Id": "5"})
    assert seen == ["k", "3", "4", "", "5"]


@pytest.mark.parametrize("path", FORMS)
async def test_a_field_that_cannot_be_meant(path: str, tmp_path: Path) -> None:
    """400 in the form of the API, and the sentence names it."""
    name, value = (
        ("cache_control", {"type": "x"}) if path == "/v1/messages" else ("prompt_cache_options", {"mode": "x"})
    )
    async with fake_line(tmp_path) as line:
        answer = await call(line.app.proxy_port, "POST", path, data={**prompt(path, "hello"), name: value})
    assert answer.status == 400
    assert name in answer.json()["error"]["message"]


async def test_counting_takes_the_marks_out_as_well(tmp_path: Path) -> None:
    """`count_tokens` gets the body that the engine would get."""
    async with fake_line(tmp_path) as line:
        body = {"system": [{"type": "text", "text": "s", "cache_control": EPHEMERAL}], "messages": [], "model": "m"}
        answer = await call(line.app.proxy_port, "POST", "/v1/messages/count_tokens", data=body)
        assert answer.json()["input_tokens"] > 0
        assert "cache" not in json.dumps(await line.received("/v1/messages/count_tokens"))


def prewarm(path: str, *parts: str, stream: bool = False) -> Json:
    """The request that makes the next one quick."""
    body = prompt(path, *parts, stream=stream)
    return body | ({"max_tokens": 0} if path == "/v1/messages" else {"prompt_cache_options": {"prewarm": True}})


PREWARMED = FORMS[1:]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", PREWARMED)
async def test_a_prewarm_says_nothing(path: str, stream: bool, tmp_path: Path) -> None:
    """The answer is empty, with a usage in which nothing was generated, and its types are right."""
    async with fake_line(tmp_path) as line:
        found = await asked(line.app.proxy_port, path, prewarm(path, text(80), stream=stream))
        assert line.app.records[-1].work == "user"
    usage = usage_in(found)
    assert usage["output_tokens"] == 0
    assert read_and_written(usage)[0] > 80
    if not stream:
        assert found["content" if path == "/v1/messages" else "output"] == []
    else:
        assert not any("delta" in one["type"] for one in found if one["type"] != "message_delta")


@real_engine
@pytest.mark.parametrize("path", PREWARMED)
async def test_a_prewarm_warms_to_the_token(path: str, tmp_path: Path) -> None:
    """The same request right after it finds all of its prompt but the token that an engine always evaluates anew."""
    async with llama_server(tmp_path) as engine, real_line(engine, tmp_path) as app:
        total, read, _ = read_and_written(usage_in(await asked(app.proxy_port, path, prewarm(path, text(200)))))
        assert read == 0
        found = await asked(app.proxy_port, path, prompt(path, text(200), prompt_cache_key="k"))
        assert read_and_written(usage_in(found))[:2] == (total, total - 1)
        for stream in (False, True):
            await asked(app.proxy_port, path, prewarm(path, text(100), stream=stream))


@pytest.mark.parametrize("path", PREWARMED)
async def test_a_prewarm_that_nobody_waits_for(path: str, tmp_path: Path) -> None:
    """202 at once; the work is a request of its own, which has its record when it ends."""
    async with fake_line(tmp_path) as line:
        await line.engine.faults(stuck=True)
        body = {"model": "m", **prewarm(path, text(80))}
        answer = await call(line.app.proxy_port, "POST", path, data=body, headers={"Prefer": "respond-async"})
        assert answer.status == 202
        assert answer.headers["preference-applied"] == "respond-async"
        WHOLE[path].validate_json(answer.body)
        await line.engine.faults(stuck=False)
        await until(lambda: len(line.app.records) == 2)
        assert [record.status for record in line.app.records] == [202, 200]
        assert (line.app.records[1].tokens_evaluated or 0) > 80
        found = await asked(line.app.proxy_port, path, prompt(path, text(80), prompt_cache_key="k"))
        assert read_and_written(usage_in(found))[1] > 80


async def test_what_is_wrong_is_told_before_anything_goes_on(tmp_path: Path) -> None:
    """A prewarm that cannot be meant is a 400, also if its client would not wait."""
    body = {"input": "hello", "prompt_cache_options": {"prewarm": "yes"}}
    async with fake_line(tmp_path) as line:
        port = line.app.proxy_port
        answer = await call(port, "POST", "/v1/responses", data=body, headers={"Prefer": "respond-async"})
        assert answer.status == 400
        assert len(line.app.records) == 1


async def test_work_that_nobody_waits_for_ends_with_the_program(tmp_path: Path) -> None:
    """It does not keep bioproxy from ending."""
    async with fake_line(tmp_path) as line:
        await line.engine.faults(stuck=True)
        body = {"model": "m", **prewarm("/v1/messages", text(80))}
        headers = {"Prefer": "wait=1, respond-async"}
        assert (await call(line.app.proxy_port, "POST", "/v1/messages", data=body, headers=headers)).status == 202
        app: App = line.app
        await until(lambda: len(app.front.later.tasks) == 1)
    assert not app.front.later.tasks


async def test_more_work_than_that_has_its_clients_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their bodies would fill the memory else: from the bound on the header is passed over, as RFC 7240 lets us."""
    monkeypatch.setattr(later, "MOST", 1)
    body = {"model": "m", **prewarm("/v1/messages", text(80))}
    async with fake_line(tmp_path) as line:
        await line.engine.faults(stuck=True)
        first, second = [
            aio.spawn(
                call(line.app.proxy_port, "POST", "/v1/messages", data=body, headers={"Prefer": "respond-async"}),
                name="prewarm",
            )
            for _ in range(2)
        ]
        done, [waiting] = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        assert [one.result().status for one in done] == [202]
        await line.engine.faults(stuck=False)
        assert (await waiting).status == 200


async def test_prewarm_and_leave(tmp_path: Path) -> None:
    """Without that header the work ends with its client; what was evaluated by then is kept."""
    slow: Json = {"tokens_per_second": 500, "batch_size": 16, "disconnect_poll": 0.02}
    async with fake_line(tmp_path, engine=slow) as line:
        fake: FakeEngine = line.engine
        async with sent(line.app, "/v1/messages", prewarm("/v1/messages", text(2000))):
            await fake.until(lambda state: state["totals"]["prompt"] > 100)
        state = await fake.until(lambda state: state["totals"]["cancelled"] and not state["slots"][0]["busy"])
        assert state["totals"]["prompt"] < 1500
        await until(lambda: [record.outcome for record in line.app.records] == ["client_left"])


def conversation(*words: str, system: str = "", **fields: Json) -> Json:
    """A request of Anthropic's, the words by turns the user's and the model's."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": one} for n, one in enumerate(words)]
    return {"messages": messages, "max_tokens": 2, "system": system or text(80, "system"), **fields}


def why(found: Json) -> Json:
    """What a message says about its cache."""
    return found["diagnostics"] and found["diagnostics"]["cache_miss_reason"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_anthropics_diagnostics(stream: bool, tmp_path: Path) -> None:
    """Null as long as nothing diverges, and the first thing that does; in the first event of a stream."""
    path = "/v1/messages"

    async def ask(previous: str | None, *words: str, **fields: Json) -> Json:
        body = conversation(*words, diagnostics={"previous_message_id": previous}, stream=stream, **fields)
        found = await asked(line.app.proxy_port, path, body)
        return found[0]["message"] if stream else found

    async with fake_line(tmp_path) as line:
        first = await ask(None, "hello")
        assert first["diagnostics"] is None
        second = await ask(first["id"], "hello", "hi", "why?")
        assert second["diagnostics"] is None
        third = await ask(second["id"], "hello", "hi", "why?", system=text(80, "another system"))
        assert why(third)["type"] == "system_changed"
        assert why(third)["cache_missed_input_tokens"] > 50
        assert why(await ask(first["id"], "hullo"))["type"] == "messages_changed"
        tool = {"name": "t", "input_schema": {"type": "object"}}
        assert why(await ask(first["id"], "hello", tools=[tool]))["type"] == "tools_changed"
        assert why(await ask("msg_nobody_has", "hello"))["type"] == "previous_message_not_found"
        plain = await asked(line.app.proxy_port, path, conversation("hello"))
        assert "diagnostics" not in plain


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_openais_diagnostics(stream: bool, tmp_path: Path) -> None:
    """A hit, a reason with tokens, or an answer that is not found."""
    path = "/v1/responses"

    async def ask(compare: str, words: str, key: str = "k", **fields: Json) -> Json:
        options = {"comparison_response_id": compare} if compare else {}
        body = {"input": words, "instructions": text(80), "prompt_cache_key": key, "max_output_tokens": 2, **fields}
        found = await asked(line.app.proxy_port, path, body | {"prompt_cache_options": options, "stream": stream})
        return found[-1]["response"] if stream else found

    async with fake_line(tmp_path) as line:
        first = await ask("", "hello")
        assert "prompt_cache_diagnostics" not in first
        again = await ask(first["id"], "hello")
        assert again["prompt_cache_diagnostics"] == {"type": "cache_hit"}
        assert again["prompt_cache_options"]["comparison_response_id"] == first["id"]
        told = (await ask(first["id"], "goodbye"))["prompt_cache_diagnostics"]
        assert (told["type"], told["reason"]) == ("cache_miss", "input_changed")
        assert told["comparison_reusable_tokens"] > 80
        assert told["cache_missed_tokens"] < 20
        effort = (await ask(first["id"], "hello", reasoning={"effort": "high"}))["prompt_cache_diagnostics"]
        assert effort.get("reason", "") in {"", "reasoning_effort_changed"}
        nobody = await ask("resp_nobody_has", "hello")
        assert nobody["prompt_cache_diagnostics"] == {"type": "comparison_response_not_found"}


async def test_another_keys_answer_is_not_found(tmp_path: Path) -> None:
    """To the byte as one that there never was: nobody learns that somebody else asked something."""
    keys = [{"key": "one", "name": "one"}, {"key": "two", "name": "two"}]
    async with fake_line(tmp_path, api_keys=keys) as line:
        port, path = line.app.proxy_port, "/v1/messages"
        first = await asked(port, path, conversation("hello"), **{"x-api-key": "one"})
        told = []
        for identity in (first["id"], "msg_nobody_has"):
            body = conversation("hello", diagnostics={"previous_message_id": identity})
            told.append((await asked(port, path, body, **{"x-api-key": "two"}))["diagnostics"])
        assert told[0] == told[1] == {"cache_miss_reason": {"type": "previous_message_not_found"}}
        body = conversation("hello", diagnostics={"previous_message_id": first["id"]})
        assert (await asked(port, path, body, **{"x-api-key": "one"}))["diagnostics"] is None


async def test_an_answer_that_was_forgotten_is_not_found(tmp_path: Path) -> None:
    """What is remembered of earlier prompts has its bound (`doctor.memory`)."""
    async with fake_line(tmp_path, doctor={"memory": 6000}) as line:
        port, path = line.app.proxy_port, "/v1/messages"
        first = await asked(port, path, conversation("hello"))
        for number in range(4):
            await asked(port, path, conversation(f"{number} hello", system=text(60, f"{number}")))
        await until(lambda: line.app.doctor.find("", first["id"]) is None)
        body = conversation("hello", diagnostics={"previous_message_id": first["id"]})
        assert why(await asked(port, path, body))["type"] == "previous_message_not_found"


@real_engine
async def test_the_place_is_exact_on_the_real_engine(tmp_path: Path) -> None:
    """What both begin with is told by the engine's own tokenizer: it is what it then finds cached."""
    async with llama_server(tmp_path) as engine, real_line(engine, tmp_path) as app:
        body: Json = {"instructions": text(100), "max_output_tokens": 2}
        first = await asked(app.proxy_port, "/v1/responses", {**body, "input": f"{text(60, 'a')} the end"})
        options = {"comparison_response_id": first["id"]}
        other = {**body, "input": f"{text(60, 'a')} another end", "prompt_cache_options": options}
        found = await asked(app.proxy_port, "/v1/responses", other)
        told = found["prompt_cache_diagnostics"]
        assert told["reason"] == "input_changed"
        assert told["comparison_reusable_tokens"] == found["usage"]["input_tokens_details"]["cached_tokens"]
        assert told["cache_missed_tokens"] == found["usage"]["input_tokens"] - told["comparison_reusable_tokens"]
