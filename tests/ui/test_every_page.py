"""What holds for every page: nobody is kept out by axe's rules, in both themes, and nothing is cut off on a phone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from support.browser import Tab
from support.http import call
from support.swap_rig import Rig
from ui.look import busy, machine

PAGES = (
    "/", "/models", "/models/alpha", "/models/broken", "/models/gamma", "/templates", "/cache", "/requests",
    "/requests/LAST", "/logs", "/machine", "/playground", "/config", "/settings",
)  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The program after a quarter of a minute in a household."""
    async with machine(tmp_path_factory.mktemp("machine"), real=False) as running:
        await busy(running)
        yield running


@pytest.mark.parametrize("route", PAGES)
async def test_nobody_is_kept_out(tab: Tab, rig: Rig, route: str) -> None:
    """Axe finds nothing serious, in light and dark, wide and on a phone, where nothing reaches beyond the edge."""
    if "LAST" in route:
        newest = (await call(rig.port, "GET", "/api/requests?limit=1")).json()["requests"][0]["id"]
        route = route.replace("LAST", newest)
    page = await tab.open(rig.port, route)
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    found = await tab.axe()
    await tab.dark()
    found += [f"dark: {one}" for one in await tab.axe()]
    await tab.phone()
    found += [f"on a phone: {one}" for one in [*await tab.axe(), *await tab.spilled()]]
    assert found == []
