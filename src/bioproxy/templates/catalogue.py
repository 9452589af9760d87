"""All templates of one configuration: their files, their texts, and which of them changed.

At start every template must be good, or none is used and all that is wrong is reported at once. From then on `check`
looks at the files again, in a worker thread, and a template that was good once stays usable whatever happens to its
files: the last good text is kept and the fault shows in `/status`.

A change counts when nothing has changed for `settle` seconds: a checkout of a thousand files, or an editor that writes
in two steps, would otherwise be warmed half-written. `due` tells when the next look is worth it.

Files are looked at as long as the program runs (`watch`), whatever engines there are, or a text of last week would be
sent and pinned after an unload. A request that had to wait has them looked at once more before it is filled in
(`freshen`). What works with the texts, as a warm-up does, hears of a change (`watchers`).

    ok ──files differ──► pending ──same text for `settle`──► ok, new version (TemplateChanged)
     ▲                      │ differs again: waits anew; back as it was: nothing happened
     └──── readable ◄── fault (TemplateFault), the last good text in use
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from bioproxy import aio, files
from bioproxy.config.settings import Settings
from bioproxy.errors import ConfigError, Problem
from bioproxy.events import Bus, TemplateChanged, TemplateFault
from bioproxy.templates.files import Cache, Look
from bioproxy.templates.parse import Filled
from bioproxy.templates.reading import Reading, Source, change_of, read_template, sentence, unread

log = logging.getLogger(__name__)

QUICK = 0.1  # seconds that a look for a request may take: it holds the engine meanwhile
FRESH = 1.0  # seconds since the last look after which a request that waited for longer needs another one


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine taught about a template; None if it was not measured yet."""

    tokens_per_byte: float | None = None
    seconds_per_token: float | None = None


class TemplateStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One template. `bytes`: of the filled text without a message; `static`: of what stands before the first message.

    `changed_at`: unix time since which the current text is in use; `cost`: what the last change cost, in words;
    `pending`: a change was seen and has not settled yet.
    """

    prefix: str
    path: str
    version: str
    bytes: int
    static: int
    includes: tuple[Source, ...]
    changed_at: float
    state: Literal["ok", "fault"]
    pending: bool
    last_error: str
    cost: str


class Template:
    """One template: the text in use, and what was seen of its files since."""

    def __init__(self, prefix: str, path: Path, reading: Reading, *, now: float) -> None:
        assert reading.filled is not None
        self.prefix = prefix
        self.path = path
        self.reading = reading
        self.filled = reading.filled
        self.changed_at = now
        self.pending: Reading | None = None
        self.since = 0.0  # when `pending` was first seen
        self.fault = ""
        self.last_error = ""
        self.cost = ""

    def accept(self, reading: Reading, *, now: float) -> None:
        assert reading.filled is not None
        self.reading, self.filled = reading, reading.filled
        self.changed_at = now
        self.pending = None

    def statistics(self) -> TemplateStatistics:
        sizes = [len(part.encode()) for part in self.filled.parts]
        return TemplateStatistics(
            prefix=self.prefix,
            path=str(self.path),
            version=self.filled.version,
            bytes=sum(sizes),
            static=sizes[0],
            includes=self.reading.sources,
            changed_at=self.changed_at,
            state="fault" if self.fault else "ok",
            pending=self.pending is not None,
            last_error=self.last_error,
            cost=self.cost,
        )


class Catalogue:
    """The templates of `prefixes` (prefix to file). `folder` is the working folder, the second place for includes.

    `warmup.settle` is in seconds of `clock`; `estimate`, which the composition root may set, turns bytes into tokens
    and time.
    """

    def __init__(
        self,
        prefixes: Mapping[str, str],
        *,
        folder: str,
        settings: Settings,
        bus: Bus,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.paths = {prefix: Path(path) for prefix, path in prefixes.items()}
        self.folder = Path(folder).absolute()
        self.settings = settings
        self.bus = bus
        self.clock = clock
        self.estimate: Callable[[str], Estimate] = lambda _prefix: Estimate()
        self.templates: dict[str, Template] = {}
        self.cache: Cache = {}
        self.pattern: re.Pattern[str] | None = None
        self.lock = asyncio.Lock()  # one look at a time: a later one must not be overtaken by an earlier one
        self.looked = -math.inf  # when the last look began
        self.took = 0.0  # seconds of the last look that came to its end
        self.changes = 0  # how often a text became another one
        self.watchers: set[Callable[[], None]] = set()

    # What a request asks

    @property
    def prefixes(self) -> tuple[str, ...]:
        """All prefixes, in the order of the configuration."""
        return tuple(self.templates)

    def current(self, prefix: str) -> Filled:
        """The newest good text of `prefix` that has settled; KeyError if there is no such prefix."""
        return self.templates[prefix].filled

    def reading(self, prefix: str) -> Reading:
        """The same with the files that it is from."""
        return self.templates[prefix].reading

    def versions(self) -> dict[str, str]:
        """The version of each template's newest good text, by prefix."""
        return {prefix: template.filled.version for prefix, template in self.templates.items()}

    def match(self, text: str) -> tuple[str, str] | None:
        """(prefix, message) where `text` begins with a prefix, before a blank, a newline or its end.

        The longest prefix wins. One blank or newline after it is taken away; all further ones belong to the message.
        """
        found = self.pattern.match(text) if self.pattern is not None else None
        return (found.group(1), text[found.end() :]) if found is not None else None

    # What start, reload and the warm-up ask

    def load(self) -> None:
        """Read every template; ConfigError with all that is wrong, and then none is used. Blocks: for the start."""
        readings, cache = read_all(self.paths, {}, folder=self.folder, cache=self.cache)
        self.install(self.paths, readings, cache)

    async def replace(self, prefixes: Mapping[str, str]) -> tuple[str, ...]:
        """Take over another set of prefixes; those that are new or have another file.

        Templates that stay keep their text and state. ConfigError if a new one is broken, and nothing changes then.
        """
        paths = {prefix: Path(path) for prefix, path in prefixes.items()}
        async with self.lock:
            fresh = {prefix: path for prefix, path in paths.items() if self.is_new(prefix, path)}
            readings, cache = await asyncio.to_thread(read_all, fresh, {}, folder=self.folder, cache=self.cache)
            self.install(paths, readings, self.cache | cache)
        self.notify()
        return tuple(fresh)

    async def check(self) -> tuple[str, ...]:
        """Look at the files; the prefixes whose text changed, settled, and is in use from now on."""
        async with self.lock:
            self.looked = self.clock()
            before = {prefix: template.reading for prefix, template in self.templates.items()}
            readings, cache = await asyncio.to_thread(
                read_all, dict(self.paths), before, folder=self.folder, cache=self.cache
            )
            self.cache, self.took = cache, self.clock() - self.looked
            found = tuple(prefix for prefix, reading in readings.items() if self.seen(self.templates[prefix], reading))
        if found:
            self.notify()
        return found

    async def freshen(self, waited: float) -> None:
        """Look at the files for a request that `waited` so many seconds, unless that was done meanwhile.

        It holds the engine now, so there is a bound on the time, and files that take longer than that are left alone.
        """
        if self.took > QUICK or self.clock() - self.looked < min(waited, FRESH):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * QUICK):
                await self.check()

    def notify(self) -> None:
        """Tell those who work with the texts that these changed."""
        for watcher in tuple(self.watchers):
            watcher()

    @property
    def settle(self) -> float:
        """Seconds without a change after which a changed text is taken."""
        return self.settings.config.warmup.settle

    @property
    def due(self) -> float | None:
        """Seconds until a change that was seen may have settled; None if nothing is pending."""
        waits = [self.settle - (self.clock() - one.since) for one in self.templates.values() if one.pending is not None]
        return max(0.0, min(waits)) if waits else None

    def statistics(self) -> tuple[TemplateStatistics, ...]:
        """Every template, in the order of the configuration."""
        return tuple(template.statistics() for template in self.templates.values())

    # How they come about

    def is_new(self, prefix: str, path: Path) -> bool:
        """Whether `prefix` has no template yet, or one from another file."""
        known = self.templates.get(prefix)
        return known is None or known.path != path

    def install(self, paths: Mapping[str, Path], readings: Mapping[str, Reading], cache: Cache) -> None:
        """Use what was read, if all of it is good."""
        problems = [*name_problems(paths), *(problem for one in readings.values() for problem in one.problems)]
        if problems:
            raise ConfigError(problems)
        now = time.time()
        self.templates = {
            prefix: Template(prefix, path, readings[prefix], now=now) if prefix in readings else self.templates[prefix]
            for prefix, path in paths.items()
        }
        self.paths, self.cache = dict(paths), cache
        self.changes += 1
        self.pattern = pattern_of(self.templates)

    def seen(self, template: Template, reading: Reading) -> bool:
        """Take in what a look found; whether a new text is in use now."""
        fault = "; ".join(str(problem) for problem in reading.problems)
        if fault != template.fault:
            template.fault = fault
            template.last_error = fault or template.last_error
            tell(template.prefix, fault)
            self.bus.publish(TemplateFault(prefix=template.prefix, reason=fault))
        if reading.filled is None:
            return False
        if reading.filled.version == template.filled.version:
            template.reading, template.pending = reading, None
            return False
        return self.settled(template, reading)

    def settled(self, template: Template, reading: Reading) -> bool:
        """Whether a changed text has stayed the same for long enough; then it is used and told."""
        assert reading.filled is not None
        now = self.clock()
        waiting = template.pending.filled if template.pending is not None else None
        if waiting is None or waiting.version != reading.filled.version:
            template.pending, template.since = reading, now
        if now - template.since < self.settle:
            return False
        template.cost = self.cost(template, reading)
        template.accept(reading, now=time.time())
        self.changes += 1
        log.info("the template of %s changed: %s", template.prefix, template.cost)
        self.bus.publish(TemplateChanged(prefix=template.prefix, version=reading.filled.version, cost=template.cost))
        return True

    def cost(self, template: Template, reading: Reading) -> str:
        """What going from the text in use to `reading` costs, in words."""
        assert reading.filled is not None
        old, new = template.filled.parts[0], reading.filled.parts[0]
        change = change_of(old, new, before=template.reading.sources, after=reading.sources)
        estimate = self.estimate(template.prefix)
        return sentence(change, tokens_per_byte=estimate.tokens_per_byte, seconds_per_token=estimate.seconds_per_token)


async def watch(catalogues: Callable[[], Iterable[Catalogue]], *, settings: Settings, awake: asyncio.Event) -> None:
    """Look at all files every `warmup_check_interval`, when `awake` is set, and when a change may have settled."""
    while True:
        awake.clear()
        for one in catalogues():
            await one.check()
        due = (one.due for one in catalogues())
        pause = min([settings.config.warmup_check_interval, *(seconds for seconds in due if seconds is not None)])
        await aio.wait_first(awake, timeout=pause)


def read_all(
    paths: Mapping[str, Path], before: Mapping[str, Reading], *, folder: Path, cache: Cache
) -> tuple[dict[str, Reading], Cache]:
    """One look at all files; touches nothing but its arguments, so that it may run in a thread.

    A template at whose files the look hangs is one with a problem; the look goes on with those that come after it.
    """
    readings: dict[str, Reading] = {}
    known: Cache = {}
    while left := {prefix: path for prefix, path in paths.items() if prefix not in readings}:
        look, done = Look(cache), dict[str, Reading]()
        stuck = ""
        try:
            files.patiently(read_each, left, before, folder=folder, look=look, done=done)
        except files.Stuck as error:
            stuck = error.message
        readings |= done.copy()  # the thread that was left behind may come back to it
        known |= look.cache.copy()
        if stuck:
            prefix = next(prefix for prefix in left if prefix not in readings)
            readings[prefix] = unread(prefix, left[prefix], stuck)
    return readings, known


def read_each(
    paths: Mapping[str, Path],
    before: Mapping[str, Reading],
    *,
    folder: Path,
    look: Look,
    done: dict[str, Reading],
) -> None:
    """Read these templates into `done`, one after the other."""
    for prefix, path in paths.items():
        done[prefix] = read_template(prefix, path, folder=folder, look=look, before=before.get(prefix))


def tell(prefix: str, fault: str) -> None:
    """One line in the log when a template breaks, and one when it is mended."""
    if fault:
        log.warning("the template of %s is broken, its last good text stays in use: %s", prefix, fault)
    else:
        log.info("the template of %s is good again", prefix)


def name_problems(prefixes: Mapping[str, Path]) -> list[Problem]:
    """Prefixes that could never be written."""
    text = "a prefix must not be empty, nor begin or end with a blank"
    return [Problem(text, key=f"prefixes.{prefix}") for prefix in prefixes if not prefix or prefix != prefix.strip()]


def pattern_of(prefixes: Mapping[str, Template]) -> re.Pattern[str] | None:
    """One expression for all prefixes, longest first, with what must stand after them; None without any."""
    if not prefixes:
        return None
    names = "|".join(re.escape(prefix) for prefix in sorted(prefixes, key=len, reverse=True))
    return re.compile(rf"({names})(?:\r\n|[ \t\r\n]|\Z)")
