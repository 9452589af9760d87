"""The requests of one engine: listed and cancelled while they are under way, rows and captures after it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bioproxy import aio
from support.apps import station
from support.clients import Line, fake_line
from support.faults import ask, good, sent
from support.http import Answer, call
from support.leaks import until

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT = "/v1/chat/completions"
CANCELLED = "the request was cancelled by an operator"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Line]:
    """A slow engine with two slots; captures are on."""
    folder = tmp_path_factory.mktemp("line")
    engine = {"slot_folder": folder / "slots", "decode_rate": 100, "parallel": 2}
    async with fake_line(folder, engine=engine, ui={"captures": "1MB"}) as running:
        yield running


async def admin(line: Line, method: str, target: str) -> Answer:
    """One request to the admin port."""
    return await call(line.app.admin_port, method, target, headers={"X-Requested-With": "bioproxy"})


async def listed(line: Line) -> list[Json]:
    """The requests under way, as the page's stream tells them first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", line.app.admin_port)
    writer.write(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(30):
        await reader.readuntil(b"event: state")
        data = (await reader.readuntil(b"\n\n")).partition(b"data: ")[2]
    writer.close()
    found: list[Json] = json.loads(data)["inflight"]
    return found


async def test_a_stream_under_way_is_listed_and_can_be_cancelled(line: Line) -> None:
    """Its client gets an error event, the engine works on it no more, and its row says what happened."""
    headers = {"X-Request-Id": "mine", "X-Session-Id": "s1"}
    before = line.app.status().inflight.cancelled
    async with sent(line.app, data=ask(tokens=100_000, stream=True), headers=headers) as reader:
        await reader.readuntil(b"data: ")
        (one,) = await listed(line)
        assert (one["id"], one["req_path"], one["session"]) == ("mine", CHAT, "s1")
        assert one["resp_bytes"] > 0
        overview = (await admin(line, "GET", "/api/models")).json()
        (row,) = overview["requests"]
        assert (row["model"], row["path"], row["stage"]) == (overview["models"][0]["model"], CHAT, "answer")
        answer = await admin(line, "POST", "/api/inflight/mine/cancel")
        assert (answer.status, answer.json()) == (200, {"msg": "ok"})
        assert CANCELLED.encode() in await reader.read()
    await until(lambda: not station(line.app).gate.running)
    assert await listed(line) == []
    (found,) = (await admin(line, "GET", "/api/metrics/activity?limit=1&record=1")).json()["data"]
    assert (found["request"]["id"], found["request"]["error"]) == ("mine", CANCELLED)
    assert line.app.status().inflight.cancelled == before + 1


async def test_one_that_waits_in_the_queue_can_be_cancelled(line: Line) -> None:
    """It is told so by a 503, and those that run go on."""
    await line.engine.faults(stuck=True)
    running = [aio.spawn(good(line.app), name="running") for _ in range(2)]
    await line.engine.until(lambda state: all(slot["busy"] for slot in state["slots"]))
    waiting = aio.spawn(call(line.app.proxy_port, "POST", CHAT, data=ask()), name="waiting")
    await until(lambda: len(line.app.management.inflight.exchanges) == 3)
    last = (await listed(line))[-1]
    assert (await admin(line, "POST", f"/api/inflight/{last['id']}/cancel")).status == 200
    answer = await waiting
    assert (answer.status, answer.json()["error"]["message"]) == (503, CANCELLED)
    await line.engine.faults(stuck=False)
    assert [(await one).status for one in running] == [200, 200]


@pytest.mark.parametrize("path", ["/props", "/v1/models", "/v1/models/x", "/health", "/api/tags"])
async def test_what_computes_nothing_is_no_row(line: Line, path: str) -> None:
    """Chat pages ask for the list of models all day."""
    before = line.app.management.store.next
    await call(line.app.proxy_port, "GET", path)
    assert line.app.management.store.next == before


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
async def test_a_request_becomes_a_row_with_its_tokens_and_capture(line: Line, path: str) -> None:
    """As with many models; Ollama's requests, too."""
    body = ask("what?", tokens=3)
    assert (await call(line.app.proxy_port, "POST", path, data=body)).status == 200
    (row,) = (await admin(line, "GET", "/api/metrics/activity?limit=1")).json()["data"]
    assert (row["model"], row["req_path"], row["resp_status_code"], row["has_capture"]) == ("", CHAT, 200, True)
    assert row["tokens"]["output_tokens"] > 0
    capture = (await admin(line, "GET", f"/api/captures/{row['id']}")).json()
    assert json.loads(base64.b64decode(capture["req_body"]))["messages"] == body["messages"]
    assert "choices" in base64.b64decode(capture["resp_body"]).decode()
    detail = (await admin(line, "GET", f"/api/requests/{row['id']}")).json()
    assert detail["request"]["activity"] == row["id"]
    stats = (await admin(line, "GET", "/api/metrics/stats")).json()
    assert stats["total_output_tokens"] > 0


async def test_nothing_is_captured_unless_that_was_asked_for(tmp_path: Path) -> None:
    """Conversations are private."""
    async with fake_line(tmp_path) as line:
        assert (await good(line.app)).status == 200
        (row,) = (await admin(line, "GET", "/api/metrics/activity")).json()["data"]
        assert not row["has_capture"]
        assert (await admin(line, "GET", "/status")).json()["captures"]["limit"] == 0
