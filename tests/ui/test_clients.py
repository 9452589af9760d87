"""What the page shows of clients: what was done by rules, and both texts of a prompt that a rule changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import expect

from support.browser import Tab
from support.http import call
from support.requests_of_clients import CLAUDE, MESSAGES, SIDE, Sent, claude, user
from support.swap_models import fake
from support.swap_rig import Rig, swap_rig

Json = Any
TITLE = next(sent for sent in SIDE if sent.side == "opencode-title")
RULES: Json = {
    "side": [{"name": TITLE.side, "side": "refuse"}],
    "stabilize": [{"name": "claude-code-billing", "mode": "on"}],
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The program with a model, and a title and two turns behind it."""
    folder = tmp_path_factory.mktemp("swap")
    async with swap_rig(folder, {"m": fake()}, clients=RULES, captureBuffer=20) as running:
        await send(running, TITLE)
        for number in ("a1b", "7ff"):
            await send(running, Sent(agent=CLAUDE, path=MESSAGES, body=claude(*user("hi"), number=number)))
        yield running


async def send(rig: Rig, sent: Sent) -> None:
    headers = {**sent.headers, "User-Agent": sent.agent, "Content-Type": "application/json"}
    body = json.dumps(sent.body | {"model": "m"}).encode()
    assert (await call(rig.port, "POST", sent.path, body=body, headers=headers)).status == 200


async def test_what_was_done_stands_on_the_first_page(tab: Tab, rig: Rig) -> None:
    """A row for each rule that was for a request."""
    page = await tab.open(rig.port)
    rows = page.get_by_role("region", name="Clients").locator("tbody tr")
    await expect(rows).to_have_count(2)
    await expect(rows.nth(0)).to_contain_text("opencode-title")
    await expect(rows.nth(0)).to_contain_text("1 refused")
    await expect(rows.nth(1)).to_contain_text("1 changed, 2 mended")
    assert await tab.axe() == []


async def test_a_changed_prompt_is_shown_as_it_came_and_as_it_went(tab: Tab, rig: Rig) -> None:
    """With the names of the rules that changed it."""
    newest = (await call(rig.ports.admin, "GET", "/api/metrics/activity?limit=1")).json()["data"][0]["id"]
    page = await tab.open(rig.port, f"/requests/{newest}")
    capture = page.get_by_role("region", name="Capture")
    await expect(page.get_by_text("claude-code", exact=True)).to_be_visible()
    await expect(capture).not_to_contain_text("x-anthropic-billing-header")
    await capture.get_by_text("What the client sent").click()
    await expect(capture).to_contain_text("changed by claude-code-billing")
    await expect(capture).to_contain_text("x-anthropic-billing-header")
