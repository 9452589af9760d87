"""The unit of the only engine: a URL that we attach to, or a model file that we serve ourselves (`serve --model`).

The engine may be there before us, come later, go, or be another one tomorrow: its attachment tells, and until it is
ready requests wait in its gate for an engine of ours, while one that is not ours answers for itself. So for the
schedule it is ready as soon as it was begun, and its life ends only by an order: `unload`, or the shutdown. A process
of ours that ends by itself is started again within that life (engines/process.py); an engine that is not ours has none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bioproxy import aio
from bioproxy.config.settings import Settings
from bioproxy.engines.launch import launch, make_again
from bioproxy.engines.process import Exit, Process
from bioproxy.errors import EngineUnavailable
from bioproxy.events import Bus, EngineChanged
from bioproxy.kv.keeper import Want
from bioproxy.models.unit import Launch, Started, Unit
from bioproxy.station import Station
from bioproxy.templates.catalogue import Catalogue
from bioproxy.templates.pins import Pins
from bioproxy.warmup.heads import Heads
from bioproxy.wire.upstream import Pool, parse_origin

log = logging.getLogger(__name__)

ENGINE = "engine"  # a name that it always has


class Only(Unit):
    """The engine of a configuration without `models`, and its station; slot files lie in `folder`.

    `plan` says how it is started, None: it is not ours.
    """

    away = "it was unloaded, and starts again for the next request"

    def __init__(
        self,
        settings: Settings,
        *,
        bus: Bus,
        catalogue: Catalogue,
        pins: Pins,
        state: Path,
        folder: str,
        output: Callable[[bytes], None],
    ) -> None:
        config = settings.config
        self.plan = plan = launch(config, folder=folder) if config.model else None
        origin, words = parse_origin(plan.url if plan else config.backend_url), plan.command if plan else ()
        station = Station(
            Pool(origin),
            settings=settings,
            kv=config.kv,
            key=config.backend_key,
            bus=bus,
            catalogue=catalogue,
            pins=pins,
            heads=Heads(str(state / "heads"), settings=settings, max_age=config.kv.max_age),
            shelves=None,
            owned=plan is not None,
        )
        process = Launch(model=ENGINE, words=words, url=str(origin), host=origin.host, port=origin.port)
        super().__init__(process, station, output=output, on_pid=lambda _pid: None, mark="")
        self.keeping: list[asyncio.Task[None]] = []
        station.attachment.expect_pid = lambda: self.pid
        if plan is not None:
            station.on_stuck = self.restart
        bus.subscribe(EngineChanged, self.follow)
        bus.subscribe(EngineChanged, log_change)

    def one_process(self) -> Process:
        if self.plan is None:
            return Process((), name=ENGINE)  # it is never started
        return Process(
            self.plan.command,
            name=self.plan.name,
            environment=self.plan.environment,
            on_exit=self.on_exit,
            output=self.output,
            before=partial(make_again, self.plan.slot_folder) if self.plan.slot_folder else None,
        )

    def on_exit(self, exit_: Exit) -> None:
        attachment = self.station.attachment
        attachment.suspect(exit_.reason)
        if not exit_.expected and attachment.state != "ready":  # else the attachment sees it go, and closes the gate
            self.station.gate.close(exit_.reason)

    async def begin(self) -> None:
        """Start the process, if it is ours; EngineUnavailable if it cannot be run at all."""
        if self.plan is None:
            return
        self.station.gate.close("it is being started")
        try:
            await self.process.start()
        except EngineUnavailable as error:
            self.station.gate.close(error.message)
            raise

    async def start(self, wants: Callable[[], Sequence[Want]]) -> Started:  # noqa: ARG002 - they wait in the gate
        await self.begin()
        if self.plan is not None:
            self.keeping = [aio.spawn(aio.guarded(self.process.run, name="engine process"), name="engine process")]
        self.station.attachment.told = False  # the gate was closed meanwhile, so that it is absent still is news, too
        self.station.look_after()
        return Started()

    async def wait_ended(self) -> Exit:
        """Never: its process is started again."""
        never: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        return await never

    async def end(self, grace: float) -> None:
        await self.process.stop(grace=grace)
        await aio.finish(self.keeping)
        self.station.pool.reopen()  # what waits for nothing is told that nothing answers there

    async def restart(self, reason: str) -> None:
        """Kill the process, which does nothing, and start it again; the log says why, and what it said last."""
        log.warning("the engine is started again: %s%s", reason, self.last_words())
        await self.process.restart(grace=0.0)

    def follow(self, event: EngineChanged) -> None:
        """While it loads or is being met, requests wait: sent at once, they would find an engine without its cache.

        An engine of ours that is absent will be back, and they wait for that too; another one answers for itself.
        """
        if event.state == "loading":
            self.station.gate.close(event.reason)
        elif event.state == "absent" and self.plan is None:
            self.station.gate.open()

    @property
    def names(self) -> list[str]:
        """What it is called: by its own alias, its file, and always `engine`; the first is shown."""
        facts, file = self.station.attachment.facts, self.station.settings.config.model
        path = file or (facts.model_path if facts is not None else "")
        found = [facts.alias if facts is not None else "", Path(path).stem, Path(path).name, ENGINE]
        return list(dict.fromkeys(name for name in found if name))

    def unknown(self, name: str) -> str:
        """The sentence for a name that it does not have."""
        return f"there is no model {name}; this bioproxy serves one engine: {', '.join(self.names)}"

    def unready(self) -> str:
        """Why a request would not be served now; empty when it would."""
        state, gate = self.station.attachment.statistics(), self.station.gate
        reason = gate.reason if self.plan is not None and state.state == "absent" else state.reason
        return "" if state.state == "ready" else f"the engine is {state.state}: {reason}"

    async def met(self, timeout: float) -> None:  # noqa: ASYNC109 - told in the sentence
        """Wait until it is ready. EngineUnavailable after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self.station.attachment.wait_ready()
        except TimeoutError:
            raise EngineUnavailable(f"after {timeout:.0f} s (queue_timeout) {self.unready()}") from None

    def check_ours(self) -> None:
        """EngineUnavailable (409) if it is not ours to stop."""
        if self.plan is None:
            sentence = f"the engine at {self.station.pool.origin} was not started by this bioproxy"
            raise EngineUnavailable(
                f"{sentence}, so it cannot stop it either: stop it where it was started", status=409
            )


def log_change(event: EngineChanged) -> None:
    """One line for each change of the engine's state."""
    what = " ".join(part for part in (event.model, event.build) if part)
    log.info(
        "engine at %s is %s%s%s",
        event.url,
        event.state,
        f" ({what})" if what else "",
        f": {event.reason}" if event.reason else "",
    )
