"""The warm-up's loop: looks for templates that changed, and warms one prompt prefix after another.

Two tasks share the table of targets (plan.py). One *looks*: every `warmup_check_interval`, or when woken (the catalogue
does so when a text changed), it makes the table anew from the templates' current texts and the heads that count. The
other *works*: it takes what `plan.pick` says, finds the prompt prefix, and hands it to the evaluator. So a change is
seen while a long warm-up runs, and the evaluator, which asks between two chunks whether its text is still wanted,
begins anew with the right one.

A head that falls out of the newest few is *parked* with its state: when its clients come back, nothing is evaluated
again only because they were away.

Nothing is evaluated twice: a target whose snapshot the keeper has is `saved` without a token, and one that is `warm`
stays so until its text or the engine changes. An engine's fault is the target's fault only for a while: it is tried
again after a back-off, and at once when the engine is back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from bioproxy import aio, files
from bioproxy.config.schema import Config
from bioproxy.config.settings import Settings
from bioproxy.engines.facts import EngineFacts
from bioproxy.engines.llama import Llama
from bioproxy.errors import BioproxyError, EngineProtocolError, EngineRefused, EngineUnavailable, NotFound
from bioproxy.events import Bus, WarmupChecked, WarmupEnded, WarmupFailed
from bioproxy.gate.gate import Gate
from bioproxy.keys import USER, groups
from bioproxy.kv import arguments
from bioproxy.kv.keeper import Keeper, Want
from bioproxy.templates.catalogue import Catalogue, Estimate
from bioproxy.templates.dialect_heads import cut_off, head_piece
from bioproxy.templates.expand import template_pieces
from bioproxy.templates.parse import Filled
from bioproxy.templates.reading import Reading
from bioproxy.warmup import plan
from bioproxy.warmup.battery import on_battery
from bioproxy.warmup.evaluate import End, Evaluator, Job
from bioproxy.warmup.heads import Heads, HeadsStatistics, name_of
from bioproxy.warmup.plain import Wanted
from bioproxy.warmup.plan import Key, Phase, Target
from bioproxy.warmup.prefix import FIRST_WORD, SECOND_WORD, PromptPrefix, find, margin_of

log = logging.getLogger(__name__)

COMMIT_SECONDS = 30.0  # a snapshot that was just written may take as long to be in the index
FOREVER = 3600.0  # seconds to sleep if nothing is due; any news ends it
MOST_KEPT = 4 << 20  # bytes of a text that is kept to be compared with the next one
NOTHING = Filled("", "", ("", ""))  # the template of a head without a prefix: the message alone
TOO_LONG = "exceed_context_size"  # llama-server's own words for a prompt that does not fit


def groups_of(config: Config) -> frozenset[str]:
    """The groups of all who may ask."""
    return groups(config.api_keys)


class TargetStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt prefix: `state` is one word, `text` the same with figures; counts are tokens.

    `prefix` is empty for a head without one, which is kept for its `group`.
    `warmed_at`: unix time at which it was last evaluated to its end; 0: not since the engine was met, or not known.
    """

    prefix: str
    head: str
    version: str
    state: Phase
    text: str
    done: int
    total: int
    evaluated: int
    seconds: float
    failures: int
    warmed_at: float
    group: str = ""


class Warmed(msgspec.Struct, frozen=True):
    """A template's text that the engine read to its end, and when that was (unix time)."""

    reading: Reading
    at: float


class RunnerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The warm-up at one moment; `speed` is the measured prefill in tokens per second.

    `on_battery`: it is not `enabled` because the machine runs on its battery (`warmup.on_battery`).
    """

    enabled: bool
    on_battery: bool
    ready: bool
    speed: float | None
    checks: int
    targets: tuple[TargetStatistics, ...]
    heads: HeadsStatistics


class Runner:
    """Keeps templates warm on one engine."""

    def __init__(
        self,
        *,
        settings: Settings,
        gate: Gate,
        keeper: Keeper,
        catalogue: Catalogue,
        engine: Llama,
        heads: Heads,
        bus: Bus,
    ) -> None:
        self.settings = settings
        self.keeper = keeper
        self.catalogue = catalogue
        self.engine = engine
        self.heads = heads
        self.bus = bus
        self.evaluator = Evaluator(gate=gate, keeper=keeper, engine=engine, bus=bus, settings=settings)
        self.targets: dict[Key, Target] = {}
        self.parked: dict[Key, Target] = {}
        self.warmed: dict[str, tuple[Warmed, ...]] = {}  # by prefix, two texts at most, the newer one last
        self.facts: EngineFacts | None = None
        self.generation = 0
        self.checks = 0
        self.look_at_battery = on_battery
        self.unplugged = False  # the machine runs on its battery, and that matters
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
        self.forget()
        ram_cache = arguments.parse(facts.command, environment=facts.environment).ram_cache
        self.evaluator.attached(remembers=ram_cache or facts.slots > 1)
        self.news.set()
        self.wake()

    def gone(self) -> None:
        """The engine is away: nothing is begun until `attached`."""
        self.facts = None
        self.forget()

    def renewed(self) -> None:
        """The chat template renders other prompts now: what is under way is dropped, and each is looked at again."""
        self.forget()
        self.news.set()

    def forget(self) -> None:
        """Nothing is known of any target any more."""
        self.generation += 1
        self.targets = plan.forgotten(self.targets)
        self.parked.clear()

    def saving_goes_on(self) -> None:
        """The disk takes snapshots again: what is warm and was not saved gets another chance."""
        self.again(lambda target: target.phase == "warm")
        self.news.set()

    async def warm(self, prefix: str) -> tuple[TargetStatistics, ...]:
        """Look at `prefix` now, even if warm-up is off or failed; its states. NotFound if there is none."""
        if prefix not in self.catalogue.prefixes:
            known = ", ".join(self.catalogue.prefixes) or "none"
            raise NotFound(f"there is no prefix {prefix}; known prefixes: {known}")
        await self.catalogue.check()
        await self.look()
        for target in self.of(prefix):
            phase: Phase = "warming" if target.phase == "warming" else "waiting"
            self.targets[target.key] = replace(target, phase=phase, asked=True, failures=0, deaths=0, reason="")
        self.news.set()
        return tuple(self.described(target) for target in self.of(prefix))

    # What others ask

    @property
    def enabled(self) -> bool:
        return self.settings.config.warmup.enabled and not self.unplugged

    def too_long(self, prefix: str) -> str:
        """Why the template of `prefix` cannot be used (`too long: 61,233 of 32,768 tokens`), or empty."""
        targets = self.of(prefix)
        if targets and all(target.phase == "too long" for target in targets):
            return plan.describe(targets[0])
        return ""

    def estimate(self, prefix: str) -> Estimate:
        """What the engine taught about the template of `prefix`: how many tokens its bytes are, how long they take."""
        lengths = [target.total for target in self.of(prefix) if target.total]
        size = len(self.catalogue.current(prefix).parts[0].encode())
        speed = self.evaluator.speed
        return Estimate(
            tokens_per_byte=lengths[0] / size if lengths and size else None,
            seconds_per_token=1 / speed if speed else None,
        )

    def statistics(self) -> RunnerStatistics:
        """The state of every target, and the measured speed."""
        return RunnerStatistics(
            enabled=self.enabled,
            on_battery=self.unplugged,
            ready=self.facts is not None,
            speed=self.evaluator.speed,
            checks=self.checks,
            targets=tuple(self.described(target) for target in self.targets.values()),
            heads=self.heads.statistics(),
        )

    def described(self, target: Target) -> TargetStatistics:
        """One target as others see it; while warm-up is off, what waits is `off`."""
        off = not self.enabled and not target.asked and target.phase in ("waiting", "warming")
        shown = replace(target, phase="off") if off else target
        same = {name: getattr(shown, name) for name in TargetStatistics.__struct_fields__ if hasattr(shown, name)}
        return TargetStatistics(state=shown.phase, text=plan.describe(shown), **same)

    # The two tasks

    async def run(self) -> None:
        """Look and work until cancelled; a guarded service."""
        await self.heads.load()
        self.catalogue.watchers.add(self.wake)
        self.keeper.watchers.add(self.saving_goes_on)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.keep_looking(), name="warm-up looks")
                group.create_task(self.keep_working(), name="warm-up works")
        finally:
            self.catalogue.watchers.discard(self.wake)
            self.keeper.watchers.discard(self.saving_goes_on)
            await aio.shielded(self.heads.save(last=True))

    async def keep_looking(self) -> None:
        """Look at once, then at every interval, and whenever woken: a text changed, or what heads count."""
        while True:
            self.awake.clear()
            await self.look()
            await aio.wait_first(self.awake, timeout=self.settings.config.warmup_check_interval)

    async def look(self) -> None:
        """Bring the table of targets up to date with texts, heads and snapshots."""
        self.heads.forget()
        await self.heads.save()
        await self.notice_battery()
        self.checks += 1
        self.bus.publish(WarmupChecked())
        self.refresh()
        self.again(lambda target: self.lost(target) or self.grew(target))
        self.news.set()

    async def notice_battery(self) -> None:
        """See whether nothing shall be warmed now; what is under way ends with its chunk, and goes on from there."""
        before = self.unplugged
        self.unplugged = not self.settings.config.warmup.on_battery and await asyncio.to_thread(self.look_at_battery)
        if self.unplugged != before:
            where = "on its battery: nothing is warmed up (warmup.on_battery)" if self.unplugged else "plugged in again"
            log.info("the machine is %s", where)

    def lost(self, target: Target) -> bool:
        """Whether a snapshot that was there is not there any more (aged, quarantined, its commit failed)."""
        want, fresh = target.want, time.monotonic() - target.ended < COMMIT_SECONDS
        return target.phase == "saved" and not fresh and want is not None and self.keeper.has_snapshot(want) is None

    def grew(self, target: Target) -> bool:
        """Whether a head is worth keeping by now, because the engine turned out to be slower than was thought."""
        return target.phase == "too short" and self.keeper.pays(target.total)

    # The table of targets

    def refresh(self) -> None:
        """Every prefix with each head that counts, then heads without one; what did not change keeps its state."""
        versions = self.catalogue.versions()
        known = self.parked | self.targets
        wanted = [
            Target(prefix=prefix, head=name_of(head), opening=head, version=version)
            for prefix, version in versions.items()
            for head in self.heads.top(prefix)
        ]
        plain = self.plain()
        wanted += [
            Target(
                prefix="", head=one.name, opening=one.head, group=one.group, cut=one.cut, other=one.other, version=""
            )
            for one in plain
        ]
        self.targets = plan.merge(known, wanted)
        for one in plain:
            if (want := self.targets["", one.name].want) is not None:
                self.keeper.touch(want, one.used)
        self.warmed = {prefix: texts for prefix, texts in self.warmed.items() if prefix in versions}
        left = (target for key, target in known.items() if key not in self.targets)
        self.parked = {target.key: target for target in left if target.version == versions.get(target.prefix, "")}

    def plain(self) -> list[Wanted]:
        """The heads without a prefix that shall be warm, of groups that may ask; one only if none can be saved."""
        here = self.settings.made(groups_of)
        found = [one for one in self.heads.plain.wanted() if one.group.partition(USER)[0] in here]
        return found if self.keeper.saves else found[:1]

    def of(self, prefix: str) -> list[Target]:
        return [target for target in self.targets.values() if target.prefix == prefix]

    def put(self, target: Target) -> None:
        """Note a target's new state, unless it is not wanted any more."""
        if self.wanted(target):
            self.targets[target.key] = target

    def wanted(self, target: Target) -> bool:
        """Whether `target` is still in the table, with the text it had."""
        known = self.targets.get(target.key)
        return known is not None and known.version == target.version

    def again(self, which: Callable[[Target], bool]) -> None:
        self.targets = {
            key: replace(target, phase="waiting") if which(target) else target for key, target in self.targets.items()
        }

    async def keep_working(self) -> None:
        """Take the next target, or sleep until there may be one."""
        while True:
            self.news.clear()
            targets, now = self.targets.values(), time.monotonic()
            target = plan.pick(targets, now=now, enabled=self.enabled) if self.facts else None
            if target is None:
                await aio.wait_first(self.news, timeout=plan.pause(targets, now=now, longest=FOREVER))
            else:
                await self.attempt(target)

    # One target

    async def attempt(self, target: Target) -> None:
        """Work on `target`, and turn a fault into a state and a back-off: others must not wait for it."""
        generation = self.generation
        try:
            await self.work(target, generation)
        except BioproxyError as error:
            if isinstance(error, EngineUnavailable) and error.sent:
                known = self.targets.get(target.key, target)
                self.put(plan.lost(known, reason=error.message, now=time.monotonic()))
                log.warning("the engine was lost while %s was warmed up: %s", target.label, error.message)
                self.bus.publish(WarmupFailed(prefix=target.prefix, type=kind(error), reason=error.message))
            elif generation == self.generation:  # else the engine went away, and its fault with it
                self.fault(target, error, error.message)
        except Exception as error:
            log.exception("the warm-up of %s broke", target.label)
            self.fault(target, error, f"a fault in bioproxy: {error!r}")

    def fault(self, target: Target, error: Exception, reason: str) -> None:
        """Note and tell why `target` is not warm."""
        if isinstance(error, EngineRefused) and TOO_LONG in reason:
            known, limit = self.targets.get(target.key, target), self.facts.context if self.facts else 0
            self.put(replace(known, phase="too long", limit=limit, asked=False))
            return
        self.put(plan.failed(target, reason=reason, now=time.monotonic()))
        if isinstance(error, BioproxyError) and kind(error) == "internal":
            log.info("the warm-up of %s has to wait: %s", target.label, reason)  # the gate refuses: a shutdown
            return
        log.warning("the warm-up of %s failed: %s", target.label, reason)
        self.bus.publish(WarmupFailed(prefix=target.prefix, type=kind(error), reason=reason))

    async def work(self, target: Target, generation: int) -> None:
        """Evaluate `target` unless there is a snapshot of it, or it does not fit."""
        assert self.facts is not None
        context, can = self.facts.context, self.facts.capabilities
        reading = self.catalogue.reading(target.prefix) if target.prefix else None
        filled = self.catalogue.current(target.prefix) if target.prefix else NOTHING
        want = self.wish(target, filled)
        target = replace(target, want=want)
        if (snapshot := self.keeper.has_snapshot(want)) is not None:
            length, at = snapshot.tokens, snapshot.created
            self.put(replace(target, phase="saved", done=length, total=length, warmed_at=at, asked=False))
            self.read(reading, at)
            return
        if not (target.prefix or (can.apply_template and can.tokenize)):
            self.put(replace(target, phase="off", asked=False))  # where it ends could not be told, so it is not saved
            return
        prompt = await self.prompt(target, filled, self.facts)
        target = replace(target, phase="warming", done=0, total=prompt.length)
        if prompt.length == 0:  # nothing stands before the message
            self.put(replace(target, phase="warm", asked=False))
        elif 0 < context <= prompt.length:
            self.put(replace(target, phase="too long", limit=context, asked=False))
        elif not (target.prefix or self.keeper.pays(prompt.length)):
            self.put(replace(target, phase="too short", asked=False))
        else:
            self.put(target)
            job = self.job(target, prompt, generation)
            end = await self.evaluator.run(job)
            self.ended(target, job, end)
            if end != "dropped":
                self.read(reading, time.time())

    def wish(self, target: Target, filled: Filled) -> Want:
        """What `target` is in the chain of hashes."""
        head = target.opening
        pieces = template_pieces(head, filled) if target.prefix else (head_piece(head),)
        want = self.keeper.want(pieces, prefix=target.prefix, version=filled.version, head=head, lora=head.lora)
        want = replace(want, background=True, group=target.group, head="" if target.prefix else target.head)
        if not target.cut:
            return want
        return replace(want, cuts=tuple(cut for cut in want.cuts if cut.offset <= target.cut), size=target.cut)

    def read(self, reading: Reading | None, at: float) -> None:
        """The engine has read this text of a template: keep it, to show what a later one changes."""
        if reading is None:
            return
        assert reading.filled is not None
        prefix = reading.filled.prefix
        known = self.warmed.get(prefix, ())
        if known and known[-1].reading.key == reading.key:
            known = known[:-1]
        elif sum(map(len, reading.filled.parts)) > MOST_KEPT:
            return
        self.warmed[prefix] = (*known[-1:], Warmed(reading, at))

    async def prompt(self, target: Target, filled: Filled, facts: EngineFacts) -> PromptPrefix:
        """The prompt prefix, as exactly as this engine can tell it."""
        can = facts.capabilities
        margin = 0
        if can.apply_template and can.tokenize:
            margin = margin_of(await files.away(self.keeper.traits, facts.model_path))
        head, other = target.opening, None
        if target.cut and target.other is not None:
            first, second = cut_off(head, target.cut, FIRST_WORD), cut_off(target.other, target.cut, SECOND_WORD)
            if first is None or second is None or not can.apply_template:
                return PromptPrefix(kind="tokens", length=0)
            head, other = first, second
        return await find(self.engine, can, head, filled, margin=margin, model=facts.alias, other=other)

    def job(self, target: Target, prompt: PromptPrefix, generation: int) -> Job:
        """The evaluator's order; it is current as long as engine and text are the same."""
        assert target.want is not None
        older, before = target.older or (None, ())
        return Job(
            prefix=target.prefix,
            label=target.label,
            want=target.want,
            prompt=prompt,
            older=older,
            before=before,
            progress=lambda done, evaluated: self.put(replace(target, done=done, evaluated=evaluated)),
            current=lambda: (
                generation == self.generation and self.wanted(target) and (target.asked or not self.unplugged)
            ),
        )

    def ended(self, target: Target, job: Job, end: End) -> None:
        """Note how an evaluation ended, and tell."""
        if end == "dropped":
            return
        length, older = job.prompt.length, (job.want, job.prompt.tokens)
        if (known := self.targets.get(target.key)) is not None:  # the engine has it, whatever the text is by now
            self.targets[target.key] = replace(known, older=older)
        done = replace(target, phase=end, done=length, evaluated=job.evaluated, seconds=job.seconds, older=older)
        now = time.time()
        self.put(replace(done, ended=time.monotonic(), warmed_at=now, asked=False, failures=0, deaths=0))
        log.info(
            "%s is %s: %d tokens; %d were evaluated for that, in %.1f s",
            target.label, end, length, job.evaluated, job.seconds,
        )  # fmt: skip
        self.bus.publish(WarmupEnded(prefix=target.prefix, tokens=length, evaluated=job.evaluated, seconds=job.seconds))


def kind(error: Exception) -> str:
    """One word for the metrics label."""
    words = ((EngineUnavailable, "unavailable"), (EngineRefused, "refused"), (EngineProtocolError, "protocol"))
    return next((word for cls, word in words if isinstance(error, cls)), "internal")
