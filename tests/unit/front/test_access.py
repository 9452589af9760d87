"""Who asks the proxy port, and who may read metrics there."""

from __future__ import annotations

from typing import cast

import pytest

from bioproxy.errors import Unauthorized
from bioproxy.front.access import Access
from bioproxy.front.exchange import Exchange
from bioproxy.front.routes import Route
from bioproxy.wire.http1.message import Carrier, Request, Responder
from support.config_files import config

PROXIES = ["10.0.0.0/8", "fd00::/8"]


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "client"),
    [
        (PROXIES, "10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        (PROXIES, "10.0.0.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        (PROXIES, "10.0.0.1", ["6.6.6.6", "203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        (PROXIES, "10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        (PROXIES, "10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (PROXIES, "10.0.0.1", ["203.0.113.9, unknown"], "10.0.0.1"),
        (PROXIES, "10.0.0.1", ["203.0.113.9, unix"], "10.0.0.1"),
        (PROXIES, "10.0.0.1", [], "10.0.0.1"),
        (PROXIES, "10.0.0.1", ["203.0.113.9, ::ffff:10.0.0.2"], "203.0.113.9"),
        (["::ffff:10.0.0.0/104"], "10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        (["::ffff:10.0.0.1"], "10.0.0.2", ["203.0.113.9"], "10.0.0.2"),
        (PROXIES, "192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        (PROXIES, "unix", ["203.0.113.9"], "unix"),
        (PROXIES, "", ["203.0.113.9"], ""),
        (["unix"], "unix", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        (["unix"], "10.0.0.1", ["203.0.113.9"], "10.0.0.1"),
        (["unix"], "", ["203.0.113.9"], ""),
    ],
)
def test_who_is_believed_about_the_client(proxies: list[str], peer: str, forwarded: list[str], client: str) -> None:
    """The right-most address that no trusted proxy has; a client may write anything to the left of it."""
    headers = [(b"X-Forwarded-For", line.encode()) for line in forwarded]
    request = Request(method="GET", target=b"/", path="/", headers=headers, fields={}, peer=peer)
    assert Access(config(trusted_proxies=proxies), local=True).address(request) == client


async def test_metrics_want_their_key_if_there_is_no_other() -> None:
    """Who set `metrics_key` does not want them open on the proxy port, where no other key keeps strangers out."""

    def admitted(shown: str) -> str:
        headers = [(b"authorization", f"Bearer {shown}".encode())]
        request = Request("GET", b"/metrics", "/metrics", headers, dict(headers), peer="10.0.0.7")
        exchange = Exchange(
            request, Responder(cast("Carrier", None), request), Route("/metrics", guard="manage"), started=0.0
        )
        Access(config(metrics_key="scraper"), local=False).admit(exchange)
        return exchange.record.client

    assert admitted("scraper") == "metrics"
    with pytest.raises(Unauthorized, match="metrics_key"):
        admitted("other")
