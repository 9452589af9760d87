"""The program below a path of a reverse proxy, `proxy.base_path`: what is served there, and that guards hold there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bioproxy.app import App
from bioproxy.config.check import TAKEN
from bioproxy.front import routes
from bioproxy.wire.http1.router import Router
from support.apps import running_app
from support.http import Answer, call
from support.swap_models import engine_words

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT: Json = {"model": "a", "messages": [{"role": "user", "content": "hello"}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    """The program with one model, below /llm; a key for clients and one for the admin."""
    folder = tmp_path_factory.mktemp("base")
    models = {"a": {"cmd": engine_words(folder / "events")}}
    async with running_app(
        folder, models=models, proxy={"base_path": "/llm"}, api_keys=["sk-client"], admin_key="sk-admin"
    ) as running:
        yield running


async def asked(app: App, method: str, path: str, *, key: str = "", admin: bool = False, **headers: str) -> Answer:
    """An answer of the proxy port, or of the admin port."""
    port = app.admin_port if admin else app.proxy_port
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if key:
        sent["Authorization"] = f"Bearer {key}"
    data = CHAT if path.endswith("/completions") else None
    return await call(port, method, path, headers=sent, data=data)


@pytest.mark.parametrize("base", ["/llm", ""])
async def test_clients_are_served(app: App, base: str) -> None:
    """Below it, and beside it: probes of this machine come past the reverse proxy."""
    answer = await asked(app, "POST", f"{base}/v1/chat/completions", key="sk-client")
    assert answer.json()["served_by"] == "a"
    assert (await asked(app, "GET", f"{base}/health")).status == 200
    assert (await asked(app, "GET", f"{base}/status", admin=True, key="sk-admin")).status == 200


async def test_redirects_lead_to_where_the_browser_is(app: App) -> None:
    """To the model's page with a slash at its end; a link on a refusal leads there, too."""
    answer = await asked(app, "GET", "/llm/upstream/a?x", key="sk-admin")
    assert (answer.status, answer.headers["location"]) == (301, "/llm/upstream/a/?x")
    refused = await asked(app, "GET", "/llm/upstream/a/env", User_Agent="Mozilla/5.0", Accept="text/html")
    assert (refused.status, 'href="/llm/upstream/a/env"' in refused.text) == (403, True)


@pytest.mark.parametrize("path", ["/llm/status", "/llm/requests", "/llm/api/config", "/llm/metrics"])
async def test_the_admin_port_wants_its_key_below_it(app: App, path: str) -> None:
    """And no key of a client will do; nor does a foreign name with the right one."""
    for key in ("", "sk-client"):
        open_ = path.endswith("/metrics")
        assert (await asked(app, "GET", path, admin=True, key=key)).status == (200 if open_ else 401)
    foreign = await asked(app, "GET", path, admin=True, key="sk-admin", Host="evil.example")
    assert foreign.status == (200 if path.endswith("/metrics") else 403)


@pytest.mark.parametrize(("name", "value"), [("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")])
async def test_a_foreign_page_changes_nothing_below_it(app: App, name: str, value: str) -> None:
    """Whatever the reverse proxy says about the client."""
    said = {"X-Forwarded-Prefix": "/llm", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "localhost"}
    answer = await call(app.admin_port, "POST", "/llm/reload", headers={**said, name: value})
    assert answer.status == 403


@pytest.mark.parametrize("path", ["/llm/unload", "/llm/api/models/unload", "/llm/upstream/a/slots/0?action=erase"])
async def test_a_clients_key_does_not_manage_below_it(app: App, path: str) -> None:
    """Nor by an escape in the prefix."""
    for spelled, status in ((path, 401), (path.replace("/llm", "/l%6cm"), 400)):
        assert (await asked(app, "POST", spelled, key="sk-client")).status == status


async def test_no_path_of_ours_can_be_the_base(app: App) -> None:
    """What begins with it would be taken for what is below it."""
    paths = [*paths_of(routes.ONE), *paths_of(routes.MANY), *paths_of(app.admin.table), *paths_of(app.management.table)]
    first = {path.split("/")[1] for path in (*paths, *routes.OUR_HEALTH, routes.COMFYUI_PATH, routes.UPSTREAM_PATH)}
    assert {one for one in first if one and not one.startswith("{")} == TAKEN


def paths_of(table: Router[Any]) -> list[str]:
    """The paths and patterns of a table."""
    return [*table.exact, *("/".join(pattern.segments) for pattern, _ in table.patterns)]
