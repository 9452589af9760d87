"""The SQL of the activity table: llama-swap's columns, one of ours, and every statement that we run on them.

`record_json` is the request's whole record, so that an old row opens as a new one does. A file of llama-swap's gets the
column; llama-swap names the columns that it reads and writes, so it goes on with the file.

Functions over an open connection, for the store's worker thread. What a client asks for reaches SQL as a parameter,
except the column to sort by, which is looked up here. Sorting and counting is left to SQLite: it lets go of the
interpreter while it works, but sorting a million floats in Python would stop every stream.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from bioproxy.activity import Record
from bioproxy.admin.activity_row import Filters, Page, Row, Stats, Tokens
from bioproxy.admin.histogram import Histogram, histogram
from bioproxy.errors import NOT_JSON

SCHEMA = """
CREATE TABLE IF NOT EXISTS activity (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ts_created INTEGER NOT NULL,
    model_id TEXT NOT NULL,
    req_path TEXT NOT NULL DEFAULT '',
    resp_content_type TEXT NOT NULL DEFAULT '',
    resp_status_code INTEGER NOT NULL DEFAULT 0,
    cache_tokens INTEGER NOT NULL DEFAULT 0,
    draft_tokens INTEGER NOT NULL DEFAULT 0,
    draft_acc_tokens INTEGER NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    prompt_per_second REAL NOT NULL DEFAULT 0,
    tokens_per_second REAL NOT NULL DEFAULT 0,
    duration_ms INTEGER NOT NULL DEFAULT 0,
    error_msg TEXT NOT NULL DEFAULT '',
    metadata_json TEXT NOT NULL DEFAULT '',
    record_json TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS idx_activity_created_id ON activity (ts_created DESC, id DESC);
CREATE INDEX IF NOT EXISTS idx_activity_model_created_id ON activity (model_id, ts_created DESC, id DESC);
"""
ADD_COLUMN = "ALTER TABLE activity ADD COLUMN record_json TEXT NOT NULL DEFAULT '{}'"
TOKENS = Tokens.__struct_fields__  # named as their columns are
COLUMNS = (
    "id", "ts_created", "model_id", "req_path", "resp_content_type", "resp_status_code", *TOKENS, "duration_ms",
    "error_msg", "metadata_json", "record_json",
)  # fmt: skip
UNKEPT = {"finding", "why", "usage", "metadata", "activity"}  # quotes prompts, is made anew, or stands in the row
KEPT = {field.name: field.default for field in msgspec.structs.fields(Record) if field.name not in UNKEPT}


def of_record(name: str, otherwise: str) -> str:
    """The SQL of one field of the record; `otherwise`, in SQL, if it is not known."""
    return f"coalesce(json_extract(record_json, '$.{name}'), {otherwise})"


CLIENT, CACHE, IDENTITY = of_record("client", "''"), of_record("cache", "''"), of_record("id", "''")
BY_STATUS = "CASE resp_status_code / 100 WHEN 4 THEN 'client_error' WHEN 5 THEN 'engine_error' ELSE 'ok' END"
OUTCOME = of_record("outcome", BY_STATUS)
SORTS = {
    "id": "id",
    "time": "ts_created",
    "model": "model_id",
    "req_path": "req_path",
    "resp_status_code": "resp_status_code",
    "resp_content_type": "resp_content_type",
    "cached": "cache_tokens",
    "prompt": "input_tokens",
    "generated": "output_tokens",
    "drafted": "draft_tokens",
    "prompt_speed": "prompt_per_second",
    "gen_speed": "tokens_per_second",
    "duration": "duration_ms",
    "client": CLIENT,
    "outcome": OUTCOME,
    "cache": CACHE,
    "work": of_record("work", "'user'"),
    "prefix": of_record("prefix", "''"),
    "queue": of_record("queue", "0"),
    "swap": of_record("swap", "0"),
}
INSERT = f"INSERT INTO activity ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 - ours
SELECT = f"SELECT {', '.join(COLUMNS)} FROM activity"  # noqa: S608 - our own names

Condition = tuple[str, list[Any]]  # a WHERE clause, or nothing, and its parameters


def lacks_record(database: sqlite3.Connection) -> bool:
    """Whether the table has llama-swap's columns only."""
    return all(name != "record_json" for _, name, *_ in database.execute("PRAGMA table_info(activity)"))


def next_id(database: sqlite3.Connection) -> int:
    """The id after the highest that the table ever had."""
    (highest,) = database.execute(
        "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'activity'), 0), "
        "coalesce((SELECT max(id) FROM activity), 0))"
    ).fetchone()
    return int(highest) + 1


def insert(database: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Insert all or none; a row with id 0 gets the next one that is free."""
    database.execute("BEGIN IMMEDIATE")
    try:
        database.executemany(INSERT, [values(row) for row in rows])
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # SQLite itself rolls back if the disk is full
            database.execute("ROLLBACK")
        raise


def prune(database: sqlite3.Connection, limit: int) -> None:
    database.execute("DELETE FROM activity WHERE id <= (SELECT max(id) FROM activity) - ?", (limit,))


def forget(database: sqlite3.Connection, *, before: int, most: int) -> bool:
    """Take out rows of requests that ended before a unix time, the oldest first; whether `most` did."""
    old = "SELECT id FROM activity WHERE ts_created < ? ORDER BY ts_created, id LIMIT ?"
    return database.execute(f"DELETE FROM activity WHERE id IN ({old})", (before, most)).rowcount == most  # noqa: S608


def select(database: sqlite3.Connection, filters: Filters) -> Page:
    """One page of the rows that fit, and how many fit."""
    where, parameters = condition(filters)
    (total,) = database.execute(f"SELECT count(*) FROM activity{where}", parameters).fetchone()  # noqa: S608 - ours
    skipped = (filters.page - 1) * filters.limit
    rows: list[Row] = []
    if skipped < total:
        statement = f"{SELECT}{where}{ordering(filters)} LIMIT ? OFFSET ?"
        rows = [row_from(found) for found in database.execute(statement, [*parameters, filters.limit, skipped])]
    return Page(data=rows, page=filters.page, limit=filters.limit, total=total, total_pages=-(-total // filters.limit))


def condition(filters: Filters) -> Condition:
    found: list[str] = []
    parameters: list[Any] = []
    choices = (
        ("model_id", filters.models), (CLIENT, filters.clients), (OUTCOME, filters.outcomes), (CACHE, filters.caches),
    )  # fmt: skip
    for text, values in choices:
        if values:
            found.append(f"{text} IN ({', '.join('?' * len(values))})")
            parameters += values
    first, last = filters.statuses or (None, None)
    bounds = (
        ("ts_created >= ?", filters.start), ("ts_created <= ?", filters.end),
        ("id >= ?", filters.min_id or None), ("id <= ?", filters.max_id or None),
        ("resp_status_code >= ?", first), ("resp_status_code <= ?", last),
        ("instr(req_path, ?) > 0", filters.path or None), (f"{IDENTITY} = ?", filters.request or None),
    )  # fmt: skip
    for text, bound in bounds:
        if bound is not None:
            found.append(text)
            parameters.append(bound)
    return (" WHERE " + " AND ".join(found) if found else ""), parameters


def ordering(filters: Filters) -> str:
    """The ORDER BY clause; equal values go by id, so that no row stands on two pages."""
    column = SORTS[filters.sort]
    direction = "ASC" if filters.order == "asc" else "DESC"
    return f" ORDER BY {column} {direction}" + ("" if column == "id" else f", id {direction}")


def stats(database: sqlite3.Connection, model: str) -> Stats:
    """Sums and speeds of one model ("": of all)."""
    where, parameters = condition(Filters(models=(model,) if model else ()))
    cached = "CASE WHEN cache_tokens > 0 THEN cache_tokens ELSE 0 END"
    sums = f"count(*), total(input_tokens), total(output_tokens), total({cached})"
    found = database.execute(f"SELECT {sums} FROM activity{where}", parameters).fetchone()  # noqa: S608 - our own names
    return Stats(
        total_requests=int(found[0]),
        total_input_tokens=int(found[1]),
        total_output_tokens=int(found[2]),
        total_cache_tokens=int(found[3]),
        prompt_histogram=speeds(database, "prompt_per_second", (where, parameters)),
        gen_histogram=speeds(database, "tokens_per_second", (where, parameters)),
    )


def speeds(database: sqlite3.Connection, column: str, wanted: Condition) -> Histogram | None:
    """How the speeds in `column` are distributed; requests without one do not count."""
    where, parameters = wanted
    known = f"{where} AND {column} > 0" if where else f" WHERE {column} > 0"
    statement = f"SELECT {column} FROM activity{known} ORDER BY {column}"  # noqa: S608 - our own names
    return histogram(array("d", (speed for (speed,) in database.execute(statement, parameters))))


def values(row: Row) -> tuple[Any, ...]:
    """A row as parameters, in the order of COLUMNS."""
    metadata = {} if isinstance(row.metadata, msgspec.UnsetType) else row.metadata
    error = "" if isinstance(row.error_msg, msgspec.UnsetType) else row.error_msg
    clean = {storable(name): storable(value) for name, value in metadata.items()}
    return (
        row.id or None,
        int(row.timestamp.timestamp()),
        storable(row.model),
        storable(row.req_path),
        storable(row.resp_content_type),
        row.resp_status_code,
        *(getattr(row.tokens, name) for name in TOKENS),
        row.duration_ms,
        storable(error),
        msgspec.json.encode(clean).decode() if clean else "",
        record_json(row.request) if isinstance(row.request, Record) else "{}",
    )


def record_json(record: Record) -> str:
    """What of a record is kept in its row: fields that say something, and quote no prompt."""
    said = {name: value for name, default in KEPT.items() if (value := getattr(record, name)) != default}
    texts = {name: storable(value) for name, value in said.items() if isinstance(value, str)}
    return msgspec.json.encode(said | texts).decode()


def storable(text: str) -> str:
    """A text that UTF-8 can hold: a client's model name may have half a surrogate pair in it."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def row_from(found: tuple[Any, ...]) -> Row:
    identity, created, model, path, kind, status, *tokens, duration, error, metadata, record = found
    return Row(
        id=identity,
        timestamp=datetime.fromtimestamp(created, UTC),
        model=model,
        req_path=path,
        resp_content_type=kind,
        resp_status_code=status,
        tokens=Tokens(**dict(zip(TOKENS, tokens, strict=True))),
        duration_ms=duration,
        error_msg=error or msgspec.UNSET,
        metadata=read_metadata(metadata),
        request=read_record(record),
    )


def read_metadata(text: str) -> dict[str, str] | msgspec.UnsetType:
    """The metadata of a row, which another program may have written; what cannot be read is left out."""
    try:
        return msgspec.json.decode(text, type=dict[str, str]) if text else msgspec.UNSET
    except NOT_JSON:
        return msgspec.UNSET


def read_record(text: str) -> Record | msgspec.UnsetType:
    """The record of a row; none if the row is llama-swap's."""
    try:
        return msgspec.json.decode(text, type=Record)
    except NOT_JSON:
        return msgspec.UNSET
