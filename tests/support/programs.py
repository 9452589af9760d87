"""bioproxy as its user runs it: `bioproxy serve` on a configuration file, in a process that a test may kill."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bioproxy import aio
from fakes.engine_process import EngineProcess
from support.http import call
from support.ports import free_port

Json = Any


class Bioproxy(EngineProcess):
    """`bioproxy serve -config FILE`; what it prints is kept in `lines`. Ports are free ones, the same at each start."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.proxy_port, self.admin_port = free_port(), free_port()

    def command(self) -> list[str]:
        """The command line, as in the README."""
        return [sys.executable, "-m", "bioproxy", "serve", "-config", str(self.file)]

    def ready(self, line: str) -> int:
        """The banner names the proxy's address once both ports are open."""
        return self.proxy_port if f":{self.proxy_port}, admin on " in line else 0

    async def status(self) -> Json:
        """`/status` now."""
        return (await call(self.admin_port, "GET", "/status")).json()

    async def until(self, true: Any, *, seconds: float = 10.0) -> Json:
        """Wait until `true` of the status; the status then. TimeoutError when it never is."""

        async def look() -> Json:
            status = await self.status()
            return status if true(status) else None

        found = await aio.poll(look, interval=0.01, deadline=seconds)
        if found is None:
            raise TimeoutError(f"did not come true within {seconds} s; the log: {self.lines}")
        return found
