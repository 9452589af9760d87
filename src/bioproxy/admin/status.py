"""`/status`: what every part says of itself, side by side in one value, for one engine and for many models.

Each part has `statistics()`, a frozen Struct without private text, so what an operator sees is what the tests assert
on. Three things are shown in another form than their owners keep them: times of the schedule's clock become unix time,
command lines, environments and URLs lose their secrets, and snapshots of a shared folder stand in one list, each once.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from bioproxy import __version__
from bioproxy.admin.activity_store import StoreStatistics
from bioproxy.admin.admin import Admin
from bioproxy.admin.captures import CaptureStatistics
from bioproxy.admin.listing import describe
from bioproxy.admin.management import Management
from bioproxy.admin.performance import PerformanceStatistics
from bioproxy.clients.counts import ClientsStatistics
from bioproxy.config.dialect.schema import Model
from bioproxy.config.masking import masked_environment, masked_url_password, masked_words
from bioproxy.config.schema import Config
from bioproxy.engines.attach import AttachmentStatistics
from bioproxy.engines.commands import joined
from bioproxy.events import SwapEnded
from bioproxy.front.allowance import KeyStatistics
from bioproxy.front.inflight import InflightStatistics
from bioproxy.front.proxy import Front
from bioproxy.gate import GateStatistics
from bioproxy.kv.policy import Speeds
from bioproxy.kv.shelves import ShelfStatistics
from bioproxy.kv.statistics import KvStatistics, SnapshotStatistics
from bioproxy.logbook import LogbookStatistics
from bioproxy.metrics import Metrics, TokenStatistics
from bioproxy.models.book import ModelStatistics
from bioproxy.models.command import FLAG
from bioproxy.models.fleet import Fleet
from bioproxy.models.pause import PauseStatus
from bioproxy.models.unit import Launch
from bioproxy.station import Price, Station
from bioproxy.templates.catalogue import Catalogue, TemplateStatistics
from bioproxy.templates.pins import Pins, PinStatistics
from bioproxy.warmup.runner import RunnerStatistics
from bioproxy.wire.connection import ServerStatistics
from bioproxy.wire.server import Server
from bioproxy.wire.tls import doubt
from bioproxy.wire.upstream import PoolStatistics

SHOWN_PAGES = 5  # that a note names; `refused_pages` has all
ASSUMED = Speeds().prefill
NOT_MET = "of no model that ran since the start"
NO_ADMIN_PORT = "there is no admin port: another program has it; this one answers on the proxy port"
ON_BATTERY = "nothing is warmed up, because the machine runs on its battery (warmup.on_battery)"
DAMAGED = (
    "{0.damaged} snapshots in {0.directory} are not what was written, and are not used: look at the disk, then remove "
    "them (bioproxy snapshots list, delete)"
)
NO_CAPTURES = "captures are off: several keys may use the models, and there is no admin (admin_key)"


class ConfigStatus(msgspec.Struct, frozen=True):
    """Where the configuration came from, what is odd about it, and why the last reload failed (empty: it did not).

    `path` is the first of all its files (`paths`). `late`: keys that a reload found changed and that want a restart.
    """

    path: str | None
    warnings: tuple[str, ...]
    reload_error: str
    paths: tuple[str, ...] = ()
    late: tuple[str, ...] = ()


class ProgramStatus(msgspec.Struct, frozen=True, kw_only=True, tag_field="serves"):
    """What is the same, whatever the program `serves`: one engine, or models.

    `tokens` are those of all requests since the start, `today` those since midnight (UTC). `template_requests` counts
    requests with a template since the start, by prefix and by what the KV cache gave. `keys`: what each of `api_keys`
    used, and has left. `pause`: an operator's, or None.
    """

    version: str
    pid: int
    started: float  # unix time
    uptime: float  # seconds
    pause: PauseStatus | None
    config: ConfigStatus
    templates: tuple[TemplateStatistics, ...]
    template_requests: dict[str, dict[str, int]]
    pins: PinStatistics
    today: TokenStatistics
    tokens: TokenStatistics
    servers: dict[str, ServerStatistics]
    refused_pages: dict[str, dict[str, int]]
    clients: ClientsStatistics
    keys: tuple[KeyStatistics, ...]
    captures: CaptureStatistics
    store: StoreStatistics
    inflight: InflightStatistics
    notes: tuple[str, ...]


class Status(ProgramStatus, frozen=True, kw_only=True, tag="engine"):
    """The program with one engine at one moment."""

    engine: AttachmentStatistics
    gate: GateStatistics
    warmup: RunnerStatistics
    kv: KvStatistics
    snapshots: tuple[SnapshotStatistics, ...]


class ScheduleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model's place in the schedule: unix time and seconds; None: does not apply, or was not measured.

    `waits_for` (models/waits.py) is what those who wait for it wait for, "" if nobody does; `displaces` are the models
    that make room for it, or would have to.
    """

    running: int
    waiting: int
    waits_for: str
    waits_since: float | None
    displaces: tuple[str, ...]
    starts: int
    load_seconds: float | None
    last_used: float
    unload_at: float | None
    failures: int
    retry_at: float | None
    reason: str


class SwapStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A model's newest swap, in seconds; `ours` is what was neither an engine's nor a save or restore."""

    displaced: tuple[str, ...]
    stop: float
    save: float
    start: float
    restore: float
    ours: float


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `engine` is None if nothing is asked of it, because it is no llama-server.

    `asleep`: it is stopped, yet its process is there and sleeps (vLLM).

    `closed`: newcomers wait behind a request that has waited for another model for too long. `templates` are its own.
    `capabilities` and `context` (0: not told) are the configuration's words. `environment`: `NAME=value` beside ours;
    of it and of `command`, `added` is what the configuration does not say.
    """

    model: str
    name: str
    description: str
    aliases: tuple[str, ...]
    unlisted: bool
    capabilities: tuple[str, ...]
    context: int
    state: str
    since: float
    pid: int | None
    asleep: bool
    command: str
    environment: tuple[str, ...]
    added: tuple[str, ...]
    url: str
    closed: bool
    schedule: ScheduleStatus
    swap: SwapStatus | None
    price: Price
    engine: AttachmentStatistics | None
    gate: GateStatistics
    kv: KvStatistics
    warmup: RunnerStatistics
    templates: tuple[TemplateStatistics, ...]


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Another server whose models are passed on."""

    peer: str
    url: str
    models: tuple[str, ...]
    connections: PoolStatistics


class ProfilesStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The active profile ("": none), all there are, and what each is for."""

    active: str
    names: tuple[str, ...]
    descriptions: dict[str, str]
    pins: dict[str, dict[str, str]]


class SelectorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A selector; `busy`: its requests under way, by target."""

    selector: str
    name: str
    description: str
    unlisted: bool
    strategy: str
    spillover: int
    targets: tuple[str, ...]
    busy: dict[str, int]


class CommonKv(msgspec.Struct, frozen=True, kw_only=True):
    """What counts for every model that says nothing else: the policy, and the folder for its snapshots."""

    policy: str
    directory: str


class FleetStatus(ProgramStatus, frozen=True, kw_only=True, tag="models"):
    """The program with many models at one moment."""

    waiting: int
    running: int
    models: tuple[ModelStatus, ...]
    kv: CommonKv
    shelves: tuple[ShelfStatistics, ...]
    snapshots: tuple[SnapshotStatistics, ...]
    peers: tuple[PeerStatus, ...]
    profiles: ProfilesStatus
    selectors: tuple[SelectorStatus, ...]
    performance: PerformanceStatistics
    logbook: LogbookStatistics


def status_of(
    fleet: Fleet,
    *,
    config: Config,
    source: ConfigStatus,
    started: float,
    pause: PauseStatus | None,
    catalogue: Catalogue,
    pins: Pins,
    front: Front,
    admin: Admin,
    servers: Mapping[str, Server],
    management: Management,
    busy: Mapping[tuple[str, str], int],
    metrics: Metrics,
) -> Status | FleetStatus:
    """Ask every part; `busy` counts requests under way by selector and target."""
    today, total = metrics.requests.tokens(partial(seconds_per_token, fleet))
    shared: dict[str, Any] = {
        "version": __version__,
        "pid": os.getpid(),
        "started": started,
        "uptime": time.time() - started,
        "pause": pause,
        "config": source,
        "templates": catalogue.statistics(),
        "template_requests": metrics.requests.by_template(),
        "pins": pins.statistics(),
        "today": today,
        "tokens": total,
        "servers": {name: server.statistics() for name, server in servers.items()},
        "refused_pages": {"proxy": front.refusals.statistics(), "admin": admin.refusals.statistics()},
        "clients": front.dispatch.statistics(),
        "keys": front.allowances.statistics(),
        "captures": management.captures.statistics(),
        "store": management.store.statistics(),
        "inflight": management.inflight.statistics(),
        "notes": notes(config, front, servers),
    }
    wanted = config.ui.captures if fleet.only is not None else management.settings.dialect.capture_buffer
    if (wanted > 0 or config.captures.disk) and not management.captures.most:
        shared["notes"] += (NO_CAPTURES,)
    if any(one.runner.unplugged for one in fleet.stations.values()):
        shared["notes"] += (ON_BATTERY,)
    shelves = fleet.shelves if fleet.only is None else fleet.only.station.keeper.tenant.shelves
    shared["notes"] += tuple(DAMAGED.format(one) for one in shelves.statistics() if one.damaged)
    if management.folder.fault:
        shared["notes"] += (f"captures cannot be written: {management.folder.fault}",)
    if fleet.only is not None:
        return Status(**shared, **of_station(fleet.only.station))
    if not servers["admin"].addresses:
        shared["notes"] += (NO_ADMIN_PORT,)
    return FleetStatus(**shared, **of_fleet(fleet, management, busy))


def seconds_per_token(fleet: Fleet, model: str) -> float:
    """What the engine of a model needs to read a token, as far as that was measured; else, and of a peer's, 0."""
    station = fleet.only.station if fleet.only is not None else fleet.stations.get(model)
    prefill = station.keeper.speeds.prefill if station is not None else ASSUMED
    return 0.0 if prefill == ASSUMED else prefill  # whatever is measured moves it


def notes(config: Config, front: Front, servers: Mapping[str, Server]) -> tuple[str, ...]:
    """What an operator should know and nothing else says."""
    pairs = dict.fromkeys(server.tls for server in servers.values() if server.tls is not None)
    found = [why for pair in pairs for why in (pair.fault, doubt(pair, time.time())) if why]
    if len(config.api_keys) > 1 and config.kv.isolate == "off":
        found.append(
            "what the engine holds in memory is shared by all who use it, and answer times can tell one key what "
            "another asked; kv.isolate: strict prevents that"
        )
    if pages := sorted(front.refusals.statistics().items(), key=lambda one: -one[1]):
        shown = ", ".join(f"{page} ({count})" for page, count in pages[:SHOWN_PAGES])
        found.append(
            f"pages were refused: {shown}; cors_origins names pages that may, admin_hosts names of this machine"
        )
    return tuple(found)


def of_station(station: Station) -> dict[str, Any]:
    return {
        "engine": presentable(station.attachment.statistics()),
        "gate": station.gate.statistics(),
        "warmup": station.runner.statistics(),
        "kv": station.keeper.statistics(),
        "snapshots": station.keeper.snapshots(),
    }


def of_fleet(fleet: Fleet, management: Management, busy: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """All models, and what is there for them."""
    schedule = fleet.supervisor.statistics()
    closed = frozenset(schedule.closed)
    return {
        "waiting": schedule.waiting,
        "running": schedule.running,
        "models": tuple(
            model_status(fleet, one, closed=one.model in closed)
            for one in schedule.models
            if one.model in fleet.stations
        ),
        "kv": CommonKv(policy=fleet.config.kv.policy, directory=fleet.folder),
        "shelves": fleet.shelves.statistics(),
        "snapshots": snapshots_of(fleet),
        "peers": peers_of(fleet),
        "profiles": profiles_of(fleet),
        "selectors": selectors_of(fleet, busy),
        "performance": management.monitor.statistics(),
        "logbook": management.logbook.statistics(),
    }


def presentable(engine: AttachmentStatistics) -> AttachmentStatistics:
    """The engine's state without its chat template, which is pages long, and without the keys it was started with."""
    facts = engine.facts
    if facts is not None:
        shown, environment = tuple(masked_words(facts.command)), tuple(masked_environment(facts.environment))
        started = tuple(masked_words(facts.launched))
        facts = msgspec.structs.replace(
            facts, chat_template="", command=shown, environment=environment, launched=started
        )
    return msgspec.structs.replace(engine, facts=facts)


def model_status(fleet: Fleet, one: ModelStatistics, *, closed: bool) -> ModelStatus:
    station, unit = fleet.stations[one.model], fleet.units[one.model]
    engine, described = station.attachment.statistics(), fleet.dialect.models[one.model]
    return ModelStatus(
        model=one.model,
        name=described.name,
        description=described.description,
        aliases=tuple(alias for alias, owner in fleet.dialect.aliases.items() if owner == one.model),
        unlisted=described.unlisted,
        capabilities=capabilities_of(described),
        context=described.capabilities.context if described.capabilities is not None else 0,
        state=one.state.value,
        since=fleet.supervisor.unix_time(one.since),
        pid=unit.pid,
        asleep=unit.asleep,
        command=joined(masked_words(unit.launch.words)),
        environment=tuple(masked_environment(unit.launch.environment)),
        added=added_to(unit.launch, described, fleet.folder),
        url=masked_url_password(unit.launch.url),
        closed=closed,
        schedule=schedule_status(fleet, one),
        swap=swap_status(fleet.supervisor.lives.swapped.get(one.model)),
        price=station.price(),
        engine=presentable(engine) if station.asks and engine.looks else None,
        gate=station.gate.statistics(),
        kv=station.keeper.statistics(),
        warmup=station.runner.statistics(),
        templates=station.catalogue.statistics() if station.catalogue is not fleet.common else (),
    )


def added_to(launch: Launch, model: Model, folder: str) -> tuple[str, ...]:
    """What we added to a model's command and environment."""
    flags = (f"{FLAG} {shlex.quote(folder)}",) if launch.added else ()
    return (*flags, *(entry for entry in launch.environment if entry not in model.env))


def capabilities_of(model: Model) -> tuple[str, ...]:
    """What it can do, in the words of the list of models."""
    return tuple(describe(model.capabilities)["capabilities"]) if model.capabilities is not None else ()


def swap_status(swap: SwapEnded | None) -> SwapStatus | None:
    if swap is None:
        return None
    return SwapStatus(**{name: getattr(swap, name) for name in SwapStatus.__struct_fields__})


def schedule_status(fleet: Fleet, one: ModelStatistics) -> ScheduleStatus:
    """A model's place in the schedule, in unix time."""
    return ScheduleStatus(
        running=one.running,
        waiting=one.waiting,
        waits_for=one.waits_for,
        waits_since=fleet.supervisor.unix_time(one.waits_since) if one.waits_for else None,
        displaces=one.displaces,
        starts=one.starts,
        load_seconds=one.load_seconds,
        last_used=fleet.supervisor.unix_time(one.last_used),
        unload_at=fleet.supervisor.unix_time(one.unload_at) if one.unload_at else None,
        failures=one.failures,
        retry_at=fleet.supervisor.unix_time(one.retry_at) if one.retry_at > fleet.supervisor.clock() else None,
        reason=one.reason,
    )


def snapshots_of(fleet: Fleet) -> tuple[SnapshotStatistics, ...]:
    """Every snapshot once, the last used first, with the reason of the model that may use it, if any."""
    found: dict[str, SnapshotStatistics] = {}
    models: dict[str, tuple[str, ...]] = {}
    for name, station in fleet.stations.items():
        for one in station.keeper.snapshots():
            models[one.name] = (*models.get(one.name, ()), name)
            if one.name not in found or found[one.name].unused:
                found[one.name] = one
    for snapshot in fleet.shelves.list():
        if snapshot.name not in found:
            fields = msgspec.structs.asdict(snapshot)
            known = {name: fields[name] for name in SnapshotStatistics.__struct_fields__ if name in fields}
            found[snapshot.name] = SnapshotStatistics(
                name=snapshot.name, bytes=snapshot.size, unused=snapshot.quarantined or NOT_MET, **known
            )
    named = (msgspec.structs.replace(one, models=models.get(one.name, ())) for one in found.values())
    return tuple(sorted(named, key=lambda one: -one.used))


def peers_of(fleet: Fleet) -> tuple[PeerStatus, ...]:
    return tuple(
        PeerStatus(
            peer=name,
            url=masked_url_password(settings.proxy),
            models=settings.models,
            connections=fleet.peers[name].pool.statistics(),
        )
        for name, settings in fleet.dialect.peers.items()
        if name in fleet.peers
    )


def profiles_of(fleet: Fleet) -> ProfilesStatus:
    profiles = fleet.dialect.profiles
    return ProfilesStatus(
        active=fleet.plan.registry.profile,
        names=tuple(profiles),
        descriptions={name: profile.description for name, profile in profiles.items()},
        pins={name: dict(profile.pins) for name, profile in profiles.items()},
    )


def selectors_of(fleet: Fleet, busy: Mapping[tuple[str, str], int]) -> tuple[SelectorStatus, ...]:
    """The selectors, and how busy their targets are by them."""
    return tuple(
        SelectorStatus(
            selector=name,
            name=selector.name,
            description=selector.description,
            unlisted=selector.unlisted,
            spillover=selector.settings.spillover,
            strategy=selector.strategy,
            targets=selector.targets,
            busy={target: busy[name, target] for target in selector.targets if busy[name, target]},
        )
        for name, selector in fleet.dialect.selectors.items()
    )
