"""`bioproxy logs`: a model's log, or another one, on the terminal.

It reads the admin port's `/logs/stream` and writes the bytes as they come: what an engine colours is coloured here.
With `follow` it goes on until Ctrl-C or the program's end; a quiet log is no fault, so only the way to the answer's
head has a time-out.
"""

from __future__ import annotations

import codecs
import http.client
from collections.abc import Callable
from io import BytesIO
from typing import TextIO
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

from bioproxy import __version__
from bioproxy.cli.client import SECONDS, Client, admin_url
from bioproxy.cli.output import Output
from bioproxy.config.schema import Config
from bioproxy.errors import BioproxyError

PIECE = 64 << 10


def logs(output: Output, config: Config, model: str, *, follow: bool) -> int:
    """Print the log of `model` (an ID, an alias, `proxy`, `upstream`; "" is the combined one), and go on with `follow`.

    Always 0, Ctrl-C included; BioproxyError where there is no such log, nobody to ask, or the program was lost.
    """
    client = Client(admin_url(config), key=config.admin_key)
    path = "/logs/stream" + (f"/{quote(model)}" if model else "") + ("" if follow else "?no-follow")
    try:
        read(client, path, writer(output.stream))
    except KeyboardInterrupt:
        return 0
    return 0


def read(client: Client, path: str, write: Callable[[bytes], None]) -> None:
    """Give what `path` answers to `write`, as it comes, to its end."""
    connection = http.client.HTTPConnection(urlsplit(client.url).netloc, timeout=client.timeout or SECONDS)
    try:
        response = ask(connection, client, path)
        if connection.sock is not None:
            connection.sock.settimeout(None)
        while piece := next_piece(response, client):
            write(piece)
    finally:
        connection.close()


def ask(connection: http.client.HTTPConnection, client: Client, path: str) -> http.client.HTTPResponse:
    """Send the question; the answer once its head is here and says yes."""
    headers = {"User-Agent": f"bioproxy/{__version__}", "Accept": "text/plain"}
    if client.key:
        headers["Authorization"] = f"Bearer {client.key}"
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        if response.status == http.client.OK:
            return response
        body = BytesIO(response.read())
    except (OSError, http.client.HTTPException) as error:
        raise client.silent(error) from error
    raise client.refused(HTTPError(client.url + path, response.status, response.reason, response.headers, body), path)


def next_piece(response: http.client.HTTPResponse, client: Client) -> bytes:
    """What has come, as soon as something has; nothing at the end."""
    try:
        return response.read1(PIECE)
    except (OSError, http.client.HTTPException) as error:
        raise BioproxyError(f"the log was cut off: bioproxy on {client.url} is gone", status=502) from error


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
