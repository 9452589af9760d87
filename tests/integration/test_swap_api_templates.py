"""Templates where models are many: for all of them, for one, and as models of their own (`qwen+code`)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from support.http import call
from support.swap_api import CHAT
from support.swap_client import message
from support.swap_models import apart, fake
from support.swap_rig import Rig, swap_rig

Json = Any
pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXTS = {"code": "Here is the code.", "own": "Only for b.", "other": "Rules of b.", "late": "Of yesterday."}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """Three models; `@code` is for all, `b` has another one of that name and one more."""
    folder = tmp_path_factory.mktemp("swap")
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_text(text + "\n<{message}>")
    models = {
        "a": fake(aliases=["al"]),
        "b": fake(prefixes={"@code": "other.txt", "@own": {"template": "own.txt", "as_model": True}}),
        "named": fake(useModelName="real", filters={"setParamsByID": {"named": {"by": "id"}}}),
        "a+b": fake(),
    }
    prefixes = {"@code": {"template": "code.txt", "as_model": True}, "@plain": "own.txt", "@late": "late.txt"}
    async with swap_rig(
        folder, models, prefixes=prefixes, warmup={"enabled": False, "settle": 0}, includeAliasesInList=True,
        warmup_check_interval=3600,
        groups=apart("a b named a+b"),
    ) as running:  # fmt: skip
        yield running


async def said(rig: Rig, name: str, engine: str, words: str = "hello") -> str:
    """What became of a user's words on their way to the engine."""
    answer = await rig.post(CHAT, {"model": name, "messages": [{"role": "user", "content": words}]})
    assert answer.status == 200, answer.text
    return str(json.loads((await rig.last(engine))["body"])["messages"][0]["content"])


async def test_a_prefix_in_the_message(rig: Rig) -> None:
    """Every model has the common ones."""
    assert await said(rig, "a", "a", "@code hello") == "Here is the code.\nhello"
    assert await said(rig, "named", "named", "@plain hello") == "Only for b.\nhello"


async def test_a_text_that_changed_while_the_model_was_unloaded(rig: Rig) -> None:
    """The request that loads the model again gets the new one, and so does the next turn of its conversation."""
    assert await said(rig, "a", "a", "@late hello") == "Of yesterday.\nhello"
    await rig.post("/api/models/unload/a")
    (rig.folder / "late.txt").write_text("Of today.\n<{message}>")
    assert await said(rig, "a", "a", "@late hello") == "Of today.\nhello"


async def test_a_models_own(rig: Rig) -> None:
    """They win over the common ones, and others do not have them."""
    assert await said(rig, "b", "b", "@code hello") == "Rules of b.\nhello"
    assert await said(rig, "b", "b", "@own hello") == "Only for b.\nhello"
    assert await said(rig, "a", "a", "@own hello") == "@own hello"


async def test_a_models_own_are_on_the_page_of_metrics(rig: Rig) -> None:
    """So that an alert fires if one of them cannot be read."""
    shown = (await rig.get("/metrics")).text.splitlines()
    assert {f'bioproxy_template_ok{{prefix="{prefix}"}} 1.0' for prefix in ("@code", "@own")} <= set(shown)


@pytest.mark.parametrize("name", ["a+code", "al+code"])
async def test_a_template_as_a_model(name: str, rig: Rig) -> None:
    """For clients in which nobody can type a prefix; the engine gets the model's plain name."""
    assert await said(rig, name, "a") == "Here is the code.\nhello"
    assert json.loads((await rig.last("a"))["body"])["model"] == name.removesuffix("+code")


async def test_a_models_own_template_as_a_model(rig: Rig) -> None:
    """Where the model's own entry says so: its plain `@code` takes the common one's name away."""
    assert await said(rig, "b+own", "b") == "Only for b.\nhello"
    assert (await rig.chat("b+code")).status == 404


async def test_only_the_first_user_message(rig: Rig) -> None:
    """A system message before it, and answers behind it, stay."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    await rig.post(CHAT, {"model": "a+code", "messages": messages})
    got = json.loads((await rig.last("a"))["body"])["messages"]
    assert [one["content"] for one in got] == ["Be brief.", "Here is the code.\none", "two", "three"]


async def test_a_prefix_is_not_put_twice(rig: Rig) -> None:
    """Who types it anyway gets it once."""
    assert await said(rig, "a+code", "a", "@code hello") == "Here is the code.\nhello"


async def test_in_every_dialect(rig: Rig) -> None:
    """Completions, Responses, Messages."""
    await rig.post("/v1/completions", {"model": "a+code", "prompt": "hello"})
    assert json.loads((await rig.last("a"))["body"])["prompt"] == "Here is the code.\nhello"
    await rig.post("/v1/responses", {"model": "a+code", "input": "hello"})
    assert "Here is the code.\\nhello" in (await rig.last("a"))["body"]
    body = {"model": "a+code", "max_tokens": 1, "messages": [{"role": "user", "content": "hello"}]}
    await rig.post("/v1/messages", body)
    assert json.loads((await rig.last("a"))["body"])["messages"][0]["content"] == "Here is the code.\nhello"


async def test_filters_count_as_for_the_model(rig: Rig) -> None:
    """By its plain name, and so does `useModelName`."""
    assert await said(rig, "named+code", "named") == "Here is the code.\nhello"
    got = json.loads((await rig.last("named"))["body"])
    assert (got["model"], got["by"]) == ("real", "id")


async def test_a_real_name_beats_such_a_one(rig: Rig) -> None:
    """`a+b` is a model."""
    assert await said(rig, "a+b", "a+b") == "hello"


@pytest.mark.parametrize("name", ["a+own", "a+plain", "zzz+code", "+code", "a+"])
async def test_what_is_no_such_name(name: str, rig: Rig) -> None:
    """A model without this template, a prefix that is no model, a model that is none."""
    answer = await rig.chat(name)
    assert (answer.status, message(answer)) == (404, "no router for requested model")


async def test_they_are_listed(rig: Rig) -> None:
    """With the model behind them, and loaded with it."""
    await rig.chat("a")
    listed = {one["id"]: one for one in (await rig.get("/v1/models")).json()["data"]}
    assert {"a+code", "b+own", "named+code"} <= set(listed)
    assert not {"a+own", "b+code", "a+plain"} & set(listed)
    one = listed["a+code"]
    assert one["meta"]["llamaswap"] == {"type": "template", "modelID": "a", "prefix": "@code"}
    assert (one["name"], one["status"]["value"]) == ("a @code", "loaded")


async def test_upstream_fills_nothing_in(rig: Rig) -> None:
    """Past all routing means that, too."""
    body = {"model": "a", "messages": [{"role": "user", "content": "@code hello"}]}
    await call(rig.port, "POST", f"/upstream/a{CHAT}", data=body)
    assert json.loads((await rig.last("a"))["body"]) == body
