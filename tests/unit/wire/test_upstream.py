"""Where an engine is."""

from __future__ import annotations

import pytest

from bioproxy.errors import ConfigError
from bioproxy.wire.upstream import Origin, parse_origin
from support.sockets import needs_unix


@pytest.mark.parametrize(
    ("url", "origin", "text"),
    [
        ("http://localhost:8081", Origin("localhost", 8081), "http://localhost:8081"),
        ("http://box", Origin("box", 80), "http://box:80"),
        ("https://box/base/", Origin("box", 443, base="/base", tls=True), "https://box:443/base"),
        ("http://[::1]:9", Origin("::1", 9), "http://[::1]:9"),
        ("box:8081", Origin("box", 8081), "http://box:8081"),
        pytest.param("unix:/run/a.sock", Origin("localhost", "/run/a.sock"), "unix:/run/a.sock", marks=needs_unix),
        pytest.param("unix:///run/a.sock", Origin("localhost", "/run/a.sock"), "unix:/run/a.sock", marks=needs_unix),
        ("http://u:p@box", Origin("box", 80), "http://box:80"),
    ],
)
def test_addresses(url: str, origin: Origin, text: str) -> None:
    """An address has a scheme, a host, a port and perhaps a base path; credentials are not sent, as by llama-swap."""
    assert parse_origin(url) == origin
    assert str(origin) == text


@pytest.mark.parametrize(
    "url", ["", "ftp://h", "http://", "http://h:x", "http://h/?q", "http://h#f", "unix:run/a.sock"]
)
def test_what_is_no_address(url: str) -> None:
    """Anything else is a configuration error that shows what was given."""
    with pytest.raises(ConfigError, match=r"no URL|no engine|relative path|no unix sockets"):
        parse_origin(url)
