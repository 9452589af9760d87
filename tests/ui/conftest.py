"""What every test of the web page has: one event loop and one browser for all of them, and `tab`, a page of its own.

The browser belongs to a loop, so all tests here run on the same one, and so must asynchronous fixtures:
`@pytest_asyncio.fixture(loop_scope="session")`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from support.browser import Tab, chromium, new_tab, why_not

HERE = Path(__file__).parent
FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A first test may have to wait until the page is built."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture(scope="session")
def built() -> None:
    """Skips if there is no browser, or no page."""
    if reason := why_not():
        pytest.skip(reason)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(built: None) -> AsyncIterator[Browser]:
    """One for all."""
    async with chromium() as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note that a test failed, for `tab`."""
    report = yield
    item.stash[FAILED] = report.failed
    return report


@pytest_asyncio.fixture(loop_scope="session")
async def tab(browser: Browser, request: pytest.FixtureRequest) -> AsyncIterator[Tab]:
    """A page with storages of its own; the test fails if anything went wrong in it. One that fails prints the page."""
    async with new_tab(browser) as opened:
        yield opened
        wrong = opened.wrong()
        if request.node.stash.get(FAILED, False):
            print(await opened.shown())
    assert wrong == []
