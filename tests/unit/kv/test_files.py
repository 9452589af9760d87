"""Slot files: verified when written, verified before use, private."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import crc32c
import msgspec
import pytest

from bioproxy.kv import files
from bioproxy.kv.chain import chain
from bioproxy.kv.snapshot import Newer, Snapshot, decode, encode, new_id, temporary_name
from bioproxy.prompt import Piece

DATA = os.urandom(300_000)


def written(folder: Path, *, data: bytes = DATA, claimed: int | None = None) -> tuple[str, Snapshot]:
    """A temporary file as the engine leaves it, and what it is said to be."""
    snapshot = Snapshot(
        id=new_id(),
        fingerprint="f" * 16,
        build="b1",
        cuts=chain("", [Piece("", b"hello")]),
        tokens=5,
        prompt=5,
        size=len(data) if claimed is None else claimed,
    )
    name = temporary_name(snapshot.id)
    (folder / name).write_bytes(data)
    return name, snapshot


def test_a_commit_goes_through_every_step_in_order(tmp_path: Path) -> None:
    """The file has its final name, the sidecar describes it, and no temporary file is left."""
    name, snapshot = written(tmp_path)
    steps: list[str] = []
    kept = files.commit(tmp_path, name, snapshot, step=steps.append)
    assert tuple(steps) == files.STEPS
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kept.name, kept.sidecar])
    assert (tmp_path / kept.name).read_bytes() == DATA
    assert decode((tmp_path / kept.sidecar).read_bytes()) == kept


def test_a_file_that_is_shorter_than_the_engine_says_is_refused(tmp_path: Path) -> None:
    """Rule 1: a nearly full disk answers 200 for a cut file; nothing of it stays."""
    name, snapshot = written(tmp_path, claimed=len(DATA) + 4096)
    with pytest.raises(files.Unverified, match="300000 bytes, 304096 were written"):
        files.commit(tmp_path, name, snapshot)
    assert list(tmp_path.iterdir()) == []


def test_a_fault_at_any_step_leaves_nothing(tmp_path: Path) -> None:
    """A disk that refuses in the middle leaves neither half a snapshot nor a temporary file."""
    for failing in files.STEPS:
        name, snapshot = written(tmp_path)

        def step(done: str, failing: str = failing) -> None:
            if done == failing:
                raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            files.commit(tmp_path, name, snapshot, step=step)
        assert list(tmp_path.iterdir()) == [], failing


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_what_is_ours_is_readable_by_us_alone(tmp_path: Path) -> None:
    """Rule 11: slot file and sidecar are 0600 whatever mode the engine gave."""
    name, snapshot = written(tmp_path)
    (tmp_path / name).chmod(0o644)
    kept = files.commit(tmp_path, name, snapshot)
    modes = {stat.S_IMODE((tmp_path / one).stat().st_mode) for one in (kept.name, kept.sidecar)}
    assert modes == {0o600}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_another_users_file_keeps_its_mode(tmp_path: Path) -> None:
    """Rule 11: an engine that runs as another user must be able to read its file again."""
    name, snapshot = written(tmp_path)
    os.chown(tmp_path / name, 12345, 12345)
    (tmp_path / name).chmod(0o640)
    kept = files.commit(tmp_path, name, snapshot)
    assert stat.S_IMODE((tmp_path / kept.name).stat().st_mode) == 0o640


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_a_folder_of_our_own_becomes_private_and_no_other(tmp_path: Path) -> None:
    """Rule 11: 0700 where only snapshots live; a folder that holds anything else is left alone."""
    ours, shared = tmp_path / "ours", tmp_path / "shared"
    for folder in (ours, shared):
        folder.mkdir(mode=0o755)
        (folder / "bp-tmp-x.kv").write_bytes(b"")
    (shared / "holiday.jpg").write_bytes(b"")
    for folder in (ours, shared):
        files.make_folder_private(folder, folder / "bp-tmp-x.kv")
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (ours, shared)] == [0o700, 0o755]


def test_an_untouched_file_passes(tmp_path: Path) -> None:
    """The check before a restore costs one stat and says nothing about a good file."""
    name, snapshot = written(tmp_path)
    kept = files.commit(tmp_path, name, snapshot)
    files.unchanged(tmp_path, kept)
    files.sampled(tmp_path, kept)


def test_a_touched_file_does_not_pass(tmp_path: Path) -> None:
    """Rule 1: truncated, rewritten in place, replaced, gone, or no file at all: each is noticed before a restore."""

    def spoil(how: str, path: Path) -> None:
        if how == "truncated":
            os.truncate(path, len(DATA) - 1)
        elif how == "rewritten":
            path.write_bytes(bytes(len(DATA)))
        elif how == "replaced":
            copy = path.with_suffix(".copy")
            copy.write_bytes(DATA)
            os.utime(copy, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
            copy.replace(path)
        else:
            path.unlink()
            if how == "folder":
                path.mkdir()

    for how in ("truncated", "rewritten", "replaced", "gone", "folder"):
        name, snapshot = written(tmp_path)
        kept = files.commit(tmp_path, name, snapshot)
        spoil(how, tmp_path / kept.name)
        with pytest.raises(files.Unverified):
            files.unchanged(tmp_path, kept)


def test_samples_see_what_a_stamp_cannot(tmp_path: Path) -> None:
    """`snapshots verify`: bytes that changed under the same size and time."""
    name, snapshot = written(tmp_path)
    kept = files.commit(tmp_path, name, snapshot)
    path = tmp_path / kept.name
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    with path.open("r+b") as file:
        file.write(b"other bytes at the beginning")
    os.utime(path, ns=times)
    files.unchanged(tmp_path, kept)
    with pytest.raises(files.Unverified, match="not what was written"):
        files.sampled(tmp_path, kept)


LARGE = os.urandom(3 << 20)
UNSAMPLED = 80_000  # between the first two samples of a file of that size


def flip(path: Path, *, at: int) -> None:
    """Change one bit of a file and nothing that a stat could tell, but for the time of the change."""
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=times)


@pytest.mark.parametrize("at", [0, UNSAMPLED, len(LARGE) // 2, len(LARGE) - 1])
def test_one_flipped_bit_is_noticed(tmp_path: Path, at: int) -> None:
    """Rule 1: wherever it is, under the same size, times and inode."""
    name, snapshot = written(tmp_path, data=LARGE)
    kept = files.commit(tmp_path, name, snapshot)
    assert kept.checksum == crc32c.crc32c(LARGE)
    assert files.proved(tmp_path, kept)[0] == kept
    flip(tmp_path / kept.name, at=at)
    files.unchanged(tmp_path, kept)
    with pytest.raises(files.Damaged, match="not what was written"):
        files.proved(tmp_path, kept)


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 5003, 12345])
def test_a_checksum_in_parts_is_that_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """However many parts are read at a time."""
    monkeypatch.setattr(files, "PART", 1000)
    path = tmp_path / "x"
    path.write_bytes(LARGE[:size])
    for readers in (1, 2, 4):
        monkeypatch.setattr(files, "READERS", readers)
        assert files.checksum(path) == crc32c.crc32c(LARGE[:size])


def test_a_file_that_is_written_to_while_it_is_read_is_no_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checksum would be of neither the one content nor the other."""
    name, snapshot = written(tmp_path)
    read = files.checksum

    def slow(path: Path) -> int:
        found = read(path)
        with path.open("r+b") as file:
            file.write(b"late")
        os.utime(path, (1, 1))
        return found

    monkeypatch.setattr(files, "checksum", slow)
    with pytest.raises(files.Unverified, match="while it was read"):
        files.commit(tmp_path, name, snapshot)
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_of_an_older_version_gets_a_checksum(tmp_path: Path) -> None:
    """Its samples must be right; from then on every byte counts."""
    name, snapshot = written(tmp_path, data=LARGE)
    kept = files.commit(tmp_path, name, snapshot)
    old = msgspec.structs.replace(kept, checksum=None)
    assert files.proved(tmp_path, old)[0] == kept
    flip(tmp_path / kept.name, at=5)
    with pytest.raises(files.Damaged):
        files.proved(tmp_path, old)


def test_names_are_what_the_engine_accepts() -> None:
    """[A-Za-z0-9._-] only, and nothing of the prompt in it."""
    snapshot = Snapshot(
        id=new_id(), fingerprint="0" * 16, build="", cuts=chain("", [Piece("", b"x")]), tokens=1, prompt=1, size=1
    )
    for name in (snapshot.name, snapshot.sidecar, temporary_name(snapshot.id)):
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
        assert name.startswith("bp-")


def test_another_versions_sidecar_is_not_read() -> None:
    """What a later bioproxy wrote may mean something else."""
    snapshot = Snapshot(
        id=new_id(), fingerprint="0" * 16, build="", cuts=chain("", [Piece("", b"x")]), tokens=1, prompt=1, size=1
    )
    data = encode(snapshot)
    assert decode(data) == snapshot
    with pytest.raises(Newer, match="version 9"):
        decode(data.replace(b'"version":1', b'"version":9', 1))
    with pytest.raises(msgspec.MsgspecError):
        decode(data[:-5])
    with pytest.raises(ValueError, match="no prompt"):
        decode(encode(msgspec.structs.replace(snapshot, cuts=())))
    assert decode(b'{"version":1,"snapshot":' + msgspec.json.encode(snapshot) + b"}") == snapshot  # an older version's


def test_no_flipped_bit_of_a_sidecar_passes_for_its_snapshot() -> None:
    """It would give a conversation to another group, or take the checksum of its file away."""
    snapshot = Snapshot(
        id=new_id(),
        fingerprint="0" * 16,
        build="",
        cuts=chain("", [Piece("", b"x")]),
        tokens=1,
        prompt=1,
        size=1,
        group="team1",
        quarantined="worthless",
    )
    data = encode(snapshot)
    for bit in range(8 * len(data)):
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << bit % 8
        try:
            assert decode(bytes(spoilt)) == snapshot
        except (msgspec.MsgspecError, ValueError, Newer):
            continue
