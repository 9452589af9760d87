"""What tests of the many models' API share: one program for a whole module, and servers to be its peers.

A program of its own for every test would be cleaner and three times slower. So tests of such a module leave the program
as they found it (no profile active, nobody held), and expect nothing of which models run.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fakes.engine_process import EngineProcess
from support.command import Ended, Serving, run, serving
from support.http import Answer, build, call, exchange, parse
from support.swap_models import ENGINE, EventLog, apart
from support.swap_rig import Rig, swap_rig

Json = Any
CHAT = "/v1/chat/completions"
HELLO: Json = [{"role": "user", "content": "hello"}]


def program(models: Json, *, files: Mapping[str, str] = {}, **config: Json) -> Any:
    """A fixture: the program on these models and top-level keys, for all tests of a module; `files` lie beside it."""

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
        folder = tmp_path_factory.mktemp("swap")
        for name, text in files.items():
            (folder / name).write_text(text)
        async with swap_rig(folder, models, **config) as running:
            yield running

    return rig


def program_with_rules(models: Json) -> Any:
    """The same with a template, `@rules`, and with models that may all run at once."""
    return program(
        models,
        files={"rules.txt": "The rules.\n<{message}>"},
        prefixes={"@rules": {"template": "rules.txt", "as_model": True}},
        warmup={"enabled": False},
        groups=apart(" ".join(models)),
    )


class Server(EngineProcess):
    """A fake engine that nobody supervises, as a peer is one."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__()
        self.log = EventLog(folder / f"{name}.jsonl")
        self.words = ["--port", "0", "--model", name, "--events", str(self.log.path)]

    def command(self) -> list[str]:
        """Any port that is free."""
        return [sys.executable, "-I", "-S", str(ENGINE), *self.words]

    def ready(self, line: str) -> int:
        """It says where it listens."""
        return int(line.rpartition(" ")[2]) if line.startswith("listening on ") else 0

    async def last(self) -> Json:
        """The newest request as it came."""
        return (await self.get("/last")).json()


@asynccontextmanager
async def profile(rig: Rig, name: str) -> AsyncIterator[Answer]:
    """The block runs with this profile active; yields what was answered."""
    answer = await activate(rig, name)
    try:
        yield answer
    finally:
        await activate(rig, None)


async def activate(rig: Rig, name: Json) -> Answer:
    """Choose a profile."""
    return await call(rig.port, "PUT", "/api/profiles/active", data={"name": name})


def header(request: Json, name: str) -> str | None:
    """A header of a request that a fake engine tells of; None if it had none."""
    return next((value for key, value in request["headers"] if key.lower() == name), None)


async def raw(port: int, method: str, target: str, *, body: bytes = b"", headers: Json = None) -> tuple[Answer, bytes]:
    """One request; the answer as Python reads it, and its head as it came (a header may stand there twice)."""
    got = await exchange(port, build(method, target, body=body, headers=headers))
    return parse(got, method), got.partition(b"\r\n\r\n")[0]


def found_by(rig: Rig) -> list[str]:
    """The flags by which a command finds the program of `rig`."""
    return ["-config", str(rig.folder / "config.yaml"), "-listen", f"127.0.0.1:{rig.port}"]


async def verb(rig: Rig, *words: str) -> Ended:
    """Run `bioproxy words` to its end."""
    return await run(rig.folder, *words, *found_by(rig))


def running(rig: Rig, *words: str) -> AbstractAsyncContextManager[Serving]:
    """Run `bioproxy words` in the background."""
    return serving(rig.folder, *words, *found_by(rig))
