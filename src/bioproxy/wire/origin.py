"""Where an engine is: scheme, host, port and a base path, read from a URL."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from bioproxy.config import addresses
from bioproxy.config.masking import masked_url_password
from bioproxy.errors import ConfigError, Problem


class Origin(msgspec.Struct, frozen=True):
    """An engine's address. `base` stands before every target and has no slash at its end."""

    host: str
    port: int
    base: str = ""
    tls: bool = False

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.base}"

    @property
    def authority(self) -> str:
        """Host and port as a Host header has them."""
        return addresses.authority(self.host, self.port)


def parse_origin(url: str) -> Origin:
    """An Origin from `http://host:port/base`; ConfigError for anything else."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError as error:
        raise ConfigError([Problem(f"{masked_url_password(url)!r} is no URL: {error}")]) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ConfigError([Problem(f"{masked_url_password(url)!r} is no engine's address; write http://host:port")])
    tls = parts.scheme == "https"
    return Origin(parts.hostname, port or (443 if tls else 80), base=parts.path.rstrip("/"), tls=tls)
