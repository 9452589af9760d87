"""What an engine answers after the stream has begun without it: its own error, plain JSON, a compressed stream."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy.activity import Record
from bioproxy.app import App
from bioproxy.front.inference import no_answer
from bioproxy.front.waiting import Keepalive
from fakes.fake_engine import FakeEngine
from support.apps import MS, station
from support.faults import CHAT, MESSAGES, RESPONSES, ask, body_for, sent, tried
from support.http import Answer, parse
from support.leaks import until

Json = Any
COMPLETIONS, COMPLETION = "/v1/completions", "/completion"
WORDS = "word " * 200  # more than a context of 64 tokens


def request(path: str, words: str = "hello") -> Json:
    """A request for a stream on any of these paths."""
    return {**body_for(path, words, stream=True), "prompt": words}


@asynccontextmanager
async def engine(folder: Path, *, keepalive: float = 5 * MS, **flags: Json) -> AsyncIterator[tuple[FakeEngine, App]]:
    """An App that keeps streams alive every few milliseconds, before an engine."""
    async with FakeEngine(**flags) as fake, tried(fake, folder, stream_keepalive=keepalive) as app:
        yield fake, app
        await fake.faults(coding="", kind="", no_stream=False, early_head=False)


async def late(fake: FakeEngine, app: App, path: str, data: Json, **faults: Json) -> tuple[Answer, Record]:
    """The whole answer to a request that waited until its stream had begun; the engine has these faults by then."""
    await fake.faults(stuck=True)
    async with sent(app, data=ask()) as first:
        await fake.until(lambda state: state["slots"][0]["busy"])
        async with sent(app, path, data) as second:
            raw = await second.readuntil(b"\n\n")
            await fake.faults(stuck=False, **faults)
            await first.read()
            raw += await second.read()
    await until(lambda: any(record.stream for record in app.records))
    return parse(raw, "POST"), next(record for record in app.records if record.stream)


def told(answer: Answer) -> list[tuple[str, Json]]:
    """The names and payloads of a stream's events, signs of life left out."""
    found = []
    for event in answer.text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in event.splitlines() if not line.startswith(":"))
        if "data" in lines and lines.get("event") != "ping":
            data = lines["data"]
            found.append((lines.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, COMPLETION, MESSAGES, RESPONSES])
async def test_an_error_keeps_its_type_and_figures(path: str, tmp_path: Path) -> None:
    """A client that compresses its conversation when the context is full looks for them, in its dialect's form."""
    async with engine(tmp_path, ctx_size=64) as (fake, app):
        answer, record = await late(fake, app, path, request(path, WORDS))
        events = told(answer)
        error = events[0][1]["error"]
        assert error["type"] == "exceed_context_size_error"
        assert error["n_ctx"] == 64
        assert error["n_prompt_tokens"] > 200
        assert "exceeds the available context size" in error["message"]
        assert (record.outcome, record.status, record.error) == ("client_error", 400, error["message"])
        names = {MESSAGES: ["error"], RESPONSES: ["error", "response.failed"]}.get(path, [""])
        assert [name for name, _ in events] == names
        assert all(name in {"", data.get("type")} for name, data in events)


async def test_an_error_in_a_responses_stream(tmp_path: Path) -> None:
    """As OpenAI's API tells it: numbered, with texts for code and type, and the response has failed."""
    async with engine(tmp_path, ctx_size=64) as (fake, app):
        answer, _ = await late(fake, app, RESPONSES, request(RESPONSES, WORDS))
        (_, error), (_, failed) = told(answer)
        assert [error["sequence_number"], failed["sequence_number"]] == [0, 1]
        assert {"code": "context_length_exceeded", "param": None}.items() <= error.items()
        assert error["message"] == error["error"]["message"] == failed["response"]["error"]["message"]
        assert failed["response"]["error"]["code"] == "context_length_exceeded"
        assert (failed["response"]["status"], failed["response"]["object"]) == ("failed", "response")


async def test_plain_json_becomes_a_chunk(tmp_path: Path) -> None:
    """An engine that cannot stream is heard all the same: one event with its answer, and the end."""
    async with engine(tmp_path) as (fake, app):
        answer, record = await late(fake, app, CHAT, request(CHAT), no_stream=True)
        (_, chunk), (_, done) = told(answer)
        [choice] = chunk["choices"]
        assert (choice["delta"], choice["finish_reason"], done) == (choice["message"], "length", "[DONE]")
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["usage"]["completion_tokens"] == 4
        assert (record.outcome, record.tokens_generated) == ("ok", 4)
        assert station(app).keeper.statistics().slots[0].state == "conversation"


@pytest.mark.parametrize(
    ("path", "names", "done"),
    [
        (COMPLETIONS, ["", ""], True),
        (COMPLETION, [""], False),
        (RESPONSES, ["response.completed"], False),
        (
            MESSAGES,
            [
                "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
                "message_stop",
            ],
            False,
        ),
    ],
)  # fmt: skip
async def test_plain_json_in_other_dialects(path: str, names: list[str], done: bool, tmp_path: Path) -> None:
    """Each has its own event for a whole answer, and its own end."""
    async with engine(tmp_path) as (fake, app):
        answer, record = await late(fake, app, path, request(path), no_stream=True)
        events = told(answer)
        assert [name for name, _ in events] == names
        assert (events[-1][1] == "[DONE]") == done
        assert (record.outcome, record.tokens_generated) == ("ok", 4)


async def test_a_stream_by_another_name(tmp_path: Path) -> None:
    """An engine that does not say that it sends events is believed by what it sends."""
    async with engine(tmp_path) as (fake, app):
        answer, record = await late(fake, app, CHAT, request(CHAT), kind="text/plain")
        events = told(answer)
        assert events[-1] == ("", "[DONE]")
        assert events[0][1]["object"] == "chat.completion.chunk"
        assert (record.outcome, record.tokens_generated) == ("ok", 4)
        assert station(app).keeper.statistics().slots[0].state == "conversation"


def test_what_is_no_answer_is_an_error_of_the_engine() -> None:
    """Whichever status it has: the engine's words if they are an error, else a sentence of ours."""
    told = no_answer(b'{"object": "error", "message": "no", "type": "BadRequestError"}', 200)
    assert (told.message, told.status, dict(told.fields)) == ("no", 502, {"type": "BadRequestError"})
    for status in (200, 204, 302):
        error = no_answer(b"", status)
        assert (error.status, f"answered {status}, " in error.message) == (502, True)
    assert no_answer(b"", 400).message == "400 Bad Request"


async def test_a_compressed_stream_after_a_comment_of_ours(tmp_path: Path) -> None:
    """The engine was asked for plain bytes; compressed ones behind a plain comment would be garbage, so it is told."""
    async with engine(tmp_path) as (fake, app):
        answer, record = await late(fake, app, CHAT, request(CHAT), coding="gzip")
        [(_, last)] = told(answer)
        assert "compresses its stream" in last["error"]["message"]
        assert record.outcome == "engine_error"


async def test_nothing_of_ours_stands_in_a_compressed_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's head came first and says that it is compressed: no sign of life from then on, and no error event."""
    silent = asyncio.Event()
    stop = Keepalive.stop

    def stopped(keepalive: Keepalive) -> None:
        stop(keepalive)
        silent.set()

    monkeypatch.setattr(Keepalive, "stop", stopped)
    async with engine(tmp_path, keepalive=60) as (fake, app):
        await fake.faults(early_head=True, coding="gzip", stuck=True)
        async with sent(app, CHAT, request(CHAT)) as reader:
            assert b"Content-Encoding: gzip" in await reader.readuntil(b"\r\n\r\n")
            await silent.wait()
            await fake.faults(stuck=False)
            body = parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + await reader.read(), "POST").body
        assert gzip.decompress(body).endswith(b"data: [DONE]\n\n")


async def test_a_compressed_stream_that_breaks_off_is_cut(tmp_path: Path) -> None:
    """An event in plain text would be unreadable there, and hide that the answer is not whole."""
    async with engine(tmp_path, keepalive=60, decode_rate=100) as (fake, app):
        await fake.faults(coding="gzip")
        async with sent(app, CHAT, {**request(CHAT), "max_tokens": 2000}) as reader:
            head = await reader.readuntil(b"\r\n\r\n")
            await fake.kill()
            rest = await reader.read()
        assert b"gzip" in head
        assert b"error" not in rest
        assert not rest.endswith(b"0\r\n\r\n")
        await fake.restart()
