"""Evaluating one prompt prefix: chunk by chunk, each under a grant of its own, saved under the last one.

The rules that shape the loop:

- *Users first.* A background grant is only given when no client waits, so a grant per chunk is all that giving way
  takes. Nothing is cancelled: a cancelled prefill takes llama-server a second to let go of.
- *Nothing twice.* Each chunk sends the prompt from its beginning; the engine finds what it has (`cache_n`) and
  evaluates the rest.
- *A turn* lasts until another request wants the engine. For the keeper, all chunks of a turn are one request: before
  the first one it restores what an older snapshot shares, and after the last one it notes what the slot holds.
- *The save stands alone* (kv-rule 4): under the last chunk's grant, made exclusive, right after exactly the prompt
  prefix was evaluated. What a conversation left in the slot must never get into a template's snapshot, for templates
  are shared between groups.
- *One chunk or one save* is the longest that a user waits: if a user's request arrives during the last chunk, and the
  engine will remember what it has, the save is left for later.

What to warm, back-off and states are the runner's business; what a save or restore means is the keeper's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from bioproxy.config.settings import Settings
from bioproxy.engines.answers import Timings
from bioproxy.engines.llama import Llama
from bioproxy.events import Bus, WarmupStarted, WarmupYielded
from bioproxy.gate.gate import Gate, Grant
from bioproxy.kv.keeper import Keeper
from bioproxy.kv.resident import Prepared, Want
from bioproxy.prompt import common
from bioproxy.warmup import plan
from bioproxy.warmup.prefix import PromptPrefix

log = logging.getLogger(__name__)

SLACK = 8  # tokens at the end of what was counted on that may be missing without meaning anything

End = Literal["saved", "warm", "dropped"]  # `warm`: resident, but not saved; `dropped`: the text changed


class Job(msgspec.Struct, kw_only=True):
    """One prompt prefix to evaluate, and how far that is. `label`: what the log calls it.

    `current` says whether it is still wanted.

    `older` and `before`: an earlier text of this template and its prompt prefix, to tell what a cache of it is worth.
    `progress` is called with (done, evaluated). `done`: tokens of the prompt that the engine should have; `evaluated`
    and `seconds`: what was spent on the engine. `whole`: only the save is missing.
    """

    prefix: str
    label: str = ""
    want: Want
    prompt: PromptPrefix
    older: Want | None = None
    before: tuple[int, ...] = ()
    progress: Callable[[int, int], None]
    current: Callable[[], bool]
    done: int = 0
    evaluated: int = 0
    seconds: float = 0.0
    foreign: bool = True  # another request may have used the engine since the last chunk
    whole: bool = False


class Evaluator:
    """Evaluates one job at a time on one engine, and learns its speed. `warmup.chunk_seconds` bounds each chunk."""

    def __init__(
        self,
        *,
        gate: Gate,
        keeper: Keeper,
        engine: Llama,
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
        self.attached(remembers=True)

    def attached(self, *, remembers: bool) -> None:
        """A new engine process: nothing is measured yet.

        `remembers`: another request does not cost what was done, for there is a RAM cache or a slot for each.
        """
        self.speed: float | None = None  # tokens per second
        self.remembers = remembers
        self.left: tuple[int, ...] = ()  # what a job evaluated that was dropped or failed: the next goes on from there

    async def run(self, job: Job) -> End:
        """Turn after turn until the prompt prefix is saved, or resident if it cannot be saved.

        Raises what the engine's client raises, after the grant was given back.
        """
        job.done = common(self.left, job.prompt.tokens)
        end: End | None = None
        while end is None:
            # for the save we must be alone, so wait until we are: on several slots others run beside a chunk
            with await self.gate.acquire(work="background", key=job.want, exclusive=job.whole) as grant:
                if not job.current():
                    grant.release(unsent=True)
                    return "dropped"
                end = await self.turn(job, grant)
                if grant.exclusive:
                    await self.keeper.actions.fork()
                if end is None and self.gate.user_waiting:  # who gets the engine when this grant ends
                    self.give_way(job)
        if end != "dropped":
            self.left = ()
        return end

    async def turn(self, job: Job, grant: Grant) -> End | None:
        """Chunk after chunk until another request wants the engine (None), or nothing is left to do."""
        resumed = plan.resume_at(done=job.done, remembers=self.remembers)
        prepared = await self.come_back(job, grant, resumed)
        chunks: list[Timings] = []
        complete = False
        try:
            while not complete and (not chunks or (job.current() and grant.renew())):
                chunks.append(await self.chunk(job))
                complete = job.done == job.prompt.length
        finally:
            exact = complete and job.prompt.kind == "tokens"
            told = as_one(chunks, job.prompt.length) if exact else None
            self.keeper.served(job.want, prepared, told, complete=complete)
            if chunks and not prepared.expected:
                self.learn(job, chunks[0].cached, resumed)
        if not job.current():
            return "dropped"  # it was rendered on another day, or the text changed
        return await self.save(job, grant) if complete else None

    async def come_back(self, job: Job, grant: Grant, resumed: int) -> Prepared:
        """Begin, or go on after another request used the engine: bring back what can be had for less than prefill."""
        keeper, length = self.keeper, job.prompt.length
        held = keeper.holds(job.want)
        if held and job.foreign:
            await self.keep_conversation(grant)
            held = keeper.holds(job.want)  # something else may have been brought into the slot to be saved
        resident = job.older is not None and keeper.holds(job.older)
        prepared = await keeper.prepare(job.want, grant)
        job.done = length if held else min(length, max(resumed, self.expected(job, prepared, resident=resident)))
        job.whole = job.whole and job.done == length
        job.foreign = False
        self.bus.publish(WarmupStarted(prefix=job.prefix, tokens=length, done=job.done))
        return prepared

    def expected(self, job: Job, prepared: Prepared, *, resident: bool) -> int:
        """How many tokens to count on: exact if the engine has the template's older text, which was `resident` before.

        If neither a slot nor a snapshot has that text, the engine's RAM cache may. It gives back what the next prompt
        shares and drops the rest, so a first chunk that ended earlier would cut it off for good. The chunk reaches for
        all of it, unless that would take too long should the RAM cache have lost it.
        """
        older, snapshot = job.older, prepared.snapshot
        if older is None:
            return prepared.expected
        shared = common(job.before, job.prompt.tokens)
        if snapshot is not None:
            return shared if snapshot.end == older.cuts[-1].digest else prepared.expected
        if resident and prepared.status == "resident":
            return shared
        reach = plan.reach(speed=self.speed, seconds=self.settings.config.warmup.chunk_seconds)
        near = self.remembers and shared <= reach
        return max(shared, prepared.expected) if near else prepared.expected

    async def keep_conversation(self, grant: Grant) -> None:
        """The slot holds a conversation that begins with our prompt prefix: its end is about to be cut off."""
        alone = grant.exclusive
        if alone or grant.try_exclusive():
            await self.keeper.moments.save_idle(grant)
            if not alone:
                grant.share()

    async def chunk(self, job: Job) -> Timings:
        """Let the engine evaluate some more of the prompt, and learn its speed from that."""
        prompt, started = job.prompt, self.clock()
        if prompt.kind == "chat":
            end = prompt.length
            timings = await self.engine.chat(prompt.body)
        else:
            left, limit = prompt.length - job.done, self.settings.config.warmup.chunk_seconds
            end = job.done + plan.chunk(left=left, speed=self.speed, seconds=limit)
            timings = await self.engine.prefill(prompt.first(end), lora=prompt.lora)
        seconds = self.clock() - started
        evaluated = timings.evaluated if timings.evaluated is not None else max(0, end - job.done)
        job.seconds += seconds
        job.evaluated += evaluated
        job.done = end
        self.speed = plan.measured(self.speed, tokens=evaluated, seconds=seconds)
        self.left = prompt.tokens[:end]
        job.progress(end, job.evaluated)
        return timings

    def learn(self, job: Job, cached: int | None, resumed: int) -> None:
        """See from what the first chunk found in the cache whether the engine still had what an earlier turn left."""
        if cached is not None and cached < resumed - SLACK:
            log.debug("%s: the engine had %d of %d tokens left", job.label, cached, resumed)
            self.remembers = False

    async def save(self, job: Job, grant: Grant) -> Literal["saved", "warm"] | None:
        """Save what was just evaluated; None when that has to wait for a better moment."""
        prompt = job.prompt
        if prompt.kind != "tokens":
            return "warm"  # where it ends is not known to the token: no restore could be trusted
        # put off once at most: next time only a token stands before the save, and a busy engine would never get to it
        later = self.gate.user_waiting and self.remembers and not job.whole
        if later or not grant.try_exclusive():
            job.whole = True
            return None
        # what it is worth is its prefill from nothing, however little of that was needed now
        cost = max(job.seconds, prompt.length * self.keeper.speeds.prefill)
        return "saved" if await self.keeper.keep(job.want, prompt.length, grant, seconds=cost) else "warm"

    def give_way(self, job: Job) -> None:
        """A user goes next; when our turn comes again, the engine will hold something else."""
        job.foreign = True
        self.bus.publish(WarmupYielded(prefix=job.prefix, tokens=job.prompt.length, done=job.done))


def as_one(chunks: Sequence[Timings], length: int) -> Timings:
    """The figures of `chunks` as if they had been one prompt of `length` tokens; all unknown if any chunk's are."""
    cached = chunks[0].cached
    if cached is None or any(one.cached is None or one.evaluated is None for one in chunks):
        return Timings()
    prefill = sum(one.prefill or 0.0 for one in chunks)
    return Timings(cached=cached, evaluated=length - cached, generated=1, prefill=prefill or None)
