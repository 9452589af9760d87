"""One engine: a URL that we attach to, or a model file that we serve ourselves (`serve --model`).

The engine may be there before us, come later, go, or be another one tomorrow: its attachment tells, and until it is
ready requests wait for an engine of ours, while one that is not ours answers for itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from bioproxy import aio
from bioproxy.config.load import Loaded, slot_folder
from bioproxy.config.schema import Config
from bioproxy.config.settings import Settings
from bioproxy.engines.launch import Launched, launch
from bioproxy.engines.process import Exit
from bioproxy.errors import BioproxyError, ConfigError, EngineUnavailable, NotFound, Problem
from bioproxy.events import Bus, EngineChanged
from bioproxy.station import Service, Station
from bioproxy.templates.catalogue import Catalogue
from bioproxy.templates.pins import Pins
from bioproxy.warmup.heads import Heads
from bioproxy.wire.upstream import Pool, parse_origin

log = logging.getLogger(__name__)

ENGINE = "engine"  # a name that it always has
UNLOADED = "it was unloaded, and starts again for the next request"


class Single:
    """The one engine of a configuration without `models`."""

    def __init__(
        self,
        settings: Settings,
        *,
        bus: Bus,
        catalogue: Catalogue,
        pins: Pins,
        state: Path,
        output: Callable[[bytes], None],
    ) -> None:
        self.settings, self.state, config = settings, state, settings.config
        slots = slot_folder(config, state)
        self.launched: Launched | None = launch(config, folder=slots, output=output) if config.model else None
        self.own: dict[str, Catalogue] = {}  # there are no models that could have templates of their own
        self.unloaded = False  # it was stopped on purpose, and is started again for the next request
        self.turn = asyncio.Lock()  # of starts and stops on purpose
        self.starting: asyncio.Task[None] | None = None
        launched = self.launched
        heads = Heads(str(state / "heads"), settings=settings, max_age=config.kv.max_age)
        self.station = Station(
            Pool(parse_origin(launched.plan.url if launched else config.backend_url)),
            settings=settings,
            kv=config.kv,
            key=config.backend_key,
            bus=bus,
            catalogue=catalogue,
            pins=pins,
            heads=heads,
            shelves=None,
            owned=launched is not None,
        )
        if launched is not None:
            self.station.attachment.expect_pid = lambda: launched.process.pid
            self.station.on_stuck = launched.restart
        self.station.wake = self.wake
        catalogue.estimate = self.station.runner.estimate
        bus.subscribe(EngineChanged, self.follow_engine)
        bus.subscribe(EngineChanged, log_engine)

    def life(self) -> asyncio.Future[Exit] | None:
        """The engine's present process, if it is ours: done once it has ended."""
        return self.launched.process.watcher if self.launched is not None else None

    async def start(self) -> Mapping[str, Service]:
        """Start the engine if it is ours; the services to run."""
        self.station.gate.close("the engine was not looked at yet")
        if self.launched is not None:
            self.launched.process.on_exit = lambda end: self.station.attachment.suspect(end.reason)
            await self.launched.start()
        return {**self.station.services(), "warm-up": self.station.runner.run}

    @property
    def names(self) -> list[str]:
        """What it is called: by its own alias, its file, and always `engine`; the first is shown."""
        facts = self.station.attachment.facts
        path = self.settings.config.model or (facts.model_path if facts is not None else "")
        found = [facts.alias if facts is not None else "", Path(path).stem, Path(path).name, ENGINE]
        return list(dict.fromkeys(name for name in found if name))

    def known(self, name: str) -> str | None:
        """The name of its log, by any of its names."""
        return ENGINE if name in self.names else None

    def check(self, name: str) -> None:
        """NotFound for a name that it does not have."""
        if name and name not in self.names:
            raise NotFound(f"there is no model {name}; this bioproxy serves one engine: {', '.join(self.names)}")

    async def unload(self, name: str = "") -> None:
        """Save what pays and end the engine; requests that run on it get `kv.save_timeout` to finish.

        EngineUnavailable (409) if it is not ours.
        """
        self.check(name)
        if self.launched is None:
            sentence = f"the engine at {self.station.pool.origin} was not started by this bioproxy"
            raise EngineUnavailable(
                f"{sentence}, so it cannot stop it either: stop it where it was started", status=409
            )
        async with self.turn:
            if self.unloaded:
                return
            await self.last_save()
            self.unloaded = True
            self.station.gate.close(UNLOADED)
            await self.station.pool.close()
            self.station.attachment.ended(UNLOADED)
            await self.launched.stop()
            self.station.pool.reopen()

    async def load(self, name: str = "") -> None:
        """Have the engine ready: start it if it was unloaded. EngineUnavailable after `queue_timeout`."""
        self.check(name)
        await self.start_again()
        timeout = self.settings.config.queue_timeout
        try:
            async with asyncio.timeout(timeout):
                await self.station.attachment.wait_ready()
        except TimeoutError:
            state = self.station.attachment.statistics()
            sentence = f"after {timeout:.0f} s (queue_timeout) the engine is {state.state}: {state.reason}"
            raise EngineUnavailable(sentence) from None

    async def start_again(self) -> None:
        async with self.turn:
            if self.unloaded and self.launched is not None:
                await self.launched.start()
                self.unloaded = False
                self.station.attachment.suspect("it was started again")

    def wake(self) -> None:
        """A request is here: an engine that was unloaded starts, while the request waits at the gate."""
        if self.unloaded and (self.starting is None or self.starting.done()):
            self.starting = aio.spawn(self.start_again(), name="engine start")

    def refuse(self, error: BioproxyError) -> None:
        """The shutdown began: requests that wait get `error`."""
        self.station.gate.refuse(error)

    async def last_save(self) -> None:
        """Save what pays, now that all streams ended."""
        await self.station.last_save(self.settings.config.kv.save_timeout)

    async def stop(self) -> None:
        """End the engine if it is ours, its connections first."""
        if self.starting is not None:
            await aio.finish([self.starting])
        await self.station.keeper.close(deadline=self.settings.config.kv.save_timeout)
        await self.station.pool.close()
        if self.launched is not None:
            await self.launched.stop()

    def follow_engine(self, event: EngineChanged) -> None:
        """While it loads or is being met, requests wait: sent at once, they would find an engine without its cache.

        An engine of ours that is absent will be back, and they wait for that too; another one answers for itself.
        """
        if event.state == "loading":
            self.station.gate.close(event.reason)
        elif event.state == "absent" and self.launched is None:
            self.station.gate.open()

    def unready(self) -> str:
        """Why a request would not be served now; empty when it would."""
        state = self.station.attachment.statistics()
        return "" if state.state == "ready" else f"the engine is {state.state}: {state.reason}"

    def prepare_reload(self, loaded: Loaded, _config: Config) -> Callable[[], Awaitable[None]]:
        """What takes another configuration over; ConfigError if that needs a restart."""
        if loaded.dialect is not None:
            raise ConfigError([Problem("are new here, and this program serves one engine: restart it", key="models")])
        return self.take_over

    async def take_over(self) -> None:
        """Look at the templates now: other settings are in force."""
        self.station.runner.wake()

    async def warm(self, prefix: str) -> object:
        """Look at a template now; its states. NotFound if there is none."""
        return await self.station.runner.warm(prefix)


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
