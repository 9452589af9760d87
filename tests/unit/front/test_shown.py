"""Headers as people may see them."""

from __future__ import annotations

import pytest

from bioproxy.front.shown import REDACTED, shown


@pytest.mark.parametrize("name", [b"authorization", b"Cookie", b"SET-COOKIE", b"x-api-key", b"Proxy-Authorization"])
def test_what_lets_somebody_in_is_not_shown(name: bytes) -> None:
    """However its name is written."""
    assert list(shown([(name, b"secret")]).values()) == [REDACTED]


def test_each_name_stands_once_with_its_first_value() -> None:
    """Written as Go writes it, whatever bytes the value has."""
    headers = [(b"x-request-id", b"1"), (b"X-Request-ID", b"2"), (b"accept", b"\xff")]
    assert shown(headers) == {"X-Request-Id": "1", "Accept": "\ufffd"}
