"""`GET /api/models`: every model in a row, and the requests under way; what `bioproxy models` and `top` print.

A client that may use one model may see the models: nothing of what was asked or answered is in it, and no names of
clients. One of several keys does not see the requests of the others.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import msgspec

from bioproxy.activity import InflightRequest, Stage, Work
from bioproxy.config.masking import masked_words
from bioproxy.engines.commands import joined
from bioproxy.engines.listener import resident
from bioproxy.events import RequestEnded
from bioproxy.front.inflight import Inflight
from bioproxy.models.book import ModelStatistics
from bioproxy.models.fleet import Fleet
from bioproxy.models.only import ENGINE, Only


class Speeds(msgspec.Struct, frozen=True):
    """Tokens per second of the newest answer that told; None: none did."""

    prompt: float | None = None
    tokens: float | None = None


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model. Times are unix time, lengths of time seconds, sizes bytes.

    `memory`: what its processes have in memory (None: not known); `tokens`: what its KV cache holds; `unload_in` and
    `retry_in`: None if it does not apply; `reason`: the newest failure; `snapshots` on disk that it can use.
    """

    model: str
    aliases: tuple[str, ...]
    state: str
    since: float
    pid: int | None
    memory: int | None
    running: int
    waiting: int
    starts: int
    load_seconds: float | None
    last_used: float
    unload_in: float | None
    retry_in: float | None
    reason: str
    tokens: int
    snapshots: int
    snapshot_bytes: int
    prompt_per_second: float | None
    tokens_per_second: float | None
    command: str


class Underway(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Seconds, bytes, unix time; `position` is its place among those who wait, 1 is next, 0: it does not.

    `stage`, `reason` and `left` are those of activity.Standing. No ids, keys or addresses stand here.
    """

    model: str
    path: str
    stage: Stage
    position: int
    reason: str
    left: float | None
    started: float
    elapsed: float
    bytes: int


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All models; `pid` is the program's own, and tells two programs with one configuration apart.

    `configuration` is the name of its folder for state, which tells two configurations apart.
    """

    pid: int
    configuration: str
    profile: str
    models: tuple[ModelRow, ...]
    requests: tuple[Underway, ...]


class SpeedBook:
    """Each model's newest speeds, out of the records of requests."""

    def __init__(self) -> None:
        self.known: dict[str, Speeds] = {}
        self.last_used = 0.0  # of the only engine, unix time

    def note_only(self, event: RequestEnded) -> None:
        """A request to the only engine has ended, whose speeds follow from its times."""
        record = event.record
        prompt = (record.tokens_evaluated or 0) / record.prefill if record.prefill else 0.0
        tokens = (record.tokens_generated or 0) / record.decode if record.decode else 0.0
        self.last_used = record.started + record.total
        self.keep(ENGINE, prompt, tokens)

    def note(self, event: RequestEnded) -> None:
        """A request to one of many models has ended."""
        record = event.record
        if record.usage is None or not record.model:
            return
        usage = record.usage
        if usage.prompt_per_second > 0 or usage.tokens_per_second > 0:
            self.keep(record.model, usage.prompt_per_second, usage.tokens_per_second)

    def keep(self, model: str, prompt: float, tokens: float) -> None:
        """Keep speeds; those that are not positive were not told."""
        old = self.known.get(model, Speeds())
        if prompt > 0 or tokens > 0:
            self.known[model] = Speeds(prompt if prompt > 0 else old.prompt, tokens if tokens > 0 else old.tokens)

    def of(self, model: str) -> Speeds:
        return self.known.get(model, Speeds())


async def overview_of(fleet: Fleet, inflight: Inflight, speeds: SpeedBook) -> Overview:
    """Everything now; the memory is looked at in a thread."""
    pids = {name: unit.pid for name, unit in fleet.units.items() if unit.pid is not None}
    memory = await asyncio.to_thread(lambda: {name: resident(pid) for name, pid in pids.items()})
    statistics = fleet.supervisor.statistics().models
    rows = [row_of(fleet, one, speeds.of(one.model), memory.get(one.model)) for one in statistics]
    if fleet.only is not None:
        rows = [of_only(fleet.only, row, last_used=speeds.last_used) for row in rows]
    return Overview(
        pid=os.getpid(),
        configuration=fleet.state.name,
        profile=fleet.plan.registry.profile,
        models=tuple(rows),
        requests=tuple(under_way(one, model=one.model or rows[0].model) for one in inflight.snapshot()),
    )


def row_of(fleet: Fleet, one: ModelStatistics, speeds: Speeds, memory: int | None) -> ModelRow:
    """One model; one that a reload took away has only its process left."""
    clock, unix_time = fleet.supervisor.clock(), fleet.supervisor.unix_time
    station, unit = fleet.stations.get(one.model), fleet.units.get(one.model)
    kv = station.keeper.statistics() if station is not None else None
    met = station is not None and station.attachment.state == "ready"  # only then its cache is known
    return ModelRow(
        model=one.model,
        aliases=tuple(alias for alias, owner in fleet.dialect.aliases.items() if owner == one.model),
        state=one.state.value,
        since=unix_time(one.since),
        pid=unit.pid if unit is not None else None,
        memory=memory,
        running=one.running,
        waiting=one.waiting,
        starts=one.starts,
        load_seconds=one.load_seconds,
        last_used=unix_time(one.last_used),
        unload_in=max(0.0, one.unload_at - clock) if one.unload_at else None,
        retry_in=one.retry_at - clock if one.retry_at > clock else None,
        reason=one.reason,
        tokens=sum(slot.tokens for slot in kv.slots) if kv is not None and met else 0,
        snapshots=kv.snapshots if kv is not None else 0,
        snapshot_bytes=kv.bytes if kv is not None else 0,
        prompt_per_second=speeds.prompt,
        tokens_per_second=speeds.tokens,
        command=joined(masked_words(unit.launch.words)) if unit is not None else "",
    )


def of_only(only: Only, row: ModelRow, *, last_used: float) -> ModelRow:
    """The only engine's row, as its attachment and its gate know it."""
    engine, gate = only.station.attachment.statistics(), only.station.gate.statistics()
    state: str = row.state if row.state in {"stopped", "failed"} else engine.state
    found = engine.facts.pid if engine.facts is not None else None
    name, *aliases = only.names
    return msgspec.structs.replace(
        row,
        model=name,
        aliases=tuple(aliases),
        state=state,
        since=engine.since,
        pid=only.pid if only.plan is not None else found,
        running=of_clients(gate.running),
        waiting=of_clients(gate.waiting),
        starts=only.process.starts if only.plan is not None else engine.generation,
        load_seconds=None,
        last_used=last_used or engine.since,
        reason=row.reason if state == "failed" else "" if state in {"ready", "stopped"} else engine.reason,
    )


def under_way(one: InflightRequest, *, model: str) -> Underway:
    """A request of the table of those under way."""
    standing = one.standing
    return Underway(
        model=model,
        path=one.req_path,
        stage=standing.stage,
        position=standing.place,
        reason=standing.reason,
        left=standing.left,
        started=one.timestamp.timestamp(),
        elapsed=one.elapsed_ms / 1000,
        bytes=one.resp_bytes,
    )


def of_clients(counts: Mapping[Work, int]) -> int:
    """How many of a gate's requests are clients'; the rest is work of our own."""
    return sum(count for work, count in counts.items() if work != "background")
