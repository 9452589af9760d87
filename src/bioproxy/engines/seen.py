"""Files as an engine's process sees them: which file is meant by a path in its arguments, and where we can read it.

The same path may be another file there. A relative one starts at the process's own working folder; in a container all
of them start at its own root; a link inside a container leads to a place inside it. So a path is followed in the
process's view: Linux shows it under /proc/PID/root and /proc/PID/cwd, and the volumes of a container that we started
show it too. Another user's process hides both, but not its mounts: if the same file system is mounted at the same
place for it and for us, the same path is the same file.

The callers must know *which* file it is. If that is not certain the answer is none, however likely a file of
that name in our own view may be. Everything here blocks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from posixpath import dirname, isabs, join

from bioproxy import files
from bioproxy.engines.commands import here
from bioproxy.engines.facts import EngineFacts
from bioproxy.engines.gguf import SPLIT

PROC = Path("/proc")
MOST_LINKS = 40

Place = Callable[[str], str]  # from a path in the engine's view to the same place in ours; empty: it is not shown to us


def seen(path: str, facts: EngineFacts, *, proc: Path = PROC) -> str:
    """Where we can read what the engine calls `path`; empty if we cannot, or cannot be certain that it is the file.

    A name that is part of a split model keeps its form, so that the other parts are found beside it.
    """
    found = located(path, facts, proc, [])
    try:
        with files.touching(found):
            return found if found and Path(found).is_file() else ""
    except OSError:
        return ""


def way(path: str, facts: EngineFacts) -> list[str]:
    """The folders and links, as we see them, through which the engine comes to `path`."""
    passed: list[str] = []
    found = located(path, facts, PROC, passed)
    if facts.volumes is not None:
        found = here(join(facts.folder, path), facts.volumes)
    if isabs(found) and not found.startswith(f"{PROC}/"):
        follow(found, str, passed)
    return passed


def located(path: str, facts: EngineFacts, proc: Path, passed: list[str]) -> str:
    """Where `path` should be, whether or not it is a file; what it leads through is added to `passed`."""
    absolute, joined = (os.path.isabs, os.path.join) if facts.volumes is None else (isabs, join)  # in there it is Linux
    if not path or not (absolute(path) or facts.folder):
        return ""
    whole = joined(facts.folder, path)  # it may be no path of ours
    if facts.volumes is not None:
        shared = [(os.path.realpath(one) if os.path.isabs(one) else "", inside) for one, inside in facts.volumes]
        return follow(whole, partial(here, shared=shared), passed)
    if facts.pid is not None and sys.platform == "linux":
        return in_process(whole, facts.pid, proc, passed)
    return whole


def in_process(path: str, pid: int, proc: Path, passed: list[str]) -> str:
    """What process `pid` sees under the absolute `path`, as a path of ours."""
    root = proc / str(pid) / "root"
    try:
        root.stat()
    except OSError:  # another user's process
        return path if same_mounts(path, pid, proc) else ""
    found = follow(path, lambda inside: str(root) + inside, passed)
    try:
        return path if Path(path).exists() and Path(found).samefile(path) else found
    except OSError:
        return found


def follow(path: str, place: Place, passed: list[str]) -> str:
    """Follow the links of the absolute `path` in the view that `place` shows; empty if that leads out of it.

    Each folder and link on the way is added to `passed`.
    """
    done, rest, links = "/", path.split("/"), 0
    while rest:
        name = rest.pop(0)
        if name in {"", ".", ".."}:
            done = dirname(done) if name == ".." else done
            continue
        passed.append(place(join(done, name)))
        target = target_of(passed[-1])
        if not target or (not rest and SPLIT.match(name) and not isabs(target)):  # the system follows that one itself
            done = join(done, name)
            continue
        links += 1
        if links > MOST_LINKS or (not rest and SPLIT.match(name)):
            return ""
        done = "/" if isabs(target) else done
        rest = [*target.split("/"), *rest]
    return place(done)


def target_of(path: str) -> str:
    """Where a link leads; empty for what is none."""
    try:
        return str(Path(path).readlink()) if path else ""
    except OSError:
        return ""


def same_mounts(path: str, pid: int, proc: Path) -> bool:
    """Whether `pid` has the same file systems as we where `path` lies, by its name and by where its links lead."""
    places = {path, os.path.realpath(path)}
    ours, theirs = mounts(proc / "self"), mounts(proc / str(pid))
    return bool(ours) and all(mount_of(one, ours) == mount_of(one, theirs) for one in places)


def mounts(process: Path) -> dict[str, tuple[str, str]]:
    """What is mounted in a process's view: mount point to (device, the folder of it that is shown). proc(5)."""
    try:
        lines = (process / "mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    fields = [line.split() for line in lines]
    return {unescaped(each[4]): (each[2], unescaped(each[3])) for each in fields if len(each) > 4}


def mount_of(path: str, mounted: dict[str, tuple[str, str]]) -> tuple[str, str, str] | None:
    """Mount point, device and folder of what shows `path`."""
    while path not in mounted and path != "/":
        path = dirname(path)
    return (path, *mounted[path]) if path in mounted else None


def unescaped(text: str) -> str:
    r"""A path as it is: blanks and the like stand in mountinfo as `\040`."""
    head, *rest = text.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)
