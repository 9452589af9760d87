"""llama-swap's event stream over a real socket: what comes first, what follows, and who cannot keep up."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from bioproxy.activity import InflightRequest
from bioproxy.admin import events as swap_events
from bioproxy.events import ConfigReloaded, Event, InflightChanged, ModelChanged, ProfileChanged
from bioproxy.logbook import MOST_BEHIND
from support.admin import ActivityPort, Client, activity_port, metered
from support.http import build

RUNNING = InflightRequest(
    id="r1", timestamp=datetime.fromtimestamp(1_800_000_000, UTC), model="llama", req_path="/v1/completions",
    method="POST", req_headers={}, remote_ip="127.0.0.1", resp_headers={}, resp_bytes=3, elapsed_ms=9,
)  # fmt: skip


def change(port: ActivityPort, state: str) -> None:
    """The model's process changes its state."""
    old, port.views.state = port.views.state, state
    port.bus.publish(ModelChanged(model="llama", old=old, new=state))


async def asleep(port: ActivityPort) -> tuple[socket.socket, swap_events.Mailbox]:
    """A client that asked and does not read, and what waits for it."""
    sleeper = socket.create_connection(("127.0.0.1", port.server.port))
    sleeper.setblocking(False)
    await asyncio.get_running_loop().sock_sendall(sleeper, build("GET", "/api/events"))
    await port.events.count(1)
    (mailbox,) = port.events.listeners
    assert isinstance(mailbox, swap_events.Mailbox)
    return sleeper, mailbox


async def test_a_client_first_gets_what_is() -> None:
    """Six messages, in llama-swap's order, each with JSON inside of JSON."""
    async with activity_port() as port:
        port.book.proxy.write(b"started\n")
        client = await Client.listen(port)
        assert await client.welcome() == [
            ("logData", {"source": "proxy", "data": "started\n"}),
            ("logData", {"source": "upstream", "data": ""}),
            ("modelStatus", [{"id": "llama", "state": "stopped"}]),
            ("uiConfig", {"activity": {"session_id": ["X-Session-ID"]}}),
            ("profileChanged", {"active": None}),
            ("inflight", {"operation": "snapshot"}),
        ]
        client.leave()


async def test_messages_have_llama_swaps_lines() -> None:
    """Its clients split them by hand: no blank behind the colons."""
    async with activity_port() as port:
        client = await Client.listen(port)
        await client.reader.readline()  # the chunk's size
        assert await client.reader.readline() == b"event:message\n"
        assert (await client.reader.readline()).startswith(b'data:{"type":"logData","data":"{\\"source\\":')
        assert await client.reader.readline() == b"\n"
        client.leave()


async def test_requests_under_way_are_in_the_snapshot() -> None:
    """And a profile that is active has its name."""
    async with activity_port() as port:
        port.views.running = [RUNNING]
        port.views.active = "night"
        client = await Client.listen(port)
        *_, profile, inflight = await client.welcome()
        assert profile == ("profileChanged", {"active": "night"})
        assert inflight[1]["requests"][0]["timestamp"] == "2027-01-15T08:00:00Z"
        client.leave()


async def test_what_happens_is_told_to_every_client() -> None:
    """States, rows, requests that come and go."""
    async with activity_port() as port:
        clients = [await Client.listen(port), await Client.listen(port)]
        for client in clients:
            await client.welcome()
        change(port, "starting")
        port.end(metered())
        port.bus.publish(InflightChanged(operation="upsert", id="r1", request=RUNNING))
        port.bus.publish(InflightChanged(operation="remove", id="r1"))
        for client in clients:
            assert await client.next() == ("modelStatus", [{"id": "llama", "state": "starting"}])
            assert await client.next() == ("activity", {"id": 1})
            upsert = (await client.next())[1]
            assert (upsert["operation"], upsert["request"]["resp_bytes"]) == ("upsert", 3)
            assert await client.next() == ("inflight", {"operation": "remove", "id": "r1"})
            client.leave()


async def test_another_profile_brings_the_models_with_it() -> None:
    """Names mean other models then."""
    async with activity_port() as port:
        client = await Client.listen(port)
        await client.welcome()
        port.views.active = "night"
        port.bus.publish(ProfileChanged(active="night"))
        assert await client.next() == ("profileChanged", {"active": "night"})
        assert (await client.next())[0] == "modelStatus"
        client.leave()


async def test_after_a_reload_everything_is_told_again() -> None:
    """Unless it was refused, and changed nothing."""
    async with activity_port() as port:
        client = await Client.listen(port)
        await client.welcome()
        port.bus.publish(ConfigReloaded(error="broken"))
        port.bus.publish(ConfigReloaded(changed=("models",)))
        kinds = [(await client.next())[0] for _ in range(4)]
        assert kinds == ["modelStatus", "uiConfig", "profileChanged", "inflight"]
        client.leave()


async def test_logs_follow_as_they_are_written() -> None:
    """A character that is cut between two pieces comes whole."""
    async with activity_port() as port:
        client = await Client.listen(port)
        await client.welcome()
        port.book.upstream.write("größ".encode()[:3])
        assert await client.next() == ("logData", {"source": "upstream", "data": "gr"})
        port.book.upstream.write("größ".encode()[3:])
        assert await client.next() == ("logData", {"source": "upstream", "data": "öß"})
        client.leave()


async def test_a_client_that_leaves_ends_its_subscriptions() -> None:
    """On the bus and on the logs."""
    async with activity_port() as port:
        client = await Client.listen(port)
        assert port.book.proxy.subscriptions
        client.leave()
        await port.events.count(0)
        assert not port.bus.subscribers[ModelChanged]
        assert not port.bus.subscribers[Event]
        assert not port.bus.subscribers[InflightChanged]
        assert not port.book.proxy.subscriptions


async def test_the_shutdown_ends_the_stream_properly() -> None:
    """With its last chunk, and for one that comes too late as well."""
    async with activity_port() as port:
        client = await Client.listen(port)
        await client.welcome()
        port.events.close()
        assert (await client.reader.read()).endswith(b"0\r\n\r\n")
        client.leave()
        late = await port.ask("/api/events")
        assert late.status == 200


async def test_a_head_request_ends_at_once() -> None:
    """A probe is no listener."""
    async with activity_port() as port:
        answer = await port.ask("/api/events", "HEAD")
        assert answer.headers["content-type"] == "text/event-stream"
        assert not port.events.listeners


async def test_a_client_that_slept_gets_the_state_anew(caplog: pytest.LogCaptureFixture) -> None:
    """It lost messages, said once; the others lost none, and in the end it knows the truth."""
    async with activity_port() as port:
        sleeper, mailbox = await asleep(port)
        client = await Client.listen(port)
        await client.welcome()
        big = replace(RUNNING, model="m" * 20_000)
        while not mailbox.dropped:
            port.bus.publish(InflightChanged(operation="upsert", id="r1", request=big))
            await client.until("inflight")
        change(port, "ready")
        assert await client.until("modelStatus") == [{"id": "llama", "state": "ready"}]
        woken = Client(*await asyncio.open_connection(sock=sleeper))
        states = [await woken.until("modelStatus") for _ in range(2)]
        assert [state[0]["state"] for state in states] == ["stopped", "ready"]
        assert await woken.until("inflight") == {"operation": "snapshot"}
        assert caplog.text.count("does not keep up") == 1
        woken.leave()
        client.leave()


async def test_a_client_that_is_behind_gets_no_more_of_a_log() -> None:
    """What it missed is marked in the log's own words, and nothing of it piles up here."""
    async with activity_port() as port:
        sleeper, mailbox = await asleep(port)
        client = await Client.listen(port)
        await client.welcome()
        while not port.book.proxy.dropped:
            port.book.proxy.write(b"x" * 50_000 + b"\n")
            await client.until("logData")
        assert mailbox.held <= swap_events.LOGS_WAIT + MOST_BEHIND
        assert not mailbox.dropped
        woken = Client(*await asyncio.open_connection(sock=sleeper, limit=8 << 20))
        while "bytes dropped" not in (await woken.until("logData"))["data"]:
            pass
        woken.leave()
        client.leave()
