"""What an answer says of the prompt cache, in its client's form: honest usage, in streams too.

    engine:  cached, evaluated                 ─►  read, written (by lifetime), the rest

*Read* is what came out of the cache before this request did anything. *Written* is what it evaluated and left there,
up to its last breakpoint: with OpenAI the prompt's end is one unless the client said otherwise, with Anthropic only
what is marked counts. The counts are the engine's own. Where a breakpoint stands is known to the token if a snapshot
was cut there, else by its share of the prompt's bytes. What the engine says itself stays, and what it does not say is
not made up: without its count of cached tokens nothing is added.

A `Rewriting` stands at the last point before the socket (wire's `Responder`), only for requests that carry one of the
fields. Of a stream it opens the two or three events that say something of the prompt; all others pass as they come.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from bioproxy.errors import NOT_JSON
from bioproxy.front.caching.fields import Ttl, Wishes, places
from bioproxy.prompt import Piece
from bioproxy.templates.bodies import Fields
from bioproxy.wire import sse
from bioproxy.wire.http1.message import Headers, Rewriter
from bioproxy.wire.relay import EVENTS

Json: TypeAlias = Any

EVENT_END = re.compile(rb"\r?\n\r?\n")
TELLS = {"chat": b'"usage"', "anthropic": b'"usage"', "responses": b'"response"'}  # in events that are opened
BARE: dict[str, frozenset[str]] = {  # the events of an answer in which nothing is said
    "anthropic": frozenset({"message_start", "message_delta", "message_stop", "ping", "error"}),
    "responses": frozenset({
        "response.created", "response.in_progress", "response.completed", "response.incomplete", "response.failed",
        "error",
    }),
}  # fmt: skip
OBJECT = msgspec.json.Decoder(Fields)


class End(msgspec.Struct):
    """A breakpoint in the prompt: after so many `tokens`, or (0: not known) after this `share` of its bytes."""

    share: float
    ttl: Ttl
    tokens: int = 0


class Bill(msgspec.Struct):
    """What the answer's usage is made of, beside what the engine says.

    `before`: tokens that were evaluated for the breakpoints ahead of the request itself, which finds them cached.
    """

    ends: Sequence[End] = ()
    before: int = 0


def bill(pieces: Sequence[Piece], wishes: Wishes) -> Bill:
    """What is known before the engine has said anything: where the breakpoints stand."""
    starts = [0, *accumulate(len(piece.data) for piece in pieces)]
    found = places(pieces, wishes)
    return Bill([End((starts[one.piece] + one.offset) / max(1, starts[-1]), one.mark.ttl) for one in found])


class Counted(msgspec.Struct, frozen=True):
    """A prompt's tokens: read from the cache, written to it by lifetime, and all of them."""

    total: int
    read: int
    written: Mapping[str, int]

    @property
    def kept(self) -> int:
        return sum(self.written.values())


def counted(total: int, cached: int, *, bill: Bill, implicit: Ttl | None) -> Counted:
    """The tokens of a prompt of which the engine found `cached`; `implicit`: the prompt's end is a breakpoint, too."""
    reached = read = max(0, cached - bill.before)
    written: dict[str, int] = {}
    ends = [*bill.ends, End(1.0, implicit, total)] if implicit is not None else bill.ends
    for end in ends:
        place = min(total, end.tokens or round(total * end.share))
        if place > reached:
            written[end.ttl] = written.get(end.ttl, 0) + place - reached
            reached = place
    return Counted(total, read, written)


class Rewriting:
    """One answer on its way.

    `bill` tells what is known when the engine answers. `diagnose` says in the client's form why the cache did not hold
    more.
    """

    def __init__(
        self,
        wishes: Wishes,
        bill: Callable[[], Bill],
        *,
        diagnose: Callable[[Counted], Json] | None = None,
    ) -> None:
        self.wishes = wishes
        self.bill = bill
        self.diagnose = diagnose
        self.status = 200
        self.streams = self.plain = False
        self.pieces: list[bytes] = []  # of a body that goes out whole
        self.rest = b""  # of a stream: an event that is not whole yet
        self.counted: Counted | None = None
        self.tells = TELLS[wishes.form]

    # what wire asks for

    def begin(self, status: int, headers: Headers) -> tuple[Headers, bool]:
        """An event stream goes out as it comes."""
        said = {name.lower(): value for name, value in headers}
        self.status = status
        self.plain = status == 200 and said.get(b"content-encoding", b"identity").lower() == b"identity"
        self.streams = said.get(b"content-type", b"").lower().startswith(EVENTS)
        self.pieces.clear()
        return [pair for pair in headers if pair[0].lower() != b"content-length"], self.streams

    def feed(self, data: bytes) -> bytes:
        """The events that are whole; of an answer that is no stream nothing yet."""
        if not self.streams:
            self.pieces.append(data)
            return b""
        if not self.plain:
            return data
        if self.rest:
            data = self.rest + data
        elif self.tells not in data and data.endswith(b"\n\n") and not self.wishes.prewarm:
            return data
        out, end = [], 0
        for found in EVENT_END.finditer(data):
            out.append(self.event(data[end : found.end()]))
            end = found.end()
        self.rest = data[end:]
        return b"".join(out)

    def end(self) -> bytes:
        """What is left of a stream, or the whole answer."""
        if self.streams:
            rest, self.rest = self.rest, b""
            return self.event(rest) if rest else b""
        body = b"".join(self.pieces)
        self.pieces = []
        return self.whole(body) if self.plain else body

    # its two forms

    def whole(self, body: bytes) -> bytes:
        """A whole answer; what is no JSON object passes as it came."""
        try:
            answer = OBJECT.decode(body)
            self.answer(answer)
        except NOT_JSON:
            return body
        return msgspec.json.encode(answer)

    def event(self, event: bytes) -> bytes:
        """One event, as its client is to see it; b"" for one of an answer that nobody asked for."""
        opened = self.tells in event
        if not opened and not self.wishes.prewarm:
            return event
        data = sse.field(event, b"data")
        if data is None:
            return event  # a comment
        try:
            said = OBJECT.decode(data)
            kind = msgspec.json.decode(said.get("type", b'""'), type=str)
            if self.wishes.prewarm and kind not in BARE[self.wishes.form]:
                return b""
            if not opened or not self.change(kind, said):
                return event
        except NOT_JSON:
            return event
        name = sse.field(event, b"event")
        begun = b"event: %b\n" % name if name is not None else b""
        return b"%bdata: %b\n\n" % (begun, msgspec.json.encode(said))

    def change(self, kind: str, said: Fields) -> bool:
        """Change what an event says; False if there is nothing to change."""
        if self.wishes.form == "chat":
            self.answer(said)
        elif kind == "message_start":
            said["message"] = self.inner(said["message"])
        elif kind == "message_delta":
            said["usage"] = self.usage(said["usage"])
        elif kind.startswith("response.") and "response" in said:
            said["response"] = self.inner(said["response"])
        else:
            return False
        return True

    def inner(self, raw: Raw) -> Raw:
        """The answer inside an event."""
        answer = OBJECT.decode(raw)
        self.answer(answer)
        return Raw(msgspec.json.encode(answer))

    # what it says

    def answer(self, answer: Fields) -> None:
        """An answer's members: usage, what was applied, what was found out."""
        if bytes(answer.get("usage", Raw(b"null"))) != b"null":
            answer["usage"] = self.usage(answer["usage"])
        if self.wishes.form == "responses":
            self.applied(answer)
        elif self.wishes.form == "anthropic" and "role" in answer:
            if self.wishes.prewarm:
                answer["content"] = Raw(b"[]")
            if self.wishes.compare is not None:
                told = self.diagnose(self.counted) if self.diagnose is not None and self.counted is not None else None
                answer["diagnostics"] = encoded(told)

    def applied(self, answer: Fields) -> None:
        """A Responses object: the options as they were applied."""
        wishes, options = self.wishes, self.wishes.options
        if wishes.prewarm and "output" in answer:
            answer["output"] = Raw(b"[]")
        told: dict[str, Json] = {"mode": wishes.mode, "ttl": wishes.ttl}
        if options is not None and options.comparison_response_id is not None:
            told["comparison_response_id"] = options.comparison_response_id
        answer["prompt_cache_options"] = encoded(told)
        if wishes.key is not None:
            answer["prompt_cache_key"] = encoded(wishes.key)
        if wishes.retention:
            answer["prompt_cache_retention"] = encoded(wishes.retention)
        if self.diagnose is not None and self.counted is not None:
            answer["prompt_cache_diagnostics"] = encoded(self.diagnose(self.counted))

    def usage(self, raw: Raw) -> Raw:
        """The usage with what the engine left out."""
        usage: dict[str, Json] = msgspec.json.decode(raw, type=dict[str, Any])
        change = {"chat": self.chat, "anthropic": self.messages, "responses": self.responses}[self.wishes.form]
        change(usage)
        return encoded(usage)

    def count(self, total: Json, cached: Json) -> Counted | None:
        """The prompt's tokens, as far as the engine says them."""
        if not isinstance(total, int) or not isinstance(cached, int):
            return None
        implicit = self.wishes.ttl if self.wishes.implicit else None
        self.counted = counted(total, cached, bill=self.bill(), implicit=implicit)
        return self.counted

    def chat(self, usage: dict[str, Json]) -> None:
        details = usage.get("prompt_tokens_details")
        if not isinstance(details, dict) or "cache_write_tokens" in details:
            return
        if found := self.count(usage.get("prompt_tokens"), details.get("cached_tokens")):
            details |= {"cached_tokens": found.read, "cache_write_tokens": found.kept}

    def responses(self, usage: dict[str, Json]) -> None:
        usage.setdefault("output_tokens_details", {"reasoning_tokens": 0})
        if self.wishes.prewarm:
            usage |= {"output_tokens": 0, "total_tokens": usage.get("input_tokens", 0)}
        details = usage.get("input_tokens_details")
        if not isinstance(details, dict) or "cache_write_tokens" in details:
            return
        if found := self.count(usage.get("input_tokens"), details.get("cached_tokens")):
            by_ttl = {f"ttl_{ttl}_tokens": found.written.get(ttl, 0) for ttl in ("30m", "12h")}
            details |= {
                "cached_tokens": found.read,
                "cache_write_tokens": found.kept,
                "cache_write_tokens_details": by_ttl,
            }

    def messages(self, usage: dict[str, Json]) -> None:
        if self.wishes.prewarm:
            usage["output_tokens"] = 0
        given, cached = usage.get("input_tokens"), usage.get("cache_read_input_tokens")
        if "cache_creation_input_tokens" in usage:
            return
        total = given + cached if isinstance(given, int) and isinstance(cached, int) else None
        found = self.counted if total is None else self.count(total, cached)  # a stream's end says the same once more
        if found is None:
            return
        usage |= {
            "input_tokens": found.total - found.read - found.kept,
            "cache_read_input_tokens": found.read,
            "cache_creation_input_tokens": found.kept,
        }
        if total is not None:
            usage["cache_creation"] = {
                f"ephemeral_{ttl}_input_tokens": found.written.get(ttl, 0) for ttl in ("5m", "1h")
            }


def rewriting(
    known: Rewriter | None, wishes: Wishes, bill: Callable[[], Bill], *, diagnose: Callable[[Counted], Json] | None
) -> Rewriter:
    """What rewrites an answer in which nothing was rewritten so far, or which `known` will rewrite after that.

    If that is ours already, a model before this one could not answer: it goes on, for its stream may have begun.
    """
    ours = known.first if isinstance(known, Chain) else known
    if isinstance(ours, Rewriting):
        ours.bill, ours.diagnose = bill, diagnose
        return known or ours
    mine = Rewriting(wishes, bill, diagnose=diagnose)
    return mine if known is None else Chain(mine, known)


def accepted(wishes: Wishes, *, model: str, identity: str, now: int) -> bytes:
    """The answer to a prewarm whose client does not wait for it: nothing is said, and nothing counted yet."""
    if wishes.form == "anthropic":
        counts = dict.fromkeys(("cache_creation_input_tokens", "cache_read_input_tokens"), 0)
        return msgspec.json.encode({
            "id": f"msg_{identity}", "type": "message", "role": "assistant", "model": model, "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 0, "output_tokens": 0, **counts},
        })  # fmt: skip
    answer: dict[str, Json] = {
        "id": f"resp_{identity}", "object": "response", "created_at": now, "status": "in_progress", "model": model,
        "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": None, "error": None,
        "incomplete_details": None, "prompt_cache_options": {"mode": wishes.mode, "ttl": wishes.ttl},
    }  # fmt: skip
    return msgspec.json.encode(answer)


class Chain:
    """Two rewriters, of which the second makes its answer of what the first one made."""

    def __init__(self, first: Rewriting, second: Rewriter) -> None:
        self.first, self.second = first, second
        self.status = 200

    def begin(self, status: int, headers: Headers) -> tuple[Headers, bool]:
        return self.second.begin(status, self.first.begin(status, headers)[0])

    def feed(self, data: bytes) -> bytes:
        return self.second.feed(self.first.feed(data))

    def end(self) -> bytes:
        out = self.second.feed(self.first.end()) + self.second.end()
        self.status = self.second.status
        return out


def encoded(value: Json) -> Raw:
    return Raw(msgspec.json.encode(value))
