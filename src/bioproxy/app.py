"""The composition root: every part of the program is built, started and stopped here.

Start order: templates (a broken one ends the start), listeners, then the services, so that the ports answer within
half a second whatever the engine does. Stop order is the way back: no new connections, streams finish up to a
deadline, services end, what pays is saved, our connections to the engine close, and only then an engine of ours is
stopped (llama-server does not exit while a connection is open: facts, section 3).

Each service is *guarded*: a fault in a warm-up is logged, counted and retried; it never cuts a stream. Only a listener
that cannot be opened ends the program.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from bioproxy import aio
from bioproxy import log as logs
from bioproxy.activity import InflightRequest
from bioproxy.admin.admin import Admin
from bioproxy.admin.config_api import ConfigApi, ConfigTrial
from bioproxy.admin.contexts_api import ContextsApi
from bioproxy.admin.doctor_api import DoctorApi
from bioproxy.admin.keys_api import KeysApi
from bioproxy.admin.listing import list_models
from bioproxy.admin.live import Live
from bioproxy.admin.management import Management
from bioproxy.admin.ollama import OllamaModels
from bioproxy.admin.page import WebPage, other_port
from bioproxy.admin.pause_api import PauseApi
from bioproxy.admin.requests_api import Requests
from bioproxy.admin.routes import Entry
from bioproxy.admin.snapshots_api import SnapshotsApi
from bioproxy.admin.status import ConfigStatus, FleetStatus, Status, snapshots_of, status_of
from bioproxy.admin.templates_api import TemplatesApi
from bioproxy.config.addresses import listens_at
from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.config.keys import KEYS
from bioproxy.config.load import Loaded, admin_port_asked, make_state_folder
from bioproxy.config.schema import Config, template_files
from bioproxy.config.settings import Settings, dialect_difference, difference, in_force
from bioproxy.doctor.doctor import Doctor
from bioproxy.engines.lines import EngineLines
from bioproxy.engines.listener import taken_by
from bioproxy.errors import BioproxyError, ConfigError, Problem, QueueTimeout
from bioproxy.events import Bus, ConfigReloaded, EngineChanged, ModelChanged, RequestEnded
from bioproxy.front import llamaswap_errors
from bioproxy.front.allowance import Allowances
from bioproxy.front.dialects import error_answer
from bioproxy.front.dispatch import OneEngine
from bioproxy.front.many import ManyModels
from bioproxy.front.ollama.road import Ollama
from bioproxy.front.prefix import below
from bioproxy.front.proxy import Front
from bioproxy.kv.budget import budgets_of
from bioproxy.kv.saver import counted
from bioproxy.kv.shelves import Shelves
from bioproxy.logbook import Console, Destination, Logbook
from bioproxy.metrics import Kept, Metrics
from bioproxy.models.fleet import STOP_LIMIT, Fleet
from bioproxy.models.pause import Pause
from bioproxy.models.plan import Plan
from bioproxy.station import Service, guarded
from bioproxy.templates.catalogue import Catalogue, watch
from bioproxy.templates.pins import Pins
from bioproxy.wire.http1.message import Headers, Request
from bioproxy.wire.server import (
    ADMIN_SHARE,
    FEWEST,
    OLLAMA_SHARE,
    Server,
    files_for_clients,
    open_files,
)
from bioproxy.wire.sockets import PortTaken
from bioproxy.wire.tls import PairContext, tls_context
from bioproxy.wire.tls import watch as watch_certificate

if TYPE_CHECKING:
    from bioproxy.front.spans import Spans

log = logging.getLogger(__name__)

MOMENT = 15.0  # seconds that a step of the end may take beside what it waits for
TIMES = "rfc3339"  # the form of times in the log that `bioproxy logs` shows of one engine


def tls_of(config: Config) -> PairContext | None:
    """What ports speak TLS with; None if none does. ConfigError if a file is not usable."""
    return tls_context(config.tls_cert_file, config.tls_key_file) if config.tls_cert_file else None


def spans() -> Spans:
    """What traces requests; ConfigError if its packages are not installed, or a variable of theirs is wrong."""
    try:
        from bioproxy.front.spans import Spans
    except ImportError as error:
        message = f"wants the extra [otel] (`pip install 'bioproxy[otel]'`): {error}"
        raise ConfigError([Problem(message, key="tracing")]) from error
    return Spans()


class App:
    """The running program. `reload` reads the configuration again, and raises ConfigError if it is broken.

    With many models it gets the ports that they have. `sockets` are open already, by port; the others we open.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        reload: Callable[..., Loaded],
        sockets: Mapping[str, Sequence[socket.socket]] = MappingProxyType({}),
    ) -> None:
        self.loaded = loaded
        self.sockets = sockets
        self.settings = Settings(loaded.config, loaded.dialect)
        config = loaded.config
        self.read_again = reload
        self.started = time.time()
        self.reload_error = ""
        self.reloading = asyncio.Lock()
        self.bus = Bus()
        self.requests = Requests()
        self.records = self.requests.records
        self.bus.subscribe(RequestEnded, self.requests.keep)
        self.metrics = Metrics(self.bus)
        self.doctor = Doctor(self.settings, self.bus)
        self.state = make_state_folder(loaded)
        self.shelves = Shelves(config=config.kv, bus=self.bus, budgets=partial(self.settings.made, budgets_of))
        self.catalogue = Catalogue(
            template_files(config.prefixes), folder=str(Path.cwd()), settings=self.settings, bus=self.bus
        )
        self.catalogue.load()
        self.look_now = asyncio.Event()  # at the files of templates
        self.pins = Pins(self.state / "pins")
        self.allowances = Allowances(self.settings, self.state)
        self.open_log(loaded)
        self.page = WebPage(self.beside)
        self.live = Live(
            self.bus, status=self.status, inflight=self.under_way, settings=self.settings, proxy=self.beside
        )
        self.fleet = Fleet(
            self.settings, bus=self.bus, catalogue=self.catalogue, pins=self.pins, state=self.state,
            shelves=self.shelves, logbook=self.logbook,
        )  # fmt: skip
        if self.fleet.only is not None:  # its keeper has folders of its own, and shows all that is in them
            own = self.fleet.only.station.keeper.tenant.shelves
            own.budgets, self.shelves = self.shelves.budgets, own
        self.pause = Pause(self.fleet, bus=self.bus)
        if self.fleet.only is None:
            self.bus.subscribe(ModelChanged, self.engine_lines.started)
        else:
            self.bus.subscribe(EngineChanged, self.engine_lines.lost)
        self.management = Management(
            self.settings,
            self.fleet,
            bus=self.bus,
            metrics=self.metrics,
            logbook=self.logbook,
            more=self.of_page(),
        )
        self.requests.of_row = self.management.store.record
        self.dispatch = self.one() if self.settings.one else self.many()
        self.dispatch.show = self.logbook.show
        ollama = Ollama(self.dispatch, self.fleet, describe=OllamaModels(self.fleet).describe)
        self.front = Front(
            self.settings, dispatch=self.dispatch, ollama=ollama, bus=self.bus, allowances=self.allowances
        )
        self.dispatch.spans = spans() if config.tracing else None
        self.admin = Admin(
            settings=self.settings,
            metrics=self.metrics,
            records=self.records,
            bus=self.bus,
            status=self.status,
            unready=self.pause.unready,
            reload=self.reload,
            more=self.management.entries,
            page=self.page,
        )
        most = files_for_clients(open_files())
        beside = most // OLLAMA_SHARE if config.ollama.listen else 0
        self.base_path = config.proxy.base_path.rstrip("/")
        self.proxy_server = Server(
            below(self.base_path, self.front.handle),
            limits=config.limits,
            name="proxy",
            error_body=self.error_body,
            files=max(FEWEST, most - beside),
        )
        self.ollama_server = Server(
            self.front.handle_ollama,
            limits=config.limits,
            name="ollama",
            error_body=self.error_body,
            files=max(FEWEST, beside),
        )
        self.admin_server = Server(
            below(self.base_path, self.admin.handle),
            limits=config.limits,
            name="admin",
            files=max(FEWEST, most // ADMIN_SHARE),
        )
        self.watch()
        self.services: list[asyncio.Task[None]] = []
        self.tls: PairContext | None = None

    def error_body(self, error: BioproxyError, path: str) -> tuple[Headers, bytes]:
        """An error that the server itself answers, in the form of the rest of the port."""
        one = self.loaded.dialect is None
        path = path.removeprefix(self.base_path)
        return error_answer(error, path) if one else llamaswap_errors.answer(error, path=path)

    def one(self) -> OneEngine:
        """The road to the only engine."""
        captures = partial(getattr, self.management.captures, "limit")
        inflight = self.management.inflight
        return OneEngine(self.settings, self.fleet, doctor=self.doctor, inflight=inflight, captures=captures)

    def many(self) -> ManyModels:
        """The road to one of many models, with the routes that show and manage them."""
        return ManyModels(
            settings=self.settings,
            fleet=self.fleet,
            doctor=self.doctor,
            inflight=self.management.inflight,
            managing=self.management.find,
            manage=self.management.serve,
            listing=partial(list_models, self.fleet),
            captures=partial(getattr, self.management.captures, "limit"),
            write_line=self.logbook.proxy_line,
        )

    def of_page(self) -> tuple[Entry, ...]:
        """The web page, and what it asks for beside what is for everybody."""
        stations = self.fleet.stations.values
        return (
            *self.page.entries(),
            *self.live.entries(),
            *self.requests.entries(),
            *PauseApi(self.pause, self.settings).entries(),
            *DoctorApi(self.doctor).entries(),
            *KeysApi(self.allowances).entries(),
            *TemplatesApi(stations, warm=self.fleet.warm).entries(),
            *SnapshotsApi(stations, snapshots=partial(snapshots_of, self.fleet)).entries(),
            *ContextsApi(
                stations,
                settings=self.settings,
                shelves=self.shelves,
                requests=self.requests,
                folder=lambda: self.loaded.slot_folder,
            ).entries(),
            *ConfigApi(lambda: self.loaded, trial=self.trial, reload=self.reload).entries(),
        )

    def open_log(self, loaded: Loaded) -> None:
        """The rings of the log. With many models, and as JSON, all lines go through them."""
        to_stdout = "both" if loaded.dialect is None else loaded.dialect.log_to_stdout
        self.logbook = Logbook(to_stdout=cast("Destination", to_stdout))  # checked when it was read
        self.console = Console()
        self.engine_lines = EngineLines(self.at_work)
        if loaded.dialect is not None:
            self.set_up_log(loaded)

    def set_up_log(self, loaded: Loaded) -> None:
        """Level and form of the log; with many models it goes where llama-swap's goes: into its rings, and stdout."""
        config, dialect, book = loaded.config.log, loaded.dialect, self.logbook
        as_json = config.format == "json"
        book.console = self.console if as_json or dialect is not None else None
        book.as_json = self.engine_lines if as_json else None
        asked = dialect is None or loaded.origins["log.level"].source != "default"
        logs.setup(
            level=config.level if asked or dialect is None else dialect.log_level,
            style=config.format,
            write=book.proxy_line,
            times=TIMES if dialect is None else dialect.log_time_format,
            show=book.show if as_json else None,
            quiet=dialect is not None,
        )

    def at_work(self, model: str) -> list[str]:
        """The ids of the requests that a model's engine works for."""
        return self.dispatch.standings.at_work(self.management.inflight.exchanges.values(), model)

    def watch(self) -> None:
        """Tell the metrics whose statistics to read."""
        self.metrics.templates = self.catalogue.statistics
        self.metrics.paused = lambda: self.pause.status is not None
        self.metrics.clients = self.dispatch.statistics
        self.metrics.shares = self.shelves.shares
        self.metrics.keys = self.allowances.statistics
        self.metrics.servers = {name: server.statistics for name, server in self.servers().items()}
        if self.fleet.only is None:
            self.metrics.watch_models(self.fleet.supervisor.statistics)
            self.metrics.kv = partial(kept, self.fleet)
        else:
            station = self.fleet.only.station
            self.metrics.gate = station.gate.statistics
            self.metrics.kv = station.keeper.statistics
            self.metrics.engine = station.attachment.statistics

    def servers(self) -> dict[str, Server]:
        """The ports by name."""
        found = {"proxy": self.proxy_server, "admin": self.admin_server}
        return {**found, "ollama": self.ollama_server} if self.config.ollama.listen else found

    def under_way(self) -> list[InflightRequest]:
        """The requests under way."""
        return self.management.inflight.snapshot()

    def beside(self, request: Request) -> str:
        """Where the admin port's page asks the one engine; "" if it asks the port that it came from."""
        if self.loaded.dialect is not None:
            return ""
        return other_port(request, bound=self.config.proxy_host, port=self.proxy_port, tls=self.tls is not None)

    @property
    def config(self) -> Config:
        """The keys of bioproxy's own, as they are in force."""
        return self.settings.config

    @property
    def proxy_port(self) -> int:
        """Where the proxy listens (the configured port may be 0); 0 at a unix socket."""
        return self.proxy_server.port

    @property
    def admin_port(self) -> int:
        """Where the admin port listens; 0 if there is none, or a unix socket."""
        return self.admin_server.port if self.admin_server.addresses else 0

    # start and stop

    async def start(self) -> None:
        """Open both ports, then start the services; ConfigError if a port cannot be had."""
        config = self.config
        self.tls = tls_of(config)
        try:
            await self.proxy_server.listen(
                config.proxy_host,
                config.proxy_port,
                self.tls,
                mode=int(config.socket_mode, 8),
                sockets=self.sockets.get("proxy", ()),
            )
        except PortTaken as error:
            raise await asyncio.to_thread(
                taken_by, error, config.proxy_host, config.proxy_port, flag="-port or -listen"
            ) from error
        await self.listen_as_ollama()
        self.front.listens_on(host for host, _ in (*self.proxy_server.addresses, *self.ollama_server.addresses))
        await self.listen_as_admin()
        if self.settings.one:
            self.front.asked_by(self.admin_port)
        await self.allowances.load()
        await self.pins.load()
        self.pins.forget(config.kv.max_age)
        services: dict[str, Service] = {
            **await self.fleet.start(),
            **await self.management.start(),
            "templates": self.watch_templates,
            "certificate": partial(watch_certificate, lambda: self.tls, self.renew),
            "pins": self.pins.run,
            "tokens of keys": self.allowances.run,
            "doctor": self.doctor.run,
            "ageing": self.forget_old,
            "pause": self.pause.run,
        }
        self.services = guarded(services, self.bus)

    async def listen_as_ollama(self) -> None:
        """Open Ollama's port, if there is to be one; ConfigError says which program has it."""
        place = listens_at(self.config.ollama.listen)
        if place is None:
            return
        try:
            await self.ollama_server.listen(*place)
        except PortTaken as error:
            raise await asyncio.to_thread(taken_by, error, *place, flag="-ollama-listen") from error

    async def listen_as_admin(self) -> None:
        """Open the admin port; ConfigError says which program has it.

        With many models, one that was not asked for may be taken: people run two instances.
        """
        host, port = self.config.admin_host, self.config.admin_port
        try:
            tls, mode = self.tls if self.config.admin_tls else None, int(self.config.socket_mode, 8)
            await self.admin_server.listen(host, port, tls, mode=mode, sockets=self.sockets.get("admin", ()))
        except PortTaken as error:
            told = await asyncio.to_thread(taken_by, error, host, port, flag="-admin-port")
            if self.loaded.dialect is None or admin_port_asked(self.loaded):
                raise told from error
            log.warning("there is no admin port: %s", told.message)

    async def stop(self, deadline: float) -> None:
        """End in order: listeners, waiters, streams (up to `deadline` seconds), saves, services, engine.

        Whatever was started, and however far: each step has a bound, and the next one follows even if it fails. A
        cancellation goes on when all is ended.
        """
        await aio.shielded(self.stop_in_order(deadline))

    async def stop_in_order(self, deadline: float) -> None:
        save, began, services = self.config.kv.save_timeout, bool(self.services), [*self.services]
        steps: list[tuple[str, Callable[[], Coroutine[Any, Any, object]], float]] = [
            ("turning clients away", partial(self.turn_away, deadline), MOMENT),
            ("closing the proxy port", partial(self.proxy_server.close, deadline=deadline), deadline + MOMENT),
            ("closing Ollama's port", partial(self.ollama_server.close, deadline=deadline), deadline + MOMENT),
            ("ending what nobody waits for", self.front.later.close, MOMENT),
            ("ending the services", partial(aio.finish, services), MOMENT),
            ("sending the last spans", self.close_spans, MOMENT),
            ("stopping the engines", self.fleet.stop, STOP_LIMIT + 2 * save + MOMENT),
            ("closing the snapshot folders", self.shelves.close, MOMENT),
            ("closing the admin port", self.close_admin_port, MOMENT),
        ]
        if began:  # else what is on disk was not read, or belongs to the program that has the port
            steps.append(("keeping the pins", self.pins.flush, MOMENT))
            steps.append(("keeping what keys used", self.allowances.flush, MOMENT))
        steps.append(("closing the activity table", self.management.close, MOMENT))
        for name, step, seconds in steps:
            await aio.end_step(step, name=name, seconds=seconds)

    async def turn_away(self, deadline: float) -> None:
        """Take no connections any more, end streams that have no end, and refuse requests that wait."""
        self.proxy_server.stop_accepting()
        self.ollama_server.stop_accepting()
        try:
            self.management.end_streams()
            self.live.close()
        finally:
            self.fleet.refuse(QueueTimeout("bioproxy is shutting down; try again", retry_after=max(1, round(deadline))))

    async def close_spans(self) -> None:
        if self.dispatch.spans is not None:
            await asyncio.to_thread(self.dispatch.spans.close)

    async def close_admin_port(self) -> None:
        """End its event streams, then its connections."""
        try:
            self.admin.close()
        finally:
            await self.admin_server.close(deadline=1.0)

    async def close_log(self) -> None:
        """The last line was written: close the rings, and write out what standard error still owes."""
        if self.logbook.console is not None:
            await asyncio.to_thread(self.logbook.close)

    async def watch_templates(self) -> None:
        """Look at the files of all templates, whatever engines there are at present."""
        await watch(lambda: (self.catalogue, *self.fleet.own.values()), settings=self.settings, awake=self.look_now)

    async def forget_old(self) -> None:
        """Once an hour let pins go that were not used for `kv.max_age` (heads and snapshots see to themselves)."""
        while True:
            await asyncio.sleep(3600)
            self.pins.forget(self.config.kv.max_age)

    # reload

    async def reload(self) -> tuple[str, ...]:
        """Read the configuration again and take over what changed; ConfigError changes nothing and is remembered.

        One after the other: of two that overlap, the later one has read the newer files.
        """
        async with self.reloading:
            # the client that asked for it may leave: half a reload would be two configurations at once
            return await aio.shielded(self.reload_alone())

    async def reload_alone(self) -> tuple[str, ...]:
        """Read and take over. What takes time is done in a thread: streams go on meanwhile."""
        try:
            loaded = await asyncio.to_thread(self.read_again, self.ports)
            config = in_force(self.config, loaded.config)
            take_fleet = await asyncio.to_thread(self.fleet.prepare_reload, loaded, config)
            tls = await asyncio.to_thread(tls_of, config)
            if config.prefixes != self.config.prefixes:
                await self.catalogue.replace(template_files(config.prefixes))
        except ConfigError as error:
            self.reload_error = error.message
            self.bus.publish(ConfigReloaded(error=error.message))
            raise
        for warning in loaded.warnings:
            log.warning("%s", warning)
        found, late = self.changes(loaded)
        if late:
            log.warning("these keys changed and need a restart: %s", ", ".join(late))
        self.loaded = loaded
        self.settings.take(config, loaded.dialect)
        self.set_up_log(loaded)
        await self.secure(tls)
        await take_fleet()
        await self.management.take_over()
        self.look_now.set()
        self.reload_error = ""
        self.bus.publish(ConfigReloaded(changed=found))
        log.info("configuration reloaded; changed: %s", ", ".join(found) or "nothing")
        return found

    @property
    def ports(self) -> Mapping[str, int]:
        """The ports that models have; none if there are no models."""
        return {} if self.loaded.dialect is None else self.loaded.dialect.ports

    async def trial(self, texts: Mapping[str, bytes]) -> ConfigTrial:
        """What a reload would change if files of the configuration had these `texts`, by their paths.

        ConfigError with all problems; nothing is changed. No reload changes meanwhile what it is compared with.
        """
        async with self.reloading:
            loaded, plan = await asyncio.to_thread(self.tried, texts)
            changed, late = self.changes(loaded)
            return ConfigTrial(changed=changed, late=late, models=self.fleet.effects(plan), warnings=loaded.warnings)

    def tried(self, texts: Mapping[str, bytes]) -> tuple[Loaded, Plan]:
        """Read the configuration with these texts, and all that a reload would read. Blocks."""
        loaded = self.read_again(self.ports, texts)
        config = in_force(self.config, loaded.config)
        tls_of(config)
        if config.prefixes != self.config.prefixes:
            files = template_files(config.prefixes)
            Catalogue(files, folder=str(Path.cwd()), settings=self.settings, bus=Bus()).load()
        plan, _ = self.fleet.another_plan(loaded, config)
        return loaded, plan

    def changes(self, loaded: Loaded) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The keys that differ from what is in force, and those among them that a reload cannot change."""
        changed = difference(self.config, loaded.config)
        late = tuple(key for key in changed if not KEYS[key].kind.live)
        own = (f"{key} (after a restart)" if key in late else key for key in changed)
        return (*own, *dialect_difference(self.settings.dialect, loaded.dialect or DialectConfig())), late

    async def secure(self, tls: PairContext | None) -> None:
        """Let the ports speak TLS with this pair, or plain HTTP."""
        self.tls = tls
        wanted = ((self.proxy_server, tls), (self.admin_server, tls if self.config.admin_tls else None))
        for server, context in wanted:
            if server.addresses and context is not server.tls:
                switched = (context is None) != (server.tls is None)
                await server.secure(context)
                if switched:
                    speaks = "TLS" if context is not None else "plain HTTP, not TLS,"
                    log.info("the %s port speaks %s from now on", server.shared.name, speaks)

    async def renew(self, old: PairContext, new: PairContext) -> None:
        """Use a renewed pair for connections from now on, unless a reload has chosen another one meanwhile."""
        async with self.reloading:
            if self.tls is old:
                await self.secure(new)
                log.info("the certificate in %s was renewed; new connections get it", new.certificate)

    # what the admin port shows

    def status(self) -> Status | FleetStatus:
        """Everything about now, for `/status`."""
        warnings = tuple(str(one) for one in self.loaded.warnings)
        return status_of(
            self.fleet,
            config=self.config,
            source=ConfigStatus(self.loaded.path, warnings, self.reload_error, self.loaded.paths),
            started=self.started,
            pause=self.pause.status,
            catalogue=self.catalogue,
            pins=self.pins,
            front=self.front,
            admin=self.admin,
            servers=self.servers(),
            management=self.management,
            busy=self.dispatch.busy if isinstance(self.dispatch, ManyModels) else {},
            metrics=self.metrics,
        )


def kept(fleet: Fleet) -> Kept:
    shelves = fleet.shelves.statistics()
    return Kept(
        snapshots=sum(one.snapshots for one in shelves),
        bytes=sum(one.bytes for one in shelves),
        pauses=counted(station.keeper.pause.kind for station in fleet.stations.values()),
    )
