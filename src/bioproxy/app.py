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

from bioproxy import aio, files
from bioproxy import log as logs
from bioproxy.activity import InflightRequest
from bioproxy.admin.admin import Admin
from bioproxy.admin.config_api import ConfigApi, ConfigTrial, placed
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
from bioproxy.config import listening
from bioproxy.config.addresses import socket_path
from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.config.keys import KEYS
from bioproxy.config.load import Loaded, admin_port_asked, make_state_folder
from bioproxy.config.schema import Config, template_files
from bioproxy.config.settings import Settings, dialect_difference, difference, in_force
from bioproxy.doctor.doctor import Doctor
from bioproxy.engines.lines import EngineLines
from bioproxy.errors import BioproxyError, Closed, ConfigError, Forbidden, Problem
from bioproxy.events import Bus, ConfigReloaded, EngineChanged, ModelChanged, RequestEnded
from bioproxy.front import llamaswap_errors
from bioproxy.front.allowance import Allowances
from bioproxy.front.dialects import error_answer
from bioproxy.front.dispatch import OneEngine
from bioproxy.front.many import ManyModels
from bioproxy.front.ollama.road import Ollama
from bioproxy.front.prefix import below
from bioproxy.front.proxy import Front
from bioproxy.keys import bounds
from bioproxy.kv.budget import budgets_of
from bioproxy.kv.saver import counted
from bioproxy.kv.shelves import Shelves
from bioproxy.logbook import Console, Destination, Logbook
from bioproxy.metrics import Kept, Metrics
from bioproxy.models.fleet import STOP_LIMIT, Fleet
from bioproxy.models.pause import Pause
from bioproxy.models.plan import Plan
from bioproxy.ports import Ports, tls_of
from bioproxy.station import Service, guarded
from bioproxy.templates.catalogue import Catalogue, watch
from bioproxy.templates.pins import Pins
from bioproxy.wire.http1.message import Headers, Request, Responder

if TYPE_CHECKING:
    from bioproxy.front.spans import Spans

log = logging.getLogger(__name__)

MOMENT = 15.0  # seconds that a step of the end may take beside what it waits for
TIMES = "rfc3339"  # the form of times in the log that `bioproxy logs` shows of one engine


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
        self.settings = Settings(loaded.config, loaded.dialect)
        config = loaded.config
        self.read_again = reload
        self.started = time.time()
        self.reload_error = ""
        self.late: tuple[str, ...] = ()  # keys that the file has other values for, until a restart
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
        self.page = WebPage(self.from_page)
        self.live = Live(
            self.bus, status=self.status, inflight=self.under_way, settings=self.settings, proxy=self.beside
        )
        self.fleet = Fleet(
            self.settings, bus=self.bus, catalogue=self.catalogue, pins=self.pins, state=self.state,
            shelves=self.shelves, logbook=self.logbook,
        )  # fmt: skip
        self.fleet.bind(bounds(config.api_keys))
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
            state=self.state,
            more=self.of_page(),
        )
        self.requests.of_row, self.requests.of_id = self.management.store.record, self.management.store.named
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
        self.base_path = config.proxy.base_path.rstrip("/")
        self.ports = Ports(
            self.settings,
            proxy=below(self.base_path, self.front.handle),
            ollama=self.front.handle_ollama,
            admin=below(self.base_path, self.admin.handle),
            error_body=self.error_body,
            sockets=sockets,
        )
        self.watch()
        self.services: list[asyncio.Task[None]] = []

    def error_body(self, error: BioproxyError, path: str) -> tuple[Headers, bytes]:
        """An error that the server itself answers, in the form of the rest of the port."""
        one = self.loaded.dialect is None
        path = path.removeprefix(self.base_path)
        return error_answer(error, path) if one else llamaswap_errors.answer(error, path=path)

    def one(self) -> OneEngine:
        """The road to the only engine."""
        captures = partial(getattr, self.management.captures, "most")
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
            captures=partial(getattr, self.management.captures, "most"),
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
        self.metrics.templates = lambda: [one for known in self.catalogues() for one in known.statistics()]
        self.metrics.paused = lambda: self.pause.status is not None
        self.metrics.clients = self.dispatch.statistics
        self.metrics.shares = self.shelves.shares
        self.metrics.keys = self.allowances.statistics
        self.metrics.servers = {name: server.statistics for name, server in self.ports.servers().items()}
        self.metrics.gates = lambda: [station.gate.statistics() for station in self.fleet.stations.values()]
        if self.fleet.only is None:
            self.metrics.watch_models(self.fleet.supervisor.statistics)
            self.metrics.kv = partial(kept, self.fleet)
        else:
            station = self.fleet.only.station
            self.metrics.gate = station.gate.statistics
            self.metrics.kv = station.keeper.statistics
            self.metrics.engine = station.attachment.statistics

    def under_way(self) -> list[InflightRequest]:
        """The requests under way."""
        return self.management.inflight.snapshot()

    def beside(self, request: Request) -> str:
        """Where the proxy port is for who asked the admin port; "" if it cannot be told."""
        tls, bound = self.ports.tls is not None, self.config.proxy_host
        return other_port(request, here=self.admin_port, bound=bound, port=self.proxy_port, tls=tls)

    async def from_page(self, request: Request, responder: Responder) -> None:
        """Serve what the page asked a model on the admin port, as the proxy port does.

        A unix socket without keys is for whom its mode lets in, so the page of a TCP port is no way round it.
        """
        config = self.config
        keys = config.api_keys or config.admin_key
        if socket_path(config.proxy_host) and not (keys or socket_path(config.admin_host)):
            raise Forbidden("the proxy port is a unix socket: for its models this page wants api_keys or an admin_key")
        await self.front.handle(request, responder)

    @property
    def config(self) -> Config:
        """The keys of bioproxy's own, as they are in force."""
        return self.settings.config

    @property
    def proxy_port(self) -> int:
        """Where the proxy listens (the configured port may be 0); 0 at a unix socket."""
        return self.ports.proxy.port

    @property
    def admin_port(self) -> int:
        """Where the admin port listens; 0 if there is none, or a unix socket."""
        return self.ports.admin.port if self.ports.admin.addresses else 0

    # start and stop

    async def start(self) -> None:
        """Open both ports, then start the services; ConfigError if a port cannot be had."""
        config, ports = self.config, self.ports
        await self.management.find_captures()
        await self.allowances.load()
        await ports.open(admin=self.loaded.dialect is None or admin_port_asked(self.loaded))
        self.front.listens_on(host for host, _ in (*ports.proxy.addresses, *ports.ollama.addresses))
        await self.tidy_up()
        await self.write_address()
        await self.pins.load()
        self.pins.forget(config.kv.max_age)
        services: dict[str, Service] = {
            **await self.fleet.start(),
            **await self.management.start(),
            "templates": self.watch_templates,
            "certificate": ports.watch_certificate,
            "pins": self.pins.run,
            "tokens of keys": self.allowances.run,
            "doctor": self.doctor.run,
            "ageing": self.forget_old,
            "pause": self.pause.run,
        }
        self.services = guarded(services, self.bus)

    async def tidy_up(self) -> None:
        """Remove what a run that was killed left in the state folder; who has the ports is the only one there."""
        try:
            await files.away(files.remove_unfinished, self.state)
        except (OSError, files.Stuck) as error:
            log.warning("files that were left unfinished in %s stay there: %s", self.state, files.in_short(error))

    async def write_address(self) -> None:
        """Write down where we listen, if we do, for whoever cannot read the configuration any more."""
        if not self.ports.proxy.addresses:
            return
        try:
            await files.away(listening.write, self.state, self.ports.listening())
        except (OSError, ValueError, files.Stuck) as error:
            said = "`bioproxy status` will not find this program if its configuration breaks: %s cannot be written: %s"
            log.warning(said, self.state / listening.NAME, files.in_short(error))

    async def remove_address(self) -> None:
        """We listen no more. What stays there leads nowhere, and says by its pid that it is old."""
        try:
            await files.away(listening.remove, self.state)
        except (OSError, files.Stuck) as error:
            log.warning("%s in %s stays there: %s", listening.NAME, self.state, files.in_short(error))

    async def stop(self, deadline: float) -> None:
        """End in order: listeners, waiters, streams (up to `deadline` seconds), saves, services, engine.

        Whatever was started, and however far: each step has a bound, and the next one follows even if it fails. A
        cancellation goes on when all is ended.
        """
        await aio.shielded(self.stop_in_order(deadline))

    async def stop_in_order(self, deadline: float) -> None:
        save, began, services = self.config.kv.save_timeout, bool(self.services), [*self.services]
        until = asyncio.get_running_loop().time() + deadline
        steps: list[tuple[str, Callable[[], Coroutine[Any, Any, object]], float]] = [
            ("turning clients away", partial(self.turn_away, deadline), MOMENT),
            ("closing the proxy port", partial(self.ports.proxy.close, deadline=deadline), deadline + MOMENT),
            ("ending what the page asks models", lambda: self.page.close(until=until), deadline + MOMENT),
            ("closing Ollama's port", partial(self.ports.ollama.close, deadline=deadline), deadline + MOMENT),
            ("ending what nobody waits for", self.front.later.close, MOMENT),
            ("ending the services", partial(aio.finish, services), MOMENT),
            ("sending the last spans", self.close_spans, MOMENT),
            ("stopping the engines", self.fleet.stop, STOP_LIMIT + 2 * save + MOMENT),
            ("closing the snapshot folders", self.shelves.close, MOMENT),
            ("closing the admin port", self.close_admin_port, MOMENT),
            ("removing our address", self.remove_address, MOMENT),
        ]
        if began:  # else what is on disk was not read, or belongs to the program that has the port
            steps.append(("keeping the pins", self.pins.flush, MOMENT))
            steps.append(("keeping what keys used", self.allowances.flush, MOMENT))
        steps.append(("closing the activity table", self.management.close, MOMENT))
        for name, step, seconds in steps:
            await aio.end_step(step, name=name, seconds=seconds)

    async def turn_away(self, deadline: float) -> None:
        """Take no connections any more, end streams that have no end, and refuse requests that wait."""
        self.ports.stop_accepting()
        try:
            self.management.end_streams()
            self.live.close()
        finally:
            self.fleet.refuse(Closed("bioproxy is shutting down; try again", retry_after=max(1, round(deadline))))

    async def close_spans(self) -> None:
        if self.dispatch.spans is not None:
            await asyncio.to_thread(self.dispatch.spans.close)

    async def close_admin_port(self) -> None:
        """End its event streams, then its connections."""
        try:
            self.admin.close()
        finally:
            await self.ports.admin.close(deadline=1.0)

    async def close_log(self) -> None:
        """The last line was written: close the rings, and write out what standard error still owes."""
        if self.logbook.console is not None:
            await asyncio.to_thread(self.logbook.close)

    async def watch_templates(self) -> None:
        """Look at the files of all templates, whatever engines there are at present."""
        await watch(self.catalogues, settings=self.settings, awake=self.look_now)

    def catalogues(self) -> tuple[Catalogue, ...]:
        """The templates that are for all, and those of models that have some of their own."""
        return (self.catalogue, *self.fleet.own.values())

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
            loaded = await asyncio.to_thread(self.read_again, self.model_ports)
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
        found, self.late = self.changes(loaded)
        if self.late:
            log.warning("these keys changed and need a restart: %s", ", ".join(self.late))
        self.loaded = loaded
        self.settings.take(config, loaded.dialect)
        self.fleet.bind(bounds(config.api_keys))
        self.set_up_log(loaded)
        await self.ports.secure(tls)
        await self.write_address()
        await take_fleet()
        await self.management.take_over()
        self.look_now.set()
        self.reload_error = ""
        self.bus.publish(ConfigReloaded(changed=found))
        log.info("configuration reloaded; changed: %s", ", ".join(found) or "nothing")
        return found

    @property
    def model_ports(self) -> Mapping[str, int]:
        """The ports that models have; none if there are no models."""
        return {} if self.loaded.dialect is None else self.loaded.dialect.ports

    async def trial(self, texts: Mapping[str, bytes]) -> ConfigTrial:
        """What a reload would change if files of the configuration had these `texts`, by their paths.

        ConfigError with all problems; nothing is changed. No reload changes meanwhile what it is compared with.
        """
        async with self.reloading:
            loaded, plan = await asyncio.to_thread(self.tried, texts)
            changed, late = self.changes(loaded)
            warnings = tuple(placed(one, path) for path in texts for one in loaded.warnings)
            return ConfigTrial(changed=changed, late=late, models=self.fleet.effects(plan), warnings=warnings)

    def tried(self, texts: Mapping[str, bytes]) -> tuple[Loaded, Plan]:
        """Read the configuration with these texts, and all that a reload would read. Blocks."""
        loaded = self.read_again(self.model_ports, texts)
        config = in_force(self.config, loaded.config)
        tls_of(config)
        if config.prefixes != self.config.prefixes:
            texts_of = template_files(config.prefixes)
            Catalogue(texts_of, folder=str(Path.cwd()), settings=self.settings, bus=Bus()).load()
        plan, _ = self.fleet.another_plan(loaded, config)
        return loaded, plan

    def changes(self, loaded: Loaded) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The keys that differ from what is in force, and those among them that a reload cannot change."""
        changed = difference(self.config, loaded.config)
        late = tuple(key for key in changed if not KEYS[key].kind.live)
        own = (f"{key} (after a restart)" if key in late else key for key in changed)
        return (*own, *dialect_difference(self.settings.dialect, loaded.dialect or DialectConfig())), late

    # what the admin port shows

    def status(self) -> Status | FleetStatus:
        """Everything about now, for `/status`."""
        warnings = tuple(str(one) for one in self.loaded.warnings)
        return status_of(
            self.fleet,
            config=self.config,
            source=ConfigStatus(self.loaded.path, warnings, self.reload_error, self.loaded.paths, self.late),
            started=self.started,
            pause=self.pause.status,
            catalogue=self.catalogue,
            pins=self.pins,
            front=self.front,
            admin=self.admin,
            servers=self.ports.servers(),
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
