"""A bioproxy that saves one conversation and ends itself, by SIGKILL, right after a named step of the commit.

`python -m support.kv_child PORT FOLDER STEP`. It uses the real keeper, gate and client on the engine at PORT, which the
test owns.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from fakes.engine_process import EngineProcess
from support.kv_rig import rig, text

LONG = text(500, "a")


class Somewhere(EngineProcess):
    """An engine that the test started."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port

    @property
    def pid(self) -> int:
        """Not ours to know."""
        return 0


async def main(port: int, folder: Path, last: str) -> None:
    """Ask, save, and be gone."""
    armed = False

    def step(name: str) -> None:
        if armed and name == last:
            os.kill(os.getpid(), signal.SIGKILL)

    async with rig(Somewhere(port), folder, options={"step": step}) as one:
        await one.settle()
        await one.ask(LONG)
        armed = True
        if last == "engine":
            grant = await one.gate.acquire(work="background", exclusive=True)
            asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGKILL)
            await one.keeper.moments.save_idle(grant)
        await one.save_idle()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
