"""What llama-server leaves out of `/v1/responses`, filled in on the way to the client.

OpenAI's SDKs, and AI SDK, which asks this route unless told otherwise, read members of a Responses stream that
llama-server does not send, and fail without them: `sequence_number`, `output_index`, `content_index`, `logprobs`; of
the response `created_at`, `model`, `output`, `tools`, `tool_choice`, `parallel_tool_calls`, and parts of `usage`. One
event is missing, too: `response.function_call_arguments.done`.

    {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Hi"}
      ─►  {"sequence_number": 4, "output_index": 0, "content_index": 0, "logprobs": [], "type": …

A `Filling` stands at the last point before the socket (wire's `Responder`), so the record, the cache and the captures
see what the engine sent. An event is not decoded: the members are put in front of its own, which costs about a
microsecond. Only the items of an answer that end, and the answer itself, are opened. The first event tells whether any
of this is needed: an engine that numbers its events has the rest as well, and its stream passes as it is.

Pure: the clock is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from bioproxy.errors import NOT_JSON
from bioproxy.templates.bodies import Fields
from bioproxy.wire.http1.message import Headers
from bioproxy.wire.relay import EVENTS

Json: TypeAlias = Any

END = b"\n\n"
DATA = b"\ndata: {"
NUMBER = re.compile(rb'"sequence_number":\s*\d+')
PART = re.compile(rb'"part":\s*\{')
RESPONSE = re.compile(rb'"response":\s*\{')
ITEM = re.compile(rb'"item_id":\s*"([^"\\]*)"')  # within a text its quotes would be escaped
ITS_ID = re.compile(rb'"(?:call_)?id":\s*"([^"\\]*)"')  # older llama-servers give a call no other id
ECHOED = {"parallel_tool_calls": b"true", "tool_choice": b'"auto"', "tools": b"[]"}  # of the request, or by default
TEXT = b'"content_index":0,"logprobs":[],'
MEMBERS = {  # of an event that belongs to an item
    b"response.output_text.delta": TEXT,
    b"response.output_text.done": TEXT,
    b"response.content_part.added": b'"content_index":0,',
    b"response.content_part.done": b'"content_index":0,',
    b"response.reasoning_text.delta": b'"content_index":0,',
    b"response.reasoning_text.done": b'"content_index":0,',
    b"response.refusal.delta": b'"content_index":0,',
    b"response.refusal.done": b'"content_index":0,',
    b"response.function_call_arguments.delta": b"",
    b"response.function_call_arguments.done": b"",
}
BEGUN = frozenset({b"response.created", b"response.in_progress", b"response.queued"})
OVER = frozenset({b"response.completed", b"response.incomplete", b"response.failed"})
ADDED, DONE = b"response.output_item.added", b"response.output_item.done"
PART_ADDED = b"response.content_part.added"
ARGUMENTS = "response.function_call_arguments.done"
Ending: TypeAlias = Callable[[dict[str, Json]], None]


class Call(msgspec.Struct):
    """An item that ended, as far as it is a call of a function."""

    type: str = ""
    id: str | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""


class Ended(msgspec.Struct):
    """`response.output_item.done`."""

    item: Call


ENDED = msgspec.json.Decoder(Ended)
OBJECT = msgspec.json.Decoder(dict[str, Raw])


class Filling:
    """One answer on its way. `fields` are the request's, `model` is the client's word, `now` the second it came.

    `endings` may change the answer itself, opened as an object of raw values, before it goes out: the last event's
    `response`, or the body of an answer that is no stream.
    """

    def __init__(self, fields: Fields, *, model: str, now: int) -> None:
        self.now = now
        self.echoed = {name: echo(fields.get(name), default) for name, default in ECHOED.items()}
        self.model = msgspec.json.encode(model)
        self.endings: list[Ending] = []
        self.status = 200
        self.streams = False  # it is an event stream
        self.needed: bool | None = None  # nothing was said yet
        self.pieces: list[bytes] = []  # of a body that goes out whole, or of an event that is not whole yet
        self.number = 0
        self.places: dict[bytes, int] = {}  # id of an item to its place in the output
        self.told: set[bytes] = set()  # calls whose arguments the engine told to the end itself

    # what wire asks for

    def begin(self, status: int, headers: Headers) -> tuple[Headers, bool]:
        """An event stream goes out as it comes."""
        said = {name.lower(): value for name, value in headers}
        coded = said.get(b"content-encoding", b"identity") != b"identity"
        self.status, self.pieces = status, []
        self.streams = said.get(b"content-type", b"").lower().startswith(EVENTS)
        if coded or status != 200:
            self.needed = False
        kept = [pair for pair in headers if pair[0].lower() != b"content-length"]
        return kept, self.streams

    def feed(self, data: bytes) -> bytes:
        """The events that are whole; all there is if nothing is left out."""
        if not self.streams:
            self.pieces.append(data)
            return b""
        pieces = self.pieces
        if self.needed is False:
            return self.end() + data if pieces else data
        if pieces:
            seam = pieces[-1][-1:] + data
            pieces.append(data)
            if END not in seam:
                return b""
            data = b"".join(pieces)
        events = data.split(END)
        rest = events.pop()
        self.pieces = [rest] if rest else []
        return b"".join([self.event(event) for event in events])

    def end(self) -> bytes:
        """What is left; the whole answer if it is no stream."""
        rest, self.pieces = b"".join(self.pieces), []
        if self.streams or self.needed is False:
            return rest
        try:
            return self.whole(OBJECT.decode(rest))
        except NOT_JSON:
            return rest  # whatever it is, it is no response

    # a stream

    def event(self, event: bytes) -> bytes:
        """One event, with what it lacks."""
        head, mark, data = event.partition(DATA)
        kind = head[7:] if head.startswith(b"event: ") else b""
        if not mark or self.needed is False:
            return event + END
        if self.needed is None:
            self.needed = kind == b"response.created" and NUMBER.search(data) is None
            if not self.needed:
                return event + END
        number = self.number
        self.number += 1
        if (members := MEMBERS.get(kind)) is not None:
            found = ITEM.search(data)
            place = self.place(found[1]) if found else 0
            if kind == PART_ADDED and b'"annotations"' not in data:
                data = PART.sub(b'"part":{"annotations":[],"logprobs":[],', data, count=1)
            elif kind == ARGUMENTS.encode() and found:
                self.told.add(found[1])
            return b'%b%b"sequence_number":%d,"output_index":%d,%b%b\n\n' % (head, mark, number, place, members, data)
        if kind in {ADDED, DONE}:
            return self.item(head, mark, data, number=number, ended=kind == DONE)
        if kind in BEGUN:
            data = RESPONSE.sub(lambda found: found[0] + self.begun(), data, count=1)
        elif kind in OVER and b'"sequence_number":' not in data[:100]:  # a failure that we tell ourselves is whole
            return b'%b%b"sequence_number":%d,%b\n\n' % (head, mark, number, self.last(data))
        if NUMBER.search(data, 0, 100):
            return head + mark + NUMBER.sub(b'"sequence_number":%d' % number, data, count=1) + END
        return b'%b%b"sequence_number":%d,%b\n\n' % (head, mark, number, data)

    def place(self, item: bytes) -> int:
        """Where in the output an item stands: they come in their order."""
        return self.places.setdefault(item, len(self.places))

    def item(self, head: bytes, mark: bytes, data: bytes, *, number: int, ended: bool) -> bytes:
        """The beginning or the end of an item; before the end of a call its arguments are told whole."""
        found = ITS_ID.search(data)
        place = self.place(found[1] if found else b"")
        before = b""
        if ended and b'"function_call"' in data and found and found[1] not in self.told:
            before = self.arguments(data, found[1].decode(), place=place, number=number)
            if before:
                self.number = number = number + 1
                self.number += 1
        return b'%b%b%b"sequence_number":%d,"output_index":%d,%b\n\n' % (before, head, mark, number, place, data)

    def arguments(self, data: bytes, item: str, *, place: int, number: int) -> bytes:
        """The event that tells the arguments of a call to the end."""
        try:
            call = ENDED.decode(b"{" + data).item
        except NOT_JSON:
            return b""  # it was cut off
        told = {
            "type": ARGUMENTS, "sequence_number": number, "output_index": place, "item_id": item,
            "name": call.name, "arguments": call.arguments,
        }  # fmt: skip
        return b"event: %b\ndata: %b\n\n" % (ARGUMENTS.encode(), msgspec.json.encode(told))

    def begun(self) -> bytes:
        """What a response lacks that has begun."""
        echoed = b"".join(b'"%b":%b,' % (name.encode(), value) for name, value in self.echoed.items())
        return b'"created_at":%d,"model":%b,"output":[],"usage":null,%b"error":null,"incomplete_details":null,' % (
            self.now,
            self.model,
            echoed,
        )

    def last(self, data: bytes) -> bytes:
        """The event that ends a stream, without its first brace."""
        try:
            event = OBJECT.decode(b"{" + data)
            answer: dict[str, Json] = OBJECT.decode(event["response"])
        except (*NOT_JSON, KeyError):
            return data  # it was cut off
        answer["created_at"] = self.now
        event["response"] = Raw(self.whole(answer))
        return msgspec.json.encode(event)[1:]

    # an answer

    def whole(self, answer: dict[str, Json]) -> bytes:
        """A response with what it lacks."""
        answer.setdefault("created_at", self.now)
        answer.setdefault("model", Raw(self.model))
        for name, value in self.echoed.items():
            answer.setdefault(name, Raw(value))
        answer.setdefault("error", None)
        answer.setdefault("incomplete_details", None)
        answer["usage"] = usage(answer.get("usage"))
        for change in self.endings:
            change(answer)
        return msgspec.json.encode(answer)


def echo(value: Raw | None, default: bytes) -> bytes:
    """A member of the request as the response repeats it."""
    return default if value is None or bytes(value) == b"null" else bytes(value)


def usage(told: Raw | None) -> Json:
    """The counts with those that SDKs require; llama-server does not count reasoning apart. None if there are none."""
    try:
        counts = msgspec.json.decode(told or b"null", type=dict[str, Json] | None)
    except NOT_JSON:
        return told
    if counts is None:
        return None
    read = counts.get("input_tokens_details") or {}
    said = counts.get("output_tokens_details") or {}
    counts["input_tokens_details"] = {"cached_tokens": 0, "cache_write_tokens": 0, **read}
    counts["output_tokens_details"] = {"reasoning_tokens": 0, **said}
    return counts
