"""The road's answers as Ollama's: events become lines of JSON, a whole answer one object, an error `{"error": text}`.

A `Rewriting` stands at the last point before the socket (wire's `Responder`). All that the road says passes it: the
engine's events, the signs of life and the words about a load that are ours, an error that ends a stream. So none of
these knows of Ollama, and the record, the cache and the captures see what the engine sent.

    data: {"choices": [{"delta": {"content": "Hi"}}]}   ─►  {"model": …, "message": {"content": "Hi"}, "done": false}
    data: {…, "timings": {…}}, data: [DONE]             ─►  {…, "done": true, "done_reason": "stop", "eval_count": …}
    : bioproxy keeps this open                          ─►  a blank

A blank is the sign of life that no reader of JSON lines sees; an empty line would break those that decode each line.
Calls of tools come in pieces and go out whole, before the last line. Counts are the engine's own: `prompt_eval_count`
is the whole prompt, also what came out of the cache, as Ollama counts it. Pure: the clock is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from bioproxy.engines.answers import DONE, Timings, combined
from bioproxy.engines.refused import error_message, error_words
from bioproxy.errors import NOT_JSON
from bioproxy.front.ollama.requests import CHAT, Shape
from bioproxy.wire.coding import decoded
from bioproxy.wire.http1.message import Headers
from bioproxy.wire.relay import EVENTS

Json: TypeAlias = Any

LINES = b"application/x-ndjson"
OBJECT = b"application/json; charset=utf-8"
REPLACED = frozenset({b"content-type", b"content-length", b"content-encoding"})
LONGEST = 64 << 20  # bytes of an answer that came compressed, though it was asked not to
SIGN_OF_LIFE = b" "
NANO = 10**9
BROKEN = 502


class Moment(msgspec.Struct, frozen=True):
    """Now, as Ollama writes it, and how long the request took so far (seconds); of that, the load of its model."""

    written: str
    total: float
    load: float


class Function(msgspec.Struct):
    """Of a call; a stream sends its arguments in pieces."""

    name: str | None = None
    arguments: str | None = None


class Part(msgspec.Struct):
    """A call of a tool, or a piece of one."""

    index: int = 0
    id: str | None = None
    function: Function = msgspec.field(default_factory=Function)


class Said(msgspec.Struct):
    """What the model said, or a piece of it."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None  # vLLM's
    tool_calls: list[Part] | None = None


class Choice(msgspec.Struct):
    """One answer of an engine, or a piece of it."""

    delta: Said | None = None
    message: Said | None = None
    text: str | None = None
    finish_reason: str | None = None


class Vector(msgspec.Struct):
    """One embedding, its numbers as they came."""

    embedding: Raw
    index: int = 0


class Told(msgspec.Struct):
    """An event, or a whole answer, of the routes that requests.py goes to."""

    choices: list[Choice] = []
    content: str | None = None  # /infill
    stop: bool = False
    stop_type: str | None = None
    data: list[Vector] | None = None
    usage: Json = None
    timings: Json = None
    error: Json = None


TOLD = msgspec.json.Decoder(Told)


class Rewriting:
    """One answer on its way to a client of Ollama's API. `moment` tells the time, `model` is the client's word."""

    def __init__(self, shape: Shape, model: str, *, moment: Callable[[], Moment]) -> None:
        self.shape = shape
        self.model = msgspec.json.encode(model)
        self.moment = moment
        self.status = 200
        self.streams = False
        self.encoding = ""
        self.pieces: list[bytes] = []  # of a body that goes out whole, or of a line of a stream that is not whole yet
        self.calls: dict[int, Part] = {}
        self.reason = ""  # why the model stopped, once it has
        self.costs: list[Told] = []
        self.over = False

    # what wire asks for

    def begin(self, status: int, headers: Headers) -> tuple[Headers, bool]:
        """An event stream goes out as it comes."""
        said = {name.lower(): value for name, value in headers}
        self.encoding = said.get(b"content-encoding", b"").decode("latin-1")
        events = said.get(b"content-type", b"").lower().startswith(EVENTS)
        self.status, self.streams = status, status == 200 and events and not self.encoding
        self.pieces.clear()
        kept = [pair for pair in headers if pair[0].lower() not in REPLACED]
        return [*kept, (b"Content-Type", LINES if self.streams else OBJECT)], self.streams

    def feed(self, data: bytes) -> bytes:
        """The lines that whole events have become."""
        end = data.rfind(b"\n") if self.streams else -1
        if end < 0:
            self.pieces.append(data)
            return b""
        lines = b"".join((*self.pieces, data[:end])).split(b"\n")
        self.pieces = [data[end + 1 :]]
        return b"".join([self.line(line.rstrip(b"\r")) for line in lines if line])

    def end(self) -> bytes:
        """The last line if the engine stopped without saying so; or the whole object."""
        rest = b"".join(self.pieces)
        self.pieces = []
        if not self.streams:
            return self.whole(decoded(rest, self.encoding, limit=LONGEST) or b"")
        return self.line(rest.rstrip(b"\r")) + (self.last() if self.reason else b"")

    # a stream

    def line(self, line: bytes) -> bytes:
        """One line of an event stream."""
        if line.startswith(b":"):
            return SIGN_OF_LIFE
        name, _, data = line.partition(b":")
        data = data.strip()
        if self.over or name not in {b"data", b"error"} or not data:
            return b""
        if data == DONE:
            return self.last()
        try:
            told = TOLD.decode(data)
        except NOT_JSON as error:
            return self.fail(f"the engine sent an event that cannot be read: {error}")
        if told.error is not None or name == b"error":
            return self.fail(error_words(data) or "the engine failed")
        return self.event(told)

    def event(self, told: Told) -> bytes:
        """One event of the engine's, or of ours."""
        if told.timings is not None or told.usage is not None:
            self.costs.append(told)
        if told.content is not None:
            out = self.piece(told.content, "") if told.content else b""
            self.reason = reason_of(told.stop_type) if told.stop else ""
            return out + (self.last() if told.stop else b"")
        if not told.choices:
            return b""
        choice = told.choices[0]
        said = choice.delta or choice.message or Said()
        for part in said.tool_calls or ():
            self.collect(part)
        if choice.finish_reason:
            self.reason = reason_of(choice.finish_reason)
        text, thought = choice.text or said.content or "", said.reasoning_content or said.reasoning or ""
        return self.piece(text, thought) if text or thought else b""

    def collect(self, part: Part) -> None:
        """A call of a tool, or a piece of one: the name comes first, then the arguments bit by bit."""
        call = self.calls.setdefault(part.index, Part(part.index, function=Function("", "")))
        call.id = call.id or part.id
        call.function.name = call.function.name or part.function.name
        call.function.arguments = f"{call.function.arguments}{part.function.arguments or ''}"

    def piece(self, text: str, thought: str) -> bytes:
        """One line of a stream."""
        return self.opening() + self.words(text, thought) + b',"done":false}\n'

    def last(self) -> bytes:
        """The calls, and the line that ends a stream."""
        if self.over:
            return b""
        self.over = True
        try:
            calls = list(self.called())
        except NOT_JSON as error:
            return msgspec.json.encode({"error": f"the model's call of a tool cannot be read: {error}"}) + b"\n"
        first = self.opening() + self.words("", "", calls) + b',"done":false}\n' if calls else b""
        return first + self.opening() + self.words("", "") + self.ending(self.moment()) + b"\n"

    def fail(self, sentence: str) -> bytes:
        """An error ends a stream: no line says that it is done."""
        self.over, self.reason = True, ""
        return msgspec.json.encode({"error": sentence}) + b"\n"

    # a whole answer

    def whole(self, body: bytes) -> bytes:
        """One object; an error if that is what the engine, or bioproxy, said."""
        try:
            told = TOLD.decode(body)
        except NOT_JSON as error:
            return self.refusal(error_message(body, self.status) if self.status >= 400 else f"not JSON: {error}")
        if self.status >= 400 or told.error is not None:
            return self.refusal(error_message(body, self.status))
        self.costs.append(told)
        if told.data is not None:
            return self.vectors(sorted(told.data, key=lambda one: one.index))
        choice = told.choices[0] if told.choices else Choice(text=told.content, finish_reason=told.stop_type)
        said = choice.message or choice.delta or Said(content=choice.text)
        self.reason = reason_of(choice.finish_reason)
        for place, part in enumerate(said.tool_calls or ()):
            part.index = place
            self.collect(part)
        try:
            calls = list(self.called())
        except NOT_JSON as error:
            return self.refusal(f"the model's call of a tool cannot be read: {error}")
        words = self.words(said.content or "", said.reasoning_content or said.reasoning or "", calls)
        return self.opening() + words + self.ending(self.moment())

    def refusal(self, sentence: str) -> bytes:
        """The error, with a status that says so."""
        self.status = self.status if self.status >= 400 else BROKEN
        return msgspec.json.encode({"error": sentence})

    def vectors(self, found: list[Vector]) -> bytes:
        """Embeddings; the older route has one."""
        if self.shape == "embeddings":
            return msgspec.json.encode({"embedding": found[0].embedding if found else []})
        now, timings = self.moment(), self.timings()
        return msgspec.json.encode({
            "model": Raw(self.model),
            "embeddings": [one.embedding for one in found],
            "total_duration": nano(now.total),
            "load_duration": nano(now.load),
            "prompt_eval_count": prompt_of(timings),
        })  # fmt: skip

    # parts of both

    def opening(self) -> bytes:
        """How each object begins."""
        return b'{"model":%b,"created_at":"%b"' % (self.model, self.moment().written.encode())

    def words(self, text: str, thought: str, calls: list[Json] | None = None) -> bytes:
        """What was said: a message of a chat, or the members of a completion."""
        chat = self.shape == "chat"
        said = b',"message":{"role":"assistant","content":' if chat else b',"response":'
        said += msgspec.json.encode(text)
        if thought:
            said += b',"thinking":' + msgspec.json.encode(thought)
        if calls:
            said += b',"tool_calls":' + msgspec.json.encode(calls)
        return said + b"}" if chat else said

    def called(self) -> Iterator[dict[str, Json]]:
        """The calls of tools, their arguments as an object; msgspec's error if they are none."""
        for place, call in sorted(self.calls.items()):
            arguments = msgspec.json.decode(call.function.arguments or "{}", type=dict[str, Raw])
            function = {"index": place, "name": call.function.name or "", "arguments": arguments}
            yield {"id": call.id, "function": function} if call.id else {"function": function}

    def timings(self) -> Timings:
        """What the engine says that it cost; the last event that says something counts."""
        timings = next((one.timings for one in reversed(self.costs) if isinstance(one.timings, dict)), None)
        usages = [one.usage for one in reversed(self.costs)]
        return combined(usages, timings, None, path=CHAT)

    def ending(self, now: Moment) -> bytes:
        """How the last object ends: why, how long, how much; times in nanoseconds."""
        timings = self.timings()
        figures = {
            "done": True,
            "done_reason": self.reason or "stop",
            "total_duration": nano(now.total),
            "load_duration": nano(now.load),
            "prompt_eval_count": prompt_of(timings),
            "prompt_eval_duration": nano(timings.prefill or 0.0),
            "eval_count": timings.generated or 0,
            "eval_duration": nano(timings.decode or 0.0),
        }
        return b"," + msgspec.json.encode(figures)[1:]


def nothing_said(shape: Shape, model: str, *, written: str, reason: str) -> dict[str, Json]:
    """The answer to a request that computes nothing: the model was loaded or unloaded."""
    if shape == "embeddings":
        return {"embedding": []}
    if shape == "embed":
        return {"model": model, "embeddings": []}
    said: dict[str, Json] = {"message": {"role": "assistant", "content": ""}} if shape == "chat" else {"response": ""}
    return {"model": model, "created_at": written, **said, "done": True, "done_reason": reason}


def reason_of(word: str | None) -> str:
    """Ollama knows two reasons: the model had said all, or no more was allowed."""
    return "length" if word in {"length", "limit"} else "stop"


def prompt_of(timings: Timings) -> int:
    """Tokens of the whole prompt."""
    return (timings.cached or 0) + timings.evaluated if timings.evaluated is not None else timings.given or 0


def nano(seconds: float) -> int:
    """Nanoseconds."""
    return round(seconds * NANO)
