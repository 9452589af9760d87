"""What the web page lives on: `GET /api/live`, one stream that says what is, and then what changes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from bioproxy.activity import InflightRequest
from bioproxy.admin.status import SwapStatus


class PageInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the page is told about itself and who looks at it. `proxy`: where to ask models, "" for the same port.

    `many`: models are configured, not one engine. `admin`: this key may start, stop and change; `own`: it is shown only
    its own requests. `edit_config`: the configuration can be changed here.
    """

    version: str
    title: str
    many: bool
    proxy: str
    edit_config: bool
    admin: bool
    own: bool


class SwapRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A model changed its state at this unix time. `swap`, if it became ready: what that cost; `reason` may be ""."""

    at: float
    model: str
    old: str
    new: str
    reason: str = ""
    swap: SwapStatus | None = None


class LiveState(msgspec.Struct, frozen=True, kw_only=True):
    """All that is (`event: state`). `boot` names this run of the program, `now` is its unix time."""

    boot: str
    now: float
    page: PageInfo
    status: Any  # Status or FleetStatus
    inflight: list[InflightRequest]
    swaps: list[SwapRecord]


class LiveChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is different in `status` (`event: change`): paths of names and indexes below it, and what is there now."""

    now: float
    set: list[tuple[list[str | int], Any]]


class LiveInflight(msgspec.Struct, frozen=True, kw_only=True):
    """A request came or moved on (`upsert`, with its `request`), or ended (`remove`); `event: inflight`."""

    operation: Literal["upsert", "remove"]
    id: str
    request: InflightRequest | None = None
