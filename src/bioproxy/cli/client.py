"""The command line's way to a running bioproxy: its admin API over plain HTTP.

Standard library only, and blocking: a command asks one question and ends. Proxies from the environment are not used,
for the admin port is on this machine or on a trusted network. Every fault becomes one sentence that says what was
tried and what to do.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec

from bioproxy import __version__
from bioproxy.config.schema import Config
from bioproxy.errors import BioproxyError

Json: TypeAlias = Any
EVERYWHERE = {"", "0.0.0.0", "::", "*"}  # noqa: S104 - names to recognise, nothing is bound
SECONDS = 10.0


def admin_url(config: Config) -> str:
    """Where the admin API of this configuration answers; an address that means "all" is asked on this machine."""
    host = "localhost" if config.admin_host in EVERYWHERE else config.admin_host
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{config.admin_port}"


class Client:
    """Asks the admin API at `url`, with `key` if it wants one. Raises BioproxyError with a sentence."""

    def __init__(self, url: str, *, key: str = "", timeout: float = SECONDS) -> None:
        self.url = url
        self.key = key
        self.timeout = timeout
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Json:
        """The JSON that `path` answers."""
        return self.ask("GET", path)

    def post(self, path: str) -> Json:
        """The JSON that a POST to `path` answers."""
        return self.ask("POST", path)

    def warm(self, prefix: str) -> Json:
        """Ask for a warm-up of `prefix`."""
        return self.post(f"/warmup/{quote(prefix, safe='')}")

    def ask(self, method: str, path: str) -> Json:
        """Send one request and read the JSON of its answer."""
        headers = {"User-Agent": f"bioproxy/{__version__}", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = b"" if method == "POST" else None
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)  # noqa: S310 - ours
        try:
            with self.opener.open(request, timeout=self.timeout) as response:
                body = response.read()
        except urllib.error.HTTPError as error:
            raise self.refused(error, path) from error
        except (OSError, http.client.HTTPException) as error:
            raise self.silent(error) from error
        return self.parse(body, path)

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
