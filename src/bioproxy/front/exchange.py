"""One request from its first byte to its last: who asks, for what, and where the time went.

An Exchange is owned by its connection's task and by nobody else. Lower packages get values out of it and return
outcomes; none of them ever sees it, or the queue would know about HTTP and the cache about clients.
"""

from __future__ import annotations

import asyncio
import secrets
import time

from bioproxy.activity import Outcome, Record
from bioproxy.errors import BioproxyError
from bioproxy.front.dialects import Dialect, dialect_of, error_event, error_headers, error_json
from bioproxy.front.routes import Route
from bioproxy.keys import Principal
from bioproxy.wire.message import Request, Responder
from bioproxy.wire.relay import Tail

MAX_ID = 128
MOST_SHOWN = 500  # characters of a path or an error that a record keeps: a thousand records are kept


def identify(request: Request) -> str:
    """The client's `x-request-id` where it is a plain word, else a new one (16 hex digits)."""
    given = request.header(b"x-request-id")
    if given is not None and 0 < len(given) <= MAX_ID and given.isascii() and given.decode("ascii").isprintable():
        return given.decode("ascii")
    return secrets.token_hex(8)


class Exchange:
    """The state of one request. `principal` and `route` are set as soon as they are known."""

    __slots__ = ("dialect", "id", "principal", "record", "request", "responder", "route", "streaming", "tail")

    def __init__(self, request: Request, responder: Responder, route: Route, *, started: float | None = None) -> None:
        self.request = request
        self.responder = responder
        self.route = route
        self.id = identify(request)
        self.dialect: Dialect = dialect_of(request.path)
        self.principal: Principal | None = None
        self.tail = Tail()
        self.streaming = False  # the answer is, or will be, an event stream: faults become events
        self.record = Record(
            id=self.id,
            started=time.time() if started is None else started,
            method=request.method,
            path=request.path[:MOST_SHOWN],
            endpoint=route.endpoint,
            bytes_in=len(request.body),
        )

    def turn_to(self, route: Route) -> None:
        """The route was found."""
        self.route = route
        self.record.endpoint = route.endpoint

    def since_arrival(self) -> float:
        """Seconds since the head's first byte came in."""
        return asyncio.get_running_loop().time() - self.request.arrived

    def fail(self, error: BioproxyError, outcome: Outcome) -> None:
        """Tell the client what went wrong, in its dialect and in the way that is still open.

        Nothing sent yet: a status. A stream under way: an error event. Anything else is cut, for an answer that ends
        early must never look whole.
        """
        self.record.outcome = outcome
        self.record.error = error.message[:MOST_SHOWN]
        responder = self.responder
        if not responder.started:
            body = error_json(error, self.dialect, request_id=self.id)
            responder.send(error.status, error_headers(error), body)
        elif self.streaming:
            torn = self.tail.total > 0 and not self.tail.last().endswith(b"\n\n")
            event = error_event(error, self.dialect, request_id=self.id)
            responder.write(b"\n\n" + event if torn else event)
            responder.finish()
        else:
            responder.abort()

    def close(self) -> Record:
        """Fill in what is known only at the end."""
        record = self.record
        record.total = self.since_arrival()
        record.status = record.status or self.responder.status
        record.bytes_out = self.responder.bytes_out
        if self.tail.first is not None and record.first_byte is None:
            record.first_byte = self.tail.first - self.request.arrived
        return record
