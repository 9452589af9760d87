"""The warm-up's loop: looks for templates that changed, and warms one prompt prefix after another.

Two tasks share the table of targets. One *looks*: every `warmup_check_interval`, or when woken, it lets the catalogue
look at the files and brings the table up to date. The other *works*: it takes what `plan.pick` says, finds the prompt
prefix, and hands it to the evaluator. So a change is seen while a long warm-up runs, and the evaluator, which asks
between two chunks whether its text is still wanted, begins anew with the right one.

Nothing is evaluated twice: a target whose snapshot the keeper has is `saved` without a token, and one that is `warm`
stays so until its text or the engine changes. An engine's fault is the target's fault only for a while: it is tried
again after a back-off, and at once when the engine is back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from msgspec.structs import replace

from bioproxy import aio
from bioproxy.config.schema import Warmup
from bioproxy.engines.llama import EngineFacts
from bioproxy.errors import BioproxyError, EngineProtocolError, EngineRefused, EngineUnavailable, NotFound
from bioproxy.events import Bus, WarmupChecked, WarmupEnded, WarmupFailed
from bioproxy.kv.keeper import Want
from bioproxy.prompt import Head, Piece
from bioproxy.templates.catalogue import Filled
from bioproxy.templates.expand import template_pieces
from bioproxy.warmup import evaluate, plan
from bioproxy.warmup.heads import Heads, HeadsStatistics, name_of
from bioproxy.warmup.prefix import PromptPrefix, Renderer, chat_prefix, find

log = logging.getLogger(__name__)

TOO_LONG = "exceed_context_size"  # llama-server's own words for a prompt that does not fit


class TargetStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt prefix: `state` is one word, `text` the same with figures; counts are tokens."""

    prefix: str
    head: str
    version: str
    state: plan.Phase
    text: str
    done: int
    total: int
    evaluated: int
    seconds: float
    failures: int


class RunnerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The warm-up at one moment; `speed` is the measured prefill in tokens per second."""

    enabled: bool
    ready: bool
    speed: float | None
    checks: int
    targets: tuple[TargetStatistics, ...]
    heads: HeadsStatistics


class Catalogue(Protocol):
    """What a warm-up needs of the catalogue (templates/catalogue.py)."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """All prefixes, in order."""

    async def check(self) -> tuple[str, ...]:
        """Look at the files."""

    def current(self, prefix: str) -> Filled:
        """The text to use."""


class Keeper(evaluate.Keeper, Protocol):
    """What a warm-up needs of the keeper beside an evaluation."""

    def want(self, pieces: Sequence[Piece], *, group: str, prefix: str, version: str, store: bool = True) -> Want:
        """Name a prompt."""

    def has_snapshot(self, want: Want) -> object | None:
        """The verified snapshot of exactly `want`."""


class Engine(evaluate.Engine, Renderer, Protocol):
    """The engine's client: what computes, and what renders."""


class Runner:
    """Keeps templates warm on one engine.

    `interval`: seconds between looks; `margin`: tokens to leave off an engine's prompt prefixes (SWA, hybrid).
    """

    def __init__(
        self,
        *,
        config: Warmup,
        interval: float,
        gate: evaluate.Gate,
        keeper: Keeper,
        catalogue: Catalogue,
        engine: Engine,
        heads: Heads,
        bus: Bus,
        margin: Callable[[EngineFacts], int] = lambda _facts: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.interval = interval
        self.keeper = keeper
        self.catalogue = catalogue
        self.engine = engine
        self.heads = heads
        self.bus = bus
        self.margin = margin
        self.clock = clock
        self.evaluator = evaluate.Evaluator(
            gate=gate, keeper=keeper, engine=engine, bus=bus, chunk_seconds=config.chunk_seconds, clock=clock
        )
        self.facts: EngineFacts | None = None
        self.generation = 0
        self.targets: dict[plan.Key, plan.Target] = {}
        self.parked: dict[plan.Key, plan.Target] = {}  # of heads that are not among the newest at the moment
        self.head_of: dict[plan.Key, Head] = {}
        self.tokens: dict[plan.Key, tuple[int, ...]] = {}  # the last prompt prefix of each target, to compare with
        self.checks = 0
        self.awake = asyncio.Event()  # look now
        self.news = asyncio.Event()  # there may be work
        heads.on_change = self.wake

    # What others tell

    def wake(self) -> None:
        """Look now: a file changed, a head became worth it, the configuration is another."""
        self.awake.set()

    def attached(self, facts: EngineFacts) -> None:
        """The engine is ready, and may be another one: everything is looked at again."""
        self.facts = facts
        self.generation += 1
        self.evaluator.attached(facts.command, slots=facts.slots)
        self.targets = plan.forgotten(self.targets)
        self.parked.clear()
        self.tokens.clear()
        self.news.set()

    def gone(self) -> None:
        """The engine is away: nothing is begun until `attached`."""
        self.facts = None
        self.generation += 1
        self.targets = plan.forgotten(self.targets)

    def configure(self, config: Warmup, *, interval: float) -> None:
        """Take over a changed configuration."""
        self.config = config
        self.interval = interval
        self.evaluator.chunk_seconds = config.chunk_seconds
        self.heads.limit = config.heads
        self.wake()

    async def warm(self, prefix: str) -> tuple[TargetStatistics, ...]:
        """Look at `prefix` now, also where warm-up is off or failed; its states. NotFound if there is none."""
        if prefix not in self.catalogue.prefixes:
            known = ", ".join(self.catalogue.prefixes) or "none"
            raise NotFound(f"there is no prefix {prefix}; known prefixes: {known}")
        await self.look()
        for target in self.of(prefix):
            phase = target.phase if target.phase == "warming" else "waiting"
            self.put(replace(target, phase=phase, asked=True, failures=0, reason=""))
        self.news.set()
        return tuple(self.describe(target) for target in self.of(prefix))

    # What others ask

    def too_long(self, prefix: str) -> str:
        """Why the template of `prefix` cannot be used (`too long: 61,233 of 32,768 tokens`), or empty."""
        targets = self.of(prefix)
        if targets and all(target.phase == "too long" for target in targets):
            return plan.describe(targets[0])
        return ""

    def of(self, prefix: str) -> list[plan.Target]:
        """The targets of one prefix."""
        return [target for target in self.targets.values() if target.prefix == prefix]

    def describe(self, target: plan.Target) -> TargetStatistics:
        """One target as others see it."""
        off = not self.config.enabled and not target.asked and target.phase == "waiting"
        shown = replace(target, phase="off") if off else target
        return TargetStatistics(
            prefix=shown.prefix,
            head=shown.head,
            version=shown.version,
            state=shown.phase,
            text=plan.describe(shown),
            done=shown.done,
            total=shown.total,
            evaluated=shown.evaluated,
            seconds=shown.seconds,
            failures=shown.failures,
        )

    def statistics(self) -> RunnerStatistics:
        """The state of every target, and the measured speed."""
        return RunnerStatistics(
            enabled=self.config.enabled,
            ready=self.facts is not None,
            speed=self.evaluator.pace.speed,
            checks=self.checks,
            targets=tuple(self.describe(target) for target in self.targets.values()),
            heads=self.heads.statistics(),
        )

    # The two tasks

    async def run(self) -> None:
        """Look and work until cancelled; a guarded service."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.keep_looking(), name="warm-up looks")
                group.create_task(self.keep_working(), name="warm-up works")
        finally:
            await aio.shielded(self.heads.save())

    async def keep_looking(self) -> None:
        """Look at once, then at every interval and whenever woken."""
        while True:
            self.awake.clear()
            await self.look()
            await aio.wait_first(self.awake, timeout=self.interval)

    async def look(self) -> None:
        """Let the catalogue look at its files, and bring the table of targets up to date."""
        await self.catalogue.check()
        self.heads.forget()
        await self.heads.save()
        self.checks += 1
        self.bus.publish(WarmupChecked())
        self.refresh()
        self.news.set()

    def refresh(self) -> None:
        """Bring the table of targets up to date: every prefix, with each head that is worth it."""
        prefixes, known = self.catalogue.prefixes, self.parked | self.targets
        self.head_of = {(prefix, name_of(head)): head for prefix in prefixes for head in self.heads.top(prefix)}
        versions = {prefix: self.catalogue.current(prefix).version for prefix in prefixes}
        self.targets = plan.merge(known, [(prefix, head, versions[prefix]) for prefix, head in self.head_of])
        left = (target for key, target in known.items() if key not in self.targets)
        self.parked = {target.key: target for target in left if target.version == versions.get(target.prefix)}

    async def keep_working(self) -> None:
        """Take the next target, or sleep until there may be one."""
        while True:
            self.news.clear()
            targets, now = self.targets.values(), self.clock()
            target = plan.pick(targets, now=now, enabled=self.config.enabled) if self.facts else None
            if target is None:
                await aio.wait_first(self.news, timeout=plan.pause(targets, now=now, longest=3600.0))
            else:
                await self.attempt(target)

    # One target

    def put(self, target: plan.Target) -> None:
        """Note a target's new state, unless it is not wanted any more."""
        known = self.targets.get(target.key)
        if known is not None and known.version == target.version:
            self.targets[target.key] = target

    async def attempt(self, target: plan.Target) -> None:
        """Work on `target`, and turn a fault into a state and a back-off: others must not wait for it."""
        generation = self.generation
        try:
            await self.work(target, generation)
        except BioproxyError as error:
            if generation == self.generation:  # else the engine went away, and its fault with it
                self.fault(target, error, error.message)
        except Exception as error:
            log.exception("the warm-up of %s broke", target.prefix)
            self.fault(target, error, f"a fault in bioproxy: {error!r}")

    def fault(self, target: plan.Target, error: Exception, reason: str) -> None:
        """Note and tell why `target` is not warm."""
        if isinstance(error, EngineRefused) and TOO_LONG in reason:
            known, limit = self.targets.get(target.key, target), self.facts.context if self.facts else 0
            self.put(replace(known, phase="too long", limit=limit, asked=False))
            return
        log.warning("warm-up of %s failed: %s", target.prefix, reason)
        self.put(plan.failed(target, reason=reason, now=self.clock()))
        self.bus.publish(WarmupFailed(prefix=target.prefix, type=kind(error), reason=reason))

    async def work(self, target: plan.Target, generation: int) -> None:
        """Evaluate `target` unless there is a snapshot of it, or it does not fit."""
        assert self.facts is not None
        head, filled = self.head_of[target.key], self.catalogue.current(target.prefix)
        want = self.keeper.want(template_pieces(head, filled), group="", prefix=target.prefix, version=filled.version)
        if self.keeper.has_snapshot(want) is not None:
            self.put(replace(target, phase="saved", asked=False))
            return
        prompt = await self.prompt(head, filled, self.facts)
        target = replace(target, phase="warming", done=0, total=prompt.length)
        if 0 < self.facts.context <= prompt.length:
            self.put(replace(target, phase="too long", limit=self.facts.context, asked=False))
            return
        self.put(target)
        outcome = await self.evaluator.run(self.job(target, want, prompt, generation))
        self.ended(target, prompt, outcome)

    async def prompt(self, head: Head, filled: Filled, facts: EngineFacts) -> PromptPrefix:
        """The prompt prefix, as exactly as this engine can tell it."""
        can = facts.capabilities
        if not can.apply_template:
            return chat_prefix(head, filled, model=facts.alias)
        return await find(self.engine, can, head, filled, margin=self.margin(facts))

    def job(self, target: plan.Target, want: Want, prompt: PromptPrefix, generation: int) -> evaluate.Job:
        """The evaluator's order; it is current as long as engine and text are the same."""

        def progress(done: int, evaluated: int) -> None:
            self.put(replace(target, done=done, evaluated=evaluated))

        def current() -> bool:
            known = self.targets.get(target.key)
            return generation == self.generation and known is not None and known.version == target.version

        before = self.tokens.get(target.key, ())
        shared = plan.common(before, prompt.tokens)
        return evaluate.Job(
            prefix=target.prefix, want=want, prompt=prompt, shared=shared, progress=progress, current=current
        )

    def ended(self, target: plan.Target, prompt: PromptPrefix, outcome: evaluate.Outcome) -> None:
        """Note how an evaluation ended, and tell."""
        if outcome.status == "dropped":
            return
        self.tokens[target.key] = prompt.tokens
        done = replace(
            target,
            phase=outcome.status,
            done=prompt.length,
            evaluated=outcome.evaluated,
            seconds=outcome.seconds,
            asked=False,
        )
        self.put(done)
        log.info(
            "%s is %s: %d tokens, %d of them evaluated in %.1f s",
            target.prefix, outcome.status, prompt.length, outcome.evaluated, outcome.seconds,
        )  # fmt: skip
        self.bus.publish(
            WarmupEnded(
                prefix=target.prefix, tokens=prompt.length, evaluated=outcome.evaluated, seconds=outcome.seconds
            )
        )


def kind(error: Exception) -> str:
    """One word for the metrics label."""
    words = ((EngineUnavailable, "unavailable"), (EngineRefused, "refused"), (EngineProtocolError, "protocol"))
    return next((word for cls, word in words if isinstance(error, cls)), "internal")
