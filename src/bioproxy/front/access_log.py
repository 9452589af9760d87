"""The access log in JSON: one object for each request, from its record.

The plain one is llama-swap's line (many.py). This one is written with one engine, too, and every field is named as the
record names it (activity.py); docs/operating.md has the table.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from bioproxy.front.exchange import Exchange
from bioproxy.log import UNLOGGED, json_line

LINES = logging.getLogger("bioproxy.access")  # of this level are the lines
FIELDS = (
    "method", "path", "status", "outcome", "error", "model", "client", "app", "session", "trace_id", "work", "side",
    "prefix", "stream", "bytes_in", "bytes_out", "tokens_cached", "tokens_evaluated", "tokens_generated", "cache",
)  # fmt: skip
SECONDS = ("total", "swap", "queue", "save", "restore", "first_byte", "prefill", "decode")


def tell(exchange: Exchange, address: str, show: Callable[[str], None]) -> None:
    """Write the line of a request that is over; none for paths that would only fill the log."""
    record, request = exchange.record, exchange.request
    if not LINES.isEnabledFor(logging.INFO) or record.path.startswith(UNLOGGED):
        return
    seconds = {name: round(value, 6) for name in SECONDS if (value := getattr(record, name))}
    line = json_line(
        record.started + record.total,
        f"{record.method} {record.path} {record.status}",
        logger=LINES.name,
        request_id=record.id,
        address=address,
        agent=(request.header(b"user-agent") or b"").decode("latin-1"),
        **{name: getattr(record, name) for name in FIELDS},
        **seconds,
    )
    show(line)
