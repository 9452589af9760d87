"""Logging: standard library records, plain or JSON lines, the request's id in each.

`setup` is called once by the command line (and again by a reload that changes level or format). The request id travels
in a context variable, so that a line logged five calls down still says for which request. Bodies, prompts and keys are
never logged at any level: a log file is copied into bug reports.

If models are configured, the same records also go to the logbook (logbook.py), as lines that users of llama-swap and
their scripts know: `[INFO] sentence`, after the time in one of Go's formats if they chose one (`logTimeFormat`), and a
line for each request (`access_line`).

With `log.format: json` everything on standard error is one JSON object per line (`json_line`): our records, the access
log (front/access_log.py), and what engines write (engines/lines.py). docs/operating.md has the table of its fields.
"""

from __future__ import annotations

import contextvars
import json
import logging
import sys
import time
from collections.abc import Callable
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
        """One record as one line (and the lines of its trace, if a fault of ours left one)."""
        name = record.name.removeprefix("bioproxy.")
        current = request_id.get()
        line = f"{stamp(record.created)} {record.levelname:<7} {name}: {record.getMessage()}"
        if current:
            line += f"  [{current}]"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        paint = COLOURS.get(record.levelname, "") if self.colour else ""
        return f"{paint}{line}{RESET}" if paint else line


def json_line(created: float, message: str, *, level: str = "info", logger: str, **named: object) -> str:
    """One JSON object, without its newline; of what is `named`, the values that say something."""
    said = {name: value for name, value in named.items() if value not in (None, "", (), 0.0)}
    entry = {"time": stamp(created), "level": level, "logger": logger, "message": message, **said}
    try:
        return msgspec.json.encode(entry).decode()
    except UnicodeEncodeError:  # a file's name may be any bytes
        return json.dumps(entry, default=str)


class JsonFormatter(logging.Formatter):
    """A record as one line; the trace of an exception is a text in it, with its line ends escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return json_line(
            record.created,
            record.getMessage(),
            level=record.levelname.lower(),
            logger=record.name,
            request_id=request_id.get(),
            exception=self.formatException(record.exc_info) if record.exc_info else "",
        )


SWAP_LEVELS = {"WARNING": "WARN", "CRITICAL": "ERROR"}
# Go's package time, constants of layouts; <z> is the offset as ISO 8601 has it, <3> and the like a fraction's digits
GO_TIMES = {
    "ansic": "%a %b %e %H:%M:%S %Y",
    "unixdate": "%a %b %e %H:%M:%S %Z %Y",
    "rubydate": "%a %b %d %H:%M:%S %z %Y",
    "rfc822": "%d %b %y %H:%M %Z",
    "rfc822z": "%d %b %y %H:%M %z",
    "rfc850": "%A, %d-%b-%y %H:%M:%S %Z",
    "rfc1123": "%a, %d %b %Y %H:%M:%S %Z",
    "rfc1123z": "%a, %d %b %Y %H:%M:%S %z",
    "rfc3339": "%Y-%m-%dT%H:%M:%S<z>",
    "rfc3339nano": "%Y-%m-%dT%H:%M:%S<n><z>",
    "kitchen": "%I:%M%p",
    "stamp": "%b %e %H:%M:%S",
    "stampmilli": "%b %e %H:%M:%S<3>",
    "stampmicro": "%b %e %H:%M:%S<6>",
    "stampnano": "%b %e %H:%M:%S<9>",
}


def go_time(created: float, name: str) -> str:
    """`created` (unix time) in the Go format `name`, in local time; nothing for a name that is not known."""
    layout = GO_TIMES.get(name, "")
    nanoseconds = round(created * 1e6) * 1000  # a float of today holds no more than microseconds
    local = time.localtime(nanoseconds // 10**9)
    text = time.strftime(layout, local)
    if name == "kitchen":
        return text.lstrip("0")
    if "<" in text:
        digits = f"{nanoseconds % 10**9:09d}"
        for mark, fraction in (("<3>", digits[:3]), ("<6>", digits[:6]), ("<9>", digits), ("<n>", digits.rstrip("0"))):
            text = text.replace(mark, fraction and f".{fraction}")
        zone = time.strftime("%z", local)
        text = text.replace("<z>", f"{zone[:3]}:{zone[3:]}" if local.tm_gmtoff else "Z")
    return text


class SwapFormatter(logging.Formatter):
    """`[INFO] sentence`, after the time in the Go format `times` if it names one."""

    def __init__(self, *, times: str = "") -> None:
        super().__init__()
        self.times = times

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line (and the lines of its trace)."""
        line = f"[{SWAP_LEVELS.get(record.levelname, record.levelname)}] {record.getMessage()}"
        if self.times:
            line = f"{go_time(record.created, self.times)} {line}".lstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class LineHandler(logging.Handler):
    """Gives each line to `write`, which must not wait: requests log."""

    def __init__(self, write: Callable[[str], None], formatter: logging.Formatter) -> None:
        super().__init__()
        self.write = write
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.write(self.format(record))
        except Exception:
            self.handleError(record)


def setup(
    *,
    level: str = "info",
    style: str = "plain",
    stream: TextIO | None = None,
    write: Callable[[str], None] | None = None,
    times: str = "",
    show: Callable[[str], None] | None = None,
    quiet: bool = False,
) -> None:
    """Send the log to `stream` (default: stderr) at `level` (debug, info, warning, error), `plain` or `json`.

    `write` gets each line as well, as llama-swap writes it, with times in the Go format `times`. `show` gets what
    would go to the stream as JSON; `quiet` leaves the stream out, because what `write` does with a line already
    shows it.
    """
    stream = stream or sys.stderr
    handlers: list[logging.Handler] = []
    if show is not None:
        handlers.append(LineHandler(show, JsonFormatter()))
    elif not quiet:
        handlers.append(logging.StreamHandler(stream))
        handlers[0].setFormatter(JsonFormatter() if style == "json" else PlainFormatter(colour=stream.isatty()))
    if write is not None:
        handlers.append(LineHandler(write, SwapFormatter(times=times)))
    root = logging.getLogger("bioproxy")
    root.handlers[:] = handlers
    logging.getLogger("asyncio").handlers[:] = handlers[:1] if style == "json" else []  # else it writes plain lines
    root.setLevel("WARNING" if level == "warn" else level.upper())
    root.propagate = False


# asked every few seconds by machines; and the web page's parts, some forty whenever somebody opens it
UNLOGGED = ("/wol-health", "/api/performance", "/metrics", "/ui/assets/")


def access_line(
    *,
    client: str,
    method: str,
    path: str,
    status: int,
    size: int,
    agent: str,
    seconds: float,
    protocol: str = "HTTP/1.1",
    times: str = "",
) -> str:
    """The line for a finished request, as llama-swap writes it; empty for paths that would only fill the log.

    It is the same as SwapFormatter's, without a record, because every request pays for it. `size` is bytes of the
    answer's body, `seconds` until its last one. What a client made up cannot end the line or the quotes.
    """
    if path.startswith(UNLOGGED):
        return ""
    given = f"{client}{method}{path}{agent}"
    if not given.isprintable() or '"' in given or "\\" in given:
        client, method, path, agent = map(escaped, (client, method, path, agent))
    when = f"{go_time(time.time(), times)} ".lstrip() if times else ""
    what = f'"{method} {path} {protocol}" {status} {size} "{agent}" {go_duration(seconds)}'
    return f"{when}[INFO] Request {client} {what}"


def escaped(text: str) -> str:
    """`text` with quotes, backslashes and what is not printable escaped."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in quoted)


def go_duration(seconds: float) -> str:
    """Seconds as Go prints a duration: `850ns`, `12.5µs`, `3.25ms`, `1.5s`, `2m0.5s`, `1h0m3s`."""
    nanoseconds = max(0, round(seconds * 1e9))
    if nanoseconds < 10**9:
        if nanoseconds >= 10**6:
            return f"{nanoseconds / 10**6:.6f}".rstrip("0").rstrip(".") + "ms"
        if nanoseconds >= 10**3:
            return f"{nanoseconds / 10**3:.3f}".rstrip("0").rstrip(".") + "µs"
        return f"{nanoseconds}ns" if nanoseconds else "0s"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    text = f"{rest // 10**9}.{rest % 10**9:09d}".rstrip("0").rstrip(".") + "s"
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes_left}m{text}"
    return f"{minutes}m{text}" if minutes else text
