"""How much a browser fetches before the web page shows something: what is heavy comes when it is needed."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Request

from bioproxy.admin.page import FOLDER
from support.browser import Tab
from support.swap_models import fakes
from support.swap_rig import Rig, swap_rig

FIRST = 120_000  # bytes of script and style, gzip
PAGES = (
    "/", "/models", "/models/a", "/templates", "/cache", "/requests", "/requests/none", "/logs", "/machine",
    "/playground", "/config", "/settings",
)  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The program with a model."""
    async with swap_rig(tmp_path_factory.mktemp("swap"), fakes("a")) as running:
        yield running


def size(url: str) -> int:
    """Bytes of a file of the page that a browser gets which takes gzip."""
    path = FOLDER / urlsplit(url).path.partition("/ui/")[2]
    smaller = path.with_name(path.name + ".gz")
    return len(smaller.read_bytes() if smaller.exists() else gzip.compress(path.read_bytes()))


@pytest.mark.parametrize("route", PAGES)
async def test_a_first_load_is_small(tab: Tab, rig: Rig, route: str) -> None:
    """Whichever page is the first: until its title stands there, and what it shows is live."""
    tab.expected("404")  # there is no such request
    asked: list[Request] = []

    def note(request: Request) -> None:
        asked.append(request)

    tab.page.on("request", note)
    await tab.open(rig.port, route)
    await tab.page.get_by_role("heading", level=1).wait_for()
    sizes = {one.url: size(one.url) for one in asked if one.resource_type in {"script", "stylesheet"}}
    assert len(sizes) >= 3
    assert sum(sizes.values()) <= FIRST, sizes
