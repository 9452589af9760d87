"""What the fake engine for swaps answers: OpenAI's and Anthropic's shapes, and an echo of everything else.

A request may say how its answer comes (in its JSON body, its query or as a header `X-Name`):

    delay S        seconds before the first byte
    events N       pieces of text (4), each an event of a stream
    rate R         events a second (0: at once)
    hold N         stop before event N (plain answers: before the first byte) until somebody asks for /release (or
                   before each of a list of them)
    status N       an error of that status instead
    tool_calls B   the answer ends in a tool call
    bytes N        a text that is that long

A client that cannot say so, a browser, is helped by the test: `POST /script` to the engine gives all these for the
requests that follow, and further:

    pieces LIST    the pieces of text themselves
    streams        path -> a list of events [name, value] instead of its own
    answers        path -> a plain answer instead of its own: JSON, or {"base64": …, "kind": its Content-Type}
"""

from __future__ import annotations

from fakes.swap_http import Call, Connection, form_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Json = Any

NAME, ARGUMENTS = "look_up", '{"word":"swap"}'


class Answer:
    """One answer under way. `model` is who answers; `hold` waits for a release; `middle` is called half-way."""

    def __init__(
        self,
        call: Call,
        connection: Connection,
        *,
        model: str,
        script: Json,
        hold: Callable[[], None],
        middle: Callable[[], None],
    ) -> None:
        self.call, self.connection, self.model, self.script = call, connection, model, script
        self.hold, self.middle = hold, middle
        self.tool_calls = False

    def run(self) -> None:
        """Answer the request."""
        self.tool_calls = bool(self.wish("tool_calls", self.tool_calls))
        self.connection.pause(float(self.wish("delay", 0)))
        if self.wish("hold", None) is not None and not self.streams:
            self.hold()
        status = int(self.wish("status", 200))
        scripted = self.script.get("answers", {}).get(self.call.path)
        if status != 200:
            self.connection.answer(status, {"error": {"message": f"the fake was asked for {status}", "code": status}})
        elif self.streams:
            self.stream()
        elif isinstance(scripted, dict) and "base64" in scripted:
            import base64  # only this needs it

            self.connection.answer(200, base64.b64decode(scripted["base64"]), kind=scripted["kind"])
        else:
            self.connection.answer(200, scripted or self.whole(), bare=self.call.method == "HEAD")

    def wish(self, name: str, default: Json) -> Json:
        """What the client wants of the fake, or the test for it."""
        return self.call.wish(name, self.script.get(name, default))

    @property
    def streams(self) -> bool:
        """Whether the client wants events."""
        return bool(self.call.members.get("stream")) and self.call.path in {*STREAMS, *self.script.get("streams", {})}

    @property
    def stamp(self) -> Json:
        """What each answer carries: the model as the client named it, and who really answered."""
        return {"model": self.call.members.get("model", self.model), "served_by": self.model}

    def pieces(self) -> list[str]:
        """The text in pieces."""
        if "pieces" in self.script:
            return list(self.script["pieces"])
        size = int(self.wish("bytes", 0))
        return ["x" * size] if size else [f"word{number} " for number in range(int(self.wish("events", 4)))]

    def usage(self, given: str = "prompt_tokens", made: str = "completion_tokens") -> Json:
        """Token counts: words of the body, and pieces."""
        return {given: len(self.call.body.split()), made: len(self.pieces())}

    def whole(self) -> Json:
        """A plain answer."""
        shape = PLAIN.get(self.call.path)
        if shape is not None and self.call.method == "POST":
            return shape(self) | self.stamp
        return {**self.call.record(), "served_by": self.model, "echo": True}

    def stream(self) -> None:
        """An answer as events: pauses, holds and the engine's crash come between them."""
        rate, hold = float(self.wish("rate", 0)), self.wish("hold", None)
        holds = hold if isinstance(hold, list) else [hold]
        if 0 in holds:
            self.hold()
        self.connection.stream()
        pieces = self.pieces()
        scripted = self.script.get("streams", {}).get(self.call.path)
        for place, (name, event) in enumerate(scripted or STREAMS[self.call.path](self, pieces)):
            if place and place in holds:
                self.hold()
            if place == len(pieces) // 2:
                self.middle()
            self.connection.pause(1 / rate if rate else 0)
            self.connection.event(event, name)
        self.connection.end()


def tool_call() -> Json:
    """A call in OpenAI's shape."""
    return {"index": 0, "id": "call_1", "type": "function", "function": {"name": NAME, "arguments": ARGUMENTS}}


def chat(answer: Answer) -> Json:
    """`/v1/chat/completions`."""
    message: Json = {"role": "assistant", "content": "".join(answer.pieces())}
    if answer.tool_calls:
        message["tool_calls"] = [tool_call()]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if answer.tool_calls else "stop"}
    return {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": answer.usage()}


def chat_events(answer: Answer, pieces: list[str]) -> Iterator[tuple[str, Json]]:
    """The same as a stream."""
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", **answer.stamp}

    def chunk(delta: Json, reason: str | None = None) -> Json:
        return {**common, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    for piece in pieces:
        yield "", chunk({"content": piece})
    if answer.tool_calls:
        yield "", chunk({"tool_calls": [tool_call()]})
    yield "", chunk({}, "tool_calls" if answer.tool_calls else "stop") | {"usage": answer.usage()}
    yield "", "[DONE]"


def completion(answer: Answer) -> Json:
    """`/v1/completions`."""
    choice = {"index": 0, "text": "".join(answer.pieces()), "finish_reason": "stop"}
    return {"id": "cmpl-1", "object": "text_completion", "choices": [choice], "usage": answer.usage()}


def completion_events(answer: Answer, pieces: list[str]) -> Iterator[tuple[str, Json]]:
    """The same as a stream."""
    for place, piece in enumerate(pieces, 1):
        reason = "stop" if place == len(pieces) else None
        choice = {"index": 0, "text": piece, "finish_reason": reason}
        yield "", {"id": "cmpl-1", "object": "text_completion", "choices": [choice], **answer.stamp}
    yield "", "[DONE]"


def message(answer: Answer) -> Json:
    """`/v1/messages`, Anthropic's."""
    content: list[Json] = [{"type": "text", "text": "".join(answer.pieces())}]
    if answer.tool_calls:
        content.append({"type": "tool_use", "id": "toolu_1", "name": NAME, "input": {"word": "swap"}})
    reason = "tool_use" if answer.tool_calls else "end_turn"
    usage = answer.usage("input_tokens", "output_tokens")
    return {"id": "msg_1", "type": "message", "role": "assistant", "content": content, "stop_reason": reason} | {
        "usage": usage
    }


def message_events(answer: Answer, pieces: list[str]) -> Iterator[tuple[str, Json]]:
    """The same as a stream."""
    usage = answer.usage("input_tokens", "output_tokens")
    empty = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": usage, **answer.stamp}
    yield "message_start", {"type": "message_start", "message": empty}
    yield "content_block_start", {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}}
    for piece in pieces:
        delta = {"type": "text_delta", "text": piece}
        yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
    yield "content_block_stop", {"type": "content_block_stop", "index": 0}
    reason = {"stop_reason": "tool_use" if answer.tool_calls else "end_turn"}
    yield "message_delta", {"type": "message_delta", "delta": reason, "usage": usage}
    yield "message_stop", {"type": "message_stop"}


def embeddings(answer: Answer) -> Json:
    """`/v1/embeddings`: one vector per input."""
    given = answer.call.members.get("input", "")
    inputs = given if isinstance(given, list) else [given]
    vectors = [
        {"object": "embedding", "index": place, "embedding": [float(len(str(text))), 0.5]}
        for place, text in enumerate(inputs)
    ]
    return {"object": "list", "data": vectors, "usage": answer.usage()}


def form(answer: Answer) -> Json:
    """`/v1/audio/transcriptions` and `/v1/images/edits`: the fields as they came."""
    return {"text": "hello", "fields": form_fields(answer.call), "headers": answer.call.headers}


PLAIN = {
    "/v1/chat/completions": chat,
    "/v1/completions": completion,
    "/v1/messages": message,
    "/v1/embeddings": embeddings,
    "/v1/audio/transcriptions": form,
    "/v1/images/edits": form,
}
STREAMS = {
    "/v1/chat/completions": chat_events,
    "/v1/completions": completion_events,
    "/v1/messages": message_events,
}
