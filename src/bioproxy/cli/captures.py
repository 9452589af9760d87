"""`bioproxy captures export`: captured requests and answers as JSON Lines, from the program that runs.

What is in a line, and what never is, is admin/capture_text.py's. A file is written under another name until it is
whole, and is readable by its owner alone: prompts are private.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

from bioproxy.cli.client import Client
from bioproxy.cli.command import Command
from bioproxy.cli.contexts import new_file
from bioproxy.cli.logs import writer
from bioproxy.cli.output import Progress, count, size
from bioproxy.cli.prune import without_model
from bioproxy.config.units import read_seconds

AT = "/api/captures"


def run(command: Command) -> int:
    """Write them. BioproxyError with what the program, or the disk, said."""
    output, arguments = command.output, command.arguments
    model, bare = without_model(command)
    pieces = exported(bare.client().patient(), query(arguments.since, arguments.client, model))
    if not arguments.file:
        write = writer(output.stream)
        for piece in pieces:
            write(piece)
        return 0
    path, lines, written = Path(arguments.file), 0, 0
    with new_file(path) as file, Progress(output, "exporting captures") as progress:
        for piece in pieces:
            file.write(piece)
            lines, written = lines + piece.count(b"\n"), written + len(piece)
            progress.say(f"{count(lines)}, {size(written)}")
    if output.json:
        output.document({"file": str(path), "captures": lines, "bytes": written})
    else:
        output.line(f"{count(lines)} captures are in {path}, {size(written)}", "green")
    return 0


def exported(client: Client, query: str) -> Iterator[bytes]:
    return client.stream(f"{AT}{query}", accept="application/x-ndjson", what="the export")


def query(since: str, client: str, model: str) -> str:
    """The query of the route."""
    asked = {"client": client, "model": model}
    if since:
        begins = max(0.0, time.time() - read_seconds(since))
        asked["start"] = datetime.fromtimestamp(int(begins), UTC).isoformat()
    text = urlencode({name: value for name, value in asked.items() if value})
    return f"?{text}" if text else ""
