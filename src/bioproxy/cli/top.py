"""`bioproxy top`: the models and the requests under way, drawn anew every second, until `q` or Ctrl-C.

It draws over a screen of its own, so that what stood on the terminal is there again afterwards, whatever ends it.
Without a terminal it prints what it would draw, once. A figure per second is what came between two looks.
"""

from __future__ import annotations

import io
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from bioproxy.cli.client import Client
from bioproxy.cli.command import Command
from bioproxy.cli.models import beginning, model_colour, short
from bioproxy.cli.output import Output, count, duration, size
from bioproxy.errors import BioproxyError

Json: TypeAlias = Any
Row: TypeAlias = Mapping[str, Json]
Identity: TypeAlias = tuple[str, str, float]
Rates: TypeAlias = Mapping[Identity, float]

PERIOD = 1.0
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # a screen of its own without a cursor, and back
HOME, REST, LINE = "\x1b[H", "\x1b[J", "\x1b[K"  # to the corner; clear below; clear to the line's end
MODELS = ("model", "state", "since", "memory", "running", "waiting", "tokens", "prompt/s", "tokens/s", "last error")
REQUESTS = ("model", "route", "for", "what", "bytes", "bytes/s")
STAGES = {
    "model": "waits for its model",
    "queue": "waits for the engine",
    "aside": "lets others go first",
    "prompt": "is being read",
    "answer": "is being answered",
    "elsewhere": "waits for a peer",
}


def top(command: Command) -> int:
    """Show until `q` or Ctrl-C. BioproxyError if no program answers at the beginning."""
    output, client = command.output, command.client()
    answer = client.get("/api/models")
    if output.json:
        output.document(answer)
        return 0
    if not output.stream.isatty():
        write(output, output, answer, rates={})
        return 0
    with screen(output):
        live(output, client, answer)
    return 0


def live(output: Output, client: Client, answer: Json) -> None:
    """Draw, wait, look, until `q`."""
    then, before = time.monotonic(), answer
    rates: Rates = {}
    while True:
        draw(output, answer, rates=rates)
        if pressed(PERIOD) in {"q", "Q"}:
            return
        try:
            answer = client.get("/api/models")
        except BioproxyError as error:
            answer = {"error": error.message}
        now = time.monotonic()
        rates = rates_of(before.get("requests", ()), answer.get("requests", ()), seconds=now - then)
        then, before = now, answer


def draw(output: Output, answer: Json, *, rates: Rates) -> None:
    """One picture over the last one, cut to what the terminal holds."""
    width, height = shutil.get_terminal_size()
    page = io.StringIO()
    write(output, Output(stream=page, colour=output.colour), answer, rates=rates)
    lines = page.getvalue().splitlines()[: height - 1]
    output.stream.write(HOME + "".join(f"{cut(line, width)}{LINE}\r\n" for line in lines) + REST)
    output.stream.flush()


def cut(line: str, width: int) -> str:
    """A line that fits, colours not counted."""
    room, kept, rest = width, "", line
    while rest and room > 0:
        plain, escape, rest = rest.partition("\x1b")
        kept += plain[:room]
        room -= len(plain)
        if escape:
            code, end, rest = rest.partition("m")
            kept += escape + code + end
    return kept + ("\x1b[0m" if "\x1b" in line else "")


def write(output: Output, page: Output, answer: Json, *, rates: Rates) -> None:
    if "error" in answer:
        page.line(output.paint(answer["error"], "red"))
        return
    rows, requests = answer["models"], answer["requests"]
    now = time.time()
    memory = sum(one["memory"] or 0 for one in rows)
    ready = sum(one["state"] == "ready" for one in rows)
    waiting = sum(one["waiting"] for one in rows)
    page.line(
        f"{ready} of {len(rows)} models ready, {size(memory)}; {len(requests)} requests, {waiting} wait for a model"
        f"{'   q: end' if output.stream.isatty() else ''}"
    )
    page.line()
    ordered = sorted(rows, key=lambda one: (one["state"] == "stopped", -one["last_used"]))
    page.table(
        MODELS,
        [model_row(one, now) for one in ordered],
        right=range(2, 9),
        colours=model_colour,
    )
    if requests:
        page.line()
        page.table(REQUESTS, [request_row(one, rates.get(identity(one))) for one in requests], right=(2, 4, 5))


def model_row(one: Row, now: float) -> tuple[str, ...]:
    return (
        *beginning(one, now),
        speed(one["prompt_per_second"]),
        speed(one["tokens_per_second"]),
        short(one["reason"]),
    )


def request_row(one: Row, rate: float | None) -> tuple[str, ...]:
    place = f", {one['position']} in line" if one["position"] else ""
    left = f", about {duration(one['left'])}" if one["left"] is not None else ""
    return (
        one["model"],
        one["path"],
        duration(one["elapsed"]),
        str(STAGES.get(one["stage"], one["stage"])) + place + left,
        size(one["bytes"] or None),
        "-" if rate is None else size(round(rate)),
    )


def speed(per_second: float | None) -> str:
    """Tokens per second of the newest answer that says."""
    if per_second is None:
        return "-"
    return f"{per_second:.1f}" if per_second < 100 else count(round(per_second))


def identity(one: Row) -> Identity:
    """What tells a request from others; not every client that may look is shown ids."""
    return one["model"], one["path"], one["started"]


def rates_of(before: Sequence[Row], after: Sequence[Row], *, seconds: float) -> Rates:
    """Bytes per second, in the last `seconds`, of each request that was there before."""
    known = {identity(one): one["bytes"] for one in before}
    there = [one for one in after if identity(one) in known]
    return {identity(one): max(0.0, (one["bytes"] - known[identity(one)]) / seconds) for one in there if seconds > 0}


@contextmanager
def screen(output: Output) -> Iterator[None]:
    """A screen of its own, on which keys come at once and are not shown; everything as before at the end."""
    restore = raw_keys()
    before = signal.signal(signal.SIGTERM, interrupt)
    output.stream.write(ENTER)
    output.stream.flush()
    try:
        yield
    finally:
        output.stream.write(LEAVE)
        output.stream.flush()
        signal.signal(signal.SIGTERM, before)
        restore()


def interrupt(*_: object) -> None:
    """A SIGTERM ends this as Ctrl-C does: the terminal must be left as it was."""
    raise KeyboardInterrupt


def raw_keys() -> Callable[[], None]:
    """Let single keys come in at once; what undoes that. Without a terminal nothing happens."""
    if sys.platform == "win32" or not sys.stdin.isatty():  # there Ctrl-C ends it
        return lambda: None
    import termios

    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    raw = termios.tcgetattr(keys)
    raw[3] &= ~(termios.ICANON | termios.ECHO)  # lines and echo off; Ctrl-C stays a signal
    termios.tcsetattr(keys, termios.TCSADRAIN, raw)
    return lambda: termios.tcsetattr(keys, termios.TCSADRAIN, before)


def pressed(seconds: float) -> str:
    """The key that is pressed within `seconds`; "" for none."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        time.sleep(seconds)
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return os.read(sys.stdin.fileno(), 1).decode("latin-1") if ready else ""
