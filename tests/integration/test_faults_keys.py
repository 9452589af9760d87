"""Who may do what, and what of a client's request the engine gets to see."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from bioproxy.app import App
from fakes.fake_engine import FakeEngine
from support.apps import station
from support.faults import CHAT, MESSAGES, ask, authority, good, sent, tried
from support.http import call
from support.kv_rig import text
from support.leaks import until

Json = Any
KEYS: Json = {"api_keys": ["right", {"key": "other", "name": "someone", "models": ["only"]}], "admin_key": "root"}
BASIC = base64.b64encode(b"anyone:right").decode()
WRONG: list[Json] = [
    {},
    {"Authorization": "Bearer wrong"},
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer righ"},
    {"Authorization": "Bearer right2"},
    {"Authorization": "right"},
    {"Authorization": "Basic !!!"},
    {"Authorization": "Basic " + base64.b64encode(b"right:").decode()},
    {"x-api-key": ""},
    {"x-api-key": "wr\xf6ng"},
]
RIGHT: list[Json] = [{"Authorization": "Bearer right"}, {"x-api-key": "right"}, {"Authorization": f"Basic {BASIC}"}]


async def test_wrong_keys_are_refused(tmp_path: Path) -> None:
    """401 in the dialect of the call, on every route but /health; the engine never hears of it."""
    async with FakeEngine() as fake, tried(fake, tmp_path, **KEYS) as app:
        await fake.forget()
        for headers in WRONG:
            answer = await good(app, headers=headers)
            assert (headers, answer.status) == (headers, 401)
            assert "WWW-Authenticate".lower() in answer.headers
            assert (await good(app, path=MESSAGES, headers=headers)).json()["error"]["type"] == "authentication_error"
            for method, target in (("GET", "/v1/models"), ("GET", "/slots"), ("POST", "/anything"), ("GET", "/props")):
                assert (await call(app.proxy_port, method, target, headers=headers)).status == 401
            assert (await call(app.proxy_port, "GET", "/health", headers=headers)).status == 200
        assert {request.path for request in await fake.requests()} <= {"/health", "/props"}


async def test_a_right_key_serves_and_is_not_forwarded(tmp_path: Path) -> None:
    """The client's key is for us: the engine sees none, in whatever header it came."""
    async with FakeEngine() as fake, tried(fake, tmp_path, **KEYS) as app:
        for headers in RIGHT:
            assert (await good(app, headers=headers)).status == 200
        for request in await fake.requests(CHAT):
            assert request.header("authorization") is None
            assert request.header("x-api-key") is None
            assert "right" not in str(request.headers)


async def test_an_engine_with_a_key_of_its_own_gets_that(tmp_path: Path) -> None:
    """`backend_key` takes the place of whatever the client sent."""
    async with FakeEngine(api_key="engine") as fake, tried(fake, tmp_path, backend_key="engine") as app:
        assert (await good(app, headers={"Authorization": "Bearer whatever"})).status == 200
        assert (await fake.requests(CHAT))[-1].header("authorization") == "Bearer engine"


async def test_what_harms_the_engine_is_stripped(tmp_path: Path) -> None:
    """X-Conversation-Id makes llama-server ignore disconnects: it never arrives, however it is written."""
    async with FakeEngine() as fake, tried(fake, tmp_path) as app:
        for name in ("X-Conversation-Id", "x-conversation-id", "X-CONVERSATION-ID"):
            assert (await good(app, headers={name: "c1", "X-Other": "kept"})).status == 200
        for request in (await fake.requests(CHAT))[-3:]:
            assert request.header("x-conversation-id") is None
            assert request.header("x-other") == "kept"
            assert request.header("connection") != "close"


async def test_a_key_for_some_models_gets_no_others(tmp_path: Path) -> None:
    """403 that names them."""
    async with FakeEngine() as fake, tried(fake, tmp_path, **KEYS) as app:
        answer = await good(app, headers={"x-api-key": "other"})
        assert answer.status == 403
        assert "only" in answer.json()["error"]["message"]


async def test_a_key_for_some_models_computes_nothing_on_others(tmp_path: Path) -> None:
    """Routes without templates are no way around it."""
    async with FakeEngine() as fake, tried(fake, tmp_path, **KEYS) as app:
        body, headers = {"model": "large", "input": "text"}, {"x-api-key": "other"}
        refused = await call(app.proxy_port, "POST", "/v1/embeddings", data=body, headers=headers)
        assert (refused.status, "only" in refused.text) == (403, True)
        assert await fake.requests("/v1/embeddings") == []


@pytest.mark.parametrize(("key", "status"), [("right", 403), ("root", 200), ("wrong", 401)])
async def test_slot_actions_need_the_admin_key(key: str, status: int, tmp_path: Path) -> None:
    """They read and replace what other users have in the cache."""
    async with FakeEngine(slot_folder=tmp_path / "slots") as fake, tried(fake, tmp_path, **KEYS) as app:
        headers = {"Authorization": f"Bearer {key}"}
        answer = await call(app.proxy_port, "POST", "/slots/0?action=erase", data={}, headers=headers)
        assert answer.status == status


async def test_slot_actions_without_keys_are_free(tmp_path: Path) -> None:
    """Where everybody may use the proxy everybody may use its slots, as with llama-server itself."""
    async with FakeEngine(slot_folder=tmp_path / "slots") as fake, tried(fake, tmp_path) as app:
        saved = await call(app.proxy_port, "POST", "/slots/0?action=save", data={"filename": "mine.bin"})
        assert saved.status == 200
        assert (tmp_path / "slots" / "mine.bin").exists()


async def test_no_key_stands_in_a_log_a_status_or_a_metric(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Names do; keys never."""
    caplog.set_level("DEBUG")
    secret = "s3cr3t-of-somebody"
    async with FakeEngine() as fake, tried(fake, tmp_path, api_keys=[{"key": secret, "name": "somebody"}]) as app:
        assert (await good(app, headers=authority(app))).status == 200
        await good(app, headers={"Authorization": f"Bearer {secret}x"})
        shown = [(await call(app.admin_port, "GET", path)).text for path in ("/status", "/metrics", "/requests")]
        assert "somebody" in shown[2]
        assert all(secret not in text for text in [*shown, *caplog.messages])


async def test_who_leaves_before_a_slot_is_erased_for_it_costs_nobody_anything(tmp_path: Path) -> None:
    """Nothing of its request reached the engine, so what the slots hold is known as before."""
    keys: Json = {"api_keys": [{"key": name, "name": name} for name in ("alice", "bob")]}
    async with (
        FakeEngine(slot_folder=tmp_path / "slots", cache_ram=0, parallel=2, decode_rate=100) as fake,
        tried(fake, tmp_path, kv={"isolate": "strict"}, **keys) as app,
    ):
        queue = station(app).gate.queue
        await good(app, text(300, "a conversation"), headers={"x-api-key": "alice"})
        await until(lambda: known(app))
        before = known(app)
        async with sent(
            app, data=ask(text(300, "other"), tokens=2000, stream=True), headers={"x-api-key": "alice"}
        ) as hers:
            await hers.readuntil(b"data: ")
            async with sent(app, "/infill", data={"input_prefix": "a"}, headers={"x-api-key": "bob"}):
                await until(lambda: queue.unbegun)
            await until(lambda: not queue.unbegun and len(queue.running) == 1)
            assert known(app) == before
            assert not station(app).keeper.actions.lost
        assert "/infill" not in [request.path for request in await fake.requests()]


def known(app: App) -> list[str]:
    """The slots of which all is known that they hold."""
    return [repr(one) for one in station(app).keeper.residents.slots if one.whole]


async def test_strict_isolation_holds_for_prompts_that_we_do_not_read(tmp_path: Path) -> None:
    """What another key's request left goes first (here by another prompt); then the slot is this key's."""
    keys: Json = {"api_keys": [{"key": name, "name": name} for name in ("alice", "bob")]}
    async with FakeEngine(cache_ram=0) as fake, tried(fake, tmp_path, kv={"isolate": "strict"}, **keys) as app:
        await good(app, headers={"x-api-key": "alice"})
        await fake.forget()
        for path in ("/infill", "/new/route", CHAT):
            body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
            await call(app.proxy_port, "POST", path, data=body, headers={"x-api-key": "bob"})
        asked = [request.path for request in await fake.requests() if request.method == "POST"]
        assert asked == ["/completion", "/infill", "/new/route", CHAT]
