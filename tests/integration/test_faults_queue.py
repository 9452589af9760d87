"""A queue that is full or too slow, and streams that wait in it: clear answers in the shape of the API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy import aio
from bioproxy.app import App
from fakes.fake_engine import FakeEngine
from support.apps import MS
from support.faults import CHAT, MESSAGES, RESPONSES, ask, body_for, good, sent, tried
from support.http import Answer, parse
from support.leaks import owned, until

Json = Any
SLOW = 100  # generated tokens a second


@asynccontextmanager
async def busy(app: App, *, tokens: int = 2000) -> AsyncIterator[None]:
    """The engine's only slot is taken for as long as the block lasts."""
    async with sent(app, data=ask(tokens=tokens, stream=True)) as reader:
        await reader.readuntil(b"data: ")
        yield


def check_shape(path: str, answer: Answer, *, kind: str) -> None:
    """The error has the shape that the clients of `path` parse, and says when to come back."""
    body = answer.json()
    assert body["error"]["message"]
    assert body["error"]["type"] == kind
    assert int(answer.headers["retry-after"]) >= 1
    if path == MESSAGES:
        assert (body["type"], body["request_id"]) == ("error", answer.headers["request-id"])
    elif path == "/completion":
        assert body["error"]["code"] == answer.status
    else:
        assert isinstance(body["error"]["code"], str)


FULL = [(CHAT, "rate_limit_error"), (MESSAGES, "rate_limit_error"), ("/completion", "rate_limit_error")]
LATE = [(CHAT, "unavailable_error"), (MESSAGES, "overloaded_error"), ("/completion", "unavailable_error")]


async def test_a_full_queue_is_a_429(tmp_path: Path) -> None:
    """`queue_limit` counts who waits; one more hears when to come back, in its dialect, streaming or not."""
    async with FakeEngine(decode_rate=SLOW) as fake, tried(fake, tmp_path, queue_limit=1) as app:
        async with busy(app), sent(app, data=ask("waits")):
            await until(lambda: owned(app)["waiters"] == 1)
            for path, kind in FULL:
                for stream in (False, True):
                    answer = await good(app, path=path, stream=stream, prompt="x")
                    assert answer.status == 429
                    check_shape(path, answer, kind=kind)
        assert [record.outcome for record in app.records].count("rejected") == 6


async def test_a_wait_too_long_is_a_503(tmp_path: Path) -> None:
    """After `queue_timeout`, in the dialect of the call."""
    async with FakeEngine(decode_rate=SLOW) as fake, tried(fake, tmp_path, queue_timeout=30 * MS) as app:
        async with busy(app):
            for path, kind in LATE:
                answer = await good(app, path=path, prompt="x")
                assert answer.status == 503
                check_shape(path, answer, kind=kind)
        assert [record.outcome for record in app.records].count("timeout") == 3


@pytest.mark.parametrize(
    ("path", "comment", "error"),
    [
        (CHAT, ": ", "data: {"),
        (RESPONSES, ": ", "event: response.failed\ndata: {"),
        (MESSAGES, "event: ping\n", "event: error\ndata: {"),
    ],
)
async def test_a_stream_that_waits_is_kept_alive(path: str, comment: str, error: str, tmp_path: Path) -> None:
    """A 200 and a comment again and again; what fails then is an error event, and no [DONE] follows."""
    times = {"queue_timeout": 600 * MS, "stream_keepalive": 10 * MS}
    async with FakeEngine(decode_rate=SLOW) as fake, tried(fake, tmp_path, **times) as app:  # type: ignore[arg-type]
        async with busy(app), sent(app, path, body_for(path, stream=True)) as reader:
            answer = parse(await reader.read(), "POST")
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.text.count(comment) >= 3
        last = answer.text.rstrip().rsplit("\n\n", 1)[-1]
        assert last.startswith(error)
        told = json.loads(last.partition("data: ")[2])
        assert told.get("response", told)["error"]["message"]
        assert "[DONE]" not in answer.text


async def test_a_stream_that_waited_is_served(tmp_path: Path) -> None:
    """The comments stand before the engine's events, which come whole."""
    async with FakeEngine() as fake, tried(fake, tmp_path, stream_keepalive=20 * MS) as app:
        await fake.faults(stuck=True)
        async with sent(app, data=ask(tokens=10, stream=True)) as first:
            await fake.until(lambda state: state["slots"][0]["busy"])
            async with sent(app, data=ask(stream=True)) as second:
                raw = await second.readuntil(b"\n\n")
                await fake.faults(stuck=False)
                await first.read()
                raw += await second.read()
        answer = parse(raw, "POST")
        assert answer.text.startswith(": ")
        assert answer.text.endswith("data: [DONE]\n\n")


async def test_an_answer_that_is_no_stream_is_not_kept_alive(tmp_path: Path) -> None:
    """Whoever asked for JSON gets a status and JSON, however long it takes."""
    async with FakeEngine(decode_rate=SLOW) as fake, tried(fake, tmp_path, stream_keepalive=10 * MS) as app:
        async with sent(app, data=ask(tokens=10, stream=True)) as first, sent(app, data=ask()) as second:
            await first.readuntil(b"data: ")
            answer = parse(await second.read(), "POST")
        assert answer.json()["choices"]


async def test_what_computes_nothing_passes_the_queue(tmp_path: Path) -> None:
    """Tokens are counted and models listed while the engine is busy and the queue is full."""
    slow = FakeEngine(decode_rate=SLOW)
    async with slow as fake, tried(fake, tmp_path, queue_limit=1) as app, busy(app), sent(app, data=ask("waits")):
        await until(lambda: owned(app)["waiters"] == 1)
        for path in ("/tokenize", "/apply-template", "/v1/messages/count_tokens"):
            assert (await good(app, path=path, content="x")).status == 200


async def test_a_busy_engine_that_dies_serves_those_who_waited(tmp_path: Path) -> None:
    """The running stream ends with an error; waiting ones get an answer each, none hangs, none is served twice."""
    async with FakeEngine(decode_rate=SLOW) as fake, tried(fake, tmp_path) as app:
        async with busy(app):
            calls = [aio.spawn(good(app, f"number {number}"), name="client") for number in range(5)]
            await until(lambda: owned(app)["waiters"] == 5)
            await fake.restart()
            answers = [await one for one in calls]
        assert {answer.status for answer in answers} <= {200, 502}
        served = [answer for answer in answers if answer.status == 200]
        assert len(await fake.requests(CHAT)) == len(served)
