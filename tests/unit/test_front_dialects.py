"""Errors in the shapes that clients of each API parse."""

from __future__ import annotations

import json

import pytest

from bioproxy.errors import BioproxyError, QueueFull, QueueTimeout, RequestError, Unauthorized
from bioproxy.front.dialects import dialect_of, error_answer, error_event, error_json, keepalive


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/messages", "anthropic"),
        ("/v1/messages/count_tokens", "anthropic"),
        ("/v1/chat/completions", "openai"),
        ("/chat/completions", "openai"),
        ("/v1/anything", "openai"),
        ("/completion", "llama"),
        ("/slots/0", "llama"),
    ],
)
def test_the_path_tells_the_dialect(path: str, dialect: str) -> None:
    """Clients choose an API by its path."""
    assert dialect_of(path) == dialect


def test_openai_reads_message_type_param_and_code() -> None:
    """The shape of the official client."""
    error = json.loads(error_json(QueueFull("full", retry_after=3), "openai"))["error"]
    assert error == {"message": "full", "type": "rate_limit_error", "param": None, "code": "rate_limit_error"}


def test_anthropic_reads_a_typed_error_with_the_request_id() -> None:
    """503 is an overloaded_error there."""
    body = json.loads(error_json(QueueTimeout("late"), "anthropic", request_id="r1"))
    assert body == {"type": "error", "error": {"type": "overloaded_error", "message": "late"}, "request_id": "r1"}


def test_llama_reads_a_numeric_code() -> None:
    """As llama-server answers itself."""
    assert json.loads(error_json(RequestError("no"), "llama"))["error"]["code"] == 400


def test_retry_after_stands_in_the_headers() -> None:
    """SDKs wait that long."""
    headers, _ = error_answer(QueueFull("full", retry_after=7), "/v1/chat/completions")
    assert (b"Retry-After", b"7") in headers


def test_a_missing_key_asks_for_bearer() -> None:
    """RFC 9110 wants a challenge with a 401."""
    headers, _ = error_answer(Unauthorized("no key"), "/v1/models")
    assert any(name == b"WWW-Authenticate" for name, _ in headers)


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "llama"])
def test_an_error_in_a_stream_is_one_whole_event(dialect: str) -> None:
    """An event ends with an empty line, and its data is JSON."""
    event = error_event(BioproxyError("broke"), dialect)  # type: ignore[arg-type]
    assert event.endswith(b"\n\n")
    data = next(line for line in event.splitlines() if line.startswith(b"data: "))
    assert b"broke" in json.dumps(json.loads(data[6:])).encode()


def test_a_waiting_openai_stream_gets_a_comment_and_an_anthropic_one_a_ping() -> None:
    """Both are whole events that no client shows."""
    assert keepalive("openai").startswith(b": ")
    assert keepalive("anthropic").startswith(b"event: ping\n")
    assert keepalive("openai").endswith(b"\n\n")
