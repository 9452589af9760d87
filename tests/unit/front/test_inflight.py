"""The table of requests under way: who is in it, what is told of it, and how one is ended."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from bioproxy import aio
from bioproxy.config.dialect.schema import Activity, DialectConfig, Ui
from bioproxy.events import Bus, InflightChanged
from bioproxy.front import inflight
from bioproxy.front.exchange import Exchange
from bioproxy.front.inflight import Inflight
from bioproxy.front.routes import OTHER_GRANT
from bioproxy.wire.http1.message import Carrier, Request, Responder
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


def enter(table: Inflight, identity: str = "a", **known: Any) -> Exchange:
    """A request of this id; `known` are fields of its record."""
    fields = {name.lower(): value for name, value in reversed(HEADERS)}
    path = "/v1/completions"
    request = Request("POST", path.encode(), path, headers=HEADERS, peer="127.0.0.1", fields=fields)
    exchange = Exchange(request, Responder(cast("Carrier", None), request), OTHER_GRANT)
    exchange.id = identity
    for name, value in ({"model": "llama"} | known).items():
        setattr(exchange.record, name, value)
    table.add(exchange)
    return exchange


def everyone(_: str) -> bool:
    """Who may see all requests."""
    return True


def answer(exchange: Exchange, size: int, *headers: tuple[bytes, bytes]) -> None:
    """So many bytes are sent, under these headers."""
    exchange.responder.bytes_out = size
    exchange.reply[:] = headers


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look every few milliseconds."""
    monkeypatch.setattr(inflight, "INTERVAL", 0.005)


async def test_a_request_is_shown_as_llama_swap_shows_it() -> None:
    """Secrets taken out; metadata only where there is some. Who asks, and in which session, is ours."""
    table = Inflight(Bus(), settings())
    known = enter(table, started=1_800_000_000.5, metadata={"selector": "fast"}, client="anna")
    answer(known, 7, (b"content-type", b"text/plain"), (b"set-cookie", b"secret"))
    (found,) = msgspec.to_builtins(table.snapshot())
    assert found.pop("elapsed_ms") >= 0
    assert found.pop("standing")["stage"] == ""
    assert found == {
        "id": "a", "timestamp": "2027-01-15T08:00:00.500000Z", "model": "llama", "req_path": "/v1/completions",
        "method": "POST", "remote_ip": "127.0.0.1", "resp_bytes": 7, "metadata": {"selector": "fast"},
        "req_headers": {"User-Agent": "curl", "Authorization": "[REDACTED]", "X-Session-Id": "s1"},
        "resp_headers": {"Content-Type": "text/plain", "Set-Cookie": "[REDACTED]"}, "client": "anna", "session": "s1",
    }  # fmt: skip
    table.remove(known)
    enter(table)
    assert "metadata" not in msgspec.to_builtins(table.snapshot()[0])
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
    known = enter(table)
    table.remove(known)
    table.remove(known)
    assert await ears.until(2) == ["upsert", "remove"]
    assert ears.heard[1].request is None
    table.close()


async def test_nothing_is_put_together_while_nobody_listens(quick: None) -> None:
    """Whoever comes later asks for a snapshot, and hears what moves from then on."""
    bus = Bus()
    table = Inflight(bus, settings())
    known = enter(table)
    table.look()
    assert not table.told
    ears = Ears(bus)
    table.look()
    assert await ears.until(1) == ["upsert"]
    ears.stop()
    answer(known, 5)
    table.look()
    assert (len(ears.heard), table.told) == (1, {})
    table.close()


async def test_what_came_between_two_looks_is_told_at_once(quick: None) -> None:
    """The relay calls nobody per chunk: a thousand of them are one event, with the last figure."""
    bus = Bus()
    table, ears = Inflight(bus, settings()), Ears(bus)
    known = enter(table)
    for received in range(1, 1001):
        answer(known, received, (b"content-type", b"text/event-stream"))
    await ears.until(2)
    assert (ears.last["resp_bytes"], ears.last["resp_headers"]) == (1000, {"Content-Type": "text/event-stream"})
    assert len(ears.heard) == 2
    answer(known, 1009)
    await ears.until(3)
    assert ears.last["resp_bytes"] == 1009
    table.remove(known)
    assert not table.told
    table.close()


async def test_the_timer_ends_with_the_last_request(quick: None) -> None:
    """And begins again with the next."""
    table = Inflight(Bus(), settings())
    known = enter(table)
    timers = [table.timer]
    table.remove(known)
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
        known = enter(table)
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.append(known.cancelled)
            table.remove(known)

    task = aio.spawn(serve(), name="request")
    await began.wait()
    assert table.cancel("a", everyone)
    await asyncio.wait([task])
    assert ends == [True]
    assert not table.cancel("a", everyone)
    assert table.statistics() == inflight.InflightStatistics(running=0, cancelled=1)
    table.close()


async def test_a_second_cancellation_changes_nothing() -> None:
    """People press a button twice."""
    table = Inflight(Bus(), settings())
    known = enter(table)
    asked: list[int] = []
    known.task = cast("Any", SimpleNamespace(cancel=lambda: asked.append(1)))
    assert table.cancel("a", everyone)
    assert table.cancel("a", everyone)
    assert asked == [1]
    table.close()


async def test_a_request_of_another_client_is_as_unknown_as_one_that_is_not_there() -> None:
    """And goes on."""
    table = Inflight(Bus(), settings())
    known = enter(table, client="anna")
    assert not table.cancel("a", lambda client: client == "bert")
    assert not known.cancelled
    table.close()


@pytest.mark.parametrize("identity", ["a", "two/parts", "", "x" * 200, "~1"])
async def test_an_id_that_is_taken_or_fits_no_path_is_replaced(identity: str) -> None:
    """Clients choose them; each request can be cancelled all the same."""
    table = Inflight(Bus(), settings())
    first, second = enter(table), enter(table, identity)
    assert (first.listed, second.listed) == ("a", "~2")
    assert len(table.exchanges) == 2
    table.close()


@pytest.mark.parametrize(
    ("names", "session"), [(["X-Session-ID"], "s1"), (["X-Other", "x-session-id"], "s1"), (["X-Other"], ""), ([], "")]
)
async def test_the_first_header_that_is_there_names_the_session(names: list[str], session: str) -> None:
    """Whatever its case; without headers to look for there is none."""
    swap = DialectConfig(ui=Ui(activity=Activity(session_id=tuple(names))))
    table = Inflight(Bus(), settings(swap))
    assert enter(table).record.session == session
    table.close()
