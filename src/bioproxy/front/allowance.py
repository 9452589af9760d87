"""What each API key used today, and whether it may use more: `tokens_per_day`.

The day is the machine's own, from midnight to midnight, so that "when may I again?" has an answer that a person
can remember. What counts is what the engine says that a request cost, prompt and answer, whether the prompt came out
of the cache or not. That is known when the answer ends, so a key is asked for twice: before its request is read, and
once more when it is its turn, after what ran meanwhile was counted. What runs at once may pass the limit together.

Of an answer that broke off the engine said nothing, and some engines say nothing of a stream that nobody asked them to
(vLLM, without `stream_options.include_usage`): then its prompt is estimated by what the engine took prompts of that
length for, and its tokens by the events that came. Without that, whoever hangs up before the last event, or does not
ask, would use nothing.

A crash forgets the last seconds (`PAUSE`), a restart nothing: the counts are in a file of the state folder. Keys are
known by their names there, so a key that is changed for another one keeps what was used; keys of one name count as one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bioproxy import files
from bioproxy.config.schema import Config
from bioproxy.config.settings import Settings
from bioproxy.errors import TokensSpent
from bioproxy.front.exchange import Exchange
from bioproxy.keys import Keyring, Principal
from bioproxy.wire.http1.message import Headers

log = logging.getLogger(__name__)

FILE = "tokens.json"
LARGEST = 16 << 20  # bytes of that file
PAUSE = 5.0  # seconds between two writes
PATIENCE = 60  # seconds that official SDKs wait if `Retry-After` says so; if it says more they ask again at once
HOUR, MINUTE = 3600, 60
RATE = b"-Ratelimit-"  # in the names of headers that say how many tokens are left


class Used(msgspec.Struct):
    """Tokens that the engine counted for a key, the requests that they are of, and those that were refused."""

    prompt: int = 0
    generated: int = 0
    requests: int = 0
    refused: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt + self.generated


class KeyStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a key used since local midnight, and since the program started.

    `left`: tokens until `resets` (unix time), None if it may use any number.
    """

    key: str
    tokens_per_day: int
    left: int | None
    resets: float
    today: Used
    total: Used


class Day(msgspec.Struct):
    """The file: a local date, and what each key used on it."""

    date: str = ""
    keys: dict[str, Used] = {}


class Allowances:
    """The counts of all keys. `folder` None: nothing is kept on disk."""

    def __init__(
        self, settings: Settings, folder: Path | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.settings, self.folder, self.clock = settings, folder, clock
        self.today: defaultdict[str, Used] = defaultdict(Used)
        self.total: defaultdict[str, Used] = defaultdict(Used)
        self.begins = self.ends = 0.0  # of today
        self.changed = asyncio.Event()
        self.failing = False

    # a request

    def check(self, exchange: Exchange) -> None:
        """TokensSpent if the key of this request has none left; else its answer says how many are."""
        principal, responder = exchange.principal, exchange.responder
        assert principal is not None
        limit, now = principal.tokens_per_day, self.now()
        used = self.today[principal.name]
        if not responder.started:
            responder.extra = [pair for pair in responder.extra if RATE not in pair[0]]  # of the check before this one
            responder.extra += told(limit, max(0, limit - used.tokens), now, self.ends, exchange.dialect)
        if used.tokens < limit:
            return
        self.note(principal.name, Used(refused=1))
        wait = max(1, math.ceil(self.ends - now))
        if wait > PATIENCE and not responder.started:
            responder.extra.append((b"X-Should-Retry", b"false"))
        again = time.strftime("%H:%M %Z", time.localtime(self.ends)).strip()
        raise TokensSpent(
            f"the key {principal.name!r} has used {used.tokens:,} tokens today and may use {limit:,} (tokens_per_day); "
            f"it may again at {again}, in {in_words(wait)}",
            retry_after=wait,
        )

    def count(self, exchange: Exchange) -> None:
        """A request of a key has ended: count what its engine said that it cost."""
        assert exchange.principal is not None
        if exchange.tail.first is None or exchange.record.status != 200:
            return
        self.now()
        prompt, generated = tokens_of(exchange)
        if prompt or generated:
            self.note(exchange.principal.name, Used(prompt, generated, requests=1))

    def note(self, key: str, more: Used) -> None:
        for used in (self.today[key], self.total[key]):
            used.prompt += more.prompt
            used.generated += more.generated
            used.requests += more.requests
            used.refused += more.refused
        self.changed.set()

    def now(self) -> float:
        """The time; if it is another day than it was, that begins with nothing used."""
        now = self.clock()
        if not self.begins <= now < self.ends:  # a clock that is set back begins a day, too
            self.begins, self.ends = midnight(now), midnight(now, days=1)
            self.today.clear()
        return now

    # what is shown

    def statistics(self) -> tuple[KeyStatistics, ...]:
        """All keys of the configuration, in its order."""
        self.now()
        return tuple(self.of(principal) for principal in self.settings.made(principals).values())

    def of(self, principal: Principal) -> KeyStatistics:
        name, limit = principal.name, principal.tokens_per_day
        today, total = self.today.get(name, Used()), self.total.get(name, Used())
        left = max(0, limit - today.tokens) if limit else None
        return KeyStatistics(
            key=name, tokens_per_day=limit, left=left, resets=self.ends, today=copied(today), total=copied(total)
        )

    # on disk

    async def load(self) -> None:
        """Read what was used today before this start."""
        if self.folder is None:
            return
        try:
            data = await files.away(files.read, self.folder / FILE, most=LARGEST)
            day = msgspec.json.decode(data, type=Day)
        except FileNotFoundError:
            return
        except (OSError, ValueError, files.Stuck) as error:  # msgspec's errors are ValueErrors
            said = "what keys used today cannot be read (%s): %s; it counts anew"
            log.warning(said, self.folder / FILE, files.in_short(error))
            return
        if day.date == date_of(self.now()):
            self.today.update(day.keys)

    async def run(self) -> None:
        """Keep the file up to date: a service that never ends by itself."""
        while True:
            await self.changed.wait()
            await asyncio.sleep(PAUSE)
            await self.flush()

    async def flush(self) -> None:
        """Write now, if something is not written yet. A fault is logged once, and it is tried again."""
        if self.folder is None or not self.changed.is_set():
            return
        self.changed.clear()
        data = msgspec.json.encode(Day(date_of(self.now()), dict(self.today)))
        try:
            await files.away(files.write_whole, self.folder / FILE, data)
        except (OSError, files.Stuck) as error:
            if not self.failing:
                said = "what keys used today cannot be kept in %s: %s; a restart forgets it"
                log.warning(said, self.folder, files.in_short(error))
            self.failing = True
            self.changed.set()
        else:
            self.failing = False


def principals(config: Config) -> dict[str, Principal]:
    """Who the keys of a configuration belong to, by name; of several of one name the last one's limit is shown."""
    return {principal.name: principal for _, principal in Keyring(config.api_keys).principals.values()}


def copied(used: Used) -> Used:
    return msgspec.structs.replace(used)


def tokens_of(exchange: Exchange) -> tuple[int, int]:
    """Tokens of a prompt and of its answer: by the engine's own count, or about, if it told none."""
    timings, tail = exchange.answer().timings, exchange.tail
    prompt, generated = timings.given, timings.generated
    if timings.evaluated is not None:
        prompt = (timings.cached or 0) + timings.evaluated
    last = tail.last()
    untold = exchange.record.outcome != "ok" or (prompt is None and generated is None)
    if untold and tail.events and last:
        events = last.count(b"\n\n") + last.count(b"\r\n\r\n")
        generated = max(generated or 0, tail.total * events // len(last))
        prompt = exchange.guessed if prompt is None else prompt
    return prompt or 0, generated or 0


def midnight(now: float, *, days: int = 0) -> float:
    """The local midnight before `now`, or so many days after that one: a day may have 23 or 25 hours."""
    day = time.localtime(now)
    found = time.mktime((day.tm_year, day.tm_mon, day.tm_mday + days, 0, 0, 0, 0, 0, -1))
    # Where summer time ends an hour after midnight (Havana, the Azores) the day has two, and `mktime` means the second.
    return found - HOUR if date_of(found - HOUR) == date_of(found) else found


def date_of(now: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(now))


def in_words(seconds: int) -> str:
    """`5 h 12 min`, `40 s`."""
    if seconds < MINUTE:
        return f"{seconds} s"
    hours, minutes = divmod(-(-seconds // MINUTE), HOUR // MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def told(limit: int, left: int, now: float, ends: float, dialect: str) -> Headers:
    """What an answer's headers say of the limit, by the names that the dialect's clients know."""
    if dialect == "anthropic":
        reset = datetime.fromtimestamp(math.ceil(ends), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        prefix, names = b"Anthropic" + RATE + b"Tokens-", (b"Limit", b"Remaining", b"Reset")
    else:
        minutes, seconds = divmod(max(0, math.ceil(ends - now)), MINUTE)
        reset = f"{minutes // 60}h{minutes % 60}m{seconds}s"
        prefix, names = b"X" + RATE, (b"Limit-Tokens", b"Remaining-Tokens", b"Reset-Tokens")
    values = (b"%d" % limit, b"%d" % left, reset.encode())
    return [(prefix + name, value) for name, value in zip(names, values, strict=True)]
