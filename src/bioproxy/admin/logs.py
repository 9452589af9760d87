"""`/logs` and `/logs/stream`: what a person or a web page reads of the logs, as plain text (llama-swap's routes).

A stream begins with the history and goes on with what is written, byte for byte: terminal codes and bytes that are no
text pass as they are, so the answer says that it is plain text, and forbids to guess. The head goes out
at once, also if nothing was logged yet. Each client has a bounded backlog (logbook.py): while it does not read,
lines are dropped and marked, and neither the engine nor another client waits for it.

Who may read a log is decided before the handlers are called.
"""

from __future__ import annotations

from collections.abc import Callable

from bioproxy.admin.routes import Entry, Question
from bioproxy.errors import RequestError
from bioproxy.logbook import Logbook, Ring, Subscription
from bioproxy.wire.http1.message import Headers

HEADERS: Headers = [
    (b"Content-Type", b"text/plain; charset=utf-8"),
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
]
PAGE = b"ui/#/logs"  # where a browser reads logs
UNKNOWN = "invalid logger. Use 'proxy', 'upstream' or a model's ID"


class Logs:
    """Serves the logs of one book. `resolve` turns an alias into a model's ID, or None; `close` is the shutdown's."""

    def __init__(self, book: Logbook, *, resolve: Callable[[str], str | None]) -> None:
        self.book = book
        self.resolve = resolve
        self.streams: set[Subscription] = set()
        self.closed = False

    def entries(self) -> tuple[Entry, ...]:
        return (
            Entry("GET", "/logs", "The combined log.", self.history, guard="private"),
            Entry("GET", "/logs/stream", "The combined log, live.", self.stream, guard="private"),
            Entry("GET", "/logs/stream/{id...}", "One log, live.", self.stream, guard="private"),
        )

    async def history(self, question: Question) -> None:
        """`GET /logs`: the combined log so far. A browser is sent to the page that shows it."""
        request, responder = question.request, question.responder
        if b"text/html" in (request.header(b"accept") or b""):
            responder.send(302, [(b"Location", PAGE), (b"Vary", b"Accept")])
        else:
            responder.send(200, [*HEADERS, (b"Vary", b"Accept")], self.book.mux.history())

    async def stream(self, question: Question) -> None:
        """`GET /logs/stream` and `/logs/stream/{name...}`: a log's history, then what is written, until it ends.

        `?no-history` leaves the history out; `?no-follow`, an addition of ours, ends after it. RequestError for a name
        that is none.
        """
        request, responder = question.request, question.responder
        ring = self.find(question.parameters.get("id", ""))
        headers: Headers = [*HEADERS, (b"X-Accel-Buffering", b"no")]
        if request.method == "HEAD":
            responder.send(200, headers)
            return
        asked = {key for key, _ in request.query}
        with ring.subscribe(history="no-history" not in asked) as subscription:
            if self.closed or "no-follow" in asked:
                subscription.close()
            self.streams.add(subscription)
            try:
                responder.start(200, headers, length=None)
                async for piece in subscription:
                    responder.write(piece)
                    await responder.drain()
                responder.finish()
            finally:
                self.streams.discard(subscription)

    def find(self, name: str) -> Ring:
        """The log that is called `name`, or that of the model with this alias."""
        ring = self.book.source(name)
        if ring is None and (model := self.resolve(name)) is not None:
            ring = self.book.models.get(model)
        if ring is None:
            raise RequestError(UNKNOWN)
        return ring

    def close(self) -> None:
        """End all streams once they told what they have; for the shutdown."""
        self.closed = True
        for subscription in self.streams:
            subscription.close()
