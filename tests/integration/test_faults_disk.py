"""A disk that is full, read-only or gone, and snapshots that are not what they were: users are served all the same."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from bioproxy import aio
from bioproxy.app import App
from bioproxy.config import listening
from bioproxy.events import SavingPaused
from bioproxy.kv.folder import examine_all
from fakes.fake_engine import FakeEngine
from support.apps import MS, station
from support.faults import CHAT, SAVING, SPEED, conversation, go_on, good, heard, ready, saved, tried
from support.http import call
from support.leaks import until

Json = Any
COLD = 20  # tokens that any two of these prompts share


def engine(tmp_path: Path, **flags: Json) -> FakeEngine:
    """A fake engine whose prefill costs something."""
    return FakeEngine(slot_folder=tmp_path / "slots", **{"tokens_per_second": SPEED, **flags})


async def noted(app: App, text: str) -> None:
    """Wait until `/status` says `text` about the cache: a request does not wait for what we find out."""

    async def look() -> bool | None:
        notes = (await call(app.admin_port, "GET", "/status")).json()["kv"]["notes"]
        return True if text in " ".join(notes) else None

    assert await aio.poll(look, interval=0.01, deadline=30), text


def the_snapshot(tmp_path: Path) -> Path:
    """The one slot file of a conversation: the largest."""
    return max((tmp_path / "slots").glob("bp-*.kv"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("how", ["full", "short", "lost"])
async def test_a_full_disk_under_the_engine(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Requests go on, saving stops with one warning, a metric and a line in /status, and it resumes by itself."""

    def patient(app: App) -> None:
        station(app).keeper.pause.first_retry = station(app).keeper.pause.delay = 60.0

    async with engine(tmp_path) as fake, tried(fake, tmp_path, kv=SAVING, adjust=patient) as app:
        paused = heard(app, SavingPaused)
        await fake.faults(save=how)
        await conversation(app, "one")
        await until(lambda: paused)
        assert (await call(app.admin_port, "GET", "/status")).json()["kv"]["paused"]
        turn = await conversation(app, "two")
        assert "bioproxy_saving_paused{" in (await call(app.admin_port, "GET", "/metrics")).text
        await fake.faults(save="")
        station(app).keeper.pause.retry_at = 0.0  # the minute is over
        await saved(app)
        assert len([line for line in caplog.messages if "is paused" in line]) == 1
        assert station(app).keeper.statistics().paused == ""
        assert {getattr(event, "folder", "") for event in paused} == {str(tmp_path / "slots")}
        assert (await go_on(app, turn))["cache_n"] > 400
        await until(lambda: not list((tmp_path / "slots").glob("bp-tmp-*")))


@pytest.mark.parametrize("step", ["verified", "synced", "described", "renamed"])
async def test_a_full_disk_under_us(step: str, tmp_path: Path) -> None:
    """ENOSPC at any step of a commit leaves no half snapshot; the next one is kept."""

    def full(done: str) -> None:
        if done == step:
            raise OSError(28, "No space left on device")

    def fill(app: App) -> None:
        station(app).keeper.tenant.step = full

    async with engine(tmp_path) as fake, tried(fake, tmp_path, kv=SAVING) as app:
        fill(app)
        await conversation(app, "one")
        await until(lambda: station(app).keeper.statistics().paused == "disk")
        assert station(app).keeper.statistics().snapshots == 0
        station(app).keeper.tenant.step = lambda _step: None
        await saved(app)


async def test_what_must_stay_free_stays_free(tmp_path: Path) -> None:
    """`kv.min_free` above what there is: nothing is written, and it says so."""
    async with engine(tmp_path) as fake, tried(fake, tmp_path, kv={**SAVING, "min_free": 1 << 59}) as app:
        await conversation(app, "one")
        await until(lambda: station(app).keeper.statistics().paused)
        assert station(app).keeper.statistics().snapshots == 0


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that not even root may write to")
async def test_a_read_only_folder(tmp_path: Path) -> None:
    """The folder cannot be written: served without snapshots, and /status names the folder."""
    async with engine(tmp_path) as fake, tried(fake, tmp_path, kv={**SAVING, "directory": "/proc/self"}) as app:
        await conversation(app, "one")
        await noted(app, "cannot write to the snapshot folder /proc/self")


async def test_a_folder_that_is_not_the_engines(tmp_path: Path) -> None:
    """The engine writes somewhere else: served, and /status names the key to set."""
    other = tmp_path / "other"
    other.mkdir()
    async with engine(tmp_path) as fake, tried(fake, tmp_path, kv={**SAVING, "directory": str(other)}) as app:
        await conversation(app, "one")
        await noted(app, "kv.directory")
        assert list(other.glob("*.kv")) == []


async def test_a_folder_that_the_engine_cannot_write(tmp_path: Path) -> None:
    """Found out when we attach, told in /status, never an error to a user."""
    async with engine(tmp_path, faults={"save": "full"}) as fake, tried(fake, tmp_path, kv=SAVING) as app:
        await conversation(app, "one")
        await noted(app, "the engine cannot write into its slot folder")


async def test_a_folder_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    """Deleted under our feet: requests go on; made anew: snapshots are written again."""
    async with (
        FakeEngine(slot_folder=tmp_path / "slots", tokens_per_second=SPEED) as fake,
        tried(fake, tmp_path, kv=SAVING) as app,
    ):
        await conversation(app, "one")
        await saved(app)
        (tmp_path / "slots").rename(tmp_path / "gone")  # in one step, whoever writes into it
        await conversation(app, "two")
        await until(lambda: station(app).keeper.statistics().paused == "folder")
        await until(lambda: station(app).keeper.pause.delay >= 80 * MS)  # it has looked again, twice
        (tmp_path / "slots").mkdir()
        await until(
            lambda: station(app).keeper.statistics().snapshots == 1 and list((tmp_path / "slots").glob("bp-*.kv"))
        )


def truncate(path: Path) -> None:
    """The end is missing: llama-server would die of it."""
    os.truncate(path, path.stat().st_size - 100)


def garble(path: Path) -> None:
    """As long as before, and nonsense."""
    path.write_bytes(os.urandom(path.stat().st_size))


def replace(path: Path) -> None:
    """Another file of the same name, size and times."""
    status, copy = path.stat(), path.with_suffix(".copy")
    copy.write_bytes(os.urandom(status.st_size))
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    copy.replace(path)


@pytest.mark.parametrize("spoil", [truncate, garble, replace, Path.unlink])
async def test_a_spoiled_snapshot_never_reaches_the_engine(spoil: Any, tmp_path: Path) -> None:
    """Spoiled while we run: the request is served cold, the engine lives, the snapshot is gone from the list."""
    async with engine(tmp_path) as fake, tried(fake, tmp_path, kv=SAVING) as app:
        turn = await conversation(app, "one")
        await saved(app)
        spoil(the_snapshot(tmp_path))
        await fake.restart()
        await ready(app, generation=2)
        await fake.forget()
        assert (await go_on(app, turn))["cache_n"] < COLD
        assert all("action=restore" not in request.target for request in await fake.requests())
        assert station(app).attachment.generation == 2


@pytest.mark.parametrize("spoil", [truncate, garble, replace, Path.unlink])
async def test_a_snapshot_spoiled_while_we_were_away(spoil: Any, tmp_path: Path) -> None:
    """Found at the next start, removed with its description; what is whole stays."""
    async with engine(tmp_path) as fake:
        async with tried(fake, tmp_path, kv=SAVING) as app:
            first, second = await conversation(app, "one"), await conversation(app, "two", words=300)
            await saved(app, 2)
        spoiled = the_snapshot(tmp_path)
        spoil(spoiled)
        await fake.restart()
        async with tried(fake, tmp_path, kv=SAVING) as app:
            assert not list((tmp_path / "slots").glob(f"{spoiled.stem}*"))
            assert (await go_on(app, first))["cache_n"] < COLD
            assert (await go_on(app, second))["cache_n"] > 300


def flip(path: Path) -> None:
    """One bit of the body is another; size, times and inode are as they were."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(status.st_size // 2)
        byte = file.read(1)[0]
        file.seek(status.st_size // 2)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("away", [False, True])
async def test_a_flipped_bit_never_reaches_the_engine(tmp_path: Path, *, away: bool) -> None:
    """While we run or were away: evaluated anew, and the file is quarantined, with the reason."""
    async with engine(tmp_path) as fake:
        async with tried(fake, tmp_path, kv=SAVING) as app:
            turn = await conversation(app, "one")
            await saved(app)
            spoiled = the_snapshot(tmp_path)
            if not away:
                flip(spoiled)
                await fake.restart()
                await ready(app, generation=2)
                await check_the_flipped(app, fake, turn, spoiled)
        if away:
            flip(spoiled)
            await fake.restart()
            async with tried(fake, tmp_path, kv=SAVING) as app:
                await check_the_flipped(app, fake, turn, spoiled)
        found = {one.snapshot.name: one.fault for one in examine_all(tmp_path / "slots")}
        found.pop(spoiled.name, "")  # if the longer conversation has not taken its place
        assert set(found.values()) == {""}


async def check_the_flipped(app: App, fake: FakeEngine, turn: Json, spoiled: Path) -> None:
    """The request is evaluated, and the engine was never asked to read `spoiled`."""
    assert (await go_on(app, turn))["cache_n"] < COLD
    asked = [request.body for request in await fake.requests() if "action=restore" in request.target]
    assert not any(spoiled.name in body for body in asked)
    listed = {one.name: one.unused for one in station(app).keeper.snapshots()}
    assert "not what was written" in listed[spoiled.name]
    assert station(app).keeper.statistics().dropped["quarantined"] == 1
    told = (await call(app.admin_port, "GET", "/status")).json()["notes"]
    assert any("1 snapshots in" in note and "look at the disk" in note for note in told)


async def test_a_foreign_snapshot_is_not_believed(tmp_path: Path) -> None:
    """Another conversation's content in place, same size and times: the engine's own counts give it away."""
    async with engine(tmp_path) as fake, tried(fake, tmp_path, kv=SAVING) as app:
        turn, _ = await conversation(app, "one"), await conversation(app, "six")
        await saved(app, 2)
        by_age = sorted(station(app).keeper.list(), key=lambda one: one.created)
        paths = [tmp_path / "slots" / one.name for one in by_age]
        status, content = paths[0].stat(), paths[1].read_bytes()
        assert status.st_size == len(content)
        paths[0].write_bytes(content)
        os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
        await fake.restart()
        await ready(app, generation=2)
        answer = await call(app.proxy_port, "POST", CHAT, data={"messages": turn, "max_tokens": 4})
        async with FakeEngine() as other:
            cold = await other.post(CHAT, {"messages": turn, "max_tokens": 4})
        assert answer.json()["choices"] == cold.json()["choices"]
        assert "quarantined" in station(app).keeper.statistics().dropped


async def test_two_of_us_on_one_folder(tmp_path: Path) -> None:
    """The second one serves without snapshots and says who holds the folder; when the first one ends, it takes over."""
    slots = tmp_path / "slots"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with engine(tmp_path) as one, FakeEngine(slot_folder=slots, tokens_per_second=SPEED) as other:
        async with tried(one, tmp_path / "a", kv=SAVING) as first:
            turn = await conversation(first, "one")
            await saved(first)
            async with tried(other, tmp_path / "b", kv=SAVING) as second:
                await conversation(second, "two")
                await noted(second, f"in use by bioproxy, process {os.getpid()}")
                assert (await go_on(first, turn))["cache_n"] > 400
        async with tried(other, tmp_path / "b", kv=SAVING) as second:
            await conversation(second, "three")
            await saved(second, 2)


async def test_a_state_folder_that_goes_away(tmp_path: Path) -> None:
    """Pins and heads cannot be kept: requests go on, and the end is an orderly one."""
    template = tmp_path / "code.txt"
    template.write_text("the house rules <{message}>")
    async with engine(tmp_path) as fake, tried(fake, tmp_path, prefixes={"@code": str(template)}) as app:
        (tmp_path / "state").rename(tmp_path / "gone")
        assert (await good(app, "@code what?")).status == 200


async def test_a_state_folder_that_becomes_read_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Our address stays in it, and the log says so in a sentence."""
    refused = OSError(errno.EROFS, os.strerror(errno.EROFS))
    with patch.object(listening, "remove", side_effect=refused):
        async with engine(tmp_path) as fake, tried(fake, tmp_path):
            pass
    assert "listening.json" in caplog.text
    assert [record for record in caplog.records if record.exc_info] == []
