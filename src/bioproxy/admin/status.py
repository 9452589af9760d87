"""`/status`: what every part says of itself, in one value.

Nothing is computed here. Each part has `statistics()`, a frozen Struct without private text, and this module puts
them side by side. So what an operator sees is what the tests assert on.

This is the status of one engine. With many models it is another value, `admin/fleet_status.py`, which shares what is
the same of any program.
"""

from __future__ import annotations

import os
import time
from typing import Protocol

import msgspec

from bioproxy import __version__
from bioproxy.admin.admin import Admin
from bioproxy.config.load import Loaded
from bioproxy.config.masking import masked_environment, masked_words
from bioproxy.config.schema import Config
from bioproxy.engines.attach import AttachmentStatistics
from bioproxy.front.proxy import Front
from bioproxy.gate import GateStatistics
from bioproxy.kv.keeper import KvStatistics
from bioproxy.kv.statistics import SnapshotStatistics
from bioproxy.station import Station
from bioproxy.templates.catalogue import Catalogue, TemplateStatistics
from bioproxy.templates.pins import Pins, PinStatistics
from bioproxy.warmup.runner import RunnerStatistics
from bioproxy.wire.connection import ServerStatistics
from bioproxy.wire.server import Server

SHOWN_PAGES = 5  # that a note names; `refused_pages` has all


class Program(Protocol):
    """What of the app is the same, whatever it serves."""

    started: float  # unix time
    loaded: Loaded
    reload_error: str
    catalogue: Catalogue
    pins: Pins
    front: Front
    admin: Admin
    proxy_server: Server
    admin_server: Server

    @property
    def config(self) -> Config:
        """The keys of bioproxy's own, as they are in force."""


class ConfigStatus(msgspec.Struct, frozen=True):
    """Where the configuration came from, what is odd about it, and why the last reload failed (empty: it did not).

    `path` is the first of all its files (`paths`).
    """

    path: str | None
    warnings: tuple[str, ...]
    reload_error: str
    paths: tuple[str, ...] = ()


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole program at one moment."""

    version: str
    pid: int
    started: float  # unix time
    uptime: float  # seconds
    config: ConfigStatus
    engine: AttachmentStatistics
    gate: GateStatistics
    templates: tuple[TemplateStatistics, ...]
    warmup: RunnerStatistics
    kv: KvStatistics
    snapshots: tuple[SnapshotStatistics, ...]
    pins: PinStatistics
    servers: dict[str, ServerStatistics]
    refused_pages: dict[str, dict[str, int]]
    notes: tuple[str, ...]


def notes(program: Program) -> tuple[str, ...]:
    """What an operator should know and nobody else says."""
    found = []
    if len(program.config.api_keys) > 1 and program.config.kv.isolate == "off":
        found.append(
            "what the engine holds in memory is shared by all who use it, and its timing can tell (kv.isolate: strict)"
        )
    if pages := sorted(program.front.refusals.statistics().items(), key=lambda one: -one[1]):
        shown = ", ".join(f"{page} ({count})" for page, count in pages[:SHOWN_PAGES])
        found.append(
            f"pages were refused: {shown}; cors_origins names pages that may, admin_hosts names of this machine"
        )
    return tuple(found)


def config_status(program: Program) -> ConfigStatus:
    """The configuration that is in use."""
    warnings = tuple(str(one) for one in program.loaded.warnings)
    return ConfigStatus(program.loaded.path, warnings, program.reload_error, program.loaded.paths)


def server_statistics(program: Program) -> dict[str, ServerStatistics]:
    """Both ports."""
    return {"proxy": program.proxy_server.statistics(), "admin": program.admin_server.statistics()}


def refused_pages(program: Program) -> dict[str, dict[str, int]]:
    """For each port the pages that may not use it, by their origin or the name by which they asked, and how often."""
    return {"proxy": program.front.refusals.statistics(), "admin": program.admin.refusals.statistics()}


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


def status_of(program: Program, station: Station) -> Status:
    """Ask every part."""
    return Status(
        version=__version__,
        pid=os.getpid(),
        started=program.started,
        uptime=time.time() - program.started,
        config=config_status(program),
        engine=presentable(station.attachment.statistics()),
        gate=station.gate.statistics(),
        templates=program.catalogue.statistics(),
        warmup=station.runner.statistics(),
        kv=station.keeper.statistics(),
        snapshots=station.keeper.snapshots(),
        pins=program.pins.statistics(),
        servers=server_statistics(program),
        refused_pages=refused_pages(program),
        notes=notes(program),
    )
