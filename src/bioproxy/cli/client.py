"""The command line's way to a running bioproxy: its API over plain HTTP, TLS or a unix socket.

Standard library only, and blocking: a command asks one question and ends. Proxies from the environment are not used,
because the port is on this machine or on a trusted network. Every fault becomes one sentence that says what was tried
and what to do. Which port is asked is decided in find.py.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any, TypeAlias
from urllib.parse import quote, urlsplit

import msgspec

from bioproxy import __version__, files
from bioproxy.config.addresses import socket_path, url_of
from bioproxy.config.schema import Config
from bioproxy.errors import NOT_JSON, BioproxyError

Json: TypeAlias = Any
SECONDS = 10.0
PIECE = 64 << 10


def admin_url(config: Config) -> str:
    """Where the admin API of this configuration answers."""
    return url_of(config.admin_host, config.admin_port, tls=config.admin_tls)


class UnixConnection(http.client.HTTPConnection):
    """A connection to the unix socket at `path`."""

    def __init__(self, path: str, *, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        if sys.platform == "win32":
            raise OSError(errno.EAFNOSUPPORT, "this system has no unix sockets")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Client:
    """Asks the API at `url`, with `key` if it wants one. Raises BioproxyError with a sentence.

    `trust`: the certificates to accept if the URL is one of TLS. `timeout`: seconds, None for as long as it takes.
    `lacking`: why a route may be missing, and what to do. `configuration` is set by find.py: the configuration that
    should answer there, "" if the command line names none.
    """

    configuration = ""

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        timeout: float | None = SECONDS,
        trust: ssl.SSLContext | None = None,
        lacking: str = "",
    ) -> None:
        self.url = url
        self.key = key
        self.timeout = timeout
        self.trust = trust
        self.lacking = lacking

    def patient(self) -> Client:
        """The same without a time-out, for requests that may take long."""
        return Client(self.url, key=self.key, timeout=None, trust=self.trust, lacking=self.lacking)

    def get(self, path: str) -> Json:
        """The JSON that `path` answers."""
        return self.parse(self.send("GET", path), path)

    def post(self, path: str) -> Json:
        """The JSON that a POST to `path` answers."""
        return self.parse(self.send("POST", path), path)

    def ask(self, method: str, path: str, body: Json = None) -> Json:
        """The JSON that a request answers which sends `body`, as JSON unless it is bytes."""
        raw = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        return self.parse(self.send(method, path, raw), path)

    def warm(self, prefix: str) -> Json:
        """Ask for a warm-up of `prefix`."""
        return self.post(f"/warmup/{quote(prefix, safe='')}")

    def send(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send one request; the body of its answer."""
        with closing(self.connection()) as connection:
            response = self.begin(connection, method, path, "application/json", body)
            try:
                return response.read()
            except (OSError, http.client.HTTPException) as error:
                raise self.silent(error) from error

    def stream(self, path: str, *, accept: str, what: str) -> Iterator[bytes]:
        """What `path` answers, in the pieces in which it comes, to its end.

        Silence is no fault: only the way to the answer's head has a time-out. If the program goes, the sentence says
        that `what` was cut off.
        """
        with closing(self.connection()) as connection:
            response = self.begin(connection, "GET", path, accept)
            if connection.sock is not None:
                connection.sock.settimeout(None)
            try:
                while piece := response.read1(PIECE):
                    yield piece
            except (OSError, http.client.HTTPException) as error:
                raise BioproxyError(f"{what} was cut off: bioproxy on {self.url} is gone", status=502) from error

    def connection(self) -> http.client.HTTPConnection:
        if path := socket_path(self.url):
            return UnixConnection(path, timeout=self.timeout)
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.netloc, timeout=self.timeout, context=self.trust)
        return http.client.HTTPConnection(parts.netloc, timeout=self.timeout)

    def begin(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        accept: str,
        body: bytes | None = None,
    ) -> http.client.HTTPResponse:
        """The answer once its head is here and says yes."""
        headers = {"User-Agent": f"bioproxy/{__version__}", "Accept": accept, "X-Requested-With": "bioproxy"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            if response.status // 100 == 2:
                return response
            told = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self.silent(error) from error
        raise self.refused(response, told, path)

    def parse(self, body: bytes, path: str) -> Json:
        """The JSON of an answer."""
        try:
            return msgspec.json.decode(body) if body else None
        except NOT_JSON as error:
            raise BioproxyError(f"{self.url}{path} answered something that is no JSON: is this bioproxy?") from error

    def refused(self, response: http.client.HTTPResponse, body: bytes, path: str) -> BioproxyError:
        """The sentence for an answer that is an error."""
        try:
            message = str(msgspec.json.decode(body)["error"]["message"])
        except (*NOT_JSON, KeyError, TypeError):
            message = f"{self.url}{path} answered {response.status} {response.reason}"
        unserved = f"{self.url}{path} answered" in message or "nothing is served at" in message
        if response.status == http.client.NOT_FOUND and self.lacking and unserved:
            message += f"; {self.lacking}"
        if response.status in {401, 403} and not self.key:
            message += "; name the key with -admin-key or BIOPROXY_ADMIN_KEY"
        return BioproxyError(message, status=response.status)

    def silent(self, error: Exception) -> BioproxyError:
        """The sentence for no answer at all, or none that can be trusted."""
        if isinstance(error, ssl.SSLCertVerificationError):
            other = "has another certificate than the one in tls_cert_file now: was only half of the pair renewed?"
            return BioproxyError(f"what answers on {self.url} {other} Its log says which file it waits for", status=502)
        if isinstance(error, ssl.SSLError):
            said = f"does not speak TLS as this configuration has it ({error.reason or error})"
            return BioproxyError(f"what answers on {self.url} {said}; was it reloaded since?", status=502)
        return BioproxyError(
            f"no bioproxy answers on {self.url} ({files.in_short(error)}); start it with `bioproxy serve`, "
            "or name its admin port with -admin-port",
            status=502,
        )
