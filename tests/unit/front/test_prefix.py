"""The path of a reverse proxy: taken off before anything looks at the request, and given back to browsers."""

from __future__ import annotations

from typing import cast

import pytest

from bioproxy.errors import RequestError
from bioproxy.front.prefix import below, forwarded_prefix, outside
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.http1.target import read_target


def requested(target: str, **fields: str) -> Request:
    """A request as the reader makes it."""
    raw, path, _ = read_target(target.encode(), b"GET")
    named = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    return Request(method="GET", target=raw, path=path, headers=[], fields=named)


async def handled(request: Request, base: str = "/llm") -> Request:
    """What the handler gets."""
    seen: list[Request] = []

    async def handler(one: Request, _: Responder) -> None:
        seen.append(one)

    await below(base, handler)(request, cast("Responder", None))
    return seen[0]


@pytest.mark.parametrize(
    ("asked", "target", "path"),
    [
        ("/llm/v1/models", "/v1/models", "/v1/models"),
        ("/llm/upstream/a%2Fb/x?q=%20", "/upstream/a%2Fb/x?q=%20", "/upstream/a/b/x"),
        ("/llm", "/", "/"),
        ("/llm/", "/", "/"),
        ("/llm?q", "/?q", "/"),
        ("/llm/llm/x", "/llm/x", "/llm/x"),
        ("/llms/x", "/llms/x", "/llms/x"),
        ("/v1/models", "/v1/models", "/v1/models"),
        ("/", "/", "/"),
    ],
)
async def test_it_is_taken_off_once(asked: str, target: str, path: str) -> None:
    """With its escapes and its query the rest stays as it came; paths without it are served, too."""
    found = await handled(requested(asked))
    assert (found.target, found.path) == (target.encode(), path)


@pytest.mark.parametrize("asked", ["/l%6cm/slots/0", "/%6clm", "/llm%2fslots/0"])
async def test_no_escape_hides_it(asked: str) -> None:
    """What reads the path after us might see the prefix that we did not, and our guards another path."""
    with pytest.raises(RequestError, match="hides /llm behind an escape"):
        await handled(requested(asked))


@pytest.mark.parametrize(
    ("asked", "said", "stands"),
    [
        ("/llm/ui", "", "/llm"),
        ("/llm/ui", "/other", "/llm"),
        ("/ui", "", "/llm"),
        ("/ui", "/other/", "/other"),
        ("/ui", "//evil.example", "/llm"),
    ],
)
async def test_what_a_browser_is_told_to_ask(asked: str, said: str, stands: str) -> None:
    """What was taken off here; else what the reverse proxy took off and says; else what is configured."""
    fields = {"x_forwarded_prefix": said} if said else {}
    assert outside(await handled(requested(asked, **fields))) == stands.encode()


@pytest.mark.parametrize(
    ("said", "prefix"), [("/a", "/a"), ("/a/", "/a"), ("/a-b/c.d", "/a-b/c.d"), ("https://evil.example", ""), ("a", "")]
)
def test_a_forwarded_prefix_is_a_path(said: str, prefix: str) -> None:
    """Of plain segments; without `proxy.base_path` it is all that is known."""
    request = requested("/", x_forwarded_prefix=said)
    assert (forwarded_prefix(request), outside(request)) == (prefix.encode(), prefix.encode())
