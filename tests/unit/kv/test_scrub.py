"""Old snapshots are read again while nobody asks, and what is damaged is set aside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bioproxy.events import SnapshotDropped
from bioproxy.kv import scrub
from bioproxy.kv.folder import Folder
from bioproxy.kv.shelf import Shelf
from bioproxy.kv.snapshot import Snapshot
from support.shelf_bench import SIZE, Bench

DAY = 86400.0


async def filled(bench: Bench, folder: Path, *names: str) -> list[Snapshot]:
    """Snapshots, the first the oldest, all of them older than a week."""
    tenant = await bench.open(folder)
    now = tenant.shelf.wall()
    made = [await bench.save(name, created=now - 30 * DAY + at) for at, name in enumerate(names)]
    return [one for one in made if one is not None]


async def reread(shelf: Shelf, *, idle: bool = True) -> Snapshot | None:
    return await scrub.reread_oldest(shelf, go_on=lambda: idle)


def flip(path: Path) -> None:
    """Other bytes, and a file that looks as if nobody had touched it."""
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=times)


async def test_what_is_damaged_is_set_aside_and_told(tmp_path: Path) -> None:
    """The file that was not read for the longest time comes first; a good one is not read again for a week."""
    bench = Bench()
    first, second = await filled(bench, tmp_path, "a", "b")
    shelf = bench.tenant.shelf
    flip(tmp_path / second.name)
    assert await reread(shelf) is None
    assert await reread(shelf) == second
    assert await reread(shelf) is None
    assert "is not what was written" in shelf.index.snapshots[second.id].quarantined
    assert shelf.index.snapshots[first.id].quarantined == ""
    assert [one.reason for one in bench.events if isinstance(one, SnapshotDropped)] == ["quarantined"]
    assert shelf.ledger.read == 2 * SIZE
    await bench.tenant.close()
    assert first.id in Folder(tmp_path).load().ledger.verified


async def test_a_days_bytes_are_not_passed(tmp_path: Path) -> None:
    """The rest waits for tomorrow; 0 switches it off, and a file that is larger than a day's bytes is read alone."""
    bench = Bench(verify_budget=SIZE + 1)
    await filled(bench, tmp_path, "a", "b")
    shelf = bench.tenant.shelf
    assert scrub.oldest(shelf) is not None
    await reread(shelf)
    assert scrub.oldest(shelf) is None
    now = shelf.wall()
    shelf.wall = lambda: now + DAY
    assert scrub.oldest(shelf) is not None
    shelf.config = Bench(verify_budget=1).tenant.config
    assert scrub.oldest(shelf) is not None
    shelf.config = Bench(verify_budget=0).tenant.config
    assert scrub.oldest(shelf) is None
    await bench.tenant.close()


async def test_a_request_is_given_way(tmp_path: Path) -> None:
    """Nothing is known of a file that was not read to its end, so nothing happens to it."""
    bench = Bench()
    [only] = await filled(bench, tmp_path, "a")
    flip(tmp_path / only.name)
    assert await reread(bench.tenant.shelf, idle=False) is None
    assert bench.tenant.shelf.index.snapshots[only.id].quarantined == ""
    assert await reread(bench.tenant.shelf) == only
    await bench.tenant.close()


async def test_a_disk_that_cannot_read_it_costs_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sector that is gone is not tried again at every look."""
    bench = Bench()
    [only] = await filled(bench, tmp_path, "a")

    def broken(*_: object, **__: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("bioproxy.kv.files.checksum_of", broken)
    assert await reread(bench.tenant.shelf) == only
    assert bench.tenant.shelf.index.snapshots == {}
    await bench.tenant.close()


async def test_what_is_in_use_is_not_old(tmp_path: Path) -> None:
    """A restore reads all of it, too."""
    bench = Bench()
    [only] = await filled(bench, tmp_path, "a")
    await bench.tenant.shelf.prove(only)
    assert scrub.oldest(bench.tenant.shelf) is None
    await bench.tenant.close()
