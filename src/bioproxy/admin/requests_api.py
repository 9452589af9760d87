"""The requests that have ended: `/requests` shows all, the web page those to models, and one with all its parts.

The web page has a list of its own, because its questions are requests, too: a page that is open for an hour would
otherwise show nothing but itself.

A request that became a row of the activity table is found by the row's number, too, which is its capture's. The number
counts first: it means one request, while a client may give two of them the same id. A row that is older than all
records brings its own record back (activity_sql.py), so a request keeps both its addresses as long as its row is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from bioproxy.activity import Record
from bioproxy.admin.routes import Entry, Question, answer, asked
from bioproxy.errors import NotFound, RequestError
from bioproxy.events import RequestEnded
from bioproxy.explain import Part, explained, parts_of

KEPT = 1000
LONGEST_NUMBER = 18  # digits
WHAT_IS_KEPT = f"the last {KEPT} requests to models since the start are, and with store.path those before, too"


class RequestList(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that have ended, the newest first; `before` is what to ask for the next ones, "" if these are all."""

    requests: list[Record]
    before: str


class RequestDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One request that has ended, and its parts in the order in which they came."""

    request: Record
    parts: tuple[Part, ...]


class Wanted(msgspec.Struct, frozen=True):
    """The query of `/api/requests`."""

    limit: int = 100
    before: int = 0


class Requests:
    """The last requests, and those of them that were to models; each of these has a number, which goes up."""

    def __init__(self) -> None:
        self.records: deque[Record] = deque(maxlen=KEPT)
        self.to_models: deque[Record] = deque(maxlen=KEPT)
        self.number = 0  # of the next one
        self.of_row: Callable[[int], Awaitable[Record | None]] = unknown  # the record of a row of the activity table
        self.of_id: Callable[[str], Awaitable[list[Record]]] = nowhere  # those of the rows whose request had this id

    def entries(self) -> tuple[Entry, ...]:
        return (
            Entry("GET", "/api/requests", "The last requests to models.", self.list, guard="manage"),
            Entry("GET", "/api/requests/{id...}", "One of them, and its parts.", self.detail, guard="manage"),
        )

    def keep(self, event: RequestEnded) -> None:
        record = event.record
        self.records.append(record)
        if record.gated or record.metered or record.model:  # `for_model`, without a call for each request
            self.to_models.append(record)
            self.number += 1

    async def list(self, question: Question) -> None:
        """The newest first; `before` (a number that an answer gave) and `limit` narrow it."""
        wanted = asked(question.request, Wanted)
        if not 1 <= wanted.limit <= KEPT:
            raise RequestError(f"limit must be between 1 and {KEPT}, not {wanted.limit}")
        if wanted.before < 0:
            raise RequestError(f"before must be a number that an answer gave, not {wanted.before}")
        found: list[Record] = []
        before, number = "", self.number
        for record in reversed(self.to_models):
            number -= 1
            if (wanted.before and number >= wanted.before) or not question.shows(record.client):
                continue
            if len(found) == wanted.limit:
                before = str(number + 1)
                break
            found.append(explained(record))
        answer(question.responder, RequestList(requests=found, before=before))

    async def detail(self, question: Question) -> None:
        identity = question.parameters["id"]
        record = await self.find(identity, question)
        if record is None:
            raise NotFound(f"no request {identity[:100]!r} is known; {WHAT_IS_KEPT}")
        answer(question.responder, RequestDetail(request=explained(record), parts=parts_of(record)))

    async def find(self, identity: str, question: Question) -> Record | None:
        """The record by the number of its row or by its id, if it may be shown to who asks."""
        shown = [record for record in reversed(self.to_models) if question.shows(record.client)]
        numbered = identity.isascii() and identity.isdecimal() and len(identity) <= LONGEST_NUMBER
        number = int(identity) if numbered else 0
        for record in shown:
            if number and record.activity == number:
                return record
        for record in shown:
            if record.id == identity:
                return record
        old = await self.of_row(number) if number else None
        found = [old] if old is not None else await self.of_id(identity)
        return next((record for record in found if question.shows(record.client)), None)


async def unknown(_: int) -> None:
    """There is no activity table."""


async def nowhere(_: str) -> list[Record]:
    """There is no activity table."""
    return []
