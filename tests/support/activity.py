"""Records and rows of requests that never were."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from bioproxy.activity import Record
from bioproxy.admin.activity_row import Row, Tokens
from bioproxy.admin.activity_store import ActivityStore
from bioproxy.config.dialect.schema import DialectConfig, Store
from support.settings import settings


def metered(**fields: Any) -> Record:
    """A request for a model that has ended well."""
    known: dict[str, Any] = {
        "id": "r", "started": 1_800_000_000.25, "total": 1.5, "method": "POST", "path": "/v1/chat/completions",
        "endpoint": "/v1/chat/completions", "status": 200, "model": "llama", "metered": True,
        "content_type": "application/json",
    }  # fmt: skip
    return Record(**(known | fields))


def row(second: int = 0, **fields: Any) -> Row:
    """A row, `second` seconds after the first ones."""
    known: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(1_800_000_000 + second, UTC), "model": "llama",
        "req_path": "/v1/chat/completions", "resp_content_type": "application/json", "resp_status_code": 200,
        "tokens": Tokens(), "duration_ms": 5,
    }  # fmt: skip
    return Row(**(known | fields))


@asynccontextmanager
async def table(path: str | None = None, limit: int = 1000, *, max_age: float = 0.0) -> AsyncIterator[ActivityStore]:
    """An open activity table, closed with the block."""
    swap = DialectConfig(store=Store(path=path), metrics_max_in_memory=limit)
    store = ActivityStore(settings(swap, kv__max_age=max_age))
    await store.start()
    try:
        yield store
    finally:
        await store.close()
