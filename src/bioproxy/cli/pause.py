"""`bioproxy pause` and `bioproxy resume`: the card is wanted for something else, for a time or until further notice."""

from __future__ import annotations

import time
from typing import Any, TypeAlias
from urllib.parse import quote

from bioproxy.cli.command import Command
from bioproxy.cli.models import follow
from bioproxy.cli.output import duration

Json: TypeAlias = Any


def pause(command: Command) -> int:
    """Pause; returns when every engine of ours has stopped. BioproxyError if the time is none."""
    output, client, length = command.output, command.client(changes=True), command.arguments.length
    path = f"/api/pause?for={quote(length)}" if length else "/api/pause"
    told: list[Json] = []
    follow(output, client, "", lambda: told.append(client.patient().post(path)))
    until = told[0]["pause"]["until"]
    if output.json:
        output.document(told[0])
    else:
        ends = "until `bioproxy resume`" if until is None else f"for {duration(max(0.0, until - time.time()))}"
        output.line(f"paused {ends}: no engine of this bioproxy runs, and requests are refused", "yellow")
    return 0


def resume(command: Command) -> int:
    """Have requests served again."""
    output, client = command.output, command.client(changes=True)
    answer = client.patient().post("/api/resume")
    if output.json:
        output.document(answer)
    else:
        output.line("requests are served again", "green")
    return 0
