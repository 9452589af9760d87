"""The table of requests under way: who is in it, what is told of it, and how one is ended."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from bioproxy import aio
from bioproxy.config.dialect.schema import Activity, DialectConfig, Ui
from bioproxy.events import Bus, InflightChanged
from bioproxy.front import inflight
from bioproxy.front.inflight import Entry, Inflight
from support.config_files import settings

HEADERS = [(b"user-agent", b"curl"), (b"Authorization", b"Bearer secret"), (b"x-session-id", b"s1")]


class Ears:
    """A listener that a test can wait for."""

    def __init__(self, bus: Bus) -> None:
        self.heard: list[InflightChanged] = []
        self.more = asyncio.Event()
        self.stop = bus.subscribe(InflightChanged, self.hear)

    def hear(self, event: InflightChanged) -> None:
        self.heard.append(event)
        self.more.set()

    async def until(self, number: int) -> list[str]:
        """Wait for `number` events; their operations."""
        while len(self.heard) < number:
            self.more.clear()
            await self.more.wait()
        return [event.operation for event in self.heard]

    @property
    def last(self) -> Any:
        """The entry that was told of last, as JSON would show it."""
        return msgspec.to_builtins(self.heard[-1].request)


def enter(table: Inflight, identity: str = "a", **fields: Any) -> Entry:
    known: dict[str, Any] = {
        "model": "llama", "path": "/v1/completions", "method": "POST", "headers": HEADERS, "remote": "127.0.0.1",
    }  # fmt: skip
    return table.add(identity, **(known | fields))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look every few milliseconds."""
    monkeypatch.setattr(inflight, "INTERVAL", 0.005)


async def test_an_entry_is_shown_as_llama_swap_shows_it() -> None:
    """Secrets taken out; metadata only where there is some. Who asks, and in which session, is ours."""
    table = Inflight(Bus(), settings())
    entry = enter(table, started=1_800_000_000.5, metadata={"selector": "fast"}, client="anna", session="s1")
    entry.update(7, [(b"content-type", b"text/plain"), (b"set-cookie", b"secret")])
    (found,) = msgspec.to_builtins(table.snapshot())
    assert found.pop("elapsed_ms") >= 0
    assert found == {
        "id": "a", "timestamp": "2027-01-15T08:00:00.500000Z", "model": "llama", "req_path": "/v1/completions",
        "method": "POST", "remote_ip": "127.0.0.1", "resp_bytes": 7, "metadata": {"selector": "fast"},
        "req_headers": {"User-Agent": "curl", "Authorization": "[REDACTED]", "X-Session-Id": "s1"},
        "resp_headers": {"Content-Type": "text/plain", "Set-Cookie": "[REDACTED]"}, "client": "anna", "session": "s1",
    }  # fmt: skip
    table.remove(entry)
    assert "metadata" not in msgspec.to_builtins(enter(table).view())
    table.close()


async def test_the_oldest_request_stands_first() -> None:
    """Whatever the order of arrival in the table."""
    table = Inflight(Bus(), settings())
    enter(table, "young", started=20.0)
    enter(table, "old", started=10.0)
    assert [found.id for found in table.snapshot()] == ["old", "young"]
    table.close()


async def test_coming_and_going_is_told() -> None:
    """At once, each time."""
    bus = Bus()
    table, ears = Inflight(bus, settings()), Ears(bus)
    entry = enter(table)
    table.remove(entry)
    table.remove(entry)
    assert await ears.until(2) == ["upsert", "remove"]
    assert ears.heard[1].request is None
    table.close()


async def test_nothing_is_put_together_while_nobody_listens() -> None:
    """Whoever comes later asks for a snapshot."""
    bus = Bus()
    table = Inflight(bus, settings())
    assert not table.heard
    stop = bus.subscribe(InflightChanged, lambda _: None)
    listened = table.heard
    stop()
    assert (listened, table.heard) == (True, False)
    table.close()


async def test_a_thousand_chunks_are_told_in_few_events(quick: None) -> None:
    """With the last figure in the end."""
    bus = Bus()
    table, ears = Inflight(bus, settings()), Ears(bus)
    entry = enter(table)
    for received in range(1, 1001):
        entry.update(received)
    await ears.until(2)
    assert ears.last["resp_bytes"] == 1000
    assert len(ears.heard) == 2
    table.remove(entry)
    table.close()


async def test_bytes_that_nobody_reports_are_looked_up(quick: None) -> None:
    """The relay calls nobody per chunk; its tail is asked."""
    bus = Bus()
    table, ears = Inflight(bus, settings()), Ears(bus)
    entry = enter(table)
    sent = [5]
    entry.source, entry.replied = lambda: sent[0], [(b"content-type", b"text/event-stream")]
    await ears.until(2)
    assert (ears.last["resp_bytes"], ears.last["resp_headers"]) == (5, {"Content-Type": "text/event-stream"})
    sent[0] = 9
    await ears.until(3)
    assert ears.last["resp_bytes"] == 9
    table.remove(entry)
    table.close()


async def test_the_timer_ends_with_the_last_request(quick: None) -> None:
    """And begins again with the next."""
    table = Inflight(Bus(), settings())
    entry = enter(table)
    timers = [table.timer]
    table.remove(entry)
    table.look()
    timers.append(table.timer)
    enter(table)
    timers.append(table.timer)
    assert [timer is not None for timer in timers] == [True, False, True]
    table.close()


async def test_a_cancelled_request_can_tell_it_from_a_client_that_left() -> None:
    """Its own task ends, in its own way, and is off the table then."""
    table = Inflight(Bus(), settings())
    began = asyncio.Event()
    ends: list[bool] = []

    async def serve() -> None:
        entry = enter(table)
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.append(entry.cancelled)
            table.remove(entry)

    task = aio.spawn(serve(), name="request")
    await began.wait()
    assert table.cancel("a")
    await asyncio.wait([task])
    assert ends == [True]
    assert not table.cancel("a")
    assert table.statistics() == inflight.InflightStatistics(running=0, cancelled=1)
    table.close()


async def test_a_second_cancellation_changes_nothing() -> None:
    """People press a button twice."""
    table = Inflight(Bus(), settings())
    asked: list[int] = []
    enter(table, cancel=lambda: asked.append(1))
    assert table.cancel("a")
    assert table.cancel("a")
    assert asked == [1]
    table.close()


@pytest.mark.parametrize("identity", ["a", "two/parts", "", "x" * 200, "~1"])
async def test_an_id_that_is_taken_or_fits_no_path_is_replaced(identity: str) -> None:
    """Clients choose them; each request can be cancelled all the same."""
    table = Inflight(Bus(), settings())
    first, second = enter(table), enter(table, identity)
    assert first.id == "a"
    assert second.id == "~2"
    assert len(table.entries) == 2
    table.close()


@pytest.mark.parametrize(
    ("names", "session"), [(["X-Session-ID"], "s1"), (["X-Other", "x-session-id"], "s1"), (["X-Other"], ""), ([], "")]
)
def test_the_first_header_that_is_there_names_the_session(names: list[str], session: str) -> None:
    """Whatever its case; without headers to look for there is none."""
    first = {name.lower(): value for name, value in reversed(HEADERS)}
    swap = DialectConfig(ui=Ui(activity=Activity(session_id=tuple(names))))
    assert Inflight(Bus(), settings(swap)).session(first.get) == session
