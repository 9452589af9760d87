"""Where an answer ends: at its dialect's own last event, for a client that leaves then was served.

The engine holds its last chunk back for as long as a test wants, so that what happens in between is no matter of luck.
"""

from __future__ import annotations

import shlex
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy.activity import Record
from bioproxy.app import App
from bioproxy.wire import relay
from fakes.fake_engine import FakeEngine
from support.apps import MS, running_app, station
from support.faults import CHAT, MESSAGES, RESPONSES, SPEED, body_for, good, sent, tried
from support.kv_rig import text
from support.leaks import until

Json = Any
LONG = text(2000, "long")  # in a last event it is more than the end of an answer that is kept

LAST = {  # path to what its last event ends with
    CHAT: b"data: [DONE]\n\n",
    "/v1/completions": b"data: [DONE]\n\n",
    MESSAGES: b'"type":"message_stop"}\n\n',
    RESPONSES: b'"predicted_per_second":',
    "/completion": b'"predicted_per_second":',
}


def request(path: str, words: str = "hello", **more: Json) -> Json:
    """A request on any of these paths."""
    return {**body_for(path, words, **more), "prompt": words}


@asynccontextmanager
async def held(folder: Path, **faults: Json) -> AsyncIterator[tuple[FakeEngine, App]]:
    """An App before an engine that holds back its last chunks from now on."""
    async with FakeEngine(tokens_per_second=SPEED, disconnect_poll=0.02) as fake, tried(fake, folder) as app:
        await fake.faults(hold_end=True, **faults)
        yield fake, app
        await fake.faults(hold_end=False, coding="")


async def leave(app: App, path: str, data: Json, last: bytes) -> bytes:
    """Read a stream up to `last` and the empty line behind it, then go; its head, when the program has noticed."""
    async with sent(app, path, data) as reader:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(last)
        if not last.endswith(b"\n\n"):
            await reader.readuntil(b"\n\n")
    await until(lambda: app.ports.proxy.statistics().connections == 0)
    return head


async def ended(app: App, path: str) -> Record:
    """The newest record of a path, as soon as there is one."""
    await until(lambda: any(record.path == path for record in app.records))
    return next(record for record in app.records if record.path == path)


@pytest.mark.parametrize("words", ["hello", LONG])
@pytest.mark.parametrize("path", LAST)
async def test_a_client_that_leaves_at_the_last_event_was_served(
    path: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is good, the conversation known, the grant whole; the engine's connection is used again."""
    monkeypatch.setattr(relay, "ENDING", 60.0)
    async with held(tmp_path) as (fake, app):
        await leave(app, path, request(path, words, stream=True), LAST[path])
        open_now = station(app).pool.open
        (connection,) = [one for one in open_now if one.response is not None and one.response.sink is not None]
        await fake.faults(hold_end=False)
        record = await ended(app, path)
        assert (record.outcome, record.status, record.tokens_generated) == ("ok", 200, 4)
        assert station(app).keeper.statistics().slots[0].state == "conversation"
        assert not station(app).gate.draining
        assert not connection.lost
        state = await fake.state()
        assert state["totals"]["cancelled"] == 0


async def test_the_next_turn_finds_its_conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said before the client left is saved, and a new engine need not evaluate it again."""
    monkeypatch.setattr(relay, "ENDING", 60.0)
    kv = {"min_seconds": 1 * MS, "save_after": 10 * MS}
    slots = tmp_path / "slots"
    async with (
        FakeEngine(slot_folder=slots, tokens_per_second=SPEED) as fake,
        tried(fake, tmp_path, kv=kv) as app,
    ):
        await fake.faults(hold_end=True)
        first = {"role": "user", "content": LONG}
        await leave(app, CHAT, {"messages": [first], "max_tokens": 4, "stream": True}, LAST[CHAT])
        await fake.faults(hold_end=False)
        await until(lambda: station(app).keeper.statistics().snapshots == 1)


async def test_an_engine_that_never_ends_is_cut_off_and_the_answer_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client was served all the same; until the engine is seen at rest, no slot action goes to it."""
    monkeypatch.setattr(relay, "ENDING", 10 * MS)
    async with held(tmp_path) as (_, app):
        await leave(app, CHAT, request(CHAT, stream=True), LAST[CHAT])
        record = await ended(app, CHAT)
        assert record.outcome == "ok"
        assert station(app).keeper.statistics().slots[0].state == "conversation"
        assert station(app).gate.cuts == 1


async def test_a_client_that_leaves_before_the_last_event_was_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer with `[DONE]` in its text has not ended, though every word of it is out."""
    monkeypatch.setattr(relay, "ENDING", 60.0)
    async with FakeEngine(decode_rate=100, disconnect_poll=0.02) as fake, tried(fake, tmp_path) as app:
        async with sent(app, CHAT, request(CHAT, "data: [DONE]", tokens=2000, stream=True)) as reader:
            await reader.readuntil(b"content")
        record = await ended(app, CHAT)
        assert record.outcome == "client_left"
        await fake.until(lambda state: state["totals"]["cancelled"])


async def test_a_whole_json_answer_without_its_last_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is whole when its JSON is."""
    monkeypatch.setattr(relay, "ENDING", 60.0)
    async with held(tmp_path) as (fake, app):
        async with sent(app, "/completion", request("/completion", LONG)) as reader:
            await reader.readuntil(b'"predicted_per_second":')
            await reader.readuntil(b"\r\n")
        await until(lambda: app.ports.proxy.statistics().connections == 0)
        await fake.faults(hold_end=False)
        record = await ended(app, "/completion")
        assert (record.outcome, record.tokens_generated) == ("ok", 4)
        assert not station(app).gate.draining


async def test_a_compressed_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is seen as well, and so are the engine's figures."""
    monkeypatch.setattr(relay, "ENDING", 60.0)
    async with held(tmp_path, coding="gzip") as (fake, app):
        async with sent(app, CHAT, request(CHAT, stream=True)) as reader:
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"Content-Encoding: gzip" in head
            unpack, said = zlib.decompressobj(zlib.MAX_WBITS | 16), b""
            while not said.endswith(b"[DONE]\n\n"):
                size = int(await reader.readuntil(b"\r\n"), 16)
                said += unpack.decompress((await reader.readexactly(size + 2))[:-2])
        await until(lambda: app.ports.proxy.statistics().connections == 0)
        await fake.faults(hold_end=False)
        record = await ended(app, CHAT)
        assert (record.outcome, record.tokens_generated) == ("ok", 4)
        assert station(app).keeper.statistics().slots[0].state == "conversation"


async def test_an_engine_that_breaks_off_after_the_last_event(tmp_path: Path) -> None:
    """The client gets a whole answer without an error in it, for it is one."""
    async with held(tmp_path) as (fake, app):
        async with sent(app, CHAT, request(CHAT, stream=True)) as reader:
            await reader.readuntil(LAST[CHAT])
            await fake.kill()
            assert await reader.read() == b"\r\n0\r\n\r\n"
        record = await ended(app, CHAT)
        assert record.outcome == "ok"
        await fake.restart()


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
async def test_an_error_event_is_no_good_answer(path: str, tmp_path: Path) -> None:
    """What the engine says in a stream that fails stands in the record; the slot is not taken for that conversation."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        await fake.faults(error_event=2)
        answer = await good(app, path=path, tokens=9, stream=True)
        assert answer.status == 200
        record = await ended(app, path)
        assert record.outcome == "engine_error"
        assert record.error == "Compute error."
        assert station(app).keeper.statistics().slots[0].state != "conversation"
        await fake.faults(error_event=0)


LLAMA = Path(__file__).parents[1] / "fakes" / "llama_server.py"


@pytest.mark.parametrize("target", [CHAT, f"/upstream/own{CHAT}", "/upstream/far/x/v1/messages"])
async def test_with_many_models(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same holds for peers, and past all routing."""
    monkeypatch.setattr(relay, "ENDING", 10 * MS)
    own = {"cmd": shlex.join([sys.executable, str(LLAMA), "--faults", '{"hold_end": true}']) + " --port ${PORT}"}
    async with FakeEngine(faults={"hold_end": True}) as far:
        peers = {"far": {"proxy": far.url, "models": ["x"]}}
        async with running_app(tmp_path, models={"own": own}, peers=peers) as app:
            path = MESSAGES if target.endswith(MESSAGES) else CHAT
            head = await leave(app, target, {**request(path, stream=True), "model": "x"}, LAST[path])
            assert head.lower().count(b"x-accel-buffering: no\r\n") == 1
            record = await ended(app, target)
            assert (record.outcome, record.status, record.model) == ("ok", 200, "own" if "own" in target else "x")
            assert (record.usage is not None and record.usage.output_tokens == 4) == record.metered
