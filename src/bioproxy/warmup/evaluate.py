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
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from bioproxy.events import Bus, WarmupStarted, WarmupYielded
from bioproxy.kv.keeper import Prepared, Want
from bioproxy.warmup import plan
from bioproxy.warmup.prefix import PromptPrefix

log = logging.getLogger(__name__)

SLACK = 8  # tokens at the end of what was counted on that may be missing without meaning anything


class Grant(Protocol):
    """The right to use the engine (gate/gate.py)."""

    @property
    def waited(self) -> float:
        """Seconds in the queue."""

    def try_exclusive(self) -> bool:
        """Have the engine alone; False when something else runs."""

    def share(self) -> None:
        """Let others in again."""

    def release(self, *, cut: bool = False) -> None:
        """Give the engine back."""


class Gate(Protocol):
    """What a warm-up needs of the gate."""

    @property
    def user_waiting(self) -> bool:
        """Whether a client waits."""

    async def acquire(self, *, work: Literal["background"], key: object, exclusive: bool) -> Grant:
        """Wait for a background grant."""


class Keeper(Protocol):
    """What a warm-up needs of the keeper (kv/keeper.py)."""

    def holds(self, want: Want) -> bool:
        """Whether the slot holds all of `want`."""

    async def prepare(self, want: Want, grant: Any) -> Prepared:
        """Restore what pays."""

    def served(self, want: Want, prepared: Prepared, timings: Any, *, complete: bool) -> None:
        """The prompt of `want` was evaluated."""

    def unknown(self, reason: str) -> None:
        """What the slot holds is none of the known conversations."""

    async def save_idle(self, grant: Any) -> int:
        """Save the conversation in the slot if it grew and that pays."""

    async def keep(self, want: Want, tokens: int, grant: Any, *, seconds: float) -> bool:
        """Save the prompt prefix in the slot."""


class Timings(Protocol):
    """The engine's own count of one call; None is "it did not say"."""

    @property
    def cached(self) -> int | None:
        """Tokens that it had."""

    @property
    def evaluated(self) -> int | None:
        """Tokens that it computed."""


class Engine(Protocol):
    """The calls that compute."""

    async def prefill(self, prompt: Sequence[int] | str, *, lora: bytes = b"") -> Timings:
        """Evaluate `prompt`, generate nothing."""

    async def chat(self, body: bytes) -> Timings:
        """One chat request."""


class Job(msgspec.Struct, kw_only=True):
    """One prompt prefix to evaluate. `progress` hears (done, evaluated); `current` says whether it is still wanted."""

    prefix: str
    want: Want
    prompt: PromptPrefix
    shared: int = 0  # tokens that an older text of this template is known to share; 0: not known
    progress: Callable[[int, int], None]
    current: Callable[[], bool]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an evaluation ended; `dropped`: the text changed meanwhile. Seconds are those spent on the engine."""

    status: Literal["saved", "warm", "dropped"]
    evaluated: int
    seconds: float


def has_ram_cache(command: Sequence[str]) -> bool:
    """Whether the launch arguments leave llama-server's RAM cache on (its default)."""
    line = " ".join(command)
    return re.search(r"(?:--cache-ram|-cram)[ =]0(?: |$)", line) is None


class Evaluator:
    """Runs jobs on one engine, one at a time, and learns its speed. `chunk_seconds`: the longest a chunk may take."""

    def __init__(
        self,
        *,
        gate: Gate,
        keeper: Keeper,
        engine: Engine,
        bus: Bus,
        chunk_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.gate = gate
        self.keeper = keeper
        self.engine = engine
        self.bus = bus
        self.chunk_seconds = chunk_seconds
        self.clock = clock
        self.pace = plan.Pace()
        self.remembers = True  # another request does not cost what was done: there is a RAM cache, or a slot for each

    def attached(self, command: Sequence[str], *, slots: int) -> None:
        """A new engine process, started with `command` (empty where it cannot be read): nothing is measured yet."""
        self.pace = plan.Pace()
        self.remembers = slots > 1 or has_ram_cache(command)

    async def run(self, job: Job) -> Outcome:
        """Evaluate and save; raises what the engine's client raises, after the grant was given back."""
        return await Evaluation(self, job).run()


class Evaluation:
    """The state of one job under way."""

    def __init__(self, shop: Evaluator, job: Job) -> None:
        self.shop = shop
        self.job = job
        self.done = 0  # tokens of the prompt that the engine should have
        self.evaluated = 0
        self.seconds = 0.0
        self.foreign = True  # somebody else used the engine since our last chunk
        self.whole = False  # the prompt prefix was evaluated to its end at least once
        self.prepared = Prepared()

    async def run(self) -> Outcome:
        """Turn after turn until the prompt prefix is saved, or resident where it cannot be saved."""
        while True:
            # once only the save is missing, wait until we are alone: on several slots others may run beside a chunk
            grant = await self.shop.gate.acquire(work="background", key=self.job.want, exclusive=self.whole)
            if not self.job.current():
                grant.release()
                return self.outcome("dropped")
            status = await self.granted(grant)
            if status is not None:
                return self.outcome(status)
            self.give_way()

    async def granted(self, grant: Grant) -> Literal["saved", "warm"] | None:
        """One turn, after which the grant is given back in any case."""
        cut = True
        try:
            status = await self.turn(grant)
            cut = False
        finally:
            if cut:
                self.shop.keeper.unknown(f"a warm-up of {self.job.prefix} was cut short")
            grant.release(cut=cut)
        return status

    def outcome(self, status: Literal["saved", "warm", "dropped"]) -> Outcome:
        """The end, with what it took."""
        return Outcome(status=status, evaluated=self.evaluated, seconds=self.seconds)

    async def turn(self, grant: Grant) -> Literal["saved", "warm"] | None:
        """One chunk under `grant`, and the save if it was the last; None when there is more to do."""
        if self.foreign or grant.waited > 0:
            await self.come_back(grant)
        prompt = self.job.prompt
        if prompt.kind == "chat":
            await self.evaluate(prompt.length)
            return "warm"
        left = prompt.length - self.done
        await self.evaluate(self.done + plan.chunk(left=left, pace=self.shop.pace, seconds=self.shop.chunk_seconds))
        if self.done < prompt.length:
            self.shop.keeper.unknown(f"a warm-up of {self.job.prefix} is under way")
            return None
        self.whole = True
        return await self.save(grant)

    async def come_back(self, grant: Grant) -> None:
        """Begin, or go on after somebody else used the engine: bring back what can be had for less than prefill."""
        keeper, job = self.shop.keeper, self.job
        if keeper.holds(job.want):
            self.prepared = Prepared(status="resident", expected=job.prompt.length)
            await self.keep_conversation(grant)
        else:
            self.prepared = await keeper.prepare(job.want, grant)
        done = plan.resume_at(done=self.done, foreign=True, remembers=self.shop.remembers)
        if self.prepared.expected:
            done = max(done, job.shared or self.prepared.expected)
        self.done = min(done, job.prompt.length)
        self.whole = self.whole and self.done == job.prompt.length
        self.foreign = False
        self.shop.bus.publish(WarmupStarted(prefix=job.prefix, tokens=job.prompt.length, done=self.done))

    async def keep_conversation(self, grant: Grant) -> None:
        """The slot holds a conversation that begins with our prompt prefix: its end is about to be cut off."""
        if self.foreign and grant.try_exclusive():
            await self.shop.keeper.save_idle(grant)
            if not self.whole:
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
        self.done = end
        self.job.progress(end, self.evaluated)
        if end == prompt.length:
            self.shop.keeper.served(self.job.want, self.prepared, timings, complete=True)

    def learn(self, cached: int | None) -> None:
        """See from `cached` tokens whether the engine still had what we counted on."""
        if self.prepared.status == "" and cached is not None and cached < self.done - SLACK:
            log.debug("%s: the engine had %d of %d tokens left", self.job.prefix, cached, self.done)
            self.shop.remembers = False

    async def save(self, grant: Grant) -> Literal["saved", "warm"] | None:
        """Save what was just evaluated; None when that has to wait for a better moment."""
        if self.job.prompt.kind != "tokens":
            return "warm"  # its end is not known to the token: a restore could not be trusted
        if self.shop.gate.user_waiting and self.shop.remembers:
            return None
        if not grant.try_exclusive():
            return None
        prompt = self.job.prompt
        cost = prompt.length / self.shop.pace.speed if self.shop.pace.speed else self.seconds
        saved = await self.shop.keeper.keep(self.job.want, prompt.length, grant, seconds=max(cost, self.seconds))
        return "saved" if saved else "warm"

    def give_way(self) -> None:
        """Between two turns: note when a user goes first."""
        if self.shop.gate.user_waiting:
            self.foreign = True
            done = self.done
            self.shop.bus.publish(WarmupYielded(prefix=self.job.prefix, tokens=self.job.prompt.length, done=done))
