"""An engine that is not there, dies or hangs, behind the whole program: users get a sentence, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_engine import PROGRAM, FakeEngine
from support.apps import MS, only, running_app, station
from support.faults import (
    CHAT,
    MESSAGES,
    RESPONSES,
    SAVING,
    SPEED,
    ask,
    body_for,
    conversation,
    go_on,
    good,
    quicken,
    ready,
    saved,
    sent,
    tried,
)
from support.http import call, free_port
from support.kv_rig import text
from support.leaks import nothing_leaked, until

Json = Any


def engine(tmp_path: Path, **flags: Json) -> FakeEngine:
    """A fake engine whose prefill costs something."""
    return FakeEngine(slot_folder=tmp_path / "slots", **{"tokens_per_second": SPEED, **flags})


async def test_absent_at_start(tmp_path: Path) -> None:
    """Ports answer, requests get 502 with what was tried, in the dialect of the call; the engine's coming ends that."""
    fake = FakeEngine(port=free_port())
    async with running_app(tmp_path, adjust=quicken, backend_url=fake.url) as app:
        async with nothing_leaked(app):
            answer = await good(app)
            assert answer.status == 502
            error = answer.json()["error"]
            assert (error["code"], fake.url in error["message"]) == ("engine_unavailable", True)
            anthropic = (await good(app, path=MESSAGES)).json()
            assert (anthropic["type"], anthropic["error"]["type"]) == ("error", "api_error")
            assert (await call(app.proxy_port, "GET", "/v1/models")).status == 502
            assert (await call(app.admin_port, "GET", "/readyz")).status == 503
            assert (await call(app.admin_port, "GET", "/health")).status == 200
        async with fake:
            await ready(app)
            assert (await good(app)).status == 200


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
async def test_dies_in_mid_stream(path: str, tmp_path: Path) -> None:
    """What came is passed on, then an error event in the dialect; the stream never looks whole."""
    async with engine(tmp_path, decode_rate=100) as fake, tried(fake, tmp_path) as app:
        await fake.faults(die="stream", die_after=3)
        answer = await call(app.proxy_port, "POST", path, data=body_for(path, tokens=50, stream=True))
        assert answer.status == 200
        last = [line for line in answer.text.splitlines() if line.startswith("data: ")][-1]
        assert '"error"' in last
        assert "[DONE]" not in answer.text
        assert ("event: error\n" in answer.text) == (path != CHAT)
        await fake.wait()
        await fake.restart()


@pytest.mark.parametrize("stream", [False, True])
async def test_dies_in_prefill(stream: bool, tmp_path: Path) -> None:
    """Nothing was answered yet, so the client gets a 502 that says where it was tried."""
    async with engine(tmp_path) as fake, tried(fake, tmp_path) as app:
        await fake.faults(die="prefill")
        answer = await good(app, stream=stream)
        assert answer.status == 502
        assert fake.url.removeprefix("http://") in answer.json()["error"]["message"]
        await fake.wait()
        await fake.restart()


async def test_an_engine_of_ours_that_dies_of_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started again, and does not get that request a second time."""
    (tmp_path / "llama-server").write_text(f'#!/bin/sh\nexec {sys.executable} {PROGRAM} "$@"\n')
    (tmp_path / "llama-server").chmod(0o755)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    arguments = ["--faults", '{"die": "prefill", "die_after": 2}']
    async with running_app(tmp_path, model=str(tmp_path / "m.gguf"), engine_arguments=arguments) as app:
        await ready(app)
        answer = await good(app, text(1500))
        assert answer.status == 502
        assert "was ended by SIGKILL while it had this request; it is not sent again" in answer.text
        assert only(app).process.statistics().starts <= 2


async def test_a_hang_after_the_answer_is_no_fault_of_it(tmp_path: Path) -> None:
    """The engine hangs in the save that follows it (`kv.policy: always`): the answer was whole, and is recorded so."""
    (tmp_path / "rules.txt").write_text("These are the house rules.\n<{message}>")
    values: Json = {"prefixes": {"@rules": str(tmp_path / "rules.txt")}, "warmup": {"enabled": False}}
    async with engine(tmp_path) as fake, tried(fake, tmp_path, kv={"policy": "always", **SAVING}, **values) as app:
        await fake.faults(save_seconds=1000)
        async with sent(app, data=ask("@rules may I?")) as reader:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            await until(lambda: station(app).attachment.stall.entries)
            for entry in list(station(app).attachment.stall.entries.values()):
                entry.cancel("the engine gave no sign of life")
            await fake.kill()
            await reader.read()
        await until(lambda: len(app.records))
        assert [(record.outcome, record.error) for record in app.records] == [("ok", "")]
        await fake.restart()


async def test_dies_in_a_save(tmp_path: Path) -> None:
    """The conversation is served; half a slot file is no snapshot and goes away; later saves work."""
    async with engine(tmp_path) as fake, tried(fake, tmp_path, kv=SAVING) as app:
        await fake.faults(die="save")
        await conversation(app, "first")
        await fake.wait()
        await until(lambda: station(app).attachment.state == "absent")
        assert station(app).keeper.list() == ()
        await fake.restart()
        await ready(app, generation=2)
        turn = await conversation(app, "second")
        await saved(app)
        await until(lambda: not list((tmp_path / "slots").glob("bp-tmp-*")))
        assert len(list((tmp_path / "slots").glob("*.kv"))) == len(station(app).keeper.tenant.shelf.index.snapshots)
        assert (await go_on(app, turn))["cache_n"] > 400


async def test_dies_in_a_restore(tmp_path: Path) -> None:
    """The snapshot that the engine died of is not tried again; the request that lost is told, the next one served."""
    async with engine(tmp_path) as fake, tried(fake, tmp_path, kv=SAVING) as app:
        turn = await conversation(app, "first")
        await saved(app)
        for generation, status in ((2, 502), (3, 200)):
            await fake.restart()
            await fake.faults(die="restore")
            await ready(app, generation=generation)
            answer = await call(app.proxy_port, "POST", CHAT, data={"messages": turn, "max_tokens": 4})
            assert answer.status == status, answer.text
        assert "quarantined" in station(app).keeper.statistics().dropped


async def test_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process: the running request gets a sentence, waiting ones are served when it goes on."""
    monkeypatch.setattr("bioproxy.engines.llama.QUICK", 200 * MS)
    async with engine(tmp_path, decode_rate=100) as fake, tried(fake, tmp_path, stall_timeout=100 * MS) as app:
        async with sent(app, data=ask(tokens=1000, stream=True)) as reader:
            await reader.readuntil(b"data: ")
            fake.signal(signal.SIGSTOP)
            waiting = asyncio.ensure_future(good(app))  # noqa: TID251 - held and awaited right below
            rest = (await reader.read()).decode()
        assert "no sign of life" in rest
        assert "[DONE]" not in rest
        fake.signal(signal.SIGCONT)
        assert (await waiting).status == 200


async def test_hangs_before_the_first_byte(tmp_path: Path) -> None:
    """Nothing was sent yet: the answer is a 504 that says so, not a connection that stays open for ever."""
    async with engine(tmp_path) as fake, tried(fake, tmp_path, stall_timeout=100 * MS) as app:
        await fake.faults(stuck=True)
        answer = await good(app)
        assert answer.status == 504
        assert "no sign of life" in answer.json()["error"]["message"]
        await fake.faults(stuck=False)
