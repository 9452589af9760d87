"""Why the configuration is read again while the program runs: SIGHUP, and with -watch-config a file that changed.

Files are looked at every two seconds, for bind mounts, config maps and editors that replace a file defeat every kind of
notification. What counts is time and size of what a path leads to, so that a link that is turned to another file is
a change. A file that is missing says nothing, for it is about to come back; once it is back, that is a change. A folder
is looked at the same way: its YAML files together are one thing.

One reload runs at a time. What comes meanwhile is not lost (the file may have been read before it changed): it makes
the reload run once more.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from bioproxy import aio, files
from bioproxy.config.load import Loaded
from bioproxy.config.swap.files import ENDINGS
from bioproxy.errors import BioproxyError

log = logging.getLogger("bioproxy")

INTERVAL = 2.0  # seconds between two looks; the log line says so, as llama-swap's does
Marks: TypeAlias = dict[str, tuple[int, int]]  # path to time (ns) and size of what is there; {} where nothing is
Seen: TypeAlias = dict[str, Marks]  # the same for each source: a file, or the files of a folder


class Reloader:
    """Runs `reload`, one at a time; what comes of it stands in the log."""

    def __init__(self, reload: Callable[[], Awaitable[Any]]) -> None:
        self.reload = reload
        self.wanted = asyncio.Event()

    def ask(self) -> None:
        """Have the configuration read again, now or when the present reload is over."""
        self.wanted.set()

    async def run(self) -> None:
        """Reload whenever somebody asks; a broken configuration changes nothing."""
        while True:
            await self.wanted.wait()
            self.wanted.clear()
            try:
                await self.reload()
            except BioproxyError as error:
                log.error("failed to reload config: %s; nothing was changed", error.message)  # noqa: TRY400 - the sentence does
            except Exception:  # the old configuration is in force, and the next reload may be better
                log.exception("failed to reload config")


def sources(loaded: Loaded) -> tuple[str, ...]:
    """What is to be watched: the folder of -config-dir as a whole, and each file that is not in it."""
    if loaded.directory is None:
        return loaded.paths
    return (*(path for path in loaded.paths if os.path.dirname(path) != loaded.directory), loaded.directory)  # noqa: PTH120


def look(paths: tuple[str, ...]) -> Seen:
    """What is there now."""
    return {path: marks(path) for path in paths}


def marks(path: str) -> Marks:
    """Time and size of a file, or of each YAML file of a folder; nothing for what is missing."""
    names = [path]
    try:
        with files.touching(path):
            is_folder = os.path.isdir(path)  # noqa: PTH112 - texts
        if is_folder:
            inside = sorted(entry.name for entry in files.listed(path))
            names = [f"{path}/{name}" for name in inside if name.endswith(ENDINGS)]
    except OSError:
        return {}
    return {name: mark for name in names if (mark := mark_of(name)) is not None}


def mark_of(path: str) -> tuple[int, int] | None:
    """Time and size of what a path leads to."""
    try:
        found = files.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def has_changed(before: Mapping[str, Marks], now: Mapping[str, Marks]) -> bool:
    """Whether a source is there that is not as it was; what is missing now waits until it is back."""
    return any(now[path] and now[path] != before.get(path) for path in now)


async def watch(paths: tuple[str, ...], seen: Seen, ask: Callable[[], None], *, interval: float = INTERVAL) -> None:
    """Call `ask` after each change of the sources since `seen`; ends by cancellation only."""
    said = False

    async def changed() -> bool | None:
        nonlocal seen, said
        try:
            before, seen = seen, await files.away(look, paths)
        except files.Stuck as error:
            if not said:
                log.warning("the configuration is not watched: %s", error.message)
            said = True
            return None
        return True if has_changed(before, seen) else None

    while True:
        await aio.poll(changed, interval=interval, jitter=0)
        ask()
