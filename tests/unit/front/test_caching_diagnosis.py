"""What changed since an earlier answer, in the words of the two APIs."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from anthropic.types import Diagnostics
from openai.types.responses.response import PromptCacheDiagnostics

from bioproxy.activity import Cause
from bioproxy.doctor.compare import Difference, Prompt
from bioproxy.front.caching.answers import Counted
from bioproxy.front.caching.diagnosis import Compared, diagnosis
from bioproxy.prompt import Piece

Json = Any
PIECES = (Piece("head", b"x" * 400), Piece("message 1 (user)", b"y" * 600))
HIT, MISSED = Counted(100, 99, {}), Counted(100, 0, {})
OPENAI: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(PromptCacheDiagnostics)


def said(form: Any, found: Compared | None, counted: Counted = MISSED) -> Json:
    """The diagnosis, which the SDK's own type accepts."""
    told = diagnosis(form, found, counted)
    if form == "responses":
        OPENAI.validate_python(told)
    elif told is not None:
        Diagnostics.model_validate(told)
    return told


def beside(cause: Cause, *, shared: int = 400, exact: int | None = None, **more: Json) -> Compared:
    earlier = Prompt(pieces=PIECES, tokens=80, arguments=more.pop("before", {}))
    later = Prompt(pieces=PIECES, arguments=more.pop("after", {}))
    difference = Difference(cause=cause, shared=shared, size=1000, **more)
    return Compared(difference=difference, earlier=earlier, later=later, exact=exact)


def test_what_is_not_found() -> None:
    """Unknown, forgotten, another key's: the same words."""
    assert said("responses", None) == {"type": "comparison_response_not_found"}
    assert said("anthropic", None) == {"cache_miss_reason": {"type": "previous_message_not_found"}}


@pytest.mark.parametrize("cause", ["grown", "field_changed"])
def test_a_conversation_that_goes_on(cause: Cause) -> None:
    """A hit if the cache had it; if it was lost neither API has a word for that."""
    found = beside(cause, shared=1000)
    assert said("responses", found, HIT) == {"type": "cache_hit"}
    assert said("responses", found) == {"type": "unavailable"}
    assert said("anthropic", found) is None


@pytest.mark.parametrize(
    ("field", "reason"),
    [("prompt_cache_key", "prompt_cache_key_changed"), ("service_tier", "service_tier_changed")],
)
def test_a_key_that_changed(field: str, reason: str) -> None:
    """It decides nothing about reuse here, so it is the reason only if nothing was reused."""
    found = beside("field_changed", shared=1000, fields=(field,))
    assert said("responses", found, HIT) == {"type": "cache_hit"}
    assert said("responses", found) == {
        "type": "cache_miss", "reason": reason, "cache_missed_tokens": 80, "comparison_reusable_tokens": 80,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cause", "openai", "anthropic"),
    [
        ("tools_changed", "tools_changed", "tools_changed"),
        ("system_changed", "input_changed", "system_changed"),
        ("message_changed", "input_changed", "messages_changed"),
        ("template_edited", "input_changed", "messages_changed"),
    ],
)
def test_a_prompt_that_changed(cause: Cause, openai: str, anthropic: str) -> None:
    """With what both begin with: by the share of the bytes, or exactly if the tokenizer was asked."""
    assert said("responses", beside(cause)) == {
        "type": "cache_miss", "reason": openai, "cache_missed_tokens": 60, "comparison_reusable_tokens": 40,
    }  # fmt: skip
    assert said("responses", beside(cause, exact=37))["comparison_reusable_tokens"] == 37
    assert said("anthropic", beside(cause)) == {
        "cache_miss_reason": {"type": anthropic, "cache_missed_input_tokens": 40}
    }


def test_another_model() -> None:
    """Nothing of it can be reused."""
    assert said("responses", beside("model_changed"))["cache_missed_tokens"] == 100
    assert said("anthropic", beside("model_changed"))["cache_miss_reason"]["cache_missed_input_tokens"] == 80


@pytest.mark.parametrize(
    ("name", "before", "after", "reason"),
    [
        ("reasoning_effort", b'"low"', b'"high"', "reasoning_effort_changed"),
        ("text", b'{"verbosity":"low"}', b'{"verbosity":"high"}', "verbosity_changed"),
        ("text", b'{"format":{"type":"text"}}', b'{"format":{"type":"json_object"}}', "text_format_changed"),
        ("response_format", b"{}", b'{"type":"json_object"}', "text_format_changed"),
        ("chat_template_kwargs", b"{}", b'{"a":1}', "input_changed"),
    ],
)
def test_arguments(name: str, before: bytes, after: bytes, reason: str) -> None:
    """OpenAI has words for some, Anthropic for none."""
    found = beside("arguments_changed", arguments=(name,), before={name: before}, after={name: after})
    assert said("responses", found)["reason"] == reason
    assert said("anthropic", found) == {"cache_miss_reason": {"type": "unavailable"}}


def test_a_conversation_that_was_shortened() -> None:
    """A client that summarises what was said has not just changed a message."""
    assert said("responses", beside("message_changed", compacted=True))["reason"] == "context_compacted"


def test_what_cannot_be_compared() -> None:
    """Both have a word for it."""
    assert said("responses", beside("not_comparable")) == {"type": "unavailable"}
    assert said("anthropic", beside("not_comparable")) == {"cache_miss_reason": {"type": "unavailable"}}
