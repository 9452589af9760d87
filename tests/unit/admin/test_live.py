"""The web page's stream: a state and what changes, to whom, and nothing while nobody watches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bioproxy import aio
from bioproxy.activity import InflightRequest, Record
from bioproxy.admin import live as stream
from bioproxy.admin.live import Live, Viewer
from bioproxy.admin.routes import Question
from bioproxy.admin.swaps import MOST_SWAPS, Swaps
from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.config.schema import Config
from bioproxy.config.settings import Settings
from bioproxy.events import (
    ActivityAdded,
    Bus,
    ConfigReloaded,
    EngineChanged,
    Event,
    InflightChanged,
    ModelChanged,
    ModelStopped,
    RequestEnded,
    SwapEnded,
    WarmupChecked,
    WarmupEnded,
)
from bioproxy.keys import Principal
from bioproxy.wire.http1.message import Request, Responder
from support.admin import Deaf

Json = Any
MS = 0.001


NO_WARMUP: Json = {"targets": [], "heads": {}}


class World:
    """A stream, the status that it shows, and what was published."""

    def __init__(self, *, many: bool = True) -> None:
        self.bus = Bus()
        self.status: dict[str, Json] = {
            "started": 1.0, "uptime": 0.0, "snapshots": [], "refused_pages": {},
            "models": [{"state": "stopped", "gate": {"clients": []}, "kv": {"slots": []}, "warmup": NO_WARMUP}],
        }  # fmt: skip
        self.looks = 0
        self.running: list[InflightRequest] = []
        settings = Settings(Config(), DialectConfig() if many else None)
        self.live = Live(
            self.bus, status=self.look, inflight=lambda: self.running, settings=settings, proxy=lambda _: "http://x:1"
        )  # fmt: skip

    def look(self) -> msgspec.Struct:
        self.looks += 1
        return msgspec.convert(json.loads(json.dumps(self.status)), Anything)

    def watch(
        self, *, last: str = "", key: str = "", strangers: bool = True, query: str = "", proxy: bool = False
    ) -> Viewer:
        """One more client; with a `key` it is one of several, unless they are no `strangers`."""
        request = Request(
            method="GET", target=f"/api/live?{query}".encode(), path="/api/live", headers=[],
            fields={b"last-event-id": last.encode()} if last else {},
        )  # fmt: skip
        responder = Responder(Deaf(), request)
        principal = Principal(name=key, group=key) if key else None
        own = strangers and bool(key)
        viewer = Viewer(Question(request, responder, {}, own=own, principal=principal, proxy=proxy))
        self.live.join(viewer)
        return viewer

    def state(self, new: str) -> None:
        """The model has another state; the status shows it at the next look."""
        self.status["models"][0]["state"] = new


class Anything(msgspec.Struct):
    """A status of any kind."""

    started: float
    uptime: float
    models: Json
    snapshots: Json
    refused_pages: Json


def heard(viewer: Viewer) -> list[tuple[str, Json]]:
    """What waits for a client, and does not any more."""
    text = b"".join(viewer.blocks).decode()
    viewer.blocks.clear()
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def last_of(viewer: Viewer) -> str:
    """The id of the last event that waits for a client."""
    return b"".join(viewer.blocks).decode().rpartition("id: ")[2].partition("\n")[0]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the stream did it by itself."""

    async def look() -> bool | None:
        return condition() or None

    assert await aio.poll(look, interval=MS, deadline=30.0)


def names(viewer: Viewer) -> list[str]:
    return [name for name, _ in heard(viewer)]


def ended(client: str = "127.0.0.1", **fields: Any) -> RequestEnded:
    known: dict[str, Any] = {"id": "r", "started": 1.0, "method": "POST", "path": "/x", "endpoint": "/x", "model": "m"}
    return RequestEnded(record=Record(**(known | {"client": client} | fields)))


def moved(client: str, identity: str = "r") -> InflightChanged:
    return InflightChanged(operation="remove", id=identity, client=client)


async def test_a_client_first_gets_all_that_is() -> None:
    """With what the page must know of the program."""
    world = World()
    world.bus.publish(ModelChanged(model="m", old="stopped", new="starting"))
    ((name, state),) = heard(world.watch())
    assert name == "state"
    assert state["status"]["models"][0]["state"] == "stopped"
    assert state["status"]["uptime"] > 0
    assert [(swap["model"], swap["new"]) for swap in state["swaps"]] == [("m", "starting")]
    page = state["page"]
    assert (page["many"], page["proxy"], page["admin"], page["own"]) == (True, "http://x:1", True, False)


async def test_on_the_proxy_port_models_are_asked_where_the_page_came_from() -> None:
    """Below whatever path a reverse proxy shows it."""
    ((_, state),) = heard(World().watch(proxy=True))
    assert state["page"]["proxy"] == "."


async def test_then_it_hears_what_changes() -> None:
    """Each kind of event by its own name; what the page shows elsewhere, or nowhere, is not told."""
    world = World()
    viewer = world.watch()
    heard(viewer)
    world.bus.publish(ended(queue=0.75))
    world.bus.publish(ended(model=""))  # a question of the page's own
    world.bus.publish(moved(""))
    world.bus.publish(ModelChanged(model="m", old="stopped", new="starting"))
    world.bus.publish(WarmupEnded(prefix="@t", tokens=5, evaluated=5, seconds=0.1))
    world.bus.publish(WarmupChecked())
    world.state("starting")
    world.live.look()
    told = heard(viewer)
    assert [name for name, _ in told] == ["request", "inflight", "swap", "notice", "change"]
    assert told[0][1]["why"] == "waited 0.75 s in the queue"
    assert told[3][1]["event"] == "WarmupEnded"
    assert told[3][1]["at"] > 0
    assert told[4][1]["set"] == [[["models", 0, "state"], "starting"]]


async def test_a_look_that_finds_nothing_new_tells_nothing() -> None:
    """Most looks do."""
    world = World()
    viewer = world.watch()
    heard(viewer)
    world.live.look()
    assert heard(viewer) == []


async def test_an_event_brings_a_look_and_many_events_bring_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most twice a second for users; less often if a look costs much."""
    monkeypatch.setattr(stream, "AT_MOST", 20 * MS)
    world = World()
    viewer = world.watch()
    looks = world.looks
    for _ in range(100):
        world.bus.publish(ended())
    world.state("ready")
    await until(lambda: world.looks != looks)
    assert world.looks == looks + 1
    assert heard(viewer)[-1][1]["set"] == [[["models", 0, "state"], "ready"]]


async def test_the_pages_own_questions_bring_no_look() -> None:
    """A page that polls must not make the program look all the time."""
    world = World()
    world.watch()
    due = world.live.timer
    world.bus.publish(ended(model=""))
    assert world.live.timer is due
    world.bus.publish(ended())
    assert world.live.timer is not due


async def test_a_costly_look_is_seldom_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may use a twentieth of a core."""
    world = World()
    world.watch()
    times = iter([100.0, 100.3])
    monkeypatch.setattr("time.thread_time", lambda: next(times))
    world.live.look()
    assert world.live.pause == pytest.approx(6.0)


async def test_it_is_looked_now_and_then_without_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk fills up without one."""
    monkeypatch.setattr(stream, "AT_LEAST", MS)
    monkeypatch.setattr(stream, "AT_MOST", MS)
    world = World()
    world.watch()
    await until(lambda: world.looks >= 4)


@pytest.mark.parametrize("by", ["header", "query"])
async def test_a_client_that_comes_back_misses_nothing(by: str) -> None:
    """Within a minute, by the id of its last event; what changed in the status meanwhile is told, too."""
    world = World()
    viewer = world.watch()
    world.bus.publish(moved(""))
    last = last_of(viewer)
    world.live.leave(viewer)
    world.bus.publish(ended())
    world.state("ready")
    back = world.watch(last=last) if by == "header" else world.watch(query=f"last={last}")
    assert names(back) == ["request", "change"]
    assert names(world.watch(last=world.live.block("x", 0).decode().split()[1])) == []


@pytest.mark.parametrize(
    "last", ["other-1", "nonsense", "{boot}-999", "{boot}-x", "{boot}--1", "{boot}-²", "{boot}-" + "9" * 5000]
)
async def test_an_unknown_last_event_brings_a_state(last: str) -> None:
    """Of another run, of the future, or of nothing."""
    world = World()
    world.watch()
    assert names(world.watch(query=f"last={last.format(boot=world.live.boot)}")) == ["state"]


async def test_a_client_that_missed_too_much_gets_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring is bounded, by number and by bytes."""
    for bound, most in (("MOST_KEPT", 3), ("MOST_BYTES", 500)):
        monkeypatch.setattr(stream, bound, most)
        world = World()
        last = last_of(world.watch())
        for _ in range(10):
            world.bus.publish(ended())
        assert names(world.watch(last=last)) == ["state"]
        assert len(world.live.ring) <= 3
        assert world.live.bytes == sum(len(told.block) for told in world.live.ring) <= 4 << 20
        monkeypatch.undo()


@pytest.mark.parametrize(("bound", "most"), [("MOST_BEHIND", 5), ("MOST_HELD", 1500)])
async def test_a_client_that_does_not_keep_up_gets_a_state_once_it_reads(
    bound: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waited for it is dropped, be it many events or large ones; it is told no half of a story."""
    monkeypatch.setattr(stream, bound, most)
    world = World()
    viewer = world.watch()
    for _ in range(10):
        world.bus.publish(ended())
    assert heard(viewer) == []
    world.state("ready")
    world.live.catch_up(viewer)
    world.bus.publish(ended())
    told = heard(viewer)
    assert [name for name, _ in told] == ["state", "request"]
    assert told[0][1]["status"]["models"][0]["state"] == "ready"


async def test_a_status_that_cannot_be_had_leaves_nothing_behind() -> None:
    """Its client is told; the bus has no subscriber of ours, and the next client gets a state."""
    world = World()
    started = world.status.pop("started")
    with pytest.raises(msgspec.ValidationError):
        world.watch()
    assert (world.live.viewers, world.live.timer) == (set(), None)
    assert not world.bus.subscribers.get(Event)
    world.status["started"] = started
    assert names(world.watch()) == ["state"]


async def test_while_nobody_watches_publishing_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute after the last client left, the bus has no subscriber of ours but the rare changes of models."""
    monkeypatch.setattr(stream, "LINGER", MS)
    world = World()
    quiet = {kind: len(those) for kind, those in world.bus.subscribers.items()}
    assert not {Event, InflightChanged, RequestEnded} & set(quiet)
    one, other = world.watch(), world.watch()
    last = last_of(one)
    world.live.leave(one)
    assert world.bus.subscribers[Event]
    world.live.leave(other)
    await until(lambda: not world.bus.subscribers[Event])
    assert {kind: len(those) for kind, those in world.bus.subscribers.items() if those} == quiet
    looks, number = world.looks, world.live.number
    world.bus.publish(ended())
    world.bus.publish(ModelChanged(model="m", old="stopped", new="starting"))
    await asyncio.sleep(0)
    assert (world.looks, world.live.number, len(world.live.ring), world.live.timer) == (looks, number, 0, None)
    assert names(world.watch(last=last)) == ["state"]


async def test_a_client_that_comes_back_in_time_keeps_the_stream() -> None:
    """The order to leave the bus is taken back."""
    world = World()
    viewer = world.watch()
    world.live.leave(viewer)
    linger = world.live.timer
    world.watch()
    assert linger is not None
    assert linger.cancelled()
    assert world.bus.subscribers[Event]


async def test_one_of_several_keys_hears_of_its_own_requests_only() -> None:
    """Also of those of the users behind it; and of nobody's conversations."""
    world = World()
    world.status["models"][0]["gate"]["clients"] = [{"client": "bob"}]
    fields: dict[str, Any] = {
        "timestamp": "2027-01-01T00:00:00Z", "model": "m", "req_path": "/x", "method": "POST", "req_headers": {},
        "remote_ip": "", "resp_headers": {}, "resp_bytes": 0, "elapsed_ms": 1,
    }  # fmt: skip
    clients = ("ann", "bob", "ann/u1", "anna", "")
    world.running = [msgspec.convert(fields | {"id": one, "client": one}, InflightRequest) for one in clients]
    viewer, all_seeing = world.watch(key="ann"), world.watch()
    ((_, state),) = heard(viewer)
    assert [one["client"] for one in state["inflight"]] == ["ann", "ann/u1"]
    assert (state["page"]["own"], state["status"]["models"][0]["gate"]["clients"]) == (True, [])
    heard(all_seeing)
    for one in clients:
        world.bus.publish(ended(one))
        world.bus.publish(moved(one, one))
    world.bus.publish(ActivityAdded(id=1))
    for prefix in ("@t", ""):  # the second one is a group's head
        world.bus.publish(WarmupEnded(prefix=prefix, tokens=5, evaluated=5, seconds=0.1))
    world.status["models"][0]["gate"]["clients"] = []
    world.live.look()
    told = heard(viewer)
    assert [data["client"] for name, data in told if name == "request"] == ["ann", "ann/u1"]
    assert [data["id"] for name, data in told if name == "inflight"] == ["ann", "ann/u1"]
    assert [(name, data.get("event")) for name, data in told if name not in {"request", "inflight"}] == [
        ("notice", "WarmupEnded")
    ]
    assert [name for name, _ in heard(all_seeing)].count("request") == len(clients)


async def test_a_key_that_comes_back_is_told_what_it_missed_of_its_own() -> None:
    """From the same ring."""
    world = World()
    world.watch()  # the admin's page stays open
    viewer = world.watch(key="ann")
    last = last_of(viewer)
    world.live.leave(viewer)
    world.bus.publish(ended("ann"))
    world.bus.publish(ended("bob"))
    world.state("ready")
    world.live.look()
    assert names(world.watch(last=last, key="ann")) == ["request", "change"]


async def test_the_only_key_sees_everything() -> None:
    """And so do all keys if there is an admin, who then is the only one that gets here."""
    world = World()
    viewer = world.watch(key="ann", strangers=False)
    heard(viewer)
    world.bus.publish(ended("bob"))
    assert names(viewer) == ["request"]


async def test_another_configuration_is_told_as_a_state() -> None:
    """Anything may be different; after a reload that failed nothing is."""
    world = World()
    viewer = world.watch()
    heard(viewer)
    world.bus.publish(ConfigReloaded(error="no"))
    assert names(viewer) == ["notice"]
    world.bus.publish(ConfigReloaded(changed=("prefixes",)))
    assert names(viewer) == ["notice", "state"]


async def test_if_keys_changed_everyone_is_asked_for_theirs_again() -> None:
    """The stream ends; what it told is told to nobody who comes with its ids."""
    world = World()
    viewer = world.watch()
    last = last_of(viewer)
    world.bus.publish(ConfigReloaded(changed=("api_keys",)))
    assert viewer.over
    assert names(world.watch(last=last)) == ["state"]


async def test_the_end_of_the_program_ends_all_streams() -> None:
    """And those that come later; nothing is left on the bus."""
    world = World()
    viewer = world.watch()
    world.live.close()
    late = world.watch()
    assert viewer.over
    assert late.over
    for one in (viewer, late):
        world.live.leave(one)
    await until(lambda: not world.live.subscriptions)
    assert not world.bus.subscribers[Event]


def test_a_swap_is_told_with_what_it_cost() -> None:
    """On the change that made the model ready; a stop says why."""
    bus = Bus()
    swaps = Swaps(bus, one=False)
    cost: Json = {"displaced": ("b",), "stop": 1.0, "save": 0.5, "start": 2.0, "restore": 0.1, "ours": 0.01}
    bus.publish(ModelChanged(model="b", old="ready", new="stopping"))
    bus.publish(ModelStopped(model="b", reason="swap"))
    bus.publish(ModelChanged(model="b", old="stopping", new="stopped"))
    bus.publish(ModelChanged(model="a", old="stopped", new="starting"))
    bus.publish(SwapEnded(model="a", **cost))
    bus.publish(ModelChanged(model="a", old="starting", new="ready"))
    bus.publish(ModelChanged(model="a", old="ready", new="failed", reason="it died"))
    assert [(one.model, one.new, one.reason) for one in swaps.records] == [
        ("b", "stopping", ""), ("b", "stopped", "swap"), ("a", "starting", ""), ("a", "ready", ""),
        ("a", "failed", "it died"),
    ]  # fmt: skip
    assert [one.swap is not None for one in swaps.records] == [False, False, False, True, False]
    assert msgspec.to_builtins(swaps.records[3].swap) == cost


def test_the_one_engine_has_a_time_line_too() -> None:
    """By what is known of its state."""
    bus = Bus()
    swaps = Swaps(bus, one=True)
    for state in ("loading", "ready", "ready", "absent"):
        bus.publish(EngineChanged(url="http://x", state=state, model="m", reason="r"))
    assert [(one.old, one.new) for one in swaps.records] == [("", "loading"), ("loading", "ready"), ("ready", "absent")]


def test_the_history_of_swaps_is_bounded() -> None:
    """The newest are kept."""
    bus = Bus()
    swaps = Swaps(bus, one=False)
    for number in range(MOST_SWAPS + 10):
        bus.publish(ModelChanged(model=str(number), old="stopped", new="starting"))
    assert (len(swaps.records), swaps.records[0].model) == (MOST_SWAPS, "10")
