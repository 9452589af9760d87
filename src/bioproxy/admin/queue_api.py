"""`GET /api/queue`: who is under way or waits, for what, in which place, and how long still; for `bioproxy queue`, too.

One of several keys sees its own requests, whose places are those among all: nothing else is told of the others.
"""

from __future__ import annotations

import msgspec

from bioproxy.activity import InflightRequest, Standing
from bioproxy.admin.routes import Entry, Question, answer
from bioproxy.front.inflight import Inflight

ORDER = {"answer": 0, "prompt": 1, "elsewhere": 2, "queue": 3, "aside": 4, "model": 5, "": 6}


class QueueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One request under way; `started` is unix time, `elapsed` seconds, `bytes` those of its answer so far."""

    id: str
    model: str
    path: str
    client: str
    session: str
    started: float
    elapsed: float
    bytes: int
    standing: Standing


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """What runs, then what waits, in order. `waiting`: how many of these wait."""

    waiting: int
    requests: tuple[QueueEntry, ...]


class QueueApi:
    """The route."""

    def __init__(self, inflight: Inflight) -> None:
        self.inflight = inflight

    def entries(self) -> tuple[Entry, ...]:
        return (Entry("GET", "/api/queue", "Requests under way, and how long they wait.", self.show, guard="own"),)

    async def show(self, question: Question) -> None:
        found = sorted(
            (entry(one) for one in self.inflight.snapshot() if question.shows(one.client)),
            key=lambda one: (ORDER[one.standing.stage], one.standing.place, one.started),
        )
        waiting = sum(one.standing.place > 0 or one.standing.stage == "aside" for one in found)
        answer(question.responder, QueueView(waiting=waiting, requests=tuple(found)))


def entry(one: InflightRequest) -> QueueEntry:
    """A request of the table of those under way."""
    return QueueEntry(
        id=one.id,
        model=one.model,
        path=one.req_path,
        client=one.client,
        session=one.session,
        started=one.timestamp.timestamp(),
        elapsed=one.elapsed_ms / 1000,
        bytes=one.resp_bytes,
        standing=one.standing,
    )
