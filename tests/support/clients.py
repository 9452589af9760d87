"""What tests with foreign clients share: an App before a fake engine, and templates to try."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bioproxy.app import App
from fakes.fake_engine import FakeEngine
from support.apps import engine_ready, running_app

Json = Any
RULES = "These are the house rules.\n<{message}>"


class Line:
    """One App before one fake engine."""

    def __init__(self, engine: FakeEngine, app: App) -> None:
        self.engine = engine
        self.app = app

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.app.proxy_port}"

    async def received(self, path: str) -> Json:
        """The body of the last request to `path` as the engine got it."""
        return (await self.engine.requests(path))[-1].json()


@asynccontextmanager
async def fake_line(folder: Path, *, engine: Json = None, **values: Json) -> AsyncIterator[Line]:
    """An App with the template @rules before a fake engine; `engine` are its flags, `values` ours."""
    (folder / "rules.txt").write_text(RULES)
    before: Json = {"stall_timeout": 0, "warmup": {"enabled": False}, "prefixes": {"@rules": str(folder / "rules.txt")}}
    async with (
        FakeEngine(**(engine or {})) as fake,
        running_app(folder, **before | {"backend_url": fake.url} | values) as app,
    ):
        await engine_ready(app)
        yield Line(fake, app)
