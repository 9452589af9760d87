"""Which web pages may read answers."""

from __future__ import annotations

import pytest

from bioproxy.front.cors import Cors
from bioproxy.wire.message import Request


def request(method: str = "POST", **fields: str) -> Request:
    lower = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    return Request(method, b"/v1/models", path="/v1/models", headers=list(lower.items()), fields=lower)


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:8080", "https://LOCALHOST"]
)
def test_without_keys_a_page_of_this_machine_may_read(origin: str) -> None:
    """Its origin is named in the answer."""
    assert Cors((), keys=False).headers(request(origin=origin))[0] == (b"Access-Control-Allow-Origin", origin.encode())


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost.evil.example", "null", "file://", "http://127.0.0.1.nip.io"]
)
def test_without_keys_a_foreign_page_may_not_read(origin: str) -> None:
    """It could ask for a template and read the operator's files out of the answer."""
    assert Cors((), keys=False).headers(request(origin=origin)) == []


def test_with_keys_any_page_may_read_for_the_key_is_the_secret() -> None:
    """No cookie is involved."""
    assert Cors((), keys=True).headers(request(origin="https://chat.example"))


def test_named_origins_are_the_only_ones() -> None:
    """Case and a trailing slash of the configuration do not matter."""
    cors = Cors(("https://Chat.example/",), keys=True)
    assert cors.headers(request(origin="https://chat.example"))
    assert not cors.headers(request(origin="http://localhost:3000"))


def test_a_client_that_is_no_page_gets_no_headers() -> None:
    """Curl and SDKs send no Origin."""
    assert Cors(("*",), keys=False).headers(request()) == []


def test_a_preflight_is_told_methods_and_the_headers_it_asked_for() -> None:
    """The browser asks before it sends a key."""
    ask = request(
        "OPTIONS",
        origin="http://localhost:3000",
        access_control_request_method="POST",
        access_control_request_headers="authorization, content-type",
    )
    cors = Cors((), keys=False)
    assert cors.is_preflight(ask)
    assert (b"Access-Control-Allow-Headers", b"authorization, content-type") in cors.preflight(ask)


def test_a_foreign_preflight_is_told_nothing() -> None:
    """Without Access-Control headers the browser does not send the request."""
    ask = request("OPTIONS", origin="https://evil.example", access_control_request_method="POST")
    assert Cors((), keys=False).preflight(ask) == [(b"Vary", b"Origin")]


def test_an_options_request_of_an_sdk_is_no_preflight() -> None:
    """It goes to the engine."""
    assert not Cors.is_preflight(request("OPTIONS"))


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://a]b/"])
def test_what_is_no_origin_is_foreign(origin: str) -> None:
    """It raises nothing, however it is malformed."""
    assert Cors((), keys=False).headers(request(origin=origin)) == []
