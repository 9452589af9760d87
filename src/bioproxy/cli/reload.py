"""Why the configuration is read again while the program runs: SIGHUP, and with -watch-config a file that changed.

Files are looked at every two seconds, because bind mounts, config maps and editors that replace a file defeat every
kind of notification. What counts is the content of what a path leads to: a link that is turned to another file is a
change though size and time are the same, and a file that is only touched is none. A file that is missing says nothing,
because it is about to come back; once it is back, that is a change. Half of a file may be a good configuration with
fewer models, so a change counts only when two looks have found the same: whoever writes it has come to an end by then.
A folder is looked at the same way: its YAML files together are one thing. Key files belong to the configuration that
names them. The certificate's two files are watched in any case (wire/tls.py).

One reload runs at a time. What comes meanwhile is not lost (the file may have been read before it changed): it makes
the reload run once more.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from bioproxy import aio, files
from bioproxy.config.files import ENDINGS, SIZE_LIMIT
from bioproxy.config.load import Loaded
from bioproxy.errors import BioproxyError

log = logging.getLogger("bioproxy")

INTERVAL = 2.0  # seconds between two looks; the log line says so, as llama-swap's does
Marks: TypeAlias = dict[str, bytes]  # path to a digest of what is there; {} if nothing is
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
        """Reload whenever it is asked for; a broken configuration changes nothing."""
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
    """What is to be watched: the folder of -config-dir as a whole, each file that is not in it, and what these name."""
    if loaded.directory is None:
        return (*loaded.paths, *loaded.key_files)
    outside = (path for path in loaded.paths if os.path.dirname(path) != loaded.directory)
    return (*outside, loaded.directory, *loaded.key_files)


def look(paths: tuple[str, ...]) -> Seen:
    """What is there now. Blocks; Stuck if a file does not answer."""
    return {path: marks(path) for path in paths}


def marks(path: str) -> Marks:
    """A digest of a file, or of each YAML file of a folder; nothing for what is missing or no file."""
    names = [path]
    try:
        if stat.S_ISDIR(files.stat(path).st_mode):
            names = sorted(entry.path for entry in files.listed(path) if entry.name.endswith(ENDINGS))
    except OSError:
        return {}
    return {name: mark for name in names if (mark := mark_of(name))}


def mark_of(path: str) -> bytes:
    """A digest of what a path leads to; nothing if there is no file, or none that can be read."""
    try:
        data = files.read(path, most=SIZE_LIMIT)
    except OSError:
        return b""
    return hashlib.blake2b(data, digest_size=16).digest()


def has_changed(before: Mapping[str, Marks], now: Mapping[str, Marks]) -> bool:
    """Whether a source is there that is not as it was; what is missing now waits until it is back."""
    return any(now[path] and now[path] != before.get(path) for path in now)


async def watch(
    paths: Callable[[], tuple[str, ...]], seen: Seen, ask: Callable[[], None], *, interval: float = INTERVAL
) -> None:
    """Call `ask` after each change of the sources since `seen`, when it is over; ends by cancellation only.

    `paths` are those of the configuration in force: one that a reload named first is a change, for it was not looked at
    before that.
    """
    last = seen

    async def changed() -> bool | None:
        nonlocal seen, last
        before, last = last, await files.away(look, paths())
        if last != before:  # somebody may still write
            return None
        known, seen = seen, last
        return True if has_changed(known, seen) else None

    while True:
        try:
            await aio.poll(changed, interval=interval, jitter=0)
        except files.Stuck as error:
            log.warning("cannot see whether the configuration changed: %s", error.message)
            await asyncio.sleep(interval)
            continue
        ask()
