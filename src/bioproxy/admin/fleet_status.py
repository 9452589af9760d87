"""`/status` of many models: what is the same for the whole program, and each model with all that is known of it.

The twin of `status.py`, which is that of one engine: the parts' own `statistics()` side by side, nothing computed.
Three things are told otherwise than their owners keep them: times of the schedule's clock become unix time, command
lines and URLs lose their secrets, and snapshots of a shared folder stand in one list, each once.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping

import msgspec

from bioproxy import __version__
from bioproxy.admin.activity_store import StoreStatistics
from bioproxy.admin.captures import CaptureStatistics
from bioproxy.admin.management import Management
from bioproxy.admin.performance import PerformanceStatistics
from bioproxy.admin.status import (
    ConfigStatus,
    Program,
    config_status,
    notes,
    presentable,
    refused_pages,
    server_statistics,
)
from bioproxy.config.masking import masked_url_password, masked_words
from bioproxy.engines.attach import AttachmentStatistics
from bioproxy.events import SwapEnded
from bioproxy.front.inflight import InflightStatistics
from bioproxy.gate import GateStatistics
from bioproxy.kv.shelves import ShelfStatistics
from bioproxy.kv.statistics import KvStatistics, SnapshotStatistics
from bioproxy.logbook import LogbookStatistics
from bioproxy.models.fleet import Fleet
from bioproxy.models.record import ModelStatistics
from bioproxy.station import Price
from bioproxy.templates.catalogue import TemplateStatistics
from bioproxy.templates.pins import PinStatistics
from bioproxy.warmup.runner import RunnerStatistics
from bioproxy.wire.connection import ServerStatistics
from bioproxy.wire.upstream import PoolStatistics

NOT_MET = "of no model that ran since the start"
NO_ADMIN_PORT = "there is no admin port: another program has it; this one answers on the proxy port"
NO_CAPTURES = "captures are off: several keys may use the models, and nobody is the admin (admin_key)"


class ScheduleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model's place in the schedule: unix time and seconds; None: does not apply, or was not measured."""

    running: int
    waiting: int
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
    """One model. `engine` is None if nothing is asked of it, for it is no llama-server.

    `closed`: newcomers wait behind somebody who has waited for another model for too long. `templates` are its own.
    """

    model: str
    state: str
    since: float
    pid: int | None
    command: str
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
    """The active profile ("": none), and all there are."""

    active: str
    names: tuple[str, ...]


class SelectorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A selector; `busy`: its requests under way, by target."""

    selector: str
    strategy: str
    targets: tuple[str, ...]
    busy: dict[str, int]


class CommonKv(msgspec.Struct, frozen=True, kw_only=True):
    """What counts for every model that says nothing else: the policy, and the folder for its snapshots."""

    policy: str
    directory: str


class FleetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The whole program at one moment."""

    version: str
    pid: int
    started: float  # unix time
    uptime: float  # seconds
    config: ConfigStatus
    waiting: int
    running: int
    models: tuple[ModelStatus, ...]
    kv: CommonKv
    shelves: tuple[ShelfStatistics, ...]
    snapshots: tuple[SnapshotStatistics, ...]
    templates: tuple[TemplateStatistics, ...]
    pins: PinStatistics
    peers: tuple[PeerStatus, ...]
    profiles: ProfilesStatus
    selectors: tuple[SelectorStatus, ...]
    performance: PerformanceStatistics
    captures: CaptureStatistics
    store: StoreStatistics
    logbook: LogbookStatistics
    inflight: InflightStatistics
    servers: dict[str, ServerStatistics]
    refused_pages: dict[str, dict[str, int]]
    notes: tuple[str, ...]


def fleet_status_of(program: Program, fleet: Fleet, management: Management | None) -> FleetStatus:
    """Ask every part. Where there is a fleet its management is there, too."""
    assert management is not None
    schedule = fleet.supervisor.statistics()
    closed = frozenset(schedule.closed)
    return FleetStatus(
        version=__version__,
        pid=os.getpid(),
        started=program.started,
        uptime=time.time() - program.started,
        config=config_status(program),
        waiting=schedule.waiting,
        running=schedule.running,
        models=tuple(
            model_status(fleet, one, closed=one.model in closed)
            for one in schedule.models
            if one.model in fleet.stations
        ),
        kv=CommonKv(policy=fleet.config.kv.policy, directory=fleet.folder),
        shelves=fleet.shelves.statistics(),
        snapshots=snapshots_of(fleet),
        templates=program.catalogue.statistics(),
        pins=program.pins.statistics(),
        peers=peers_of(fleet),
        profiles=ProfilesStatus(active=fleet.plan.registry.profile, names=tuple(fleet.dialect.profiles)),
        selectors=selectors_of(fleet, management.busy),
        performance=management.monitor.statistics(),
        captures=management.captures.statistics(),
        store=management.store.statistics(),
        logbook=management.logbook.statistics(),
        inflight=management.inflight.statistics(),
        servers=server_statistics(program),
        refused_pages=refused_pages(program),
        notes=fleet_notes(program, management),
    )


def model_status(fleet: Fleet, one: ModelStatistics, *, closed: bool) -> ModelStatus:
    """One model."""
    station, unit = fleet.stations[one.model], fleet.units[one.model]
    engine = station.attachment.statistics()
    own = fleet.own.get(one.model)
    return ModelStatus(
        model=one.model,
        state=one.state.value,
        since=wall(fleet, one.since),
        pid=unit.pid,
        command=shlex.join(masked_words(unit.launch.words)),
        url=masked_url_password(unit.launch.url),
        closed=closed,
        schedule=schedule_status(fleet, one),
        swap=swap_status(fleet.supervisor.swapped.get(one.model)),
        price=station.price() if engine.state == "ready" else Price(),
        engine=presentable(engine) if station.asks and engine.looks else None,
        gate=station.gate.statistics(),
        kv=station.keeper.statistics(),
        warmup=station.runner.statistics(),
        templates=own.statistics() if own is not None else (),
    )


def swap_status(swap: SwapEnded | None) -> SwapStatus | None:
    """A model's newest swap."""
    if swap is None:
        return None
    return SwapStatus(**{name: getattr(swap, name) for name in SwapStatus.__struct_fields__})


def schedule_status(fleet: Fleet, one: ModelStatistics) -> ScheduleStatus:
    """A model's place in the schedule, in unix time."""
    return ScheduleStatus(
        running=one.running,
        waiting=one.waiting,
        starts=one.starts,
        load_seconds=one.load_seconds,
        last_used=wall(fleet, one.last_used),
        unload_at=wall(fleet, one.unload_at) if one.unload_at else None,
        failures=one.failures,
        retry_at=wall(fleet, one.retry_at) if one.retry_at > fleet.supervisor.clock() else None,
        reason=one.reason,
    )


def wall(fleet: Fleet, moment: float) -> float:
    """A moment of the schedule's clock as unix time."""
    return time.time() - (fleet.supervisor.clock() - moment)


def snapshots_of(fleet: Fleet) -> tuple[SnapshotStatistics, ...]:
    """Every snapshot once, the last used first, with the reason of the model that may use it, if any."""
    found: dict[str, SnapshotStatistics] = {}
    for station in fleet.stations.values():
        for one in station.keeper.snapshots():
            if one.name not in found or found[one.name].unused:
                found[one.name] = one
    for snapshot in fleet.shelves.list():
        if snapshot.name not in found:
            fields = msgspec.structs.asdict(snapshot)
            known = {name: fields[name] for name in SnapshotStatistics.__struct_fields__ if name in fields}
            found[snapshot.name] = SnapshotStatistics(
                name=snapshot.name, bytes=snapshot.size, unused=snapshot.quarantined or NOT_MET, **known
            )
    return tuple(sorted(found.values(), key=lambda one: -one.used))


def peers_of(fleet: Fleet) -> tuple[PeerStatus, ...]:
    """The other servers."""
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


def selectors_of(fleet: Fleet, busy: Mapping[tuple[str, str], int]) -> tuple[SelectorStatus, ...]:
    """The selectors, and how busy their targets are by them."""
    return tuple(
        SelectorStatus(
            selector=name,
            strategy=selector.strategy,
            targets=selector.targets,
            busy={target: busy[name, target] for target in selector.targets if busy[name, target]},
        )
        for name, selector in fleet.dialect.selectors.items()
    )


def fleet_notes(program: Program, management: Management) -> tuple[str, ...]:
    """What an operator should know and nobody else says."""
    found = list(notes(program))
    if not program.admin_server.addresses:
        found.append(NO_ADMIN_PORT)
    if management.settings.dialect.capture_buffer > 0 and management.captures.limit == 0:
        found.append(NO_CAPTURES)
    return tuple(found)
