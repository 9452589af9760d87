"""Where an engine is: scheme, host, port and a base path, read from a URL."""

from __future__ import annotations

import msgspec

from bioproxy.config import addresses
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
        scheme, host, port, path = addresses.engine_parts(url)
    except ValueError as error:
        raise ConfigError([Problem(str(error))]) from error
    tls = scheme == "https"
    return Origin(host, port or (443 if tls else 80), base=path.rstrip("/"), tls=tls)
