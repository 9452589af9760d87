"""Folders that several models share: one table, one lock, one budget, and each model's own view of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from bioproxy import aio
from bioproxy.config.schema import Kv
from bioproxy.events import Bus, Event
from bioproxy.kv import files
from bioproxy.kv.budget import FOLDER, Account
from bioproxy.kv.chain import chain
from bioproxy.kv.folder import LOCK, Folder, FolderError
from bioproxy.kv.index import Index
from bioproxy.kv.ledger import MOST_ENGINES, Use
from bioproxy.kv.saver import Pause, Saver
from bioproxy.kv.shelves import Shelves, Tenant
from bioproxy.kv.snapshot import Snapshot, decode, new_id, temporary_name
from bioproxy.prompt import Piece

BUILD = "b1"
SIZE = 1000
ONE, TWO = "1" * 16, "2" * 16


def made(**config: object) -> Shelves:
    return Shelves(Kv(**({"disk_budget": 100_000} | config)), bus=Bus())  # type: ignore[arg-type]


def tenant_on(shelves: Shelves, **config: object) -> Tenant:
    return Tenant(config=Kv(**config), bus=shelves.bus, shelves=shelves)  # type: ignore[arg-type]


async def opened(shelves: Shelves, folder: Path, fingerprint: str, **config: object) -> Tenant:
    """A tenant for one model, with its folder open."""
    tenant = tenant_on(shelves, **config)
    await tenant.open(folder)
    tenant.use(fingerprint, BUILD)
    return tenant


async def save(tenant: Tenant, text: str, **more: object) -> Snapshot:
    """What a save leaves: a temporary file, then the commit."""
    kept = await tenant.shelf.commit(*await written(tenant, text, **more), seconds=0.1, step=tenant.step)
    assert kept is not None
    return kept


async def written(tenant: Tenant, text: str, **more: object) -> tuple[str, Snapshot]:
    """A temporary file as the engine leaves it, and what it will be."""
    known = {"id": new_id(), "fingerprint": tenant.scope.fingerprint, "build": BUILD, "used": tenant.shelf.wall()}
    figures = {"cuts": chain("", [Piece("", text.encode())]), "tokens": 10, "prompt": 10, "size": SIZE, "seconds": 1.0}
    snapshot = Snapshot(**(known | figures | more))  # type: ignore[arg-type]
    assert tenant.shelf.folder is not None
    name = temporary_name(snapshot.id)
    (tenant.shelf.folder.path / name).write_bytes(os.urandom(snapshot.size))
    tenant.shelf.pending.add(name)
    return name, snapshot


async def test_one_folder_is_opened_once(tmp_path: Path) -> None:
    """By whatever path: the same table, and no second lock that fails against the first."""
    (tmp_path / "slots").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "slots")
    shelves = made()
    one = await opened(shelves, tmp_path / "slots", ONE)
    two = await opened(shelves, tmp_path / "link", TWO)
    assert one.shelf.index is two.shelf.index
    assert one.shelf.folder is two.shelf.folder
    await shelves.close()


async def test_a_path_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    """A ring of links is a folder that cannot be had, like any other."""
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(FolderError, match="snapshot folder"):
        await tenant_on(made()).open(tmp_path / "a")


async def test_two_folders_are_two(tmp_path: Path) -> None:
    """Each with its own table and budget; the list has all."""
    shelves = made()
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, fingerprint in zip(folders, (ONE, TWO), strict=True):
        folder.mkdir()
        await save(await opened(shelves, folder, fingerprint), "text")
    assert {one.fingerprint for one in shelves.list()} == {ONE, TWO}
    assert [(shelf.directory, shelf.snapshots, shelf.bytes) for shelf in shelves.statistics()] == [
        (str(folder), 1, SIZE) for folder in folders
    ]
    await shelves.close()


async def test_a_model_shows_its_own(tmp_path: Path) -> None:
    """In list and in what was dropped; before its engine was ever met, nothing."""
    shelves = made(disk_budget=SIZE)
    one, two = await opened(shelves, tmp_path, ONE), await opened(shelves, tmp_path, TWO)
    await save(one, "a", seconds=1.0)
    kept = await save(two, "b", seconds=9.0)
    assert (one.listed(), two.listed()) == ((), (kept,))
    assert (one.dropped, two.dropped) == ({"budget": 1}, {})
    assert tenant_on(shelves).listed() == ()
    await shelves.close()


async def test_the_folder_stays_locked_while_anyone_uses_it(tmp_path: Path) -> None:
    """The last one gives it back; whoever comes after that opens it anew."""
    shelves = made()
    one, two = await opened(shelves, tmp_path, ONE), await opened(shelves, tmp_path, TWO)
    await one.close()
    with pytest.raises(FolderError):
        Folder(tmp_path).occupy()
    await save(two, "b")
    await two.close()
    stranger = Folder(tmp_path)
    stranger.occupy()
    stranger.leave()
    again = await opened(shelves, tmp_path, TWO)
    assert len(again.listed()) == 1
    await shelves.close()


async def test_an_engine_that_moves_gives_its_folder_back(tmp_path: Path) -> None:
    """It came back with another --slot-save-path."""
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    shelves = made()
    tenant = await opened(shelves, tmp_path / "before", ONE)
    await tenant.open(tmp_path / "after")
    assert tenant.shelf.folder is not None
    assert tenant.shelf.folder.path == tmp_path / "after"
    stranger = Folder(tmp_path / "before")
    stranger.occupy()
    stranger.leave()
    await shelves.close()


async def test_the_table_is_not_read_again_while_the_folder_is_ours(tmp_path: Path) -> None:
    """A swap must not wait for a folder of thousands."""
    shelves = made()
    tenant = await opened(shelves, tmp_path, ONE)
    (tmp_path / temporary_name(new_id())).write_bytes(b"what a second reading would remove")
    await tenant.open(tmp_path)
    assert tenant.shelf.tenure == 1
    assert len(list(tmp_path.glob("bp-tmp-*"))) == 1
    await shelves.close()


async def test_what_saves_left_over_goes_in_time(tmp_path: Path) -> None:
    """A save that was given up may be written to for a while yet; one that is pending never goes."""
    shelves = made()
    tenant = await opened(shelves, tmp_path, ONE)
    old, fresh, pending = (temporary_name(new_id()) for _ in range(3))
    for name in (old, fresh, pending):
        (tmp_path / name).write_bytes(b"half")
    for name in (old, pending):
        os.utime(tmp_path / name, (time.time() - 3600,) * 2)
    tenant.shelf.pending.add(pending)
    await tenant.shelf.look_after()
    assert {path.name for path in tmp_path.glob("bp-tmp-*")} == {fresh, pending}
    await shelves.close()


async def test_the_budget_is_for_all_models_together(tmp_path: Path) -> None:
    """Rule 18: the least valuable goes, whoever's it is."""
    shelves = made(disk_budget=2 * SIZE)
    one, two = await opened(shelves, tmp_path, ONE), await opened(shelves, tmp_path, TWO)
    poor, rich = await save(one, "a", seconds=0.1), await save(one, "b", seconds=9.0)
    theirs = await save(two, "c", seconds=5.0)
    assert {found.id for found in shelves.list()} == {rich.id, theirs.id}
    assert two.shelf.crowded(poor) == FOLDER
    assert one.shelf.index.size <= 2 * SIZE
    await shelves.close()


async def test_templates_of_a_model_that_is_stopped_are_needed(tmp_path: Path) -> None:
    """Rule 18: never the only snapshot of a template in use; what another engine runs meanwhile is no matter."""
    shelves = made(disk_budget=2 * SIZE)
    one, two = await opened(shelves, tmp_path, ONE), await opened(shelves, tmp_path, TWO)
    one.versions = lambda: {"@code": "2"}
    one.use(ONE, BUILD)
    template = await save(one, "a", template=True, prefix="@code", version="2", seconds=0.1)
    one.use("", BUILD)
    two.versions = lambda: {"@code": "7"}
    two.use(TWO, BUILD)
    theirs = await save(two, "b", template=True, prefix="@code", version="7", seconds=0.1)
    await save(two, "c", seconds=99.0)
    assert {found.id for found in shelves.list()} == {template.id, theirs.id}
    await shelves.close()


async def test_an_old_version_of_a_template_is_not_needed(tmp_path: Path) -> None:
    """The one in use is, also if it became so while its engine was stopped."""
    shelves = made(disk_budget=2 * SIZE)
    tenant = await opened(shelves, tmp_path, ONE)
    now = {"@code": "1"}
    tenant.versions = lambda: now
    tenant.use(ONE, BUILD)
    await save(tenant, "a", template=True, prefix="@code", version="1", seconds=9.0)
    present = await save(tenant, "b", template=True, prefix="@code", version="2", seconds=0.1)
    now["@code"] = "2"
    talk = await save(tenant, "c", seconds=99.0)
    assert {found.id for found in shelves.list()} == {present.id, talk.id}
    await shelves.close()


async def test_a_model_with_a_budget_of_its_own_takes_no_more(tmp_path: Path) -> None:
    """The lower one counts for it, and its own least valuable snapshots go; others are not touched."""
    shelves = made(disk_budget=10 * SIZE)
    one = await opened(shelves, tmp_path, ONE, disk_budget=2 * SIZE)
    two = await opened(shelves, tmp_path, TWO)
    theirs = await save(two, "x", seconds=0.001)
    poor = await save(one, "a", seconds=0.1)
    rich = [await save(one, text, seconds=9.0) for text in "bc"]
    assert {found.id for found in one.listed()} == {found.id for found in rich}
    assert two.listed() == (theirs,)
    assert one.shelf.crowded(poor) == Account("fingerprint", ONE)
    assert (one.budget, two.budget) == (2 * SIZE, 10 * SIZE)
    await shelves.close()


async def test_a_budget_above_the_folders_means_nothing(tmp_path: Path) -> None:
    """What the folder may hold is said in one place."""
    shelves = made(disk_budget=SIZE)
    tenant = await opened(shelves, tmp_path, ONE, disk_budget=9 * SIZE)
    for text in "ab":
        await save(tenant, text)
    assert (len(tenant.listed()), tenant.budget) == (1, SIZE)
    await shelves.close()


async def test_what_was_learnt_outlives_the_folder(tmp_path: Path) -> None:
    """Somebody removed it and made it anew: the speeds go on, and are written into the new one."""
    folder = tmp_path / "slots"
    folder.mkdir()
    shelves = made()
    tenant = await opened(shelves, folder, ONE)
    tenant.knowledge.learn(token_bytes=77.0)
    shutil.rmtree(folder)
    folder.mkdir()
    await tenant.open(folder)
    tenant.use(ONE, BUILD)
    assert tenant.knowledge.speeds.token_bytes == 77.0
    await shelves.close()
    again = await opened(made(), folder, ONE)
    assert again.knowledge.speeds.token_bytes == 77.0
    await again.close()


async def test_models_of_one_fingerprint_share_what_is_learnt(tmp_path: Path) -> None:
    """Two names for the same engine."""
    shelves = made()
    one, two = await opened(shelves, tmp_path, ONE), await opened(shelves, tmp_path, ONE)
    assert one.knowledge is two.knowledge
    await shelves.close()


async def test_without_shelves_a_store_shows_the_whole_folder(tmp_path: Path) -> None:
    """It is alone there: what another model left is worth knowing about."""
    events: list[Event] = []
    bus = Bus()
    bus.subscribe(Event, events.append)
    tenant = Tenant(config=Kv(disk_budget=100_000), bus=bus)
    await tenant.open(tmp_path)
    tenant.use(ONE, BUILD)
    kept = await save(tenant, "a")
    tenant.use(TWO, BUILD)
    assert tenant.listed() == (kept,)
    await tenant.close()
    assert not Folder(tmp_path).holds()
    assert (tmp_path / LOCK).exists()


# threads and locks


class OnTheLoop(Index):
    """A table that may be touched on the loop's thread only."""

    def __init__(self, plain: Index) -> None:
        self.thread = threading.get_ident()
        self.table, self.owners = plain.snapshots, plain.tables
        self.size, self.changes = plain.size, plain.changes

    def seen(self, what: Any) -> Any:
        assert threading.get_ident() == self.thread, "the table is touched in a thread"
        return what

    snapshots = property(lambda self: self.seen(self.table))
    tables = property(lambda self: self.seen(self.owners))


async def test_the_table_is_touched_on_the_loops_thread_only(tmp_path: Path) -> None:
    """Whether it may be saved, commits, evictions, quarantines, housekeeping: threads get values."""
    shelves = made(disk_budget=2 * SIZE)
    tenant = await opened(shelves, tmp_path, ONE, disk_budget=2 * SIZE)
    first = await save(tenant, "a")
    tenant.shelf.index = OnTheLoop(tenant.shelf.index)
    saver = Saver(cast("Any", None), tenant, Pause(tenant))
    assert await saver.check(first) is None
    second = await save(tenant, "b", seconds=5.0)
    await save(tenant, "c", seconds=9.0)
    await tenant.shelf.prove(second)
    await tenant.shelf.quarantine(second, "worthless")
    await tenant.shelf.look_after()
    await saver.try_again()
    await tenant.shelf.drop([second], "changed")
    await shelves.close()


class Slow:
    """A disk that stands still at one step of a commit until it is told to go on."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.reached = threading.Event()
        self.released = threading.Event()

    def __call__(self, step: str) -> None:
        if step == self.step:
            self.reached.set()
            self.released.wait(10)


@pytest.mark.parametrize("step", ["private", "read", "described"])
async def test_nobody_waits_for_anothers_disk(tmp_path: Path, step: str) -> None:
    """While one model's gigabytes are brought to the disk, another's restore fails, is noted, proved, or evicts."""
    shelves = made()
    one, two = await opened(shelves, tmp_path, ONE), await opened(shelves, tmp_path, TWO)
    bad, good, gone = [await save(two, text) for text in "abc"]
    one.step = slow = Slow(step)
    work = aio.spawn(save(one, "large"), name="commit")
    await asyncio.to_thread(slow.reached.wait, 10)
    await two.shelf.quarantine(bad, "the engine died of it")
    await two.shelf.prove(good)
    await two.shelf.drop([gone], "missing")
    await two.open(tmp_path)
    assert not work.done()
    assert decode((tmp_path / bad.sidecar).read_bytes()).quarantined == "the engine died of it"
    slow.released.set()
    kept = await work
    assert {found.id for found in shelves.list()} == {bad.id, good.id, kept.id}
    await shelves.close()


async def test_a_folder_is_given_back_although_its_disk_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every wait of a stop has a bound; what the disk was doing is no snapshot of this run."""
    monkeypatch.setattr("bioproxy.kv.shelf.LAST_WORDS", 0.0)
    tenant = await opened(made(), tmp_path, ONE)
    tenant.step = slow = Slow("private")
    work = aio.spawn(tenant.shelf.commit(*await written(tenant, "a"), seconds=0.1, step=tenant.step), name="commit")
    await asyncio.to_thread(slow.reached.wait, 10)
    await tenant.close()
    assert not work.done()
    assert "did not answer within" in caplog.text
    stranger = Folder(tmp_path)
    stranger.occupy()
    stranger.leave()
    slow.released.set()
    assert await work is None


async def test_a_budget_may_come_while_another_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with a budget of its own is met while a file is being removed for another one."""
    shelves = made()
    one = await opened(shelves, tmp_path, ONE, disk_budget=SIZE)
    loop, remove = asyncio.get_running_loop(), files.remove

    async def meet() -> None:
        await opened(shelves, tmp_path, TWO, disk_budget=SIZE)

    def slow(folder: Path, snapshot: Snapshot) -> None:
        asyncio.run_coroutine_threadsafe(meet(), loop).result(10)
        remove(folder, snapshot)

    monkeypatch.setattr(files, "remove", slow)
    await save(one, "a", seconds=0.1)
    kept = await save(one, "b", seconds=9.0)
    assert one.listed() == (kept,)
    assert set(one.shelf.bounds) == {ONE, TWO}
    await shelves.close()


async def test_the_ledger_forgets_what_is_gone(tmp_path: Path) -> None:
    """Uses of snapshots that were removed, and engines after which many others were used."""
    tenant = await opened(made(), tmp_path, ONE)
    kept = await save(tenant, "a")
    ledger = tenant.shelf.ledger
    ledger.uses = {kept.id: Use(1.0, 1), "gone": Use(2.0, 2)}
    for number in range(MOST_ENGINES + 5):
        ledger.of(f"{number:016x}", BUILD)
    tenant.use(ONE, BUILD)
    await tenant.close()
    again = await opened(made(), tmp_path, ONE)
    assert set(again.shelf.ledger.uses) == {kept.id}
    assert len(again.shelf.ledger.engines) == MOST_ENGINES
    assert ONE in again.shelf.ledger.engines
    await again.close()
