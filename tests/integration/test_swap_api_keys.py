"""API keys where models are many: how they are shown, what they open, and that engines never see them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from support.http import Answer, call
from support.page import INDEX, app_of, build
from support.swap_api import CHAT, HELLO, Server, header, raw
from support.swap_client import message
from support.swap_models import apart, fakes
from support.swap_rig import Rig, swap_rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
KEYS: Json = [
    "sesame",
    {"key": "small-only", "name": "ann", "models": ["small", "other/name"]},
    {"key": "few", "name": "few", "tokens_per_day": 1},
]
BEARER = {"Authorization": "Bearer sesame"}
MODELS = fakes("a small")
MODELS["a"]["aliases"] = ["other/name"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A peer that wants no key."""
    async with Server("far", tmp_path_factory.mktemp("peer")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(far: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The program with two keys, and no admin_key."""
    folder = tmp_path_factory.mktemp("swap")
    peers = {"far": {"proxy": far.url, "models": ["one"]}}
    async with swap_rig(folder, MODELS, api_keys=KEYS, peers=peers, groups=apart("a small")) as running:
        yield running


def basic(password: str, user: str = "anybody") -> Json:
    """Basic credentials."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def chat(rig: Rig, headers: Json, model: str = "a", path: str = CHAT) -> Answer:
    """One chat with these headers."""
    return await call(rig.port, "POST", path, data={"model": model, "messages": HELLO}, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        BEARER,
        {"Authorization": "bearer sesame"},
        basic("sesame"),
        basic("sesame", user=""),
        {"x-api-key": "sesame"},
        {"api-key": "sesame"},
        {"Authorization": "Bearer ", "x-api-key": "sesame"},
        {"Authorization": "Digest nonsense", "x-api-key": "sesame"},
    ],
)
async def test_a_key_may_be_shown_in_several_ways(headers: Json, rig: Rig) -> None:
    """And none of them reaches the engine."""
    assert (await chat(rig, headers)).status == 200
    got = await rig.last("a")
    assert header(got, "authorization") is None
    assert header(got, "x-api-key") is None
    assert header(got, "api-key") is None
    assert "sesame" not in str(got)


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, basic("wrong"), {"x-api-key": ""}, {"Authorization": "Basic x"}]
)
@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings"])
async def test_without_one_it_is_a_401(headers: Json, path: str, rig: Rig) -> None:
    """In llama-swap's envelope and words, with a challenge that makes browsers ask."""
    body = b'{"model": "a"}'
    answer, head = await raw(rig.port, "POST", path, body=body, headers={"Content-Type": "application/json", **headers})
    error = answer.json()["error"]
    assert (answer.status, answer.json()["src"]) == (401, "llama-swap")
    assert (error["type"], error["code"]) == ("authentication_error", "unauthorized")
    assert error["message"].startswith("unauthorized: invalid or missing API key")
    assert b'WWW-Authenticate: Basic realm="llama-swap"' in head


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models", "/models", "/running", "/unload", "/logs", "/logs/stream", "/metrics", "/upstream/a/x",
        "/comfyui/", "/api/profiles", "/api/events", "/api/metrics/activity", "/api/metrics/stats", "/api/performance",
        "/api/version", "/api/hardware", "/api/captures/1", "/api/models", "/props?model=a",
        "/v1/audio/voices?model=a", "/nothing", "/models/sse", "/v1/models/a", "/api/keys",
    ],
)  # fmt: skip
async def test_everything_wants_one(path: str, rig: Rig) -> None:
    """Nobody learns which paths there are, either."""
    answer = await rig.get(path)
    assert answer.status == 401
    assert message(answer).startswith("unauthorized: invalid or missing API key")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
async def test_the_page_itself_wants_none(headers: Json, rig: Rig, tmp_path: Path) -> None:
    """It holds nothing private, and a person types the key into it."""
    app_of(rig).page.folder = build(tmp_path / "page")
    assert (await call(rig.port, "GET", "/ui/", headers=headers)).body == INDEX


@pytest.mark.parametrize("path", ["/health", "/wol-health", "/v1/health"])
async def test_health_wants_none(path: str, rig: Rig) -> None:
    """For whoever watches it."""
    assert (await rig.get(path)).text == "OK"


@pytest.mark.parametrize("headers", [{}, {"Access-Control-Request-Method": "POST", "Origin": "https://chat.example"}])
async def test_options_want_none(headers: Json, rig: Rig) -> None:
    """A browser asks without; with keys, pages of anywhere may use them."""
    answer = await call(rig.port, "OPTIONS", CHAT, headers=headers)
    assert answer.status == 204
    if headers:
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"


@pytest.mark.parametrize(
    "path",
    [
        "/logs", "/logs/stream", "/logs/stream/a", "/api/events", "/api/captures/1", "/api/metrics/activity",
        "/api/metrics/stats",
    ],
)  # fmt: skip
async def test_what_others_asked_is_not_for_one_of_several_keys(path: str, rig: Rig) -> None:
    """403 that says what would open it; llama-swap shows everything to everybody."""
    answer = await call(rig.port, "GET", path, headers=BEARER)
    error = answer.json()["error"]
    assert (answer.status, error["type"], error["code"]) == (403, "authentication_error", "forbidden")
    assert "admin_key" in error["message"]


async def test_no_captures_are_kept_then(rig: Rig) -> None:
    """Rows are; what stood in the requests is not."""
    await chat(rig, BEARER)
    (row,) = (await call(rig.ports.admin, "GET", "/api/metrics/activity?limit=1")).json()["data"]
    assert (row["model"], row["has_capture"]) == ("a", False)
    answer = await call(rig.ports.admin, "GET", f"/api/captures/{row['id']}")
    assert answer.status == 404


@pytest.mark.parametrize("path", ["/running", "/v1/models", "/v1/models/a", "/metrics", "/api/version"])
async def test_the_rest_is(path: str, rig: Rig) -> None:
    """Which models run is for everybody who may use them."""
    assert (await call(rig.port, "GET", path, headers=BEARER)).status == 200


async def test_the_states_of_models_are_for_every_key(rig: Rig) -> None:
    """As their list is, which shows the same."""
    for key in ("sesame", "small-only"):
        answer = await call(rig.port, "HEAD", "/models/sse", headers={"api-key": key})
        assert answer.status == 200


async def test_one_of_several_keys_sees_no_request_of_another(rig: Rig) -> None:
    """The overview has the models; what is under way there is shown on the admin port."""
    task = rig.ask("small", hold=0, headers=ANN)
    await rig.until(lambda: task.done() or rig.log.of("held", "small"))
    seen = (await call(rig.port, "GET", "/api/models", headers=BEARER)).json()
    assert ([one["model"] for one in seen["models"]], seen["requests"]) == (["a", "small"], [])
    (shown,) = (await call(rig.ports.admin, "GET", "/api/models")).json()["requests"]
    assert shown["model"] == "small"
    await rig.release("small")
    assert (await task).status == 200


async def test_one_of_several_keys_cancels_its_own_requests_only(rig: Rig) -> None:
    """Also a key for certain models; the request of another key is as unknown as one that is not there, and goes on."""
    held = rig.ask("small", hold=0, headers=ANN | {"X-Request-Id": "anns"})
    await rig.until(lambda: held.done() or rig.log.of("held", "small"))
    foreign = await call(rig.port, "POST", "/api/inflight/anns/cancel", headers=BEARER)
    unknown = await call(rig.port, "POST", "/api/inflight/nobodys/cancel", headers=BEARER)
    assert (foreign.status, foreign.body) == (unknown.status, unknown.body) == (404, unknown.body)
    assert app_of(rig).management.inflight.statistics().cancelled == 0
    assert (await call(rig.port, "POST", "/api/inflight/anns/cancel", headers=ANN)).json() == {"msg": "ok"}
    assert ((await held).status, message(await held)) == (503, "the request was cancelled by an operator")


async def test_a_key_never_reaches_an_engine_by_path(rig: Rig) -> None:
    """`/upstream/…`, where llama-swap hands it on."""
    await call(rig.port, "GET", "/upstream/a/x", headers=BEARER)
    assert "sesame" not in str(await rig.last("a"))


async def test_a_key_never_reaches_a_peer(far: Server, rig: Rig) -> None:
    """It is ours."""
    assert (await chat(rig, BEARER | {"x-api-key": "sesame"}, "far/one")).json()["served_by"] == "far"
    assert "sesame" not in str(await far.last())
    await call(rig.port, "GET", "/upstream/far/one/x", headers=BEARER)
    assert "sesame" not in str(await far.last())


# keys for certain models

ANN = {"Authorization": "Bearer small-only"}


@pytest.mark.parametrize("model", ["small", "other/name"])
async def test_a_key_for_certain_models_opens_those(model: str, rig: Rig) -> None:
    """By any name that stands in `models`."""
    assert (await chat(rig, ANN, model)).status == 200


@pytest.mark.parametrize("model", ["a", "far/one"])
async def test_a_key_for_certain_models_opens_no_others(model: str, rig: Rig) -> None:
    """403 that names what it is for; nothing is started."""
    await call(rig.port, "GET", "/unload", headers=BEARER)
    answer = await chat(rig, ANN, model)
    assert (answer.status, answer.json()["error"]["code"]) == (403, "forbidden")
    assert "small, other/name" in message(answer)
    assert (await call(rig.port, "GET", "/running", headers=BEARER)).json() == {"running": []}


async def test_nor_by_a_path(rig: Rig) -> None:
    """`/upstream` asks the same."""
    assert (await call(rig.port, "GET", "/upstream/small/x", headers=ANN)).status == 200
    assert (await call(rig.port, "GET", "/upstream/a/x", headers=ANN)).status == 403


async def test_anthropics_clients_get_anthropics_401(rig: Rig) -> None:
    """Whose SDK reads no other."""
    answer = await chat(rig, {"x-api-key": "wrong"}, path="/v1/messages")
    body = answer.json()
    assert (answer.status, body["type"], body["error"]["type"]) == (401, "error", "authentication_error")
    assert answer.headers["request-id"]


async def test_one_key_alone_sees_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With one key there is nobody to hide from: logs, events and captures are open to it."""
    async with swap_rig(tmp_path_factory.mktemp("swap"), fakes("a"), apiKeys=["sesame"]) as rig:
        await chat(rig, BEARER)
        assert "a is ready" in (await call(rig.port, "GET", "/logs", headers=BEARER)).text
        (row,) = (await call(rig.port, "GET", "/api/metrics/activity", headers=BEARER)).json()["data"]
        assert row["has_capture"]
        capture = await call(rig.port, "GET", f"/api/captures/{row['id']}", headers=BEARER)
        assert capture.json()["req_headers"]["Authorization"] == "[REDACTED]"
        assert "sesame" not in capture.text


@pytest.mark.parametrize("path", ["/unload", "/api/models/load/a", "/models/unload"])
async def test_a_key_for_certain_models_manages_none(rig: Rig, path: str) -> None:
    """It could stop what others use."""
    method = "GET" if path == "/unload" else "POST"
    answer = await call(rig.port, method, path, headers={"Authorization": "Bearer small-only"})
    assert (answer.status, "admin_key" in answer.text) == (403, True)


async def test_a_key_is_told_what_it_used_itself(rig: Rig) -> None:
    """And nothing of any other."""
    headers = {"x-api-key": "small-only"}
    assert (await chat(rig, headers, model="small")).status == 200
    (mine,) = (await call(rig.port, "GET", "/api/keys", headers=headers)).json()["keys"]
    assert (mine["key"], mine["left"], mine["today"]["requests"] >= 1) == ("ann", None, True)
    (other,) = (await call(rig.port, "GET", "/api/keys", headers=BEARER)).json()["keys"]
    assert other["key"] == "key 1"


async def test_a_key_that_has_used_its_tokens_reaches_no_engine(rig: Rig) -> None:
    """By no path: not a model of ours, not a peer's, not past all routing; and none is loaded for it."""
    headers = {"x-api-key": "few"}
    assert (await chat(rig, headers)).status == 200
    before = rig.log.served()
    for model, path in (("a", CHAT), ("one", CHAT), ("x", f"/upstream/a{CHAT}"), ("x", f"/upstream/one{CHAT}")):
        answer = await chat(rig, headers, model=model, path=path)
        assert (path, answer.status) == (path, 429)
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        assert int(answer.headers["retry-after"]) > 0
    assert rig.log.served() == before
    assert (await call(rig.port, "GET", "/v1/models", headers=headers)).status == 200


async def test_users_behind_one_key_are_told_apart_on_every_way_to_an_engine(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """`forwards_users`: below `/upstream` they count as on other routes, for the gate and in what is shown."""
    key = {"key": "k", "name": "web", "forwards_users": True}
    async with swap_rig(tmp_path_factory.mktemp("users"), fakes("a"), api_keys=[key]) as rig:
        for path in (CHAT, f"/upstream/a{CHAT}"):
            for user in ("ann", "bob"):
                headers = {"Authorization": "Bearer k", "X-OpenWebUI-User-Id": user}
                assert (await chat(rig, headers, path=path)).status == 200
        listed = (await call(rig.ports.admin, "GET", "/requests")).json()["requests"]
    assert [one["client"] for one in listed] == ["web/bob", "web/ann"] * 2
