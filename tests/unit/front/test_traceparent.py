"""`traceparent` as the W3C has it: what is valid is not touched, what is not is gone."""

from __future__ import annotations

import pytest

from bioproxy.front.traceparent import settle
from bioproxy.wire.http1.message import Request

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"


def request(*values: str) -> Request:
    """A request with these `traceparent` headers, and a `tracestate`."""
    headers = [(b"Host", b"a"), *((b"TraceParent", value.encode()) for value in values), (b"tracestate", b"vendor=1")]
    return Request("POST", b"/", path="/", headers=headers, fields={name.lower(): value for name, value in headers})


@pytest.mark.parametrize("value", [GOOD, f"00-{TRACE}-{PARENT}-00", f"cc-{TRACE}-{PARENT}-01-what-comes-later"])
def test_a_valid_one_is_not_touched(value: str) -> None:
    """Also one of a later version, which may have more after it."""
    found = request(value)
    before = [*found.headers]
    assert settle(found) == TRACE
    assert found.headers == before


@pytest.mark.parametrize(
    "values",
    [
        (),
        (GOOD, GOOD),
        ("",),
        (GOOD.upper(),),
        (f"ff-{TRACE}-{PARENT}-01",),
        (f"00-{TRACE}-{PARENT}-01-more",),
        (f"00-{'0' * 32}-{PARENT}-01",),
        (f"00-{TRACE}-{'0' * 16}-01",),
        (f"00-{TRACE}-{PARENT}",),
        (f"00-{TRACE[1:]}-{PARENT}-01",),
        (f"{GOOD}\n",),
    ],
    ids=repr,
)
def test_an_invalid_one_is_gone(values: tuple[str, ...]) -> None:
    """And what belongs to it, so that the next server begins the trace anew."""
    found = request(*values)
    assert settle(found) == ""
    assert (found.headers, [*found.fields]) == ([(b"Host", b"a")], [b"host"])
