"""Start the fake llama-server in a test: `async with FakeEngine(slot_folder=tmp_path) as engine: ...`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bioproxy.engines.launch import free_port
from fakes.engine_process import Answer, EngineProcess, call, flags_of
from fakes.fake_faults import KILL
from fakes.forked import Forked, fork

__all__ = ["Answer", "FakeEngine", "Recorded", "call"]

Json = Any
PROGRAM = Path(__file__).with_name("llama_server.py")


@dataclass
class Recorded:
    """One request as the fake received it."""

    method: str
    target: str
    path: str
    query: dict[str, str]
    headers: list[list[str]]
    body: str
    bytes: int
    sha256: str
    at: float

    def json(self) -> Json:
        """The body as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """The first value of `name`, which is given in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)


class FakeEngine(EngineProcess):
    """The fake as a child process; keyword arguments are its flags (`tokens_per_second=500`, `metrics=True`).

    `faults` is a dict of faults from the start on. After `kill` or `stop`, `restart` brings it back on the same port.
    """

    def __init__(
        self, *, slot_folder: Path | str | None = None, faults: Json = None, port: int = 0, **flags: Json
    ) -> None:
        super().__init__()
        # elsewhere than on Linux only its words tell bioproxy where it listens
        self.port = port if port or sys.platform == "linux" else free_port()
        self.flags: dict[str, Json] = {**flags, "faults": json.dumps(faults or {})}
        if slot_folder is not None:
            Path(slot_folder).mkdir(parents=True, exist_ok=True)
            self.flags["slot_save_path"] = str(slot_folder)

    def command(self) -> list[str]:
        """The command line of the next start."""
        return [sys.executable, "-I", "-S", str(PROGRAM), *flags_of({**self.flags, "port": self.port})]

    async def begin(self, command: list[str]) -> asyncio.subprocess.Process | Forked:
        """Without imports, if this system lets us."""
        return await fork(command) or await super().begin(command)

    def ready(self, line: str) -> int:
        """It prints its port first."""
        return int(line.rsplit(maxsplit=1)[-1]) if line.startswith("listening on ") else 0

    async def restart(self, **flags: Json) -> None:
        """End it if it lives and start it again on the same port, with `flags` changed."""
        self.flags.update(flags)
        await super().restart()

    async def faults(self, **change: Json) -> None:
        """Switch faults; they stay until they are switched again."""
        if change.get("die") == "now":
            self.signal(change.get("die_signal", KILL))
            return
        answer = await self.post("/fake/faults", change)
        assert answer.status == 200, answer.body

    async def requests(self, path: str = "") -> list[Recorded]:
        """Every request that came in (to `path`, if given), oldest first; those of `state` and `faults` not."""
        found = (Recorded(**each) for each in (await self.get("/fake/requests")).json())
        return [each for each in found if path in ("", each.path)]

    async def forget(self) -> None:
        """Forget the requests that came in so far."""
        await self.request("DELETE", "/fake/requests")

    async def state(self) -> Json:
        """Slots with tokens, queue, deferred, cache, totals, violations, polls."""
        return (await self.get("/fake/state")).json()

    async def until(self, true: Callable[[Json], object], *, seconds: float = 30.0) -> Json:
        """Wait until `true` of the state; the state then. TimeoutError when it never is."""
        async with asyncio.timeout(seconds):
            while not true(state := await self.state()):  # noqa: ASYNC110 - another process, which tells nothing unasked
                await asyncio.sleep(0.005)
        return state

    async def violations(self) -> list[str]:
        """What was done to the engine that one must not do to the real one."""
        found: list[str] = (await self.state())["violations"]
        return found
