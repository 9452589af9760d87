"""`bioproxy requests`: what was asked lately, where its time went, and why; with `-f` what is asked from now on.

The newest stands at the bottom, as in a log. Following begins to listen before it looks at what was, so that no
request falls in between; one that is in both is shown once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias
from urllib.parse import urlencode

import msgspec

from bioproxy.cli.client import Client
from bioproxy.cli.command import Command
from bioproxy.cli.output import Colour, Output, aligned, count, duration
from bioproxy.errors import BioproxyError

Json: TypeAlias = Any
Record: TypeAlias = Mapping[str, Json]

COLUMNS = ("time", "status", "outcome", "model", "client", "route", "queued", "first", "total", "cached", "new", "why")
WIDTHS = (8, 6, 12, 20, 12, 24, 7, 7, 7, 7, 7, 0)  # of a table that goes on, whose widest row is not known
RIGHT = (1, 6, 7, 8, 9, 10)
COLOURS: dict[str, Colour] = {"ok": "", "client_left": "dim", "rejected": "yellow", "timeout": "yellow"}
ENDED = "RequestEnded"


def requests(command: Command) -> int:
    """Print the newest requests, of one outcome if it is given; with `-f` also those that come, until Ctrl-C."""
    output, client, outcome = command.output, command.client(), command.arguments.outcome
    path = "/requests?" + urlencode({"limit": command.arguments.number} | ({"outcome": outcome} if outcome else {}))
    if not command.arguments.follow:
        found = list(reversed(client.get(path)["requests"]))
        show(output, found)
        return 0
    go_on(output, client, path, outcome)
    return 0


def show(output: Output, records: list[Record]) -> None:
    """A table that has an end."""
    if output.json:
        output.document(records)
    elif not records:
        output.line("no requests")
    else:
        output.table(COLUMNS, [cells(one) for one in records], right=RIGHT, colours=colour)


def go_on(output: Output, client: Client, path: str, outcome: str) -> None:
    """A table without an end; as JSON a line for each request."""
    pieces = client.stream("/events", accept="text/event-stream", what="the list of requests")
    first = next(pieces, b"")
    known = list(reversed(client.get(path)["requests"]))
    if not output.json:
        output.line(aligned(COLUMNS, WIDTHS, RIGHT), "bold")
    seen = {identity(one) for one in known}
    for one in known:
        print_one(output, one)
    for one in ended(events(chain([first], pieces))):
        if identity(one) in seen:
            seen.discard(identity(one))
        elif not outcome or one["outcome"] == outcome:
            print_one(output, one)
    raise BioproxyError(f"the list of requests was cut off: bioproxy on {client.url} is gone", status=502)


def identity(record: Record) -> tuple[str, float]:
    """What tells two requests apart: a client may use an id twice."""
    return record["id"], record["started"]


def print_one(output: Output, record: Record) -> None:
    """One request under the others."""
    if output.json:
        output.line(msgspec.json.encode(record).decode())
    else:
        shown = cells(record)
        output.line(aligned(shown, WIDTHS, RIGHT), colour(shown))


def cells(record: Record) -> tuple[str, ...]:
    return (
        time.strftime("%H:%M:%S", time.localtime(record["started"])),
        str(record["status"] or "-"),
        record["outcome"],
        record["model"] or "-",
        record["client"] or "-",
        record["endpoint"] if record["endpoint"] != "other" else record["path"],
        spent(record["queue"] + record["swap"]),
        duration(record["first_byte"]),
        duration(record["total"]),
        count(record["tokens_cached"]),
        count(record["tokens_evaluated"]),
        record["error"].partition("\n")[0] or record["why"],
    )


def spent(seconds: float) -> str:
    """Time that passed, a dash if none did."""
    return duration(seconds) if seconds >= 0.0005 else "-"


def colour(row: Sequence[str]) -> Colour:
    """What did not end well stands out."""
    return COLOURS.get(row[2], "red")


def events(pieces: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Name and data of each server-sent event; an event may lie across pieces, and comments are none."""
    waiting = b""
    for piece in pieces:
        waiting += piece
        *blocks, waiting = waiting.split(b"\n\n")
        for block in blocks:
            fields = dict(line.partition(b": ")[::2] for line in block.split(b"\n"))
            if b"data" in fields:
                yield fields.get(b"event", b"message").decode(), fields[b"data"]


def ended(heard: Iterable[tuple[str, bytes]]) -> Iterator[Record]:
    for name, data in heard:
        if name == ENDED:
            yield msgspec.json.decode(data)["record"]
