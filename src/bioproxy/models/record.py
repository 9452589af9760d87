"""What the schedule knows of one model: its settings, its process's state, who runs on it and who waits for it."""

from __future__ import annotations

import math
from collections import deque

import msgspec

from bioproxy.models.costs import likelihood, seconds_back
from bioproxy.models.effects import StopReason
from bioproxy.models.state import State
from bioproxy.models.waits import COMING, GOING, Part, Waits
from bioproxy.models.wish import Wish
from bioproxy.station import Price

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # seconds between starts that fail in a row
SOUND = 10.0  # seconds that a process must have been ready, or it ended early
EARLY = 3  # early ends in a row, the last of which counts as a start that failed
PING_PONG = 3  # swaps between the same two models within `max_wait`, from which on a model that was loaded stays


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What decides when a model runs. Times are seconds.

    `launch` is everything that shapes the process, as one text: if it changes, a reload has to restart it.
    `min_resident` None: as long as its load took, but only once two models take turns. `limit`: requests at once
    before 429, 0 for none. `ttl` 0: never.
    """

    id: str
    launch: str = ""
    ttl: float = 0.0
    limit: int = 0
    priority: int = 0
    linger: float = 5.0
    min_resident: float | None = None
    unload_timeout: float = 10.0  # for requests that run when it is unloaded, and again for the process to end
    swap_grace: float = 10.0  # for the process to end when another model waits


class ModelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One model as it is now. Times are the caller's clock; `unload_at` and `retry_at` 0: does not apply."""

    model: str
    state: State
    since: float
    running: int
    waiting: int
    starts: int
    load_seconds: float | None
    last_used: float
    unload_at: float
    failures: int
    retry_at: float
    reason: str


class Record:
    """One model. Only `book.py` and `round.py` change it."""

    def __init__(self, settings: ModelSettings, *, now: float) -> None:
        self.settings = settings
        self.name = settings.id
        self.state = State.STOPPED
        self.since = now
        self.life = 0  # number of the newest process, unique in the whole schedule
        self.starts = 0
        self.running: set[Wish] = set()
        self.waiting: dict[int, Wish] = {}  # by number, so in order of arrival
        # A swap to it was decided and it starts when these are gone; None: no such thing.
        self.displaces: frozenset[str] | None = None
        self.start_at = -math.inf  # not before, for a second try
        self.again = False  # its load is the second try
        self.leaving: StopReason | None = None  # stops when nothing runs any more, or at `leave_by`
        self.leave_by = 0.0
        self.removed = False  # no longer configured, only its process is left
        self.started_at = 0.0
        self.load_seconds: float | None = None
        self.used = False  # since it is ready, by a request or because a load asked for it
        self.last_used = now
        self.tools_at = -math.inf  # when an answer that ended in tool calls was out
        self.freed_at = -math.inf  # the end of a process that had been ready, or was stopped
        self.failures = 0  # in a row
        self.early_ends = 0  # processes in a row that ended soon after they were ready
        self.turns: dict[str, deque[float]] = {}  # the newest swaps with another model, in either direction
        self.retry_at = 0.0
        self.reason = ""  # the newest failure's
        self.price = Price()
        self.waits = Waits()
        self.stage: Part = ""  # how far its start is, or the stop of those that make room for it

    @property
    def present(self) -> bool:
        """Whether it has memory that others may need, or is about to."""
        return self.state.live or self.displaces is not None

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for it."""
        return bool(self.waiting)

    def first(self) -> Wish:
        """Of those that wait, the one that arrived first; somebody does."""
        return next(iter(self.waiting.values()))

    def serves(self) -> bool:
        """Whether requests may go to it."""
        return self.state is State.READY and self.leaving is None

    def backing_off(self, now: float) -> bool:
        """Whether requests are told at once that its start failed."""
        return self.state is State.FAILED and self.displaces is None and now < self.retry_at

    def part(self, now: float, *, why: Part) -> Part:
        """What those who wait for it wait for; `why` nothing was decided for it yet, if nothing was."""
        if self.state is State.STARTING:
            return self.stage if self.stage in COMING else "start"
        if self.displaces is not None and now < self.start_at:
            return "pause"
        if self.displaces is not None or self.state is State.STOPPING:
            return self.stage if self.stage in GOING else "stop"
        return "in_use" if self.state is State.READY else why

    def held_until(self, other: Record, *, since: float) -> tuple[float, Part]:
        """Until when a swap to `other` is held back (no longer than that one's `max_wait`), and by what.

        A model stays for `min_resident` seconds. If nobody set these, it stays as long as its load took, and only if
        the two took turns too often after `since`, or if somebody waits for it: a machine that idles while one waits
        for a first swap helps nobody.
        """
        stay = self.settings.min_resident
        if stay is None:
            turns = self.turns.get(other.name)
            taking_turns = turns is not None and len(turns) == PING_PONG and turns[0] >= since
            stay = self.load_seconds or 0.0 if taking_turns or self.wanted else -math.inf
        linger = self.tools_at + self.settings.linger
        resident = self.since + stay if self.used else -math.inf
        return (linger, "linger") if linger >= resident else (resident, "min_resident")

    def note_turn(self, other: Record, now: float) -> None:
        """A swap between this model and `other` was decided."""
        turns = self.turns.get(other.name) or deque(maxlen=PING_PONG)
        turns.append(now)
        self.turns[other.name] = other.turns[self.name] = turns

    def unload_at(self) -> float:
        """When its time to live is over; infinity where it has none or is in use."""
        idle = self.serves() and not self.running and not self.waiting
        return self.last_used + self.settings.ttl if idle and self.settings.ttl > 0 else math.inf

    def fault(self, reason: str, now: float) -> None:
        """Count a start that failed: the next one is tried after 1, 2, 4, … 60 s."""
        self.failures += 1
        self.reason = reason
        self.retry_at = now + min(FIRST_DELAY * 2.0 ** (min(self.failures, 16) - 1), LONGEST_DELAY)

    def forgive(self) -> None:
        """Forget the failures: somebody asked explicitly, or the configuration changed."""
        self.failures = 0
        self.retry_at = 0.0
        self.early_ends = 0

    def cost(self, now: float) -> float:
        """What stopping it would cost, in seconds; who runs on it will come back as surely as who waits."""
        needed = likelihood(waiting=len(self.waiting) + len(self.running), idle=now - self.last_used)
        return seconds_back(self.price, self.load_seconds) * needed

    def statistics(self) -> ModelStatistics:
        """What there is to know, as a value."""
        unload_at = self.unload_at()
        return ModelStatistics(
            model=self.name,
            state=self.state,
            since=self.since,
            running=len(self.running),
            waiting=len(self.waiting),
            starts=self.starts,
            load_seconds=self.load_seconds,
            last_used=self.last_used,
            unload_at=0.0 if math.isinf(unload_at) else unload_at,
            failures=self.failures,
            retry_at=self.retry_at,
            reason=self.reason,
        )
