"""Names that nobody has: whatever a client sends as `model`, the answer is a sentence and nothing grows by it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from support.http import call
from support.swap_api import HELLO, program
from support.swap_client import CHAT, message, server
from support.swap_models import fake
from support.swap_rig import Rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
HUGE = "m" * (1 << 20)
MODELS = {"a": fake(aliases=["org/a", "a+b", "größe ☃"]), "org/deep/name": fake()}
rig = program(MODELS, queue_limit=50)


async def chat(rig: Rig, model: Json) -> Json:
    """A request with this value of `model`."""
    body = json.dumps({"model": model, "messages": HELLO}).encode()
    return await call(rig.port, "POST", CHAT, body=body, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("model", [None, True, False, {}, {"a": 1}, [], ["a"], ""])
async def test_values_that_are_no_names(model: Json, rig: Rig) -> None:
    """404, for no model is named."""
    answer = await chat(rig, model)
    assert answer.status == 404, answer.text
    assert message(answer)


@pytest.mark.parametrize(
    "model",
    [7, 1e300, -0.5, "x", " a", "a ", "A", "a\n", "a\u0000", "\ud800", "a/", "/a", "a//b", "a+code", "a+", "+a", "+",
     "a+b+c", "org", "org/", "org/deep", "../a", "a?x", "a%2Fb", "proxy", "upstream", "größe", "☃" * 1000],
)  # fmt: skip
async def test_names_that_nobody_has(model: Json, rig: Rig) -> None:
    """404 in llama-swap's words, whatever stands in them."""
    answer = await chat(rig, model)
    assert answer.status == 404, answer.text
    assert message(answer) == "no router for requested model"
    assert len(answer.body) < 1000


@pytest.mark.parametrize("model", ["a", "org/a", "a+b", "größe ☃"])
async def test_odd_names_that_somebody_has(model: str, rig: Rig) -> None:
    """Slashes, plus signs, any script: by their exact spelling."""
    assert server(await chat(rig, model)) == "a"


@pytest.mark.parametrize("place", ["body", "query", "form", "path", "load", "log"])
async def test_a_name_of_a_megabyte(place: str, rig: Rig) -> None:
    """It is refused, and is not kept: neither in the activity table nor anywhere else that is shown."""
    short = HUGE[:12_000]  # what a head may hold
    if place == "body":
        answer = await chat(rig, HUGE)
    elif place == "query":
        answer = await call(rig.port, "GET", f"/v1/audio/voices?model={short}")
    elif place == "form":
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await call(rig.port, "POST", "/v1/audio/transcriptions", body=f"model={HUGE}".encode(), headers=kind)
    elif place == "path":
        answer = await call(rig.port, "GET", f"/upstream/{short}/x")
    elif place == "load":
        answer = await call(rig.port, "POST", "/models/load", data={"model": HUGE})
    else:
        answer = await call(rig.port, "GET", f"/logs/stream/{short}")
    assert answer.status in (400, 404), answer.text[:500]
    assert len(answer.body) < 2000
    for port, target in (
        (rig.port, "/api/metrics/activity"),
        (rig.port, "/metrics"),
        (rig.port, "/api/models"),
        (rig.ports.admin, "/requests"),
        (rig.ports.admin, "/status"),
    ):
        shown = await call(port, "GET", target)
        assert "m" * 2000 not in shown.text, target
    assert not any("m" * 2000 in line for line in rig.program.lines)


async def test_a_thousand_names_are_no_series(rig: Rig) -> None:
    """A client's invention never becomes a label; nor does a path, a method, or a key."""

    async def series() -> list[str]:
        page = (await rig.get("/metrics")).text
        return [line for line in page.splitlines() if line.startswith(("bioproxy_", "llamaswap_"))]

    await rig.chat("a")
    await rig.chat("nobody")
    await call(rig.port, "GET", "/nowhere/at/all")
    before = len(await series())
    for number in range(0, 200, 50):
        await asyncio.gather(*(rig.chat(f"invented-{each}") for each in range(number, number + 50)))
        await call(rig.port, "POST", f"/nowhere/{number}", data={"model": f"invented-{number}"})
        await call(rig.port, "GET", f"/upstream/invented-{number}/x")
    after = await series()
    assert not [line for line in after if "invented" in line or "nowhere" in line]
    assert len(after) - before < 20


async def test_the_log_of_a_model_that_is_not_there(rig: Rig) -> None:
    """Asking for it does not make it."""
    answers = [await call(rig.port, "GET", f"/logs/stream/{name}") for name in ("nobody", "..", "a/x", "%00", "+")]
    assert {answer.status for answer in answers} <= {400, 404}


@pytest.mark.parametrize(
    "path",
    ["/upstream/a/../../unload", "/upstream/a/%2e%2e/x", "/upstream/a//x", "/upstream/a/x/../../..", "/upstream/a/./x"],
)
async def test_paths_that_climb_are_refused(path: str, rig: Rig) -> None:
    """What is judged must be what the engine reads."""
    answer = await rig.get(path)
    assert answer.status == 400, answer.text


@pytest.mark.parametrize("path", ["/upstream/a/slots%2f0?action=erase", "/upstream/a%2Fslots/0?action=erase"])
async def test_a_slash_behind_an_escape_is_refused(path: str, rig: Rig) -> None:
    """The same: a slot action could hide there."""
    answer = await call(rig.port, "POST", path)
    assert answer.status in (400, 404), answer.text


async def test_a_folder_is_left_alone(rig: Rig, tmp_path: Path) -> None:
    """No name of a client's becomes a file."""
    before = sorted(path.name for path in rig.folder.rglob("*"))
    for name in ("../../x", str(tmp_path / "x"), "a/../../x"):
        await rig.chat(name)
        await rig.post("/models/load", {"model": name})
    assert sorted(path.name for path in rig.folder.rglob("*")) == before
    assert not list(tmp_path.iterdir())
