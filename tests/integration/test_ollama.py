"""Ollama's routes byte by byte: what a client that leaves, waits or asks wrongly gets, and what the engine gets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_engine import FakeEngine
from support.apps import MS, station
from support.faults import sent, tried
from support.http import build, call, exchange, free_port, parse
from support.leaks import owned, until

Json = Any
CHAT = "/api/chat"
LINES = "application/x-ndjson"


def ask(content: str = "hello", *, tokens: int = 4, **more: Json) -> Json:
    """A chat as a client of Ollama's sends it."""
    return {
        "model": "m", "messages": [{"role": "user", "content": content}], "options": {"num_predict": tokens}, **more,
    }  # fmt: skip


def lines(text: str) -> list[Json]:
    """Each line of an answer."""
    return [json.loads(line) for line in text.splitlines()]


async def test_a_stream(tmp_path: Path) -> None:
    """Lines of JSON in chunks; the connection stays open for the next request."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        answer = await call(app.proxy_port, "POST", CHAT, data=ask())
        assert answer.status == 200
        assert answer.headers["content-type"] == LINES
        assert answer.headers["x-accel-buffering"] == "no"
        assert "server-timing" in answer.headers
        found = lines(answer.text)
        assert [line["done"] for line in found] == [False] * 4 + [True]
        assert found[-1]["eval_count"] == 4
        [seen] = await fake.requests("/v1/chat/completions")
        assert seen.header("content-type") == "application/json"
        await until(lambda: len(app.records) == 1)
        [record] = app.records
        assert (record.endpoint, record.path, record.outcome) == (CHAT, CHAT, "ok")
        assert record.tokens_generated == 4


async def test_an_old_client(tmp_path: Path) -> None:
    """HTTP/1.0 knows no chunks: the end of the connection is that of the stream, and a whole answer has its length."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        for stream, count in ((True, 5), (False, 1)):
            body = json.dumps(ask(stream=stream)).encode()
            raw = build("POST", CHAT, body=body).replace(b"HTTP/1.1", b"HTTP/1.0")
            answer = parse(await exchange(app.proxy_port, raw), "POST")
            assert len(lines(answer.text)) == count
            assert ("content-length" in answer.headers) is not stream


@pytest.mark.parametrize("stream", [False, True])
async def test_leave_in_mid_answer(stream: bool, tmp_path: Path) -> None:
    """The engine's work is cancelled; the record says that the client left, and the next one is served."""
    async with FakeEngine(decode_rate=100, disconnect_poll=20 * MS) as fake, tried(fake, tmp_path) as app:
        async with sent(app, CHAT, ask(tokens=2000, stream=stream)) as reader:
            await fake.until(lambda state: state["totals"]["predicted"] > 2)
            if stream:
                await reader.readuntil(b'"done":false}\n')
        state = await fake.until(lambda state: state["totals"]["cancelled"] and not state["slots"][0]["busy"])
        assert state["totals"]["predicted"] < 1000
        await until(lambda: any(record.outcome == "client_left" for record in app.records))
        again = await call(app.proxy_port, "POST", CHAT, data=ask(stream=False))
        assert again.json()["done"] is True
        assert owned(app)["grants"] == 0


async def test_leave_while_queued(tmp_path: Path) -> None:
    """Out of the queue at once; the engine never hears of it."""
    async with FakeEngine(decode_rate=100) as fake, tried(fake, tmp_path) as app:
        async with sent(app, CHAT, ask(tokens=2000)) as running:
            await running.readuntil(b'"done":false}\n')
            async with sent(app, CHAT, ask("leaves")):
                await until(lambda: owned(app)["waiters"] == 1)
            await until(lambda: owned(app)["waiters"] == 0)
        assert all("leaves" not in request.body for request in await fake.requests())


async def test_leave_after_the_last_line(tmp_path: Path) -> None:
    """The client has its answer, although the engine has not closed its own: it was served."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        await fake.faults(hold_end=True)
        async with sent(app, CHAT, ask()) as reader:
            await reader.readuntil(b'"done":true')
        await fake.faults(hold_end=False)
        await until(lambda: len(app.records) == 1)
        assert [record.outcome for record in app.records] == ["ok"]
        assert station(app).keeper.statistics().slots[0].state == "conversation"


async def test_the_engine_breaks_off(tmp_path: Path) -> None:
    """In a stream the last line is the error; of a whole answer nothing is out yet, so it is a 502."""
    async with FakeEngine(decode_rate=100) as fake, tried(fake, tmp_path) as app:
        async with sent(app, CHAT, ask(tokens=2000)) as reader:
            await reader.readuntil(b'"done":false}\n')
            await fake.kill()
            said = (await reader.read()).decode()
        assert '{"error":"' in said
        assert '"done":true' not in said
        answer = await call(app.proxy_port, "POST", CHAT, data=ask(stream=False))
        assert answer.status == 502
        assert list(answer.json()) == ["error"]
        await fake.restart()


async def test_a_whole_answer_that_is_cut(tmp_path: Path) -> None:
    """Its client gets a status and a sentence, for nothing of it is out before it is whole."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        await fake.faults(answer="wrong_length", paths=["/v1/chat/completions"])
        answer = await call(app.proxy_port, "POST", CHAT, data=ask(stream=False))
        assert answer.status == 502
        assert list(answer.json()) == ["error"]
        await fake.faults(answer="", paths=[])


async def test_the_conversation_goes_on_in_the_cache(tmp_path: Path) -> None:
    """Ids of calls that Ollama's clients leave out are the same each time, so the next turn begins like the last."""
    calls = [{"function": {"name": "turn_on", "arguments": {"room": "hall"}}}]
    turns: list[Json] = [{"role": "user", "content": "word " * 50}, {"role": "assistant", "tool_calls": calls}]
    turns.append({"role": "tool", "content": "done", "tool_name": "turn_on"})
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        await call(app.proxy_port, "POST", CHAT, data={**ask(), "messages": turns})
        await call(app.proxy_port, "POST", CHAT, data={**ask(), "messages": [*turns, *ask()["messages"]]})
        first, second = [
            json.loads(request.body)["messages"] for request in await fake.requests("/v1/chat/completions")
        ]
        assert second[:3] == first
        await until(lambda: len(app.records) == 2)
        assert app.records[-1].tokens_cached


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}', {}),
        (b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}',
         {"Content-Type": "application/x-www-form-urlencoded"}),
        (b'\xef\xbb\xbf{"model": "m", "messages": [{"role": "user", "content": "Hi"}], "id_slot": 7}',
         {"Accept-Encoding": "gzip", "Accept": "text/html"}),
    ],
)  # fmt: skip
async def test_forgetful_clients(body: bytes, headers: dict[str, str], tmp_path: Path) -> None:
    """Without a content type, as curl sends it; nothing reaches the engine that Ollama does not have."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        answer = await call(app.proxy_port, "POST", CHAT, body=body, headers=headers)
        assert lines(answer.text)[-1]["done"] is True
        [seen] = await fake.requests("/v1/chat/completions")
        assert seen.header("content-type") == "application/json"
        assert seen.header("accept-encoding") == "identity"
        assert "id_slot" not in json.loads(seen.body)


async def test_a_picture_of_20_mb(tmp_path: Path) -> None:
    """It reaches the engine to the byte."""
    picture = "iVBORw0" + "A" * (20 << 20)
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        message = {"role": "user", "content": "what is it?", "images": [picture]}
        await call(app.proxy_port, "POST", CHAT, data={"model": "m", "messages": [message], "stream": False})
        [seen] = await fake.requests("/v1/chat/completions")
        parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}]
        parts.append({"type": "text", "text": "what is it?"})
        body = {"model": "m", "messages": [{"role": "user", "content": parts}], "stream": False}
        assert seen.sha256 == hashlib.sha256(json.dumps(body, separators=(",", ":")).encode()).hexdigest()


async def test_what_is_refused(tmp_path: Path) -> None:
    """In Ollama's form, whoever refuses: what is too large, not JSON, not here, or without a key."""
    async with FakeEngine() as fake, tried(fake, tmp_path, limits={"body": "1KiB"}, api_keys=["k"]) as app:
        key = {"Authorization": "Bearer k"}
        answers = {
            413: await call(app.proxy_port, "POST", CHAT, body=bytes(2048), headers=key),
            400: await call(app.proxy_port, "POST", CHAT, body=b"[", headers=key),
            401: await call(app.proxy_port, "POST", CHAT, body=b"{}"),
            501: await call(app.proxy_port, "POST", "/api/create", body=b"{}", headers=key),
        }
        for status, answer in answers.items():
            assert answer.status == status
            assert list(answer.json()) == ["error"]
        blob = await call(app.proxy_port, "HEAD", "/api/blobs/sha256:00", headers=key)
        assert blob.status == 501
        assert await fake.requests("/v1/chat/completions") == []


async def test_ollamas_port(tmp_path: Path) -> None:
    """Its first page and its version are Ollama's, also by HEAD; all else is the proxy port's, and needs its keys."""
    port = free_port()
    listen: Json = {"ollama": {"listen": f"127.0.0.1:{port}"}, "api_keys": ["k"]}
    async with FakeEngine() as fake, tried(fake, tmp_path, **listen) as app:
        key = {"Authorization": "Bearer k"}
        for method in ("GET", "HEAD"):
            first = await call(port, method, "/")
            assert (first.status, first.text) == (200, "Ollama is running" if method == "GET" else "")
            assert (await call(port, method, "/api/version")).status == 401
            version = await call(port, method, "/api/version", headers=key)
            assert version.status == 200
        found = (await call(port, "GET", "/api/version", headers=key)).json()["version"]
        assert tuple(map(int, found.split("."))) >= (0, 6, 4)
        assert (await call(port, "GET", "/v1/models", headers=key)).json()["data"]
        chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        assert (await call(port, "POST", "/v1/chat/completions", data=chat, headers=key)).status == 200
        assert (await call(app.proxy_port, "GET", "/", headers=key)).text != "Ollama is running"
