"""The warm-up's loop on stand-ins: what is looked at when, what a fault costs, what others are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest
from msgspec.structs import replace

from bioproxy import aio
from bioproxy.engines.facts import Capabilities, EngineFacts
from bioproxy.engines.llama import Llama
from bioproxy.errors import EngineRefused, EngineUnavailable, NotFound
from bioproxy.events import Bus, Event, WarmupChecked, WarmupEnded, WarmupFailed
from bioproxy.kv.chain import chain
from bioproxy.kv.keeper import Keeper
from bioproxy.prompt import Head, Piece
from bioproxy.templates.catalogue import Catalogue
from bioproxy.templates.dialect_heads import head_piece
from bioproxy.warmup.heads import Heads
from bioproxy.warmup.runner import Runner
from support.config_files import settings
from support.leaks import until
from support.warm_rig import FACTS, Memory, Slot, Texts, open_gate

WORDS = "a template's words " * 60
SYSTEM = Head(messages=b'[{"role":"system","content":"You are kind."}]')


class World:
    """A runner with stand-ins around it."""

    def __init__(self, folder: Path, *, saves: bool = True, enabled: bool = True, **texts: str) -> None:
        self.slot = Slot()
        self.keeper = Memory(self.slot, saves=saves)
        self.texts = Texts(**(texts or {"code": WORDS}))
        self.settings = settings(warmup__enabled=enabled, warmup_check_interval=1000.0)
        self.heads = Heads(str(folder / "heads"), settings=self.settings, max_age=1000.0)
        self.bus = Bus()
        self.events: list[Event] = []
        self.news = asyncio.Event()
        self.bus.subscribe(Event, self.hear)
        self.runner = Runner(
            settings=self.settings,
            gate=open_gate(),
            keeper=cast("Keeper", self.keeper),
            catalogue=cast("Catalogue", self.texts),
            engine=cast("Llama", self.slot),
            heads=self.heads,
            bus=self.bus,
        )

    def hear(self, event: Event) -> None:
        self.events.append(event)
        self.news.set()

    def heard(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    async def until(self, kind: type[Event], *, times: int = 1) -> None:
        """Wait until events of `kind` were heard so often."""
        async with asyncio.timeout(30):
            while self.heard(kind) < times:
                self.news.clear()
                await self.news.wait()

    def states(self) -> dict[str, str]:
        return {one.prefix: one.text for one in self.runner.statistics().targets}

    @asynccontextmanager
    async def running(self, facts: EngineFacts | None = FACTS) -> AsyncIterator[Runner]:
        task = aio.spawn(self.runner.run(), name="warm-up")
        try:
            if facts is not None:
                self.runner.attached(facts)
            yield self.runner
        finally:
            await aio.finish([task])


async def test_every_template_is_warmed_at_start(tmp_path: Path) -> None:
    """Warm-up begins at once, template after template, each saved."""
    world = World(tmp_path, code=WORDS, manual="other " + WORDS)
    async with world.running():
        await world.until(WarmupEnded, times=2)
    assert world.states() == {"@code": "saved", "@manual": "saved"}


async def test_a_snapshot_on_disk_costs_no_token(tmp_path: Path) -> None:
    """After a restart of bioproxy nothing is evaluated that a snapshot holds."""
    world = World(tmp_path)
    async with world.running() as runner:
        await world.until(WarmupEnded)
        tokens = world.slot.evaluated
        runner.attached(FACTS)
        assert world.states() == {"@code": "waiting"}
        runner.wake()
        await world.until(WarmupChecked, times=2)
        await settled(runner)
    assert world.states() == {"@code": "saved"}
    assert world.slot.evaluated == tokens


async def settled(runner: Runner) -> None:
    """Let the worker come to rest."""
    busy = {"waiting", "warming"}
    await until(lambda: runner.checks and not any(one.state in busy for one in runner.statistics().targets))


async def test_a_change_is_warmed_when_it_is_told(tmp_path: Path) -> None:
    """A new text is another target; the old one's snapshot stays."""
    world = World(tmp_path)
    async with world.running():
        await world.until(WarmupEnded)
        world.texts.texts["@code"] = WORDS + "and more"
        (tell,) = world.texts.watchers
        tell()
        await world.until(WarmupEnded, times=2)
    assert not world.texts.watchers
    assert len(world.keeper.snapshots) == 2
    assert world.states() == {"@code": "saved"}


async def test_the_last_two_texts_that_the_engine_read_are_known(tmp_path: Path) -> None:
    """To show what changed, also after another process of the engine found the snapshot."""
    world = World(tmp_path)
    async with world.running() as runner:
        for number, more in enumerate(("", "one", "two"), 1):
            world.texts.texts["@code"] = WORDS + more
            runner.wake()
            await world.until(WarmupEnded, times=number)
        runner.attached(FACTS)
        await settled(runner)
        [target] = runner.statistics().targets
        texts = [one.reading.filled.parts[0] for one in runner.warmed["@code"] if one.reading.filled]
    assert texts == [f"{WORDS}one", f"{WORDS}two"]
    assert (target.total, target.warmed_at) == (len(world.slot.tokens), runner.warmed["@code"][-1].at)


async def test_a_very_large_text_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one whose prefix is not configured any more."""
    monkeypatch.setattr("bioproxy.warmup.runner.MOST_KEPT", len(WORDS))
    world = World(tmp_path, code=WORDS, large=WORDS + "x")
    async with world.running() as runner:
        await world.until(WarmupEnded, times=2)
        assert runner.warmed.keys() == {"@code"}
        del world.texts.texts["@code"]
        runner.refresh()
        assert not runner.warmed


async def test_nothing_is_begun_without_an_engine(tmp_path: Path) -> None:
    """Until the engine is there templates wait; when it comes they are warmed."""
    world = World(tmp_path)
    async with world.running(None) as runner:
        await world.until(WarmupChecked)
        assert world.states() == {"@code": "waiting"}
        runner.attached(FACTS)
        await world.until(WarmupEnded)


async def test_without_snapshots_a_template_is_warmed_once_per_engine(tmp_path: Path) -> None:
    """Warm in memory is enough until the engine is another process."""
    world = World(tmp_path, saves=False)
    async with world.running() as runner:
        await world.until(WarmupEnded)
        runner.wake()
        await world.until(WarmupChecked, times=2)
        assert (world.heard(WarmupEnded), world.states()) == (1, {"@code": "warm"})
        runner.gone()
        assert world.states() == {"@code": "waiting"}
        runner.attached(FACTS)
        await world.until(WarmupEnded, times=2)


async def test_when_the_disk_recovers_what_is_warm_is_saved(tmp_path: Path) -> None:
    """A full disk leaves templates unsaved; they get another chance when saving resumes."""
    world = World(tmp_path, saves=False)
    async with world.running():
        await world.until(WarmupEnded)
        world.keeper.saves = True
        for watcher in world.keeper.watchers:
            watcher()
        await world.until(WarmupEnded, times=2)
    assert world.states() == {"@code": "saved"}
    assert not world.keeper.watchers
    assert world.slot.evaluated <= len(world.slot.tokens) + 1


async def test_a_lost_snapshot_is_made_again(tmp_path: Path) -> None:
    """One that was quarantined or aged out is noticed at the next look."""
    world = World(tmp_path)
    async with world.running() as runner:
        await world.until(WarmupEnded)
        world.keeper.snapshots.clear()
        target = runner.of("@code")[0]
        runner.put(replace(target, ended=target.ended - 1000))
        runner.wake()
        await world.until(WarmupEnded, times=2)
    assert world.states() == {"@code": "saved"}


async def test_a_fault_of_the_engine_is_tried_again(tmp_path: Path) -> None:
    """A failed warm-up shows its reason, counts, and comes back after a pause."""
    world = World(tmp_path)
    world.slot.faults = [EngineUnavailable("connection refused")]
    async with world.running():
        await world.until(WarmupFailed)
        assert world.states() == {"@code": "failed: connection refused"}
        await world.until(WarmupEnded)
    assert [event.type for event in world.events if isinstance(event, WarmupFailed)] == ["unavailable"]


async def test_a_failing_template_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """While one is in its pause, the next is warmed; even a fault in our own code is only a state."""
    world = World(tmp_path, code=WORDS, manual="other " + WORDS)
    world.slot.faults = [ValueError("a bug")]
    async with world.running():
        await world.until(WarmupEnded)
    assert world.states() == {"@code": "failed: a fault in bioproxy: ValueError('a bug')", "@manual": "saved"}


async def test_a_fault_of_an_engine_that_went_away_is_not_the_templates(tmp_path: Path) -> None:
    """What an engine that is gone answered last says nothing about a template."""
    world = World(tmp_path)

    def die() -> None:
        world.runner.gone()
        raise EngineUnavailable("it is gone")

    world.slot.before = die
    async with world.running() as runner:
        await world.until(WarmupChecked)
        await until(lambda: runner.facts is None)
    assert world.heard(WarmupFailed) == 0
    assert world.states() == {"@code": "waiting"}


async def test_a_template_longer_than_the_context_is_not_warmed(tmp_path: Path) -> None:
    """It says by how much, and requests that use it learn it too."""
    world = World(tmp_path)
    async with world.running(replace(FACTS, context=256)) as runner:
        await settled(runner)
    assert world.slot.prompts == []
    total = runner.statistics().targets[0].total
    assert runner.too_long("@code") == f"too long: {total:,} of 256 tokens"
    assert runner.too_long("@other") == ""


async def test_an_engine_that_finds_it_too_long_is_believed(tmp_path: Path) -> None:
    """Where the context was not known, the engine's refusal is the answer."""
    world = World(tmp_path)
    world.slot.faults = [EngineRefused("400: exceed_context_size_error", status=400)]
    async with world.running(replace(FACTS, context=0)) as runner:
        await settled(runner)
    assert runner.too_long("@code").startswith("too long")
    assert world.heard(WarmupFailed) == 0


async def test_warm_up_can_be_switched_off(tmp_path: Path) -> None:
    """Then nothing is evaluated by itself, and an operator can still ask for it."""
    world = World(tmp_path, enabled=False)
    async with world.running() as runner:
        await world.until(WarmupChecked)
        assert world.states() == {"@code": "off"}
        assert [one.state for one in await runner.warm("@code")] == ["waiting"]
        await world.until(WarmupEnded)
    assert world.states() == {"@code": "saved"}


async def test_asking_for_a_prefix_that_is_not_there(tmp_path: Path) -> None:
    """The answer names those that are."""
    with pytest.raises(NotFound, match="there is no prefix @x; known prefixes: @code"):
        await World(tmp_path).runner.warm("@x")


async def test_heads_that_clients_use_are_warmed(tmp_path: Path) -> None:
    """A system message that two conversations sent is rendered before the template, instead of the bare message."""
    world = World(tmp_path)
    async with world.running():
        await world.until(WarmupEnded)
        world.heads.note("@code", SYSTEM, b"1")
        world.heads.note("@code", SYSTEM, b"2")
        await world.until(WarmupEnded, times=2)
    assert len(world.runner.statistics().targets) == 1
    prompt = bytes(world.slot.prompts[-1]).decode()
    assert prompt.startswith('{"messages":[{"role":"system","content":"You are kind."}')


async def test_a_head_that_comes_back_is_not_evaluated_again(tmp_path: Path) -> None:
    """Clients with three heads take turns; without snapshots their states are kept all the same."""
    world = World(tmp_path, saves=False)
    heads = [Head(messages=b'[{"role":"system","content":"%d"}]' % number) for number in range(3)]
    async with world.running() as runner:
        await world.until(WarmupEnded)
        for count, head in enumerate(heads, start=2):
            world.heads.note("@code", head, b"1")
            world.heads.note("@code", head, b"2")
            await world.until(WarmupEnded, times=count)
        world.heads.note("@code", heads[0], b"3")
        await world.until(WarmupChecked, times=5)
        await settled(runner)
    assert world.heard(WarmupEnded) == 4


async def test_another_kind_of_server_gets_a_chat_request(tmp_path: Path) -> None:
    """What is no llama-server is warmed with one request of one token, and nothing is saved."""
    world = World(tmp_path)
    async with world.running(replace(FACTS, capabilities=Capabilities(), alias="m")):
        await world.until(WarmupEnded)
    assert b'"max_tokens":1' in bytes(world.slot.prompts[0])
    assert world.states() == {"@code": "warm"}


async def test_what_was_learned_about_a_template_can_be_asked(tmp_path: Path) -> None:
    """Tokens per byte and seconds per token make a change's cost a sentence in /status."""
    world = World(tmp_path)
    async with world.running():
        assert world.runner.estimate("@code").tokens_per_byte is None
        await world.until(WarmupEnded)
    estimate = world.runner.estimate("@code")
    assert estimate.tokens_per_byte is not None
    assert estimate.tokens_per_byte > 0.9


LONG = Head(messages=msgspec.json.encode([{"role": "system", "content": "You are an agent. " * 200}]))


def sent(world: World, *questions: str, group: str = "") -> None:
    """Conversations without a prefix that begin with a long head."""
    for question in questions:
        pieces = [head_piece(LONG), Piece("message 1 (user)", question.encode())]
        world.heads.began(group, chain("", pieces), pieces, LONG, plain=True)


async def test_a_long_head_is_warmed_after_the_templates(tmp_path: Path) -> None:
    """Once two conversations began with it, without a prefix."""
    world = World(tmp_path)
    sent(world, "one", "two")
    async with world.running() as runner:
        await world.until(WarmupEnded, times=2)
        template, head = runner.statistics().targets
        assert (template.prefix, head.prefix, head.state) == ("@code", "", "saved")
        assert head.evaluated == head.total > 0


async def test_a_head_that_is_read_at_once_is_not_kept(tmp_path: Path) -> None:
    """Until the engine turns out to be slow."""
    world = World(tmp_path)
    world.keeper.worth = 10**6
    sent(world, "one", "two")
    async with world.running() as runner:
        await until(lambda: world.states().get("", "").startswith("too short"))
        world.keeper.worth = 0
        runner.wake()
        await world.until(WarmupEnded, times=2)
        assert world.states()[""] == "saved"


async def test_no_head_is_warmed_for_a_group_that_is_gone(tmp_path: Path) -> None:
    """Its key was taken out of the configuration."""
    world = World(tmp_path)
    sent(world, "one", "two", group="key:gone")
    async with world.running() as runner:
        await world.until(WarmupEnded)
        assert [one.prefix for one in runner.statistics().targets] == ["@code"]


async def test_an_engine_that_cannot_say_where_a_head_ends_gets_none(tmp_path: Path) -> None:
    """It would be asked with a whole chat, and nothing of it could be saved."""
    world = World(tmp_path)
    sent(world, "one", "two")
    async with world.running(replace(FACTS, capabilities=Capabilities())):
        await until(lambda: world.states().get("") == "off")


async def test_of_what_cannot_be_saved_one_head_is_warmed(tmp_path: Path) -> None:
    """A slot holds one, and reading the others after each start would be for nothing."""
    world = World(tmp_path, saves=False)
    for name in ("one", "two"):
        whose = Head(messages=msgspec.json.encode([{"role": "system", "content": f"You are agent {name}. " * 200}]))
        for question in ("a", "b"):
            pieces = [head_piece(whose), Piece("message 1 (user)", question.encode())]
            world.heads.began("", chain("", pieces), pieces, whose, plain=True)
    async with world.running() as runner:
        await world.until(WarmupEnded, times=2)
        assert [(one.prefix, one.state) for one in runner.statistics().targets] == [("@code", "warm"), ("", "warm")]


async def test_a_head_that_was_asked_for_is_in_use(tmp_path: Path) -> None:
    """Also if the slot held it, and nothing was restored."""
    world = World(tmp_path)
    sent(world, "one", "two")
    async with world.running() as runner:
        await world.until(WarmupEnded, times=2)
        sent(world, "three")
        await runner.look()
        (one,) = world.heads.plain.wanted()
        assert world.keeper.touched == (world.keeper.want([head_piece(LONG)]).end, one.used)


def with_battery(world: World, *, unplugged: bool) -> World:
    """Its machine shall not warm anything up on its battery."""
    world.settings.take(settings(warmup__on_battery=False, warmup_check_interval=1000.0).config)
    world.runner.look_at_battery = lambda: unplugged
    return world


async def test_on_its_battery_the_machine_rests(tmp_path: Path) -> None:
    """What an operator asks for is done all the same, the rest once it is plugged in."""
    world = with_battery(World(tmp_path, code=WORDS, docs="some other words " * 60), unplugged=True)
    async with world.running() as runner:
        await world.until(WarmupChecked)
        await until(lambda: world.states() == {"@code": "off", "@docs": "off"})
        assert (runner.statistics().enabled, runner.statistics().on_battery) == (False, True)
        await runner.warm("@docs")
        await world.until(WarmupEnded)
        assert world.states() == {"@code": "off", "@docs": "saved"}
        runner.look_at_battery = lambda: False
        runner.wake()
        await world.until(WarmupEnded, times=2)
        assert world.states() == {"@code": "saved", "@docs": "saved"}


async def test_what_is_under_way_when_it_is_unplugged(tmp_path: Path) -> None:
    """It ends with its chunk, and goes on from there: nothing is evaluated twice."""
    world = with_battery(World(tmp_path, code=WORDS * 20), unplugged=False)

    def unplug() -> None:
        world.runner.unplugged = True
        world.slot.before = lambda: None

    world.slot.before = unplug
    async with world.running() as runner:
        await until(lambda: world.slot.prompts and world.runner.evaluator.gate.idle)
        assert (len(world.slot.prompts), world.states()) == (1, {"@code": "off"})
        runner.wake()
        await world.until(WarmupEnded)
        assert world.states() == {"@code": "saved"}
    assert world.slot.evaluated == len(world.slot.prompts[-1])
