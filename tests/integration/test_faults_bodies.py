"""Bodies and targets that are wrong, odd or meant to deceive: the engine and we always read the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_engine import FakeEngine
from support.apps import station
from support.faults import CHAT, MESSAGES, RESPONSES, SAVING, ask, authority, conversation, saved, sent, tried
from support.http import Answer, call, exchange, parse

Json = Any
ODD = {
    "not a number": b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN, "max_tokens": 2}',
    "infinity": b'{"messages": [{"role": "user", "content": "x"}], "top_p": Infinity, "max_tokens": 2}',
    "a lone surrogate": b'{"messages": [{"role": "user", "content": "\\ud800"}], "max_tokens": 2}',
    "deep nesting": b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "x": '
    + b"[" * 900
    + b"]" * 900
    + b"}",
    "a large integer": b'{"messages": [{"role": "user", "content": "x"}], "seed": 123456789012345678901234567890}',
}
BROKEN = {
    "no JSON": b'{"messages": [',
    "another type": b"[1, 2, 3]",
    "text": b"hello",
    "nothing": b"",
    "bytes": b"\xff\xfe\x00",
    "very deep nesting": b'{"messages": ' + b"[" * 200_000,
}


async def post(app: Any, body: bytes, *, path: str = CHAT, **headers: str) -> Answer:
    """A body as it is."""
    return await call(app.proxy_port, "POST", path, body=body, headers={"Content-Type": "application/json", **headers})


async def test_odd_bodies_reach_the_engine_as_they_came(tmp_path: Path) -> None:
    """What a strict parser refuses the engine may understand: not one byte is changed."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        for what, body in ODD.items():
            await post(app, body)
            assert (await fake.requests(CHAT))[-1].body.encode() == body, what


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES, "/completion"])
async def test_broken_bodies_are_answered_with_an_error(path: str, tmp_path: Path) -> None:
    """The engine's 400 or ours, never a 500, never a hang."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        for what, body in BROKEN.items():
            answer = await post(app, body, path=path)
            assert (what, answer.status) == (what, 400)
            assert answer.json()["error"]["message"]


async def test_a_byte_order_mark_and_duplicate_keys(tmp_path: Path) -> None:
    """A BOM is skipped; of two keys the last counts, for the template as for the engine, and is sent once."""
    template = tmp_path / "code.txt"
    template.write_text("rules: <{message}>")
    async with FakeEngine() as fake, tried(fake, tmp_path, prefixes={"@code": str(template)}) as app:
        first, last = ([{"role": "user", "content": words}] for words in ("no", "@code yes"))
        body = f'{{"messages": {json.dumps(first)}, "max_tokens": 2, "messages": {json.dumps(last)}}}'
        assert (await post(app, b"\xef\xbb\xbf" + body.encode())).status == 200
        sent = (await fake.requests(CHAT))[-1].body
        assert sent.count('"messages"') == 1
        assert json.loads(sent)["messages"][0]["content"] == "rules: yes"


@pytest.mark.parametrize("body", [b'{"id_slot": 0, "messages": [], "temperature": NaN}', b'{"id_slot": 0, "x": \xff}'])
async def test_an_id_slot_is_never_passed_on_unread(body: bytes, tmp_path: Path) -> None:
    """Where the body cannot be rewritten the request is refused: a pinned slot corrupts other users' answers."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        answer = await post(app, body)
        assert answer.status == 400
        assert await fake.requests(CHAT) == []


@pytest.mark.parametrize("path", [CHAT, "/completion", "/v1/completions"])
async def test_a_clients_id_slot_is_taken_out(path: str, tmp_path: Path) -> None:
    """On an engine with one slot; every spelling that the engine would read."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        for name in ('"id_slot"', '"id\\u005fslot"'):
            body = f'{{"messages": [{{"role": "user", "content": "x"}}], "prompt": "x", {name}: 0, "max_tokens": 2}}'
            assert (await post(app, body.encode(), path=path)).status == 200
            assert "id_slot" not in (await fake.requests(path))[-1].json()


SMUGGLED = {
    "two lengths": b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 30\r\n\r\n",
    "both": b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare line feed": b"POST /x HTTP/1.1\nHost: a\nContent-Length: 0\n\n",
    "a bad chunk": b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a blank before the colon": b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
    "an odd coding": b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "no host": b"GET /x HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
}
HIDDEN = b"POST /slots/0?action=erase HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"


async def test_smuggling_is_refused_and_the_connection_closed(tmp_path: Path) -> None:
    """One answer, 400 or 501, then the end: what hides behind it is never read as a request."""
    async with FakeEngine(slot_folder=tmp_path / "slots") as fake, tried(fake, tmp_path) as app:
        await fake.forget()
        for what, raw in SMUGGLED.items():
            answers = await exchange(app.proxy_port, raw + HIDDEN)
            assert parse(answers, "POST").status in {400, 501}, what
            assert answers.count(b"HTTP/1.1 ") == 1, what
        assert not any(request.path == "/x" or "erase" in request.target for request in await fake.requests())


DISGUISED = {
    "/%73lots/0?action=erase": 403,
    "/slots/0?%61ction=erase": 403,
    "/slots/%30?action=%65rase": 403,
    "/slots/-1?action=erase": 403,
    "//slots/0?action=erase": 400,
    "/x/../slots/0?action=erase": 400,
    "/x/%2e%2e/slots/0?action=erase": 400,
    "/slots%2f0?action=erase": 400,
    "/slots/0%00?action=erase": 400,
    "/slots/0?action=save&action=erase": 400,
    "/slots/0?action=save&%61ction=erase": 400,
    "http://elsewhere/slots/0?action=erase": 403,
}


async def test_a_disguised_slot_action_is_a_slot_action(tmp_path: Path) -> None:
    """However it is spelt: without the admin key it is refused, and the engine never hears of it."""
    keys: Json = {"api_keys": ["user"], "admin_key": "root"}
    async with FakeEngine(slot_folder=tmp_path / "slots") as fake, tried(fake, tmp_path, **keys) as app:
        await fake.forget()
        for target, status in DISGUISED.items():
            answer = await call(app.proxy_port, "POST", target, data={}, headers=authority(app))
            assert (target, answer.status) == (target, status)
            assert answer.json()["error"]["message"]
        assert all("slots/" not in request.target for request in await fake.requests())


async def test_a_slot_action_of_a_client_runs_alone(tmp_path: Path) -> None:
    """It waits for the stream that runs, is passed on, and what is resident is unknown after it."""
    slots = tmp_path / "slots"
    async with FakeEngine(slot_folder=slots, decode_rate=200) as fake, tried(fake, tmp_path, kv=SAVING) as app:
        await conversation(app, "one")
        await saved(app)
        async with sent(app, data=ask(tokens=30, stream=True)) as reader:
            await reader.readuntil(b"data: ")
            answer = await call(app.proxy_port, "POST", "/slots/0?action=erase", data={})
            assert b"[DONE]" in await reader.read()
        assert answer.status == 200
        assert station(app).keeper.statistics().slots[0].state == "unknown"


@pytest.mark.parametrize("action", ["save", "restore"])
async def test_our_own_files_are_not_for_clients(action: str, tmp_path: Path) -> None:
    """A name that begins with `bp-` is refused, escaped or not."""
    async with FakeEngine(slot_folder=tmp_path / "slots") as fake, tried(fake, tmp_path) as app:
        await fake.forget()
        for name in (b'"bp-x.kv"', b'"\\u0062p-x.kv"'):
            answer = await post(app, b'{"filename": %s}' % name, path=f"/slots/0?action={action}")
            assert answer.status == 403
            assert "bp-" in answer.json()["error"]["message"]
        assert all("slots/" not in request.target for request in await fake.requests())
