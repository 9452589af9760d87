"""`admin_key`: the management of many models needs it on every port, and it never leaves this program."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from support.http import call
from support.swap_api import CHAT, HELLO, header, program
from support.swap_client import message
from support.swap_models import apart, fakes
from support.swap_rig import Rig, swap_rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
KEYS: Json = {"admin_key": "boss", "metrics_key": "scraper", "apiKeys": ["one", "two"]}
rig = program(fakes("a comfyui_auto"), groups=apart("a comfyui_auto"), **KEYS)
BOSS, ONE = {"Authorization": "Bearer boss"}, {"Authorization": "Bearer one"}
MANAGED = (
    "/running", "/logs", "/api/events", "/api/profiles", "/api/metrics/activity", "/api/metrics/stats", "/api/version",
    "/api/performance", "/api/hardware", "/api/models", "/api/captures/1", "/metrics", "/upstream/a/x", "/unload",
)  # fmt: skip


@pytest.mark.parametrize("path", MANAGED)
async def test_a_models_key_does_not_manage(path: str, rig: Rig) -> None:
    """401 on the proxy port, and on the admin port."""
    answer = await call(rig.port, "GET", path, headers=ONE)
    assert answer.status == 401
    assert "admin_key" in message(answer)
    if path != "/upstream/a/x":
        assert (await call(rig.ports.admin, "GET", path, headers=ONE)).status == 401


@pytest.mark.parametrize("path", [path for path in MANAGED if path not in {"/api/events", "/api/captures/1"}])
async def test_the_admins_key_does(path: str, rig: Rig) -> None:
    """On both ports, as Bearer or as the password that a browser asks for."""
    basic = {"Authorization": "Basic " + base64.b64encode(b"me:boss").decode()}
    for headers in (BOSS, basic, {"x-api-key": "boss"}):
        assert (await call(rig.port, "GET", path, headers=headers)).status == 200
    if path != "/upstream/a/x":
        assert (await call(rig.ports.admin, "GET", path, headers=BOSS)).status == 200


async def test_the_key_for_metrics_opens_them_and_nothing_else(rig: Rig) -> None:
    """On both ports."""
    scraper = {"Authorization": "Bearer scraper"}
    for port in (rig.port, rig.ports.admin):
        assert (await call(port, "GET", "/metrics", headers=scraper)).status == 200
        assert (await call(port, "GET", "/running", headers=scraper)).status == 401
    assert (await call(rig.port, "GET", "/v1/models", headers=scraper)).status == 401


async def test_the_models_are_for_the_others(rig: Rig) -> None:
    """Inference and the list need a models' key; the operator is a client on the web page only."""
    body = {"model": "a", "messages": HELLO}
    assert (await call(rig.port, "POST", CHAT, data=body, headers=ONE)).status == 200
    assert (await call(rig.port, "GET", "/v1/models", headers=ONE)).status == 200
    assert (await call(rig.port, "POST", CHAT, data=body, headers=BOSS)).status == 401


async def test_the_admins_page_asks_models_too(rig: Rig) -> None:
    """A tab has one key, and who manages has the Playground; its header is one that no foreign page can send."""
    page = BOSS | {"X-Requested-With": "bioproxy"}
    for port in (rig.port, rig.ports.admin):
        answer = await call(port, "POST", CHAT, data={"model": "a", "messages": HELLO}, headers=page)
        assert answer.status == 200
        assert (await call(port, "GET", "/v1/models", headers=page)).status == 200
    assert "boss" not in str(await rig.last("a"))
    rows = (await call(rig.port, "GET", "/api/requests", headers=BOSS)).json()["requests"]
    assert [row["client"] for row in rows[:2]] == ["admin"] * 2


async def test_captures_are_kept_where_there_is_an_admin(rig: Rig) -> None:
    """For the admin only."""
    await call(rig.port, "POST", CHAT, data={"model": "a", "messages": HELLO}, headers=ONE)
    (row,) = (await call(rig.port, "GET", "/api/metrics/activity?limit=1", headers=BOSS)).json()["data"]
    assert row["has_capture"]
    capture = await call(rig.port, "GET", f"/api/captures/{row['id']}", headers=BOSS)
    assert "hello" in base64.b64decode(capture.json()["req_body"]).decode()


async def test_the_engine_never_sees_it(rig: Rig) -> None:
    """Not on `/upstream` either."""
    await call(rig.port, "GET", "/upstream/a/x", headers=BOSS | {"x-api-key": "boss"})
    assert "boss" not in str(await rig.last("a"))


async def test_nor_where_clients_need_no_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A client's own credentials pass then, for they are not ours; the admin's do not."""
    async with swap_rig(tmp_path_factory.mktemp("swap"), fakes("a"), admin_key="boss") as rig:
        await rig.chat("a", headers={"Authorization": "Bearer theirs"})
        assert header(await rig.last("a"), "authorization") == "Bearer theirs"
        await call(rig.port, "GET", "/upstream/a/x", headers=BOSS)
        assert "boss" not in str(await rig.last("a"))
        await rig.chat("a", headers=BOSS)
        assert "boss" not in str(await rig.last("a"))


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}])
async def test_a_page_of_elsewhere_does_not_manage(headers: Json, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`<img src="http://localhost:8080/unload">` in any page would."""
    async with swap_rig(tmp_path_factory.mktemp("swap"), fakes("a")) as rig:
        await rig.chat("a")
        answer = await call(rig.port, "GET", "/unload", headers=headers)
        assert answer.status == 403
        assert await rig.running() == {"a": "ready"}
