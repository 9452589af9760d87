"""Who may ask the admin port: the right `Host`, no foreign page, the right key.

The port listens on this machine and often has no key, so the danger is a web page in the operator's own browser. Two
ways in are shut here:

- *DNS rebinding*: a page's name is pointed at 127.0.0.1, and the browser then believes that our answers are the page's
  own. Such a request carries the page's name as `Host`; only names that are ours are served, for reading too, because
  `/requests` and `/status` show private text.
- *Cross-site requests*: a page sends `POST /reload` blindly. The browser says from where in `Origin`; only a page of
  this port itself, or of a name in `admin_hosts`, may.

`/health`, `/livez`, `/readyz` and `/metrics` carry no private text and change nothing: they are exempt, so that a probe
or scraper may use whatever name its network gives us. `/metrics` wants `metrics_key` where one is set.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit

from bioproxy.config.schema import Config
from bioproxy.errors import Forbidden, Unauthorized
from bioproxy.keys import Keyring, presented
from bioproxy.wire.message import Request

Access = Literal["open", "metrics", "admin"]
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
EVERYWHERE = frozenset({"", "*", "0.0.0.0", "::"})  # noqa: S104 - names to recognise, nothing is bound


def host_name(host: str) -> str:
    """The name in a `Host` header or an entry of `admin_hosts`: no port, no brackets, lower case; "" if malformed."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Whether `name` is an IP address: no resolver ever saw it, so nobody could have rebound it."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def keyring(key: str, where: str) -> Keyring:
    """A ring of one key, or an empty one."""
    return Keyring((key,) if key else (), where=where)


class Guard:
    """The rule for one configuration."""

    def __init__(self, config: Config) -> None:
        self.named = frozenset(host_name(host) for host in config.admin_hosts)
        self.names = LOOPBACK | self.named | {host_name(config.admin_host)}
        self.everywhere = config.admin_host in EVERYWHERE
        self.admin = keyring(config.admin_key, "admin_key")
        self.metrics = keyring(config.metrics_key, "metrics_key")

    def check(self, request: Request, access: Access) -> None:
        """Let `request` pass, or raise Forbidden (host or origin) or Unauthorized (key)."""
        if access == "admin":
            self.check_host(request)
            self.check_origin(request)
        self.check_key(request, access)

    def check_host(self, request: Request) -> None:
        """The name by which we were reached must be one of ours."""
        host = (request.header(b"host") or b"").decode("latin-1")
        name = host_name(host)
        if name and (name in self.names or (self.everywhere and is_address(name))):
            return
        raise Forbidden(
            f"the admin port was asked as {host!r}, which is none of its names; if it should be, add it to admin_hosts"
        )

    def check_origin(self, request: Request) -> None:
        """A page that asks must be one of this port, or of a named host."""
        origin = request.header(b"origin")
        if origin is None:
            return
        text = origin.decode("latin-1")
        own = (request.header(b"host") or b"").decode("latin-1").lower()
        try:
            parts = urlsplit(text)
            foreign = parts.netloc.lower() != own and (parts.hostname or "") not in self.named
        except ValueError:
            foreign = True
        if foreign:
            raise Forbidden(f"a page of {text!r} may not use the admin port; if it should, add its host to admin_hosts")

    def check_key(self, request: Request, access: Access) -> None:
        """The key, where one is set. The admin's key opens everything."""
        wanted = {"open": None, "metrics": self.metrics, "admin": self.admin}[access]
        if not wanted:
            return
        key = presented(request.header)
        if wanted.find(key) is None and self.admin.find(key) is None:
            name = "metrics_key" if access == "metrics" else "admin_key"
            raise Unauthorized(f"this wants {name}: send it as `Authorization: Bearer <key>`, or as a Basic password")
