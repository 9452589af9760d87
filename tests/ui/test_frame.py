"""The frame of the web page: what stands around every page of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import expect

from support.browser import Tab
from support.swap_models import fakes
from support.swap_rig import Rig, swap_rig

PLACES = [
    "Now", "Models", "Templates", "Cache", "Requests", "Logs", "Machine", "Playground", "Configuration", "Settings",
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The program with two models."""
    async with swap_rig(tmp_path_factory.mktemp("swap"), fakes("a b")) as running:
        yield running


async def test_the_sidebar_lists_every_page(tab: Tab, rig: Rig) -> None:
    """And the one that is open is marked."""
    tab.expected("/api/live")
    page = await tab.open(rig.port, live=False)
    nav = page.get_by_role("navigation", name="Pages")
    assert [await one.inner_text() for one in await nav.get_by_role("link").all()] == PLACES
    await nav.get_by_role("link", name="Models").click()
    await expect(nav.get_by_role("link", name="Models")).to_have_attribute("aria-current", "page")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Models")
