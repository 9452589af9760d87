"""The start page: what to look at, which models run, who waits for what, what the cache saved and what swaps cost."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from fakes.fake_engine import FakeEngine
from support.apps import running_app
from support.browser import GONE, Tab
from support.http import call
from support.swap_models import fake, fakes
from support.swap_rig import Rig, swap_rig
from ui.look import llama

Json = Any
PROMPT = [{"role": "user", "content": "one two three four " * 200}]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The program with three models, of which one runs at a time, and one that is broken."""
    models = {**fakes("a b"), "c": fake(name="Model C"), "broken": fake("--exit 3")}
    async with swap_rig(tmp_path_factory.mktemp("swap"), models, swap={"min_resident": 0}) as running:
        yield running


def part(page: Page, heading: str) -> Locator:
    """The section below a heading."""
    return page.locator("section").filter(has=page.get_by_role("heading", name=heading))


async def free(rig: Rig) -> None:
    """No model is loaded, and no failure is remembered."""
    await rig.post("/api/models/unload")


async def test_nothing_is_going_on(tab: Tab, tmp_path: Path) -> None:
    """Each part says what would fill it."""
    tab.expected(GONE)
    async with swap_rig(tmp_path, fakes("a")) as rig:
        page = await tab.open(rig.port)
        for text in (
            "No model is ready; no request is under way.",
            "No model is loaded. The next request loads the one that it names",
            "No request is under way. Each one appears here",
            "No model ran in this period.",
        ):
            await expect(page.get_by_text(text)).to_be_visible()
        await expect(page.get_by_role("heading", name="To look at")).to_have_count(0)
        await page.get_by_role("button", name="As a table").click()
        await expect(page.get_by_text("No model was loaded in this period.")).to_be_visible()


async def test_who_waits_for_what(tab: Tab, rig: Rig) -> None:
    """The one that runs, then those that wait in their order, each with the reason, and a guess once it was loaded."""
    await rig.chat("b")
    held = await rig.ask_held("a")
    page = await tab.open(rig.port)
    waits = await rig.ask_queued("b")
    other = await rig.ask_queued("c")
    under = part(page, "Requests under way")
    await expect(under.get_by_text("3 requests, 2 waiting")).to_be_visible()
    await expect(page.get_by_text("a is ready; 1 request is served, 2 waiting.")).to_be_visible()
    rows = under.get_by_role("row")
    await expect(rows.nth(1)).to_contain_text("the engine reads its prompt")
    await expect(rows.nth(2)).to_contain_text(
        re.compile(r"waits for requests of a to end; then b swaps in, about \d+ s")
    )
    await expect(rows.nth(3)).to_contain_text("waits for requests of a to end; then c swaps in")
    await expect(rows.nth(2).get_by_role("cell", name="1", exact=True)).to_be_visible()
    await expect(rows.nth(3).get_by_role("cell", name="2", exact=True)).to_be_visible()
    models = part(page, "Models").get_by_role("row")
    await expect(
        models.filter(has=page.get_by_role("cell", name="ready")).get_by_role("link", name="a")
    ).to_be_visible()
    await expect(models.filter(has=page.get_by_role("cell", name="waiting", exact=True))).to_have_count(2)
    await rig.release("a")
    for one in (held, waits, other):
        assert (await one).status == 200
    await expect(under.get_by_text("0 requests")).to_be_visible()
    await free(rig)


async def test_a_request_is_cancelled(tab: Tab, rig: Rig) -> None:
    """It is gone from the list, and its client is told."""
    held = await rig.ask_held("a")
    page = await tab.open(rig.port)
    await page.get_by_role("button", name="Cancel the request to a").click()
    await expect(page.get_by_text("No request is under way. Each one appears here")).to_be_visible()
    assert (await held).status != 200
    await free(rig)


async def test_a_pause(tab: Tab, rig: Rig) -> None:
    """Everything stops for as long as was chosen; the page says so at its top, and ends it."""
    await rig.chat("a")
    page = await tab.open(rig.port)
    await page.get_by_role("button", name="Pause: save").click()
    await page.get_by_role("menuitem", name="For an hour").click()
    note = page.get_by_role("status").filter(has_text="bioproxy is paused for another")
    await expect(note).to_contain_text("none of its own engines runs, and requests are refused.")
    await expect(page.get_by_text("No model is loaded while bioproxy is paused.")).to_be_visible()
    assert (await rig.chat("a")).status == 503
    await note.get_by_role("button", name="Resume").click()
    await expect(note).to_have_count(0)
    assert (await rig.chat("a")).status == 200
    await free(rig)


async def test_a_pause_is_taken_back_while_it_begins(tab: Tab, rig: Rig) -> None:
    """What runs may finish; until then the page does not say that nothing runs."""
    page = await tab.open(rig.port)
    held = await rig.ask_held("a")
    await page.get_by_role("button", name="Pause: save").click()
    await page.get_by_role("menuitem", name="For an hour").click()
    note = page.get_by_role("status").filter(has_text="bioproxy is being paused for another")
    await note.get_by_role("button", name="Resume").click()
    await expect(note).to_have_count(0)
    await rig.release("a")
    assert (await held).status == 200
    assert (await rig.chat("a")).status == 200
    await free(rig)


async def test_a_load_is_shown(tab: Tab, tmp_path: Path) -> None:
    """With the time left, once one was measured."""
    tab.expected(GONE)
    (go := tmp_path / "go").touch()
    async with swap_rig(tmp_path, fakes("a", f"--wait_for {go}")) as rig:
        await rig.chat("a")
        await free(rig)
        go.unlink()
        page = await tab.open(rig.port)
        waits = rig.ask("a")
        await expect(page.get_by_role("progressbar", name="Load of a")).to_be_visible()
        await expect(page.get_by_text(re.compile(r"waits for a to load, about \d+ s"))).to_be_visible()
        go.touch()
        await waits
        await expect(part(page, "Models").get_by_text("ready", exact=True)).to_be_visible()


async def test_what_each_slot_holds(tab: Tab, tmp_path: Path) -> None:
    """And what the cache spared today."""
    tab.expected(GONE)
    (tmp_path / "slots").mkdir()
    (tmp_path / "code.txt").write_text("word " * 300 + "<{message}>")
    prefixes = {"@code": str(tmp_path / "code.txt")}
    async with swap_rig(tmp_path, {"q": llama(tmp_path)}, prefixes=prefixes, kv={"min_seconds": 0.0}) as rig:
        page = await tab.open(rig.port)
        saved = page.get_by_role("region", name="Cache")
        await expect(saved.get_by_role("img")).to_have_count(0)  # no prompt was read yet
        for _ in range(2):
            await rig.chat("q", messages=[{"role": "user", "content": "@code What is this?"}])
        slots = part(page, "Models")
        await expect(slots.get_by_text(re.compile(r"(template|conversation with) @code")).first).to_be_visible()
        await expect(slots.get_by_text(re.compile(r"\d+ tokens")).first).to_be_visible()
        await expect(slots.get_by_text("MiB")).to_be_visible()
        await expect(saved.get_by_role("img", name=re.compile("Prompt tokens: From the cache [1-9]"))).to_be_visible()
        await expect(saved).not_to_contain_text("today")  # before the start nothing was counted
        await expect(saved.get_by_text("%").first).to_be_visible()


async def test_what_to_look_at(tab: Tab, rig: Rig) -> None:
    """A start that failed leads to its model, and goes away when it is mended."""
    await rig.chat("broken")
    page = await tab.open(rig.port)
    warnings = page.get_by_role("region", name="Warnings")
    await expect(warnings.get_by_text(re.compile("The model did not start: .*exit code 3"))).to_be_visible()
    await expect(warnings.get_by_text(re.compile("It is tried again with the next request"))).to_be_visible()
    await warnings.get_by_role("link", name="Show").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("broken")


async def test_a_configuration_that_cannot_be_read(tab: Tab, tmp_path: Path) -> None:
    """The reload's error is shown, with what to do, until the next one succeeds."""
    tab.expected(GONE)
    async with swap_rig(tmp_path, fakes("a")) as rig:
        page = await tab.open(rig.port)
        path = tmp_path / "config.yaml"
        good = path.read_text()
        path.write_text(good + "\nnonsense: [")
        await call(rig.ports.admin, "POST", "/reload")
        warnings = page.get_by_role("region", name="Warnings")
        await expect(warnings.get_by_text("The last reload of the configuration failed")).to_be_visible()
        await expect(warnings.get_by_text("The previous configuration stays in force.")).to_be_visible()
        await warnings.get_by_role("link", name="Show").click()
        await expect(page).to_have_url(re.compile("#/config"))
        await page.go_back()
        path.write_text(good)
        await call(rig.ports.admin, "POST", "/reload")
        await expect(warnings).to_have_count(0)


async def test_many_warnings(tab: Tab, tmp_path: Path) -> None:
    """Six are shown, the rest behind a button."""
    tab.expected(GONE)
    names = "a b c d e f g h"
    async with swap_rig(
        tmp_path, fakes(names, "--exit 3"), groups={"all": {"swap": False, "members": names.split()}}
    ) as rig:
        for name in names.split():
            await rig.chat(name)
        page = await tab.open(rig.port)
        warnings = page.get_by_role("region", name="Warnings").get_by_role("listitem")
        await expect(warnings).to_have_count(6)
        await page.get_by_role("button", name="Show 2 more").click()
        await expect(warnings).to_have_count(8)
        await page.get_by_role("button", name="Show fewer").click()
        await expect(warnings).to_have_count(6)


async def test_the_time_line(tab: Tab, rig: Rig) -> None:
    """Which model had the machine; arrows go from swap to swap, and what each cost is told in words and as a bar."""
    await rig.chat("a")
    await rig.chat("b")
    await rig.chat("c")
    page = await tab.open(rig.port)
    line = page.get_by_role("region", name="Swaps")
    await expect(line.locator("rect.ready").first).to_be_visible()
    for name in ("a", "b", "c"):
        await expect(line.get_by_role("link", name=name, exact=True)).to_have_attribute("href", f"#/models/{name}")
    newest = line.get_by_role("button", name=re.compile("^c came for b in")).last
    await expect(newest).to_have_attribute("aria-pressed", "true")
    await expect(line.get_by_role("img", name=re.compile("Parts of the swap: .*Start"))).to_be_visible()
    await newest.focus()
    assert (await tab.press("ArrowLeft")).startswith("button b came for a in")
    await expect(line.get_by_role("paragraph").filter(has_text="b came for a in")).to_be_visible()
    await tab.press("End")
    await expect(newest).to_be_focused()
    await line.get_by_role("button", name=re.compile("^b came for a in")).last.click()
    await expect(newest).to_have_attribute("aria-pressed", "false")
    await free(rig)


async def test_the_time_line_as_a_table(tab: Tab, rig: Rig) -> None:
    """The same in cells, newest first; both choices are kept."""
    await rig.chat("a")
    await rig.chat("b")
    page = await tab.open(rig.port)
    await page.get_by_role("button", name="As a table").click()
    line = page.get_by_role("region", name="Swaps")
    for head in ("Made room", "Total", "Stop", "Save", "Start", "Restore"):
        await expect(line.get_by_role("columnheader", name=head)).to_be_visible()
    await expect(line.get_by_role("row").nth(1)).to_contain_text(re.compile("b.*a.*s"))
    await page.get_by_label("How far back").select_option("6 hours")
    await page.reload()
    await expect(page.get_by_label("How far back")).to_have_value("21600")
    await page.get_by_role("button", name="As a drawing").click()
    await expect(line.get_by_role("group", name=re.compile("Time line"))).to_be_visible()
    await free(rig)


async def test_one_engine(tab: Tab, tmp_path: Path) -> None:
    """The same page on the admin port: its engine, its slots, its cache; and what to do if it is not there."""
    tab.expected(GONE)
    async with FakeEngine() as engine, running_app(tmp_path, backend_url=engine.url, warmup={"enabled": False}) as app:
        page = await tab.open(app.admin_port)
        await expect(page.get_by_text("The engine is ready; no request is under way.")).to_be_visible()
        await call(app.proxy_port, "POST", "/v1/chat/completions", data={"messages": PROMPT})
        await expect(part(page, "Engine").get_by_text(re.compile(r"conversation, \d+ tokens"))).to_be_visible()
        await expect(part(page, "Requests under way").get_by_text("none waiting.")).to_be_visible()
        await expect(part(page, "Requests under way").get_by_text("No request is under way.")).to_be_visible()
        await expect(page.get_by_role("region", name="Swaps").get_by_role("link")).to_have_count(1)
        await engine.stop()
        await expect(page.get_by_text("Start the engine, or check its address (backend_url).")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_nobody_is_kept_out(tab: Tab, rig: Rig, *, dark: bool) -> None:
    """Axe finds nothing serious while things go on, and nothing reaches beyond a phone's edge."""
    await tab.dark(on=dark)
    await rig.chat("broken")
    held = await rig.ask_held("a")
    waits = await rig.ask_queued("b")
    page = await tab.open(rig.port)
    await expect(page.get_by_text(re.compile("waits for requests of a to end"))).to_be_visible()
    assert await tab.axe() == []
    await page.get_by_role("button", name="As a table").click()
    await tab.phone()
    assert await tab.axe() == []
    assert await tab.spilled() == []
    await page.get_by_role("button", name="As a drawing").click()
    assert await tab.spilled() == []
    await rig.release("a")
    await held
    await waits
    await free(rig)
