"""`/api/events`: what is, then what changes, in messages whose data is JSON in JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.http import build, call
from support.swap_api import CHAT, profile, program
from support.swap_client import Stream
from support.swap_models import apart, fake, fakes
from support.swap_rig import Rig, swap_rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
MODELS = {
    "a": fake(name="A", description="first", aliases=["al"], capabilities={"in": ["text"], "context": 99}),
    "b": fake(unlisted=True),
}
rig = program(
    MODELS,
    groups=apart("a b"),
    profiles={"p": {"pins": {"x": "a"}}},
    peers={"far": {"proxy": "http://127.0.0.1:9", "models": ["one"]}},
    ui={"activity": {"session_id": ["X-Chat"]}},
)


class Listener:
    """A client of the stream."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.reader = reader
        self.seen: list[tuple[str, Json]] = []

    async def next(self) -> tuple[str, Json]:
        """The next message: its type, and its data decoded twice."""
        async with asyncio.timeout(30):
            while (line := await self.reader.readline()) != b"event:message\n":
                assert line, "the stream has ended"
            line = await self.reader.readline()
        assert line.startswith(b"data:")
        told = json.loads(line[5:])
        assert set(told) == {"type", "data"}
        assert isinstance(told["data"], str)
        self.seen.append((told["type"], json.loads(told["data"])))
        return self.seen[-1]

    async def until(self, kind: str, wanted: Callable[[Json], object] = bool) -> Json:
        """The next message of a kind whose data is as wanted."""
        while True:
            found, data = await self.next()
            if found == kind and wanted(data):
                return data


@asynccontextmanager
async def listening(rig: Rig) -> AsyncIterator[Listener]:
    """A client that hears everything."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    try:
        writer.write(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"text/event-stream" in head
        assert b"X-Accel-Buffering: no" in head
        yield Listener(reader)
    finally:
        writer.close()


@asynccontextmanager
async def informed(rig: Rig) -> AsyncIterator[Listener]:
    """One that has heard what is."""
    async with listening(rig) as listener:
        await listener.until("inflight")
        yield listener


async def test_what_is_comes_first(rig: Rig) -> None:
    """Both logs, models, the page's settings, profile, requests under way: in this order."""
    async with listening(rig) as listener:
        first = [await listener.next() for _ in range(6)]
    assert [kind for kind, _ in first] == [
        "logData", "logData", "modelStatus", "uiConfig", "profileChanged", "inflight",
    ]  # fmt: skip
    assert [data["source"] for _, data in first[:2]] == ["proxy", "upstream"]
    assert "listening on" in first[0][1]["data"]
    assert first[3][1] == {"activity": {"session_id": ["X-Chat"]}}
    assert first[4][1] == {"active": None}
    assert first[5][1] == {"operation": "snapshot"}


async def test_model_status(rig: Rig) -> None:
    """Every model, unlisted ones too, then the peers'."""
    await rig.get("/unload")
    async with listening(rig) as listener:
        one, two, peer = await listener.until("modelStatus")
    assert one == {
        "id": "a", "name": "A", "description": "first", "state": "stopped", "unlisted": False, "peerID": "",
        "aliases": ["al"], "context_length": 99,
    }  # fmt: skip
    assert (two["id"], two["unlisted"]) == ("b", True)
    assert (peer["id"], peer["state"], peer["peerID"]) == ("far/one", "", "far")


async def test_a_models_states_are_told(rig: Rig) -> None:
    """Each of them, in order."""
    await rig.post("/api/models/unload/a")
    async with informed(rig) as listener:
        await rig.chat("a")
        await rig.post("/api/models/unload/a")
        await listener.until("modelStatus", lambda told: told[0]["state"] == "stopping")
        await listener.until("modelStatus", lambda told: told[0]["state"] == "stopped")
        states = [data[0]["state"] for kind, data in listener.seen if kind == "modelStatus"]
    changes = [state for place, state in enumerate(states) if place == 0 or state != states[place - 1]]
    assert changes == ["stopped", "starting", "ready", "stopping", "stopped"]


async def test_a_request_is_told_from_beginning_to_end(rig: Rig) -> None:
    """Under way, gone, and a row; its keys are not shown."""
    async with informed(rig) as listener:
        headers = {"X-Own": "1", "Authorization": "Bearer secret", "User-Agent": "test"}
        await rig.chat("al", headers=headers)
        began = (await listener.until("inflight", lambda data: data["operation"] == "upsert"))["request"]
        gone = await listener.until("inflight", lambda data: data["operation"] == "remove")
        row = await listener.until("activity")
    assert (began["model"], began["req_path"], began["method"], began["remote_ip"]) == ("a", CHAT, "POST", "127.0.0.1")
    assert (began["req_headers"]["X-Own"], began["req_headers"]["Authorization"]) == ("1", "[REDACTED]")
    keys = {"id", "timestamp", "resp_headers", "resp_bytes", "elapsed_ms"}
    assert keys <= set(began)
    assert gone == {"operation": "remove", "id": began["id"]}
    assert set(row) == {"id"}
    (newest,) = (await rig.get("/api/metrics/activity?limit=1")).json()["data"]
    assert newest["id"] == row["id"]


async def test_a_streams_bytes_are_told_as_they_come(rig: Rig) -> None:
    """A few times a second."""
    async with informed(rig) as listener, rig.stream("a", hold=1) as stream:
        await stream.event()
        moved = lambda data: data["operation"] == "upsert" and data["request"]["resp_bytes"] > 0  # noqa: E731
        told = (await listener.until("inflight", moved))["request"]
        assert told["resp_headers"]["Content-Type"] == "text/event-stream"


async def test_who_comes_later_is_told_what_is_under_way(rig: Rig) -> None:
    """In the snapshot."""
    held = await rig.ask_held("a")
    async with listening(rig) as listener:
        told = await listener.until("inflight")
        assert [one["model"] for one in told["requests"]] == ["a"]
    await rig.release("a")
    await held


async def test_logs_are_told_by_their_source(rig: Rig) -> None:
    """Ours, and the engines'."""
    await rig.post("/api/models/unload/b")
    async with informed(rig) as listener:
        await rig.chat("b")
        port = rig.log.port("b")
        text = {"proxy": "", "upstream": ""}
        while f"listening on {port}\n" not in text["upstream"] or "b is ready" not in text["proxy"]:
            kind, data = await listener.next()
            if kind == "logData":
                text[data["source"]] += data["data"]
    assert "b is ready" not in text["upstream"]


async def test_a_profile_is_told(rig: Rig) -> None:
    """With the models, for names mean others then."""
    async with informed(rig) as listener:
        async with profile(rig, "p"):
            assert await listener.until("profileChanged") == {"active": "p"}
            assert (await listener.next())[0] == "modelStatus"
        assert await listener.until("profileChanged", lambda _: True) == {"active": None}


async def test_the_routers_clients_see_a_model_come_and_go(rig: Rig) -> None:
    """`/models/sse` has plain JSON, as llama.cpp writes it, on both ports."""
    await rig.post("/api/models/unload/a")
    for port in (rig.port, rig.ports.admin):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(build("GET", "/models/sse"))
        stream = Stream(reader)
        assert await stream.head() == 200
        await reader.readuntil(b"retry: ")  # it is listened to
        await rig.chat("a")
        await rig.post("/models/unload", {"model": "a"})
        told = [await stream.event() for _ in range(3)]
        writer.close()
        assert [(one["model"], one["event"]) for one in told] == [
            ("a", "model_status"),
            ("a", "status_change"),
            ("a", "status_change"),
        ]
        assert [one["data"]["status"] for one in told] == ["loading", "loaded", "unloaded"]


@pytest.mark.parametrize("path", ["/api/events", "/models/sse"])
async def test_head(path: str, rig: Rig) -> None:
    """Its head, and no stream."""
    answer = await call(rig.port, "HEAD", path)
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/event-stream", b"")


async def test_a_reload_tells_all_anew_and_ends_nothing(tmp_path: Path) -> None:
    """llama-swap ends its streams there."""
    async with swap_rig(tmp_path, fakes("a")) as rig, informed(rig) as listener:
        await rig.reload(fakes("a c"))
        told = await listener.until("modelStatus", lambda data: len(data) == 2)
        assert [one["id"] for one in told] == ["a", "c"]


async def test_the_end_of_the_program_ends_it(tmp_path: Path) -> None:
    """At once; nobody waits for a stream that has no end."""
    async with swap_rig(tmp_path, fakes("a"), child=True) as rig, informed(rig) as listener:
        assert await asyncio.wait_for(rig.program.stop(), 25) == 0
        await asyncio.wait_for(listener.reader.read(), 25)
