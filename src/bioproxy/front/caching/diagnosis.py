"""Why the prompt cache did not hold more, against an earlier answer that the client names: in its API's own words.

The comparison is the doctor's (doctor/compare.py), so the two never say different things. OpenAI has nine reasons,
Anthropic four; what neither has a word for is `unavailable`. An answer that is not known any more, never was, or
belongs to another key is the same to a client: not found.

| what changed                     | OpenAI                                                   | Anthropic          |
|----------------------------------|----------------------------------------------------------|--------------------|
| nothing, and the cache had it    | `cache_hit`                                              | null               |
| nothing, and the cache lost it   | key or service tier if these changed, else `unavailable` | null               |
| model, its file or arguments     | `model_changed`                                          | the same           |
| system messages                  | `input_changed`                                          | `system_changed`   |
| tools                            | `tools_changed`                                          | the same           |
| a message, or a template         | `input_changed`; `context_compacted` if it got shorter   | `messages_changed` |
| effort, verbosity, text format   | a reason for each                                        | `unavailable`      |

Tokens are the engine's count of this prompt. How many of them both begin with is its tokenizer's word if it was asked
(`exact`), else the share of the bytes. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from bioproxy.doctor.compare import Difference, Prompt
from bioproxy.errors import NOT_JSON
from bioproxy.front.caching.answers import Counted
from bioproxy.front.caching.fields import Form

Json: TypeAlias = Any

SLACK = 64  # tokens: fewer that are missing are seams of a chat template
ARGUMENTS = {"reasoning_effort": "reasoning_effort_changed", "verbosity": "verbosity_changed"}
FORMATS = frozenset({"response_format", "json_schema", "grammar"})
ASIDE = {"prompt_cache_key": "prompt_cache_key_changed", "service_tier": "service_tier_changed"}
OPENAI = {
    "model_changed": "model_changed", "tools_changed": "tools_changed", "system_changed": "input_changed",
    "message_changed": "input_changed", "template_edited": "input_changed",
}  # fmt: skip
ANTHROPIC = {
    "model_changed": "model_changed", "tools_changed": "tools_changed", "system_changed": "system_changed",
    "message_changed": "messages_changed", "template_edited": "messages_changed",
}  # fmt: skip
ALIKE = frozenset({"grown", "field_changed"})
UNAVAILABLE = {"type": "unavailable"}


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt beside an earlier one. `exact`: tokens that both begin with, if the tokenizer was asked."""

    difference: Difference
    earlier: Prompt
    later: Prompt
    exact: int | None = None

    def shared(self, total: int) -> int:
        """Tokens of a prompt of `total` that the earlier one begins with, too."""
        difference = self.difference
        if difference.cause in {"model_changed", "arguments_changed"}:
            return 0
        if self.exact is not None:
            return min(total, self.exact)
        if difference.cause in ALIKE and self.earlier.tokens and difference.shared >= self.earlier.size:
            return min(total, self.earlier.tokens)
        return total * difference.shared // max(1, difference.size)


def diagnosis(form: Form, compared: Compared | None, counted: Counted) -> Json:
    """What the answer says; `compared` None: the answer that the client named was not found."""
    if form == "anthropic":
        return for_anthropic(compared, counted)
    return for_openai(compared, counted)


def for_openai(compared: Compared | None, counted: Counted) -> Json:
    """`prompt_cache_diagnostics`."""
    if compared is None:
        return {"type": "comparison_response_not_found"}
    shared, cause = compared.shared(counted.total), compared.difference.cause
    if cause in ALIKE:
        if counted.read >= min(shared, counted.total) - SLACK:
            return {"type": "cache_hit"}
        reason = next((ASIDE[name] for name in ASIDE if name in compared.difference.fields), "")
        missed = shared - counted.read
    else:
        reason = reason_for(compared)
        missed = counted.total - shared
    if not reason:
        return UNAVAILABLE
    return {
        "type": "cache_miss", "reason": reason, "cache_missed_tokens": max(0, missed),
        "comparison_reusable_tokens": shared,
    }  # fmt: skip


def reason_for(compared: Compared) -> str:
    """OpenAI's word for what changed; "" if it has none."""
    difference = compared.difference
    if difference.cause == "arguments_changed":
        return next(filter(None, (argument(name, compared) for name in difference.arguments)), "")
    if difference.cause == "message_changed" and difference.compacted:
        return "context_compacted"
    return OPENAI.get(difference.cause, "")


def argument(name: str, compared: Compared) -> str:
    """The reason that a field stands for."""
    if name in FORMATS:
        return "text_format_changed"
    if name != "text":
        return ARGUMENTS.get(name, "input_changed")
    one, other = (members(prompt.arguments.get("text", b"{}")) for prompt in (compared.earlier, compared.later))
    return "text_format_changed" if one.get("format") != other.get("format") else "verbosity_changed"


def members(raw: bytes) -> Mapping[str, Json]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except NOT_JSON:
        return {}


def for_anthropic(compared: Compared | None, counted: Counted) -> Json:
    """`diagnostics`; null if nothing diverged."""
    if compared is None:
        return {"cache_miss_reason": {"type": "previous_message_not_found"}}
    cause = compared.difference.cause
    if cause in ALIKE:
        return None
    if (kind := ANTHROPIC.get(cause)) is None:
        return {"cache_miss_reason": UNAVAILABLE}
    before = compared.earlier.tokens or counted.total
    missed = max(0, before - compared.shared(counted.total))
    return {"cache_miss_reason": {"type": kind, "cache_missed_input_tokens": missed}}
