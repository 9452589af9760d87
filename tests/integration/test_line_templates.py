"""Templates through the whole line, before the real engine: warmed at once, pinned, with heads, giving way to users."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bioproxy.app import App
from bioproxy.events import (
    Event,
    RequestEnded,
    SnapshotRestored,
    WarmupEnded,
    WarmupStarted,
    WarmupYielded,
)
from support.apps import station
from support.conversation import Conversation, openai_client
from support.http import call
from support.kv_rig import text
from support.leaks import until
from support.real_engine import KEEN, crash, evaluated, line, llama_server, quicken, ready, real_engine, warmed

Json = Any
pytestmark = real_engine
CODE = text(500, "You know this code.") + "\nQuestion: <{message}>\n"
SYSTEM = text(60, "You review code with care.")
SLACK = 16  # tokens at a prompt's end that the engine may evaluate again


def target(app: App, head: str = "") -> Json:
    """The warm-up of @code with the head that is not `bare`, or with the one that is called `head`."""
    found = station(app).runner.statistics().targets
    return next(one for one in found if (one.head == head if head else one.head != "bare"))


async def rendered(app: App, messages: Json) -> str:
    """The prompt that the engine makes of `messages` after expansion."""
    return str((await call(app.proxy_port, "POST", "/apply-template", data={"messages": messages})).json()["prompt"])


async def test_the_first_request_is_warm(tmp_path: Path) -> None:
    """Warm-up begins at once at start-up: the first user evaluates the own question only."""
    async with llama_server(tmp_path) as engine, line(engine, tmp_path, CODE) as app:
        await warmed(app)
        async with openai_client(app.proxy_port) as client:
            turn = await Conversation(client).say("@code what is it?")
        assert turn.cached >= target(app, "bare").total > 1000
        assert turn.evaluated < 50


async def test_a_conversation_keeps_the_text_that_it_began_with(tmp_path: Path) -> None:
    """Turn two hits the cache after the template changed; a new conversation gets the new text."""
    async with llama_server(tmp_path) as engine, line(engine, tmp_path, CODE) as app:
        await warmed(app)
        async with openai_client(app.proxy_port) as client:
            talk, other = Conversation(client), Conversation(client)
            first = await talk.say("@code what is it?")
            old = target(app, "bare").version
            (tmp_path / "code.txt").write_text("Everything is new. " + CODE)
            app.look_now.set()
            await until(lambda: target(app, "bare").version != old)
            await warmed(app)
            second = await talk.say("and who calls it?")
            assert second.cached >= first.prompt - SLACK
            assert "Everything is new." not in await rendered(app, talk.messages)
            fresh = await other.say("@code what is it?")
            assert fresh.cached >= target(app, "bare").total
            assert "Everything is new." in await rendered(app, other.messages[:1])


async def test_heads_that_two_conversations_used_are_warmed(tmp_path: Path) -> None:
    """A client's system message before the template: warmed once two used it, and warm again after an engine kill."""
    async with llama_server(tmp_path) as engine, line(engine, tmp_path, CODE) as app:
        await warmed(app)
        async with openai_client(app.proxy_port) as client:
            for words in ("@code what is it?", "@code who calls it?"):
                await Conversation(client, system=SYSTEM).say(words)
            await until(
                lambda: (
                    [one.state for one in station(app).runner.statistics().targets if one.head != "bare"] == ["saved"]
                )
            )
            await crash(engine, app)
            await warmed(app)
            turn = await Conversation(client, system=SYSTEM).say("@code is it right?")
        assert turn.cached >= target(app).total
        assert await evaluated(engine) < 150


class Watched:
    """What happens on the engine, in order: chunks of the warm-up and everything on the bus."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.log: list[str] = []
        self.prefill = station(app).llama.prefill
        self.chunks = 0
        self.second_chunk = asyncio.Event()
        station(app).llama.prefill = self.chunk  # type: ignore[method-assign] # looked at, then handed on
        app.bus.subscribe(Event, self.hear)

    def hear(self, event: Event) -> None:
        """Note the events of warm-ups and requests."""
        if isinstance(event, WarmupStarted | WarmupYielded | WarmupEnded | RequestEnded):
            self.log.append(type(event).__name__)

    async def chunk(self, tokens: Any, **more: Any) -> Any:
        """Note a warm-up's chunk when it begins; the second one ends only when a user waits behind it."""
        if "WarmupStarted" not in self.log:
            return await self.prefill(tokens, **more)  # the keeper takes the engine's measure
        self.log.append("chunk")
        self.chunks += 1
        if self.chunks == 2:
            self.second_chunk.set()
            await until(lambda: station(self.app).gate.user_waiting)
        return await self.prefill(tokens, **more)


async def test_a_user_waits_for_one_chunk_at_most(tmp_path: Path) -> None:
    """A request in the middle of a warm-up is next after the running chunk; the warm-up goes on where it was."""
    seen: list[Watched] = []

    def watch(app: App) -> None:
        quicken(app)
        seen.append(Watched(app))

    async with llama_server(tmp_path, batch_size=128) as engine:
        values: Json = {"warmup": {"chunk_seconds": 0.001}}
        async with line(engine, tmp_path, CODE, adjust=watch, **values) as app, openai_client(app.proxy_port) as client:
            (watched,) = seen
            before = await evaluated(engine)
            await watched.second_chunk.wait()
            arrived = len(watched.log)
            turn = await Conversation(client).say("hello")
            await warmed(app)
            log, total = watched.log, target(app, "bare").total
            answered = log.index("RequestEnded")
            assert log[arrived:answered].count("chunk") == 0
            assert log.index("WarmupYielded") < answered < log.index("WarmupEnded")
            assert log[answered:].count("chunk") > 3
            assert target(app, "bare").evaluated <= total + SLACK
            assert await evaluated(engine) - before <= total + turn.evaluated + 150


async def test_policy_off_leaves_the_engine_alone(tmp_path: Path) -> None:
    """Templates are filled and warmed in memory; no slot file is ever written."""
    values: Json = {"kv": KEEN | {"policy": "off"}}
    async with llama_server(tmp_path) as engine, line(engine, tmp_path, CODE, **values) as app:
        await warmed(app)
        assert target(app, "bare").state == "warm"
        async with openai_client(app.proxy_port) as client:
            assert (await Conversation(client).say("@code what is it?")).cached >= target(app, "bare").total
        assert station(app).keeper.statistics().policy == "off"
        assert list((tmp_path / "slots").iterdir()) == []


async def test_policy_always_restores_and_saves_around_each_request(tmp_path: Path) -> None:
    """The seed's literal way: each templated request finds its file restored, whatever is resident."""
    values: Json = {"kv": KEEN | {"policy": "always"}}
    async with llama_server(tmp_path) as engine, line(engine, tmp_path, CODE, **values) as app:
        await warmed(app)
        restored: list[SnapshotRestored] = []
        app.bus.subscribe(SnapshotRestored, restored.append)
        async with openai_client(app.proxy_port) as client:
            for words in ("@code what is it?", "@code who calls it?"):
                turn = await Conversation(client).say(words)
                assert turn.cached >= target(app, "bare").total
        assert [event.status for event in restored] == ["ok", "ok"]
        await until(lambda: len(station(app).keeper.list()) > 1)


async def test_without_a_slot_folder_the_status_names_the_flag(tmp_path: Path) -> None:
    """The warm-up works in memory, requests are served, and `/status` says what would keep it over a restart."""
    async with llama_server(tmp_path, slot_folder=None) as engine, line(engine, tmp_path, CODE) as app:
        await warmed(app)
        async with openai_client(app.proxy_port) as client:
            assert (await Conversation(client).say("@code what is it?")).cached >= target(app, "bare").total
        status = (await call(app.admin_port, "GET", "/status")).json()
        assert any("--slot-save-path" in note for note in status["kv"]["notes"])
        assert status["snapshots"] == []
        await ready(app)
