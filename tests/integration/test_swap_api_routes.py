"""The routes of the proxy port where models are many: which there are, who answers, and in which shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.http import call
from support.page import HTML, INDEX, app_of, build
from support.swap_api import CHAT, HELLO, program
from support.swap_client import message
from support.swap_models import apart, fake, fakes
from support.swap_rig import Rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
MODELS = fakes("a b") | {"org/big:q4": fake(aliases=["big"])}
rig = program(MODELS, groups=apart("a b org/big:q4"))


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/wol-health"])
async def test_health_is_two_letters(path: str, rig: Rig) -> None:
    """As scripts compare it."""
    answer = await rig.get(path)
    assert (answer.status, answer.text) == (200, "OK")
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["/nothing", "/api/nothing", "/completions/x"])
async def test_an_unknown_path_is_a_404_in_plain_words(path: str, rig: Rig) -> None:
    """The words of Go's mux; no engine is asked."""
    answer = await rig.get(path)
    assert (answer.status, answer.text) == (404, "404 page not found\n")


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/v1/messages/nothing", "/v1/chat/completions/", "/api/v1/responses", "/v1/models/"]
)
async def test_an_apis_client_is_told_in_its_dialect(path: str, rig: Rig) -> None:
    """An SDK shows the sentence, and nothing but the number of what is no JSON."""
    answer = await call(rig.port, "POST", path, data={"model": "a"}, headers={"Accept": "application/json"})
    assert answer.status == 404
    assert message(answer).startswith(f"nothing is served at {path}; ")
    assert (answer.json().get("type") == "error") is path.startswith("/v1/messages")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/messages", "POST"),
        ("DELETE", "/v1/models/a", "GET, HEAD"),
        ("GET", CHAT, "POST"),
        ("PUT", "/v1/embeddings", "POST"),
        ("GET", "/infill", "POST"),
        ("DELETE", "/sdapi/v1/loras", "GET, HEAD"),
        ("POST", "/props", "GET, HEAD"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/models", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_the_right_one(method: str, path: str, allow: str, rig: Rig) -> None:
    """In the caller's dialect, with a sentence."""
    answer = await call(rig.port, method, path)
    assert (answer.status, answer.headers.get("allow")) == (405, allow)
    assert message(answer) == f"{path} is served by {allow}, not by {method}"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/api/models/unload", "POST"),
        ("GET", "/api/models/unload/a", "POST"),
        ("POST", "/running", "GET, HEAD"),
        ("POST", "/api/version", "GET, HEAD"),
        ("POST", "/api/profiles/active", "PUT"),
        ("DELETE", "/models/load", "POST"),
        ("POST", "/logs/stream/a", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_a_405_that_names_the_right_one(method: str, path: str, allow: str, rig: Rig) -> None:
    """As text, like Go's."""
    answer = await call(rig.port, method, path)
    assert (answer.status, answer.headers.get("allow")) == (405, allow)
    assert answer.text.strip() == "Method Not Allowed"


@pytest.mark.parametrize(
    "path", ["/v1/models", "/models", "/running", "/health", "/api/version", "/api/profiles", "/logs", "/metrics"]
)
async def test_head_works_where_get_does(path: str, rig: Rig) -> None:
    """The same head, and no body."""
    whole, head = await rig.get(path), await call(rig.port, "HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/upstream/a/anything", "/nothing", "/unload"])
async def test_options_are_answered_without_any_engine(path: str, rig: Rig) -> None:
    """204 on every path, for pages of this machine."""
    asked = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-one, authorization",
    }
    answer = await call(rig.port, "OPTIONS", path, headers=asked)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert answer.headers["access-control-allow-methods"] == "GET, POST, PUT, PATCH, DELETE, OPTIONS"
    assert answer.headers["access-control-allow-headers"] == "x-one, authorization"


async def test_options_that_are_no_preflight_are_answered_too(rig: Rig) -> None:
    """A plain OPTIONS, as monitors send it: 204, and nothing is started for it."""
    await rig.post("/api/models/unload/b")
    answer = await call(rig.port, "OPTIONS", "/upstream/b/x")
    assert (answer.status, answer.body) == (204, b"")
    assert "b" not in await rig.running()


async def test_a_page_of_elsewhere_may_not_read_answers(rig: Rig) -> None:
    """Without keys only pages of this machine may; llama-swap echoes any origin on its lists."""
    ours = await call(rig.port, "GET", "/v1/models", headers={"Origin": "http://localhost:3000"})
    theirs = await call(rig.port, "GET", "/v1/models", headers={"Origin": "https://evil.example"})
    assert ours.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "access-control-allow-origin" not in theirs.headers


async def test_running_lists_what_runs(rig: Rig) -> None:
    """With the keys that dashboards read; what is stopped is left out."""
    await rig.get("/unload")
    assert (await rig.get("/running")).json() == {"running": []}
    await rig.chat("b")
    (one,) = (await rig.get("/running")).json()["running"]
    assert set(one) == {"model", "state", "cmd", "proxy", "ttl", "name", "description"}
    assert (one["model"], one["state"], one["ttl"]) == ("b", "ready", 0)
    assert "${PORT}" not in one["cmd"]
    assert one["proxy"] == f"http://localhost:{rig.log.port('b')}"


@pytest.mark.parametrize("name", ["org/big:q4", "big", "org%2Fbig:q4"])
async def test_a_model_is_loaded_and_unloaded_by_any_of_its_names(name: str, rig: Rig) -> None:
    """Slashes and all; `OK` as text."""
    loaded = await rig.post(f"/api/models/load/{name}")
    assert (loaded.status, loaded.text) == (200, "OK")
    assert (await rig.running())["org/big:q4"] == "ready"
    unloaded = await rig.post(f"/api/models/unload/{name}")
    assert (unloaded.status, unloaded.text) == (200, "OK")
    assert unloaded.headers["content-type"].startswith("text/plain")
    assert "org/big:q4" not in await rig.running()


async def test_unloading_what_does_not_run_is_fine(rig: Rig) -> None:
    """A no-op that succeeds."""
    await rig.post("/api/models/unload/a")
    assert (await rig.post("/api/models/unload/a")).text == "OK"


@pytest.mark.parametrize("path", ["/api/models/unload/zzz", "/api/models/load/zzz"])
async def test_a_model_that_is_none_cannot_be_loaded_or_unloaded(path: str, rig: Rig) -> None:
    """404 in llama-swap's words."""
    answer = await rig.post(path)
    assert (answer.status, answer.json()["error"]["message"]) == (404, "model not found")


async def test_the_router_of_llama_cpp_is_spoken_too(rig: Rig) -> None:
    """`/models`, `/models/load` and `/models/unload` by its shapes."""
    assert (await rig.post("/models/load", {"model": "a"})).json() == {"success": True}
    listed = {one["id"]: one for one in (await rig.get("/models")).json()["data"]}
    assert listed["a"]["status"]["value"] == "loaded"
    assert listed["a"]["status"]["args"][-2:] == ["--events", str(rig.log.path)]
    assert (await rig.post("/models/unload", {"model": "a"})).json() == {"success": True}
    assert "a" not in await rig.running()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b'{"model": "zzz"}', 404, "model not found"),
        (b"{}", 404, "no model id could be identified"),
        (b"nonsense", 400, "the body must be JSON"),
        (b"[]", 400, "the body must be JSON"),
    ],
)
async def test_the_routers_load_says_what_is_wrong(body: bytes, status: int, said: str, rig: Rig) -> None:
    """In the same envelope as everything else."""
    answer = await call(rig.port, "POST", "/models/load", body=body)
    assert answer.status == status
    assert said in answer.json()["error"]["message"]


async def test_version(rig: Rig) -> None:
    """Three texts."""
    answer = (await rig.get("/api/version")).json()
    assert set(answer) == {"version", "commit", "build_date"}
    assert answer["version"]


async def test_performance(rig: Rig) -> None:
    """Figures of the machine; what is no time is refused in llama-swap's words."""
    answer = (await rig.get("/api/performance")).json()
    assert answer["enabled"] is True
    assert answer["sys_stats"][0]["mem_total_mb"] > 0
    assert isinstance(answer["gpu_stats"], list)
    assert (await rig.get("/api/performance?after=2099-01-01T00:00:00Z")).json()["sys_stats"] == []
    wrong = await rig.get("/api/performance?after=yesterday")
    assert wrong.status == 400
    assert wrong.json()["error"]["message"] == "invalid 'after' timestamp, use RFC3339 format"


async def test_hardware(rig: Rig) -> None:
    """The snapshot in its schema."""
    answer = (await rig.get("/api/hardware")).json()
    assert answer["schema_version"] == 1
    assert {"captured_at", "architecture", "operating_system", "cpu", "memory", "accelerators"} <= set(answer)


@pytest.mark.parametrize("path", ["/ui/", "/ui", "/", "/upstream"])
async def test_without_its_page_a_build_says_so(path: str, rig: Rig, tmp_path: Path) -> None:
    """A 404; llama-swap built without its page answers 404 too."""
    app_of(rig).page.folder = tmp_path
    answer = await rig.get(path)
    assert answer.status == 404
    assert "the web page was not built" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "to"), [("/ui", "ui/"), ("/", "ui/"), ("/upstream", "ui/#/models"), ("/logs", "ui/#/logs")]
)
async def test_a_browser_is_sent_to_the_page(path: str, to: str, rig: Rig, tmp_path: Path) -> None:
    """As in llama-swap, but by relative addresses."""
    app_of(rig).page.folder = build(tmp_path / "page")
    answer = await call(rig.port, "GET", path, headers=HTML)
    assert (answer.status, answer.headers["location"]) == (302, to)


@pytest.mark.parametrize("port", ["proxy", "admin"])
async def test_both_ports_have_the_page(port: str, rig: Rig, tmp_path: Path) -> None:
    """It asks the port that it came from."""
    app_of(rig).page.folder = build(tmp_path / "page")
    answer = await call(getattr(rig.ports, port), "GET", "/ui/")
    assert (answer.status, answer.body) == (200, INDEX)
    assert "connect-src 'self';" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["//v1/models", "/v1/../v1/models", "/v1//models"])
async def test_paths_with_holes_are_refused(path: str, rig: Rig) -> None:
    """llama-swap redirects such; two readers of one path are how keys are got around."""
    assert (await rig.get(path)).status == 400


async def test_the_admin_port_has_the_same_routes(rig: Rig) -> None:
    """`/running` and the others, for those who let nobody but themselves onto that port."""
    assert (await call(rig.ports.admin, "GET", "/running")).json() == (await rig.get("/running")).json()
    assert (await call(rig.ports.admin, "POST", "/api/models/unload")).json() == {"msg": "ok"}


async def test_an_engines_answer_is_not_changed(rig: Rig) -> None:
    """What the engine says of itself stays in it."""
    answer = await rig.post(CHAT, {"model": "a", "messages": HELLO})
    assert answer.json()["served_by"] == "a"
    assert answer.headers["server"] == "swap-engine"
