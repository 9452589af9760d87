"""`bioproxy models`, `load` and `unload`: what there is, and have it loaded or stopped.

All three ask the running program (find.py). Loading takes as long as it takes, so a line says what happens meanwhile.
If the command is interrupted, the program goes on with what it was asked for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import quote

from bioproxy.cli.client import Client
from bioproxy.cli.command import Command
from bioproxy.cli.output import Colour, Output, Progress, count, duration, size
from bioproxy.config.nearest import close
from bioproxy.errors import BioproxyError

Json: TypeAlias = Any
Row: TypeAlias = Mapping[str, Json]

PERIOD = 0.25  # seconds between two looks at what was asked for
COLUMNS = (
    "model",
    "state",
    "since",
    "memory",
    "running",
    "waiting",
    "tokens",
    "snapshots",
    "size",
    "unload in",
    "last error",
)
RIGHT = (2, 3, 4, 5, 6, 7, 8, 9)
LOG_FOLLOWS = "; last lines of its log:"  # at the end of an error's first line
EXITED = "upstream command exited prematurely: "  # at its beginning, for scripts; the state says it already
LIVE = {"starting", "ready", "stopping"}
COLOURS: dict[str, Colour] = {"ready": "green", "starting": "cyan", "stopping": "yellow", "failed": "red"}


def models(command: Command) -> int:
    output = command.output
    rows = command.client().get("/api/models")["models"]
    if output.json:
        output.document(rows)
        return 0
    if not rows:
        output.line("no models")
        return 0
    now = time.time()
    output.table(COLUMNS, [row(one, now) for one in rows], right=RIGHT, colours=lambda cells: COLOURS.get(cells[1], ""))
    return 0


def beginning(one: Row, now: float) -> tuple[str, ...]:
    """The first seven columns, which `top` has as well; what says nothing is a dash."""
    return (
        one["model"],
        one["state"],
        duration(max(0.0, now - one["since"])) if one["starts"] else "-",
        size(one["memory"]),
        str(one["running"]),
        str(one["waiting"]),
        count(one["tokens"] or None),
    )


def row(one: Row, now: float) -> tuple[str, ...]:
    return (
        *beginning(one, now),
        count(one["snapshots"] or None),
        size(one["snapshot_bytes"] or None),
        duration(one["unload_in"]),
        short(one["reason"]),
    )


def model_colour(cells: Sequence[str]) -> Colour:
    """What is not loaded is dimmed."""
    return COLOURS.get(cells[1], "dim")


def short(text: str) -> str:
    """The first line of an error, from its cause on."""
    return text.strip().partition("\n")[0].removesuffix(LOG_FOLLOWS).removeprefix(EXITED)


def load(command: Command) -> int:
    """Have a model loaded; returns when it is ready, and says how long that took. BioproxyError if it cannot be."""
    output, client, model = command.output, command.client(changes=True), command.arguments.model
    before = state_of(client, model)
    started = time.monotonic()
    follow(output, client, model, lambda: client.patient().send("POST", f"/api/models/load/{quote(model)}"))
    after = state_of(client, model)
    if output.json:
        output.document({"model": after["model"], "state": after["state"], "seconds": time.monotonic() - started})
    elif before["state"] == "ready" and after["starts"] == before["starts"]:
        output.line(f"{after['model']} was loaded already")
    else:
        output.line(f"{after['model']} is {after['state']}, after {duration(time.monotonic() - started)}", "green")
    return 0


def unload(command: Command) -> int:
    """Stop one model, or all if none is named; returns when they are stopped, and says which."""
    output, client, model = command.output, command.client(changes=True), command.arguments.model
    rows = client.get("/api/models")["models"]
    before = [state_of(client, model)] if model else rows
    path = f"/api/models/unload/{quote(model)}" if model else "/api/models/unload"
    follow(output, client, model, lambda: client.patient().send("POST", path))
    stopped = [one["model"] for one in before if one["state"] in LIVE]
    if output.json:
        output.document({"stopped": stopped})
    elif stopped:
        output.line(f"stopped: {', '.join(stopped)}")
    else:
        output.line(f"{before[0]['model']} was not loaded" if model else "nothing was loaded")
    return 0


def state_of(client: Client, model: str) -> Row:
    """What is known of a model by any of its names; BioproxyError if there is none."""
    rows: Sequence[Row] = client.get("/api/models")["models"]
    for one in rows:
        if model == one["model"] or model in one["aliases"]:
            return one
    names = [name for one in rows for name in (one["model"], *one["aliases"])]
    near = close(model, names)
    meant = f"did you mean {near}?" if near else f"there are: {', '.join(one['model'] for one in rows) or 'none'}"
    raise BioproxyError(f"there is no model {model}; {meant}", status=404)


def follow(output: Output, client: Client, model: str, work: Callable[[], object]) -> None:
    """Do `work` (a request) and show meanwhile how it stands; raises what it raised."""
    raised: list[BioproxyError] = []
    done = threading.Event()

    def ask() -> None:
        try:
            work()
        except BioproxyError as error:
            raised.append(error)
        finally:
            done.set()

    threading.Thread(target=ask, daemon=True).start()  # Ctrl-C does not wait for it: the program goes on by itself
    if not done.wait(PERIOD):  # else it is over before there is anything to tell
        with Progress(output, model or "all models") as progress:
            while not done.wait(PERIOD):
                progress.say(standing(client, model))
    if raised:
        raise raised[0]


def standing(client: Client, model: str) -> str:
    """How it stands, in a few words; empty if the program does not say."""
    try:
        rows = client.get("/api/models")["models"]
    except BioproxyError:
        return ""
    now = time.time()
    asked = [one for one in rows if one["model"] == model or model in one["aliases"] or not model]
    busy = [one for one in asked if one["state"] in LIVE] or asked
    return ", ".join(
        f"{'' if model else one['model'] + ' '}{one['state']} for {duration(max(0.0, now - one['since']))}"
        + (f", {one['running']} requests to finish" if one["running"] else "")
        for one in busy
    )
