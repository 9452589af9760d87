"""`bioproxy logs`: a model's log, or another one, on the terminal.

It reads `/logs/stream` and writes the bytes as they come: what an engine colours is coloured here. With `follow` it
goes on until Ctrl-C or the program's end; a quiet log is no fault.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import TextIO
from urllib.parse import quote

from bioproxy.cli.client import Client
from bioproxy.cli.output import Output


def logs(output: Output, client: Client, model: str, *, follow: bool) -> int:
    """Print the log of `model` (an ID, an alias, `proxy`, `upstream`; "" is the combined one), and go on with `follow`.

    Always 0, Ctrl-C included; BioproxyError where there is no such log, nobody to ask, or the program was lost.
    """
    path = "/logs/stream" + (f"/{quote(model)}" if model else "") + ("" if follow else "?no-follow")
    write = writer(output.stream)
    try:
        for piece in client.stream(path, accept="text/plain", what="the log"):
            write(piece)
    except KeyboardInterrupt:
        return 0
    return 0


def writer(stream: TextIO) -> Callable[[bytes], None]:
    """How bytes are written to `stream`: as they are, or as text where it has no bytes beneath."""
    binary = getattr(stream, "buffer", None)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(data: bytes) -> None:
        if binary is None:
            stream.write(decoder.decode(data))
        else:
            binary.write(data)
        stream.flush()

    return write
