"""Errors in llama-swap's words."""

from __future__ import annotations

import json

import pytest

from bioproxy.errors import BioproxyError, EngineRefused, ModelBusy, NotFound, QueueFull, RequestError, Unauthorized
from bioproxy.front.llamaswap_errors import Unserved, answer, event

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", "bad_request"),
        (401, "authentication_error", "unauthorized"),
        (403, "authentication_error", "forbidden"),
        (404, "invalid_request_error", "not_found"),
        (409, "invalid_request_error", "conflict"),
        (413, "invalid_request_error", "invalid_request"),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (500, "server_error", "internal_error"),
        (502, "server_error", "bad_gateway"),
        (503, "server_error", "service_unavailable"),
        (504, "server_error", "gateway_timeout"),
        (507, "server_error", "internal_error"),
    ],
)
def test_type_and_code_by_status(status: int, kind: str, code: str) -> None:
    """The whole envelope, for all who do not ask for something else."""
    for accept in (None, b"*/*", b"application/json"):
        headers, body = answer(BioproxyError("why", status=status), path=CHAT, accept=accept)
        inner = {"message": "why", "type": kind, "param": None, "code": code}
        assert json.loads(body) == {"src": "llama-swap", "error": inner}
        assert headers[0] == (b"Content-Type", b"application/json; charset=utf-8")


def test_a_line_for_those_who_ask_for_text() -> None:
    """Scripts print it."""
    headers, body = answer(NotFound("model not found"), path=CHAT, accept=b"text/plain, */*")
    assert body == b"llama-swap: model not found"
    assert headers[0][1].startswith(b"text/plain")


def test_a_page_for_browsers_holds_no_script_of_others() -> None:
    """The message may hold what a client sent."""
    headers, body = answer(NotFound("<script>&"), path="/upstream/x", accept=b"text/html,application/xml")
    assert body == b"<html><body><h1>llama-swap</h1><p>&lt;script&gt;&amp;</p></body></html>"
    assert headers[0][1].startswith(b"text/html")


@pytest.mark.parametrize("accept", [b"text/plain", b"text/html", None])
def test_a_full_model_is_always_json_and_says_when_to_come_back(accept: bytes | None) -> None:
    """SDKs retry by it."""
    for error, code in ((ModelBusy("Too many requests"), "concurrency_limit"), (QueueFull("q"), "rate_limit_exceeded")):
        headers, body = answer(error, path=CHAT, accept=accept)
        assert json.loads(body)["error"]["code"] == code
        assert (b"Retry-After", b"1") in headers


def test_retry_after_is_what_the_error_says() -> None:
    """Where it says so."""
    headers, _ = answer(BioproxyError("late", status=503, retry_after=9), path=CHAT)
    assert (b"Retry-After", b"9") in headers
    assert (b"Cache-Control", b"no-store") in headers


def test_a_missing_key_makes_a_browser_ask() -> None:
    """It does so for Basic only."""
    headers, _ = answer(Unauthorized("no key"), path=CHAT)
    challenges = [value for name, value in headers if name == b"WWW-Authenticate"]
    assert challenges == [b'Basic realm="llama-swap"', b'Bearer realm="bioproxy"']


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v/messages"])
def test_anthropics_clients_get_their_own_shape(path: str) -> None:
    """Their SDK reads no other, whatever it accepts."""
    _, body = answer(RequestError("no"), path=path, accept=b"text/plain", request_id="r1")
    inner = {"type": "invalid_request_error", "message": "no"}
    assert json.loads(body) == {"type": "error", "error": inner, "request_id": "r1"}
    assert event(RequestError("no"), path=path).startswith(b"event: error\ndata: {")


def test_an_error_in_a_stream_is_one_whole_event() -> None:
    """Not bare JSON, which SDKs choke on."""
    sent = event(BioproxyError("broke"), path=CHAT)
    assert sent.startswith(b"data: ")
    assert sent.endswith(b"\n\n")
    assert json.loads(sent[6:])["error"]["message"] == "broke"


def test_an_engines_own_error_in_a_stream_is_not_ours() -> None:
    """`src` is how scripts tell them apart."""
    sent = event(EngineRefused("too long", status=400, fields={"type": "t", "n_ctx": 64}), path=CHAT)
    assert json.loads(sent[6:]) == {
        "error": {"message": "too long", "type": "t", "param": None, "code": "engine_refused", "n_ctx": 64}
    }
    bare = event(EngineRefused("a field is missing", status=422), path=CHAT)
    assert "src" not in json.loads(bare[6:])


@pytest.mark.parametrize("path", ["/v1/responses", "/v/responses"])
def test_a_responses_stream_fails_in_its_own_way(path: str) -> None:
    """Codex and AI SDK know no other."""
    sent = event(BioproxyError("broke"), path=path, tail=b'"sequence_number":6}\n\n')
    assert sent.startswith(b'event: error\ndata: {"type":"error","sequence_number":7,')
    assert b"\n\nevent: response.failed\n" in sent


@pytest.mark.parametrize(
    ("path", "accept", "allow", "managing", "words"),
    [
        ("/nothing", b"*/*", "", False, b"404 page not found\n"),
        ("/nothing", None, "", False, b"404 page not found\n"),
        ("/nothing", b"text/html,*/*", "", False, b"404 page not found\n"),
        ("/nothing", b"application/json", "", False, b""),
        ("/v1/nothing", b"*/*", "", False, b""),
        ("/v1/messages/nothing", None, "", False, b""),
        ("/infill", b"*/*", "POST", False, b""),
        ("/running", b"*/*", "GET, HEAD", True, b"Method Not Allowed\n"),
        ("/models/load", b"application/json", "POST", True, b""),
    ],
)
def test_what_nobody_serves(path: str, accept: bytes | None, allow: str, managing: bool, words: bytes) -> None:
    """Go's plain words for llama-swap's own clients, the caller's dialect for an API's."""
    error = Unserved("said", allow=allow, managing=managing)
    headers, body = answer(error, path=path, accept=accept, request_id="r1")
    assert ((b"Allow", allow.encode()) in headers) is bool(allow)
    if words:
        assert body == words
        return
    told = json.loads(body)
    assert told["error"]["message"] == "said"
    assert ("type" in told) is path.startswith("/v1/messages")
