"""`GET /api/requests` and `/api/requests/{id}`: the requests that have ended, for the web page, on both ports."""

from __future__ import annotations

import msgspec

from bioproxy.activity import Record
from bioproxy.explain import Part


class RequestList(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that have ended, the newest first; `before` is what to ask for the next ones, "" if these are all."""

    requests: list[Record]
    before: str


class RequestDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One request that has ended, and its parts in the order in which they came."""

    request: Record
    parts: tuple[Part, ...]
