"""The activity table, captures, and requests under way: what is known of each request, and how one is ended."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from support.http import Answer, call
from support.swap_api import CHAT, HELLO, program
from support.swap_client import message
from support.swap_models import apart, fake
from support.swap_rig import Rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
MODELS = {
    "a": fake(aliases=["al"], filters={"setParams": {"top_p": 0.5}}),
    "b": fake("--slow-stop 0.1", concurrencyLimit=1),
    "bad": fake("--exit 3"),
    "never": fake("--health-503-forever"),
}
PRIORITY: Json = {"scheduler": {"settings": {"fifo": {"priority": {"a": 5}}}}}
GROUPS: Json = {"router": {"settings": {"groups": apart("a b bad never")}}}
rig = program(MODELS, routing=PRIORITY | GROUPS)


async def rows(rig: Rig, query: str = "") -> list[Json]:
    """A page of the table."""
    answer = await rig.get(f"/api/metrics/activity{query}")
    assert answer.status == 200, answer.text
    data: list[Json] = answer.json()["data"]
    return data


async def newest(rig: Rig) -> Json:
    """The newest row."""
    return (await rows(rig, "?limit=1"))[0]


async def test_a_row(rig: Rig) -> None:
    """With llama-swap's keys: the real ID, the counts that the engine gave, -1 for what it did not say."""
    answer = await rig.chat("al", headers={"X-Session-ID": "s1"})
    row = await newest(rig)
    assert (row["model"], row["req_path"], row["resp_status_code"]) == ("a", CHAT, 200)
    assert row["resp_content_type"] == "application/json"
    assert row["tokens"].pop("input_tokens") == answer.json()["usage"]["prompt_tokens"]
    assert row["tokens"] == {
        "cache_tokens": -1, "draft_tokens": -1, "draft_acc_tokens": -1, "output_tokens": 4,
        "prompt_per_second": -1, "tokens_per_second": -1,
    }  # fmt: skip
    assert row["metadata"] == {"fifo_priority": "5", "session_id": "s1"}
    assert row["duration_ms"] >= 0
    assert row["timestamp"].endswith("Z")
    assert "error_msg" not in row


async def test_a_streams_usage_counts_too(rig: Rig) -> None:
    """In whichever event it comes."""
    async with rig.stream("a", events=9) as stream:
        await stream.rest()
    row = await newest(rig)
    assert (row["resp_content_type"], row["tokens"]["output_tokens"]) == ("text/event-stream", 9)


async def test_anthropics_usage_counts_too(rig: Rig) -> None:
    """By its own names."""
    await rig.post("/v1/messages", {"model": "a", "messages": HELLO, "max_tokens": 4, "stream": True})
    row = await newest(rig)
    assert (row["req_path"], row["tokens"]["output_tokens"]) == ("/v1/messages", 4)
    assert row["tokens"]["input_tokens"] > 0


async def test_an_engine_that_counts_nothing(rig: Rig) -> None:
    """All figures are 0 then; -1 is for what was left out of those that were given."""
    await rig.post("/rerank", {"model": "a", "query": "x"})
    assert set((await newest(rig))["tokens"].values()) == {0}


@pytest.mark.parametrize(
    ("model", "status", "said"), [("zzz", 404, "no router for requested model"), ("bad", 500, "unspecific error: ")]
)
async def test_what_fails_is_a_row_too(model: str, status: int, said: str, rig: Rig) -> None:
    """With the name that was asked for, and why."""
    await rig.chat(model)
    row = await newest(rig)
    assert (row["model"], row["resp_status_code"]) == (model, status)
    assert row["error_msg"].startswith(said)
    assert row["tokens"]["input_tokens"] == row["tokens"]["output_tokens"] == 0


async def test_an_engines_error_is_told(rig: Rig) -> None:
    """In its words."""
    await rig.chat("a", status=418)
    row = await newest(rig)
    assert (row["resp_status_code"], row["error_msg"]) == (418, "the fake was asked for 418")


async def test_what_is_refused_is_a_row(rig: Rig) -> None:
    """429."""
    held = await rig.ask_held("b")
    await rig.chat("b")
    row = await newest(rig)
    assert (row["model"], row["resp_status_code"], row["error_msg"]) == ("b", 429, "Too many requests")
    await rig.release("b")
    await held


async def test_who_left_before_an_answer_is_a_row(rig: Rig) -> None:
    """It says so, and not that the engine gave a status that there is not."""
    held = await rig.ask_held("a")
    held.cancel()

    async def left() -> bool:
        return bool((await newest(rig))["resp_status_code"] == 499)

    await rig.look(left, "the row of who left")
    assert (await newest(rig))["error_msg"] == "the client left before there was an answer"
    await rig.release("a")


async def test_what_is_prepared_while_nobody_waits_has_no_error(rig: Rig) -> None:
    """202 is none."""
    body = {"model": "a", "input": "hello", "prompt_cache_options": {"prewarm": True}}
    headers = {"Prefer": "respond-async", "Content-Type": "application/json"}
    answer = await call(rig.port, "POST", "/v1/responses", data=body, headers=headers)
    found = [row for row in await rows(rig) if row["resp_status_code"] == answer.status == 202]
    assert [row.get("error_msg", "") for row in found] == [""]


async def test_what_is_none(rig: Rig) -> None:
    """GETs, requests without a model, and lists."""
    await rig.chat("a")
    before = (await newest(rig))["id"]
    await rig.get("/v1/models")
    await rig.get("/v1/audio/voices?model=a")
    await rig.post(CHAT, {"messages": []})
    assert (await newest(rig))["id"] == before


async def test_pages(rig: Rig) -> None:
    """Newest first, 25 a page; sorted and narrowed as asked."""
    for _ in range(3):
        await rig.chat("b")
    page = (await rig.get("/api/metrics/activity?limit=2&model=b")).json()
    assert set(page) == {"data", "page", "limit", "total", "total_pages"}
    assert (page["page"], page["limit"], len(page["data"])) == (1, 2, 2)
    assert {row["model"] for row in page["data"]} == {"b"}
    assert page["total_pages"] == -(-page["total"] // 2)
    ids = [row["id"] for row in await rows(rig, "?model=b&order=asc")]
    assert ids == sorted(ids)
    assert [row["id"] for row in await rows(rig, f"?min_id={ids[0]}&max_id={ids[0]}")] == [ids[0]]
    assert await rows(rig, "?end=2001-01-01T00:00:00Z") == []
    generated = [row["tokens"]["output_tokens"] for row in await rows(rig, "?sort=generated&order=desc")]
    assert generated == sorted(generated, reverse=True)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=x", "invalid limit"),
        ("limit=1000", "limit must be between 1 and 999"),
        ("page=0", "page must be >= 1"),
        ("sort=colour", "invalid sort column"),
        ("order=up", "order must be asc or desc"),
        ("min_id=0", "min_id must be >= 1"),
        ("min_id=2&max_id=1", "min_id must be <= max_id"),
        ("start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "start must be before end"),
        ("start=yesterday", "invalid 'start' timestamp, use RFC3339 format"),
    ],
)
async def test_what_cannot_be_asked(query: str, said: str, rig: Rig) -> None:
    """400 in llama-swap's words."""
    answer = await rig.get(f"/api/metrics/activity?{query}")
    assert (answer.status, message(answer)) == (400, said)


async def test_an_empty_page(rig: Rig) -> None:
    """No rows, no pages."""
    page = (await rig.get("/api/metrics/activity?model=nobody")).json()
    assert (page["data"], page["total"], page["total_pages"]) == ([], 0, 0)


async def test_stats(rig: Rig) -> None:
    """Sums of all models, or of one."""
    await rig.chat("a")
    await rig.chat("b")
    everything, one = (await rig.get("/api/metrics/stats")).json(), (await rig.get("/api/metrics/stats?model=b")).json()
    names = ["total_requests", "total_input_tokens", "total_output_tokens", "total_cache_tokens"]
    assert set(everything) == {*names, "prompt_histogram", "gen_histogram"}
    assert 0 < one["total_requests"] < everything["total_requests"]
    assert one["total_output_tokens"] % 4 == 0


# captures


async def capture(rig: Rig) -> Json:
    """The newest row's."""
    row = await newest(rig)
    assert row["has_capture"]
    return (await rig.get(f"/api/captures/{row['id']}")).json()


async def test_a_capture(rig: Rig) -> None:
    """The request as the engine got it, the answer as it came, and nothing that lets anybody in."""
    secrets = {"Authorization": "Bearer secret", "X-Api-Key": "secret", "Cookie": "secret", "X-Own": "1"}
    answer = await rig.chat("a", headers=secrets)
    got = await capture(rig)
    assert set(got) == {"id", "req_path", "req_headers", "req_body", "resp_headers", "resp_body"}
    assert json.loads(base64.b64decode(got["req_body"]))["top_p"] == 0.5
    assert base64.b64decode(got["resp_body"]) == answer.body
    hidden = [got["req_headers"][name] for name in ("Authorization", "X-Api-Key", "Cookie")]
    assert hidden == ["[REDACTED]"] * 3
    assert got["req_headers"]["X-Own"] == "1"
    assert "secret" not in json.dumps(got)


async def test_what_must_not_be_stored_has_no_capture(rig: Rig) -> None:
    """`Cache-Control: no-store`: the row counts it, and says nothing of what stood in it."""
    assert (await rig.chat("a", headers={"Cache-Control": "private, No-Store"})).status == 200
    row = await newest(rig)
    assert (row["has_capture"], row["tokens"]["output_tokens"]) == (False, 4)
    assert (await rig.get(f"/api/captures/{row['id']}")).status == 404


async def test_a_streams_capture(rig: Rig) -> None:
    """All of its events."""
    async with rig.stream("a") as stream:
        await stream.rest()
    assert base64.b64decode((await capture(rig))["resp_body"]).endswith(b"data: [DONE]\n\n")


async def test_a_failed_requests_capture_has_no_answer(rig: Rig) -> None:
    """Its row says why it failed."""
    await rig.chat("a", status=418)
    assert (await capture(rig))["resp_body"] in (None, "")


@pytest.mark.parametrize(
    ("name", "status", "said"), [("x", 400, "invalid capture ID"), ("99999", 404, "capture not found")]
)
async def test_no_such_capture(name: str, status: int, said: str, rig: Rig) -> None:
    """In llama-swap's words."""
    answer = await rig.get(f"/api/captures/{name}")
    assert (answer.status, message(answer)) == (status, said)


# under way


async def underway(rig: Rig) -> list[Json]:
    """The requests under way, as the event stream tells them first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(30):
        while True:
            line = await reader.readline()
            if line.startswith(b"data:"):
                told = json.loads(line[5:])
                if told["type"] == "inflight":
                    break
    writer.close()
    found: list[Json] = json.loads(told["data"]).get("requests", [])
    return found


async def test_a_request_under_way_can_be_ended(rig: Rig) -> None:
    """Its client gets an error with a body, the engine is left alone, and nothing of it stays."""
    held = await rig.ask_held("a")
    (entry,) = await underway(rig)
    assert (entry["model"], entry["method"], entry["req_path"]) == ("a", "POST", CHAT)
    before = [told.how for told in rig.log.of("end", "a")].count("gone")
    answer = await rig.post(f"/api/inflight/{entry['id']}/cancel")
    assert (answer.status, answer.json()) == (200, {"msg": "ok"})
    ended: Answer = await held
    assert (ended.status, message(ended)) == (503, "the request was cancelled by an operator")
    await rig.until(lambda: [told.how for told in rig.log.of("end", "a")].count("gone") > before)
    assert await underway(rig) == []


async def test_one_that_waits_for_its_model_can_be_ended(rig: Rig) -> None:
    """It is told the same, and waits no more."""
    waiting = await rig.ask_queued("never")
    (entry,) = await underway(rig)
    assert entry["model"] == "never"
    await rig.post(f"/api/inflight/{entry['id']}/cancel")
    assert message(await waiting) == "the request was cancelled by an operator"
    await rig.until_waiting(0)
    await rig.post("/api/models/unload/never")


async def test_a_stream_under_way_can_be_ended(rig: Rig) -> None:
    """By an error event, for its head is out."""
    async with rig.stream("a", hold=1) as stream:
        await stream.event()
        (entry,) = await underway(rig)
        assert entry["resp_bytes"] > 0
        assert entry["resp_headers"]["Content-Type"] == "text/event-stream"
        await rig.post(f"/api/inflight/{entry['id']}/cancel")
        assert (await stream.rest())[-1]["error"]["message"] == "the request was cancelled by an operator"


async def test_what_is_not_under_way_cannot_be_ended(rig: Rig) -> None:
    """404 in llama-swap's words."""
    answer = await rig.post("/api/inflight/nobody/cancel")
    assert (answer.status, message(answer)) == (404, "inflight request not found")


async def test_an_answer_that_is_packed_is_counted(rig: Rig) -> None:
    """Of what a client accepts only what we can read is asked for: gzip and deflate."""
    headers = {"Accept-Encoding": "br, gzip;q=0.5, zstd, deflate"}
    await call(rig.port, "POST", CHAT, data={"model": "a", "messages": HELLO}, headers=headers)
    got = {name.lower(): value for name, value in (await rig.last("a"))["headers"]}
    assert got["accept-encoding"] == "gzip;q=0.5, deflate"
