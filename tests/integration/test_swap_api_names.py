"""Which model a request means: where its name is looked for, and that the rest of the request stays as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.http import call, exchange, parse
from support.swap_api import CHAT, HELLO, header, program
from support.swap_models import apart, fake
from support.swap_rig import Rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
rig = program(
    {"a": fake(aliases=["x", "b", "größe 模型"]), "b": fake(), "7": fake(), "w": fake(useModelName="real")},
    groups=apart("a b 7 w"),
)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=cut"}
SOUND = bytes(range(256)) + b"\r\n--cu" + b"\x00\xff"


def form(*fields: tuple[str, bytes]) -> bytes:
    """A form with a file before its fields, as some clients send them."""
    head = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    rest = [
        b'\r\n--cut\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b' % (name.encode(), v) for name, v in fields
    ]
    return head + SOUND + b"".join(rest) + b"\r\n--cut--\r\n"


async def test_by_id(rig: Rig) -> None:
    """The body reaches the engine byte for byte."""
    body = b'{ "model" : "a", "messages":[], "seed": 12345678901234567890, "x": "\\u00e9" }'
    answer = await call(rig.port, "POST", CHAT, body=body, headers={"Content-Type": "application/json"})
    assert answer.json()["served_by"] == "a"
    assert (await rig.last("a"))["body"] == body.decode()


async def test_by_alias(rig: Rig) -> None:
    """The engine gets the alias as the client wrote it."""
    answer = await rig.chat("x")
    assert (answer.json()["served_by"], answer.json()["model"]) == ("a", "x")
    assert json.loads((await rig.last("a"))["body"])["model"] == "x"


async def test_an_id_beats_an_alias(rig: Rig) -> None:
    """`b` is an alias of `a` and a model of its own."""
    assert (await rig.chat("b")).json()["served_by"] == "b"


async def test_by_a_number(rig: Rig) -> None:
    """It is read as text, and passes as the number that it was."""
    answer = await rig.post(CHAT, {"model": 7, "messages": HELLO})
    assert (answer.json()["served_by"], answer.json()["model"]) == ("7", 7)


async def test_names_are_exact(rig: Rig) -> None:
    """`A` is another one."""
    answer = await rig.chat("A")
    assert (answer.status, answer.json()["error"]["message"]) == (404, "no router for requested model")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "x/y+application/json"])
async def test_the_content_type_only_has_to_contain_json(kind: str, rig: Rig) -> None:
    """As clients write it."""
    body = b'{"model": "a", "messages": []}'
    answer = await call(rig.port, "POST", CHAT, body=body, headers={"Content-Type": kind})
    assert answer.status == 200


@pytest.mark.parametrize("headers", [{}, FORM, {"Content-Type": "text/plain"}])
async def test_json_that_does_not_say_so_is_served_too(headers: Json, rig: Rig) -> None:
    """`curl -d '{…}'`; llama-swap answers 404. The engine is told what it is."""
    body = b'{"model": "a", "messages": []}'
    answer = await call(rig.port, "POST", CHAT, body=body, headers=headers)
    assert answer.json()["served_by"] == "a"
    assert header(await rig.last("a"), "content-type") == "application/json"


@pytest.mark.parametrize(
    "body", [b'{"messages": []}', b'{"model": ""}', b'{"model": null}', b'{"model": ["a"]}', b"{", b"nonsense", b""]
)
async def test_a_body_without_a_name_is_a_404(body: bytes, rig: Rig) -> None:
    """In llama-swap's words; a name deeper in the body is none."""
    answer = await call(rig.port, "POST", CHAT, body=body, headers={"Content-Type": "application/json"})
    assert (answer.status, answer.json()["error"]["message"]) == (404, "no model id could be identified")
    assert answer.json()["error"]["code"] == "not_found"


async def test_malformed_json_with_a_name_goes_to_the_engine(rig: Rig) -> None:
    """Its error is better than ours; here an engine that echoes."""
    body = b'{"model": "a", "input": [1,}'
    headers = {"Content-Type": "text/json application/json"}
    answer = await call(rig.port, "POST", "/rerank", body=body, headers=headers)
    assert (answer.status, answer.json()["body"]) == (200, body.decode())


@pytest.mark.parametrize("body", [b'{"messages": [{"model": "b"}], "model": "a"}', b'{"model": "b", "model": "a"}'])
async def test_only_the_last_top_level_name_counts(body: bytes, rig: Rig) -> None:
    """As the engine reads it."""
    answer = await call(rig.port, "POST", CHAT, body=body, headers={"Content-Type": "application/json"})
    assert answer.json()["served_by"] == "a"


async def test_half_a_surrogate_pair_in_a_name(rig: Rig) -> None:
    """It names no model, and every list of requests can still be read."""
    raw = b'{"model":"half \\ud800","messages":[]}'
    answer = await call(rig.port, "POST", CHAT, body=raw, headers={"Content-Type": "application/json"})
    assert answer.status == 404
    requests = (await call(rig.ports.admin, "GET", "/requests")).json()["requests"]
    assert requests[0]["model"] == "half ?"
    activity = (await rig.get("/api/metrics/activity")).json()["data"]
    assert activity[0]["model"] == "half ?"


async def test_by_a_forms_field(rig: Rig) -> None:
    """`application/x-www-form-urlencoded`."""
    body = b"prompt=a+b&model=a"
    answer = await call(rig.port, "POST", "/v1/audio/speech", body=body, headers=FORM)
    assert (answer.json()["served_by"], answer.json()["body"]) == ("a", body.decode())


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/images/edits"])
async def test_by_a_multipart_field(path: str, rig: Rig) -> None:
    """The form passes byte for byte, its file too."""
    body = form(("model", b"a"), ("language", b"de"))
    answer = await call(rig.port, "POST", path, body=body, headers=MULTIPART)
    assert answer.json()["served_by"] == "a"
    fields = answer.json()["fields"]
    assert [(one["name"], one["bytes"]) for one in fields] == [("file", len(SOUND)), ("model", 1), ("language", 2)]
    assert (await rig.last("a"))["body"] == body.decode("utf-8", "replace")


async def test_a_forms_name_can_be_replaced(rig: Rig) -> None:
    """`useModelName`: one field changes; the order and the file's type, which llama-swap loses, stay."""
    body = form(("model", b"w"), ("language", b"de"))
    answer = await call(rig.port, "POST", "/v1/audio/transcriptions", body=body, headers=MULTIPART)
    fields = answer.json()["fields"]
    assert fields[0] == {"name": "file", "filename": "a.wav", "type": "audio/wav", "bytes": len(SOUND)}
    assert [(one["name"], one["value"]) for one in fields[1:]] == [("model", "real"), ("language", "de")]


async def test_a_form_without_a_name_is_a_404(rig: Rig) -> None:
    """As for JSON."""
    body = form(("language", b"de"))
    answer = await call(rig.port, "POST", "/v1/audio/transcriptions", body=body, headers=MULTIPART)
    assert (answer.status, answer.json()["error"]["message"]) == (404, "no model id could be identified")


@pytest.mark.parametrize("path", ["/v1/audio/voices", "/sdapi/v1/loras"])
async def test_by_the_query_of_a_get(path: str, rig: Rig) -> None:
    """These start the model."""
    await rig.post("/api/models/unload/b")
    answer = await rig.get(f"{path}?x=1&model=b")
    assert (answer.json()["served_by"], answer.json()["target"]) == ("b", f"{path}?x=1&model=b")
    assert (await rig.get(path)).json()["error"]["message"] == "no model id could be identified"


async def test_the_query_does_not_beat_the_body(rig: Rig) -> None:
    """Where a JSON body names a model, the query's is ignored; where it names none, the query's counts (ours)."""
    assert (await rig.post(f"{CHAT}?model=b", {"model": "a", "messages": []})).json()["served_by"] == "a"
    assert (await rig.post(f"{CHAT}?model=b", {"messages": []})).json()["served_by"] == "b"


async def test_looking_starts_nothing(rig: Rig) -> None:
    """`/props` of a model that is not loaded: 409; llama-swap would load it."""
    await rig.post("/api/models/unload/b")
    answer = await rig.get("/props?model=b")
    assert answer.status == 409
    assert answer.json()["error"]["message"].startswith("model b is not loaded; /props does not start it")
    await rig.chat("b")
    assert (await rig.get("/props?model=b")).json()["error"]["type"] == "not_found_error"  # the fake's own words


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v/chat/completions", "/chat/completions"),
        ("/v/responses", "/responses"),
        ("/v/completions", "/completions"),
        ("/v/messages", "/messages"),
        ("/v/messages/count_tokens", "/messages/count_tokens"),
        ("/v/embeddings", "/embeddings"),
        ("/v/rerank", "/rerank"),
        ("/v/reranking", "/reranking"),
        ("/audioapi/v1/tasks/run", "/v1/tasks/run"),
        ("/v1/responses", "/v1/responses"),
        ("/v1/messages/count_tokens", "/v1/messages/count_tokens"),
        ("/reranking", "/reranking"),
        ("/v1/rerank", "/v1/rerank"),
        ("/v1/reranking", "/v1/reranking"),
        ("/infill", "/infill"),
        ("/completion", "/completion"),
        ("/v1/audio/speech", "/v1/audio/speech"),
        ("/v1/audio/voices", "/v1/audio/voices"),
        ("/v1/images/generations", "/v1/images/generations"),
        ("/sdapi/v1/txt2img", "/sdapi/v1/txt2img"),
        ("/sdapi/v1/img2img", "/sdapi/v1/img2img"),
    ],
)
async def test_every_route_leads_to_its_model(path: str, asked: str, rig: Rig) -> None:
    """With the path that the engine knows, and the client's query."""
    answer = await rig.post(f"{path}?q=1", {"model": "a", "messages": [], "prompt": "p", "input": "i"})
    assert answer.status == 200
    assert (await rig.last("a"))["target"] == f"{asked}?q=1"


async def test_a_chunked_body_is_read_too(rig: Rig) -> None:
    """The name is found in it, and the engine gets all of it."""
    body = b'8\r\n{"model"\r\n14\r\n: "a", "messages":[]\r\n1\r\n}\r\n0\r\n\r\n'
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    raw = head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + body
    answer = parse(await exchange(rig.port, raw), "POST")
    assert answer.json()["served_by"] == "a"
    assert (await rig.last("a"))["body"] == '{"model": "a", "messages":[]}'


@pytest.mark.parametrize("escaped", [False, True])
async def test_names_in_any_script(escaped: bool, rig: Rig) -> None:
    """In JSON as letters or as escapes, in a query, and in a path."""
    body = json.dumps({"model": "größe 模型", "messages": []}, ensure_ascii=escaped).encode()
    answer = await call(rig.port, "POST", CHAT, body=body, headers={"Content-Type": "application/json"})
    assert answer.json()["served_by"] == "a"
    name = "gr%C3%B6%C3%9Fe%20%E6%A8%A1%E5%9E%8B"
    assert (await rig.get(f"/sdapi/v1/loras?model={name}")).json()["served_by"] == "a"
    assert (await rig.get(f"/upstream/{name}/x")).json()["target"] == "/x"


async def test_an_engines_own_metrics(rig: Rig) -> None:
    """`/metrics` is ours; with a model in its query it is the engine's."""
    await rig.chat("a")
    assert (await rig.get("/metrics?model=a")).json()["served_by"] == "a"
    for query in ("", "?model=", "?mymodel=a"):
        assert "bioproxy_uptime_seconds" in (await rig.get(f"/metrics{query}")).text
