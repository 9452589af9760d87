"""A configuration that was broken while its program runs: the verbs find that all the same."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from bioproxy import aio
from bioproxy.config import listening
from bioproxy.config.listening import Listening
from fakes.fake_engine import FakeEngine
from support.command import Serving, run, serving
from support.http import call, certificate, needs_openssl

MODELS = "models: {a: {cmd: 'fake ${PORT}'}}"
LOOKING = ("status", "models", "requests", "doctor", "logs", "top", "snapshots list", "contexts list")


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    """An engine to be attached to."""
    async with FakeEngine() as running:
        yield running


def configure(home: Path, text: str) -> Path:
    """A configuration file with free ports."""
    path = home / "conf.yaml"
    path.write_text(f"proxy_port: 0\nadmin_port: 0\n{text}\n")
    return path


def written(home: Path) -> Path:
    """The file in which the only program of this home has written its addresses."""
    [path] = (home / ".local/state/bioproxy").glob(f"*/{listening.NAME}")
    return path


async def up(served: Serving) -> int:
    """The admin port, once everything is started, and the engine was met."""
    await served.line("listening on")
    admin = (await served.ports())[1]

    async def look() -> bool | None:
        answer = await call(admin, "GET", "/readyz")
        return True if answer.status == 200 else None

    assert await aio.poll(look, interval=0.01, deadline=30)
    return admin


@pytest.mark.parametrize("many", [False, True], ids=["one engine", "many models"])
@pytest.mark.parametrize("mistake", ["kv: [", "proxy_prot: 1"], ids=["unreadable", "unknown key"])
async def test_whoever_has_saved_a_mistake_can_still_look(
    tmp_path: Path, engine: FakeEngine, many: bool, mistake: str
) -> None:
    """Each verb says where the mistake is, and shows the program that runs."""
    path = configure(tmp_path, MODELS if many else f"backend_url: {engine.url}")
    async with serving(tmp_path, "-config", "conf.yaml") as served:
        admin = await up(served)
        path.write_text(f"{path.read_text()}{mistake}\n{'models: []' if many else ''}")
        for verb in LOOKING:
            ended = await run(tmp_path, *verb.split(), "-config", "conf.yaml")
            assert (verb, ended.code) == (verb, 0), ended.err
            first = ended.err.splitlines()[0]
            assert first.startswith("the configuration is broken (conf.yaml:")
            assert first.endswith(f"asking the program that runs, on http://localhost:{admin}")
        paused = await run(tmp_path, "pause", "-config", "conf.yaml")
        assert paused.code == 0


async def test_without_the_program_the_problems_are_told_and_the_way_around_them(
    tmp_path: Path, engine: FakeEngine
) -> None:
    """What it wrote down is gone with it; a port that is named is asked, whatever is wrong with the file."""
    path = configure(tmp_path, f"backend_url: {engine.url}")
    async with serving(tmp_path, "-config", "conf.yaml") as served:
        admin = await up(served)
        file = written(tmp_path)
        path.write_text("kv: [\n")
        named = await run(tmp_path, "status", "-config", "conf.yaml", "-admin-port", str(admin), "--json")
        assert (named.code, "engine" in named.json()) == (0, True)
        assert await served.end() == 0
    assert not file.exists()
    ended = await run(tmp_path, "status", "-config", "conf.yaml")
    assert ended.code == 1
    assert ended.err.startswith("bioproxy: conf.yaml:")
    assert "with -admin-port, and its key with -admin-key" in ended.err.splitlines()[-1]


async def test_no_key_is_written_down(tmp_path: Path, engine: FakeEngine) -> None:
    """Who asks a program that wants one has to name it; the file is the owner's alone."""
    path = configure(tmp_path, f"backend_url: {engine.url}\nadmin_key: s3cret\napi_keys: [t0p]")
    async with serving(tmp_path, "-config", "conf.yaml") as served:
        await up(served)
        file = written(tmp_path)
        assert set(json.loads(file.read_text())) == {"pid", "proxy", "admin", "certificate"}
        assert not {"s3cret", "t0p"} & set(file.read_text().split('"'))
        assert os.name == "nt" or file.stat().st_mode & 0o777 == 0o600
        path.write_text("admin_key: s3cret\nkv: [\n")
        refused = await run(tmp_path, "status", "-config", "conf.yaml")
        assert (refused.code, "name the key with -admin-key" in refused.err) == (1, True)
        assert "s3cret" not in refused.err
        named = await run(tmp_path, "status", "-config", "conf.yaml", BIOPROXY_ADMIN_KEY="s3cret")
        assert named.code == 0


@needs_openssl
async def test_a_port_that_speaks_tls_is_found(tmp_path: Path, engine: FakeEngine) -> None:
    """By its certificate."""
    pair = certificate(tmp_path, "own")
    tls = f"tls_cert_file: {pair.cert}\ntls_key_file: {pair.key}\nadmin_tls: true"
    path = configure(tmp_path, f"backend_url: {engine.url}\n{tls}")
    async with serving(tmp_path, "-config", "conf.yaml") as served:
        await served.line("listening with TLS")
        path.write_text("kv: [\n")
        ended = await run(tmp_path, "status", "-config", "conf.yaml")
        assert "on https://localhost:" in ended.err
        assert "engine" in ended.out


async def test_what_a_killed_program_left_does_not_lead_to_another_one(tmp_path: Path, engine: FakeEngine) -> None:
    """Its port may have gone to somebody else: the pid tells."""
    path = configure(tmp_path, f"backend_url: {engine.url}")
    async with serving(tmp_path, "-config", "conf.yaml") as served:
        admin = await up(served)
        gone = Listening(pid=served.process.pid + 1, proxy="http://localhost:1", admin=f"http://localhost:{admin}")
        written(tmp_path).write_bytes(msgspec.json.encode(gone))
        path.write_text("kv: [\n")
        ended = await run(tmp_path, "pause", "-config", "conf.yaml")
        assert (ended.code, "nothing tells where the program" in ended.err) == (1, True)
        assert await served.end() == 0
    assert listening.read(written(tmp_path).parent) == gone  # a program removes its own alone


async def test_of_two_with_one_configuration_the_first_is_found(tmp_path: Path) -> None:
    """The second was told by its flags to listen elsewhere; what is gone is in nobody's way."""
    mine, first = (Listening(pid=pid, proxy=f"http://localhost:{pid}") for pid in (os.getpid(), os.getppid()))
    listening.write(tmp_path, first)
    listening.write(tmp_path, mine)
    listening.remove(tmp_path)
    assert listening.read(tmp_path) == first
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    (tmp_path / listening.NAME).write_bytes(msgspec.json.encode(Listening(pid=gone.pid, proxy="http://localhost:1")))
    listening.write(tmp_path, mine)
    assert listening.read(tmp_path) == mine


def test_a_number_that_another_process_has_by_now_is_no_program_of_ours(tmp_path: Path) -> None:
    """It began after the file was written."""
    listening.write(tmp_path, Listening(pid=os.getppid(), proxy="http://localhost:1"))
    os.utime(tmp_path / listening.NAME, (1.0, 1.0))
    mine = Listening(pid=os.getpid(), proxy="http://localhost:2")
    listening.write(tmp_path, mine)
    assert listening.read(tmp_path) == mine
