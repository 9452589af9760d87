"""What a request and its answer look like on the two sides of the program, header by header."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from support.http import build, call
from support.swap_api import CHAT, HELLO, header, program
from support.swap_client import server
from support.swap_models import apart, fake
from support.swap_rig import Rig, swap_rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
MODELS = {
    "a": fake(),
    "big": fake("--big-header 40000"),
    "based": fake(proxy="http://127.0.0.1:${PORT}/base/path", checkEndpoint="none"),
}
rig = program(MODELS, groups=apart(" ".join(MODELS)))


async def test_hop_by_hop_headers_go(rig: Rig) -> None:
    """Those that `Connection` names, too; everything else is the engine's to see."""
    headers = {
        "Connection": "close, X-Hop", "X-Hop": "1", "Keep-Alive": "5", "Proxy-Authorization": "x", "TE": "trailers",
        "X-Own": "1", "User-Agent": "test", "X-Forwarded-For": "203.0.113.9",
    }  # fmt: skip
    await rig.chat("a", headers=headers)
    got = {name.lower(): value for name, value in (await rig.last("a"))["headers"]}
    assert not {"x-hop", "keep-alive", "te", "proxy-authorization"} & set(got)
    assert (got["x-own"], got["user-agent"], got["x-forwarded-for"]) == ("1", "test", "203.0.113.9")


async def test_the_request_id_is_the_same_on_both_sides(rig: Rig) -> None:
    """The client's own, or one of ours."""
    answer = await rig.chat("a", headers={"X-Request-Id": "mine"})
    assert (answer.headers["x-request-id"], header(await rig.last("a"), "x-request-id")) == ("mine", "mine")
    answer = await rig.chat("a")
    assert answer.headers["x-request-id"] == header(await rig.last("a"), "x-request-id")


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/chat", "/tokenize", "/upstream/a/x"])
async def test_a_trace_goes_on_in_the_engine(rig: Rig, path: str) -> None:
    """Its headers arrive as the client sent them, on each way to an engine."""
    trace = {"traceparent": f"00-{'4b' * 16}-{'f0' * 8}-01", "tracestate": "vendor=1,other=2"}
    answer = await call(rig.port, "POST", path, data={"model": "a", "max_tokens": 1, "messages": HELLO}, headers=trace)
    assert answer.status == 200, answer.text
    last = await rig.last("a")
    assert {name: header(last, name) for name in trace} == trace


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/v1/audio/speech", "/tokenize", "/apply-template"])
async def test_an_id_slot_reaches_no_engine(rig: Rig, path: str) -> None:
    """Whether the route waits its turn or not, and whether templates are filled in there or not."""
    await call(rig.port, "POST", path, data={"model": "a", "id_slot": 0, "input": "x", "messages": HELLO})
    got = await rig.last("a")
    assert got["path"] == path
    assert json.loads(got["body"]) == {"model": "a", "input": "x", "messages": HELLO}


async def test_a_stream_comes_as_it_is_made(rig: Rig) -> None:
    """The second event is not waited for to see the first."""
    async with rig.stream("a", hold=1) as stream:
        assert await stream.head() == 200
        assert (await stream.event())["choices"][0]["delta"]["content"] == "word0 "
        await rig.release("a")
        assert (await stream.rest())[-1] == "[DONE]"


async def test_a_stream_is_buffered_by_nobody(rig: Rig) -> None:
    """Said to the nginx that may stand before us."""
    answer = await call(rig.port, "POST", CHAT, data={"model": "a", "messages": HELLO, "stream": True})
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-accel-buffering"] == "no"


async def test_who_leaves_is_not_computed_for(rig: Rig) -> None:
    """The engine hears of it at once."""
    before = [told.how for told in rig.log.of("end", "a")].count("gone")
    async with rig.stream("a", hold=1) as stream:
        await stream.event()
    await rig.until(lambda: [told.how for told in rig.log.of("end", "a")].count("gone") > before)


async def test_a_large_answer_and_a_large_head(rig: Rig) -> None:
    """Megabytes of body, tens of kilobytes of header."""
    answer = await rig.chat("a", bytes=3_000_000)
    assert len(answer.json()["choices"][0]["message"]["content"]) == 3_000_000
    assert len((await rig.chat("big")).headers["x-big"]) == 40_000


async def test_a_large_request(rig: Rig) -> None:
    """Its model is found behind ten megabytes."""
    body = b'{"messages": [{"role": "user", "content": "' + b"x" * 10_000_000 + b'"}], "model": "a"}'
    answer = await call(rig.port, "POST", CHAT, body=body, headers={"Content-Type": "application/json"})
    assert server(answer) == "a"
    assert header(await rig.last("a"), "content-length") == str(len(body))


async def test_expect_100_continue(rig: Rig) -> None:
    """One 100 and one answer; llama-swap lets two of the former through."""
    body = b'{"model": "a", "messages": []}'
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    fields = {"Content-Type": "application/json", "Expect": "100-continue", "Content-Length": str(len(body))}
    writer.write(build("POST", CHAT, headers=fields))
    async with asyncio.timeout(30):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(body)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_a_base_path(rig: Rig) -> None:
    """`proxy: http://host/base` stands before every path of it."""
    answer = await rig.chat("based")
    assert answer.json()["path"] == "/base/path/v1/chat/completions"
    assert (await rig.get("/upstream/based/x?y=1")).json()["target"] == "/base/path/x?y=1"


async def test_a_model_whose_health_nobody_checks(tmp_path: Path) -> None:
    """`checkEndpoint: none`: ready as soon as it runs; who is too early is told that nobody listens yet."""
    go = tmp_path / "go"
    async with swap_rig(tmp_path, {"a": fake(f"--wait-for {go}", checkEndpoint="none")}) as rig:
        early = await rig.chat("a")
        assert (early.status, early.json()["error"]["code"]) == (502, "bad_gateway")
        go.touch()
        await rig.until_event("listening", "a")
        assert server(await rig.chat("a")) == "a"


async def test_requests_on_one_connection(rig: Rig) -> None:
    """For different models, one after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    for model in ("a", "big", "a"):
        body = b'{"model": "%b", "messages": []}' % model.encode()
        fields = {"Connection": "keep-alive", "Content-Type": "application/json", "Content-Length": str(len(body))}
        writer.write(build("POST", CHAT, headers=fields) + body)
        async with asyncio.timeout(30):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.partition("content-length: ")[2].split("\r\n")[0])
            assert f'"served_by": "{model}"'.encode() in await reader.readexactly(size)
    writer.close()
