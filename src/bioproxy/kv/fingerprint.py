"""Which snapshots are an engine's own: the fingerprint, and the watch over the model's file.

llama-server accepts another model's snapshot of the same shape and then writes nonsense (facts, 0.2). So a snapshot
belongs to a fingerprint: what the model *is* (digests of its files' content, so that moving a folder loses nothing),
every launch argument that may shape the cache, the chat template. The server's build is no part of it: an upgrade is
probed (builds.py) instead of throwing everything away.

What cannot be seen is not passed over: another file of that name would bring another model's cache back. If an engine
was told a file that we cannot read (or that may be another one in its view: seen.py), it has no fingerprint, and the
reason says what would mend that. The operator may vouch for it: `kv.fingerprint` is a text that he changes whenever
such a file changes. Of an engine whose command line is not visible at all we take what it tells (model path, figures
of the weights, chat template), and `kv.fingerprint` for the rest; adapters that it tells of must be vouched for.

A file can be overwritten while the engine still runs the old one. Then its digest would describe a model that no engine
runs. So a file that is younger than the engine's process gives no fingerprint, and before each save the files are
compared again.

An identity (gguf.py) costs some megabytes of reading and, with a large vocabulary, a tenth of a second of parsing. So
it is remembered (`Identities`) as long as the file is the same one and was not written to: device, inode, size, and
both of its times. That `mtime` can be set back does not matter, for `ctime` cannot.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from bioproxy import files
from bioproxy.config.addresses import stays_here
from bioproxy.engines import gguf
from bioproxy.engines.facts import EngineFacts
from bioproxy.engines.seen import seen, way
from bioproxy.errors import BioproxyError
from bioproxy.files import opened, touching
from bioproxy.kv.arguments import FETCHED, Arguments, parse

MOST = 64  # files that are remembered; models are few, but a container shows each under a new name
BYTES = 2  # of a cached value; another type only makes the first guess a bad one

CLOCK_SLACK = 1.0  # seconds: process start times are only known to some hundredths, file times may be coarse

Identify = Callable[[str], str]
T = TypeVar("T")
Stamp = tuple[tuple[int, ...], ...]


class Traits(msgspec.Struct, frozen=True):
    """What a model's header says. `window`: sliding-window layers (None: not known); `recurrent`: layers with a state.

    `token_bytes`: about what a token takes in a slot file, 0 if that cannot be told; a guess until one was written.
    `long_rope`: the size of the context decides how positions are turned.
    """

    window: bool | None = None
    recurrent: bool = False
    token_bytes: int = 0
    long_rope: bool = False

    @property
    def full(self) -> bool:
        """Whether it is known that a cache of this model can be cut at any place."""
        return self.window is False and not self.recurrent

    @property
    def family(self) -> str:
        """How the model remembers a prompt, for people; empty if that is not known."""
        if self.recurrent:
            return "recurrent or hybrid"
        return {True: "sliding windows", False: "full attention", None: ""}[self.window]


class Identities:
    """Remembers what `identify` said of a file, and its traits, as long as the file is the same."""

    def __init__(self, identify: Callable[[str], str] = gguf.identity) -> None:
        self.identify = identify
        self.identities: dict[Stamp, str] = {}
        self.read: dict[Stamp, Traits] = {}

    def __call__(self, path: str) -> str:
        """The identity of the model at `path`. Raises what `identify` raises, OSError."""
        return recall(self.identities, path, self.identify)

    def traits(self, path: str) -> Traits:
        """What the header of the model at `path` says; nothing if it cannot be read."""
        try:
            return recall(self.read, path, traits_of)
        except (BioproxyError, OSError):
            return Traits()


def recall(known: dict[Stamp, T], path: str, find: Callable[[str], T]) -> T:
    """What `find` said of the file at `path`, asked once as long as the file stays the same."""
    stamp = stamp_of(path)
    if stamp not in known:
        found = find(path)
        if stamp_of(path) != stamp:  # written to meanwhile
            return found
        while len(known) >= MOST:
            known.pop(next(iter(known)))
        known[stamp] = found
    return known[stamp]


def stamp_of(path: str) -> Stamp:
    """How all parts of a file look to the system. OSError."""
    found = [(part, files.stat(part)) for part in gguf.parts(path)]
    return tuple(
        (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, files.changed(part, one)) for part, one in found
    )


def traits_of(path: str) -> Traits:
    """Read the header of a model, and which tensors its other parts have. BioproxyError, OSError."""
    header, *others = map(header_of, gguf.parts(path))

    def number(name: str) -> int:
        value = header.keys.get(f"{header.architecture}.{name}", 0)
        return value if isinstance(value, int) else 0

    heads = number("attention.head_count")
    width = number("embedding_length") // heads if heads else 0
    both = (number("attention.key_length") or width) + (number("attention.value_length") or width)
    values = number("block_count") * (number("attention.head_count_kv") or heads) * both
    return Traits(
        window=header.window,
        recurrent=header.recurrent,
        token_bytes=BYTES * values,
        long_rope=any(one.long_rope for one in (header, *others)),
    )


def header_of(part: Path) -> gguf.Header:
    """The header of one part. BioproxyError, OSError."""
    with opened(part) as file:
        return gguf.read_header(file)


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is. `value`: 16 hex digits, empty if it must have no snapshots; `reason` says why.

    `may_pass`: it is worth looking again while the same process runs. `visible` and `hidden`: what is in it and what we
    could not see, for `/status`.
    """

    value: str = ""
    build: str = ""
    visible: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    reason: str = ""
    may_pass: bool = False
    traits: Traits = Traits()
    arguments: Arguments = Arguments({})


class Watched(msgspec.Struct):
    """One file of the model: its path, what it was when the engine started, and how it looked then."""

    path: str
    identity: str
    stamp: Stamp


class Unreadable(BioproxyError):
    """A file that shapes the cache cannot be identified; the message says why, and what would mend it."""

    code = "model_unreadable"


class Overtaken(Unreadable):
    """A file is another one by now than the engine has read; only another process can mend that."""


def fingerprint(facts: EngineFacts, *, extra: str, known: Identities | None = None) -> tuple[Fingerprint, Watch]:
    """The engine's fingerprint and the watch over its files. Call it in a thread: it reads some MB of each file.

    Of files that `known` knows it reads nothing. `extra` is `kv.fingerprint`: flags, or any text that tells two engines
    apart.
    """
    known = known or Identities()
    parts = Parts(facts, parse(facts.command, extra, facts.environment), extra, known)
    described = Fingerprint(build=facts.build, arguments=parts.arguments)
    try:
        values = ["bioproxy fingerprint 1", parts.arguments.shaping, extra, facts.chat_template, facts.media, *parts]
    except Unreadable as error:
        may_pass = not isinstance(error, Overtaken)
        return msgspec.structs.replace(described, reason=error.message, may_pass=may_pass), parts.watch
    found = msgspec.structs.replace(
        described,
        value=hashlib.sha256(msgspec.json.encode(values)).hexdigest()[:16],
        visible=tuple(parts.visible),
        hidden=tuple(parts.hidden),
        traits=known.traits(parts.watch.files[0].path) if "model file" in parts.visible else Traits(),
    )
    return found, parts.watch


class Parts:
    """The parts of an engine's fingerprint that are no argument by themselves; iterating looks at each file."""

    def __init__(self, facts: EngineFacts, arguments: Arguments, extra: str, known: Identities) -> None:
        self.facts = facts
        self.arguments = arguments
        self.extra = extra
        self.known = known
        self.watch = Watch(known)
        self.visible = ["chat template"]
        self.hidden: list[str] = []

    def __iter__(self) -> Iterator[object]:
        """The parts of the fingerprint, in an order that stays. Raises Unreadable."""
        facts = self.facts
        if facts.adapters:  # may have been changed since the launch
            self.visible.append("LoRA scales")
            yield facts.adapters
        if facts.command or self.extra:
            self.visible.append("launch arguments")
        if facts.launched:
            yield facts.launched
        yield from self.model()
        for flag, path, scale in self.arguments.files:
            yield self.file(flag, path, scale)
        yield from self.likely_files()
        yield from self.adapters()
        yield from self.projector()

    def model(self) -> Iterator[object]:
        """The weights. Of an engine whose command line is hidden, what it tells counts before what we find here."""
        facts = self.facts
        path = seen(facts.model_path, facts)
        if not facts.command:
            self.hidden.append("launch arguments (LoRA, cache types; write those that matter into kv.fingerprint)")
        if facts.hidden:
            self.hidden.append("environment (LLAMA_… variables; write those that matter into kv.fingerprint)")
        if facts.command and not path:
            self.vouched("--model", facts.model_path or "(not told)")
        elif not path:
            self.hidden.append(f"model file ({facts.model_path or 'unknown'} cannot be read here)")
        if not path or not facts.command or facts.hidden:
            self.visible.append("model path, context and slots as the engine tells them")
            yield (facts.model_path, facts.alias, facts.context, facts.slots, *facts.described)
        if path and (facts.command or stays_here(facts.url)):
            self.visible.append("model file")
            yield self.add(facts.model_path, path)
            yield from self.long_rope(path)

    def long_rope(self, path: str) -> Iterator[object]:
        """The context, if it decides how the model turns positions: the server restores the other kind without a word.

        What the engine tells is capped at what the model was trained for, so what it was told counts, too.
        """
        if self.known.traits(path).long_rope:
            self.visible.append("context")
            told = [self.arguments.flags.get(name) for name in ("--ctx-size", "--parallel")]
            yield ("context", self.facts.context, *told, self.arguments.unified)

    def add(self, told: str, found: str) -> str:
        """Identify and watch the file `found`, to which the engine came by the path `told`."""
        return self.watch.add(found, started=self.facts.started, passed=way(told, self.facts))

    def file(self, flag: str, path: str, scale: str) -> object:
        """A file that the engine was told: its content, else its name, if the operator vouches for it."""
        found = seen(path, self.facts)
        if found:
            self.visible.append(f"{flag} {Path(path).name}")
            return (flag, self.add(path, found), scale)
        self.vouched(flag, path)
        return (flag, path, scale)

    def vouched(self, flag: str, path: str) -> None:
        """A file cannot be read here: note it if `kv.fingerprint` is set, else raise Unreadable."""
        if not self.extra:
            raise Unreadable(
                f"{flag} {path} cannot be read here, so another file of that name would go unnoticed and bring back "
                "another model's cache: no snapshots. Let bioproxy read it (the full path; for a container its folder "
                "as a volume), or set kv.fingerprint to a text that you change whenever the file changes"
            )
        self.hidden.append(f"{flag} {path} (cannot be read here; kv.fingerprint stands for it)")

    def likely_files(self) -> Iterator[object]:
        """Arguments that may name files or not: what is a file counts with its content."""
        for flag, value, looks in self.arguments.likely_files:
            if seen(value, self.facts):
                yield self.file(flag, value, "")
            elif looks:
                self.vouched(flag, value)

    def adapters(self) -> Iterator[object]:
        """Adapters that the engine tells of, and that are in none of the arguments."""
        facts, told = self.facts, self.facts.adapter_files
        named = {path for _, path, _ in self.arguments.files}
        if facts.command:
            yield from (self.file("adapter", path, "") for path in told or () if path not in named)
        elif facts.adapters or told is None:
            self.vouched("adapter", ", ".join(told or ()) or "(the engine does not tell which there are)")
            yield told

    def projector(self) -> Iterator[object]:
        """The multimodal projector that the server has fetched by itself: it lies beside the model.

        The same place is looked at if what names it cannot be seen.
        """
        unnamed = self.arguments.has(*FETCHED) or self.facts.hidden
        if not (self.facts.media and unnamed) or self.arguments.has("--mmproj"):
            return
        model = seen(self.facts.model_path, self.facts)
        try:
            with touching(model):
                found = sorted(Path(model).parent.glob("*mmproj*.gguf")) if model else []
        except OSError:
            found = []
        if not found:
            self.vouched("projector", "(not found beside the model)")
        for path in found:
            yield ("projector", self.add(self.facts.model_path, str(path)))


class Watch:
    """The files that an engine runs on, compared again before each save. Everything here blocks."""

    def __init__(self, identify: Identify = gguf.identity) -> None:
        self.identify = identify
        self.files: list[Watched] = []

    def add(self, path: str, *, started: float | None, passed: Iterable[str] = ()) -> str:
        """Identify `path` and watch it. Raises Unreadable, also for a file that is younger than the process.

        `passed`: folders and links through which the process came to it.
        """
        try:
            stamp = stamp_of(path)
            if started is not None and max(youngest(path), *map(turned, passed), 0.0) > started + CLOCK_SLACK:
                raise Overtaken(
                    f"{path} (or a link or folder that leads to it) is younger than the engine that runs it, so it "
                    "is unknown which model that is; restart the engine"
                )
            identity = self.identify(path)
            if stamp_of(path) != stamp:
                raise Overtaken(f"{path} is being written to, so it is unknown which model that is; restart the engine")
        except (BioproxyError, OSError) as error:
            if isinstance(error, Unreadable):
                raise
            raise Unreadable(f"cannot read {path}, which the engine runs: {files.in_short(error)}") from error
        self.files.append(Watched(path, identity, stamp))
        return identity

    def changed(self) -> str:
        """Why the files are not what the engine was started with; empty while they are. One stat per part."""
        for file in self.files:
            try:
                stamp = stamp_of(file.path)
                if stamp != file.stamp and self.identify(file.path) != file.identity:
                    return f"{file.path} was overwritten while the engine runs what it held before; restart the engine"
            except (BioproxyError, OSError) as error:
                return f"{file.path} is gone while the engine runs it: {files.in_short(error)}"
            file.stamp = stamp
        return ""


def youngest(path: str) -> float:
    """When a part of the model was last written or put there (unix time): `cp -p` and `mv` keep mtime, not ctime.

    A link counts as well as what it leads to: it may have been turned to another model.
    """
    parts = gguf.parts(path)
    with touching(path):
        return max(max(times(part, follow=follow)) for part in parts for follow in (True, False))


def times(path: str | Path, *, follow: bool) -> tuple[float, float]:
    """When a file was written, and when anything of it was changed (unix time). OSError."""
    status = os.stat(path, follow_symlinks=follow)
    seconds, rest = divmod(files.changed(path, status, follow=follow), 1_000_000_000)
    return status.st_mtime, seconds + 1e-9 * rest


def turned(place: str) -> float:
    """When a link was made, or a folder put in place of another one (unix time); 0.0 if nothing tells of it.

    What comes into a folder and leaves it sets both of its times, a rename of the folder itself sets its ctime only.
    """
    try:
        mode = os.lstat(place).st_mode
        written, changed = times(place, follow=False)
    except OSError:
        return 0.0
    moved = stat.S_ISDIR(mode) and changed > written
    return changed if moved or stat.S_ISLNK(mode) else 0.0
