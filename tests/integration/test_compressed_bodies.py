"""Requests whose body comes compressed go on as if it had come plain, on every route of one engine and of many."""

from __future__ import annotations

import gzip
import json
import random
import sys
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import brotli
import pytest
import pytest_asyncio

from fakes.fake_engine import Recorded
from support.clients import Line, fake_line
from support.http import Answer, call
from support.swap_api import CHAT, HELLO, program
from support.swap_models import apart, fake
from support.swap_rig import Rig

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
PACKERS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstd.compress}
LIMIT = 1 << 20
rig = program({"a": fake(filters={"stripParams": "seed"}), "b": fake()}, groups=apart("a b"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Line]:
    """One engine with slots, and a small limit."""
    folder = tmp_path_factory.mktemp("line")
    async with fake_line(folder, engine={"slot_folder": folder / "slots"}, limits={"body": LIMIT}) as running:
        yield running


async def send(port: int, path: str, coding: str, body: bytes, **headers: str) -> Answer:
    fields = {"Content-Type": "application/json", "Content-Encoding": coding, **headers}
    return await call(port, "POST", path, body=body, headers=fields)


async def received(line: Line, path: str) -> Recorded:
    """The newest request as the engine got it, which must not know that it came compressed."""
    found = (await line.engine.requests(path))[-1]
    headers = {name.lower(): value for name, value in found.headers}
    assert "content-encoding" not in headers
    assert int(headers["content-length"]) == found.bytes
    return found


@pytest.mark.parametrize("coding", [*PACKERS, "gzip, zstd"])
async def test_templates_and_slots_are_seen_in_it(coding: str, line: Line) -> None:
    """A prefix is filled in, and `id_slot` does not get past us."""
    body = json.dumps({"messages": [{"role": "user", "content": "@rules hello"}], "id_slot": 0}).encode()
    for name in coding.split(", "):
        body = PACKERS[name](body)
    answer = await send(line.app.proxy_port, CHAT, coding, body)
    assert answer.status == 200
    got = json.loads((await received(line, CHAT)).body)
    assert "id_slot" not in got
    assert got["messages"][0]["content"].endswith("hello")
    assert not got["messages"][0]["content"].startswith("@rules")


@pytest.mark.parametrize("path", ["/embeddings", "/v1/unknown"])
async def test_what_might_compute_hides_no_slot(path: str, line: Line) -> None:
    """Nor on a route that nobody knows: the engine may take a coding off itself."""
    await send(line.app.proxy_port, path, "gzip", gzip.compress(b'{"id_slot":3,"x":1}'))
    assert (await received(line, path)).body == '{"x":1}'


async def test_a_snapshot_of_ours_is_not_named_in_it(line: Line) -> None:
    """A slot action is read as any other body."""
    answer = await send(
        line.app.proxy_port, "/slots/0?action=restore", "br", brotli.compress(b'{"filename":"bp-1.kv"}')
    )
    assert answer.status == 403


async def test_a_large_body_comes_through_whole(line: Line) -> None:
    """It is opened in a thread, block by block."""
    text = "".join(random.Random(1).choices("abcdefgh", k=900_000))
    await send(line.app.proxy_port, "/tokenize", "zstd", zstd.compress(json.dumps({"content": text}).encode()))
    assert json.loads((await received(line, "/tokenize")).body) == {"content": text}


@pytest.mark.parametrize(
    ("coding", "body", "status", "sentence"),
    [
        ("compress", b"x", 415, "its coding 'compress'"),
        ("gzip", gzip.compress(b"{}")[:-1], 400, "the body is not whole gzip"),
        ("zstd", zstd.compress(b"{}") + b"!", 400, "the body is not whole zstd"),
        ("gzip", gzip.compress(bytes(LIMIT + 1)), 413, "limits.body"),
        ("br", brotli.compress(bytes(8 * LIMIT)), 413, "limits.body"),
    ],
    ids=["unknown", "cut", "longer", "one too many", "bomb"],
)
async def test_what_cannot_be_opened_is_refused(
    coding: str, body: bytes, status: int, sentence: str, line: Line
) -> None:
    """Before the engine hears of it; whoever sends another coding is told which we know."""
    before = len(await line.engine.requests(CHAT))
    answer = await send(line.app.proxy_port, CHAT, coding, body)
    assert answer.status == status
    assert sentence in answer.json()["error"]["message"]
    assert answer.headers.get("accept-encoding") == ("gzip, deflate, br, zstd" if status == 415 else None)
    assert len(await line.engine.requests(CHAT)) == before


async def test_nobody_without_a_key_has_anything_opened(tmp_path: Path) -> None:
    """Opening costs more than sending."""
    async with fake_line(tmp_path, api_keys=["k1"]) as locked:
        answer = await send(locked.app.proxy_port, CHAT, "gzip", b"no gzip")
    assert answer.status == 401


@pytest.mark.parametrize("coding", PACKERS)
async def test_the_model_and_its_filters_are_found_in_it(coding: str, rig: Rig) -> None:
    """As in a plain one."""
    body = json.dumps({"model": "a", "messages": HELLO, "seed": 1, "id_slot": 0}).encode()
    answer = await send(rig.port, CHAT, coding, PACKERS[coding](body))
    assert answer.status == 200, answer.text
    got = await rig.last("a")
    assert "content-encoding" not in {name.lower() for name, _ in got["headers"]}
    assert json.loads(got["body"]) == {"model": "a", "messages": HELLO}


async def test_a_path_past_all_routing_hides_no_slot(rig: Rig) -> None:
    """`/upstream/<model>/…` by a known route and by another."""
    for path in ("/upstream/b/v1/chat/completions", "/upstream/b/v1/unknown"):
        answer = await send(rig.port, path, "zstd", zstd.compress(b'{"id_slot":0,"messages":[]}'))
        assert answer.status == 200, answer.text
        assert (await rig.last("b"))["body"] == '{"messages":[]}'


async def test_another_coding_is_refused_in_the_callers_dialect(rig: Rig) -> None:
    """llama-swap passes it on, and its engine may read what we could not."""
    answer = await send(rig.port, "/v1/messages", "aes128gcm", b'{"model":"a"}')
    assert (answer.status, answer.json()["error"]["type"]) == (415, "invalid_request_error")
