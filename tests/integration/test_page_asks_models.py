"""The page on the admin port asks models there: it passes that port's guard, and then all rules of the proxy port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bioproxy import aio
from bioproxy.app import App
from bioproxy.front.allowance import Used
from fakes.fake_engine import FakeEngine
from support.apps import engine_ready, running_app
from support.clients import Line, fake_line
from support.faults import CHAT, ask
from support.http import Answer, call
from support.http import build as written
from support.sockets import needs_unix, short_folder
from support.swap_models import engine_words

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
PAGE = {"X-Requested-With": "bioproxy"}
KEYS: Json = [
    {"key": "sk-any", "name": "any"}, {"key": "sk-few", "name": "few", "models": ["other"]},
    {"key": "sk-spent", "name": "spent", "tokens_per_day": 5},
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Line]:
    """One engine without keys."""
    async with fake_line(tmp_path_factory.mktemp("line")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def locked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Line]:
    """One engine with three keys, and no admin."""
    async with fake_line(tmp_path_factory.mktemp("locked"), api_keys=KEYS) as running:
        yield running


async def asked(port: int, path: str = CHAT, *, method: str = "POST", key: str = "", **headers: str) -> Answer:
    """As the page asks; headers may be others, and an empty one is left out."""
    fields = PAGE | {name.replace("_", "-"): value for name, value in headers.items()}
    if key:
        fields["Authorization"] = f"Bearer {key}"
    sent = {name: value for name, value in fields.items() if value}
    return await call(port, method, path, headers=sent, data=ask() if method == "POST" else None)


async def test_a_chat_of_the_page(line: Line) -> None:
    """It is served and recorded as on the proxy port, by the id that the page gave it."""
    answer = await asked(line.app.admin_port, X_Request_Id="pg-1", Sec_Fetch_Site="same-origin")
    assert (answer.status, answer.headers["x-request-id"]) == (200, "pg-1")
    assert "server-timing" in answer.headers
    assert (line.app.records[-1].id, line.app.records[-1].endpoint) == ("pg-1", CHAT)
    assert (await asked(line.app.admin_port, "/v1/models", method="GET")).json()["object"] == "list"


async def test_a_chat_among_models(tmp_path: Path) -> None:
    """Their page stands on the admin port, too."""
    async with running_app(tmp_path, models={"a": {"cmd": engine_words(tmp_path / "events")}}) as app:
        assert [one["id"] for one in (await asked(app.admin_port, "/v1/models", method="GET")).json()["data"]] == ["a"]
        answer = await call(app.admin_port, "POST", CHAT, headers=PAGE, data=ask() | {"model": "a"})
        assert answer.json()["served_by"] == "a"


@pytest.mark.parametrize(("method", "path"), [("POST", CHAT), ("GET", "/v1/models"), ("GET", "/sdapi/v1/loras")])
async def test_programs_are_sent_to_the_proxy_port(method: str, path: str, line: Line) -> None:
    """They do not send the header that the page sends."""
    answer = await asked(line.app.admin_port, path, method=method, X_Requested_With="")
    assert (answer.status, "proxy port" in answer.text) == (404, True)


@pytest.mark.parametrize(
    "said",
    [
        {"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site", "Origin": "null"},
        {"Host": "evil.example"}, {"Origin": "http://localhost:1"},
    ],
)  # fmt: skip
@pytest.mark.parametrize(("method", "path"), [("POST", CHAT), ("GET", "/v1/models")])
async def test_a_page_of_another_origin_asks_nothing(said: dict[str, str], method: str, path: str, line: Line) -> None:
    """Not even one of this machine, which may read what the proxy port says."""
    before = len(line.app.records)
    assert (await asked(line.app.admin_port, path, method=method, **said)).status == 403
    assert len(line.app.records) == before


async def test_and_is_not_allowed_to_by_a_preflight(line: Line) -> None:
    """So its browser does not send the header at all."""
    fields = {"Origin": "http://localhost:1", "Access-Control-Request-Method": "POST"}
    answer = await call(line.app.admin_port, "OPTIONS", CHAT, headers=fields)
    assert answer.status >= 400
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(("key", "status"), [("", 401), ("wrong", 401), ("sk-few", 403), ("sk-any", 200)])
async def test_the_proxy_ports_keys_count(key: str, status: int, locked: Line) -> None:
    """A key is wanted, is for the models that it is for, and is whom the request belongs to."""
    assert (await asked(locked.app.admin_port, key=key)).status == status
    if status == 200:
        assert locked.app.records[-1].client == "any"


async def test_a_key_whose_tokens_are_spent_gets_none(locked: Line) -> None:
    """What it may use in a day is counted wherever it asks."""
    assert (await asked(locked.app.admin_port, key="sk-spent")).status == 200
    locked.app.allowances.note("spent", Used(5))
    assert (await asked(locked.app.admin_port, key="sk-spent")).status == 429


async def test_the_admin_ports_key_counts_first(tmp_path: Path) -> None:
    """No key of a client opens it; the admin's asks models here, though these want one."""
    async with fake_line(tmp_path, api_keys=KEYS, admin_key="root") as line:
        statuses = [(await asked(line.app.admin_port, key=key)).status for key in ("", "sk-any", "root")]
        assert statuses == [401, 401, 200]
        assert line.app.records[-1].client == "admin"


@pytest.mark.parametrize(("key", "status"), [("", 401), ("root", 200)])
async def test_without_keys_for_models_the_admin_port_still_wants_its_own(
    key: str, status: int, tmp_path: Path
) -> None:
    """The proxy port alone is open."""
    async with fake_line(tmp_path, admin_key="root") as line:
        assert (await asked(line.app.admin_port, key=key)).status == status


short = short_folder()


@needs_unix
@pytest.mark.parametrize(("keys", "status"), [({}, 403), ({"admin_key": "root"}, 200)])
async def test_it_is_no_way_round_the_mode_of_a_socket(keys: Json, status: int, tmp_path: Path, short: Path) -> None:
    """Other users of this machine reach a TCP port."""
    async with fake_line(tmp_path, proxy_host=f"unix:{short / 'proxy.sock'}", **keys) as line:
        assert (await asked(line.app.admin_port, key=keys.get("admin_key", ""))).status == status


@pytest.mark.parametrize("below", [{"X_Forwarded_Prefix": "/llm"}, {}])
async def test_below_a_path(below: dict[str, str], tmp_path: Path) -> None:
    """Whether the reverse proxy takes the path off, or we do."""
    async with fake_line(tmp_path, proxy={"base_path": "/llm"}) as line:
        path = CHAT if below else f"/llm{CHAT}"
        assert (await asked(line.app.admin_port, path, **below)).status == 200


@asynccontextmanager
async def streaming(app: App, tokens: int) -> AsyncIterator[asyncio.StreamReader]:
    """An answer of so many tokens to the page, of which the first has come."""
    body = json.dumps(ask(tokens=tokens, stream=True)).encode()
    headers = {"Content-Type": "application/json", **PAGE}
    reader, writer = await asyncio.open_connection("127.0.0.1", app.admin_port)
    try:
        writer.write(written("POST", CHAT, body=body, headers=headers))
        async with asyncio.timeout(30):
            await reader.readuntil(b"data: ")
        yield reader
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(("tokens", "deadline"), [(30, 20.0), (100_000, 0.0)])
async def test_a_stop_lets_an_answer_end_and_cuts_it_at_the_deadline(
    tokens: int, deadline: float, tmp_path: Path
) -> None:
    """As one on the proxy port; only then the engine is stopped."""
    async with FakeEngine(decode_rate=100) as engine, running_app(tmp_path, backend_url=engine.url) as app:
        await engine_ready(app)
        async with streaming(app, tokens) as reader:
            stopping = aio.spawn(app.stop(deadline), name="stop")
            assert (b"[DONE]" in await reader.read()) is (tokens == 30)
            await stopping
        assert app.records[-1].outcome == ("ok" if tokens == 30 else "client_left")
