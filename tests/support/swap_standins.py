"""Units for tests of the supervisor: processes that are nothing but counters, and do what the test says.

Everything above them is the real thing: schedule, lives, claims. A unit that lives twice at once, or that is stopped
without living, is a fault that `Process` notes down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from bioproxy.config.dialect.schema import DialectConfig, Group
from bioproxy.engines.process import Exit
from bioproxy.errors import ModelFailed
from bioproxy.events import Bus
from bioproxy.gate.gate import Gate
from bioproxy.models.book import ModelSettings
from bioproxy.models.groups import Groups
from bioproxy.models.schedule import Schedule
from bioproxy.models.supervisor import Supervisor
from bioproxy.models.unit import Launch, Started, Stopped, Unit
from bioproxy.models.wish import Wish
from bioproxy.station import Price
from support.config_files import settings


class Stationary:
    """A station that knows nothing of its cache."""

    looked_after = False

    def __init__(self) -> None:
        self.gate = Gate(settings(DialectConfig()))

    def price(self) -> Price:
        """Not measured."""
        return Price()


class Standin:
    """One model's unit. `go`: a start becomes ready; cleared, it waits. `breaks`: why starts fail, "" for not."""

    def __init__(self, model: str) -> None:
        self.launch = Launch(model=model, words=("engine",), url="http://127.0.0.1:1", host="127.0.0.1", port=1)
        self.station = Stationary()
        self.go = asyncio.Event()
        self.go.set()
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self.breaks = ""
        self.alive = self.starts = 0
        self.faults: list[str] = []
        self.process = self
        self.watcher: asyncio.Future[Exit] | None = None
        self.wanted: Sequence[object] = ()

    @property
    def ended(self) -> asyncio.Future[Exit] | None:
        """As the real one."""
        return self.watcher

    async def start(self, wants: Callable[[], Sequence[object]]) -> Started:
        """A process begins, and is ready when `go` says so."""
        self.starts += 1
        self.alive += 1
        if self.alive > 1:
            self.faults.append("two processes at once")
        self.watcher = asyncio.get_running_loop().create_future()
        await self.go.wait()
        self.wanted = wants()
        if self.breaks:
            self.die()
            raise ModelFailed(self.breaks)
        return Started(start=0.001)

    def die(self) -> None:
        """The process ends by itself."""
        self.alive -= 1
        assert self.ended is not None
        if not self.ended.done():
            self.ended.set_result(Exit(pid=1, code=1, reason="it died", expected=False, lived=0.0))

    async def wait_ended(self) -> Exit:
        """As the real one."""
        assert self.ended is not None
        return await asyncio.shield(self.ended)

    async def died(self) -> str:
        """As the real one."""
        await asyncio.sleep(0)
        return "it died"

    async def stop(self, *, grace: float, save: float, sleeps: bool) -> Stopped:
        """The process ends."""
        del grace, save, sleeps
        await self.may_stop.wait()
        await self.end(0.0)
        return Stopped()

    async def end(self, grace: float) -> None:
        """The same."""
        del grace
        await asyncio.sleep(0)
        if self.alive:
            self.die()

    async def clear(self) -> None:
        """What a failed life left is ended."""
        await self.end(0.0)


class Machine:
    """A supervisor over stand-ins of `names`, which are one group: one runs at a time."""

    def __init__(self, names: str) -> None:
        self.settings = [ModelSettings(id=name, min_resident=0.0) for name in names.split()]
        members = tuple(one.id for one in self.settings)
        self.rules = Groups({"all": Group(members=members, swap=True, exclusive=True)})
        self.units = {name: Standin(name) for name in members}
        self.bus = Bus()
        loop = asyncio.get_running_loop()
        self.supervisor = Supervisor(
            Schedule(self.settings, rules=self.rules, now=loop.time(), settings=settings(DialectConfig())),
            cast("dict[str, Unit]", self.units),
            bus=self.bus,
            clock=loop.time,
        )

    async def hold(self, model: str, *, timeout: float = 5.0) -> Wish:  # noqa: ASYNC109 - the supervisor's
        """A request that was let through to a model; `supervisor.release` is its end."""
        wish = Wish(model)
        self.supervisor.enter(wish)
        await self.supervisor.wait(wish, timeout=timeout)
        return wish

    def sound(self) -> None:
        """Nothing is left of any request, and no process was ever beside itself."""
        statistics = self.supervisor.statistics()
        assert not self.supervisor.claims
        assert (statistics.waiting, statistics.running) == (0, 0)
        assert not [fault for unit in self.units.values() for fault in unit.faults]

    def alive(self) -> list[str]:
        """The models that have a process."""
        return [name for name, unit in self.units.items() if unit.alive]

    async def end(self) -> None:
        """Stop everything; nothing may be left."""
        await self.supervisor.close(5.0)
        self.sound()
        assert not self.alive()
        assert not self.supervisor.lives.present
        assert self.supervisor.timer is None


async def turns(count: int = 10) -> None:
    """Let everything that can happen without waiting happen."""
    for _ in range(count):
        await asyncio.sleep(0)
