"""Templates that cannot be used, behind the whole program: who asks for them hears why, everybody else is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.fake_engine import FakeEngine
from support.faults import CHAT, MESSAGES, RESPONSES, good, tried
from support.http import call
from support.kv_rig import text
from support.leaks import until

Json = Any


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
async def test_longer_than_the_context(path: str, tmp_path: Path) -> None:
    """The error names the template, by how much it is too long, and the flag that mends it."""
    (tmp_path / "code.txt").write_text(text(700) + "<{message}>")
    prefixes = {"@code": str(tmp_path / "code.txt")}
    async with FakeEngine(ctx_size=256) as fake, tried(fake, tmp_path, prefixes=prefixes) as app:
        await until(lambda: app.runner.too_long("@code"))
        answer = await good(app, "@code what?", path=path)
        assert answer.status == 400
        message = answer.json()["error"]["message"]
        assert all(part in message for part in ("@code", "256", "-c"))
        warmup = (await call(app.admin_port, "GET", "/status")).json()["warmup"]
        assert "too long" in str(warmup)
        assert all(request.path != path for request in await fake.requests())


async def test_an_include_that_goes_away(tmp_path: Path) -> None:
    """The last good text stays in use; the fault shows in /status and metrics until the file is back."""
    include = tmp_path / "rules.txt"
    include.write_text("never panic")
    (tmp_path / "code.txt").write_text("<{rules.txt}> <{message}>")
    prefixes = {"@code": str(tmp_path / "code.txt")}
    async with FakeEngine() as fake, tried(fake, tmp_path, prefixes=prefixes) as app:
        include.unlink()
        await app.catalogue.check()
        await good(app, "@code what?")
        assert (await fake.requests(CHAT))[-1].json()["messages"][0]["content"] == "never panic what?"
        (state,) = (await call(app.admin_port, "GET", "/status")).json()["templates"]
        assert (state["state"], "rules.txt" in state["last_error"]) == ("fault", True)
        include.write_text("never panic")
        await app.catalogue.check()
        assert app.catalogue.statistics()[0].state == "ok"
