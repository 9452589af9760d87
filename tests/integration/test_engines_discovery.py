"""An engine that comes back is asked only what may have changed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy.engines import listener
from bioproxy.engines.discover import Discovery, discover, process_of
from bioproxy.engines.facts import EngineFacts
from bioproxy.engines.llama import Llama
from bioproxy.wire.upstream import Pool, parse_origin
from fakes.fake_engine import FakeEngine
from support.http import free_port

PROBES = {"/slots/0?action=none", "/tokenize", "/apply-template", "/v1/models", "/lora-adapters"}


class Asker:
    """Asks one engine, over its lives."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.pool = Pool(parse_origin(engine.url))
        self.llama = Llama(self.pool)
        self.known = Discovery()

    async def ask(self) -> tuple[EngineFacts, set[str]]:
        """What it is, and which of the probes that took."""
        self.pool.drop_idle()
        await self.engine.forget()
        process = await process_of(self.pool.origin, self.engine.pid)
        facts = await discover(self.llama, await self.llama.props(), process=process, known=self.known)
        return facts, {request.target for request in await self.engine.requests()} & PROBES


@asynccontextmanager
async def asking(engine: FakeEngine) -> AsyncIterator[Asker]:
    """The engine started, with somebody who asks it."""
    async with engine:
        made = Asker(engine)
        try:
            yield made
        finally:
            await made.pool.close()


async def test_another_process_of_the_same_command_is_not_asked(tmp_path: Path) -> None:
    """All that it told holds: the facts are the same but for the process."""
    async with asking(FakeEngine(slot_folder=tmp_path, port=free_port())) as asker:
        first, asked = await asker.ask()
        assert asked == PROBES
        await asker.engine.restart()
        second, asked = await asker.ask()
        assert asked == set()
        assert second.pid != first.pid
        assert (second.capabilities, second.alias, second.command) == (first.capabilities, first.alias, first.command)


async def test_the_same_process_is_asked_again(tmp_path: Path) -> None:
    """Somebody may have changed something while it ran."""
    async with asking(FakeEngine(slot_folder=tmp_path, port=free_port())) as asker:
        await asker.ask()
        assert (await asker.ask())[1] == PROBES


@pytest.mark.parametrize("flags", [{"build": "b2"}, {"parallel": 2}])
async def test_another_command_is_asked(tmp_path: Path, flags: dict[str, object]) -> None:
    """Another build, other arguments: nothing is taken for granted."""
    async with asking(FakeEngine(slot_folder=tmp_path, port=free_port())) as asker:
        await asker.ask()
        await asker.engine.restart(**flags)
        assert (await asker.ask())[1] == PROBES


async def test_what_was_missing_is_tried_again() -> None:
    """It may have been a moment's trouble; here it is --slot-save-path, and stays so."""
    async with asking(FakeEngine(port=free_port())) as asker:
        await asker.ask()
        await asker.engine.restart()
        facts, asked = await asker.ask()
        assert asked >= {"/slots/0?action=none", "/tokenize"}
        assert not facts.capabilities.slot_actions


async def test_scales_of_adapters_are_always_asked(tmp_path: Path) -> None:
    """`POST /lora-adapters` changes them, and with them what a snapshot is worth."""
    faults = {"adapters": [{"id": 0, "scale": 0.5}]}
    async with asking(FakeEngine(slot_folder=tmp_path, port=free_port(), faults=faults)) as asker:
        await asker.ask()
        await asker.engine.restart()
        facts, asked = await asker.ask()
        assert asked == {"/lora-adapters"}
        assert facts.adapters == ((0, 0.5),)


async def test_an_unseen_process_is_always_asked(tmp_path: Path) -> None:
    """Elsewhere, or hidden: nobody knows what it was started with."""
    async with asking(FakeEngine(slot_folder=tmp_path, port=free_port())) as asker:
        known = Discovery()
        for _ in range(2):
            facts = await discover(asker.llama, await asker.llama.props(), process=None, known=known)
            assert facts.capabilities.slot_actions
        requests = await asker.engine.requests("/tokenize")
        assert len(requests) == 2


async def test_a_child_of_ours_is_found_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own processes are looked at, and no others; where it does not listen, all are."""
    searched: list[int] = []

    def find(_host: str, port: int) -> None:
        searched.append(port)

    monkeypatch.setattr(listener, "find", find)
    async with FakeEngine() as engine:
        origin = parse_origin(engine.url)
        found = await process_of(origin, engine.pid)
        assert found is not None
        assert (found.pid, searched) == (engine.pid, [])
        described = await process_of(origin, os.getpid())
        assert described is not None
        assert searched == ([] if described.pid == engine.pid else [engine.port])


async def test_a_forwarder_is_not_the_engine_behind_it(tmp_path: Path) -> None:
    """Its words are no arguments, though it holds the port and the engine answers through it."""
    async with FakeEngine(slot_folder=tmp_path) as engine:

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            behind, ahead = await asyncio.open_connection("127.0.0.1", engine.port)
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, ahead))
                group.create_task(pump(behind, writer))

        async with await asyncio.start_server(forward, "127.0.0.1", 0) as server:
            pool = Pool(parse_origin(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
            found = []
            for pid in (None, os.getpid()):
                llama = Llama(pool)
                process = await process_of(pool.origin, pid)
                found.append(await discover(llama, await llama.props(), process=process))
            await pool.close()
    for facts in found:
        assert (facts.build, facts.command, facts.pid, facts.slot_folder) == ("b11549-fake", (), None, "")
    assert (found[0].launched, bool(found[1].launched)) == ((), True)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until there are no more."""
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def test_a_process_that_names_another_model_is_not_believed(tmp_path: Path) -> None:
    """Somebody else's llama-server holds the port, and passes questions on."""
    async with asking(FakeEngine(slot_folder=tmp_path, port=free_port(), model=__file__)) as asker:
        facts, _ = await asker.ask()
        assert facts.command
        await asker.engine.faults(model="/models/other.gguf")
        facts, _ = await asker.ask()
        assert (facts.command, facts.pid, facts.model_path) == ((), None, "/models/other.gguf")


async def test_an_engine_tells_of_its_adapters_and_weights(tmp_path: Path) -> None:
    """Files of adapters, as it was given them, and the figures of its weights without the size of its context."""
    faults = {"adapters": [{"id": 0, "scale": 1.0, "path": "lora.gguf"}]}
    async with asking(FakeEngine(slot_folder=tmp_path, port=free_port(), faults=faults)) as asker:
        facts, _ = await asker.ask()
        assert (facts.adapters, facts.adapter_files) == (((0, 1.0),), ("lora.gguf",))
        assert dict(facts.described)["n_vocab"] == 32000
        assert "n_ctx" not in dict(facts.described)
        await asker.engine.faults(answer="status", status=500, paths=["/lora-adapters"])
        facts, _ = await asker.ask()
        assert facts.adapter_files is None


async def test_a_container_in_our_network_is_known_by_its_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is seen, but it is another user's, and its files are not: the words that started it count."""
    usual: dict[str, Any] = {"ticks": 1, "started": 1.0, "command": ("llama-server", "-m", "/models/x.gguf")}
    seen = listener.Listener(pid=1, hidden=True, **usual)
    client = listener.Listener(pid=2, volumes=(("/srv", "/models"),), launched=("image",), **usual)
    for name, found in (("within", None), ("find", seen), ("launched", client)):
        monkeypatch.setattr(listener, name, lambda *_, found=found: found)
    assert await process_of(parse_origin("http://localhost:1"), 2) is client
    assert await process_of(parse_origin("http://localhost:1"), None) is seen
    shell = listener.Listener(pid=2, ticks=1, started=1.0, command=(), launched=("sh",))
    monkeypatch.setattr(listener, "launched", lambda *_: shell)
    assert await process_of(parse_origin("http://localhost:1"), 2) is seen
