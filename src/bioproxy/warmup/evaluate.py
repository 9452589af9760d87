"""Evaluating one prompt prefix: chunk by chunk, each under a grant of its own, saved under the last one.

The rules that shape the loop:

- *Users first.* A background grant is only given when no client waits, so asking for a new grant before every chunk is
  all that giving way takes. Nothing is cancelled: a cancelled prefill takes llama-server a second to let go of.
- *Nothing twice.* Each chunk sends the prompt from its beginning; the engine finds what it has (`cache_n`) and
  evaluates the rest. The keeper is asked to restore what an older snapshot shares before the first chunk and again
  after somebody else used the engine.
- *The save stands alone* (kv-rule 4): under the last chunk's grant, made exclusive, right after exactly the prompt
  prefix was evaluated. What a conversation left in the slot must never get into a template's snapshot, for templates
  are shared between groups.
- *One chunk or one save* is the longest a user waits: if one arrived during the last chunk and the engine will
  remember what it has, the save is left for later.

What to warm, back-off and states are the runner's business; what a save or restore means is the keeper's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from bioproxy.config.settings import Settings
from bioproxy.engines.answers import Timings
from bioproxy.events import Bus, WarmupStarted, WarmupYielded
from bioproxy.kv.resident import Prepared, Want
from bioproxy.prompt import common
from bioproxy.warmup import plan
from bioproxy.warmup.needs import Engine, Gate, Grant, Keeper
from bioproxy.warmup.prefix import PromptPrefix

log = logging.getLogger(__name__)

SLACK = 8  # tokens at the end of what was counted on that may be missing without meaning anything


class Job(msgspec.Struct, kw_only=True):
    """One prompt prefix to evaluate. `progress` hears (done, evaluated); `current` says whether it is still wanted.

    `older` and `before`: an earlier text of this template and its prompt prefix, to tell what a cache of it is worth.
    """

    prefix: str
    want: Want
    prompt: PromptPrefix
    older: Want | None = None
    before: tuple[int, ...] = ()
    progress: Callable[[int, int], None]
    current: Callable[[], bool]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an evaluation ended; `dropped`: the text changed meanwhile. Seconds are those spent on the engine."""

    status: Literal["saved", "warm", "dropped"]
    evaluated: int
    seconds: float


class Evaluator:
    """Runs jobs on one engine, one at a time, and learns its speed. `warmup.chunk_seconds` bounds each chunk."""

    def __init__(
        self,
        *,
        gate: Gate,
        keeper: Keeper,
        engine: Engine,
        bus: Bus,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.gate = gate
        self.keeper = keeper
        self.engine = engine
        self.bus = bus
        self.settings = settings
        self.clock = clock
        self.pace = plan.Pace()
        self.remembers = True  # another request does not cost what was done: there is a RAM cache, or a slot for each
        self.left: tuple[int, ...] = ()  # what a job evaluated that was dropped or failed: the next goes on from there

    def attached(self, *, remembers: bool) -> None:
        """A new engine process: nothing is measured yet."""
        self.pace = plan.Pace()
        self.remembers = remembers
        self.left = ()

    async def run(self, job: Job) -> Outcome:
        """Evaluate and save; raises what the engine's client raises, after the grant was given back."""
        return await Evaluation(self, job).run()


class Stretch(msgspec.Struct):
    """What was evaluated since the keeper was last asked: several chunks that count as one request for it."""

    prepared: Prepared
    resumed: int = 0  # tokens of an earlier stretch that the engine should have
    cached: int | None = None  # by the first chunk: tells what a restore was worth
    evaluated: int = 0
    prefill: float = 0.0
    known: bool = True  # the engine gave figures for every chunk
    chunks: int = 0

    def add(self, timings: Timings) -> None:
        """Count one chunk."""
        if self.chunks == 0:
            self.cached = timings.cached
        self.chunks += 1
        self.known = self.known and timings.cached is not None and timings.evaluated is not None
        self.evaluated += timings.evaluated or 0
        self.prefill += timings.prefill or 0.0

    def timings(self, length: int) -> Timings:
        """The figures as if all had been one prompt of `length` tokens."""
        if not self.known or self.cached is None:
            return Timings()
        evaluated = length - self.cached
        return Timings(cached=self.cached, evaluated=evaluated, generated=1, prefill=self.prefill or None)


class Evaluation:
    """The state of one job under way."""

    def __init__(self, shop: Evaluator, job: Job) -> None:
        self.shop = shop
        self.job = job
        self.done = common(shop.left, job.prompt.tokens)  # tokens of the prompt that the engine should have
        self.evaluated = 0
        self.seconds = 0.0
        self.foreign = True  # somebody else used the engine since our last chunk
        self.whole = False  # only the save is missing
        self.stretch: Stretch | None = None

    async def run(self) -> Outcome:
        """Turn after turn until the prompt prefix is saved, or resident where it cannot be saved."""
        try:
            while True:
                # for the save we must be alone, so wait until we are: on several slots others run beside a chunk
                grant = await self.shop.gate.acquire(work="background", key=self.job.want, exclusive=self.whole)
                if not self.job.current():
                    grant.release(unsent=True)
                    return self.outcome("dropped")
                status = await self.granted(grant)
                if status is not None:
                    self.shop.left = ()
                    return self.outcome(status)
        finally:
            self.end_stretch()

    async def granted(self, grant: Grant) -> Literal["saved", "warm"] | None:
        """One turn, after which the grant is given back in any case."""
        cut, status = True, None
        try:
            status = await self.turn(grant)
            cut = False
            if status is None and self.shop.gate.user_waiting:  # once the grant is back, whoever waits has it
                self.give_way()
        finally:
            grant.release(cut=cut)
        return status

    def outcome(self, status: Literal["saved", "warm", "dropped"]) -> Outcome:
        """The end, with what it took."""
        return Outcome(status=status, evaluated=self.evaluated, seconds=self.seconds)

    async def turn(self, grant: Grant) -> Literal["saved", "warm"] | None:
        """One chunk under `grant`, and the save if it was the last; None when there is more to do."""
        if self.foreign or self.stretch is None or grant.waited > 0:
            await self.come_back(grant)
        prompt = self.job.prompt
        seconds = self.shop.settings.config.warmup.chunk_seconds
        chunk = plan.chunk(left=prompt.length - self.done, pace=self.shop.pace, seconds=seconds)
        await self.evaluate(prompt.length if prompt.kind == "chat" else self.done + chunk)
        if self.done < prompt.length:
            return None
        self.end_stretch(complete=True)
        return await self.save(grant)

    async def come_back(self, grant: Grant) -> None:
        """Begin, or go on after somebody else used the engine: bring back what can be had for less than prefill."""
        keeper, job = self.shop.keeper, self.job
        self.end_stretch()
        held = keeper.holds(job.want)
        if held and self.foreign:
            await self.keep_conversation(grant)
            held = keeper.holds(job.want)  # something else may have been brought into the slot to be saved
        resident = job.older is not None and keeper.holds(job.older)
        prepared = await keeper.prepare(job.want, grant)
        length = job.prompt.length
        resumed = plan.resume_at(done=self.done, foreign=True, remembers=self.shop.remembers)
        self.stretch = Stretch(prepared, resumed=resumed)
        self.done = length if held else min(length, max(resumed, self.expected(prepared, resident=resident)))
        self.whole = self.whole and self.done == length
        self.foreign = False
        self.shop.bus.publish(WarmupStarted(prefix=job.prefix, tokens=length, done=self.done))

    def expected(self, prepared: Prepared, *, resident: bool) -> int:
        """How many tokens to count on: exact if the engine has the template's older text, which was `resident` before.

        If neither a slot nor a snapshot has that text, the engine's RAM cache may. It gives back what the next prompt
        shares and drops the rest, so a first chunk that ended earlier would cut it off for good. The chunk reaches for
        all of it, unless that would take too long should the RAM cache have lost it.
        """
        older, snapshot = self.job.older, prepared.snapshot
        if older is None:
            return prepared.expected
        shared = common(self.job.before, self.job.prompt.tokens)
        if snapshot is not None:
            return shared if snapshot.end == older.cuts[-1].digest else prepared.expected
        if resident and prepared.status == "resident":
            return shared
        reach = plan.reach(pace=self.shop.pace, seconds=self.shop.settings.config.warmup.chunk_seconds)
        near = self.shop.remembers and shared <= reach
        return max(shared, prepared.expected) if near else prepared.expected

    async def keep_conversation(self, grant: Grant) -> None:
        """The slot holds a conversation that begins with our prompt prefix: its end is about to be cut off."""
        alone = grant.exclusive
        if alone or grant.try_exclusive():
            await self.shop.keeper.moments.save_idle(grant)
            if not alone:
                grant.share()

    async def evaluate(self, end: int) -> None:
        """Let the engine evaluate the prompt up to `end` tokens, and learn from what it says."""
        prompt, started = self.job.prompt, self.shop.clock()
        if prompt.kind == "chat":
            timings = await self.shop.engine.chat(prompt.body)
        else:
            timings = await self.shop.engine.prefill(prompt.first(end), lora=prompt.lora)
        seconds = self.shop.clock() - started
        evaluated = timings.evaluated if timings.evaluated is not None else max(0, end - self.done)
        self.seconds += seconds
        self.evaluated += evaluated
        self.shop.pace = self.shop.pace.measured(tokens=evaluated, seconds=seconds)
        self.learn(timings.cached)
        if self.stretch is not None:
            self.stretch.add(timings)
        self.done = end
        self.shop.left = prompt.tokens[:end]
        self.job.progress(end, self.evaluated)

    def learn(self, cached: int | None) -> None:
        """See from `cached` tokens whether the engine still had what an earlier stretch left."""
        stretch = self.stretch
        if stretch is None or stretch.chunks or stretch.prepared.expected or cached is None:
            return
        if cached < stretch.resumed - SLACK:
            log.debug("%s: the engine had %d of %d tokens left", self.job.prefix, cached, stretch.resumed)
            self.shop.remembers = False

    def end_stretch(self, *, complete: bool = False) -> None:
        """Tell the keeper what became of what it prepared."""
        if self.stretch is not None:
            exact = complete and self.job.prompt.kind == "tokens"
            timings = self.stretch.timings(self.job.prompt.length) if exact else None
            self.shop.keeper.served(self.job.want, self.stretch.prepared, timings, complete=complete)
            self.stretch = None

    async def save(self, grant: Grant) -> Literal["saved", "warm"] | None:
        """Save what was just evaluated; None when that has to wait for a better moment."""
        prompt = self.job.prompt
        if not self.job.current():
            return None  # it was rendered on another day, or the text changed
        if prompt.kind != "tokens":
            return "warm"  # where it ends is not known to the token: no restore could be trusted
        # put off once at most: next time only a token stands before the save, and a busy engine would never get to it
        later = self.shop.gate.user_waiting and self.shop.remembers and not self.whole
        if later or not grant.try_exclusive():
            self.whole = True
            return None
        # what it is worth is its prefill from nothing, however little of that was needed now
        cost = max(self.seconds, prompt.length * self.shop.keeper.speeds.prefill)
        saved = await self.shop.keeper.keep(self.job.want, prompt.length, grant, seconds=cost)
        return "saved" if saved else "warm"

    def give_way(self) -> None:
        """A user goes next; when our turn comes again, the engine will hold something else."""
        self.foreign = True
        job = self.job
        self.shop.bus.publish(WarmupYielded(prefix=job.prefix, tokens=job.prompt.length, done=self.done))
