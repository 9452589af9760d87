"""One record per request: what metrics, `/requests`, `/events` and the log all read.

The exchange (front/exchange.py) fills a `Record` in while the request lives; when it ends, the record is published
once as `events.RequestEnded` and is not changed afterwards. `Ring` keeps the newest for `/requests`. Nothing here
knows HTTP, the gate or the cache: seconds and token counts come in as plain numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Literal

import msgspec

Outcome = Literal["ok", "client_error", "engine_error", "client_left", "rejected", "timeout", "error"]
Work = Literal["user", "side", "background"]


class Record(msgspec.Struct, kw_only=True):
    """What one request was, and where its time went. Times are seconds, sizes bytes, None is "not known".

    `queue`, `restore`, `prefill` and `decode` are parts of `total`; `first_byte` counts from the request's arrival to
    the first byte of the answer that the engine sent. `tokens_cached` + `tokens_evaluated` is the prompt.
    """

    id: str
    started: float  # unix time
    method: str
    path: str  # decoded, without the query (a query may carry a key)
    endpoint: str  # the known route, or "other": the metrics label
    client: str = ""  # the key's name, or the address; never the key
    work: Work = "user"
    prefix: str = ""
    stream: bool = False
    gated: bool = False  # it asked for the engine: its times belong into the histograms
    status: int = 0
    outcome: Outcome = "ok"
    queue: float = 0.0
    restore: float = 0.0
    save: float = 0.0
    first_byte: float | None = None
    prefill: float | None = None
    decode: float | None = None
    total: float = 0.0
    tokens_cached: int | None = None
    tokens_evaluated: int | None = None
    tokens_generated: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    cache: Literal["", "hit", "restored", "miss"] = ""
    why: str = ""  # one sentence: why it took as long as it did
    miss: str = ""  # where the prompt first differs from the nearest conversation (admin only)
    error: str = ""


class Ring:
    """The newest `size` records, newest first when iterated."""

    def __init__(self, size: int = 1000) -> None:
        self.records: deque[Record] = deque(maxlen=size)

    def add(self, record: Record) -> None:
        """Keep `record`; the oldest goes when the ring is full."""
        self.records.append(record)

    def __iter__(self) -> Iterator[Record]:
        return reversed(self.records)

    def __len__(self) -> int:
        return len(self.records)
