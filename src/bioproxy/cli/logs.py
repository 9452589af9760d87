"""`bioproxy logs`: a model's log, or another one, on the terminal.

It reads `/logs/stream` and writes the bytes as they come: what an engine colours is coloured here. With `follow` it
goes on until Ctrl-C or the program's end; a quiet log is no fault.
"""

from __future__ import annotations

import codecs
import http.client
from collections.abc import Callable
from typing import TextIO
from urllib.parse import quote

from bioproxy.cli.client import Client
from bioproxy.cli.command import Command
from bioproxy.config.nearest import close
from bioproxy.errors import BioproxyError

NOT_OF_MODELS = ("proxy", "upstream")


def logs(command: Command) -> int:
    """Print the log of a model (an ID, an alias, `proxy`, `upstream`; without one the combined log), and follow it.

    0; BioproxyError if there is no such log, no program to ask, or the program went away.
    """
    client, model = command.client(), command.arguments.model
    path = "/logs/stream" + (f"/{quote(model)}" if model else "") + ("" if command.arguments.follow else "?no-follow")
    write = writer(command.output.stream)
    try:
        for piece in client.stream(path, accept="text/plain", what="the log"):
            write(piece)
    except BioproxyError as error:
        if error.status not in (http.client.BAD_REQUEST, http.client.NOT_FOUND):
            raise
        near = close(model, [*NOT_OF_MODELS, *names_of(client)])
        raise BioproxyError(
            f"{error.message}{f'; did you mean {near}?' if near else ''}", status=error.status
        ) from None
    return 0


def names_of(client: Client) -> list[str]:
    """Every name of a model; none if the program does not say."""
    try:
        return [name for one in client.get("/api/models")["models"] for name in (one["model"], *one["aliases"])]
    except BioproxyError:
        return []


def writer(stream: TextIO) -> Callable[[bytes], None]:
    """How bytes are written to `stream`: as they are, or as text if it takes no bytes."""
    binary = getattr(stream, "buffer", None)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(data: bytes) -> None:
        if binary is None:
            stream.write(decoder.decode(data))
        else:
            binary.write(data)
        stream.flush()

    return write
