"""The snapshot folder: one owner, rebuilt from what stands beside each file, nothing left over."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bioproxy.kv import files
from bioproxy.kv.chain import chain
from bioproxy.kv.folder import COPIES, LEDGER, LOCK, Folder, FolderError, examine_all
from bioproxy.kv.ledger import Ledger, Use, read_ledger
from bioproxy.kv.policy import Knowledge, Trial
from bioproxy.kv.snapshot import Snapshot, new_id, temporary_name
from bioproxy.prompt import Piece
from support.leaks import full_disk


def committed(folder: Path, text: bytes = b"x", *, size: int = 1000) -> Snapshot:
    snapshot = Snapshot(
        id=new_id(),
        fingerprint="f" * 16,
        build="b",
        cuts=chain("", [Piece("", text)]),
        tokens=3,
        prompt=3,
        size=size,
        used=5.0,
    )
    folder.mkdir(exist_ok=True)
    (folder / temporary_name(snapshot.id)).write_bytes(os.urandom(size))
    return files.commit(folder, temporary_name(snapshot.id), snapshot)


def test_the_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    """Two processes never share a folder; the first one's number is in the sentence."""
    program = (
        "import sys, pathlib\n"
        "from bioproxy.kv.folder import Folder\n"
        "Folder(pathlib.Path(sys.argv[1])).occupy()\n"
        "print('mine', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"mine"
        second = Folder(tmp_path)
        with pytest.raises(FolderError, match=f"in use by bioproxy, process {holder.pid} on"):
            second.occupy()
        holder.kill()
    second.occupy()
    second.leave()


def test_a_lock_is_given_back(tmp_path: Path) -> None:
    """After `leave` another owner may come; leaving twice does nothing."""
    one, other = Folder(tmp_path), Folder(tmp_path)
    one.occupy()
    one.occupy()
    with pytest.raises(FolderError):
        other.occupy()
    one.leave()
    one.leave()
    other.occupy()
    other.leave()


def test_a_folder_that_was_replaced_is_not_ours_any_more(tmp_path: Path) -> None:
    """Somebody removed the folder and made a new one: the lock on the old one means nothing."""
    path = tmp_path / "slots"
    path.mkdir()
    folder = Folder(path)
    folder.occupy()
    assert folder.holds()
    shutil.rmtree(path)
    assert not folder.holds()
    with pytest.raises(FolderError, match="cannot write"):
        folder.occupy()
    path.mkdir()
    folder.occupy()
    assert folder.holds()
    folder.leave()


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A typing error must not end in a folder that the engine never looks into."""
    with pytest.raises(FolderError, match="No such file"):
        Folder(tmp_path / "missing").occupy()
    with pytest.raises(FolderError, match="is gone"):
        Folder(tmp_path / "missing").free()


def test_a_probe_leaves_nothing(tmp_path: Path) -> None:
    """Write, rename, look, remove."""
    Folder(tmp_path).probe()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FolderError, match="cannot write"):
        Folder(tmp_path / "missing").probe()


def test_two_may_probe_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As models do that start together: neither takes the other's file away."""
    look = files.look

    def meanwhile(path: Path) -> object:
        monkeypatch.setattr(files, "look", look)
        Folder(tmp_path).probe()
        return look(path)

    monkeypatch.setattr(files, "look", meanwhile)
    Folder(tmp_path).probe()
    assert list(tmp_path.iterdir()) == []


def test_a_start_takes_what_is_whole_and_removes_the_rest(tmp_path: Path) -> None:
    """Leftovers of a kill at any point: temporary files, files without sidecar, sidecars without file."""
    whole = committed(tmp_path)
    no_sidecar, no_file, cut = committed(tmp_path), committed(tmp_path), committed(tmp_path)
    (tmp_path / no_sidecar.sidecar).unlink()
    (tmp_path / no_file.name).unlink()
    os.truncate(tmp_path / cut.name, 999)
    (tmp_path / "bp-tmp-1234.kv").write_bytes(b"half")
    (tmp_path / "users-own.bin").write_bytes(b"not ours")
    found = Folder(tmp_path).load()
    assert [one.id for one in found.snapshots] == [whole.id]
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([whole.name, whole.sidecar, "users-own.bin"])
    assert len(found.removed) == 4


def test_a_save_under_way_is_left_alone(tmp_path: Path) -> None:
    """An engine that comes back while an earlier save is being committed costs nothing."""
    (tmp_path / "bp-tmp-1234.kv").write_bytes(b"being written")
    Folder(tmp_path).load(frozenset(["bp-tmp-1234.kv"]))
    assert (tmp_path / "bp-tmp-1234.kv").exists()


@pytest.mark.parametrize("spoilt", [b"", b"{", b"[]", b'{"version":1}', b'{"version":1,"snapshot":{}}', b"\xff\xfe"])
def test_a_spoilt_sidecar_costs_its_snapshot_only(tmp_path: Path, spoilt: bytes) -> None:
    """Never fatal: the file it described is removed, the others stay."""
    whole, bad = committed(tmp_path), committed(tmp_path)
    (tmp_path / bad.sidecar).write_bytes(spoilt)
    assert [one.id for one in Folder(tmp_path).load().snapshots] == [whole.id]
    assert not (tmp_path / bad.name).exists()


def test_a_sidecar_speaks_for_its_own_file_only(tmp_path: Path) -> None:
    """A sidecar that was copied beside another file proves nothing."""
    one, other = committed(tmp_path), committed(tmp_path)
    shutil.copy(tmp_path / one.sidecar, tmp_path / other.sidecar)
    assert [found.id for found in Folder(tmp_path).load().snapshots] == [one.id]


@pytest.mark.parametrize("spoilt", [b"", b"{", b'{"version": 0}', b"\x00\x01", b'{"uses": 3}'])
def test_a_spoilt_ledger_is_replaced(tmp_path: Path, spoilt: bytes) -> None:
    """The index is rebuilt from the sidecars, whatever became of its own file."""
    whole = committed(tmp_path)
    (tmp_path / LEDGER).write_bytes(spoilt)
    found = Folder(tmp_path).load()
    assert found.ledger == Ledger()
    assert [one.used for one in found.snapshots] == [whole.used]


@pytest.mark.skipif(sys.platform == "win32", reason="it has no FIFOs")
def test_a_fifo_in_place_of_a_file_of_ours_is_a_spoilt_one(tmp_path: Path) -> None:
    """Nobody waits for a writer, neither at a start nor in a list."""
    good, other = committed(tmp_path), committed(tmp_path, b"y")
    (tmp_path / other.sidecar).unlink()
    os.mkfifo(tmp_path / other.sidecar)
    os.mkfifo(tmp_path / LEDGER)
    folder = Folder(tmp_path)
    assert [one.id for one in folder.peek()] == [good.id]
    found = folder.load()
    assert [one.id for one in found.snapshots] == [good.id]
    assert found.ledger == Ledger()


def test_the_ledger_remembers_uses(tmp_path: Path) -> None:
    """Last use, count and seconds gained outlive a restart; so does what was learnt."""
    whole = committed(tmp_path)
    ledger = Ledger(
        uses={whole.id: Use(77.0, 3, 12.5)}, engines={"f" * 16: Knowledge(build="b", trials={"extends": Trial(2)})}
    )
    folder = Folder(tmp_path)
    folder.write_ledger(msgspec.json.encode(ledger))
    found = folder.load()
    used = [found.ledger.used(one) for one in found.snapshots]
    assert [(one.used, one.uses, one.gained) for one in used] == [(77.0, 3, 12.5)]
    assert found.ledger == ledger
    assert read_ledger((tmp_path / LEDGER).read_bytes()).engines["f" * 16].trials["extends"].good == 2


def test_a_copied_folder_keeps_its_snapshots(tmp_path: Path) -> None:
    """Other inodes, same times and content: `rsync -a` to a new disk loses nothing."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    kept = committed(one)
    shutil.copytree(one, two)
    found = Folder(two).load()
    assert [snapshot.id for snapshot in found.snapshots] == [kept.id]
    files.unchanged(two, found.snapshots[0])


def test_a_copy_with_other_content_is_removed(tmp_path: Path) -> None:
    """Another inode and other bytes under the same size and time: somebody else's file."""
    kept = committed(tmp_path)
    path = tmp_path / kept.name
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    other = tmp_path / "other"
    other.write_bytes(bytes(1000))
    other.replace(path)
    os.utime(path, ns=times)
    assert Folder(tmp_path).load().snapshots == []


def test_verifying_reads_every_byte_and_listing_does_not(tmp_path: Path) -> None:
    """`bioproxy snapshots verify` finds what lies between the samples; a list must not wait for gigabytes."""
    kept = committed(tmp_path, size=3 << 20)
    path = tmp_path / kept.name
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    with path.open("r+b") as file:
        file.seek(80_000)  # between the first two samples
        file.write(b"other bytes")
    os.utime(path, ns=times)
    assert [one.fault for one in examine_all(tmp_path, whole=False)] == [""]
    [found] = examine_all(tmp_path)
    assert "not what was written" in found.fault


def test_a_full_disk_takes_nothing_away(tmp_path: Path) -> None:
    """The folder is ours and all in it is known, also where it was copied and its descriptions cannot be renewed."""
    kept = committed(tmp_path / "here")
    (tmp_path / "copy").mkdir()
    for name in (kept.name, kept.sidecar):
        shutil.copy2(tmp_path / "here" / name, tmp_path / "copy" / name)
    folder = Folder(tmp_path / "copy")
    with full_disk():
        folder.occupy()
        assert [one.id for one in folder.load().snapshots] == [kept.id]
        with pytest.raises(FolderError, match="cannot write to the snapshot folder"):
            folder.probe()
    assert folder.holds()
    folder.probe()
    assert [one.id for one in folder.load().snapshots] == [kept.id]
    folder.leave()


def test_looking_from_outside_changes_nothing(tmp_path: Path) -> None:
    """`bioproxy snapshots` beside a running bioproxy: no lock, no removal, faults in words."""
    whole, cut = committed(tmp_path), committed(tmp_path)
    os.truncate(tmp_path / cut.name, 10)
    owner = Folder(tmp_path)
    owner.occupy()
    before = sorted(one.name for one in tmp_path.iterdir())
    faults = {one.snapshot.id: one.fault for one in examine_all(tmp_path)}
    assert faults[whole.id] == ""
    assert "10 bytes" in faults[cut.id]
    assert sorted(one.name for one in tmp_path.iterdir()) == before
    assert LOCK in before
    owner.leave()


def test_what_a_newer_bioproxy_wrote_is_left_alone(tmp_path: Path) -> None:
    """After a downgrade the folder is refused in words, and all of it is there for the next upgrade."""
    one = committed(tmp_path)
    (tmp_path / one.name).write_bytes(b"cut")
    (tmp_path / "bp-tmp-1234.kv").write_bytes(b"half")
    (tmp_path / LEDGER).write_bytes(b'{"version":2,"another":"form"}')
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(FolderError, match=r"a newer bioproxy wrote it \(version 2; this one reads up to 1\); upgrade"):
        Folder(tmp_path).load()
    with pytest.raises(FolderError, match="a newer bioproxy"):
        examine_all(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_newer_bioproxys_description_is_passed_over(tmp_path: Path) -> None:
    """It is neither used nor removed; or a flipped bit, for which the other snapshots must not be given up."""
    one, newer = committed(tmp_path), committed(tmp_path)
    (tmp_path / newer.sidecar).write_bytes(b'{"version":2,"another":"form"}')
    found = Folder(tmp_path).load()
    assert ([one.id for one in found.snapshots], found.newer, found.removed) == ([one.id], 1, [])
    assert [found.snapshot.id for found in examine_all(tmp_path)] == [one.id]
    assert (tmp_path / newer.name).exists()


def test_what_the_first_bioproxy_wrote_is_taken_over(tmp_path: Path) -> None:
    """A description and a ledger that lack all that came later: a folder is used by every later version."""
    name = f"bp-{'f' * 16}-{'0' * 16}"
    file = tmp_path / f"{name}.kv"
    file.write_bytes(b"cells")
    look = file.stat()
    described = {
        "id": "0" * 16,
        "fingerprint": "f" * 16,
        "build": "b",
        "cuts": [{"digest": "AAAAAAAAAAAAAAAAAAAAAA==", "offset": 1}],
        "tokens": 3,
        "prompt": 3,
        "size": look.st_size,
        "mtime_ns": look.st_mtime_ns,
        "inode": look.st_ino,
    }
    (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode({"version": 1, "snapshot": described}))
    used = {"version": 1, "engines": {}, "uses": {"0" * 16: {"used": 7.0, "uses": 2, "gained": 1.0}}}
    (tmp_path / LEDGER).write_bytes(msgspec.json.encode(used))
    found = Folder(tmp_path).load()
    assert [(one.id, one.checksum, one.group) for one in found.snapshots] == [("0" * 16, None, "")]
    assert found.ledger.uses["0" * 16].uses == 2


def test_a_start_reads_one_file_instead_of_many(tmp_path: Path) -> None:
    """What has a copy and looks as it did is not opened; what changed since, or has none, is."""
    kept = [committed(tmp_path) for _ in range(3)]
    folder = Folder(tmp_path)
    folder.write_copies(kept, folder.sidecars())
    found = folder.load()
    assert (sorted(one.id for one in found.snapshots), found.read) == (sorted(one.id for one in kept), 0)
    folder.describe(msgspec.structs.replace(kept[0], quarantined="it killed the engine"))
    os.truncate(tmp_path / kept[1].name, 10)
    committed(tmp_path)
    found = folder.load()
    assert (len(found.snapshots), found.read) == (3, 3)
    assert [one.quarantined for one in found.snapshots if one.id == kept[0].id] == ["it killed the engine"]


@pytest.mark.parametrize("spoilt", ["empty", "flipped", "older"])
def test_spoilt_copies_are_not_used(tmp_path: Path, spoilt: str) -> None:
    """A flipped bit in there would give a conversation to another group."""
    kept = committed(tmp_path)
    folder = Folder(tmp_path)
    folder.write_copies([msgspec.structs.replace(kept, group="mallory")], folder.sidecars())
    data = bytearray((tmp_path / COPIES).read_bytes())
    if spoilt == "flipped":
        data[data.index(b"mallory")] ^= 1
    elif spoilt == "older":
        data[data.index(b"version") + 7] = 0
    (tmp_path / COPIES).write_bytes(b"" if spoilt == "empty" else data)
    found = folder.load()
    assert ([one.group for one in found.snapshots], found.read) == ([""], 1)
