"""What the management API shows and does of the models (admin.swap_api.Models), for a fleet."""

from __future__ import annotations

import time
from typing import Any, TypeAlias

from bioproxy.assembly.fleet import Fleet
from bioproxy.config.masking import masked_command
from bioproxy.errors import NotFound
from bioproxy.events import ProfileChanged
from bioproxy.front import listing

Json: TypeAlias = Any


class FleetModels:
    """One fleet's commands."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def running(self) -> Json:
        """The body of `/running`."""
        return listing.running(self.fleet.swap, self.fleet.look())

    def status(self) -> Json:
        """All models with their states, as `modelStatus` lists them."""
        return listing.model_status(self.fleet.swap, self.fleet.look())

    def profile(self) -> str:
        """The active profile."""
        return self.fleet.plan.registry.profile

    def profiles(self) -> Json:
        """The body of `/api/profiles`."""
        return listing.profiles(self.fleet.swap, self.profile())

    def activate(self, profile: str) -> None:
        """Let a profile be active, "" for none."""
        if profile and profile not in self.fleet.swap.profiles:
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
        """Have a model loaded."""
        await self.fleet.supervisor.load(self.resolve(name), timeout=self.fleet.config.queue_timeout)

    async def unload(self, name: str) -> None:
        """Stop a model."""
        await self.fleet.supervisor.unload(self.resolve(name))

    async def unload_all(self) -> None:
        """Stop every model."""
        await self.fleet.supervisor.unload_all()

    def overview(self) -> Json:
        """All models with what is known of each."""
        now, clock = time.time(), self.fleet.supervisor.clock()
        rows = []
        for one in self.fleet.supervisor.statistics().models:
            station = self.fleet.stations[one.model]
            kv = station.keeper.statistics()
            rows.append(
                {
                    "model": one.model,
                    "state": one.state.value,
                    "since": now - (clock - one.since),
                    "pid": self.fleet.units[one.model].pid,
                    "running": one.running,
                    "waiting": one.waiting,
                    "starts": one.starts,
                    "load_seconds": one.load_seconds,
                    "unload_in": max(0.0, one.unload_at - clock) if one.unload_at else None,
                    "retry_in": max(0.0, one.retry_at - clock) if one.retry_at else None,
                    "reason": one.reason,
                    "tokens": sum(slot.tokens for slot in kv.slots),
                    "snapshots": kv.snapshots,
                    "snapshot_bytes": kv.bytes,
                    "command": masked_command(" ".join(self.fleet.units[one.model].launch.words)),
                }
            )
        return {"models": rows}
