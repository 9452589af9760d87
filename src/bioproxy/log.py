"""Logging: standard library records, plain or JSON lines, the request's id in each.

`setup` is called once by the command line (and again by a reload that changes level or format). The request id travels
in a context variable, so that a line logged five calls down still says for whom. Bodies, prompts and keys are never
logged at any level: a log file is copied into bug reports.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import time
from typing import TextIO

import msgspec

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")

COLOURS = {
    "DEBUG": "\x1b[2m",
    "INFO": "",
    "WARNING": "\x1b[33m",
    "ERROR": "\x1b[31m",
    "CRITICAL": "\x1b[1;31m",
}
RESET = "\x1b[0m"


def stamp(created: float) -> str:
    """ISO 8601 with milliseconds and the zone's offset, as journal and log shippers read it."""
    local = time.localtime(created)
    zone = time.strftime("%z", local)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{int(created % 1 * 1000):03d}{zone[:3]}:{zone[3:]}"


class PlainFormatter(logging.Formatter):
    """`2026-11-22T20:15:01.123+01:00 INFO  gate: sentence  [request id]`, coloured on a terminal."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self.colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line (and the lines of its trace, where a fault of ours left one)."""
        name = record.name.removeprefix("bioproxy.")
        current = request_id.get()
        line = f"{stamp(record.created)} {record.levelname:<7} {name}: {record.getMessage()}"
        if current:
            line += f"  [{current}]"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        paint = COLOURS.get(record.levelname, "") if self.colour else ""
        return f"{paint}{line}{RESET}" if paint else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, request_id, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one JSON object."""
        entry = {
            "time": stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            entry["request_id"] = current
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


def setup(*, level: str = "info", style: str = "plain", stream: TextIO | None = None) -> None:
    """Send the log to `stream` (default: stderr) at `level` (debug, info, warning, error), `plain` or `json`."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if style == "json" else PlainFormatter(colour=stream.isatty()))
    root = logging.getLogger("bioproxy")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
