"""`bioproxy doctor` beside a running program."""

from __future__ import annotations

from pathlib import Path

from fakes.fake_engine import FakeEngine
from support.command import run
from support.http import call
from support.kv_rig import text
from support.leaks import until
from support.real_engine import line


async def test_the_doctor_tells_what_to_change(tmp_path: Path) -> None:
    """A table, the advice, and as JSON what `/api/doctor` says."""
    async with FakeEngine(cache_ram=0, tokens_per_second=20_000) as engine, line(engine, tmp_path) as app:
        for day in ("Monday", "Friday"):
            system = {"role": "system", "content": f"Today is {day}. {text(200)}"}
            body = {"messages": [system, {"role": "user", "content": "hello"}], "max_tokens": 2}
            await call(app.proxy_port, "POST", "/v1/chat/completions", data=body)
        await until(lambda: app.doctor.requests == 2)
        asked = "-admin-port", str(app.admin_port)
        shown, told = await run(tmp_path, "doctor", *asked), await run(tmp_path, "doctor", "--json", *asked)
    assert shown.code == 0
    assert "system changed  system message" in shown.out
    assert "1. 127.0.0.1: system changed (system message) in 1 request" in shown.out
    assert "`Today is Monday. " in shown.out
    assert [row["cause"] for row in told.json()["totals"]] == ["system_changed", "first_time"]
    assert told.json()["advice"][0]["place"]["now"].startswith("Friday")
