"""The fake engine does what the real one does: the same questions to both (facts of llama-server, sections 1, 2 and 7).

What is asked here is what bioproxy relies on. A line that only one of the two fulfils means that tests on the fake
prove nothing, so nothing here may tell the two apart.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fakes.engine_process import EngineProcess
from fakes.fake_engine import FakeEngine
from fakes.real_engine import RealEngine

Json = Any
WORDS = "the quick brown fox jumps over the lazy dog and runs away from it "
TIMINGS = {
    "cache_n": int,
    "prompt_n": int,
    "prompt_ms": (int, float),
    "prompt_per_token_ms": (int, float),
    "prompt_per_second": (int, float),
    "predicted_n": int,
    "predicted_ms": (int, float),
    "predicted_per_token_ms": (int, float),
    "predicted_per_second": (int, float),
}


def make(kind: str, folder: Path | None, **flags: Json) -> EngineProcess:
    """An engine of a kind, on the flags that both understand."""
    options = {"ctx_size": 4096, "metrics": True, **flags}
    if kind == "fake":
        return FakeEngine(slot_folder=folder, disconnect_poll=1.0, **options)
    return RealEngine(slot_folder=folder, **options)


kinds = pytest.mark.parametrize("kind", ["fake", pytest.param("real", marks=pytest.mark.real_engine)])


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.real_engine)])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EngineProcess]:
    """One of the two, with slot files under `tmp_path/slots`."""
    async with make(request.param, tmp_path / "slots") as process:
        yield process


def error_of(answer: Any) -> tuple[int, str, str]:
    """Status, message and type of an error; its code repeats the status."""
    error = answer.json()["error"]
    assert error["code"] == answer.status
    return answer.status, error["message"], error["type"]


def has_timings(value: Json) -> None:
    """`timings` has every field, with its type."""
    for name, kind in TIMINGS.items():
        assert isinstance(value["timings"][name], kind), name


async def complete(engine: EngineProcess, prompt: Json, **more: Json) -> Json:
    """One /completion of one token."""
    answer = await engine.post("/completion", {"prompt": prompt, "n_predict": 1, **more})
    assert answer.status == 200, answer.body
    return answer.json()


# introspection


async def test_health_props_and_models(engine: EngineProcess) -> None:
    """What discovery reads is there, with its type."""
    assert (await engine.get("/health")).json() == {"status": "ok"}
    props = (await engine.get("/props")).json()
    assert props["total_slots"] == 1
    assert props["default_generation_settings"]["n_ctx"] == 4096
    texts = ("model_alias", "model_path", "chat_template", "build_info", "media_marker", "bos_token", "eos_token")
    assert all(isinstance(props[name], str) for name in texts)
    assert (props["is_sleeping"], props["endpoint_slots"], props["endpoint_metrics"]) == (False, True, True)
    assert set(props["modalities"].values()) == {False}
    models = (await engine.get("/v1/models")).json()
    assert models["object"] == "list"
    assert models["data"][0]["meta"]["n_ctx"] == 4096
    assert isinstance(models["data"][0]["id"], str)


async def test_media_marker_is_the_process(engine: EngineProcess) -> None:
    """The marker stays while the process lives, and is another one after a restart."""
    first = (await engine.get("/props")).json()["media_marker"]
    assert (await engine.get("/props")).json()["media_marker"] == first
    await engine.restart()
    assert (await engine.get("/props")).json()["media_marker"] != first


async def test_slots_view(engine: EngineProcess) -> None:
    """/slots tells no tokens before a task ran, then those in the slot, also after erase and restore."""
    (before,) = (await engine.get("/slots")).json()
    assert (before["id"], before["n_ctx"], before["is_processing"]) == (0, 4096, False)
    assert "n_prompt_tokens" not in before
    tokens = (await complete(engine, WORDS * 3))["tokens_evaluated"]
    assert (await engine.slot("save", "a")).status == 200
    (after,) = (await engine.get("/slots")).json()
    assert after["n_prompt_tokens"] == tokens
    assert {"id_task", "n_prompt_tokens_processed", "n_prompt_tokens_cache", "params", "next_token"} <= set(after)
    assert isinstance(after["next_token"][0]["n_decoded"], int)
    await engine.slot("erase")
    assert (await engine.get("/slots")).json()[0]["n_prompt_tokens"] == 0
    await engine.slot("restore", "a")
    assert (await engine.get("/slots")).json()[0]["n_prompt_tokens"] == tokens
    await engine.restart()
    assert (await engine.slot("restore", "a")).status == 200
    assert "n_prompt_tokens" not in (await engine.get("/slots")).json()[0]


async def test_metrics(engine: EngineProcess) -> None:
    """/metrics has the counters that clients scrape."""
    answer = await engine.get("/metrics")
    assert answer.status == 200
    for name in ("prompt_tokens_total", "tokens_predicted_total", "requests_processing", "requests_deferred"):
        assert f"llamacpp:{name} ".encode() in answer.body


@kinds
async def test_switched_off_routes(kind: str) -> None:
    """Without their flags slot actions and /metrics are 501, /slots too; /props says so of /slots."""
    async with make(kind, None, metrics=False, no_slots=True) as engine:
        actions = [await engine.slot(name, "a") for name in ("save", "restore", "erase", "none")]
        assert [error_of(answer)[0::2] for answer in actions] == [(501, "not_supported_error")] * 4
        assert error_of(await engine.get("/metrics"))[0] == 501
        assert error_of(await engine.get("/slots"))[0] == 501
        assert (await engine.get("/props")).json()["endpoint_slots"] is False


# tokens and prompts


async def test_tokenize_and_template(engine: EngineProcess) -> None:
    """A rendered chat, tokenized, is as long as the prompt that chat counts; ids are kept by /completion."""
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello there"}]
    prompt = (await engine.post("/apply-template", {"messages": messages})).json()["prompt"]
    body = {"content": prompt, "add_special": True, "parse_special": True}
    tokens = (await engine.post("/tokenize", body)).json()["tokens"]
    chat = (await engine.post("/v1/chat/completions", {"messages": messages, "max_tokens": 1})).json()
    assert chat["usage"]["prompt_tokens"] == len(tokens)
    done = await complete(engine, tokens)
    assert done["timings"]["cache_n"] == len(tokens) - 1
    counted = (await engine.post("/v1/chat/completions/input_tokens", {"messages": messages})).json()
    assert counted["input_tokens"] == len(tokens)


async def test_no_generation_prompt(engine: EngineProcess) -> None:
    """add_generation_prompt false renders a beginning of the same text."""
    body = {"messages": [{"role": "user", "content": "hello"}]}
    whole = (await engine.post("/apply-template", body)).json()["prompt"]
    part = (await engine.post("/apply-template", {**body, "add_generation_prompt": False})).json()["prompt"]
    assert whole.startswith(part)
    assert len(part) < len(whole)


async def test_empty_text(engine: EngineProcess) -> None:
    """Nothing to tokenize is no error, and no token."""
    assert (await engine.post("/tokenize", {"content": ""})).json() == {"tokens": []}


@pytest.mark.parametrize(
    "path", ["/tokenize", "/apply-template", "/completion", "/v1/chat/completions", "/v1/messages"]
)
async def test_bad_json(engine: EngineProcess, path: str) -> None:
    """A body that is no JSON is 400."""
    status, _, kind = error_of(await engine.post(path, b"{no"))
    assert (status, kind) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/completion", {}),
        ("/completion", {"prompt": []}),
        ("/completion", {"prompt": "x", "n_predict": -2}),
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": -2}),
        ("/apply-template", {}),
    ],
)
async def test_bad_body(engine: EngineProcess, path: str, body: Json) -> None:
    """What is missing or out of range is 400."""
    assert error_of(await engine.post(path, body))[0::2] == (400, "invalid_request_error")


async def test_prompt_too_long(engine: EngineProcess) -> None:
    """A prompt longer than the context is refused with both numbers."""
    answer = await engine.post("/completion", {"prompt": WORDS * 1000, "n_predict": 1})
    assert error_of(answer)[0::2] == (400, "exceed_context_size_error")
    error = answer.json()["error"]
    assert error["n_ctx"] == 4096
    assert error["n_prompt_tokens"] > 4096


# inference: where timings and usage stand

CHAT = {"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 3}
ROUTES: dict[str, Json] = {
    "/completion": {"prompt": WORDS, "n_predict": 3},
    "/v1/completions": {"prompt": WORDS, "max_tokens": 3},
    "/v1/chat/completions": CHAT,
}


@pytest.mark.parametrize("path", list(ROUTES))
async def test_timings_of_whole_answers(engine: EngineProcess, path: str) -> None:
    """Completions and chat end with timings, streamed or not."""
    has_timings((await engine.post(path, ROUTES[path])).json())
    events = (await engine.post(path, {**ROUTES[path], "stream": True})).events()
    has_timings(events[-1])
    assert not any("timings" in event for event in events[:-1])


async def test_usage_chunk(engine: EngineProcess) -> None:
    """With include_usage the last chunk of a chat stream has usage and timings, and no choices."""
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    *_, finish, last = (await engine.post("/v1/chat/completions", body)).events()
    assert finish["choices"][0]["finish_reason"] == "length"
    assert "timings" not in finish
    assert last["choices"] == []
    assert isinstance(last["usage"]["prompt_tokens_details"]["cached_tokens"], int)
    has_timings(last)


async def test_responses(engine: EngineProcess) -> None:
    """/v1/responses: whole, usage alone; streamed, timings beside the response in the last event."""
    body = {"input": "hello there", "max_output_tokens": 3}
    whole = (await engine.post("/v1/responses", body)).json()
    assert "timings" not in whole
    assert isinstance(whole["usage"]["input_tokens_details"]["cached_tokens"], int)
    events = (await engine.post("/v1/responses", {**body, "stream": True})).events()
    assert events[-1]["type"] == "response.completed"
    has_timings(events[-1])


async def test_messages(engine: EngineProcess) -> None:
    """/v1/messages never has timings; usage counts what was not cached, at a stream's beginning."""
    whole = (await engine.post("/v1/messages", CHAT)).json()
    usage = whole["usage"]
    assert "timings" not in whole
    again = (await engine.post("/v1/messages", CHAT)).json()["usage"]
    assert again["input_tokens"] == 1
    assert again["cache_read_input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"] - 1
    events = (await engine.post("/v1/messages", {**CHAT, "stream": True})).events()
    assert not any("timings" in event for event in events)
    assert events[0]["message"]["usage"]["cache_read_input_tokens"] == again["cache_read_input_tokens"]
    (delta,) = [event for event in events if event["type"] == "message_delta"]
    assert delta["usage"] == {"output_tokens": 3}
    count = (await engine.post("/v1/messages/count_tokens", CHAT)).json()["input_tokens"]
    assert count == again["input_tokens"] + again["cache_read_input_tokens"]


async def test_event_names(engine: EngineProcess) -> None:
    """Only the two dialects that name their events do."""
    for path, body in [
        *ROUTES.items(),
        ("/v1/responses", {"input": "a", "max_output_tokens": 1}),
        ("/v1/messages", CHAT),
    ]:
        answer = await engine.post(path, {**body, "stream": True})
        assert answer.headers["content-type"] == "text/event-stream"
        assert (b"event: " in answer.body) == (path in ("/v1/responses", "/v1/messages"))
        done = path.startswith("/v1/c")
        assert answer.body.endswith(b"data: [DONE]\n\n") == done


async def test_progress(engine: EngineProcess) -> None:
    """return_progress tells the prompt's way batch by batch, from what was cached to its end."""
    body = {"prompt": WORDS * 60, "n_predict": 1, "stream": True, "return_progress": True}
    events = (await engine.post("/completion", body)).events()
    steps = [event["prompt_progress"] for event in events if "prompt_progress" in event]
    assert steps[0]["processed"] == steps[0]["cache"] == 0
    assert steps[1]["processed"] == 512
    assert steps[-1]["processed"] == steps[-1]["total"]


# the cache


async def test_zero_tokens(engine: EngineProcess) -> None:
    """n_predict 0 evaluates the prompt and samples one token that does not enter the slot; again costs one token."""
    done = await complete(engine, WORDS * 3, n_predict=0)
    assert done["timings"]["predicted_n"] == 1
    total = done["tokens_evaluated"]
    assert (await engine.get("/slots")).json()[0]["n_prompt_tokens"] == total
    again = await complete(engine, WORDS * 3, n_predict=0)
    assert (again["timings"]["cache_n"], again["timings"]["prompt_n"]) == (total - 1, 1)


async def test_longest_common_prefix(engine: EngineProcess) -> None:
    """What two prompts share is not evaluated again; nothing else is kept."""
    ids = list(range(100, 400))
    await complete(engine, ids)
    done = await complete(engine, [*ids[:200], *range(500, 550)])
    assert (done["timings"]["cache_n"], done["timings"]["prompt_n"]) == (200, 50)


async def test_cache_prompt_off(engine: EngineProcess) -> None:
    """cache_prompt false evaluates everything."""
    await complete(engine, WORDS)
    assert (await complete(engine, WORDS, cache_prompt=False))["timings"]["cache_n"] == 0


async def test_chunks_add_up(engine: EngineProcess) -> None:
    """A prompt in growing chunks is evaluated once."""
    ids = list(range(100, 1500))
    parts = [(await complete(engine, ids[:end], n_predict=0))["timings"]["prompt_n"] for end in (512, 1024, 1400)]
    assert parts == [512, 512, 376]


async def test_ram_cache_brings_back_what_was_displaced(engine: EngineProcess) -> None:
    """One token moves what is resident into the RAM cache, from where it returns (kv-rule 16)."""
    ids = list(range(100, 1100))
    await complete(engine, ids, n_predict=0)
    await complete(engine, [1], n_predict=0)
    assert (await complete(engine, ids, n_predict=0))["timings"]["cache_n"] == 999


@kinds
async def test_without_ram_cache_it_is_gone(kind: str) -> None:
    """With --cache-ram 0 what is displaced is lost."""
    async with make(kind, None, cache_ram=0) as engine:
        ids = list(range(100, 600))
        await complete(engine, ids, n_predict=0)
        await complete(engine, [1], n_predict=0)
        assert (await complete(engine, ids, n_predict=0))["timings"]["cache_n"] == 0


# slot files


async def test_save_and_restore(engine: EngineProcess, tmp_path: Path) -> None:
    """A file is as long as n_written says, and brings the prompt back after a restart."""
    ids = list(range(100, 600))
    await complete(engine, ids, n_predict=0)
    saved = (await engine.slot("save", "a b@1.bin")).json()
    assert (saved["id_slot"], saved["filename"], saved["n_saved"]) == (0, "a b@1.bin", 500)
    assert (tmp_path / "slots" / "a b@1.bin").stat().st_size == saved["n_written"]
    await engine.restart()
    restored = (await engine.slot("restore", "a b@1.bin")).json()
    assert (restored["n_restored"], restored["n_read"]) == (500, saved["n_written"])
    done = await complete(engine, [*ids, 700, 701])
    assert (done["timings"]["cache_n"], done["timings"]["prompt_n"]) == (500, 2)


async def test_erase(engine: EngineProcess) -> None:
    """Erase tells how much it took away; it needs no body."""
    await complete(engine, list(range(100, 200)), n_predict=0)
    assert (await engine.post("/slots/0?action=erase")).json() == {"id_slot": 0, "n_erased": 100}
    assert (await complete(engine, list(range(100, 200)), n_predict=0))["timings"]["cache_n"] == 0


UNABLE = "Unable to restore slot: No available space in KV cache or invalid slot save file"


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"x" * 5000])
async def test_bad_file_empties_the_slot(engine: EngineProcess, tmp_path: Path, content: bytes | None) -> None:
    """A missing, empty or foreign file is 400, always the same sentence, and the slot's content is gone."""
    ids = list(range(100, 200))
    await complete(engine, ids, n_predict=0)
    if content is not None:
        (tmp_path / "slots" / "bad").write_bytes(content)
    assert error_of(await engine.slot("restore", "bad")) == (400, UNABLE, "invalid_request_error")
    assert (await complete(engine, ids, n_predict=0))["timings"]["cache_n"] == 0


async def test_wrong_magic(engine: EngineProcess, tmp_path: Path) -> None:
    """A file whose first bytes are wrong is 400."""
    await complete(engine, WORDS)
    await engine.slot("save", "a")
    path = tmp_path / "slots" / "a"
    path.write_bytes(b"\0\0\0\0" + path.read_bytes()[4:])
    assert error_of(await engine.slot("restore", "a"))[:2] == (400, UNABLE)


async def test_cut_in_the_tokens(engine: EngineProcess, tmp_path: Path) -> None:
    """A file that ends within its tokens is 400."""
    await complete(engine, list(range(100, 600)), n_predict=0)
    await engine.slot("save", "a")
    os.truncate(tmp_path / "slots" / "a", 400)
    assert error_of(await engine.slot("restore", "a"))[:2] == (400, UNABLE)


async def test_cut_in_the_cells_kills(engine: EngineProcess, tmp_path: Path) -> None:
    """A file that lacks one byte at its end makes the process abort: why sizes are checked before each restore."""
    await complete(engine, list(range(100, 600)), n_predict=0)
    written = (await engine.slot("save", "a")).json()["n_written"]
    os.truncate(tmp_path / "slots" / "a", written - 1)
    with pytest.raises(ConnectionError):
        await engine.slot("restore", "a")
    assert await engine.wait() == -signal.SIGABRT


async def test_longer_file(engine: EngineProcess, tmp_path: Path) -> None:
    """Bytes behind the end of a file do no harm, and are not counted as read."""
    await complete(engine, list(range(100, 600)), n_predict=0)
    written = (await engine.slot("save", "a")).json()["n_written"]
    with (tmp_path / "slots" / "a").open("ab") as file:
        file.write(b"more")
    assert (await engine.slot("restore", "a")).json()["n_restored"] == 500
    assert written < (tmp_path / "slots" / "a").stat().st_size


async def test_directory_instead_of_a_file(engine: EngineProcess, tmp_path: Path) -> None:
    """A folder of that name cannot be restored, nor saved over."""
    (tmp_path / "slots" / "d").mkdir()
    await complete(engine, WORDS)
    assert error_of(await engine.slot("save", "d")) == (500, "Unable to save slot", "server_error")
    assert error_of(await engine.slot("restore", "d"))[:2] == (400, UNABLE)


async def test_folder_gone(engine: EngineProcess, tmp_path: Path) -> None:
    """Without its folder a save is 500."""
    await complete(engine, WORDS)
    (tmp_path / "slots").rmdir()
    assert error_of(await engine.slot("save", "a")) == (500, "Unable to save slot", "server_error")


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "a:b", "a*", ".", " a", "a ", "a.", "a\x01", "x" * 256, "a\u2215b"]
)
async def test_refused_names(engine: EngineProcess, name: str) -> None:
    """File names that the engine refuses."""
    assert error_of(await engine.slot("save", name))[0] == 400


@pytest.mark.parametrize("name", [".hidden", "a b", "bp-0123abcd.bin", "@code#1%+=,;!~", "ümläut", "x" * 255])
async def test_accepted_names(engine: EngineProcess, name: str) -> None:
    """File names that the engine takes."""
    await complete(engine, "a word")
    assert (await engine.slot("save", name)).status == 200


@pytest.mark.parametrize("body", [b"", b"{}", b'{"filename":5}', b"nojson"])
async def test_bad_slot_bodies(engine: EngineProcess, body: bytes) -> None:
    """A slot action without a usable file name is 400."""
    assert error_of(await engine.post("/slots/0?action=save", body))[0::2] == (400, "invalid_request_error")


async def test_bad_slot_targets(engine: EngineProcess) -> None:
    """Bad actions and slot numbers are 400; a number out of range wraps around, and is repeated as it was."""
    body = {"filename": "a"}
    assert error_of(await engine.post("/slots/0?action=none", body))[1] == "Invalid action"
    assert error_of(await engine.post("/slots/0", body))[1] == "Invalid action"
    assert error_of(await engine.post("/slots/x?action=save", body))[1] == "Invalid slot ID"
    await complete(engine, list(range(100, 200)), n_predict=0)
    wrapped = (await engine.slot("save", "a", slot=7)).json()
    assert (wrapped["id_slot"], wrapped["n_saved"]) == (7, 100)
    assert (await engine.slot("erase", slot=-1)).json() == {"id_slot": -1, "n_erased": 100}


@kinds
async def test_context_too_small(kind: str, tmp_path: Path) -> None:
    """A file that does not fit into a smaller context is 400; one that fits is taken."""
    async with make(kind, tmp_path) as engine:
        await complete(engine, list(range(100, 1100)), n_predict=0)
        await engine.slot("save", "long")
        await complete(engine, list(range(2000, 2100)), n_predict=0)
        await engine.slot("save", "short")
    async with make(kind, tmp_path, ctx_size=512) as engine:
        assert error_of(await engine.slot("restore", "long"))[:2] == (400, UNABLE)
        assert (await engine.slot("restore", "short")).json()["n_restored"] == 100


@kinds
async def test_other_weights_are_taken(kind: str, tmp_path: Path) -> None:
    """A file of another model of the same shape is restored without a word: why snapshots have a fingerprint."""
    ids = list(range(100, 200))
    async with make(kind, tmp_path) as engine:
        await complete(engine, ids, n_predict=0)
        await engine.slot("save", "a")
    other = {"weights": "other"} if kind == "fake" else {"seed": 1}
    async with make(kind, tmp_path, **other) as engine:
        right = await complete(engine, [*ids, 300], n_predict=8, temperature=0)
        assert (await engine.slot("restore", "a")).status == 200
        wrong = await complete(engine, [*ids, 300], n_predict=8, temperature=0)
        assert wrong["timings"]["cache_n"] == 100
        assert wrong["content"] != right["content"]


@kinds
async def test_ends_at_once_when_idle(kind: str) -> None:
    """SIGTERM with nothing to do ends the process."""
    async with make(kind, None) as engine:
        assert await engine.stop() in (0, -signal.SIGTERM)
