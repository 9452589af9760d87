"""`/upstream/<model>/…` and `/comfyui/…`: an engine's own pages and routes, past all routing; and websockets."""

from __future__ import annotations

from typing import Any

import pytest

from support.http import CLOSE, TEXT, call, connected, upgrade
from support.swap_api import header, program
from support.swap_client import message
from support.swap_models import apart, fake
from support.swap_rig import Rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
MODELS = {
    "a": fake(aliases=["al"]),
    "org/m": fake(),
    "org/m/x": fake(),
    "quiet": fake(compat={"ignoreWebsockets": True}),
    "comfyui_auto": fake(),
}
rig = program(MODELS, groups=apart("a org/m org/m/x quiet comfyui_auto"), upstream={"ignorePaths": [r"\.css$", "^/no"]})


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_any_method_with_the_rest_of_the_path(method: str, rig: Rig) -> None:
    """Escapes and query as they came; the model is loaded for it."""
    await rig.post("/api/models/unload/a")
    answer = await call(rig.port, method, "/upstream/a/some%20where/%C3%A9?q=%2F&q=2", body=b"")
    got = answer.json()
    assert (got["served_by"], got["method"], got["target"]) == ("a", method, "/some%20where/%C3%A9?q=%2F&q=2")


async def test_head(rig: Rig) -> None:
    """Its head only."""
    answer = await call(rig.port, "HEAD", "/upstream/a/x")
    assert (answer.status, answer.body) == (200, b"")
    assert (await rig.last("a"))["method"] == "HEAD"


@pytest.mark.parametrize(
    ("path", "model", "rest"),
    [
        ("/upstream/al/x", "a", "/x"),
        ("/upstream/org/m/y", "org/m", "/y"),
        ("/upstream/org/m/x/y", "org/m/x", "/y"),
        ("/upstream/org/m/xy", "org/m", "/xy"),
        ("/upstream/org/m/", "org/m", "/"),
        ("/upstream/org%2Fm/y", "org/m", "/y"),
    ],
)
async def test_the_longest_name_counts(path: str, model: str, rest: str, rig: Rig) -> None:
    """IDs have slashes, written as they are or escaped."""
    answer = await rig.get(path)
    assert answer.status == 200, answer.text
    assert (answer.json()["served_by"], answer.json()["target"]) == (model, rest)


@pytest.mark.parametrize("path", ["/upstream/zzz/x", "/upstream/org/x", "/upstream/zzz"])
async def test_what_names_no_model_is_a_404(path: str, rig: Rig) -> None:
    """In llama-swap's words."""
    answer = await rig.get(path)
    assert (answer.status, message(answer)) == (404, "model not found")


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("HEAD", 301), ("POST", 308), ("PUT", 308)])
async def test_a_bare_model_gets_a_slash(method: str, status: int, rig: Rig) -> None:
    """By a redirect that keeps the query; nothing is started for it."""
    await rig.post("/api/models/unload/org/m")
    answer = await call(rig.port, method, "/upstream/org/m?x=1&y=%2F")
    assert (answer.status, answer.headers["location"]) == (status, "/upstream/org/m/?x=1&y=%2F")
    assert "org/m" not in await rig.running()


@pytest.mark.parametrize("rest", ["style.css", "deep/style.css", "no", "nothing/here"])
async def test_ignored_paths_start_nothing(rest: str, rig: Rig) -> None:
    """409 while the model is not ready; served when it is."""
    await rig.post("/api/models/unload/a")
    answer = await rig.get(f"/upstream/a/{rest}?x=1")
    assert (answer.status, message(answer)) == (409, "model a is not loaded; path matches upstream.ignorePaths")
    assert answer.json()["error"]["code"] == "conflict"
    await rig.chat("a")
    assert (await rig.get(f"/upstream/a/{rest}?x=1")).json()["target"] == f"/{rest}?x=1"


@pytest.mark.parametrize("rest", ["metrics", "slots", "props", "lora-adapters", "health", "v1/health"])
async def test_a_look_starts_nothing(rest: str, rig: Rig) -> None:
    """A monitor's scrape must not swap out what somebody uses: the answer is that of `?model=`."""
    await rig.post("/api/models/unload/a")
    for method in ("GET", "HEAD"):
        assert (await call(rig.port, method, f"/upstream/a/{rest}")).status == 409
    answer = await rig.get(f"/upstream/a/{rest}")
    assert message(answer) == f"model a is not loaded; /{rest} does not start it, a request that computes does"
    assert "a" not in await rig.running()


async def test_a_slot_action_starts_nothing(rig: Rig) -> None:
    """There is nothing to save in a model that is not there."""
    await rig.post("/api/models/unload/a")
    assert (await rig.post("/upstream/a/slots/0?action=save", {"filename": "x"})).status == 409
    assert "a" not in await rig.running()


async def test_a_look_at_what_is_loaded_is_the_engines(rig: Rig) -> None:
    """Its own words, whatever they are."""
    await rig.chat("a")
    assert (await rig.get("/upstream/a/health")).status == 200
    assert (await rig.get("/upstream/a/props")).status == 404  # it has none


async def test_a_files_name_may_have_an_escaped_slash(rig: Rig) -> None:
    """As pages of other engines write it; the bytes stay, loaded or not, by both ways."""
    await rig.post("/api/models/unload/a")
    for _ in range(2):
        answer = await rig.post("/upstream/a/userdata/workflows%2Fa.json", {})
        assert answer.json()["target"] == "/userdata/workflows%2Fa.json"
    await rig.get("/comfyui/")
    assert (await rig.get("/comfyui/userdata/workflows%2Fa.json")).json()["target"] == "/userdata/workflows%2Fa.json"


async def test_what_may_be_a_llama_server_hides_no_guarded_route(rig: Rig) -> None:
    """Before it is known what an engine is; one that is another may have such a path."""
    await rig.post("/api/models/unload/a")
    answer = await rig.post("/upstream/a/v1%2Fchat/completions", {})
    assert (answer.status, "a" in await rig.running()) == (400, False)
    assert "hides a '/' behind an escape" in message(answer)
    await rig.chat("a")
    await rig.post("/upstream/a/v1%2Fchat/completions", {})
    assert (await rig.last("a"))["target"] == "/v1%2Fchat/completions"


async def test_the_engine_gets_the_clients_headers(rig: Rig) -> None:
    """All but those between two hops."""
    headers = {"X-Own": "1", "Cookie": "a=b", "Accept-Language": "de", "TE": "trailers", "Sec-Fetch-Site": "none"}
    await call(rig.port, "GET", "/upstream/a/x", headers=headers)
    got = await rig.last("a")
    assert (header(got, "x-own"), header(got, "cookie"), header(got, "accept-language")) == ("1", "a=b", "de")
    assert header(got, "te") is None


async def test_only_posts_of_model_routes_are_rows(rig: Rig) -> None:
    """Others are no activity; the row has the path behind the model."""
    body = {"model": "whatever", "messages": []}
    await rig.post("/upstream/a/v1/chat/completions", body)
    await rig.post("/upstream/a/other", body)
    await rig.get("/upstream/a/v1/models")
    row = (await rig.get("/api/metrics/activity?limit=1")).json()["data"][0]
    assert (row["req_path"], row["model"], row["tokens"]["output_tokens"]) == ("/v1/chat/completions", "a", 4)


async def test_streams_pass(rig: Rig) -> None:
    """Event by event."""
    answer = await rig.post("/upstream/a/v1/chat/completions", {"stream": True, "messages": []})
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.text.rstrip().endswith("data: [DONE]")


# comfyui


async def test_comfyui_is_a_path_of_its_own(rig: Rig) -> None:
    """Its page starts the model, nothing else does."""
    await rig.post("/api/models/unload/comfyui_auto")
    answer = await rig.get("/comfyui/api/queue")
    assert answer.status == 409
    assert message(answer) == "model comfyui_auto is not loaded; only /comfyui/ can start it"
    assert (await rig.get("/comfyui/?x=1")).json()["target"] == "/?x=1"
    assert (await rig.get("/comfyui/api/queue?y=2")).json()["target"] == "/api/queue?y=2"


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("POST", 308)])
async def test_comfyui_gets_a_slash(method: str, status: int, rig: Rig) -> None:
    """With its query."""
    answer = await call(rig.port, method, "/comfyui?x=1")
    assert (answer.status, answer.headers["location"]) == (status, "/comfyui/?x=1")


async def test_comfyuis_websocket_does_not_start_it(rig: Rig) -> None:
    """It is a page's, and pages are left open."""
    await rig.post("/api/models/unload/comfyui_auto")
    assert (await upgrade(rig.port, "/comfyui/ws")).status == 409
    await rig.get("/comfyui/")
    async with connected(rig.port, "/comfyui/ws") as socket:
        socket.send(TEXT, b"hello")
        assert await socket.receive() == (TEXT, b"hello")


# websockets


async def test_a_websocket_loads_the_model(rig: Rig) -> None:
    """Frames go both ways, the close too."""
    await rig.post("/api/models/unload/a")
    async with connected(rig.port, "/upstream/a/ws") as socket:
        for payload in (b"hello", b"x" * 60_000):
            socket.send(TEXT, payload)
            assert await socket.receive() == (TEXT, payload)
        socket.send(CLOSE, b"\x03\xe8")
        assert await socket.receive() == (CLOSE, b"\x03\xe8")


async def test_a_websocket_keeps_its_model(rig: Rig) -> None:
    """It is a request under way as long as it is open."""
    async with connected(rig.port, "/upstream/a/ws"):
        assert (await rig.overview())["a"]["running"] == 1
    await rig.look(lambda: idle(rig, "a"), "the websocket's place was given back")


async def idle(rig: Rig, model: str) -> bool:
    """Whether a model serves nobody."""
    return bool((await rig.overview())[model]["running"] == 0)


async def test_an_ignored_websocket_starts_nothing(rig: Rig) -> None:
    """`compat.ignoreWebsockets`: 409 while the model is not ready; then it passes, and counts as nothing."""
    await rig.post("/api/models/unload/quiet")
    answer = await upgrade(rig.port, "/upstream/quiet/ws")
    assert answer.status == 409
    assert message(answer) == "model quiet is not loaded; ignored websocket requests cannot start it"
    await rig.chat("quiet")
    async with connected(rig.port, "/upstream/quiet/ws") as socket:
        socket.send(TEXT, b"hello")
        assert await socket.receive() == (TEXT, b"hello")
        assert (await rig.overview())["quiet"]["running"] == 0
        await rig.post("/api/models/unload/quiet")  # which does not wait for it
        assert await socket.reader.read() == b""
