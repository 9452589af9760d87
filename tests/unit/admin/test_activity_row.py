"""What of a request's record stands in its row."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec

from bioproxy.activity import Usage
from bioproxy.admin.activity_row import CLIENT_LEFT, Tokens, row_of
from support.admin import metered

USAGE = Usage(input_tokens=5, output_tokens=8, cache_tokens=40, prompt_per_second=100.0, seconds=0.25)


def test_a_row_is_llama_swaps_json() -> None:
    """Every key, in its place; what is not known is left out."""
    written = json.loads(msgspec.json.encode(row_of(metered(usage=USAGE))))
    assert written == {
        "id": 0,
        "timestamp": "2027-01-15T08:00:01Z",
        "model": "llama",
        "req_path": "/v1/chat/completions",
        "resp_content_type": "application/json",
        "resp_status_code": 200,
        "tokens": {
            "cache_tokens": 40, "draft_tokens": 0, "draft_acc_tokens": 0, "input_tokens": 5, "output_tokens": 8,
            "prompt_per_second": 100.0, "tokens_per_second": 0.0,
        },
        "duration_ms": 1500,
        "has_capture": False,
    }  # fmt: skip


def test_the_time_is_the_requests_end_to_the_second() -> None:
    """As llama-swap's table keeps it."""
    assert row_of(metered(started=1_800_000_000.9, total=0.2)).timestamp == datetime.fromtimestamp(1_800_000_001, UTC)


def test_the_longer_of_both_times_is_the_duration() -> None:
    """An engine may have worked longer than we saw: batched requests."""
    assert row_of(metered(total=0.1, usage=USAGE)).duration_ms == 250


def test_a_failed_request_has_a_reason_and_no_tokens() -> None:
    """In the words of its record, or by its status."""
    told, plain = row_of(metered(status=429, error="x" * 600, usage=USAGE)), row_of(metered(status=502))
    assert (told.error_msg, told.tokens) == ("x" * 500 + "...", Tokens())
    assert plain.error_msg == "502 Bad Gateway"


def test_what_was_accepted_has_no_error() -> None:
    """As a prompt that is prepared while nobody waits."""
    assert row_of(metered(status=202)).error_msg is msgspec.UNSET


def test_a_client_that_left_first_has_a_status_of_its_own() -> None:
    """Nothing was ever sent to it."""
    row = row_of(metered(status=0, outcome="client_left"))
    assert row.resp_status_code == CLIENT_LEFT
    assert "client left" in str(row.error_msg)


def test_the_session_stands_in_the_metadata() -> None:
    """Beside what the scheduler and the selectors noted."""
    row = row_of(metered(session="s1", metadata={"selector": "fast"}))
    assert row.metadata == {"selector": "fast", "session_id": "s1"}


def test_a_path_behind_a_model_is_shown_as_the_record_says() -> None:
    """`req_path` where it is set."""
    assert row_of(metered(req_path="/upstream/llama/v1/completions")).req_path == "/upstream/llama/v1/completions"
