"""What a template's head and text become in the real engine: a warm-up is hit by every dialect, to the last token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from bioproxy.engines.llama import Llama
from bioproxy.templates.bodies import Body, Dialect
from bioproxy.templates.expand import expand
from bioproxy.warmup.prefix import chat
from bioproxy.wire.upstream import Pool, parse_origin
from fakes.engine_process import EngineProcess
from fakes.real_engine import RealEngine
from support.templates import Texts

pytestmark = [pytest.mark.real_engine, pytest.mark.asyncio(loop_scope="module")]

Json = Any
CATALOGUE = Texts({"@code": "You read this code. " * 20 + "<{message}>"})
RULES = "Be brief. " * 10
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
USER = {"role": "user", "content": "@code What is it?"}
BILLING = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.101; cc_entrypoint=cli; cch=a5145;"}

CASES: dict[str, tuple[Dialect, str, dict[str, Json]]] = {
    "chat, nothing before": ("chat", "/v1/chat/completions", {"messages": [USER]}),
    "chat, system and tools": (
        "chat",
        "/v1/chat/completions",
        {
            "messages": [{"role": "system", "content": RULES}, USER],
            "tools": [{"type": "function", "function": {"name": "read", "parameters": SCHEMA}}],
        },
    ),
    "chat, parts with a mark": (
        "chat",
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": RULES, "cache_control": {}}]},
                {"role": "user", "content": [{"type": "text", "text": "@code What is it?"}]},
            ]
        },
    ),
    "chat, a greeting and settings": (
        "chat",
        "/v1/chat/completions",
        {
            "messages": [{"role": "system", "content": RULES}, {"role": "assistant", "content": "Hello."}, USER],
            "chat_template_kwargs": {"enable_thinking": False},
            "reasoning_effort": "low",
        },
    ),
    "anthropic, blocks and tools": (
        "anthropic",
        "/v1/messages",
        {
            "system": [BILLING, {"type": "text", "text": RULES, "cache_control": {"type": "ephemeral"}}],
            "tools": [{"name": "read", "description": "Reads.", "input_schema": SCHEMA}],
            "tool_choice": {"type": "auto"},
            "messages": [USER],
        },
    ),
    "anthropic, a string": ("anthropic", "/v1/messages", {"system": RULES, "messages": [USER]}),
    "responses, instructions and tools": (
        "responses",
        "/v1/responses",
        {
            "instructions": RULES,
            "tools": [{"type": "function", "name": "read", "description": "Reads.", "parameters": SCHEMA}],
            "input": "@code What is it?",
        },
    ),
    "responses, a developer's item": (
        "responses",
        "/v1/responses",
        {
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": RULES}]},
                USER,
            ]
        },
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[EngineProcess]:
    """One engine for all cases; each prompt is another one."""
    async with RealEngine() as process:
        yield process


def cached(usage: Json) -> int:
    """Tokens that came from the cache, as each dialect tells them."""
    if "cache_read_input_tokens" in usage:
        return int(usage["cache_read_input_tokens"])
    details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
    return int(details["cached_tokens"])


def shared(one: list[int], other: list[int]) -> list[int]:
    """The common beginning of two rows of tokens."""
    end = next(place for place, (left, right) in enumerate(zip(one, other, strict=False)) if left != right)
    return one[:end]


@pytest.mark.parametrize(("dialect", "path", "body"), CASES.values(), ids=CASES.keys())
async def test_the_head_that_is_warmed_is_the_head_that_is_used(
    engine: EngineProcess, dialect: Dialect, path: str, body: dict[str, Json]
) -> None:
    """The prompt prefix, rendered from the translated head, is what the engine finds in its cache for the request."""
    data = msgspec.json.encode({"model": "m", "max_tokens": 1, "max_output_tokens": 1} | body)
    expanded = expand(Body(data), dialect=dialect, catalogue=CATALOGUE, pins=None, scope=b"")
    assert expanded.head is not None
    pool = Pool(parse_origin(f"http://127.0.0.1:{engine.port}"))
    try:
        llama, filled = Llama(pool), CATALOGUE.current("@code")
        rows = [
            await llama.tokenize(await llama.apply_template(chat(expanded.head, filled.fill(message))))
            for message in ("Compare this.", "7 questions")
        ]
        prefix = shared(*rows)
        await llama.prefill([1])  # what was resident goes
        await llama.prefill(prefix)
    finally:
        await pool.close()
    answer = await engine.post(path, msgspec.json.decode(expanded.body))
    assert answer.status == 200, answer.body
    assert len(prefix) > 100
    assert cached(answer.json()["usage"]) == len(prefix)
