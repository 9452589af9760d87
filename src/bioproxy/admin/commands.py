"""What the management API shows and does of the models (admin.swap_api.Models), for a fleet."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, TypeAlias

import msgspec

from bioproxy import aio
from bioproxy.admin import listing
from bioproxy.admin.overview import Overview, SpeedBook, overview_of
from bioproxy.errors import NotFound
from bioproxy.events import ProfileChanged, RequestEnded
from bioproxy.front.inflight import Inflight
from bioproxy.models.fleet import Fleet

Json: TypeAlias = Any
log = logging.getLogger(__name__)


class FleetModels:
    """One fleet's commands."""

    def __init__(self, fleet: Fleet, inflight: Inflight) -> None:
        self.fleet = fleet
        self.inflight = inflight
        self.speeds = SpeedBook()
        self.loads: dict[str, asyncio.Task[None]] = {}  # under way, by model
        fleet.bus.subscribe(RequestEnded, lambda event: self.speeds.note(event.record))

    def running(self) -> Json:
        """The body of `/running`."""
        return listing.running(self.fleet.dialect, listing.look_at(self.fleet))

    def status(self) -> Json:
        """All models with their states, as `modelStatus` lists them."""
        return listing.model_status(self.fleet.dialect, listing.look_at(self.fleet))

    def profile(self) -> str:
        """The active profile."""
        return self.fleet.plan.registry.profile

    def profiles(self) -> Json:
        """The body of `/api/profiles`."""
        return listing.profiles(self.fleet.dialect, self.profile())

    def activate(self, profile: str) -> None:
        """Let a profile be active, "" for none."""
        if profile and profile not in self.fleet.dialect.profiles:
            raise NotFound(f"profile not found: {profile}")
        self.fleet.plan.registry.profile = profile
        self.fleet.bus.publish(ProfileChanged(active=profile))

    def known(self, name: str) -> str | None:
        """A local model's ID by any of its names."""
        direct = self.fleet.plan.registry.direct(name)
        return direct[1] if direct is not None and not direct[0] else None

    def resolve(self, name: str) -> str:
        """The same; NotFound."""
        found = self.known(name)
        if found is None:
            raise NotFound("model not found")
        return found

    async def load(self, name: str) -> None:
        """Have a model loaded. It goes on where nobody waits for it any more: that somebody asked for it counts.

        Once, however many ask: nothing bounds how many may wait for that.
        """
        model = self.resolve(name)
        task = self.loads.get(model)
        if task is None:
            work = self.fleet.supervisor.load(model, timeout=self.fleet.config.queue_timeout)
            self.loads[model] = task = aio.spawn(work, name=f"load of {model}")
            task.add_done_callback(partial(self.loaded, model))
        await asyncio.shield(task)

    def loaded(self, model: str, task: asyncio.Task[None]) -> None:
        """A load has ended; the model's state says how, where its caller has left."""
        del self.loads[model]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("%s failed: %s", task.get_name(), error)

    async def unload(self, name: str) -> None:
        """Stop a model."""
        await self.fleet.supervisor.unload(self.resolve(name))

    async def unload_all(self) -> None:
        """Stop every model."""
        await self.fleet.supervisor.unload_all()

    async def overview(self, *, own: bool) -> Overview:
        """All models with what is known of each, and the requests under way, unless these are of others."""
        found = await overview_of(self.fleet, self.inflight, self.speeds)
        return msgspec.structs.replace(found, requests=()) if own else found
