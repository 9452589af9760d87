"""The activity table, the captures and the cancelling of requests over HTTP, as llama-swap has them.

    GET  /api/metrics/activity        rows, newest first: filters, order, pages
    GET  /api/metrics/stats           sums and distributions of one model or all
    GET  /api/captures/{id}           one request and its answer in full
    GET  /api/captures                all of them, as JSON Lines
    POST /api/inflight/{id}/cancel    end a request that is under way

The messages of refused queries keep llama-swap's wording, because scripts match on them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime

import msgspec
from msgspec.structs import replace

from bioproxy.activity import Record
from bioproxy.admin.activity_row import Filters, record_of
from bioproxy.admin.activity_sql import SORTS
from bioproxy.admin.activity_store import ActivityStore
from bioproxy.admin.capture_text import line
from bioproxy.admin.captures import Captures
from bioproxy.admin.routes import ALWAYS, Entry, Question, answer, check_query
from bioproxy.errors import NotFound, RequestError
from bioproxy.events import ActivityAdded, Bus, RequestEnded
from bioproxy.explain import explained

INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
LARGEST = (1 << 63) - 1
MOST_ROWS = 999
EXPORTED = ("start", "end", "model", "client")  # what narrows an export
STATUS = re.compile(r"[1-5](?:[0-9]{2}|xx)", re.ASCII)
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


class ActivityApi:
    """The handlers, and what keeps the rows.

    `cancel` ends a request by its id, if its client is one that may be shown, and says whether there was one.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        store: ActivityStore,
        captures: Captures,
        cancel: Callable[[str, Callable[[str], bool]], bool],
    ) -> None:
        self.bus = bus
        self.store = store
        self.captures = captures
        self.end_request = cancel
        bus.subscribe(RequestEnded, self.ended)

    def entries(self) -> tuple[Entry, ...]:
        return (
            Entry("GET", "/api/metrics/activity", "The activity table.", self.activity, guard="private"),
            Entry("GET", "/api/metrics/stats", "Its sums and distributions.", self.stats, guard="private"),
            Entry("GET", "/api/captures/{id}", "One request and its answer.", self.capture, guard="private"),
            Entry("GET", "/api/captures", "All that are kept, as JSON Lines.", self.export, guard="private"),
            Entry("POST", "/api/inflight/{id}/cancel", "End a request.", self.cancel, guard="own", forms=True),
        )

    def ended(self, event: RequestEnded) -> None:
        """A request has ended: keep its row, and what was captured of it.

        Requests that are no POST on a route of models are not metered and leave no row. The id is known at once, so
        `ActivityAdded` goes out in the same breath; a client that then asks for the row is answered after it was
        written, because the store's worker keeps the order.
        """
        if event.record.metered:
            identity = event.record.activity = self.store.add(event.record)
            if event.capture is not None:
                self.captures.add(identity, event.record, event.capture)
            self.bus.publish(ActivityAdded(id=identity))

    async def activity(self, question: Question) -> None:
        """Rows as llama-swap has them; with `?record=1` each has its request's record, too."""
        query = question.request.query
        page = await self.store.query(filters_of(query))
        told = first(query, "record") == "1"
        rows = [
            replace(
                row,
                has_capture=self.captures.has(row.id),
                request=explained(record_of(row)) if told else msgspec.UNSET,
            )
            for row in page.data
        ]
        answer(question.responder, replace(page, data=rows))

    async def stats(self, question: Question) -> None:
        """Sums and distributions; `?model=` narrows them to one."""
        answer(question.responder, await self.store.stats(first(question.request.query, "model")))

    async def capture(self, question: Question) -> None:
        identity = integer(question.parameters["id"])
        if identity is None:
            raise RequestError("invalid capture ID")
        found = await self.captures.kept(identity)
        if found is None:
            raise NotFound("capture not found")
        answer(question.responder, found)

    async def export(self, question: Question) -> None:
        """A line for each capture, the oldest first, as the query narrows them; read one at a time."""
        check_query(question.request, EXPORTED)
        filters, responder = filters_of(question.request.query), question.responder
        responder.start(200, [(b"Content-Type", b"application/x-ndjson"), *ALWAYS], length=None)
        for identity in self.captures.numbers():
            record = await self.captures.record(identity) or await self.store.record(identity)
            if record is not None and fits(record, filters) and (kept := await self.captures.kept(identity)):
                responder.write(await asyncio.to_thread(line, record, kept))
                await responder.drain()
        responder.finish()

    async def cancel(self, question: Question) -> None:
        """End a request; one of several keys ends its own, and learns nothing of another's."""
        if not self.end_request(question.parameters["id"], question.shows):
            raise NotFound("inflight request not found")
        answer(question.responder, {"msg": "ok"})


def fits(record: Record, filters: Filters) -> bool:
    """Whether an export wants a request: by model, client (a key's users are its own), and time of its end."""
    client, ended = record.client, record.started + record.total
    return (
        (not filters.models or record.model in filters.models)
        and (not filters.clients or client in filters.clients or client.partition("/")[0] in filters.clients)
        and (filters.start is None or ended >= filters.start)
        and (filters.end is None or ended <= filters.end)
    )


def filters_of(query: list[tuple[str, str]]) -> Filters:
    """What the query of `/api/metrics/activity` asks for; RequestError with llama-swap's words if it is wrong."""
    filters = Filters(
        models=every(query, "model"),
        clients=every(query, "client"),
        outcomes=every(query, "outcome"),
        caches=every(query, "cache"),
        statuses=statuses_of(first(query, "status")),
        path=first(query, "path"),
        limit=limit_of(first(query, "limit")),
        page=positive(query, "page") or 1,
        sort=first(query, "sort") or "id",
        order=first(query, "order").lower() or "desc",
        min_id=positive(query, "min_id"),
        max_id=positive(query, "max_id"),
    )
    if filters.sort not in SORTS:
        raise RequestError("invalid sort column")
    if filters.order not in {"asc", "desc"}:
        raise RequestError("order must be asc or desc")
    if filters.max_id and filters.min_id > filters.max_id:
        raise RequestError("min_id must be <= max_id")
    start, end = time_of(query, "start"), time_of(query, "end")
    if start is not None and end is not None and start > end:
        raise RequestError("start must be before end")
    return replace(filters, start=seconds(start), end=seconds(end))


def first(query: list[tuple[str, str]], name: str) -> str:
    """The first value of `name`, without blanks around it; "" if there is none."""
    return next((value.strip() for key, value in query if key == name), "")


def every(query: list[tuple[str, str]], name: str) -> tuple[str, ...]:
    """Each value of `name`, without blanks around it."""
    return tuple(text for key, value in query if key == name and (text := value.strip()))


def statuses_of(text: str) -> tuple[int, int] | None:
    """`404` is one status, `4xx` a hundred."""
    if not text:
        return None
    if STATUS.fullmatch(text) is None:
        raise RequestError("status must be a number such as 404, or a class such as 4xx")
    return int(text.replace("x", "0")), int(text.replace("x", "9"))


def integer(text: str) -> int | None:
    """A whole number of at most 64 bits, or None."""
    if INTEGER.fullmatch(text) is None or len(text) > 20:
        return None
    return value if abs(value := int(text)) <= LARGEST else None


def limit_of(text: str) -> int:
    if not text:
        return Filters().limit
    limit = integer(text)
    if limit is None:
        raise RequestError("invalid limit")
    if not 1 <= limit <= MOST_ROWS:
        raise RequestError(f"limit must be between 1 and {MOST_ROWS}")
    return limit


def positive(query: list[tuple[str, str]], name: str) -> int:
    """A number of 1 or more; 0 if none is given."""
    text = first(query, name)
    if not text:
        return 0
    value = integer(text)
    if value is None or value < 1:
        raise RequestError(f"{name} must be >= 1")
    return value


def time_of(query: list[tuple[str, str]], name: str) -> datetime | None:
    """A moment, or None if none is given."""
    text = first(query, name)
    if not text:
        return None
    try:
        if RFC3339.fullmatch(text) is not None:
            return datetime.fromisoformat(text)
    except ValueError:  # the 31st of February
        pass
    raise RequestError(f"invalid '{name}' timestamp, use RFC3339 format")


def seconds(moment: datetime | None) -> int | None:
    """Unix time in whole seconds, as the table keeps it."""
    return None if moment is None else int(moment.timestamp() // 1)
