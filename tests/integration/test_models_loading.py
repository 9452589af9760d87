"""`sendLoadingState`: a stream tells that its model is being loaded. And websockets, which may start one or not."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from support.swap_client import message
from support.swap_models import fake, fakes
from support.swap_rig import Rig, swap_rig

Json = Any


def said(event: Json) -> str:
    """What an event says as reasoning."""
    return str(event["choices"][0]["delta"].get("reasoning_content", "")) if isinstance(event, dict) else ""


async def test_a_stream_says_that_its_model_is_being_loaded(tmp_path: Path) -> None:
    """At once and as reasoning; the engine's own stream follows in the same answer."""
    models = {"a": fake("--health-503-for 0.3", sendLoadingState=True)}
    async with swap_rig(tmp_path, models) as rig, rig.stream("a", events=2) as stream:
        assert await stream.head() == 200
        first = await stream.event()
        assert not rig.log.of("begin")
        found = [first, *await stream.rest()]
    told = "".join(said(event) for event in found)
    assert "loading model: a" in told
    assert "Done!" in told
    assert "word1" in str(found)
    assert found[-1] == "[DONE]"


async def test_a_model_that_is_there_is_not_announced(tmp_path: Path) -> None:
    """The stream is the engine's, from its first byte."""
    async with swap_rig(tmp_path, {"a": fake(sendLoadingState=True)}) as rig:
        await rig.chat("a")
        async with rig.stream("a", events=2) as stream:
            await stream.head()
            found = await stream.rest()
    assert not any(said(event) for event in found)


async def test_a_load_that_fails_is_an_event_of_the_stream(tmp_path: Path) -> None:
    """The status was given already, so the error comes as every SDK reads it."""
    models = {"a": fake("--exit 1 --after 0.2 --start-delay 60", sendLoadingState=True)}
    async with swap_rig(tmp_path, models) as rig, rig.stream("a") as stream:
        assert await stream.head() == 200
        found = await stream.rest()
    assert "exited prematurely" in found[-1]["error"]["message"]


async def test_whoever_is_refused_gets_a_status(tmp_path: Path) -> None:
    """The limit is looked at before the stream begins."""
    models = {"a": fake("--health-503-for 60", sendLoadingState=True, concurrencyLimit=1)}
    async with swap_rig(tmp_path, models) as rig:
        rig.ask("a")
        await rig.until_event("listening", "a")
        async with rig.stream("a") as stream:
            assert await stream.head() == 429


async def upgrade(rig: Rig, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """Ask for a websocket; the head of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    key = base64.b64encode(b"sixteen bytes ..").decode()
    lines = [
        f"GET {target} HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}",
    ]  # fmt: skip
    writer.write("\r\n".join([*lines, "", ""]).encode())
    return reader, writer, await reader.readuntil(b"\r\n\r\n")


async def test_a_websocket_starts_its_model_and_keeps_it(tmp_path: Path) -> None:
    """It counts as a request: another model waits until it is closed."""
    async with swap_rig(tmp_path, fakes("a b")) as rig:
        reader, writer, head = await upgrade(rig, "/upstream/a/ws")
        assert head.startswith(b"HTTP/1.1 101 ")
        writer.write(b"\x81\x82\0\0\0\0hi")
        assert await reader.readexactly(4) == b"\x81\x02hi"
        queued = await rig.ask_queued("b")
        writer.transport.abort()
        assert (await queued).status == 200


async def test_a_websocket_that_is_ignored_starts_nothing(tmp_path: Path) -> None:
    """`compat.ignoreWebsockets`: 409 while the model is not loaded."""
    async with swap_rig(tmp_path, {"a": fake(compat={"ignoreWebsockets": True})}) as rig:
        reader, writer, head = await upgrade(rig, "/upstream/a/ws")
        body = await reader.read(4096)
        writer.close()
    assert head.startswith(b"HTTP/1.1 409 ")
    assert b"model a is not loaded; ignored websocket requests cannot start it" in body
    assert rig.log.starts() == []


async def test_a_websocket_that_is_ignored_keeps_nothing(tmp_path: Path) -> None:
    """It is passed on to a model that is loaded, and cut when that one goes."""
    models = {"a": fake(compat={"ignoreWebsockets": True}), "b": fake()}
    async with swap_rig(tmp_path, models) as rig:
        await rig.chat("a")
        reader, writer, head = await upgrade(rig, "/upstream/a/ws")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert (await rig.chat("b")).status == 200
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("path", ["/upstream/a/any/path?x=1", "/upstream/a/"])
async def test_any_path_of_a_model_can_be_reached(path: str, tmp_path: Path) -> None:
    """And loads it."""
    async with swap_rig(tmp_path, fakes("a")) as rig:
        answer = await rig.get(path)
        assert (answer.status, answer.json()["target"]) == (200, path.removeprefix("/upstream/a"))
        assert (await rig.get("/upstream/x/")).status == 404
        assert message(await rig.get("/upstream/x/")) == "model not found"
