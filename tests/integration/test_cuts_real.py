"""Breakpoints on the real engine: a snapshot is cut exactly there, and what it holds need not be evaluated again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bioproxy.app import App
from support.apps import MS, station
from support.http import call
from support.kv_rig import text
from support.leaks import until
from support.real_engine import crash, evaluated, line, llama_server, real_engine
from support.sdk_types import asked

Json = Any
EPHEMERAL: Json = {"type": "ephemeral"}
EXPLICIT: Json = {"mode": "explicit"}
NO_IDLE: Json = {
    "min_seconds": 1 * MS,
    "save_after": 3600,
    "save_every": 3600,
}  # nothing is saved but what is asked for
SYSTEM, DOCUMENT = text(300, "the system"), text(300, "the document")
pytestmark = real_engine


def messages(question: str, *, ttl: str = "5m") -> Json:
    """A document in a system text and in a message, each marked, and a question after that."""
    mark = {**EPHEMERAL, "ttl": ttl}
    return {
        "system": [{"type": "text", "text": SYSTEM, "cache_control": mark}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": DOCUMENT, "cache_control": mark},
                    {"type": "text", "text": question},
                ],
            }
        ],
        "max_tokens": 2,
    }


def cuts(app: App) -> list[Json]:
    """The snapshots that were cut, the shortest first."""
    return sorted((one for one in station(app).keeper.list() if one.head), key=lambda one: one.tokens)


async def on_disk(app: App, count: int) -> None:
    await until(lambda: len(cuts(app)) == count)


async def test_what_was_cut_is_read_after_a_crash(tmp_path: Path) -> None:
    """Each breakpoint is there for a request that goes on in its own way, and the usage says so to the token."""
    async with llama_server(tmp_path) as engine, line(engine, tmp_path, kv=NO_IDLE) as app:
        first = (await asked(app.proxy_port, "/v1/messages", messages("Why?")))["usage"]
        await on_disk(app, 2)
        head, document = cuts(app)
        assert first["cache_read_input_tokens"] == 0
        assert first["cache_creation_input_tokens"] == document.tokens
        assert first["cache_creation"]["ephemeral_5m_input_tokens"] == document.tokens
        await crash(engine, app)
        again = (await asked(app.proxy_port, "/v1/messages", messages("How many?")))["usage"]
        assert again["cache_read_input_tokens"] == document.tokens
        assert again["cache_creation_input_tokens"] == 0
        await crash(engine, app)
        other = messages("Why?")
        other["messages"][0]["content"] = "Something else entirely."
        third = (await asked(app.proxy_port, "/v1/messages", other))["usage"]
        assert third["cache_read_input_tokens"] == head.tokens
        assert len(cuts(app)) == 2
        record = app.records[0]
        await until(lambda: record.finding is not None)
        assert record.finding is not None
        assert record.finding.cause == "first_time"
        assert record.tokens_cached == 0
        assert record.tokens_evaluated == first["cache_creation_input_tokens"] + first["input_tokens"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_openais_breakpoints(path: str, tmp_path: Path) -> None:
    """The same with `prompt_cache_breakpoint`; in explicit mode nothing else is kept."""
    kind = "input_text" if path == "/v1/responses" else "text"
    parts = [{"type": kind, "text": DOCUMENT, "prompt_cache_breakpoint": EXPLICIT}, {"type": kind, "text": "Why?"}]
    key = "input" if path == "/v1/responses" else "messages"
    limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    body = {key: [{"role": "user", "content": parts}], limit: 2, "prompt_cache_options": {"mode": "explicit"}}
    async with llama_server(tmp_path) as engine, line(engine, tmp_path) as app:
        await asked(app.proxy_port, path, body)
        await on_disk(app, 1)
        await crash(engine, app)
        parts[1]["text"] = "How?"
        usage = (await asked(app.proxy_port, path, body))["usage"]
        details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
        assert details["cached_tokens"] == cuts(app)[0].tokens
        assert details["cache_write_tokens"] == 0
        assert [one.head for one in station(app).keeper.list()] == [cuts(app)[0].head]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_usage_by_the_engines_own_count(path: str, stream: bool, tmp_path: Path) -> None:
    """Whole and streamed: what is new is written, what was there is read, and both are the prompt."""
    key = "input" if path == "/v1/responses" else "messages"
    limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    row = [{"role": "user", "content": DOCUMENT}]
    body: Json = {key: row, limit: 3, "prompt_cache_key": "k", "stream": stream}
    body |= {"stream_options": {"include_usage": True}} if stream and "chat" in path else {}
    body |= {"cache_control": EPHEMERAL} if path == "/v1/messages" else {}
    async with llama_server(tmp_path) as engine, line(engine, tmp_path, kv=NO_IDLE) as app:
        before = await evaluated(engine)
        total, read, written = figures(usage_of(await asked(app.proxy_port, path, body)))
        assert read == 0
        assert total - written < 12  # the chat template's end of the prompt, which Anthropic's mark leaves out
        assert await evaluated(engine) - before in range(total, total + 4)
        again = figures(usage_of(await asked(app.proxy_port, path, body)))
        assert again[:2] == (total, total - 1)


def usage_of(found: Json) -> Json:
    """The usage of an answer, or the last one with a prompt's tokens in the events of a stream."""
    said = [one.get("response") or one.get("message") or one for one in (found if isinstance(found, list) else [found])]
    return [one["usage"] for one in said if one.get("usage")][-1]


def figures(usage: Json) -> tuple[int, int, int]:
    """The prompt, what of it was read, and what was written."""
    if "cache_creation_input_tokens" in usage:
        read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
        return usage["input_tokens"] + read + written, read, written
    details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
    return usage.get("prompt_tokens") or usage["input_tokens"], details["cached_tokens"], details["cache_write_tokens"]


async def test_a_cut_is_kept_for_its_time(tmp_path: Path) -> None:
    """Until then the budget leaves it alone; a request that uses it again has it kept on."""
    async with llama_server(tmp_path) as engine, line(engine, tmp_path, kv=NO_IDLE) as app:
        shelf = station(app).keeper.tenant.shelf
        await asked(app.proxy_port, "/v1/messages", messages("Why?", ttl="1h"))
        await on_disk(app, 2)
        until_then = [one.kept_until(shelf.wall()) or 0 for one in cuts(app)]
        assert all(3500 < one - shelf.wall() <= 3600 for one in until_then)
        now = shelf.wall() + 3000
        shelf.wall = lambda: now
        await asked(app.proxy_port, "/v1/messages", messages("How?", ttl="1h"))
        await until(lambda: all((one.kept_until(now) or 0) == now + 3600 for one in cuts(app)))


async def test_a_long_time_is_refused_if_there_is_no_room(tmp_path: Path) -> None:
    """400 with the numbers, before anything is computed; a short one is served, and not kept."""
    async with llama_server(tmp_path) as engine, line(engine, tmp_path, kv={**NO_IDLE, "kept_budget": 1000}) as app:
        await asked(app.proxy_port, "/v1/messages", messages("Why?"))  # what a token takes is known from here on
        await on_disk(app, 2)
        before = await evaluated(engine)
        other = messages("Why?", ttl="1h")
        other["system"][0]["text"] = text(300, "another system")
        answer = await call(app.proxy_port, "POST", "/v1/messages", data={"model": "m", **other})
        assert answer.status == 400
        assert "kv.kept_budget" in answer.json()["error"]["message"]
        assert await evaluated(engine) == before
        other["system"][0]["cache_control"] = other["messages"][0]["content"][0]["cache_control"] = EPHEMERAL
        await asked(app.proxy_port, "/v1/messages", other)
        await on_disk(app, 4)
        assert sum(not one.pins for one in cuts(app)) >= 2


async def test_a_mark_that_moves_leaves_no_row_of_cuts(tmp_path: Path) -> None:
    """An agent marks its last message: what it marks no more goes once something longer is on the disk."""
    async with llama_server(tmp_path) as engine, line(engine, tmp_path, kv=NO_IDLE) as app:
        row: list[Json] = []
        for turn in range(5):
            words = [{"type": "text", "text": text(150, f"turn {turn}"), "cache_control": {**EPHEMERAL, "ttl": "1h"}}]
            row.append({"role": "user", "content": words})
            found = await asked(app.proxy_port, "/v1/messages", {"messages": row, "max_tokens": 2})
            await station(app).keeper.saver.settle(10)
            row[-1] = {"role": "user", "content": [{"type": "text", "text": words[0]["text"]}]}
            row.append({"role": "assistant", "content": found["content"]})
        await until(lambda: 1 <= len(cuts(app)) <= 2)  # the newest may not have been on the disk yet


async def test_tools_and_their_results(tmp_path: Path) -> None:
    """A mark on a tool's result is cut as exactly as llama-server renders it."""
    call_: Json = {"type": "tool_use", "id": "t1", "name": "read", "input": {"path": "a"}}
    result: Json = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": DOCUMENT}]}
    result["cache_control"] = EPHEMERAL
    tool = {"name": "read", "description": "Reads.", "input_schema": {"type": "object", "properties": {}}}
    row = [
        {"role": "user", "content": text(60)},
        {"role": "assistant", "content": [{"type": "text", "text": "I read."}, call_]},
        {"role": "user", "content": [result]},
    ]
    body: Json = {"tools": [tool], "messages": row, "max_tokens": 2}
    async with llama_server(tmp_path) as engine, line(engine, tmp_path, kv=NO_IDLE) as app:
        await asked(app.proxy_port, "/v1/messages", body)
        await on_disk(app, 1)
        await crash(engine, app)
        row += [{"role": "assistant", "content": "It says so."}, {"role": "user", "content": "Why?"}]
        usage = (await asked(app.proxy_port, "/v1/messages", body))["usage"]
        assert usage["cache_read_input_tokens"] == cuts(app)[0].tokens


@pytest.mark.parametrize("shape", ["mamba", "swa"])
async def test_a_cache_that_can_not_be_left_in_the_middle(shape: str, tmp_path: Path) -> None:
    """A snapshot that ends exactly there is of use on such a model, too, to requests that go on in their own way."""
    async with llama_server(tmp_path, shape=shape) as engine, line(engine, tmp_path, kv=NO_IDLE) as app:
        await asked(app.proxy_port, "/v1/messages", messages("Why?"))
        await on_disk(app, 2)
        document = cuts(app)[-1]
        for question in ("How many?", "Since when?"):
            await crash(engine, app)
            usage = (await asked(app.proxy_port, "/v1/messages", messages(question)))["usage"]
            assert document.tokens - 8 <= usage["cache_read_input_tokens"] <= document.tokens
        assert [one.quarantined for one in cuts(app)] == ["", ""]
