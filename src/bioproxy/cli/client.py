"""The command line's way to a running bioproxy: its API over plain HTTP, or TLS where the proxy port speaks that.

Standard library only, and blocking: a command asks one question and ends. Proxies from the environment are not used,
for the port is on this machine or on a trusted network. Every fault becomes one sentence that says what was tried and
what to do. Which port is asked is decided in find.py.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from typing import Any, TypeAlias
from urllib.parse import quote, urlsplit

import msgspec

from bioproxy import __version__
from bioproxy.config.addresses import address_of
from bioproxy.config.schema import Config
from bioproxy.errors import BioproxyError

Json: TypeAlias = Any
SECONDS = 10.0
PIECE = 64 << 10


def admin_url(config: Config) -> str:
    """Where the admin API of this configuration answers."""
    return f"http://{address_of(config.admin_host, config.admin_port)}"


class Client:
    """Asks the API at `url`, with `key` if it wants one. Raises BioproxyError with a sentence.

    `trust`: whom to believe where the URL is one of TLS. `timeout`: seconds, None for as long as it takes. `lacking`:
    why a route may not be there, and what to do. `configuration` is set by find.py: what should answer there, "" if
    nobody named one.
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
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if trust is not None:
            handlers.append(urllib.request.HTTPSHandler(context=trust))
        self.opener = urllib.request.build_opener(*handlers)

    def patient(self) -> Client:
        """The same without a time-out, for what may take long."""
        return Client(self.url, key=self.key, timeout=None, trust=self.trust, lacking=self.lacking)

    def get(self, path: str) -> Json:
        """The JSON that `path` answers."""
        return self.ask("GET", path)

    def post(self, path: str) -> Json:
        """The JSON that a POST to `path` answers."""
        return self.ask("POST", path)

    def warm(self, prefix: str) -> Json:
        """Ask for a warm-up of `prefix`."""
        return self.post(f"/warmup/{quote(prefix, safe='')}")

    def order(self, path: str) -> None:
        """POST to `path`, whatever its answer says beside that it is done."""
        self.send("POST", path)

    def ask(self, method: str, path: str) -> Json:
        """Send one request and read the JSON of its answer."""
        return self.parse(self.send(method, path), path)

    def send(self, method: str, path: str) -> bytes:
        """Send one request; the body of its answer."""
        headers = self.headers("application/json")
        data = b"" if method == "POST" else None
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)  # noqa: S310 - ours
        try:
            with self.opener.open(request, timeout=self.timeout) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            raise self.refused(error, path) from error
        except (OSError, http.client.HTTPException) as error:
            raise self.silent(error) from error

    def headers(self, accept: str) -> dict[str, str]:
        """What each question has at its head."""
        headers = {"User-Agent": f"bioproxy/{__version__}", "Accept": accept}
        return headers | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    def stream(self, path: str, *, accept: str, what: str) -> Iterator[bytes]:
        """What `path` answers, in the pieces in which it comes, to its end.

        Silence is no fault: only the way to the answer's head has a time-out. `what` is cut off where the program goes.
        """
        parts = urlsplit(self.url)
        connection = (
            http.client.HTTPSConnection(parts.netloc, timeout=self.timeout, context=self.trust)
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.netloc, timeout=self.timeout)
        )
        try:
            response = self.begin(connection, path, accept)
            if connection.sock is not None:
                connection.sock.settimeout(None)
            while piece := self.piece(response, what):
                yield piece
        finally:
            connection.close()

    def begin(self, connection: http.client.HTTPConnection, path: str, accept: str) -> http.client.HTTPResponse:
        """The answer once its head is here and says yes."""
        try:
            connection.request("GET", path, headers=self.headers(accept))
            response = connection.getresponse()
            if response.status == http.client.OK:
                return response
            body = BytesIO(response.read())
        except (OSError, http.client.HTTPException) as error:
            raise self.silent(error) from error
        failed = urllib.error.HTTPError(self.url + path, response.status, response.reason, response.headers, body)
        raise self.refused(failed, path)

    def piece(self, response: http.client.HTTPResponse, what: str) -> bytes:
        """What has come, as soon as something has; nothing at the end."""
        try:
            return response.read1(PIECE)
        except (OSError, http.client.HTTPException) as error:
            raise BioproxyError(f"{what} was cut off: bioproxy on {self.url} is gone", status=502) from error

    def parse(self, body: bytes, path: str) -> Json:
        """The JSON of an answer."""
        try:
            return msgspec.json.decode(body) if body else None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BioproxyError(f"{self.url}{path} answered something that is no JSON: is this bioproxy?") from error

    def refused(self, error: urllib.error.HTTPError, path: str) -> BioproxyError:
        """The sentence for an answer that is an error."""
        with error:
            body = error.read()
        try:
            message = str(msgspec.json.decode(body)["error"]["message"])
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
            message = f"{self.url}{path} answered {error.code} {error.reason}"
        unserved = f"{self.url}{path} answered" in message or "nothing is served at" in message
        if error.code == http.client.NOT_FOUND and self.lacking and unserved:
            message += f"; {self.lacking}"
        if error.code in {401, 403} and not self.key:
            message += "; name the key with -admin-key or BIOPROXY_ADMIN_KEY"
        return BioproxyError(message, status=error.code)

    def silent(self, error: Exception) -> BioproxyError:
        """The sentence for no answer at all."""
        reason = getattr(error, "reason", error)
        return BioproxyError(
            f"no bioproxy answers on {self.url} ({reason}); start it with `bioproxy serve`, "
            "or name its admin port with -admin-port",
            status=502,
        )
