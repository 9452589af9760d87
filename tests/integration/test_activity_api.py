"""Activity, captures and cancelling over a real socket, from a request's end to what a script reads."""

from __future__ import annotations

import pytest

from bioproxy.activity import Capture, Usage
from bioproxy.events import ActivityAdded
from support.admin import activity_port, metered

CAPTURE = Capture(request_body=b"asked", response_body=b"answered")


async def test_a_request_that_ended_is_a_row_when_its_event_is_heard() -> None:
    """A client that asks for the row at once finds it, with its capture."""
    async with activity_port() as port:
        told: list[int] = []
        port.bus.subscribe(ActivityAdded, lambda event: told.append(event.id))
        port.end(metered(usage=Usage(input_tokens=5)), capture=CAPTURE)
        assert told == [1]
        page = (await port.ask("/api/metrics/activity")).json()
    assert (page["page"], page["limit"], page["total"], page["total_pages"]) == (1, 25, 1, 1)
    (row,) = page["data"]
    assert (row["id"], row["model"], row["tokens"]["input_tokens"], row["has_capture"]) == (1, "llama", 5, True)


async def test_what_is_not_metered_leaves_no_row() -> None:
    """Reading routes, refused keys, pages."""
    async with activity_port() as port:
        port.end(metered(metered=False), capture=CAPTURE)
        page = (await port.ask("/api/metrics/activity")).json()
        assert page == {"data": [], "page": 1, "limit": 25, "total": 0, "total_pages": 0}
        assert not port.captures.has(1)


async def test_a_row_without_a_capture_says_so() -> None:
    """The page shows no button then."""
    async with activity_port() as port:
        port.end(metered())
        (row,) = (await port.ask("/api/metrics/activity?model=llama&sort=duration")).json()["data"]
        assert row["has_capture"] is False
        assert (await port.ask("/api/captures/1")).status == 404


async def test_a_capture_can_be_fetched_by_its_rows_id() -> None:
    """Once there, as JSON; an id that is none is refused in llama-swap's words."""
    async with activity_port() as port:
        port.end(metered(), capture=CAPTURE)
        assert (await port.ask("/api/captures/1")).json()["req_body"] == "YXNrZWQ="
        missing, wrong = await port.ask("/api/captures/2"), await port.ask("/api/captures/x")
    assert (missing.status, missing.json()["error"]["message"]) == (404, "capture not found")
    assert (wrong.status, wrong.json()["error"]["message"]) == (400, "invalid capture ID")


async def test_sums_are_of_one_model_or_of_all() -> None:
    """With null where there is no distribution."""
    async with activity_port() as port:
        port.end(metered(usage=Usage(input_tokens=5, tokens_per_second=10.0)))
        port.end(metered(model="other", usage=Usage(input_tokens=7)))
        one, every = await port.ask("/api/metrics/stats?model=llama"), await port.ask("/api/metrics/stats")
    assert one.json() == {
        "total_requests": 1, "total_input_tokens": 5, "total_output_tokens": 0, "total_cache_tokens": 0,
        "prompt_histogram": None,
        "gen_histogram": {"bins": [1], "min": 10.0, "max": 10.0, "binSize": 0.0, "p50": 10.0, "p95": 10.0, "p99": 10.0},
    }  # fmt: skip
    assert every.json()["total_input_tokens"] == 12


async def test_a_wrong_query_is_refused() -> None:
    """With 400 and the sentence."""
    async with activity_port() as port:
        answer = await port.ask("/api/metrics/activity?limit=1000")
    assert (answer.status, answer.json()["error"]["message"]) == (400, "limit must be between 1 and 999")


@pytest.mark.parametrize(("identity", "status"), [("r1", 200), ("r2", 404)])
async def test_a_request_can_be_cancelled_by_its_id(identity: str, status: int) -> None:
    """Or it is not there any more."""
    async with activity_port() as port:
        answer = await port.ask(f"/api/inflight/{identity}/cancel", "POST")
        assert port.cancelled == [identity]
    assert answer.status == status
    assert answer.json().get("msg", "") == ("ok" if status == 200 else "")


async def test_a_row_has_its_requests_record_if_that_is_asked_for() -> None:
    """With the sentence that explains it; scripts of llama-swap's users get what they know."""
    async with activity_port() as port:
        port.end(metered(id="r7", client="anna", queue=2.0))
        (plain,) = (await port.ask("/api/metrics/activity")).json()["data"]
        (whole,) = (await port.ask("/api/metrics/activity?record=1&client=anna")).json()["data"]
        assert (await port.ask("/api/metrics/activity?client=bert")).json()["data"] == []
    assert "request" not in plain
    assert (whole["request"]["id"], whole["request"]["activity"], whole["request"]["client"]) == ("r7", 1, "anna")
    assert "waited 2.0 s in the queue" in whole["request"]["why"]
