"""One row of the activity table, made from one request's record, and what may be asked of the table.

The shape is llama-swap's (`/api/metrics/activity`), so that its page and people's scripts read ours. A row says what
the record knows: the time is the request's end, to the second, and the duration includes the queue and the loading of
a model. The table keeps the record, too (`request`), for our own page; but not its `finding`, which quotes prompts.
Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from bioproxy.activity import Outcome, Record, Usage
from bioproxy.admin.histogram import Histogram
from bioproxy.engines.answers import NOTHING
from bioproxy.engines.refused import error_message, shortened

CLIENT_LEFT = 499  # nginx' number for a client that left before there was an answer
SESSION = "session_id"  # the key in `metadata`
OUTCOMES: dict[int, Outcome] = {4: "client_error", 5: "engine_error"}  # by the first digit of a status


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """What the request cost; -1: the engine said something, but not that."""

    cache_tokens: int = 0
    draft_tokens: int = 0
    draft_acc_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    prompt_per_second: float = 0.0
    tokens_per_second: float = 0.0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One request in the table. `id` is 0 until the store gave it one."""

    id: int = 0
    timestamp: datetime
    model: str
    req_path: str
    resp_content_type: str
    resp_status_code: int
    tokens: Tokens
    duration_ms: int
    has_capture: bool = False
    error_msg: str | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    request: Record | msgspec.UnsetType = msgspec.UNSET


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows, in what order, and which page of them. Times are unix seconds; bounds are inclusive, id 0 is none.

    `path` is a part of the path, `statuses` a first and a last one, `request` the request's id; the rest is equal to
    what a row has.
    """

    models: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    caches: tuple[str, ...] = ()
    statuses: tuple[int, int] | None = None
    path: str = ""
    request: str = ""
    start: int | None = None
    end: int | None = None
    min_id: int = 0
    max_id: int = 0
    limit: int = 25
    page: int = 1
    sort: str = "id"
    order: str = "desc"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the rows that were asked for, and how many there are."""

    data: list[Row]
    page: int
    limit: int
    total: int
    total_pages: int


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the table, and how fast prompts were read and answers written."""

    total_requests: int
    total_input_tokens: int
    total_output_tokens: int
    total_cache_tokens: int
    prompt_histogram: Histogram | None
    gen_histogram: Histogram | None


def row_of(record: Record) -> Row:
    """The row of a request that has ended."""
    status = record.status or CLIENT_LEFT
    usage = record.usage if record.usage is not None and status == 200 else NOTHING
    metadata = {**record.metadata, SESSION: record.session} if record.session else dict(record.metadata)
    error = shortened(record.error) or (reason(status) if status >= 400 else "")
    return Row(
        timestamp=datetime.fromtimestamp(int(record.started + record.total), UTC),
        model=record.model,
        req_path=record.req_path or record.path,
        resp_content_type=record.content_type,
        resp_status_code=status,
        tokens=tokens_of(usage),
        duration_ms=int(max(record.total, usage.seconds or 0.0) * 1000),
        error_msg=error or msgspec.UNSET,
        metadata=metadata or msgspec.UNSET,
    )


def record_of(row: Row) -> Record:
    """The record of a row that the table kept, with what stands in the row; a row of llama-swap's had none."""
    usage = Usage(**msgspec.structs.asdict(row.tokens))
    metadata = {} if isinstance(row.metadata, msgspec.UnsetType) else row.metadata
    if isinstance(row.request, Record):
        return replace(row.request, activity=row.id, usage=usage, metadata=metadata)
    seconds = row.duration_ms / 1000
    return Record(
        id=str(row.id),
        started=row.timestamp.timestamp() - seconds,
        method="POST",
        path=row.req_path,
        endpoint="other",
        status=row.resp_status_code,
        outcome=OUTCOMES.get(row.resp_status_code // 100, "ok"),
        total=seconds,
        error="" if isinstance(row.error_msg, msgspec.UnsetType) else row.error_msg,
        model=row.model,
        metered=True,
        content_type=row.resp_content_type,
        usage=usage,
        session=metadata.get(SESSION, ""),
        activity=row.id,
        metadata=metadata,
    )


def tokens_of(usage: Usage) -> Tokens:
    """The counts and speeds without the engine's seconds, which became the row's duration."""
    return Tokens(**{name: getattr(usage, name) for name in Tokens.__struct_fields__})


def reason(status: int) -> str:
    """What a status says if no more was said."""
    return "the client left before there was an answer" if status == CLIENT_LEFT else error_message(b"", status)
