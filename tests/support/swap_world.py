"""A machine with several models, simulated: carries out what a Schedule says, and holds it to its promises."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable

from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.models.book import ModelSettings
from bioproxy.models.effects import Changed, Effect, Fail, Loaded, Recall, Serve, Start, Stop
from bioproxy.models.groups import Groups
from bioproxy.models.rules import Rules
from bioproxy.models.schedule import Schedule
from bioproxy.models.state import State
from bioproxy.models.waits import Part, between
from bioproxy.models.wish import Place, Wish
from support.config_files import settings

LOAD, STOP = 3.0, 1.0  # seconds


def together(models: Iterable[str], rules: Rules) -> bool:
    """Whether all `models` may run at once, whichever of them comes last."""
    names = set(models)
    return not any(rules.evict(name, names - {name}) for name in names)


class Asked:
    """A request (or load) and what became of it."""

    def __init__(self, wish: Wish, *, at: float, seconds: float, tool_calls: bool) -> None:
        self.wish = wish
        self.at = at
        self.seconds = seconds
        self.tool_calls = tool_calls
        self.served: float | None = None
        self.failed: Fail | None = None
        self.over: float | None = None
        self.then: Callable[[], None] | None = None
        self.before: dict[Part, float] = {}
        self.parts: dict[Part, float] = {}  # of the wait, by what it was for

    @property
    def waited(self) -> float:
        """Seconds until it was served."""
        assert self.served is not None
        return self.served - self.at


class World:
    """Time, processes and requests. `load(model)` → seconds, or the reason (text) why the start fails after `LOAD`."""

    def __init__(
        self,
        models: Iterable[ModelSettings | str],
        rules: Rules | None = None,
        *,
        load: Callable[[str], float | str] = lambda _model: LOAD,
        stop: Callable[[str], float] = lambda _model: STOP,
        queue_limit: int = 0,
    ) -> None:
        known = [ModelSettings(id=one) if isinstance(one, str) else one for one in models]
        self.rules = rules or Groups({})
        self.settings = settings(DialectConfig(), queue_limit=queue_limit)
        self.schedule = Schedule(known, rules=self.rules, now=0.0, settings=self.settings)
        self.load, self.stop = load, stop
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = 0
        self.log: list[Effect] = []
        self.asked: list[Asked] = []
        self.by_wish: dict[Wish, Asked] = {}
        self.starts: Counter[str] = Counter()
        self.swaps: list[tuple[float, str, str]] = []  # when, who went, who came
        self.dead: set[tuple[str, int]] = set()

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Do `act` at `when`."""
        self.serial += 1
        heapq.heappush(self.events, (max(when, self.now), self.serial, act))

    def run(self, until: float = math.inf) -> World:
        """Let time pass up to `until`, or until nothing is left to happen."""
        steps = 0
        while True:
            when = min(self.events[0][0] if self.events else math.inf, self.schedule.wake)
            if math.isinf(when) or when > until:
                break
            steps += 1
            assert steps < 200_000, "time stands still"
            assert self.schedule.wake >= self.now
            self.now = when
            if self.events and self.events[0][0] <= when:
                heapq.heappop(self.events)[2]()
            else:
                self.do(self.schedule.tick(self.now))
        self.now = self.now if math.isinf(until) else until
        return self

    def ask(
        self, model: str, at: float | None = None, *, seconds: float = 1.0, tool_calls: bool = False,
        patience: float = math.inf, load: bool = False, then: Callable[[], None] | None = None,
    ) -> Asked:  # fmt: skip
        """A request for `model` that runs for `seconds`; its client leaves after `patience` if it still waits."""
        when = self.now if at is None else at
        asked = Asked(Wish(model, load=load), at=when, seconds=seconds, tool_calls=tool_calls)
        self.by_wish[asked.wish] = asked
        asked.then = then
        self.asked.append(asked)
        if at is None:
            self.arrive(asked)
        else:
            self.at(when, lambda: self.arrive(asked))
        if not math.isinf(patience):
            self.at(when + patience, lambda: self.give_up(asked))
        return asked

    def arrive(self, asked: Asked) -> None:
        """It is asked for."""
        effects = self.schedule.request(asked.wish, self.now)
        asked.before = self.schedule.waited(asked.wish.model, self.now)
        self.do(effects)

    def give_up(self, asked: Asked) -> None:
        """Its client leaves, if it still waits."""
        if asked.wish.place is Place.WAITING:
            self.finish(asked)

    def finish(self, asked: Asked) -> None:
        """The request is over."""
        if asked.over is None:
            asked.over = self.now
            self.do(self.schedule.end(asked.wish, self.now, tool_calls=asked.tool_calls))
            if asked.then is not None:
                asked.then()

    def do(self, effects: list[Effect]) -> None:
        """Carry out effects, then look whether everything is still as promised."""
        for effect in effects:
            self.log.append(effect)
            self.act(effect)
        self.check()

    def act(self, effect: Effect) -> None:
        """Carry out one effect."""
        match effect:
            case Serve(wish):
                self.serve(wish)
            case Loaded(wish):
                if (asked := self.by_wish.get(wish)) is not None:  # nobody's: back to the default model
                    asked.served = asked.over = self.now
            case Fail(wish):
                if (asked := self.by_wish.get(wish)) is not None:
                    assert asked.over is None
                    asked.failed, asked.over = effect, self.now
            case Start(model, life):
                self.begin(model, life)
            case Stop(model, life, reason):
                if reason == "swap":
                    self.swaps.append((self.now, model, effect.displaced_by))
                self.at(self.now + self.stop(model), lambda: self.die(model, life, "stopped"))
            case Recall() | Changed():
                pass

    def serve(self, wish: Wish) -> None:
        """A request runs."""
        asked = self.by_wish.get(wish)
        assert isinstance(asked, Asked)
        assert asked.over is None
        assert self.schedule.state(wish.model) is State.READY
        if asked.served is None:
            asked.served = self.now
            asked.parts = between(asked.before, self.schedule.waited(wish.model, self.now))
            assert abs(sum(asked.parts.values()) - asked.waited) < 1e-6, (asked.parts, asked.waited)
            assert "" not in asked.parts
        self.at(self.now + asked.seconds, lambda: self.finish(asked))

    def begin(self, model: str, life: int) -> None:
        """A process starts."""
        self.starts[model] += 1
        outcome = self.load(model)
        if isinstance(outcome, str):
            self.at(self.now + LOAD, lambda: self.die(model, life, outcome))
        else:
            self.at(self.now + outcome, lambda: self.do(self.schedule.ready(model, life, self.now)))

    def die(self, model: str, life: int, reason: str) -> None:
        """A process is gone; reported once."""
        if (model, life) not in self.dead:
            self.dead.add((model, life))
            self.do(self.schedule.ended(model, life, self.now, reason=reason))

    def crash(self, model: str, at: float) -> None:
        """The process of `model` dies at `at` if it is ready then."""

        def act() -> None:
            record = self.schedule.book.records.get(model)
            if record is not None and record.state is State.READY:
                self.die(model, record.life, "crashed")

        self.at(at, act)

    def check(self) -> None:
        """Who has memory may have it together, and the counts agree with the tickets."""
        records = self.schedule.book.records.values()
        live = [record.name for record in records if record.state.live]
        assert self.compatible(live), f"{live} run at once"
        for record in records:
            assert all(wish.place is Place.RUNNING for wish in record.running)
            assert all(wish.place is Place.WAITING for wish in record.waiting.values())

    def compatible(self, live: list[str]) -> bool:
        """Whether the rule allows `live` at once (of groups: each pair, whichever of the two came last)."""
        if not isinstance(self.rules, Groups):
            return together(live, self.rules)
        pairs = [(one, other) for one in live for other in live if one != other]
        evict = self.rules.evict
        return not any(other in evict(one, {other}) and one in evict(other, {one}) for one, other in pairs)

    @property
    def settled(self) -> bool:
        """Whether every request got an end."""
        return all(asked.over is not None for asked in self.asked)

    def running(self) -> list[str]:
        """The models that are ready."""
        return [one.model for one in self.schedule.statistics().models if one.state is State.READY]


def acts(effects: list[Effect]) -> list[str]:
    """The effects in short: `start a`, `stop a swap`, `serve a`; changes of state left out."""
    found = []
    for effect in effects:
        match effect:
            case Start(model):
                found.append(f"start {model}")
            case Stop(model, _life, reason):
                found.append(f"stop {model} {reason}")
            case Serve(wish) | Loaded(wish):
                found.append(f"{type(effect).__name__.lower()} {wish.model}")
            case Fail(wish, why):
                found.append(f"fail {wish.model} {why}")
            case Recall(model, newer_than):
                found.append(f"recall {model} {newer_than}")
            case Changed():
                pass
    return found


def plain(*names: str, **settings: float | bool) -> list[ModelSettings]:
    """Models that are held by nothing, unless said."""
    return [ModelSettings(id=name, **{"min_resident": 0.0, **settings}) for name in names]  # type: ignore[arg-type]
