"""Templates for tests: texts behind prefixes without files, and real files behind a real catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bioproxy.events import Bus, Event
from bioproxy.templates.catalogue import Catalogue
from bioproxy.templates.parse import Filled, version_of
from support.config_files import settings


def filled(text: str, *, prefix: str = "@code") -> Filled:
    """A template without includes; `<{message}>` marks the places."""
    parts = tuple(text.split("<{message}>"))
    return Filled(prefix=prefix, version=version_of(parts), parts=parts)


class Texts:
    """A catalogue of fixed texts, by prefix; matches a prefix before a blank, a newline or the end."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = {prefix: filled(text, prefix=prefix) for prefix, text in texts.items()}

    def match(self, text: str) -> tuple[str, str] | None:
        for prefix in sorted(self.texts, key=len, reverse=True):
            if text == prefix or text.startswith((prefix + " ", prefix + "\n")):
                return prefix, text[len(prefix) + 1 :]
        return None

    def current(self, prefix: str) -> Filled:
        return self.texts[prefix]


class Memory:
    """Pins in a dict."""

    def __init__(self, pins: Mapping[bytes, Filled] | None = None) -> None:
        self.pins = dict(pins or {})

    def get(self, key: bytes) -> Filled | None:
        return self.pins.get(key)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write `files` (path to content) under `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


class Site:
    """A folder of templates with a catalogue, a clock and every event that was published."""

    def __init__(self, folder: Path, prefixes: Mapping[str, str], *, settle: float = 0.0) -> None:
        self.folder = folder
        self.clock = Clock()
        self.events: list[Event] = []
        bus = Bus()
        bus.subscribe(Event, self.events.append)
        paths = {prefix: str(folder / name) for prefix, name in prefixes.items()}
        working = folder / "working"
        working.mkdir(exist_ok=True)
        self.catalogue = Catalogue(
            paths, folder=str(working), settings=settings(warmup__settle=settle), bus=bus, clock=self.clock
        )

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Change files."""
        write(self.folder, files)

    def text(self, prefix: str = "@code", message: str = "MESSAGE") -> str:
        """The filled text in use."""
        return self.catalogue.current(prefix).fill(message)


def site(folder: Path, files: Mapping[str, str | bytes], *, settle: float = 0.0) -> Site:
    """`files` with one prefix, `@code`, whose template is `t.md`; loaded."""
    write(folder, files)
    made = Site(folder, {"@code": "t.md"}, settle=settle)
    made.catalogue.load()
    return made
