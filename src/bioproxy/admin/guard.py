"""Who may ask the admin port: the right `Host`, no foreign page, the right key.

The port listens on this machine and often has no key, so the danger is a web page in the operator's own browser. Two
ways in are shut here:

- *DNS rebinding*: a page's name is pointed at 127.0.0.1, and the browser then believes that our answers are the page's
  own. Such a request carries the page's name as `Host`; only names that are ours are served, for reading too, because
  `/requests` and `/status` show private text.
- *Cross-site requests*: a page sends `POST /reload`, or shows an image whose address is `/unload`, blindly. Only a page
  of this port itself, or of a name in `admin_hosts`, may (front/cors.py has the rule).

`/health`, `/livez`, `/readyz` and `/metrics` carry no private text and change nothing: they are exempt, so that a probe
or scraper may use whatever name its network gives us. `/metrics` wants `metrics_key` if one is set. The web page's own
files want no key, because a person types it into the page; a foreign name does not get them.
"""

from __future__ import annotations

from typing import Literal

from bioproxy.config.addresses import host_of, is_any
from bioproxy.config.schema import Config
from bioproxy.errors import Unauthorized
from bioproxy.front.cors import check_name, check_page
from bioproxy.front.routes import READING_METHODS
from bioproxy.keys import Keyring, presented
from bioproxy.wire.http1.message import Request

Access = Literal["open", "metrics", "page", "admin"]


def keyring(key: str, where: str) -> Keyring:
    """A ring of one key, or an empty one."""
    return Keyring((key,) if key else (), where=where)


class Guard:
    """The rule for one configuration."""

    def __init__(self, config: Config) -> None:
        self.named = frozenset(host_of(host) for host in config.admin_hosts)
        self.names = self.named | {host_of(config.admin_host)}
        self.everywhere = is_any(config.admin_host)
        self.admin = keyring(config.admin_key, "admin_key")
        self.metrics = keyring(config.metrics_key, "metrics_key")

    def check(self, request: Request, access: Access, *, changes: bool = False) -> None:
        """Let `request` pass, or raise ForeignPage or Unauthorized (key). `changes`: its GET changes something."""
        if access in {"page", "admin"}:
            check_name(request, names=self.names, addresses=self.everywhere, port="admin")
        acts = changes or request.method not in READING_METHODS or request.header(b"origin") is not None
        if access == "admin" and acts:
            check_page(request, allows=lambda origin: host_of(origin) in self.named, key="admin_hosts")
        self.check_key(request, access)

    def check_key(self, request: Request, access: Access) -> None:
        """The key, if one is set. The admin's key opens everything."""
        wanted = {"open": None, "page": None, "metrics": self.metrics, "admin": self.admin}[access]
        if not wanted:
            return
        key = presented(request.header)
        if wanted.find(key) is None and self.admin.find(key) is None:
            name = "metrics_key" if access == "metrics" else "admin_key"
            raise Unauthorized(f"this wants {name}: send it as `Authorization: Bearer <key>`, or as a Basic password")
