"""What an engine says a request cost: tokens it had, computed and generated, read from the end of its answer.

Only the last few KiB of an answer are at hand, for nothing keeps what the relay hands on. So this does not parse
events: the last event of a `/completion` stream carries the whole prompt and may be larger than that. It looks for the
keys `"timings":` and `"usage":` themselves. In JSON neither can stand inside a string, where its quotes would be
escaped, and the objects behind them are small.

Where they stand differs by route (llama-server, facts section 2): `timings` ends /completion, /v1/completions and
/v1/chat/completions, streamed or not, and streamed /v1/responses; /v1/messages has none, and its `usage.input_tokens`
is the part that was *not* cached, while everywhere else the prompt is counted whole. Other servers send `usage` alone.
Unknown is None, never 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

Json = Any
DECODER = json.JSONDecoder()
LONGEST = 4096  # bytes of one `timings` or `usage` object


class Timings(msgspec.Struct, frozen=True):
    """The engine's own figures of one request: tokens, and seconds for prompt and generation. None: it did not say.

    `slot`: where it ran, known only of our own prefills.
    """

    cached: int | None = None
    evaluated: int | None = None
    generated: int | None = None
    prefill: float | None = None
    decode: float | None = None
    slot: int | None = None


UNKNOWN = Timings()


def read_timings(endpoint: str, stream: bool, tail: bytes, *, head: bytes = b"") -> Timings:
    """Read the figures out of the last bytes of an answer of the route `endpoint` ("/v1/messages").

    `head` is the answer's beginning, where that is at hand: a /v1/messages stream says there what was cached.
    Never raises; what is missing, cut or of another type is None.
    """
    found = next(objects(tail, b'"timings"'), None)
    if found is not None and "cache_n" in found:
        return from_timings(found)
    usages = [*objects(tail, b'"usage"')]
    if stream:
        usages += [*objects(head, b'"usage"')]
    else:
        del usages[1:]
    merged: dict[str, Json] = {}
    for usage in reversed(usages):
        merged.update(usage)
    return from_messages(merged) if "/messages" in endpoint else from_usage(merged)


def objects(data: bytes, key: bytes) -> Iterator[dict[str, Json]]:
    """The JSON objects that stand behind `key` in `data`, the last one first; what is cut or no object is left out."""
    end = len(data)
    while (place := data.rfind(key, 0, end)) >= 0:
        end = place
        start = place + len(key)
        opening = data[start : start + 32].lstrip()
        if not opening.startswith(b":") or opening[1:].lstrip()[:1] not in {b"{", b""}:
            continue  # `"usage":null` stands in every event of some streams
        text = data[start : start + LONGEST].decode("utf-8", "replace").lstrip()
        if not text.startswith(":"):
            continue
        text = text[1:].lstrip()
        if not text.startswith("{"):
            continue
        try:
            yield DECODER.raw_decode(text)[0]
        except (ValueError, RecursionError):
            continue


def from_timings(found: dict[str, Json]) -> Timings:
    """llama-server's `timings`; milliseconds become seconds."""
    return Timings(
        cached=whole(found.get("cache_n")),
        evaluated=whole(found.get("prompt_n")),
        generated=whole(found.get("predicted_n")),
        prefill=seconds(found.get("prompt_ms")),
        decode=seconds(found.get("predicted_ms")),
    )


def from_usage(usage: dict[str, Json]) -> Timings:
    """OpenAI's `usage`, of completions (`prompt_tokens`) or responses (`input_tokens`): both count the whole prompt."""
    details = usage.get("prompt_tokens_details", usage.get("input_tokens_details"))
    cached = whole(details.get("cached_tokens")) if isinstance(details, dict) else None
    prompt = whole(usage.get("prompt_tokens", usage.get("input_tokens")))
    return Timings(
        cached=cached,
        evaluated=prompt - cached if prompt is not None and cached is not None else None,
        generated=whole(usage.get("completion_tokens", usage.get("output_tokens"))),
    )


def from_messages(usage: dict[str, Json]) -> Timings:
    """Anthropic's `usage`: what was read from the cache, what was not, what was generated."""
    fresh, written = whole(usage.get("input_tokens")), whole(usage.get("cache_creation_input_tokens"))
    return Timings(
        cached=whole(usage.get("cache_read_input_tokens")),
        evaluated=None if fresh is None else fresh + (written or 0),
        generated=whole(usage.get("output_tokens")),
    )


def whole(value: Json) -> int | None:
    """A count, or None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def seconds(milliseconds: Json) -> float | None:
    """Milliseconds as seconds, or None for what is no number."""
    if isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool) and milliseconds >= 0:
        return milliseconds / 1000
    return None
