"""The event stream's hub: encoded once, bounded, and silent while nobody listens."""

from __future__ import annotations

import json
from collections.abc import Callable

from bioproxy.activity import Record
from bioproxy.admin import events as stream
from bioproxy.admin.events import Hub, Listener, event_blocks
from bioproxy.events import Bus, ConfigReloaded, Event, RequestEnded, WarmupChecked
from support.admin import system_changed


def ended(words: str) -> RequestEnded:
    finding = system_changed(words)
    return RequestEnded(
        record=Record(id="r", started=1.0, method="POST", path="/x", endpoint="other", finding=finding, why="cold")
    )


def encoded(event: Event) -> bytes:
    (block,) = event_blocks(event)
    return block


def joined(hub: Hub, cut: Callable[[], None] = lambda: None) -> Listener:
    """One more listener."""
    listener = Listener(cut)
    hub.join(listener)
    return listener


def test_an_event_is_a_block_with_its_name_and_json() -> None:
    """Clients can listen by name, and find the name in the JSON too."""
    block = encoded(ConfigReloaded(changed=("prefixes",))).decode()
    first, second, *rest = block.split("\n")
    assert first == "event: ConfigReloaded"
    assert json.loads(second.removeprefix("data: ")) == {
        "event": "ConfigReloaded",
        "error": "",
        "changed": ["prefixes"],
    }
    assert rest == ["", ""]


def test_words_of_a_prompt_are_left_out() -> None:
    """A finding quotes a prompt; it stands in /requests only, and the record itself is untouched."""
    event = ended("secret words")
    assert b"secret" not in encoded(event)
    assert b"cold" in encoded(event)
    assert event.record.finding is not None


def test_a_listener_hears_why_a_request_took_so_long() -> None:
    """The sentence is made for the first that listens."""
    waited = Record(id="r", started=1.0, method="POST", path="/x", endpoint="other", queue=0.75)
    assert b'"why":"waited 0.75 s in the queue"' in encoded(RequestEnded(record=waited))


def test_nothing_is_encoded_while_nobody_listens() -> None:
    """The hub hangs on the bus from its first listener to its last."""
    bus = Bus()
    hub = Hub(bus, event_blocks)
    assert not bus.subscribers[Event]
    listeners = [joined(hub), joined(hub)]
    assert len(bus.subscribers[Event]) == 1
    for listener in listeners:
        hub.leave(listener)
    assert not bus.subscribers[Event]


async def test_each_listener_hears_all_from_its_coming_on() -> None:
    """One who comes later has missed what was before, and one who leaves hears no more."""
    bus = Bus()
    hub = Hub(bus, event_blocks)
    early = joined(hub)
    bus.publish(WarmupChecked())
    late = joined(hub)
    bus.publish(ConfigReloaded())
    hub.leave(early)
    bus.publish(WarmupChecked())
    assert (await early.take()).count(b"event: ") == 2
    assert (await late.take()).count(b"event: ") == 2


async def test_a_listener_that_lags_is_cut_off_and_the_others_are_not() -> None:
    """A thousand events behind, a client is cut; what was kept for it is let go."""
    bus = Bus()
    hub = Hub(bus, event_blocks)
    cut: list[str] = []
    slow, quick = joined(hub, lambda: cut.append("slow")), joined(hub, lambda: cut.append("quick"))
    for _ in range(stream.MOST_WAITING + 1):
        bus.publish(WarmupChecked())
        await quick.take()
    bus.publish(WarmupChecked())
    assert cut == ["slow"]
    assert slow.over
    assert not slow.blocks
    assert not quick.over


async def test_closing_ends_every_stream() -> None:
    """At the shutdown listeners come to their end by themselves."""
    hub = Hub(Bus(), event_blocks)
    listener = joined(hub)
    hub.close()
    assert await listener.take() == b""
    assert listener.over
