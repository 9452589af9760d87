"""What a client is told when something goes wrong: status, envelope and words, by path and by `Accept`."""

from __future__ import annotations

import asyncio
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
    "a": fake(),
    "one": fake(concurrencyLimit=1),
    "<b>bad</b>": fake("--exit 3", name="dies at once"),
    "drops": fake("--drop-before-byte 99"),
    "cuts": fake("--crash-on-request 1 --crash-mid-stream"),
}
rig = program(MODELS, groups=apart(" ".join(MODELS)))


async def ask(rig: Rig, model: str, *, accept: str = "", path: str = CHAT, **body: Json) -> Answer:
    """One request that accepts this."""
    headers = {"Accept": accept} if accept else {}
    data = {"model": model, "messages": HELLO, "max_tokens": 1, **body}
    return await call(rig.port, "POST", path, data=data, headers=headers)


@pytest.mark.parametrize("accept", ["", "*/*", "application/json", "application/json, text/event-stream"])
async def test_json_is_the_default(accept: str, rig: Rig) -> None:
    """OpenAI's shape, and who says it."""
    answer = await ask(rig, "zzz", accept=accept)
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (404, "application/json")
    assert answer.json() == {
        "src": "llama-swap",
        "error": {
            "message": "no router for requested model",
            "type": "invalid_request_error",
            "param": None,
            "code": "not_found",
        },
    }


async def test_a_large_body_that_is_no_json_is_told_what_to_do(rig: Rig) -> None:
    """It is not searched for its model; with one in the query it goes to the engine, whose own error says more."""
    body = b'{"model":"a","x":NaN,"y":"%b"}' % (b"y" * 70_000)
    headers = {"Content-Type": "application/json"}
    answer = await call(rig.port, "POST", CHAT, body=body, headers=headers)
    assert (answer.status, message(answer)[:36]) == (400, "the body is no JSON that can be read")
    answer = await call(rig.port, "POST", f"{CHAT}?model=a", body=body, headers=headers)
    assert "src" not in answer.json()


async def test_a_line_for_scripts(rig: Rig) -> None:
    """`Accept: text/plain`."""
    answer = await ask(rig, "zzz", accept="text/plain")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text == "llama-swap: no router for requested model"


async def test_a_page_for_browsers(rig: Rig) -> None:
    """`Accept: text/html`; whatever stands in the message is escaped."""
    answer = await ask(rig, "<b>bad</b>", accept="text/html,application/xhtml+xml")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text.startswith("<html><body><h1>llama-swap</h1><p>unspecific error: ")
    assert "<b>" not in answer.text.replace("<body>", "")


async def test_a_start_that_fails_is_a_500(rig: Rig) -> None:
    """In llama-swap's words, and with a request id for whoever asks."""
    answer = await ask(rig, "<b>bad</b>")
    error = answer.json()["error"]
    assert (answer.status, error["type"], error["code"]) == (500, "server_error", "internal_error")
    assert error["message"].startswith("unspecific error: upstream command exited prematurely")
    assert answer.headers["x-request-id"]


async def test_too_many_is_a_429_in_json(rig: Rig) -> None:
    """Whatever is accepted; with the time after which to come again."""
    held = await rig.ask_held("one")
    for accept in ("", "text/html", "text/plain"):
        answer = await ask(rig, "one", accept=accept)
        assert (answer.status, int(answer.headers["retry-after"]) >= 1) == (429, True)
        assert answer.json() == {
            "src": "llama-swap",
            "error": {
                "message": "Too many requests",
                "type": "rate_limit_error",
                "param": None,
                "code": "concurrency_limit",
            },
        }
    await rig.release("one")
    assert (await held).status == 200


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/infill", "/v1/audio/speech"])
async def test_an_engine_that_drops_its_client_is_a_502_with_a_body(path: str, rig: Rig) -> None:
    """llama-swap's has none."""
    answer = await ask(rig, "drops", path=path)
    error = answer.json()["error"]
    assert (answer.status, error["type"], error["code"]) == (502, "server_error", "bad_gateway")
    assert error["message"]


async def test_by_a_path_too(rig: Rig) -> None:
    """`/upstream`."""
    answer = await rig.get("/upstream/drops/x")
    assert (answer.status, answer.json()["error"]["code"]) == (502, "bad_gateway")


async def test_an_engines_own_error_passes_as_it_is(rig: Rig) -> None:
    """Status and body."""
    answer = await ask(rig, "a", status=418)
    assert (answer.status, answer.json()) == (418, {"error": {"message": "the fake was asked for 418", "code": 418}})


async def test_what_fails_in_a_stream_is_an_event(rig: Rig) -> None:
    """llama-swap cuts it; SDKs then see half an answer."""
    answer = await ask(rig, "cuts", stream=True, events=6)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert answer.status == 200
    assert events[0]["choices"][0]["delta"]["content"] == "word0 "
    assert events[-1]["src"] == "llama-swap"
    assert (events[-1]["error"]["type"], events[-1]["error"]["code"]) == ("server_error", "bad_gateway")


@pytest.mark.parametrize(("path", "kind"), [("/v1/messages", "not_found_error"), ("/v/messages", "not_found_error")])
async def test_anthropics_clients_get_their_own_shape(path: str, kind: str, rig: Rig) -> None:
    """Which is the only one that their SDK reads; `Accept` does not change it."""
    answer = await ask(rig, "zzz", path=path, accept="text/html")
    body = answer.json()
    assert (answer.status, body["type"], body["error"]["type"]) == (404, "error", kind)
    assert body["error"]["message"] == "no router for requested model"


async def test_anthropics_429(rig: Rig) -> None:
    """With the time after which to come again."""
    held = await rig.ask_held("one")
    answer = await ask(rig, "one", path="/v1/messages")
    assert (answer.status, int(answer.headers["retry-after"]) >= 1) == (429, True)
    assert answer.json()["error"]["type"] == "rate_limit_error"
    await rig.release("one")
    await held


async def test_anthropics_start_that_fails(rig: Rig) -> None:
    """500 in that shape."""
    answer = await ask(rig, "<b>bad</b>", path="/v1/messages")
    assert (answer.status, answer.json()["error"]["type"]) == (500, "api_error")


async def test_a_body_that_is_too_large_is_a_413(rig: Rig) -> None:
    """Told before it has been sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" % CHAT.encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 25)
    writer.close()
    assert head.startswith(b"HTTP/1.1 413 ")


async def test_a_message_names_no_more_than_it_must(rig: Rig) -> None:
    """A name that is a page long is neither echoed nor kept whole."""
    answer = await ask(rig, "z" * 100_000)
    assert (answer.status, message(answer)) == (404, "no router for requested model")
    assert len((await rig.get("/api/metrics/activity?limit=1")).body) < 2000
