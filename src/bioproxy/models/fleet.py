"""All models: a station and a unit for each, a supervisor over all, and the other servers whose models are passed on.

Without `models` in the configuration it is a fleet of one, the only engine (only.py), whose plan is empty.

Everything that belongs to one model outlives its processes, so that what was learnt about it (speeds, heads, which
snapshots are good) is there when it comes back. Models with the same templates share a catalogue, and all share one
snapshot folder with one budget.

The front reads `plan`, `stations`, `peers` and `supervisor`, and is told by `on_change` when a reload changed them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from bioproxy import aio
from bioproxy.config.dialect import schema as swap_schema
from bioproxy.config.dialect.schema import DialectConfig, Timeouts
from bioproxy.config.load import Loaded, slot_folder
from bioproxy.config.masking import masked_words
from bioproxy.config.schema import Config
from bioproxy.config.settings import Settings, among_strangers
from bioproxy.engines.launch import make_again, make_private
from bioproxy.errors import BioproxyError, Closed, ConfigError, NotFound, Problem
from bioproxy.events import Bus, ProfileChanged
from bioproxy.gate.gate import Owners
from bioproxy.kv.shelves import Shelves
from bioproxy.logbook import Logbook
from bioproxy.models.book import ModelSettings
from bioproxy.models.containers import Container, clean_up, containers_of
from bioproxy.models.only import ENGINE, Only
from bioproxy.models.orphans import Register
from bioproxy.models.plan import ModelPlan, Plan, make_plan, slug
from bioproxy.models.retired import Parts, Retired
from bioproxy.models.rules import fitting
from bioproxy.models.schedule import Schedule
from bioproxy.models.state import State
from bioproxy.models.supervisor import Supervisor
from bioproxy.models.unit import MARK, Unit
from bioproxy.station import Service, Station
from bioproxy.templates.catalogue import Catalogue, Estimate
from bioproxy.templates.pins import Pins
from bioproxy.warmup.heads import Heads
from bioproxy.wire.upstream import Pool, parse_origin

log = logging.getLogger(__name__)

IDLE_CONNECTION = 4.0  # seconds at most: llama-server closes after five (facts, section 3)
FOREVER = 86400  # seconds: what "no limit" is for a connection
STOP_LIMIT = 30.0  # seconds for all models to stop at the end


Effect = Literal["is new", "is removed", "restarts"]


class ModelEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What another configuration means for a model: it `is new`, `is removed`, or `restarts`.

    `runs`: it has a process now, which ends once its `requests` have.
    """

    model: str
    effect: Effect
    runs: bool
    requests: int


class Peer:
    """Another server, whose models are passed on."""

    def __init__(self, settings: swap_schema.Peer) -> None:
        self.settings = settings
        self.pool = patient(Pool(parse_origin(settings.proxy)), settings.timeouts)


class Fleet:
    def __init__(
        self,
        settings: Settings,
        *,
        bus: Bus,
        catalogue: Catalogue,
        pins: Pins,
        state: Path,
        shelves: Shelves,
        logbook: Logbook,
    ) -> None:
        self.settings = settings
        self.bus, self.pins, self.state, self.shelves = bus, pins, state, shelves
        self.logbook = logbook
        self.run_token = secrets.token_hex(8)
        self.folder = slot_folder(self.config, state)
        self.common = catalogue
        self.register = Register(state / "engines.json", variable=MARK)
        self.plan = make_plan(self.config, self.dialect, slot_folder=self.folder)
        self.stations: dict[str, Station] = {}
        self.owners = Owners()
        self.retired = Retired(logbook)
        self.units: dict[str, Unit] = {}
        self.preloaded: tuple[str, ...] = ()  # of those to be preloaded, what was asked for
        self.last_word: Callable[[], BioproxyError] | None = None  # the shutdown's, to those who wait or come
        self.swept = asyncio.Event()  # what an earlier run left is gone
        self.reloaded = asyncio.Event()
        own = self.read_own(self.plan)
        self.equip(self.plan, {name: self.build(one, own.get(name)) for name, one in self.plan.models.items()})
        self.only = self.build_only() if settings.one else None
        catalogue.estimate = self.estimate if self.only is None else self.only.station.runner.estimate
        models = self.models_of(self.plan)
        schedule = Schedule(models, rules=self.plan.rules, now=time.monotonic(), settings=settings)
        # of the only engine its attachment tells all that is news
        self.supervisor = Supervisor(schedule, self.units, bus=bus if self.only is None else Bus())
        self.loads: dict[str, asyncio.Task[None]] = {}  # under way, by model
        self.peers: dict[str, Peer] = {}
        self.on_change: Callable[[], None] = lambda: None  # names, models or peers changed
        self.connect()

    @property
    def config(self) -> Config:
        """The keys of bioproxy's own, as they are in force."""
        return self.settings.config

    @property
    def dialect(self) -> DialectConfig:
        """llama-swap's keys, as they are in force."""
        return self.settings.dialect

    @property
    def own(self) -> dict[str, Catalogue]:
        """The templates of models that have some of their own."""
        return {name: one.catalogue for name, one in self.stations.items() if one.catalogue is not self.common}

    # building

    def is_new(self, one: ModelPlan) -> bool:
        """Whether a model was not there, or its process would be another one than that of the plan in force."""
        return one.id not in self.stations or self.plan.models[one.id].settings.launch != one.settings.launch

    def read_own(self, plan: Plan) -> dict[str, Catalogue]:
        """The templates of new models that have some of their own, and changed ones; ConfigError if any is broken."""
        found = {}
        for name, one in plan.models.items():
            if one.prefixes and (self.is_new(one) or self.plan.models[name].prefixes != one.prefixes):
                found[name] = Catalogue(one.prefixes, folder=str(Path.cwd()), settings=self.settings, bus=self.bus)
                found[name].load()
        return found

    def equip(self, plan: Plan, made: Mapping[str, tuple[Station, Unit]]) -> None:
        """Give new models what was made for them; those that are there take over what costs no restart.

        A process that runs keeps its old station and unit until its end.
        """
        for name, one in plan.models.items():
            if name not in made:
                self.units[name].launch = one.launch
                self.stations[name].adapt(limit=one.model.concurrency_limit)
                patient(self.stations[name].pool, one.model.timeouts)
                continue
            if name in self.stations:
                self.retired.replace(self.stations[name])
            self.stations[name], self.units[name] = made[name]

    def build(self, one: ModelPlan, own: Catalogue | None) -> tuple[Station, Unit]:
        pool = patient(Pool(parse_origin(one.launch.url)), one.model.timeouts)
        heads = Heads(str(self.state / f"heads-{slug(one.id)}"), settings=self.settings, max_age=one.kv.max_age)
        station = Station(
            pool,
            settings=self.settings,
            kv=one.kv,
            key="",
            bus=self.bus,
            catalogue=own or self.common,
            pins=self.pins,
            heads=heads,
            shelves=self.shelves,
            owned=True,
            model=one.id,
            limit=one.model.concurrency_limit,
            asks=one.asks,
            scope=f"\0{one.id}".encode() if one.prefixes else b"",
            looked_after=False,
            owners=self.owners,
        )
        token = f"{self.run_token}/{one.id}"
        shown = tuple(masked_words(one.launch.words))
        note = partial(self.register.note, one.id, command=shown, token=token)
        before = partial(self.make_way, containers_of({one.id: one.model.cmd}), one.launch.added)
        unit = Unit(
            one.launch,
            station,
            output=self.logbook.model(one.id),
            on_pid=note,
            mark=token,
            before=before,
            discreet=lambda: among_strangers(self.config),
        )
        station.attachment.expect_pid = lambda: unit.pid
        station.on_stuck = partial(self.stuck, unit)
        return station, unit

    def build_only(self) -> Only:
        """The engine of a configuration without `models`."""
        only = Only(
            self.settings, bus=self.bus, catalogue=self.common, pins=self.pins, state=self.state, folder=self.folder,
            output=self.logbook.model(ENGINE),
        )  # fmt: skip
        self.stations[ENGINE], self.units[ENGINE] = only.station, only
        return only

    def bind(self, bounds: Mapping[str, int]) -> None:
        """From now on keys may run so many at once, by name."""
        owners = self.owners if self.only is None else self.only.station.gate.owners
        owners.bind(bounds)

    def models_of(self, plan: Plan) -> list[ModelSettings]:
        """What the schedule decides about."""
        return [ModelSettings(id=ENGINE)] if self.only is not None else [one.settings for one in plan.models.values()]

    async def make_way(self, containers: Sequence[Container], saves: bool) -> None:
        """Before each start: what an earlier run left may hold the port, or the container's name."""
        await self.swept.wait()
        if containers:
            await clean_up(containers)
        if saves:
            await make_again(self.folder)

    def connect(self) -> None:
        """Make the connections to peers; those whose configuration did not change stay."""
        known = self.peers
        self.peers = {
            name: known[name] if name in known and known[name].settings == peer else Peer(peer)
            for name, peer in self.dialect.peers.items()
        }
        self.on_change()

    # life

    async def start(self) -> Mapping[str, Service]:
        """Stop what an earlier run left, make the slot folder, load what is to be preloaded; the services to run.

        Or start the only engine; EngineUnavailable if it cannot be run at all.
        """
        if self.only is not None:
            self.only.station.gate.close("the engine was not looked at yet")
            await self.only.begin()
            await self.supervisor.load(ENGINE, timeout=0.0)
            return {}
        self.make_folder(self.plan)
        await asyncio.to_thread(self.register.sweep)
        self.swept.set()
        return {"preload": self.preload, "register": self.register.run}

    def make_folder(self, plan: Plan) -> None:
        """The folder that llama-servers are given for their slot files; ConfigError if it cannot be made."""
        if any(one.launch.added for one in plan.models.values()):
            make_private(self.folder)

    async def preload(self) -> None:
        """Load what `hooks.on_startup.preload` names, and what a reload adds to it, as far as it fits together."""
        while True:
            self.reloaded.clear()
            names = () if self.supervisor.schedule.rests else self.dialect.hooks.on_startup.preload
            known, self.preloaded = self.preloaded, names
            wanted, left = fitting(names, self.plan.rules)
            for name in left:
                if name not in known:
                    log.warning("%s is not preloaded: it would stop what was preloaded before it", name)
            await asyncio.gather(*(self.preload_one(name) for name in wanted if name not in known))
            await self.reloaded.wait()

    async def preload_one(self, name: str) -> None:
        try:
            await self.supervisor.load(name, timeout=0.0)
        except Closed as error:
            log.info("%s is not preloaded: %s", name, error.message)
        except BioproxyError as error:
            log.error("failed to preload model %s: %s", name, error.message)  # noqa: TRY400 - the sentence says it

    def refuse(self, error: BioproxyError) -> None:
        """The shutdown began: requests that wait get `error`."""
        self.last_word = lambda: error
        self.supervisor.refuse(self.last_word)
        for station in (*self.retired.stations, *self.stations.values()):
            station.gate.refuse(error)

    def hold(self, why: Callable[[], BioproxyError]) -> None:
        """Until `accept` nothing begins, and requests get what `why` says. Not once the shutdown began."""
        if self.last_word is not None:
            return
        self.supervisor.refuse(why)
        for station in self.stations.values():
            station.gate.refuse(why())
        self.preloaded = ()
        if self.only is not None:
            self.only.away = "bioproxy is paused"

    async def rest(self) -> None:
        """Stop every model, or leave the only engine. What runs gets as long as an unload gives it."""
        grace = self.config.kv.save_timeout if self.only is not None else None
        models = {*self.units, *self.supervisor.lives.present}
        await asyncio.gather(*(self.supervisor.unload(model, grace=grace) for model in models))
        await end_sleep(self.units.values())
        await asyncio.gather(*(station.keeper.saver.settle() for station in self.stations.values()))

    def accept(self) -> None:
        """Take requests again; models that are preloaded at a start are loaded. Not once the shutdown began."""
        if self.last_word is not None:
            return
        for station in self.stations.values():
            station.gate.accept()
        self.supervisor.accept()
        self.reloaded.set()
        if self.only is not None:
            self.only.away = Only.away

    async def go_on(self) -> None:
        """Load the only engine, which is always there."""
        if self.only is not None and self.supervisor.refusal is None:
            await self.supervisor.load(ENGINE, timeout=0.0)

    async def stop(self) -> None:
        """Stop every model, what pays saved first."""
        if self.only is not None:
            self.only.away = ""  # the program goes, not the engine
        await self.supervisor.close(STOP_LIMIT + self.config.kv.save_timeout)
        await end_sleep(self.units.values())
        stations = [*self.retired.stations, *self.stations.values()]
        await asyncio.gather(*(one.keeper.close(deadline=self.config.kv.save_timeout) for one in stations))
        for peer in self.peers.values():
            await peer.pool.close()
        if self.swept.is_set():  # else what is noted there is what another program runs, or left
            await self.register.save()

    async def stuck(self, unit: Unit, reason: str) -> None:
        """A model's engine computes nothing any more: end its process; requests that wait get the next one."""
        log.error("%s is stuck and is stopped: %s", unit.launch.model, reason)
        await aio.shielded(unit.end(0.0))

    def estimate(self, prefix: str) -> Estimate:
        """What a model that runs has taught about the template of `prefix`."""
        ready = (one for one in self.stations.values() if one.attachment.state == "ready")
        return next((found for one in ready if (found := one.runner.estimate(prefix)).tokens_per_byte), Estimate())

    # reload

    def prepare_reload(self, loaded: Loaded, config: Config) -> Callable[[], Awaitable[None]]:
        """What takes another configuration over; ConfigError if it cannot be, and nothing has changed then."""
        plan, own = self.another_plan(loaded, config)
        self.make_folder(plan)
        return partial(self.take_over, plan, own)

    def another_plan(self, loaded: Loaded, config: Config) -> tuple[Plan, dict[str, Catalogue]]:
        """The plan of another configuration, and the templates that it reads anew; ConfigError if it cannot be had."""
        if self.only is not None and loaded.dialect is not None:
            raise ConfigError([Problem("are new here, and this program serves one engine: restart it", key="models")])
        if self.only is None and loaded.dialect is None:
            raise ConfigError([Problem("has no models any more: that needs a restart", key="models")])
        plan = make_plan(config, loaded.dialect or DialectConfig(), slot_folder=self.folder)
        return plan, self.read_own(plan)

    def effects(self, plan: Plan) -> tuple[ModelEffect, ...]:
        """What taking over `plan` would mean for each model that it concerns."""
        found: dict[str, Effect] = {
            name: "restarts" if name in self.stations else "is new"
            for name, one in plan.models.items()
            if self.is_new(one)
        }
        found |= dict.fromkeys(self.plan.models.keys() - plan.models.keys(), "is removed")
        running = {one.model: one.running for one in self.supervisor.statistics().models}
        lives = self.supervisor.lives.present
        return tuple(
            ModelEffect(model=name, effect=effect, runs=name in lives, requests=running.get(name, 0))
            for name, effect in sorted(found.items())
        )

    async def take_over(self, plan: Plan, own: Mapping[str, Catalogue]) -> None:
        """Take over another configuration, which is in force already: models that did not change run on."""
        for one in plan.models.values():
            if one.id not in self.stations and (parts := self.retired.take_back(one)) is not None:
                self.plan.models[one.id], self.stations[one.id], self.units[one.id] = parts
        for name in own:
            if not self.is_new(plan.models[name]):
                await self.stations[name].catalogue.replace(plan.models[name].prefixes)
        gone = [unit for name, unit in self.units.items() if name not in plan.models or self.is_new(plan.models[name])]
        for unit in self.units.values():
            unit.may_sleep = unit not in gone
        await end_sleep(gone)
        made = {}
        for name, one in plan.models.items():
            if self.is_new(one):
                made[name] = self.build(one, own.get(name))
                await asyncio.sleep(0)  # of very many each takes its time, and streams go on between them
        self.equip(plan, made)
        for name in self.plan.models.keys() - plan.models.keys():
            self.retired.remove(Parts(self.plan.models[name], self.stations.pop(name), self.units.pop(name)))
        self.plan = plan
        for station in self.stations.values():
            station.runner.wake()
        self.supervisor.configure(self.models_of(plan), self.units, rules=plan.rules)
        self.connect()
        self.reloaded.set()
        lives = self.supervisor.lives.present.values()
        await self.retired.bury(lives, deadline=self.config.kv.save_timeout, present=plan.models)

    # what others ask

    def known(self, name: str) -> str | None:
        """A local model's ID by any of its names."""
        if self.only is not None:
            return ENGINE if not name or name in self.only.names else None
        return self.plan.registry.known.real(name) or None

    def resolve(self, name: str) -> str:
        """A local model's ID by any of its names; NotFound."""
        found = self.known(name)
        if found is None:
            raise NotFound("model not found" if self.only is None else self.only.unknown(name))
        return found

    async def load(self, name: str) -> None:
        """Have a model loaded; EngineUnavailable if the only engine is not ready after `queue_timeout`.

        It goes on if its caller leaves: that it was asked for counts.

        Once, however many ask: nothing bounds how many may wait for that.
        """
        model = self.resolve(name)
        task = self.loads.get(model)
        if task is None:
            work = self.supervisor.load(model, timeout=self.config.queue_timeout)
            self.loads[model] = task = aio.spawn(work, name=f"load of {model}")
            task.add_done_callback(partial(self.loaded, model))
        await asyncio.shield(task)
        if self.only is not None:
            await self.only.met(self.config.queue_timeout)

    def loaded(self, model: str, task: asyncio.Task[None]) -> None:
        """A load has ended; if its caller has left, the model's state says how."""
        del self.loads[model]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("%s failed: %s", task.get_name(), error)

    async def unload(self, name: str) -> None:
        """Stop a model; what was saved before is on disk then.

        Requests on the only engine get `kv.save_timeout` to finish; it must be ours (else 409).
        """
        model, grace = self.resolve(name), None
        if self.only is not None:
            self.only.check_ours()
            grace = self.config.kv.save_timeout
        await self.supervisor.unload(model, grace=grace)
        await end_sleep([self.units[model]])
        await self.stations[model].keeper.saver.settle()

    async def unload_all(self) -> None:
        """Stop every model; what was saved before is on disk then, as after `unload`."""
        await self.supervisor.unload_all()
        await end_sleep(self.units.values())
        await asyncio.gather(*(station.keeper.saver.settle() for station in self.stations.values()))

    def activate(self, profile: str) -> None:
        """Let a profile be active, "" for none; NotFound."""
        if profile and profile not in self.dialect.profiles:
            raise NotFound(f"profile not found: {profile}")
        self.plan.registry.profile = profile
        self.bus.publish(ProfileChanged(active=profile))

    async def warm(self, prefix: str) -> object:
        """Look at a template now on every model that runs; the states by model. NotFound if no model has it."""
        if self.only is not None:
            return await self.only.station.runner.warm(prefix)
        found = {}
        for name, station in self.stations.items():
            if self.supervisor.schedule.state(name) is State.READY and prefix in station.catalogue.prefixes:
                found[name] = await station.runner.warm(prefix)
        if not found and not any(prefix in station.catalogue.prefixes for station in self.stations.values()):
            raise NotFound(f"there is no prefix {prefix}")
        return found

    def unready(self) -> str:
        """Why a request would not be served now. Models are started when they are asked for: they are always ready."""
        return self.only.unready() if self.only is not None else ""


async def end_sleep(units: Iterable[Unit]) -> None:
    """End the processes that sleep."""
    await asyncio.gather(*(unit.end_sleep() for unit in units if unit.asleep))


def patient(pool: Pool, timeouts: Timeouts) -> Pool:
    """The pool with the time-outs of a model or a peer; 0 is no limit."""
    pool.connect_timeout = float(timeouts.connect or FOREVER)
    pool.idle_timeout = min(IDLE_CONNECTION, timeouts.idle_conn or IDLE_CONNECTION)
    pool.head_timeout = float(timeouts.response_header)
    return pool
