"""Nothing is read or done for a page whose name was pointed at this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.http import call
from support.swap_api import CHAT, program
from support.swap_models import fake, fakes
from support.swap_rig import Rig, swap_rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
rig = program(fakes("a"))
OWN = ("localhost", "127.0.0.1:8080", "[::1]:8080")


async def test_a_foreign_name_reads_no_logs(tmp_path: Path) -> None:
    """The refusal says what to do where the name should be one of ours."""
    async with swap_rig(tmp_path, {"a": fake()}) as rig:
        refused = await call(rig.port, "GET", "/logs", headers={"Host": "evil.example:8080"})
        assert (refused.status, "admin_hosts" in refused.text) == (403, True)
        assert [(await call(rig.port, "GET", "/logs", headers={"Host": host})).status for host in OWN] == [
            200,
            200,
            200,
        ]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"), ("GET", "/running"), ("GET", "/unload"), ("GET", "/upstream/a/x"), ("GET", "/props"),
        ("GET", "/api/metrics/activity"), ("GET", "/metrics"), ("POST", CHAT), ("POST", "/apply-template"),
        ("POST", "/slots/0?action=erase"), ("GET", "/nothing"), ("GET", "/ui/"),
    ],
)  # fmt: skip
async def test_a_foreign_name_reaches_nothing(method: str, path: str, rig: Rig) -> None:
    """Its page counts as one of this port for the browser, so `Origin` and `Sec-Fetch-Site` say that all is well."""
    fields = {
        "Host": f"evil.example:{rig.port}",
        "Origin": f"http://evil.example:{rig.port}",
        "Sec-Fetch-Site": "same-origin",
    }
    data = {"model": "a", "messages": [{"role": "user", "content": "@t"}]} if method == "POST" else None
    answer = await call(rig.port, method, path, data=data, headers=fields)
    assert (answer.status, "admin_hosts" in answer.text) == (403, True)
    assert await rig.running() == {}


async def test_probes_use_any_name(rig: Rig) -> None:
    """What is public tells nothing."""
    assert (await call(rig.port, "GET", "/health", headers={"Host": "evil.example"})).text == "OK"


async def test_each_refusal_is_said_once_and_counted(rig: Rig) -> None:
    """With the key to set: the browser tells its user nothing of use."""
    app = {"Origin": "https://chat.lan", "Access-Control-Request-Method": "POST"}
    for _ in range(3):
        await call(rig.port, "OPTIONS", CHAT, headers=app)
    status = (await call(rig.ports.admin, "GET", "/status")).json()
    assert status["refused_pages"]["proxy"]["https://chat.lan"] == 3
    assert any("https://chat.lan (3)" in note and "cors_origins" in note for note in status["notes"])
    assert (await rig.get("/logs")).text.count(
        "'https://chat.lan' may not read answers; if it should, add it to cors_or"
    ) == 1


@pytest.mark.parametrize("config", [{"admin_hosts": ["box.lan"]}, {"apiKeys": ["sk-one"]}])
async def test_a_name_of_ours_and_whoever_has_a_key_do(tmp_path: Path, config: Json) -> None:
    """A page that was rebound has no key."""
    async with swap_rig(tmp_path, {"a": fake()}, **config) as rig:
        headers = {"Host": "box.lan", "Authorization": "Bearer sk-one"}
        assert (await call(rig.port, "GET", "/logs", headers=headers)).status == 200
