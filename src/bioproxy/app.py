"""The composition root: every part is built here, from one Config, and nowhere else.

Start order: templates (a broken one ends the start), listeners, then the services, so that the ports answer within
half a second whatever the engine does. Stop order is the way back: no new connections, streams finish up to a
deadline, what pays is saved, services end, our connections to the engine close, and only then an engine of ours is
stopped (llama-server does not exit while a connection is open: facts, section 3).

Each service is *guarded*: a fault in a warm-up is logged, counted and retried; it never cuts a stream. Only a listener
that cannot be opened ends the program.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from bioproxy import aio
from bioproxy import log as logs
from bioproxy.activity import Ring
from bioproxy.admin.admin import Admin
from bioproxy.config.difference import difference
from bioproxy.config.load import Loaded
from bioproxy.config.schema import Config, Prefix
from bioproxy.engines.attach import Attachment
from bioproxy.engines.launch import Launched, launch
from bioproxy.engines.llama import EngineFacts, Llama
from bioproxy.errors import BioproxyError, ConfigError, Problem, QueueTimeout
from bioproxy.events import Bus, ConfigReloaded, EngineChanged, RequestEnded, ServiceFailed
from bioproxy.front.dialects import error_answer
from bioproxy.front.engine import Engine
from bioproxy.front.proxy import Front
from bioproxy.gate.gate import Gate
from bioproxy.kv.keeper import Keeper
from bioproxy.metrics import Metrics
from bioproxy.status import Status, status_of
from bioproxy.templates.catalogue import Catalogue
from bioproxy.templates.pins import Pins
from bioproxy.warmup.heads import Heads
from bioproxy.warmup.runner import Runner
from bioproxy.wire.server import Server
from bioproxy.wire.upstream import Pool, parse_origin

log = logging.getLogger(__name__)

# What a reload can take over without a restart; anything else is named in the log.
LIVE = (
    "prefixes",
    "api_keys",
    "admin_key",
    "metrics_key",
    "admin_hosts",
    "trusted_proxies",
    "cors_origins",
    "stream_keepalive",
    "queue_limit",
    "queue_timeout",
    "log",
    "warmup",
    "warmup_check_interval",
)
SETTLE_SECONDS = 2.0  # kv-rule 5: `/slots` no more often than that


def state_folder(config: Config) -> Path:
    """Where pins and heads live: a folder per proxy port, so that two instances do not mix; made 0700. ConfigError."""
    folder = Path(config.state_directory) / str(config.proxy_port)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        sentence = f"the folder {folder} cannot be made: {error.strerror or error}; choose another one"
        raise ConfigError([Problem(sentence, key="state_directory")]) from error
    return folder


def prefix_paths(config: Config) -> dict[str, str]:
    """Prefix to template file; a loaded Config holds `Prefix` values only."""
    return {name: value.template if isinstance(value, Prefix) else value for name, value in config.prefixes.items()}


class App:
    """The running program. `reload` reads the configuration again, and raises ConfigError where it is broken."""

    def __init__(self, loaded: Loaded, *, reload: Callable[[], Loaded]) -> None:
        self.loaded = loaded
        self.config = config = loaded.config
        self.read_again = reload
        self.started = time.time()
        self.reload_error = ""
        self.bus = Bus()
        self.ring = Ring()
        self.bus.subscribe(RequestEnded, lambda event: self.ring.add(event.record))
        self.bus.subscribe(EngineChanged, log_engine)
        self.bus.subscribe(EngineChanged, self.follow_engine)
        self.metrics = Metrics(self.bus)
        self.state = state_folder(config)
        self.catalogue = Catalogue(
            prefix_paths(config), folder=str(Path.cwd()), settle=config.warmup.settle, bus=self.bus
        )
        self.catalogue.load()
        self.launched: Launched | None = launch(config) if config.model else None
        self.pool = Pool(parse_origin(self.launched.url if self.launched else config.backend_url))
        self.llama = Llama(self.pool, key=config.backend_key)
        self.gate = Gate(capacity=1, limit=config.queue_limit, timeout=config.queue_timeout)
        self.keeper = Keeper(config=config.kv, bus=self.bus, llama=self.llama)
        self.keeper.bind_gate(self.gate)
        self.gate.extends = self.keeper.extends
        self.pins = Pins(self.state / "pins")
        self.heads = Heads(str(self.state / "heads"), limit=config.warmup.heads, max_age=config.kv.max_age)
        self.attachment = self.one_attachment()
        self.runner = self.one_runner()
        self.catalogue.estimate = self.runner.estimate
        self.engine = self.one_engine()
        self.front = Front(config, engine=self.engine, bus=self.bus)
        self.admin = Admin(config=config, views=self, commands=self, metrics=self.metrics, ring=self.ring, bus=self.bus)
        self.proxy_server = Server(self.front.handle, limits=config.limits, name="proxy", error_body=error_answer)
        self.admin_server = Server(self.admin.handle, limits=config.limits, name="admin")
        self.metrics.watch(
            gate=self.gate.statistics,
            kv=self.keeper.statistics,
            engine=self.attachment.statistics,
            templates=self.catalogue.statistics,
            servers={"proxy": self.proxy_server.statistics, "admin": self.admin_server.statistics},
        )
        self.services: list[asyncio.Task[None]] = []

    def one_attachment(self) -> Attachment:
        """The engine's owner, which tells us when it comes, goes, or hangs."""
        launched = self.launched
        attachment = Attachment(
            self.pool,
            bus=self.bus,
            llama=self.llama,
            expect_pid=(lambda: launched.pid) if launched else (lambda: None),
            stall_timeout=self.config.stall_timeout,
        )
        self.pool.on_lost = lambda: attachment.suspect("it closed a connection that lay idle")
        attachment.on_ready = self.engine_ready
        attachment.on_gone = self.engine_gone
        attachment.on_stuck = self.engine_stuck
        attachment.on_emptied = self.keeper.unknown
        return attachment

    def one_runner(self) -> Runner:
        """The warm-up, which knows gate, cache, templates and engine by what they can do."""
        return Runner(
            config=self.config.warmup,
            interval=self.config.warmup_check_interval,
            gate=self.gate,
            keeper=self.keeper,
            catalogue=self.catalogue,
            engine=self.llama,
            heads=self.heads,
            bus=self.bus,
        )

    def one_engine(self) -> Engine:
        """What the front needs, in one value."""
        return Engine(
            pool=self.pool,
            gate=self.gate,
            keeper=self.keeper,
            attachment=self.attachment,
            catalogue=self.catalogue,
            pins=self.pins,
            heads=self.heads,
            owned=self.launched is not None,
            key=self.config.backend_key,
            too_long=self.runner.too_long,
        )

    @property
    def proxy_port(self) -> int:
        """Where the proxy listens (the configured port may be 0)."""
        return self.proxy_server.port

    @property
    def admin_port(self) -> int:
        """Where the admin port listens."""
        return self.admin_server.port

    # start and stop

    async def start(self) -> None:
        """Open both ports, then start the services; ConfigError where a port cannot be had."""
        config = self.config
        await self.proxy_server.listen(config.proxy_host, config.proxy_port)
        await self.admin_server.listen(config.admin_host, config.admin_port)
        self.heads.load()
        self.pins.load()
        self.pins.forget(config.kv.max_age)
        self.gate.close("the engine was not looked at yet")
        if self.launched is not None:
            self.launched.on_exit = lambda end: self.attachment.suspect(end.reason)
            await self.launched.start()
        services: dict[str, Callable[[], Awaitable[None]]] = {
            "attachment": self.attachment.run,
            "kv": self.keeper.run,
            "warm-up": self.runner.run,
            "settling": self.settle,
            "pins": self.pins.run,
            "ageing": self.forget_old,
        }
        for name, service in services.items():
            self.services.append(aio.spawn(aio.guarded(service, name=name, on_fault=self.fault), name=name))

    def fault(self, name: str, error: Exception) -> None:
        """Count a service's fault; it starts again by itself."""
        self.bus.publish(ServiceFailed(name=name, error=str(error)))

    async def run_until(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        await stop.wait()

    async def stop(self, deadline: float) -> None:
        """End in order: listeners, waiters, streams (up to `deadline` seconds), saves, services, engine."""
        self.proxy_server.stop_accepting()
        self.gate.refuse(QueueTimeout("bioproxy is shutting down; try again", retry_after=max(1, round(deadline))))
        await self.proxy_server.close(deadline=deadline)
        await self.last_save()
        await aio.finish(self.services)
        await self.keeper.close(deadline=self.config.kv.save_timeout)
        await self.pins.flush()
        await self.pool.close()
        if self.launched is not None:
            await self.launched.stop()
        self.admin.close()
        await self.admin_server.close(deadline=1.0)

    async def last_save(self) -> None:
        """Save what is resident and pays, in `kv.save_timeout` seconds at most; one that is gone holds nothing."""
        if not self.keeper.growing():
            return
        try:
            async with asyncio.timeout(self.config.kv.save_timeout):
                with await self.gate.acquire(work="background", exclusive=True, last=True) as grant:
                    await self.keeper.save_idle(grant)
        except TimeoutError:
            log.warning("what is resident was not saved: the engine was not free within kv.save_timeout")

    # the engine's life, as the attachment tells it

    def follow_engine(self, event: EngineChanged) -> None:
        """While it loads or is looked at, requests wait: sent at once, they would find an engine without its cache.

        An engine of ours that is absent will be back, and they wait for that too; another one answers for itself.
        """
        if event.state == "loading":
            self.gate.close(event.reason)
        elif event.state == "absent" and self.launched is None:
            self.gate.open()

    async def engine_ready(self, facts: EngineFacts) -> None:
        """An engine is there, perhaps another one: take its measure before anyone is let at it."""
        self.gate.close("the engine is being looked at")
        self.pool.drop_idle()
        self.gate.resize(facts.slots)
        await self.keeper.attached(facts, alone=not self.gate.running)
        self.runner.attached(facts)
        self.gate.settled()
        self.gate.open()

    def engine_gone(self, reason: str) -> None:
        """It went away. Requests for an engine of ours wait for it; one that we only attach to answers for itself."""
        self.keeper.gone(reason)
        self.runner.gone()
        if self.launched is not None:
            self.gate.close(reason)

    async def engine_stuck(self, reason: str) -> None:
        """It computes nothing any more: an engine of ours is started anew, another one is only not ready."""
        self.gate.close(f"the engine is stuck: {reason}")
        if self.launched is not None:
            await self.launched.restart(reason)

    async def settle(self) -> None:
        """Where a client left in mid-answer, look at the slots now and then until they are seen idle (kv-rule 4)."""
        while True:
            await self.gate.wait_draining()
            await asyncio.sleep(SETTLE_SECONDS)
            if self.gate.draining and self.gate.idle:
                cuts = self.gate.cuts
                if await self.all_idle() and cuts == self.gate.cuts:  # what was cut meanwhile is not in that answer
                    self.gate.settled()

    async def all_idle(self) -> bool:
        """Whether the engine says that none of its slots works; False where it does not say."""
        try:
            slots = await self.llama.slots()
        except BioproxyError as error:
            log.debug("cannot see whether the engine is idle: %s", error.message)
            return False
        return bool(slots) and not any(slot.is_processing for slot in slots)

    async def forget_old(self) -> None:
        """Once an hour let pins go that nobody used for `kv.max_age` (heads and snapshots see to themselves)."""
        while True:
            await asyncio.sleep(3600)
            self.pins.forget(self.config.kv.max_age)

    # commands of the admin port

    async def warm(self, prefix: str) -> object:
        """`POST /warmup/{prefix}`: look at a template now; its states. NotFound where there is none."""
        return await self.runner.warm(prefix)

    async def reload(self) -> tuple[str, ...]:
        """Read the configuration again and take over what changed; ConfigError changes nothing and is remembered."""
        try:
            loaded = self.read_again()
            changed = difference(self.config, loaded.config)
            if any(key.split(".")[0] == "prefixes" for key in changed):
                await self.catalogue.replace(prefix_paths(loaded.config))
        except ConfigError as error:
            self.reload_error = error.message
            self.bus.publish(ConfigReloaded(error=error.message))
            raise
        late = self.take_over(loaded, changed)
        changed = tuple(f"{key} (after a restart)" if key in late else key for key in changed)
        self.reload_error = ""
        self.bus.publish(ConfigReloaded(changed=changed))
        log.info("configuration reloaded; changed: %s", ", ".join(changed) or "nothing")
        return changed

    # what the admin port shows

    def status(self) -> Status:
        """Everything about now, for `/status`."""
        return status_of(self)

    def unready(self) -> str:
        """Why a request would not be served now; empty when it would."""
        state = self.attachment.statistics()
        return "" if state.state == "ready" else f"the engine is {state.state}: {state.reason}"

    def take_over(self, loaded: Loaded, changed: tuple[str, ...]) -> list[str]:
        """Let each part have its new values; what needs a restart keeps the old ones and is returned."""
        late = [key for key in changed if key.split(".")[0] not in LIVE]
        if late:
            log.warning("these keys changed and need a restart: %s", ", ".join(late))
        kept = {name: getattr(self.config, name) for name in (key.split(".")[0] for key in late)}
        self.loaded = loaded
        self.config = config = msgspec.structs.replace(loaded.config, **kept)
        logs.setup(level=config.log.level, style=config.log.format)
        self.gate.configure(limit=config.queue_limit, timeout=config.queue_timeout)
        self.front.configure(config)
        self.admin.configure(config)
        self.catalogue.settle = config.warmup.settle
        self.runner.configure(config.warmup, interval=config.warmup_check_interval)
        return late


def log_engine(event: EngineChanged) -> None:
    """One line for each change of the engine's state."""
    what = " ".join(part for part in (event.model, event.build) if part)
    log.info(
        "engine at %s is %s%s%s",
        event.url,
        event.state,
        f" ({what})" if what else "",
        f": {event.reason}" if event.reason else "",
    )
