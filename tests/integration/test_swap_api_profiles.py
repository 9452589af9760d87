"""Profiles: while one is active, names mean other models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.http import call
from support.swap_api import activate, profile, program
from support.swap_client import message, server
from support.swap_models import apart, fake, fakes
from support.swap_rig import Rig, swap_rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
PROFILES: Json = {
    "work": {
        "description": "for the day",
        "pins": {"a": "b", "gpt-5": "alias", "b": "a", "c": None, "org/x": "whoever", "a/deep": "c"},
    },
    "empty handed": {"pins": {"a": ""}},
}
MODELS = {"a": fake(), "b": fake(aliases=["alias"]), "c": fake(), "d": fake()}
SELECTORS: Json = {"whoever": {"strategy": "pin", "targets": ["d"]}}
rig = program(MODELS, profiles=PROFILES, selectors=SELECTORS, groups=apart("a b c d"))


async def test_none_is_active_at_first(rig: Rig) -> None:
    """They are listed by name; a disabled name is pinned to an empty text."""
    answer = (await rig.get("/api/profiles")).json()
    assert answer["active"] is None
    assert [one["id"] for one in answer["profiles"]] == ["empty handed", "work"]
    assert answer["profiles"][0] == {"id": "empty handed", "description": "", "pins": {"a": ""}}
    assert answer["profiles"][1]["pins"]["c"] == ""
    assert server(await rig.chat("a")) == "a"


async def test_pins_replace_names(rig: Rig) -> None:
    """The engine gets the target's name; a pin leads to a model, never to another pin."""
    async with profile(rig, "work") as answer:
        assert answer.json() == {"active": "work"}
        assert (await rig.get("/api/profiles")).json()["active"] == "work"
        assert server(await rig.chat("a")) == "b"
        assert json.loads((await rig.last("b"))["body"])["model"] == "b"
        assert server(await rig.chat("b")) == "a"
    assert server(await rig.chat("a")) == "a"


async def test_new_names_and_selectors(rig: Rig) -> None:
    """A pin may be a name that nobody has, and lead to an alias or a selector."""
    async with profile(rig, "work"):
        answer = await rig.chat("gpt-5")
        assert (server(answer), answer.json()["model"]) == ("b", "alias")
        assert server(await rig.chat("org/x")) == "d"
    assert (await rig.chat("gpt-5")).status == 404


@pytest.mark.parametrize(("name", "model"), [("work", "c"), ("empty handed", "a")])
async def test_a_disabled_name_is_a_404(name: str, model: str, rig: Rig) -> None:
    """As if there were no such model; in paths, too."""
    async with profile(rig, name):
        answer = await rig.chat(model)
        assert (answer.status, message(answer)) == (404, "no router for requested model")
        answer = await rig.get(f"/upstream/{model}/x")
        assert (answer.status, message(answer)) == (404, "model not found")


async def test_paths_are_pinned_by_the_longest_name(rig: Rig) -> None:
    """The body is left alone there."""
    async with profile(rig, "work"):
        answer = await rig.post("/upstream/a/x", {"model": "a"})
        assert (answer.json()["served_by"], json.loads(answer.json()["body"])) == ("b", {"model": "a"})
        answer = await rig.get("/upstream/a/deep/x")
        assert (answer.json()["served_by"], answer.json()["target"]) == ("c", "/x")


async def test_new_names_are_listed(rig: Rig) -> None:
    """Those that hide nothing, and are not disabled."""
    async with profile(rig, "work"):
        listed = {one["id"]: one for one in (await rig.get("/v1/models")).json()["data"]}
    assert listed["gpt-5"]["meta"]["llamaswap"] == {"type": "profile"}
    assert {"org/x", "a/deep"} <= set(listed)
    assert listed["a"]["meta"]["llamaswap"]["type"] == "model"
    assert "gpt-5" not in {one["id"] for one in (await rig.get("/v1/models")).json()["data"]}


@pytest.mark.parametrize("name", [None, ""])
async def test_none_can_be_chosen(name: Json, rig: Rig) -> None:
    """By null or an empty name."""
    await activate(rig, "work")
    answer = await activate(rig, name)
    assert (answer.status, answer.json()) == (200, {"active": None})
    assert server(await rig.chat("a")) == "a"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"nonsense", 400, "invalid profile request"),
        (b"[]", 400, "invalid profile request"),
        (b"{}", 400, "profile name is required"),
        (b'{"name": 7}', 400, "profile name must be a string or null"),
        (b'{"name": "none such"}', 404, "none such"),
    ],
)
async def test_what_is_no_profile_is_refused(body: bytes, status: int, said: str, rig: Rig) -> None:
    """In llama-swap's words; what was active stays."""
    async with profile(rig, "work"):
        answer = await call(rig.port, "PUT", "/api/profiles/active", body=body)
        assert answer.status == status
        assert said in message(answer)
        assert (await rig.get("/api/profiles")).json()["active"] == "work"


async def test_a_reload_ends_it(tmp_path: Path) -> None:
    """No profile is active after one."""
    async with swap_rig(tmp_path, fakes("a b"), profiles={"p": {"pins": {"a": "b"}}}, groups=apart("a b")) as rig:
        await activate(rig, "p")
        assert server(await rig.chat("a")) == "b"
        await rig.reload(fakes("a b"), profiles={"p": {"pins": {"a": "b"}}}, groups=apart("a b"), globalTTL=60)
        assert (await rig.get("/api/profiles")).json()["active"] is None
        assert server(await rig.chat("a")) == "a"
