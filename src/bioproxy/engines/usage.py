"""What a request cost, in the words of llama-swap's activity table, read out of an engine's answer.

`timings.py` reads the same answers for what the KV cache must know, where unknown is None. Here the rules are those
that dashboards of llama-swap were built on, and they differ: a count that is missing is 0 or -1, llama.cpp's `timings`
win over `usage` (and count new prompt tokens only, where `usage` counts the cached ones too), vLLM's `metrics` give
speeds.

Only an answer's first piece and its last 16 KiB are at hand (wire.relay.Tail). An answer that fits into that is read as
the JSON that it is, top members only; of a longer one, and of a stream, the objects behind the keys `"usage"`,
`"timings"` and `"metrics"` are looked for, as in timings.py: in JSON no key can stand inside a string unescaped.

Pure, and never raises: what an engine sends must not cost the client its answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from bioproxy.activity import Usage
from bioproxy.engines.timings import objects
from bioproxy.wire.coding import decoded

Json: TypeAlias = Any
Members: TypeAlias = dict[str, Json]

NOTHING = Usage()
FOUND = Usage(cache_tokens=-1, draft_tokens=-1, draft_acc_tokens=-1, prompt_per_second=-1.0, tokens_per_second=-1.0)
SOURCES = ("usage", "timings", "metrics")
COUNTERS = frozenset({
    "prompt_tokens", "input_tokens", "completion_tokens", "output_tokens",
    "cache_read_input_tokens", "input_tokens_details", "prompt_tokens_details",
})  # fmt: skip
METRICS = frozenset({"time_to_first_token_ms", "mean_itl_ms", "speculative_decoding"})
LARGEST = 1 << 53  # a count above that is nonsense, and would not fit into a database's integer
LONGEST_DECODED = 4 << 20  # bytes that 16 KiB may become
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_usage(*, content_type: str, path: str, head: bytes, tail: bytes, encoding: str = "") -> Usage:
    """The figures of one answer of the route `path`; all zero where it gives none.

    `head` and `tail` are its first piece and its last bytes, `encoding` its Content-Encoding: a compressed answer can
    be read only where `tail` is all of it.
    """
    if encoding:
        head, tail = b"", decoded(tail, encoding, limit=LONGEST_DECODED) or b""
    if "text/event-stream" in content_type.lower():
        usages = (usage for usage in last_first(head, tail, "usage") if not COUNTERS.isdisjoint(usage))
        metrics = (one for one in last_first(head, tail, "metrics") if not METRICS.isdisjoint(one))
        return usage_of(usages, next(last_first(head, tail, "timings"), None), next(metrics, None))
    members = whole(tail, path)
    if members is None:
        members = {name: next(last_first(head, tail, name), None) for name in SOURCES}
    usage, timings, measured = (as_object(members.get(name)) for name in SOURCES)
    if measured is not None and METRICS.isdisjoint(measured):  # a word that others use too
        measured = None
    return usage_of([] if usage is None else [usage], timings, measured)


def last_first(head: bytes, tail: bytes, name: str) -> Iterator[Members]:
    """The objects behind the key `name`, the last one of the answer first; what stands in both parts comes twice."""
    key = f'"{name}"'.encode()
    return chain(objects(tail, key), objects(head, key))


def whole(body: bytes, path: str) -> Members | None:
    """The members of a whole JSON answer that matter here; None if `body` is a part of one, or no JSON.

    `/infill` may answer with an array, whose last element counts; other arrays have no figures.
    """
    try:
        if body.lstrip()[:1] == b"[":
            elements = msgspec.json.decode(body, type=list[msgspec.Raw])
            if not elements or not path.endswith("/infill"):
                return {}
            body = bytes(elements[-1])
        opened = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        return {name: msgspec.json.decode(opened[name]) for name in SOURCES if name in opened}
    except UNREADABLE:
        return None


def as_object(value: Json) -> Members | None:
    """A JSON object, or None for any other value."""
    return value if isinstance(value, dict) else None


def usage_of(usages: Iterable[Members], timings: Members | None, metrics: Members | None) -> Usage:
    """Put the three sources together; `usages` stand last first, and are not looked at where `timings` say all."""
    told = timings is not None and "cache_n" in timings
    found = None if told else counted(usages)
    if found is None:
        if timings is None and metrics is None:
            return NOTHING
        found = FOUND
    if timings is not None:
        found = with_timings(found, timings)
    return found if metrics is None else with_metrics(found, metrics)


def counted(usages: Iterable[Members]) -> Usage | None:
    """The counts of several `usage` objects, None if there is none: for each the last that is not 0 wins."""
    given = made = 0
    cached = -1
    seen = False
    for usage in usages:
        seen = True
        given = given or count(usage.get("prompt_tokens", usage.get("input_tokens")))
        made = made or count(usage.get("completion_tokens", usage.get("output_tokens")))
        cached = cached_of(usage) if cached < 0 else cached
        if given and made and cached >= 0:
            break
    return replace(FOUND, input_tokens=given, output_tokens=made, cache_tokens=cached) if seen else None


def cached_of(usage: Members) -> int:
    """Tokens that came from the cache, by Anthropic's, the Responses' or OpenAI's name; -1 where none is there."""
    if "cache_read_input_tokens" in usage:
        return count(usage["cache_read_input_tokens"])
    for name in ("input_tokens_details", "prompt_tokens_details"):
        details = usage.get(name)
        if isinstance(details, dict) and "cached_tokens" in details:
            return count(details["cached_tokens"])
    return -1


def with_timings(found: Usage, timings: Members) -> Usage:
    """Llama-server's `timings` win over whatever `usage` said; both figures of a draft model are wanted."""
    drafted = "draft_n" in timings and "draft_n_accepted" in timings
    return replace(
        found,
        input_tokens=count(timings.get("prompt_n")),
        output_tokens=count(timings.get("predicted_n")),
        cache_tokens=count(timings["cache_n"]) if "cache_n" in timings else found.cache_tokens,
        draft_tokens=count(timings["draft_n"]) if drafted else -1,
        draft_acc_tokens=count(timings["draft_n_accepted"]) if drafted else -1,
        prompt_per_second=speed(timings.get("prompt_per_second")),
        tokens_per_second=speed(timings.get("predicted_per_second")),
        seconds=(max(0.0, number(timings.get("prompt_ms"))) + max(0.0, number(timings.get("predicted_ms")))) / 1000,
    )


def with_metrics(found: Usage, metrics: Members) -> Usage:
    """The `metrics` of vLLM: latencies become speeds, and its drafts count as llama-server's do."""
    first, between = number(metrics.get("time_to_first_token_ms")), number(metrics.get("mean_itl_ms"))
    fresh = found.input_tokens - max(0, found.cache_tokens)
    if first > 0:
        found = replace(found, prompt_per_second=finite(fresh * 1000 / first))
    if between > 0:
        found = replace(found, tokens_per_second=finite(1000 / between))
    drafts = as_object(metrics.get("speculative_decoding")) or {}
    if "num_draft_tokens" in drafts and "num_accepted_draft_tokens" in drafts:
        drafted, accepted = count(drafts["num_draft_tokens"]), count(drafts["num_accepted_draft_tokens"])
        found = replace(found, draft_tokens=drafted, draft_acc_tokens=accepted)
    return found


def number(value: Json) -> float:
    """A JSON number, 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return finite(value) if isinstance(value, float) or abs(value) <= LARGEST else 0.0


def finite(value: float) -> float:
    """A float that JSON and a database can hold; 0 for infinity and what is no number."""
    return float(value) if math.isfinite(value) else 0.0


def count(value: Json) -> int:
    """A number of tokens, 0 for anything that cannot be one."""
    return min(LARGEST, max(0, int(number(value))))


def speed(value: Json) -> float:
    """Tokens per second; -1 where none were given (llama-server writes null for what took no time)."""
    return -1.0 if isinstance(value, bool) or not isinstance(value, int | float) else number(value)
