"""What an engine's answer says about itself: how it ended, and what it cost.

Only the last 16 KiB of an answer are at hand, and its first piece (wire.relay.Tail). Both are read once, after the last
byte, into one `Answer`. The KV cache, the record of a request and the activity table all use it.

**The usual answer** is llama-server's, streamed or whole: one decode of its last event (or of the whole) into typed
Structs says everything, and everything else is tried only if that fails.

**Streams.** If the last event does not say what the answer cost, the objects after the keys `"timings":`, `"usage":`
and `"metrics":` are searched for in all bytes at hand. In JSON, none of these can stand inside a string, where its
quotes would be escaped; so an event that is cut, because it repeats the whole prompt, does no harm.

**Whole answers** are decoded as the JSON that they are, top members only: a tool's own `usage` is no figure. Of an
answer that is larger than the bytes at hand, the same keys are searched for.

Where the figures stand differs by route (llama-server, facts section 2): `timings` end /completion, /v1/completions and
/v1/chat/completions, streamed or not, and streamed /v1/responses. /v1/messages has none, and its `usage.input_tokens`
is the part that was *not* cached, while everywhere else the prompt is counted whole. vLLM has `metrics`. Other servers
send `usage` alone. `timings` win over `usage`, and `usage` wins over `metrics`.

Unknown is None here, never 0; only `usage_of`, which follows the rules of llama-swap's dashboards, writes 0 or -1.
Pure, and never raises: what an engine sends must not cost the client its answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from bioproxy.activity import Usage
from bioproxy.errors import NOT_JSON
from bioproxy.wire import sse
from bioproxy.wire.coding import decoded

Json: TypeAlias = Any
Members: TypeAlias = dict[str, Json]
Ending = Literal["", "whole", "failed"]

DONE = b"[DONE]"  # after chats and completions
ENDINGS: dict[str, Ending] = {  # the types of last events
    "message_stop": "whole",
    "response.completed": "whole",
    "response.incomplete": "whole",
    "response.failed": "failed",
    "speech.audio.done": "whole",
    "transcript.text.done": "whole",
    "image_generation.completed": "whole",
    "image_edit.completed": "whole",
    "error": "failed",
}
FIRST_TYPE = re.compile(rb'data:\s*\{[^{\[]*?"type"\s*:\s*"([\w.]+)"')  # before a member that is nested
LAST_TYPE = re.compile(rb'"type"\s*:\s*"([\w.]+)"\s*(?:,\s*"\w+"\s*:\s*[\w.-]+\s*)?\}$')  # or as the last (but one)
STOPPED = re.compile(rb'"stop"\s*:\s*true')  # llama.cpp's own; within a string its quotes would be escaped
METRICS = frozenset({"time_to_first_token_ms", "mean_itl_ms", "speculative_decoding"})  # others use the word, too
NEAR = 1024  # bytes in which the last event of most streams begins
LONGEST = 4096  # bytes of one `timings`, `usage` or `metrics` object
LONGEST_DECODED = 4 << 20  # bytes that 16 KiB may become
LARGEST = 1 << 53  # a count above that is nonsense, and would not fit into a database's integer
DECODER = json.JSONDecoder()
Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=LARGEST)]


class Timings(msgspec.Struct, frozen=True):
    """What the engine says that one request cost: tokens, seconds, and tokens per second. None: it did not say.

    `cached` + `evaluated` is the prompt. `given` is set if the API called counts another number as its input: the whole
    prompt (OpenAI), or what was not cached (Anthropic). `slot`: where it ran, known only of our own prefills.
    """

    cached: int | None = None
    evaluated: int | None = None
    generated: int | None = None
    prefill: float | None = None
    decode: float | None = None
    slot: int | None = None
    given: int | None = None
    drafted: int | None = None
    accepted: int | None = None
    prefill_speed: float | None = None
    decode_speed: float | None = None


class Answer(msgspec.Struct, frozen=True):
    """How an answer ended by its own account, whatever its framing says ("": it did not), and what it cost.

    `said`: the data of a stream's last event, which tells why it failed. `id`: its own, if the usual answer has one.
    """

    ending: Ending = ""
    said: bytes = b""
    timings: Timings = Timings()
    id: str = ""


class Figures(msgspec.Struct):
    """llama-server's `timings`, of the types that they should have; a draft counts only with both of its figures."""

    cache_n: Count | None = None
    prompt_n: Count | None = None
    predicted_n: Count | None = None
    prompt_ms: Amount | None = None
    predicted_ms: Amount | None = None
    prompt_per_second: Amount | None = None
    predicted_per_second: Amount | None = None
    draft_n: Count | None = None
    draft_n_accepted: Count | None = None

    def timings(self) -> Timings:
        drafted, accepted = self.draft_n, self.draft_n_accepted
        both = drafted is not None and accepted is not None
        return Timings(
            cached=self.cache_n,
            evaluated=self.prompt_n,
            generated=self.predicted_n,
            prefill=None if self.prompt_ms is None else self.prompt_ms / 1000,
            decode=None if self.predicted_ms is None else self.predicted_ms / 1000,
            drafted=drafted if both else None,
            accepted=accepted if both else None,
            prefill_speed=self.prompt_per_second,
            decode_speed=self.predicted_per_second,
        )


class Usual(msgspec.Struct):
    """The last event of a chat, or a whole answer, as llama-server writes it."""

    timings: Figures
    id: str = ""
    type: None = None
    error: None = None


class Said(msgspec.Struct):
    """The members of an event, or of a whole answer, that matter here, whatever their types."""

    type: Json = None
    object: Json = None
    stop: Json = None
    error: Json = None
    usage: Json = None
    timings: Json = None
    metrics: Json = None


USUAL = msgspec.json.Decoder(Usual)
LAST = b"\n\ndata: [DONE]\n\n"  # after the event that says what a chat cost
UNKNOWN = Timings()
NOTHING = Usage()


def read_answer(
    last: bytes, *, path: str, events: bool = False, head: bytes = b"", begun: bytes | None = None, encoding: str = ""
) -> Answer:
    """Read the last bytes of an answer of the route `path` ("/v1/messages"); `events`: it is an event stream.

    `head` is its first piece. `begun` is how the event begins that reaches into `last` from before; None if the stream
    begins there. `encoding` is the Content-Encoding of these bytes: a compressed answer is read only if `last` is all
    of it.
    """
    if encoding:
        head, last = b"", decoded(last, encoding, limit=LONGEST_DECODED) or b""
    if (usual := usual_answer(last, events=events)) is not None:
        return usual
    if events:
        found, event, said = end_of(last, begun)
    else:
        said, event = whole_answer(last, path), b""
        found = "" if said is None else "whole"
    if said is None or (events and not is_complete(said.timings)):
        timings = search(last, head, path=path, events=events)
    else:
        timings = combined([said.usage], said.timings, said.metrics, path=path)
    return Answer(found, sse.field(event, b"data") or sse.field(event, b"error") or b"", timings)


def usual_answer(last: bytes, *, events: bool) -> Answer | None:
    """llama-server's answer to a chat or a completion, read in one decode; None for any other."""
    data = last
    if events:
        if not last.endswith(LAST):
            return None
        end = len(last) - len(LAST)
        start = last.rfind(b"\n\ndata: ", 0, end) + 8
        data = last[start:end]
        if start < 8 or b"\n" in data or b"\r" in data:
            return None
    try:
        told = USUAL.decode(data)
    except NOT_JSON:
        return None
    if told.timings.cache_n is None:
        return None
    return Answer("whole", data if events else b"", told.timings.timings(), told.id)


def ending(last: bytes, begun: bytes | None = None) -> Ending:
    """How a stream ended, while that alone matters; arguments as in `read_answer`."""
    return end_of(last, begun)[0]


def usage_of(timings: Timings) -> Usage:
    """The same figures as llama-swap's dashboards count them: what is unknown is 0 or -1, all 0 if nothing is known."""
    if timings == UNKNOWN:
        return NOTHING
    given = timings.evaluated if timings.given is None else timings.given
    known = timings.prefill is not None or timings.decode is not None
    return Usage(
        input_tokens=given or 0,
        output_tokens=timings.generated or 0,
        cache_tokens=-1 if timings.cached is None else timings.cached,
        draft_tokens=-1 if timings.drafted is None else timings.drafted,
        draft_acc_tokens=-1 if timings.accepted is None else timings.accepted,
        prompt_per_second=-1.0 if timings.prefill_speed is None else timings.prefill_speed,
        tokens_per_second=-1.0 if timings.decode_speed is None else timings.decode_speed,
        seconds=(timings.prefill or 0.0) + (timings.decode or 0.0) if known else None,
    )


# how it ended


def end_of(last: bytes, begun: bytes | None) -> tuple[Ending, bytes, Said | None]:
    """How a stream ended, its last event but `[DONE]`, and what that says; None if it is cut or no JSON object.

    Of a cut event only the beginning and the end are known: the last one of a Responses stream repeats the whole
    answer, llama.cpp's own the prompt.
    """
    event, begins, done = last_event(last)
    said: Said | None = None
    if begins or begun is None:
        said = said_in(event)
        found = ending_of(event, said)
    else:
        found = ending_of_cut(begun, event) if last.endswith(sse.EVENT_ENDS) else ""
    return "whole" if done and found != "failed" else found, event, said


def last_event(last: bytes) -> tuple[bytes, bool, bool]:
    """The last event but `[DONE]`, whether it begins in these bytes, and whether a `[DONE]` follows.

    vLLM says `[DONE]` after an error, too.
    """
    if len(last) > NEAR:
        event, begins, done = last_event(last[-NEAR:])
        if event and begins:
            return event, begins, done
    done = False
    for event, begins in sse.last_events(last):
        if (sse.field(event, b"data") or b"").strip() != DONE:
            return event, begins, done
        done = True
    return b"", True, done


def said_in(event: bytes) -> Said | None:
    """The data of an event, decoded: a word in a text that the model wrote is no end. None if it is no JSON object."""
    try:
        return msgspec.json.decode(sse.field(event, b"data") or b"", type=Said)
    except NOT_JSON:
        return None


def ending_of(event: bytes, said: Said | None) -> Ending:
    """How a stream ended whose last event is whole."""
    if said is None:  # older llama-servers write a field `error` instead of data if they fail
        return "failed" if sse.field(event, b"data") is None and sse.field(event, b"error") is not None else ""
    named = (sse.field(event, b"event") or b"").decode("latin-1")
    for kind in (said.type, named):  # llama-server's own type of error stands in an event of Anthropic's
        if isinstance(kind, str) and kind in ENDINGS:
            return ENDINGS[kind]
    if said.stop is True:
        return "whole"
    return "failed" if said.error or said.object == "error" else ""


def ending_of_cut(begun: bytes, end: bytes) -> Ending:
    """The same of an event of which only the beginning and the end are known."""
    name = sse.field(begun, b"event")
    if name is None:
        typed = FIRST_TYPE.search(begun) or LAST_TYPE.search(end)
        name = typed[1] if typed else b""
    return ENDINGS.get(name.decode("latin-1"), "whole" if STOPPED.search(begun) else "")


def whole_answer(body: bytes, path: str) -> Said | None:
    """What a whole JSON answer says; None if `body` is a part of one, or no JSON.

    `/infill` may answer with an array, whose last element counts; other arrays have no figures.
    """
    try:
        if body.lstrip()[:1] == b"[":
            elements = msgspec.json.decode(body, type=list[msgspec.Raw])
            if not elements or not path.endswith("/infill"):
                return Said()
            body = bytes(elements[-1])
        return msgspec.json.decode(body, type=Said)
    except NOT_JSON:
        return None


# what it cost


def search(last: bytes, head: bytes, *, path: str, events: bool) -> Timings:
    """The figures of a stream, or of an answer that is not whole, found by their keys.

    Each event of a stream may say something: Anthropic's first one what was cached, the last one what was generated.
    """
    usages = chain(objects(last, b'"usage"'), objects(head, b'"usage"'))
    timings = next(chain(objects(last, b'"timings"'), objects(head, b'"timings"')), None)
    metrics: Json = None
    if timings is None:
        found = chain(objects(last, b'"metrics"'), objects(head, b'"metrics"'))
        metrics = next((one for one in found if not METRICS.isdisjoint(one)), None)
    return combined(usages if events else islice(usages, 1), timings, metrics, path=path)


def objects(data: bytes, key: bytes) -> Iterator[Members]:
    """The JSON objects after `key` in `data`, the last one first; what is cut or no object is left out."""
    end = len(data)
    while (place := data.rfind(key, 0, end)) >= 0:
        end = place
        start = place + len(key)
        opening = data[start : start + 32].lstrip()
        if not opening.startswith(b":") or opening[1:].lstrip()[:1] not in {b"{", b""}:
            continue  # `"usage":null` stands in every event of some streams
        text = data[start : start + LONGEST].decode("utf-8", "replace").lstrip()[1:].lstrip()
        if not text.startswith("{"):
            continue
        try:
            yield DECODER.raw_decode(text)[0]
        except (ValueError, RecursionError):
            continue


def combined(usages: Iterable[Json], timings: Json, metrics: Json, *, path: str) -> Timings:
    """Put the three sources together; `usages` stand last first, and are not looked at if `timings` say all."""
    if is_complete(timings):
        return from_timings(timings)
    found = from_usages((usage for usage in usages if isinstance(usage, dict)), fresh="/messages" in path)
    if isinstance(timings, dict):
        return replace(from_timings(timings), cached=found.cached)  # older llama-servers do not say `cache_n`
    if isinstance(metrics, dict) and not METRICS.isdisjoint(metrics):
        return with_metrics(found, metrics)
    return found


def is_complete(timings: Json) -> bool:
    """Whether these are llama-server's `timings`, which leave no question open."""
    return isinstance(timings, dict) and "cache_n" in timings


def from_timings(timings: Members) -> Timings:
    """llama-server's `timings`, without the members that are of a wrong type."""
    right = {name: value for name, value in timings.items() if number(value) is not None}
    try:
        return msgspec.convert(right, Figures).timings()
    except msgspec.ValidationError:
        return UNKNOWN


def from_usages(usages: Iterable[Members], *, fresh: bool) -> Timings:
    """The counts of several `usage` objects: of each the last one that is not 0.

    `prompt_tokens` (completions) and `input_tokens` (responses) are the whole prompt. `fresh`: `input_tokens` are
    Anthropic's, what was read from the cache is not among them, and what was written to the cache stands beside them.
    """
    given = written = made = cached = None
    for usage in usages:
        given = filled(given, usage.get("prompt_tokens", usage.get("input_tokens")))
        fresh = fresh and "prompt_tokens" not in usage  # OpenAI's word, whatever the route is
        written = filled(written, usage.get("cache_creation_input_tokens"))
        made = filled(made, usage.get("completion_tokens", usage.get("output_tokens")))
        cached = cached_of(usage) if cached is None else cached
        if given and made and cached is not None:
            break
    evaluated = None
    if given is not None and fresh:
        evaluated = given + (written or 0)
    elif given is not None and cached is not None:
        evaluated = max(0, given - cached)
    return Timings(cached=cached, evaluated=evaluated, generated=made, given=given)


def filled(known: int | None, value: Json) -> int | None:
    """`known`, or `value` if that is a count and `known` is 0 or None."""
    found = None if known else count(value)
    return known if found is None else found


def cached_of(usage: Members) -> int | None:
    """Tokens that came from the cache, by Anthropic's, the Responses' or OpenAI's name."""
    if "cache_read_input_tokens" in usage:
        return count(usage["cache_read_input_tokens"])
    for name in ("input_tokens_details", "prompt_tokens_details"):
        details = usage.get(name)
        if isinstance(details, dict) and "cached_tokens" in details:
            return count(details["cached_tokens"])
    return None


def with_metrics(found: Timings, metrics: Members) -> Timings:
    """VLLM's `metrics`: latencies become speeds, and its drafts count as llama-server's do."""
    first, between = number(metrics.get("time_to_first_token_ms")), number(metrics.get("mean_itl_ms"))
    drafts = metrics.get("speculative_decoding")
    drafts = drafts if isinstance(drafts, dict) else {}
    drafted, accepted = count(drafts.get("num_draft_tokens")), count(drafts.get("num_accepted_draft_tokens"))
    both = drafted is not None and accepted is not None
    return replace(
        found,
        prefill_speed=max(0, (found.given or 0) - (found.cached or 0)) * 1000 / first if first else None,
        decode_speed=1000 / between if between else None,
        drafted=drafted if both else None,
        accepted=accepted if both else None,
    )


def number(value: Json) -> float | None:
    """A number that can be a figure: no text, not negative, and not more than a database can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:
        return None
    return value


def count(value: Json) -> int | None:
    found = number(value)
    return None if found is None else int(found)
