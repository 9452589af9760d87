"""Which snapshots are an engine's own: the fingerprint, and the watch over the model's file.

llama-server accepts another model's snapshot of the same shape and then writes nonsense (facts, 0.2). So a snapshot
belongs to a fingerprint: what the model *is* (digests of its files' content, so that moving a folder loses nothing),
every launch argument that may shape the cache, the chat template. The server's build is no part of it: an upgrade is
probed (builds.py) instead of throwing everything away.

A model file can be overwritten while the engine still runs the old one. Then its digest would describe a model that
nobody runs. So a file that is younger than the engine's process gives no fingerprint at all, and before each save the
files are compared again.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from bioproxy.engines import gguf
from bioproxy.engines.llama import EngineFacts
from bioproxy.errors import BioproxyError
from bioproxy.kv.arguments import Arguments, parse
from bioproxy.kv.identities import Identities, Traits

Identify = Callable[[str], str]
CLOCK_SLACK = 1.0  # seconds: process start times are only known to some hundredths, file times may be coarse


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is. `value`: 16 hex digits, empty where it must have no snapshots (`reason` says why).

    `visible` and `hidden`: what is in it and what we could not see, for `/status`.
    """

    value: str = ""
    build: str = ""
    visible: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    reason: str = ""
    traits: Traits = Traits()
    arguments: Arguments = Arguments({})


class Watched(msgspec.Struct):
    """One file of the model: its path, what it was when the engine started, and how it looked then."""

    path: str
    identity: str
    stamp: gguf.Stamp


class Unreadable(BioproxyError):
    """A file of the model cannot be identified; the message says why."""

    code = "model_unreadable"


def fingerprint(facts: EngineFacts, *, extra: str, known: Identities | None = None) -> tuple[Fingerprint, Watch]:
    """The engine's fingerprint and the watch over its files. Call it in a thread: it reads some MB of each file.

    Of files that `known` knows it reads nothing. `extra` is `kv.fingerprint`: flags, or any text that tells two engines
    apart.
    """
    arguments = parse(facts.command, extra, facts.environment)
    parts: list[object] = ["bioproxy fingerprint 1", arguments.shaping, extra, facts.chat_template, facts.media]
    visible = ["chat template"]
    hidden: list[str] = []
    known = known or Identities()
    watch = Watch(known)
    described = Fingerprint(build=facts.build, arguments=arguments)
    if facts.adapters:  # may have been changed since the launch
        parts.append(facts.adapters)
        visible.append("LoRA scales")
    if facts.command or extra:
        visible.append("launch arguments")
    if not facts.command:
        hidden.append("launch arguments (LoRA, cache types; write those that matter into kv.fingerprint)")
    try:
        parts += watch_files(watch, facts, arguments, visible, hidden)
    except Unreadable as error:
        return msgspec.structs.replace(described, reason=error.message), watch
    return (
        msgspec.structs.replace(
            described,
            value=hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16],
            visible=tuple(visible),
            hidden=tuple(hidden),
            traits=known.traits(watch.files[0].path) if "model file" in visible else Traits(),
        ),
        watch,
    )


def watch_files(
    watch: Watch, facts: EngineFacts, arguments: Arguments, visible: list[str], hidden: list[str]
) -> Iterable[object]:
    """Identify the model and what is added to it. Where its file cannot be read, what the engine tells must do."""
    parts: list[object] = []
    if facts.model_path and (path := seen(facts.model_path, facts.pid)):
        parts.append(watch.add(path, started=facts.started))
        visible.append("model file")
    else:
        told = (facts.model_path, facts.alias, facts.context, facts.slots)
        parts.append(told)
        visible.append("model path, context and slots as the engine tells them")
        hidden.append(f"model file ({facts.model_path or 'unknown'} cannot be read here)")
    for flag, path, scale in arguments.files:
        if file := seen(path, facts.pid):
            parts.append((flag, watch.add(file, started=facts.started), scale))
            visible.append(f"{flag} {Path(path).name}")
        else:
            parts.append((flag, path, scale))
            hidden.append(f"{flag} {path} (cannot be read here)")
    return parts


def seen(path: str, pid: int | None) -> str:
    """The file that the engine's process sees under `path`; empty where we cannot see it.

    In a container another file may have the same name: Linux shows a process's own view under /proc/<pid>/root.
    """
    inside = Path(f"/proc/{pid}/root")
    try:
        if pid and sys.platform == "linux" and inside.exists():
            own = inside / path.lstrip("/")
            if not own.is_file():
                return ""
            return path if Path(path).exists() and own.samefile(path) else str(own)
    except OSError:  # another user's process: what we see under this name is all that there is to see
        pass
    try:
        return path if Path(path).is_file() else ""
    except OSError:
        return ""


class Watch:
    """The files that an engine runs on, compared again before each save. Everything here blocks."""

    def __init__(self, identify: Identify = gguf.identity) -> None:
        self.identify = identify
        self.files: list[Watched] = []

    def add(self, path: str, *, started: float | None) -> str:
        """Identify `path` and watch it. Raises Unreadable, also for a file that is younger than the process."""
        try:
            stamp = gguf.stamp(path)
            if started is not None and youngest(path) > started + CLOCK_SLACK:
                raise Unreadable(
                    f"the model file {path} is younger than the engine that runs it, so nobody knows which model that "
                    "is; restart the engine"
                )
            identity = self.identify(path)
        except (BioproxyError, OSError) as error:
            if isinstance(error, Unreadable):
                raise
            raise Unreadable(f"cannot read the model file {path}: {error}") from error
        self.files.append(Watched(path, identity, stamp))
        return identity

    def changed(self) -> str:
        """Why the files are not what the engine was started with; empty while they are. One stat per part."""
        for file in self.files:
            if not gguf.changed(file.path, file.stamp):
                continue
            try:
                stamp = gguf.stamp(file.path)
                if self.identify(file.path) != file.identity:
                    return f"{file.path} was overwritten while the engine runs what it held before; restart the engine"
            except (BioproxyError, OSError) as error:
                return f"{file.path} is gone while the engine runs it: {error}"
            file.stamp = stamp
        return ""


def youngest(path: str) -> float:
    """When a part of the model was last written or put there (unix time): `cp -p` and `mv` keep mtime, not ctime."""
    status = [part.stat() for part in gguf.parts(path)]
    return max(max(one.st_mtime, one.st_ctime) for one in status)
