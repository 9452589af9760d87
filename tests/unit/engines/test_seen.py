"""Which file an engine means by a path: in its own folder, its own root, behind its volumes."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from bioproxy.engines.facts import EngineFacts
from bioproxy.engines.seen import seen, unescaped

PLAIN = EngineFacts(url="http://localhost:1")


def model(path: Path, text: str = "weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_relative_path_starts_at_the_engines_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at ours, where another file of that name may lie; where the engine's is not known it is no file."""
    theirs, _ = model(tmp_path / "theirs" / "a.gguf"), model(tmp_path / "ours" / "a.gguf")
    monkeypatch.chdir(tmp_path / "ours")
    facts = msgspec.structs.replace(PLAIN, folder=str(theirs.parent))
    assert seen("a.gguf", facts) == str(theirs)
    assert seen("a.gguf", msgspec.structs.replace(facts, pid=os.getpid())) == str(theirs)
    assert seen("a.gguf", PLAIN) == ""


def test_a_process_in_our_own_view_means_our_own_file(tmp_path: Path) -> None:
    """Under its own name, so that the parts of a split model are found beside it; a folder is no file."""
    facts = msgspec.structs.replace(PLAIN, pid=os.getpid())
    path = model(tmp_path / "a.gguf")
    link = tmp_path / "link.gguf"
    link.symlink_to(path)
    assert [seen(str(one), facts) for one in (path, link)] == [str(path), str(link)]
    assert [seen(str(one), facts) for one in (tmp_path, tmp_path / "missing")] == ["", ""]


class Machine:
    """A /proc of the test's own making, with one process whose root is a folder."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.root = folder / "root"
        self.root.mkdir()
        (self.proc / "42").mkdir(parents=True)
        (self.proc / "self").mkdir()
        (self.proc / "42" / "root").symlink_to(self.root)

    def sees(self, path: str) -> str:
        """What process 42 means by `path`."""
        found = seen(path, msgspec.structs.replace(PLAIN, pid=42), proc=self.proc)
        return str(Path(found).resolve()) if found else ""

    def mount(self, process: str, *lines: str) -> None:
        """What is mounted in its view: mount point, device, folder."""
        fields = [line.split() for line in lines]
        text = "".join(f"1 2 {device} {folder} {point} rw - ext4 x rw\n" for point, device, folder in fields)
        (self.proc / process / "mountinfo").write_text(text)


def test_a_process_with_another_root_means_the_file_in_there(tmp_path: Path) -> None:
    """Of the same name as one of ours; and where it has none, ours is not taken for it."""
    machine = Machine(tmp_path)
    ours = model(tmp_path / "models" / "a.gguf", "ours")
    assert machine.sees(str(ours)) == ""
    theirs = model(Path(f"{machine.root}{ours}"), "theirs")
    assert machine.sees(str(ours)) == str(theirs)


def test_links_stay_in_the_view_of_the_process(tmp_path: Path) -> None:
    """An absolute one leads to a place under its root, a relative one does not climb out of it."""
    machine = Machine(tmp_path)
    ours = model(tmp_path / "models" / "new.gguf", "ours")
    theirs = model(Path(f"{machine.root}{ours}"), "theirs")
    (machine.root / "absolute.gguf").symlink_to(ours)
    (machine.root / "relative.gguf").symlink_to(f"../../../../../..{ours}")
    (machine.root / "folder").symlink_to(ours.parent)
    (machine.root / "ring.gguf").symlink_to("/ring.gguf")
    for path in ("/absolute.gguf", "/relative.gguf", "/folder/new.gguf", "/folder/../models/new.gguf"):
        assert machine.sees(path) in {str(theirs), ""}
    assert machine.sees("/absolute.gguf") == machine.sees("/folder/new.gguf") == str(theirs)
    assert machine.sees("/ring.gguf") == ""


def test_a_split_model_keeps_its_name(tmp_path: Path) -> None:
    """Or its other parts would not be found; one whose parts are links to elsewhere is not certain."""
    machine = Machine(tmp_path)
    facts = msgspec.structs.replace(PLAIN, pid=42)
    model(machine.root / "blobs" / "1")
    name = "m-00001-of-00002.gguf"
    (machine.root / name).symlink_to("blobs/1")
    assert seen(f"/{name}", facts, proc=machine.proc).endswith(name)
    (machine.root / name).unlink()
    (machine.root / name).symlink_to("/blobs/1")
    assert seen(f"/{name}", facts, proc=machine.proc) == ""


def test_another_users_process_is_believed_where_its_mounts_are_ours(tmp_path: Path) -> None:
    """Its root is hidden, its mounts are not: the same file system at the same place is the same file."""
    machine = Machine(tmp_path)
    (machine.proc / "42" / "root").unlink()
    path = model(tmp_path / "models" / "a.gguf")
    assert machine.sees(str(path)) == ""
    ours = ("/ 8:1 /", f"{tmp_path}/models 8:2 /")
    machine.mount("self", *ours)
    assert machine.sees(str(path)) == ""
    machine.mount("42", "/ 8:1 /", "/tmp 8:9 /unlike", f"{tmp_path}/models 8:2 /")
    assert machine.sees(str(path)) == str(path)
    for theirs in (ours[:1], ("/ 0:99 /",), ("/ 8:1 /", f"{tmp_path}/models 8:2 /other")):
        machine.mount("42", *theirs)
        assert machine.sees(str(path)) == ""


def test_a_container_sees_what_its_volumes_show(tmp_path: Path) -> None:
    """By the innermost one; what lies in the image, in a volume that is not ours to see, or outside cannot be seen."""
    path = model(tmp_path / "a" / "x.gguf")
    model(path.parent / "a" / "x.gguf", "what the mount lies over")
    (path.parent / "link.gguf").symlink_to("/models/x.gguf")
    volumes = ((str(path.parent), "/models"), (str(tmp_path), "/"), ("named", "/models/named"), ("", "/models/a"))
    facts = msgspec.structs.replace(PLAIN, volumes=volumes, folder="/models")
    assert [seen(one, facts) for one in ("/models/x.gguf", "x.gguf", "/a/x.gguf", "/models/link.gguf")] == [
        str(path)
    ] * 4
    assert [seen(one, facts) for one in ("/models/named/x.gguf", "/models/a/x.gguf", "/x.gguf", str(path))] == [""] * 4
    nothing = msgspec.structs.replace(facts, volumes=())
    assert seen(str(path), nothing) == ""


def test_a_volume_may_be_a_link_with_us(tmp_path: Path) -> None:
    """It was followed when the container started; inside it is a folder."""
    path = model(tmp_path / "a" / "x.gguf")
    (tmp_path / "current").symlink_to("a")
    facts = msgspec.structs.replace(PLAIN, volumes=((str(tmp_path / "current"), "/models"),))
    assert seen("/models/x.gguf", facts) == str(path)


def test_blanks_in_mount_points_are_read() -> None:
    """The kernel writes them in octal."""
    assert unescaped(r"/my\040models\134x") == r"/my models\x"
