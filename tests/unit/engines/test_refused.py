"""What an engine says when it refuses."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.engines.refused import error_message, refusal


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":" too long "},"message":"no"}', "too long"),
        (b'{"error":"plain","message":"no"}', "plain"),
        (b'{"error":{"message":""},"message":"third"}', "third"),
        (b'{"detail":"fourth"}', "fourth"),
        (b'{"object":"error","message":"old vLLM","type":"BadRequestError","code":400}', "old vLLM"),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}', "busy"),
        (
            b'{"detail":[{"type":"missing","loc":["body","model"],"msg":"Field required","input":{}}]}',
            "body.model: Field required",
        ),
        (b'{"detail":[{"loc":["body",0],"msg":"one"},{"msg":"two"},{"type":"x"}]}', "body.0: one; two"),
        (b'{"error":{"message":{"detail":"deep"}}}', "deep"),
        (b'{"detail":{"error":"nested"}}', "nested"),
        (b'[{"error":{"code":400,"message":"a list"}}]', "a list"),
        (b'{"errors":[{"message":"several"}]}', "several"),
        (b'{"type":"response.failed","response":{"error":{"message":"failed"}}}', "failed"),
        (b'"a text"', "a text"),
        (b"Internal\n Server Error \n", "Internal Server Error"),
        (b'input":"cut"}],"message":"the \\"end\\" of it","code":1}', 'the "end" of it'),
        (b"\xff\xfe", "502 Bad Gateway"),
        (b"{cut", "502 Bad Gateway"),
        (b"[" * 5000, "502 Bad Gateway"),
        (b'{"error":{"message":5}}', "502 Bad Gateway"),
        (b"<html>", "502 Bad Gateway"),
        (b"", "502 Bad Gateway"),
    ],
)
def test_an_error_is_told_in_the_engines_words(body: bytes, message: str) -> None:
    """In whatever shape it says them; else it is the status and its name."""
    assert error_message(body, 502) == message


def test_a_long_error_is_cut_and_an_unknown_status_has_no_name() -> None:
    """Five hundred characters say enough."""
    assert error_message(b'{"error":"' + b"x" * 600 + b'"}', 500) == "x" * 500 + "..."
    assert error_message(b"", 599) == "HTTP 599"
    assert error_message(gzip.compress(b'{"error":"packed"}'), 500, encoding="gzip") == "packed"


def test_a_refusal_keeps_what_it_says_besides() -> None:
    """Types and figures, at the top or within `error`; nothing that is no plain value."""
    said = {"code": 400, "type": "exceed_context_size_error", "n_ctx": 64}
    for body in ({"error": {"message": "no", **said, "param": {}}}, {"object": "error", "message": "no", **said}):
        error = refusal(json.dumps(body).encode(), 400)
        assert (error.message, error.status, error.fields) == ("no", 400, said)
    assert refusal(b'{"error":{"message":"no","type":null,"code":true}}', 500).fields == {}
    assert refusal(b"nonsense", 503).fields == {}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "detail", "msg", "loc", "code"]), inner)
    ),
    max_leaves=10,
)


@given(values)
def test_any_json_makes_one_line(told: object) -> None:
    """However it is nested."""
    message = error_message(json.dumps(told).encode(), 500)
    assert 0 < len(message) <= 503
    refusal(json.dumps(told).encode(), 500)
