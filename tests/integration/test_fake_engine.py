"""What the fake engine adds to llama-server's routes: faults, records, echoes; and the queue as it was seen.

The awkward rules of the real queue (facts, 0.3 to 0.7) need a slow model to be seen, so they are pinned here on the
fake alone; what both must do stands in test_conformance.py.
"""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.fake_engine import FakeEngine

PROMPT = {"prompt": "a b c", "n_predict": 1}


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeEngine]:
    """An engine with slot files."""
    async with FakeEngine(slot_folder=tmp_path / "slots", metrics=True) as process:
        yield process


async def leave_early(fake: FakeEngine, body: bytes) -> None:
    """Send a completion and close the connection once it runs."""
    _, writer = await asyncio.open_connection("127.0.0.1", fake.port)
    head = b"POST /completion HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    writer.write(head + body)
    await writer.drain()
    await fake.until(lambda state: state["slots"][0]["busy"])
    writer.close()
    await writer.wait_closed()


async def test_echo(fake: FakeEngine) -> None:
    """An unknown path answers what came in; every request is recorded in order."""
    answer = (await fake.request("PUT", "/some/where?a=b&c=", b"\x00body", X_Name="v")).json()
    assert (answer["method"], answer["target"], answer["query"]) == ("PUT", "/some/where?a=b&c=", {"a": "b", "c": ""})
    assert answer["body"] == "\x00body"
    assert ["X-Name", "v"] in answer["headers"]
    assert [request.method for request in await fake.requests("/some/where")] == ["PUT"]
    await fake.forget()
    assert await fake.requests() == []


async def test_websocket_echo(fake: FakeEngine) -> None:
    """/ws upgrades and sends frames back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
    key = base64.b64encode(os.urandom(16))
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    mask = b"\x01\x02\x03\x04"
    writer.write(b"\x81\x82" + mask + bytes(a ^ b for a, b in zip(b"hi", mask, strict=False)))
    assert await reader.readexactly(4) == b"\x81\x02hi"
    writer.write(b"\x88\x80" + mask)
    assert await reader.readexactly(2) == b"\x88\x00"
    assert await reader.read() == b""
    writer.close()


async def test_keep_alive_ends(fake: FakeEngine) -> None:
    """A connection is closed on its 100th request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 101)
    assert (await reader.read(-1)).count(b"HTTP/1.1 200 OK") == 100
    writer.close()


async def test_unknown_fault_is_refused(fake: FakeEngine) -> None:
    """A misspelt fault must not make a test pass."""
    answer = await fake.post("/fake/faults", {"hangs": True})
    assert answer.status == 400
    assert b"no such fault" in answer.body


@pytest.mark.parametrize(("place", "path"), [("prefill", "/completion"), ("stream", "/completion"), ("save", "")])
async def test_dies(fake: FakeEngine, place: str, path: str) -> None:
    """The process ends where it was told to, and comes back on the same port."""
    await fake.faults(die=place, die_after=1)
    work = fake.post(path, {**PROMPT, "n_predict": 500, "stream": True}) if path else fake.slot("save", "a")
    await asyncio.gather(work, return_exceptions=True)
    assert await fake.wait() == -signal.SIGKILL
    port = fake.port
    await fake.restart()
    assert (await fake.get("/health")).status == 200
    assert fake.port == port


async def test_dies_in_a_save_and_leaves_half_a_file(fake: FakeEngine, tmp_path: Path) -> None:
    """The file of a save that the engine did not survive has its final name and half its size."""
    await fake.post("/completion", PROMPT)
    whole = (await fake.slot("save", "a")).json()["n_written"]
    await fake.faults(die="save")
    with pytest.raises(ConnectionError):
        await fake.slot("save", "b")
    assert 0 < (tmp_path / "slots" / "b").stat().st_size < whole


@pytest.mark.parametrize(
    ("fault", "status", "whole"), [("full", 500, False), ("short", 200, False), ("lost", 200, None)]
)
async def test_saves_that_fail(fake: FakeEngine, tmp_path: Path, fault: str, status: int, whole: bool | None) -> None:
    """A full disk leaves a cut file, and can even answer 200."""
    await fake.post("/completion", PROMPT)
    size = (await fake.slot("save", "a")).json()["n_written"]
    await fake.faults(save=fault)
    answer = await fake.slot("save", "b")
    path = tmp_path / "slots" / "b"
    assert answer.status == status
    assert (path.stat().st_size == size if path.exists() else None) == whole
    if status == 200:
        assert answer.json()["n_written"] == size


async def test_worthless_restore(fake: FakeEngine) -> None:
    """A restore that answers 200 and is of no use, as with sliding windows (facts, 0.8)."""
    ids = list(range(100))
    await fake.post("/completion", {"prompt": ids, "n_predict": 0})
    await fake.slot("save", "a")
    await fake.faults(worthless=True)
    assert (await fake.slot("restore", "a")).status == 200
    answer = await fake.post("/completion", {"prompt": [*ids, 5], "n_predict": 0})
    assert answer.json()["timings"]["cache_n"] == 0


async def test_error_event(fake: FakeEngine) -> None:
    """A stream's later error is an event, and the connection stays whole."""
    await fake.faults(error_event=2)
    answer = await fake.post("/completion", {"prompt": "a", "n_predict": 9, "stream": True})
    assert answer.status == 200
    assert answer.events()[-1]["error"]["code"] == 500


@pytest.mark.parametrize("how", ["garbage", "half_head", "wrong_length", "half_chunk", "close"])
async def test_broken_answers_strike_as_often_as_told(fake: FakeEngine, how: str) -> None:
    """A broken answer breaks the routes that it is told to break, as many times as told."""
    await fake.faults(answer=how, paths=["/props"], times=1)
    assert (await fake.get("/health")).status == 200
    try:
        broken = await fake.get("/props")
    except (ConnectionError, ValueError, IndexError):
        broken = None
    assert broken is None or "model_path" not in broken.body.decode("latin-1")
    assert (await fake.get("/props")).status == 200


# the queue and its traps


async def test_leaving_in_prefill_is_noticed(fake: FakeEngine) -> None:
    """A client that leaves in the prompt phase is noticed at the poll; what was evaluated stays."""
    await fake.restart(tokens_per_second=1000, batch_size=50)
    await leave_early(fake, b'{"prompt":"%s"}' % (b"word " * 5000))
    state = await fake.until(lambda now: not now["slots"][0]["busy"])
    assert state["totals"]["cancelled"] == 1
    assert len(state["slots"][0]["tokens"]) < 5000


async def test_polling_slots_disables_cancellation(fake: FakeEngine) -> None:
    """Asking /slots all the time keeps the engine from noticing that a client left (facts, 0.7)."""
    await fake.restart(tokens_per_second=2000, batch_size=50, disconnect_poll=0.5)  # a busy machine asks less often
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            await fake.get("/slots")

    asking = asyncio.get_running_loop().create_task(ask())
    await leave_early(fake, b'{"prompt":"%s"}' % (b"word " * 4000))
    state = await fake.until(lambda now: not now["slots"][0]["busy"])
    stop.set()
    await asking
    assert len(state["slots"][0]["tokens"]) > 4000
    assert any("asked again" in line for line in state["violations"])


async def test_slot_action_on_a_busy_slot_swallows_the_wake_up(fake: FakeEngine) -> None:
    """A deferred slot action takes the only wake-up, and whoever waits behind it sleeps (facts, 0.4)."""
    await fake.faults(stuck=True)
    first = asyncio.get_running_loop().create_task(fake.post("/completion", PROMPT))
    await fake.until(lambda now: now["slots"][0]["busy"])
    erase = asyncio.get_running_loop().create_task(fake.slot("erase"))
    await fake.until(lambda now: now["deferred"] == ["erase"])
    sleeper = asyncio.get_running_loop().create_task(fake.post("/completion", {"prompt": "x", "n_predict": 1}))
    await fake.until(lambda now: now["deferred"] == ["erase", "complete"])
    await fake.faults(stuck=False)
    await asyncio.gather(first, erase)
    assert (await fake.state())["deferred"] == ["complete"]
    await fake.post("/completion", PROMPT)
    assert (await sleeper).status == 200
    assert any("slot action erase while slot 0 is busy" in line for line in await fake.violations())


async def test_forbidden_things_are_written_down(fake: FakeEngine) -> None:
    """id_slot while something runs, and X-Conversation-Id at any time."""
    await fake.faults(stuck=True)
    first = asyncio.get_running_loop().create_task(fake.post("/completion", PROMPT))
    await fake.until(lambda now: now["slots"][0]["busy"])
    second = asyncio.get_running_loop().create_task(fake.post("/completion", {**PROMPT, "id_slot": 0}))
    await fake.until(lambda now: now["deferred"])
    await fake.faults(stuck=False)
    await asyncio.gather(first, second)
    await fake.request("POST", "/completion", PROMPT, X_Conversation_Id="1")
    assert await fake.violations() == ["id_slot sent while something runs", "X-Conversation-Id was sent"]


async def test_several_slots(fake: FakeEngine) -> None:
    """With two slots two requests run at once, and the longest common prefix finds the slot."""
    await fake.restart(parallel=2)
    await fake.faults(stuck=True)
    tasks = [
        asyncio.get_running_loop().create_task(fake.post("/completion", {"prompt": [n] * 100, "n_predict": 1}))
        for n in (3, 4)
    ]
    await fake.until(lambda now: all(slot["busy"] for slot in now["slots"]))
    await fake.faults(stuck=False)
    await asyncio.gather(*tasks)
    answer = await fake.post("/completion", {"prompt": [3] * 100, "n_predict": 1})
    assert answer.json()["timings"]["cache_n"] == 99


async def test_sigterm_waits_for_clients(fake: FakeEngine) -> None:
    """With an open request the process does not exit until its client leaves (facts, section 3)."""
    await fake.faults(stuck=True)
    request = asyncio.get_running_loop().create_task(fake.post("/completion", PROMPT))
    await fake.until(lambda now: now["slots"][0]["busy"])
    fake.signal(signal.SIGTERM)
    await asyncio.sleep(0.1)
    assert fake.running
    request.cancel()
    assert await fake.wait() == 0
