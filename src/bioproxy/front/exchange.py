"""One request from its first byte to its last: who asks, for what, and where the time went.

An Exchange is owned by its connection's task alone. Lower packages get values out of it and return
outcomes; none of them ever sees it, or the queue would know about HTTP and the cache about clients.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

import msgspec

from bioproxy.activity import Capture, Outcome, Record
from bioproxy.config.schema import StabilizeRule
from bioproxy.engines import answers
from bioproxy.engines.answers import Answer, Ending, read_answer, usage_of
from bioproxy.engines.refused import error_message, error_words
from bioproxy.errors import NOT_JSON, BioproxyError
from bioproxy.front import llamaswap_errors
from bioproxy.front.dialects import (
    STREAM_HEADERS,
    Dialect,
    dialect_of,
    error_event,
    error_headers,
    error_json,
)
from bioproxy.front.routes import Route
from bioproxy.keys import Principal, presented
from bioproxy.models.claim import Claim
from bioproxy.templates.bodies import Body
from bioproxy.wire import sse
from bioproxy.wire.coding import unpacker
from bioproxy.wire.http1.message import Headers, Request, Responder
from bioproxy.wire.relay import EVENTS, Tail

MAX_ID = 128
LONGEST_JSON = 1 << 20  # bytes of a JSON answer that are kept: to tell whether one in chunks is whole, and of errors
FRESH: list[str] = []  # ids that no request has yet
NOTHING: frozenset[int] = frozenset()
MOST_SHOWN = 500  # characters of a path or an error that a record keeps: a thousand records are kept


def unstored(request: Request) -> bool:
    """Whether nothing of it may be kept: `Cache-Control: no-store`, in whichever line it stands."""
    return any(name.lower() == b"cache-control" and b"no-store" in value.lower() for name, value in request.headers)


def identify(request: Request) -> str:
    """The client's `x-request-id` if it is a plain word, else a new one (16 hex digits)."""
    given = request.fields.get(b"x-request-id")
    if given is not None and 0 < len(given) <= MAX_ID and given.isascii() and given.decode("ascii").isprintable():
        return given.decode("ascii")
    if not FRESH:  # many at once spare most requests a call to the system
        text = os.urandom(8 * 256).hex()
        FRESH.extend(text[at : at + 16] for at in range(0, len(text), 16))
    return FRESH.pop()


class Exchange:
    """The state of one request. `principal` and `route` are set as soon as they are known."""

    __slots__ = (
        "body", "cancelled", "check", "claim", "count", "dialect", "envelope", "failing", "fields", "guessed", "id",
        "json", "listed", "mend", "opened", "principal", "record", "reply", "request", "responder", "route", "said",
        "selected", "streaming", "tail", "target", "task", "traced",
    )  # fmt: skip

    def __init__(self, request: Request, responder: Responder, route: Route, *, started: float | None = None) -> None:
        self.request = request
        self.responder = responder
        self.route = route
        self.id = identify(request)
        self.dialect: Dialect = dialect_of(request.path)
        self.task = asyncio.current_task()  # the request's; who cancels it ends the request
        self.listed = ""  # its id in the table of requests under way (inflight.py), while it stands there
        self.cancelled = False  # by hand
        self.selected: tuple[str, str] | None = None  # the selector that it asked for, and what that chose
        self.principal: Principal | None = None
        self.check: Callable[[Exchange], None] | None = None  # raises if its key may not use the engine (any more)
        self.count: Callable[[Exchange], None] | None = None  # takes down what it cost, when it has ended
        self.guessed = 0  # tokens of its prompt, about, if the engine may not have said how many
        self.target = request.target  # what the engine is asked for
        self.body = request.body  # what it gets, before templates are filled in
        self.json: Body | None = None  # the same, opened, if it is JSON
        self.claim: Claim | None = None  # on its model, as long as it is one of ours
        self.mend: tuple[StabilizeRule, ...] = ()  # the rules that may change its prompt
        self.envelope = False  # errors look as llama-swap's do
        self.failing = NOTHING  # statuses of the engine's that another model may put right (fallback.py)
        self.tail = Tail()
        self.said: Answer | None = None  # what the answer says about itself; see `answer`
        self.reply: Headers = []  # the headers of the engine's answer
        self.fields: dict[bytes, bytes] = {}  # the same: lower-case name to first value
        self.opened = False  # the stream's head is ours, not the engine's
        self.streaming = False  # the answer is, or will be, an event stream: errors become events
        self.traced: Callable[[Record], None] | None = None  # wants the record at the end, to make spans of it
        self.record = Record(
            id=self.id,
            started=time.time() if started is None else started,
            method=request.method,
            path=request.path[:MOST_SHOWN],
            endpoint=route.endpoint,
            bytes_in=len(request.body),
        )

    def since_arrival(self) -> float:
        """Seconds since the head's first byte came in."""
        return time.monotonic() - self.request.arrived

    def fail(self, error: BioproxyError, outcome: Outcome) -> None:
        """Tell the client what went wrong, in its dialect and in the way that is still open.

        Nothing sent yet: a status. A stream under way: an error event. Anything else is cut, for an answer that ends
        early must never look whole.
        """
        self.record.outcome = outcome
        self.record.error = error.message[:MOST_SHOWN]
        responder = self.responder
        if not responder.started:
            responder.send(error.status, *self.error_answer(error))
        elif self.streaming and self.plain():
            tail = self.tail.last()
            event = self.error_event(error, tail)
            responder.write(b"\n\n" + event if tail and not tail.endswith(sse.EVENT_ENDS) else event)
            responder.finish()
        else:
            responder.abort()

    def plain(self) -> bool:
        """Whether an event of ours can stand in the stream: not if the engine compressed it, or gave its length."""
        return not self.responder.bounded and (self.opened or not self.coded)

    @property
    def coded(self) -> bool:
        """Whether the engine compressed its answer."""
        return self.replied(b"content-encoding").strip().lower() not in {"", "identity"}

    def open_stream(self) -> None:
        """Begin an event stream before the engine does, if that has not happened yet; errors are events from here."""
        if not self.responder.started:
            self.responder.start(200, STREAM_HEADERS, length=None)
            self.opened = True

    def error_answer(self, error: BioproxyError) -> tuple[Headers, bytes]:
        """Headers and body of an error before the first byte."""
        if self.envelope:
            accept = self.request.header(b"accept")
            return llamaswap_errors.answer(error, path=self.asked_path, accept=accept, request_id=self.id)
        return error_headers(error), error_json(error, self.dialect, request_id=self.id)

    def error_event(self, error: BioproxyError, tail: bytes) -> bytes:
        """An error as the end of a stream whose last bytes are `tail`."""
        if self.envelope:
            return llamaswap_errors.event(error, path=self.asked_path, request_id=self.id, tail=tail)
        return error_event(error, self.dialect, request_id=self.id, tail=tail)

    @property
    def asked_path(self) -> str:
        """The path that tells the dialect: the engine's, if the client names the engine by the path as well."""
        return self.record.req_path or self.request.path

    def engine_body(self) -> bytes:
        """What the engine gets, before templates are filled in."""
        return self.json.written() if self.json is not None and self.json.changed else self.body

    def close(self) -> Record:
        """Fill in what is known only at the end."""
        record = self.record
        record.total = self.since_arrival()
        record.status = record.status or self.responder.status
        record.bytes_out = self.responder.bytes_out
        if record.outcome == "ok" and self.tail.events and (answer := self.answer()).ending == "failed":
            record.outcome = "engine_error"
            record.error = error_words(answer.said) or "the engine's stream ended with an error"
        if record.metered:
            kind = self.fields.get(b"content-type")
            record.content_type = kind.decode("latin-1") if kind else "application/json"
            if record.status == 200:
                record.usage = usage_of(self.answer().timings)
            elif record.status >= 400 and not record.error:
                record.error = self.refused()
        if record.outcome == "ok" and record.status >= 400:
            record.outcome = "engine_error" if record.status >= 500 else "client_error"
            record.error = record.error or self.refused()
        if self.tail.first is not None and record.first_byte is None:
            record.first_byte = self.tail.first - self.request.arrived
        if self.count is not None:
            self.count(self)
        if self.traced is not None:
            self.traced(record)
        self.responder.rewriter = None  # which may ask us; nothing is sent any more
        return record

    def answer(self) -> Answer:
        """What the engine's answer says about itself; read once, after its last byte."""
        if self.said is None:
            tail = self.tail
            self.said = read_answer(
                tail.last(),
                path=self.asked_path,
                events=tail.events,
                head=tail.opening,
                begun=tail.begun if tail.forgotten else None,
                encoding=self.unread if b"content-encoding" in self.fields else "",
            )
        return self.said

    @property
    def unread(self) -> str:
        """The coding of the answer's last bytes; "" if they are plain."""
        return "" if self.tail.unpack else self.replied(b"content-encoding")

    def refused(self) -> str:
        """What went wrong, in the engine's own words: in a long answer they come first."""
        said = self.tail.opening if self.tail.forgotten else self.tail.last()
        return error_message(said, self.record.status, encoding=self.unread)

    def replied(self, name: bytes) -> str:
        """The value of a header of the engine's answer; "" if it has none."""
        return self.fields.get(name, b"").decode("latin-1")

    def answered(self, status: int, headers: Headers, fields: dict[bytes, bytes]) -> None:
        """The engine answers, with this status and these headers."""
        self.record.status = status
        self.reply[:] = headers
        self.fields = fields
        kind, tail = fields.get(b"content-type", b"").lower(), self.tail
        tail.events = kind.startswith(EVENTS)
        if tail.events or b"json" in kind:
            if (coding := fields.get(b"content-encoding")) is not None:
                tail.unpack = unpacker(coding.decode("latin-1"))
            if not tail.events and (status != 200 or b"content-length" not in fields):
                tail.kept = LONGEST_JSON

    def ending(self) -> Ending:
        """How the engine's answer has ended by its own account, whatever its framing says; "" if it has not."""
        tail = self.tail
        if not tail.total:
            return ""
        last = tail.last()
        if tail.events:
            return answers.ending(last, tail.begun if tail.forgotten else None)
        if tail.forgotten or b"json" not in self.fields.get(b"content-type", b"").lower():
            return ""
        try:
            return "whole" if isinstance(msgspec.json.decode(last), dict | list) else ""  # half a number is one, too
        except NOT_JSON:
            return ""

    def ended(self) -> bool:
        """Whether the client has all of the engine's answer, although its framing has not ended."""
        return self.ending() != ""

    def capture(self) -> Capture | None:
        """Request and answer in full, if that was asked for and they are not too large."""
        body = self.tail.whole()
        if body is None:
            return None
        return Capture(
            request_headers=tuple(self.request.headers),
            request_body=self.engine_body(),
            original_body=self.request.body if self.record.mended else b"",
            response_headers=tuple(self.reply),
            response_body=body,
            secret=(presented(self.request.header) or "").encode("utf-8", "surrogateescape") if self.principal else b"",
        )
