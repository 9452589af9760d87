"""Where a request goes when its model can't: what counts as a failure, who answers, and what its client sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.http import Answer, call, events, free_port
from support.swap_api import Server
from support.swap_client import message
from support.swap_models import apart, fake, fakes
from support.swap_rig import Rig, swap_rig

Json = Any
HEADER = "x-bioproxy-fallback"
BROKEN = fake("--exit 3", fallback=["small"])


def failing(status: int, **keys: Json) -> Json:
    """A model that answers with an error, by its own parameters, and has a model that stands in for it."""
    return fake(filters={"setParams": {"status": status}}, **{"fallback": ["small"], **keys})


def served(answer: Answer) -> str:
    """Who answered."""
    assert answer.status == 200, answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        return str(events(answer)[0]["served_by"])
    return str(answer.json()["served_by"])


async def got(rig: Rig, model: str) -> Json:
    """The body of the newest request as the engine of `model` got it."""
    return json.loads((await rig.last(model))["body"])


async def left(rig: Rig, model: str) -> None:
    """Wait until an engine heard that its client is gone."""
    await rig.until(lambda: [one for one in rig.log.of("end", model) if one.how == "gone"])


async def row(rig: Rig) -> Json:
    """The newest row of the activity table."""
    return (await rig.get("/api/metrics/activity")).json()["data"][0]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_does_not_start(tmp_path: Path, *, stream: bool) -> None:
    """Another one answers, a header says why, and the row is the one's that answered."""
    async with swap_rig(tmp_path, {"big": BROKEN, "small": fake()}) as rig:
        answer = await rig.chat("big", stream=stream)
        assert served(answer) == "small"
        assert answer.headers[HEADER] == "big;reason=start"
        assert (await got(rig, "small"))["model"] == "small"
        again = await rig.chat("big")
        assert again.headers[HEADER] == "big;reason=start"  # its back-off costs no second start
        found = await row(rig)
    assert (found["model"], found["metadata"]["fallback"]) == ("small", "big;reason=start")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings"])
async def test_a_status_that_counts(path: str, tmp_path: Path) -> None:
    """On each kind of route; what the first model's parameters changed does not reach the second one."""
    async with swap_rig(tmp_path, {"big": failing(503), "small": fake()}, groups=apart("big small")) as rig:
        answer = await rig.chat("big", path=path, input="text")
        assert served(answer) == "small"
        assert answer.headers[HEADER] == "big;reason=503"
        assert "status" not in await got(rig, "small")


async def test_a_status_that_does_not_count(tmp_path: Path) -> None:
    """An error that any model would give stays the answer, unless the configuration says otherwise."""
    models = {"big": failing(400), "full": failing(429, fallbackStatus=[429]), "small": fake()}
    async with swap_rig(tmp_path, models, groups=apart("big full small")) as rig:
        refused = await rig.chat("big")
        assert (refused.status, refused.headers.get(HEADER)) == (400, None)
        assert (await rig.chat("full")).headers[HEADER] == "full;reason=429"


async def test_a_model_that_says_nothing(tmp_path: Path) -> None:
    """Its client waits no longer than `fallbackAfter`, and the model hears that it left."""
    slow = fake(filters={"setParams": {"hold": 0}}, fallback=["small"], fallbackAfter=1)
    async with swap_rig(tmp_path, {"big": slow, "small": fake()}, groups=apart("big small")) as rig:
        assert (await call(rig.port, "GET", "/upstream/big/env")).status == 200  # its start takes none of the second
        answer = await rig.chat("big")
        assert served(answer) == "small"
        assert answer.headers[HEADER] == "big;reason=late"
        await left(rig, "big")


async def test_a_stream_that_began_goes_on_with_another_model(tmp_path: Path) -> None:
    """Signs of life and words about the load are no answer: the events that follow are the other model's, once."""
    slow = fake(filters={"setParams": {"hold": 0}}, fallback=["small"], fallbackAfter=1, sendLoadingState=True)
    async with swap_rig(
        tmp_path, {"big": slow, "small": fake()}, groups=apart("big small"), stream_keepalive="100ms"
    ) as rig:
        answer = await rig.chat("big", stream=True)
    assert ": fallback big;reason=late\n\n" in answer.text
    by = [event["served_by"] for event in events(answer) if "served_by" in event]
    assert set(by) == {"small"}
    assert answer.text.count("data: [DONE]") == 1


async def test_an_answer_that_began_is_not_begun_again(tmp_path: Path) -> None:
    """A model that breaks off in the middle has failed, and its client hears that."""
    models = {"big": fake("--crash-on-request 1 --crash-mid-stream", fallback=["small"]), "small": fake()}
    async with swap_rig(tmp_path, models, groups=apart("big small")) as rig:
        answer = await rig.chat("big", stream=True)
        assert {event.get("served_by", "big") for event in events(answer)} == {"big"}
        assert "error" in answer.text
        assert rig.log.of("request", "small") == []


async def test_what_a_process_died_of_is_not_sent_to_another_one(tmp_path: Path) -> None:
    """A prompt that kills one engine might kill the next one, too."""
    models = {"big": fake("--crash-on-request 1", fallback=["small"]), "small": fake()}
    async with swap_rig(tmp_path, models, groups=apart("big small")) as rig:
        answer = await rig.chat("big")
        assert answer.status == 502
        assert rig.log.of("request", "small") == []


async def test_a_chain(tmp_path: Path) -> None:
    """Each model's own ones follow it; the last one's error is its own."""
    models = {
        "big": fake("--exit 3", fallback=["mid", "last"]), "mid": failing(500), "small": failing(503, fallback=[]),
        "last": failing(502, fallback=[]),
    }  # fmt: skip
    async with swap_rig(tmp_path, models, groups=apart("big mid small last")) as rig:
        answer = await rig.chat("big")
    assert answer.status == 502
    assert "asked for 502" in message(answer)
    assert answer.headers[HEADER] == "big;reason=start, mid;reason=500, small;reason=503"


async def test_a_peers_model(tmp_path: Path) -> None:
    """Another server may stand in, by its own name for the model, also in a pause; and be one that fails itself."""
    (tmp_path / "peer").mkdir()
    async with Server("far", tmp_path / "peer") as far:
        peers = {
            "far": {"proxy": far.url, "models": ["one"]},
            "gone": {"proxy": f"http://127.0.0.1:{free_port()}", "models": ["two"]},
        }
        models = {"big": fake("--exit 3", fallback=["gone/two", "far/one"])}
        async with swap_rig(tmp_path, models, peers=peers) as rig:
            answer = await rig.chat("big")
            await rig.post("/api/pause", {})
            paused = await rig.chat("big")
            assert served(await rig.chat("far/one")) == "far"
    assert (served(answer), answer.json()["model"]) == ("far", "one")
    assert answer.headers[HEADER] == "big;reason=start, two;reason=502"
    assert (served(paused), paused.headers[HEADER]) == ("far", "big;reason=503, two;reason=502")


async def test_keys_and_profiles_are_respected(tmp_path: Path) -> None:
    """A model that the key may not ask for stands in for nothing, nor does one that is switched off."""
    keys = [{"key": "one", "name": "one", "models": ["big"]}, {"key": "all", "name": "all"}]
    models = {"big": failing(500, fallback=["small", "other"]), **fakes("small other")}
    profiles = {"no": {"pins": {"small": ""}}}
    async with swap_rig(tmp_path, models, groups=apart("big small other"), api_keys=keys, profiles=profiles) as rig:
        refused = await rig.chat("big", headers={"Authorization": "Bearer one"})
        assert (refused.status, refused.headers.get(HEADER)) == (500, None)
        assert served(await rig.chat("big", headers={"Authorization": "Bearer all"})) == "small"


async def test_a_template_and_a_cancelled_client(tmp_path: Path) -> None:
    """The body of the second try is filled in anew; a client that leaves in between ends it all."""
    (tmp_path / "code.txt").write_text("RULES <{message}>")
    models = {"big": failing(500), "small": fake(filters={"setParams": {"hold": 0}})}
    prefixes = {"@code": str(tmp_path / "code.txt")}
    async with swap_rig(tmp_path, models, groups=apart("big small"), prefixes=prefixes) as rig:
        task = rig.ask("big", messages=[{"role": "user", "content": "@code why?"}])
        await rig.until_event("held", "small")
        assert (await got(rig, "small"))["messages"][0]["content"] == "RULES why?"
        task.cancel()
        await left(rig, "small")


async def test_the_default_model(tmp_path: Path) -> None:
    """A request that names no model gets it; one that names an unknown model is told so."""
    async with swap_rig(tmp_path, fakes("a b"), default_model="b") as rig:
        answer = await rig.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]})
        assert served(answer) == "b"
        assert (await rig.chat("c")).status == 404


async def test_back_to_the_default_model(tmp_path: Path) -> None:
    """Once nothing was asked for so long."""
    async with swap_rig(tmp_path, fakes("a b"), default_model="b", return_to_default="300ms") as rig:
        assert served(await rig.chat("a")) == "a"
        await rig.until_running(b="ready")
