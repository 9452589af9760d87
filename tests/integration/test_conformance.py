"""The fake engine does what the real one does: the same questions to both (facts of llama-server, sections 1, 2 and 7).

What is asked here is what bioproxy relies on. A line that only one of the two fulfils would mean that tests on the fake
prove nothing. Slot files have a module of their own, test_conformance_slots.py.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fakes.engine_process import EngineProcess
from fakes.side_by_side import KINDS, complete, error_of, make

Json = Any
WORDS = "the quick brown fox jumps over the lazy dog and runs away from it "
TIMINGS: dict[str, type | tuple[type, ...]] = {
    "cache_n": int,
    "prompt_n": int,
    "prompt_ms": (int, float),
    "prompt_per_token_ms": (int, float),
    "prompt_per_second": (int, float),
    "predicted_n": int,
    "predicted_ms": (int, float),
    "predicted_per_token_ms": (int, float),
    "predicted_per_second": (int, float),
}

kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(params=KINDS)
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EngineProcess]:
    """One of the two, with slot files under `tmp_path/slots`."""
    async with make(request.param, tmp_path / "slots") as process:
        yield process


def has_timings(value: Json) -> None:
    """`timings` has every field, with its type."""
    for name, kind in TIMINGS.items():
        assert isinstance(value["timings"][name], kind), name


# introspection


async def test_health_props_and_models(engine: EngineProcess) -> None:
    """What discovery reads is there, with its type."""
    assert (await engine.get("/health")).json() == {"status": "ok"}
    props = (await engine.get("/props")).json()
    assert props["total_slots"] == 1
    assert props["default_generation_settings"]["n_ctx"] == 4096
    texts = ("model_alias", "model_path", "chat_template", "build_info", "media_marker", "bos_token", "eos_token")
    assert all(isinstance(props[name], str) for name in texts)
    assert (props["is_sleeping"], props["endpoint_slots"], props["endpoint_metrics"]) == (False, True, True)
    assert set(props["modalities"].values()) == {False}
    models = (await engine.get("/v1/models")).json()
    assert models["object"] == "list"
    assert models["data"][0]["meta"]["n_ctx"] == 4096
    assert isinstance(models["data"][0]["id"], str)


async def test_media_marker_is_the_process(engine: EngineProcess) -> None:
    """The marker stays while the process lives, and is another one after a restart."""
    first = (await engine.get("/props")).json()["media_marker"]
    assert (await engine.get("/props")).json()["media_marker"] == first
    await engine.restart()
    assert (await engine.get("/props")).json()["media_marker"] != first


async def test_slots_view(engine: EngineProcess) -> None:
    """/slots tells no tokens before a task ran, then those in the slot, also after erase and restore."""
    (before,) = (await engine.get("/slots")).json()
    assert (before["id"], before["n_ctx"], before["is_processing"]) == (0, 4096, False)
    assert "n_prompt_tokens" not in before
    tokens = (await complete(engine, WORDS * 3))["tokens_evaluated"]
    assert (await engine.slot("save", "a")).status == 200
    (after,) = (await engine.get("/slots")).json()
    assert after["n_prompt_tokens"] == tokens
    assert {"id_task", "n_prompt_tokens_processed", "n_prompt_tokens_cache", "params", "next_token"} <= set(after)
    assert isinstance(after["next_token"][0]["n_decoded"], int)
    await engine.slot("erase")
    assert (await engine.get("/slots")).json()[0]["n_prompt_tokens"] == 0
    await engine.slot("restore", "a")
    assert (await engine.get("/slots")).json()[0]["n_prompt_tokens"] == tokens
    await engine.restart()
    assert (await engine.slot("restore", "a")).status == 200
    assert "n_prompt_tokens" not in (await engine.get("/slots")).json()[0]


async def test_metrics(engine: EngineProcess) -> None:
    """/metrics has the counters that clients scrape."""
    answer = await engine.get("/metrics")
    assert answer.status == 200
    for name in ("prompt_tokens_total", "tokens_predicted_total", "requests_processing", "requests_deferred"):
        assert f"llamacpp:{name} ".encode() in answer.body


@kinds
async def test_switched_off_routes(kind: str) -> None:
    """Without their flags slot actions and /metrics are 501, /slots too; /props says so of /slots."""
    async with make(kind, None, metrics=False, no_slots=True) as engine:
        actions = [await engine.slot(name, "a") for name in ("save", "restore", "erase", "none")]
        assert [error_of(answer)[0::2] for answer in actions] == [(501, "not_supported_error")] * 4
        assert error_of(await engine.get("/metrics"))[0] == 501
        assert error_of(await engine.get("/slots"))[0] == 501
        assert (await engine.get("/props")).json()["endpoint_slots"] is False


# tokens and prompts


async def test_tokenize_and_template(engine: EngineProcess) -> None:
    """A rendered chat, tokenized, is as long as the prompt that chat counts; ids are kept by /completion."""
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello there"}]
    prompt = (await engine.post("/apply-template", {"messages": messages})).json()["prompt"]
    body = {"content": prompt, "add_special": True, "parse_special": True}
    tokens = (await engine.post("/tokenize", body)).json()["tokens"]
    chat = (await engine.post("/v1/chat/completions", {"messages": messages, "max_tokens": 1})).json()
    assert chat["usage"]["prompt_tokens"] == len(tokens)
    done = await complete(engine, tokens)
    assert done["timings"]["cache_n"] == len(tokens) - 1
    counted = (await engine.post("/v1/chat/completions/input_tokens", {"messages": messages})).json()
    assert counted["input_tokens"] == len(tokens)


async def test_no_generation_prompt(engine: EngineProcess) -> None:
    """add_generation_prompt false renders a beginning of the same text."""
    body = {"messages": [{"role": "user", "content": "hello"}]}
    whole = (await engine.post("/apply-template", body)).json()["prompt"]
    part = (await engine.post("/apply-template", {**body, "add_generation_prompt": False})).json()["prompt"]
    assert whole.startswith(part)
    assert len(part) < len(whole)


async def test_empty_text(engine: EngineProcess) -> None:
    """Nothing to tokenize is no error, and no token."""
    assert (await engine.post("/tokenize", {"content": ""})).json() == {"tokens": []}


JSON_ROUTES = ("/tokenize", "/apply-template", "/completion", "/v1/chat/completions", "/v1/messages")
BAD_BODIES: list[tuple[str, Json]] = [
    *[(path, b"{no") for path in JSON_ROUTES],
    ("/completion", {}),
    ("/completion", {"prompt": []}),
    ("/completion", {"prompt": "x", "n_predict": -2}),
    ("/v1/chat/completions", {}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": -2}),
    ("/apply-template", {}),
]


async def test_bad_bodies(engine: EngineProcess) -> None:
    """What is no JSON, or lacks something, or is out of range is 400."""
    for path, body in BAD_BODIES:
        assert error_of(await engine.post(path, body))[0::2] == (400, "invalid_request_error"), (path, body)


async def test_prompt_too_long(engine: EngineProcess) -> None:
    """A prompt longer than the context is refused with both numbers."""
    answer = await engine.post("/completion", {"prompt": WORDS * 1000, "n_predict": 1})
    assert error_of(answer)[0::2] == (400, "exceed_context_size_error")
    error = answer.json()["error"]
    assert error["n_ctx"] == 4096
    assert error["n_prompt_tokens"] > 4096


# inference: where timings and usage stand

CHAT = {"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 3}
ROUTES: dict[str, Json] = {
    "/completion": {"prompt": WORDS, "n_predict": 3},
    "/v1/completions": {"prompt": WORDS, "max_tokens": 3},
    "/v1/chat/completions": CHAT,
}


async def test_timings_of_completions(engine: EngineProcess) -> None:
    """Completions and chat end with timings, streamed or not."""
    for path, body in ROUTES.items():
        has_timings((await engine.post(path, body)).json())
        events = (await engine.post(path, {**body, "stream": True})).events()
        has_timings(events[-1])
        assert not any("timings" in event for event in events[:-1]), path


async def test_usage_chunk(engine: EngineProcess) -> None:
    """With include_usage the last chunk of a chat stream has usage and timings, and no choices."""
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    *_, finish, last = (await engine.post("/v1/chat/completions", body)).events()
    assert finish["choices"][0]["finish_reason"] == "length"
    assert "timings" not in finish
    assert last["choices"] == []
    assert isinstance(last["usage"]["prompt_tokens_details"]["cached_tokens"], int)
    has_timings(last)


async def test_responses(engine: EngineProcess) -> None:
    """/v1/responses: whole, usage alone; streamed, timings beside the response in the last event."""
    body = {"input": "hello there", "max_output_tokens": 3}
    whole = (await engine.post("/v1/responses", body)).json()
    assert "timings" not in whole
    assert isinstance(whole["usage"]["input_tokens_details"]["cached_tokens"], int)
    events = (await engine.post("/v1/responses", {**body, "stream": True})).events()
    assert events[-1]["type"] == "response.completed"
    has_timings(events[-1])


async def test_messages(engine: EngineProcess) -> None:
    """/v1/messages never has timings; usage counts what was not cached, at a stream's beginning."""
    whole = (await engine.post("/v1/messages", CHAT)).json()
    usage = whole["usage"]
    assert "timings" not in whole
    again = (await engine.post("/v1/messages", CHAT)).json()["usage"]
    assert again["input_tokens"] == 1
    assert again["cache_read_input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"] - 1
    events = (await engine.post("/v1/messages", {**CHAT, "stream": True})).events()
    assert not any("timings" in event for event in events)
    assert events[0]["message"]["usage"]["cache_read_input_tokens"] == again["cache_read_input_tokens"]
    (delta,) = [event for event in events if event["type"] == "message_delta"]
    assert delta["usage"] == {"output_tokens": 3}
    count = (await engine.post("/v1/messages/count_tokens", CHAT)).json()["input_tokens"]
    assert count == again["input_tokens"] + again["cache_read_input_tokens"]


async def test_event_names(engine: EngineProcess) -> None:
    """Only the two dialects that name their events do."""
    for path, body in [
        *ROUTES.items(),
        ("/v1/responses", {"input": "a", "max_output_tokens": 1}),
        ("/v1/messages", CHAT),
    ]:
        answer = await engine.post(path, {**body, "stream": True})
        assert answer.headers["content-type"] == "text/event-stream"
        assert (b"event: " in answer.body) == (path in ("/v1/responses", "/v1/messages"))
        done = path.startswith("/v1/c")
        assert answer.body.endswith(b"data: [DONE]\n\n") == done


async def test_progress(engine: EngineProcess) -> None:
    """return_progress tells the prompt's way batch by batch, from what was cached to its end."""
    body = {"prompt": WORDS * 60, "n_predict": 1, "stream": True, "return_progress": True}
    events = (await engine.post("/completion", body)).events()
    steps = [event["prompt_progress"] for event in events if "prompt_progress" in event]
    assert steps[0]["processed"] == steps[0]["cache"] == 0
    assert steps[1]["processed"] == 512
    assert steps[-1]["processed"] == steps[-1]["total"]


# the cache


async def test_zero_tokens(engine: EngineProcess) -> None:
    """n_predict 0 evaluates the prompt and samples one token that does not enter the slot; again costs one token."""
    done = await complete(engine, WORDS * 3, n_predict=0)
    assert done["timings"]["predicted_n"] == 1
    total = done["tokens_evaluated"]
    assert (await engine.get("/slots")).json()[0]["n_prompt_tokens"] == total
    again = await complete(engine, WORDS * 3, n_predict=0)
    assert (again["timings"]["cache_n"], again["timings"]["prompt_n"]) == (total - 1, 1)


async def test_longest_common_prefix(engine: EngineProcess) -> None:
    """What two prompts share is not evaluated again; nothing else is kept."""
    ids = list(range(100, 400))
    await complete(engine, ids)
    done = await complete(engine, [*ids[:200], *range(500, 550)])
    assert (done["timings"]["cache_n"], done["timings"]["prompt_n"]) == (200, 50)


async def test_cache_prompt_off(engine: EngineProcess) -> None:
    """cache_prompt false evaluates everything."""
    await complete(engine, WORDS)
    assert (await complete(engine, WORDS, cache_prompt=False))["timings"]["cache_n"] == 0


async def test_chunks_add_up(engine: EngineProcess) -> None:
    """A prompt in growing chunks is evaluated once."""
    ids = list(range(100, 1500))
    parts = [(await complete(engine, ids[:end], n_predict=0))["timings"]["prompt_n"] for end in (512, 1024, 1400)]
    assert parts == [512, 512, 376]


async def test_ram_cache_brings_back_what_was_displaced(engine: EngineProcess) -> None:
    """One token moves what is resident into the RAM cache, from where it returns (kv-rule 16)."""
    ids = list(range(100, 1100))
    await complete(engine, ids, n_predict=0)
    await complete(engine, [1], n_predict=0)
    assert (await complete(engine, ids, n_predict=0))["timings"]["cache_n"] == 999


@kinds
async def test_without_ram_cache_it_is_gone(kind: str) -> None:
    """With --cache-ram 0 what is displaced is lost."""
    async with make(kind, None, cache_ram=0) as engine:
        ids = list(range(100, 600))
        await complete(engine, ids, n_predict=0)
        await complete(engine, [1], n_predict=0)
        assert (await complete(engine, ids, n_predict=0))["timings"]["cache_n"] == 0


@kinds
async def test_ends_at_once_when_idle(kind: str) -> None:
    """SIGTERM with nothing to do ends the process."""
    async with make(kind, None) as engine:
        assert await engine.stop() in (0, -signal.SIGTERM)


@kinds
async def test_leaving_a_stream_stops_it(kind: str) -> None:
    """A client that leaves in mid-stream ends the work; what was computed so far stays in the slot."""
    slow = {"decode_rate": 1000, "ctx_size": 32768} if kind == "fake" else {"ctx_size": 32768}
    async with make(kind, None, **slow) as engine:
        body = b'{"prompt":"a","n_predict":30000,"stream":true,"ignore_eos":true}'
        reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
        writer.write(b"POST /completion HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await reader.readuntil(b"data: ")
        writer.close()
        await writer.wait_closed()
        done = await complete(engine, "another prompt altogether")  # deferred until the slot is free
        assert done["timings"]["cache_n"] <= 1
        metrics = (await engine.get("/metrics")).body.decode()
    (predicted,) = re.findall(r"^llamacpp:tokens_predicted_total (\d+)", metrics, re.MULTILINE)
    assert int(predicted) < 30_000
