"""The pages of models: the list with all that one can do with it, and the page of one model with its tabs."""

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
from support.swap_models import apart, fake, fakes
from support.swap_rig import Rig, swap_rig
from ui.look import llama

Json = Any
CAPABLE: Json = {"in": ["text", "image"], "out": ["text"], "tools": True, "context": 8192}
PROMPT = [{"role": "user", "content": "one two three four " * 200}]


def household() -> Json:
    """A configuration with everything that the list shows."""
    return {
        "profiles": {
            "work": {"pins": {"big": "a"}, "description": "For the office"},
            "home": {"pins": {"big": "b", "small": ""}},
        },
        "selectors": {
            "any": {"strategy": "warm", "targets": ["a", "b"], "name": "Any of two", "description": "Whichever runs"},
            "spill": {"strategy": "spillover", "targets": ["a", "far/x"], "settings": {"spillover": 3}},
        },
        "peers": {"far": {"proxy": "http://127.0.0.1:9/v1", "models": ["x", "y/z"]}},
        "groups": apart("a b slow hidden"),
    }


def models() -> Json:
    return {
        "a": fake(name="Model A", description="Good for code", aliases=["gpt-4o"], capabilities=CAPABLE, ttl=600),
        "b": fake(),
        "slow": fake("--start_delay 60"),
        "hidden": fake(unlisted=True),
        "broken": fake("--exit 3 --say boom"),
        "org/deep/c": fake(),
    }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """The program with a handful of models; each test leaves it with none loaded."""
    async with swap_rig(tmp_path_factory.mktemp("swap"), models(), **household()) as running:
        yield running


def row(page: Page, name: str) -> Locator:
    """The row of a model in the list."""
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def side(page: Page) -> Locator:
    """The models in the sidebar."""
    return page.get_by_role("group", name="Models")


# the list


async def test_load_and_unload(tab: Tab, rig: Rig) -> None:
    """Each button becomes the other one, the counts follow, and the sidebar, too."""
    page = await tab.open(rig.port, "/models")
    await expect(page.get_by_text("0 ready of 6 models, and 2 of other servers.")).to_be_visible()
    await page.get_by_role("button", name="Load a", exact=True).click()
    await expect(row(page, "Model A").get_by_text("ready")).to_be_visible()
    await expect(row(page, "Model A").get_by_text(re.compile(r"for \d+ s · unloads in \d+ min"))).to_be_visible()
    await expect(row(page, "Model A").get_by_text("MiB")).to_be_visible()
    await expect(page.get_by_text("1 ready of 6 models")).to_be_visible()
    await expect(side(page).get_by_role("link", name="ready Model A")).to_be_visible()
    await page.get_by_role("button", name="Unload a", exact=True).click()
    await expect(row(page, "Model A").get_by_text("stopped")).to_be_visible()
    assert await rig.running() == {}


async def test_a_press_shows_at_once(tab: Tab, rig: Rig) -> None:
    """Before the program has answered: the row waits, and its button cancels."""
    page = await tab.open(rig.port, "/models")
    await page.route("**/api/models/load/b", lambda _route: None)  # an answer that does not come
    await page.get_by_role("button", name="Load b", exact=True).click()
    await expect(page.get_by_role("button", name="Cancel the load of b")).to_be_visible()
    await expect(row(page, "b").get_by_text("waiting")).to_be_visible()


async def test_a_load_is_cancelled(tab: Tab, rig: Rig) -> None:
    """While it loads there is a bar; nobody is told of an error, since they wanted it."""
    tab.expected("500")
    page = await tab.open(rig.port, "/models")
    await page.get_by_role("button", name="Load slow").click()
    await expect(page.get_by_role("progressbar", name="Load of slow")).to_be_visible()
    await expect(row(page, "slow").get_by_text("never loaded before")).to_be_visible()
    await page.get_by_role("button", name="Cancel the load of slow").click()
    await expect(row(page, "slow").get_by_text("stopped")).to_be_visible()
    await expect(page.get_by_role("button", name="Load slow")).to_be_enabled()
    await expect(page.locator("[data-sonner-toast]")).to_have_count(0)


async def test_a_double_click_on_load_cancels_nothing(tab: Tab, rig: Rig) -> None:
    """Cancel appears under the pointer between its clicks."""
    tab.expected("500")
    page = await tab.open(rig.port, "/models")
    unloads: list[str] = []
    page.on("request", lambda request: unloads.extend([request.url] if "unload" in request.url else []))
    await page.get_by_role("button", name="Load slow").dblclick()
    await expect(page.get_by_role("progressbar", name="Load of slow")).to_be_visible()
    await page.get_by_role("button", name="Cancel the load of slow").click()
    await expect(row(page, "slow").get_by_text("stopped")).to_be_visible()
    assert len(unloads) == 1


async def test_a_load_is_cancelled_by_somebody_else(tab: Tab, rig: Rig) -> None:
    """Who asked for it is told what became of it."""
    tab.expected("500")
    page = await tab.open(rig.port, "/models")
    await page.get_by_role("button", name="Load slow").click()
    await expect(page.get_by_role("progressbar", name="Load of slow")).to_be_visible()
    await call(rig.port, "POST", "/api/models/unload/slow")
    await tab.told("slow is not loaded: somebody unloaded it, or cancelled its load")
    await expect(page.get_by_role("button", name="Load slow")).to_be_enabled()


async def test_a_load_that_was_measured_tells_the_time_left(tab: Tab, tmp_path: Path) -> None:
    """By the load before; one that takes longer says so."""
    tab.expected(GONE)
    (go := tmp_path / "go").touch()
    async with swap_rig(tmp_path, fakes("a", f"--start_delay 1 --wait_for {go}")) as rig:
        await rig.chat("a")
        await rig.post("/api/models/unload")
        go.unlink()
        page = await tab.open(rig.port, "/models")
        await page.get_by_role("button", name="Load a", exact=True).click()
        told = re.compile(r"about \d+ s left|\d+ s longer than last time")
        await expect(row(page, "a").get_by_text(told)).to_be_visible()
        await expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", re.compile(r"\d+"))
        await expect(row(page, "a").get_by_text(re.compile(r"\d+ s longer than last time"))).to_be_visible()
        go.touch()
        await expect(row(page, "a").get_by_text("ready")).to_be_visible()


async def test_a_load_that_fails(tab: Tab, rig: Rig) -> None:
    """The program's sentence is shown, and stands in the row."""
    tab.expected("500")
    page = await tab.open(rig.port, "/models")
    await page.get_by_role("button", name="Load broken").click()
    await tab.told("ended with exit code 3")
    await expect(row(page, "broken").get_by_text("failed")).to_be_visible()
    await expect(row(page, "broken").get_by_text("ended with exit code 3")).to_be_visible()


async def test_unload_all(tab: Tab, rig: Rig) -> None:
    """It can be pressed while something is loaded."""
    page = await tab.open(rig.port, "/models")
    button = page.get_by_role("button", name="Unload all")
    await expect(button).to_be_disabled()
    await rig.chat("a")
    await rig.chat("b")
    await expect(page.get_by_text("2 ready of 6 models")).to_be_visible()
    await button.click()
    await expect(page.get_by_text("0 ready of 6 models")).to_be_visible()
    await expect(button).to_be_disabled()
    assert await rig.running() == {}


async def test_unlisted_models(tab: Tab, rig: Rig) -> None:
    """They are hidden here and in the sidebar until one turns them on; the choice is kept."""
    page = await tab.open(rig.port, "/models")
    await expect(page.get_by_text("5 of 6")).to_be_visible()
    await expect(page.get_by_role("link", name="hidden")).to_have_count(0)
    await page.get_by_role("switch", name="Show unlisted models (1)").check()
    await expect(row(page, "hidden").get_by_text("unlisted")).to_be_visible()
    await expect(side(page).get_by_role("link", name="hidden")).to_be_visible()
    await page.reload()
    await expect(row(page, "hidden")).to_be_visible()
    await page.get_by_role("switch").uncheck()
    await expect(page.get_by_role("link", name="hidden")).to_have_count(0)


async def test_what_a_row_says(tab: Tab, rig: Rig) -> None:
    """Its name, its id and aliases, its description, what it can do, and where its own server is."""
    page = await tab.open(rig.port, "/models")
    first = row(page, "Model A")
    for text in ("a · gpt-4o", "Good for code", "vision", "tools"):
        await expect(first.get_by_text(text, exact=True)).to_be_visible()
    server = first.get_by_role("link", name="Open the server of a")
    await expect(server).to_have_attribute("href", f"http://127.0.0.1:{rig.port}/upstream/a/")
    await expect(server).to_have_attribute("target", "_blank")
    deep = page.get_by_role("link", name="Open the server of org/deep/c")
    await expect(deep).to_have_attribute("href", f"http://127.0.0.1:{rig.port}/upstream/org/deep/c/")
    await page.evaluate("localStorage.setItem('bioproxy.models.tags', 'false')")
    await page.reload()
    await expect(row(page, "Model A")).to_be_visible()
    await expect(page.get_by_text("vision", exact=True)).to_have_count(0)


async def test_peers(tab: Tab, rig: Rig) -> None:
    """Models of other servers, by the name that reaches them."""
    page = await tab.open(rig.port, "/models")
    for text in ("far/x", "far/y/z"):
        await expect(page.get_by_role("cell", name=text, exact=True)).to_be_visible()
    await expect(side(page).get_by_text("Peers")).to_be_visible()
    await side(page).get_by_role("link", name="y/z").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Models")


async def test_profiles(tab: Tab, rig: Rig) -> None:
    """What each makes of names; it is used and turned off here, and the sidebar follows."""
    page = await tab.open(rig.port, "/models")
    work = page.get_by_role("row").filter(has=page.get_by_role("button", name="Use profile work"))
    await expect(work.get_by_text("For the office")).to_be_visible()
    await expect(work.get_by_text("big → a")).to_be_visible()
    home = page.get_by_role("row").filter(has=page.get_by_role("button", name="Use profile home"))
    await expect(home.get_by_text("small → disabled")).to_be_visible()
    await page.get_by_role("button", name="Use profile work").click()
    off = page.get_by_role("button", name="Turn off profile work")
    await expect(off).to_be_visible()
    await expect(page.get_by_role("combobox", name="Profile")).to_have_value("work")
    await off.click()
    await expect(page.get_by_role("button", name="Use profile work")).to_be_visible()
    assert (await rig.get("/api/profiles")).json()["active"] is None


async def test_selectors(tab: Tab, rig: Rig) -> None:
    """How each chooses, how busy its targets are by it, and a way to each of them."""
    page = await tab.open(rig.port, "/models")
    spill = page.get_by_role("row").filter(has_text="spillover")
    await expect(spill.get_by_text("the next one starts once each has 3 requests")).to_be_visible()
    before = len(rig.log.of("held", "a"))
    held = rig.ask("any", hold=0)
    await rig.until_event("held", "a", count=before + 1)
    any_of = page.get_by_role("row").filter(has_text="Any of two")
    await expect(any_of.get_by_text("Whichever runs")).to_be_visible()
    await expect(any_of.get_by_text("1 request", exact=True)).to_be_visible()
    await any_of.get_by_role("link", name="b", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("b")
    await rig.release("a")
    await held
    await rig.post("/api/models/unload")


# the sidebar and the title


async def test_the_models_in_the_sidebar(tab: Tab, rig: Rig) -> None:
    """A link to each one's page, marked while one is there; they can be folded away."""
    page = await tab.open(rig.port)
    await side(page).get_by_role("link", name="org/deep/c").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("org/deep/c")
    await expect(side(page).get_by_role("link", name="org/deep/c")).to_have_attribute("aria-current", "page")
    await page.get_by_role("button", name="Hide the models").click()
    await expect(side(page).get_by_role("link")).to_have_count(0)
    await page.reload()
    await page.get_by_role("button", name="Show the models").click()
    await expect(side(page).get_by_role("link", name="org/deep/c")).to_be_visible()


async def test_the_title(tab: Tab, rig: Rig) -> None:
    """Enter keeps it, Esc does not, it is no longer than 64 characters, and an empty one is the program's own."""
    page = await tab.open(rig.port)
    title = page.get_by_role("textbox", name="Title")
    await title.fill("Workshop")
    await title.press("Enter")
    await expect(page).to_have_title("● Now · Workshop")
    await page.reload()
    await expect(title).to_have_value("Workshop")
    await title.fill("something else")
    await title.press("Escape")
    await expect(title).to_have_value("Workshop")
    await title.fill("x" * 64)
    await title.press_sequentially("yz")
    await title.blur()
    await expect(page).to_have_title(f"● Now · {'x' * 64}")
    await title.fill("  ")
    await title.press("Enter")
    await expect(title).to_have_value("bioproxy")
    await expect(page).to_have_title("● Now · bioproxy")


async def test_the_profile_with_symbols_only(tab: Tab, rig: Rig) -> None:
    """It is a menu then; no symbol is cut off."""
    page = await tab.open(rig.port)
    await page.get_by_role("button", name="Show symbols only").click()
    nav = page.get_by_role("navigation", name="Pages")
    assert await nav.evaluate("one => one.scrollWidth <= one.clientWidth")
    await page.get_by_role("button", name="Profile: none").click()
    await page.get_by_role("menuitemcheckbox", name="work").click()
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Profile: work").click()
    await page.get_by_role("menuitemcheckbox", name="None").click()
    await expect(page.get_by_role("button", name="Profile: none")).to_be_attached()


# one model


async def test_the_page_of_a_model(tab: Tab, rig: Rig) -> None:
    """Also by its alias: what it is called and is, loaded and unloaded from there."""
    page = await tab.open(rig.port, "/models/gpt-4o")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Model A")
    await expect(page.get_by_text("Good for code")).to_be_visible()
    await expect(page.get_by_text("also gpt-4o")).to_be_visible()
    assert await tab.copied(page.get_by_role("button", name="Copy the id")) == "a"
    await expect(page.get_by_role("link", name="Open its server")).to_have_attribute("target", "_blank")
    await page.get_by_role("button", name="Load a").click()
    await expect(page.get_by_text("Ready for")).to_be_visible()
    await expect(page.get_by_text(re.compile("unloads in 9 min|unloads in 10 min"))).to_be_visible()
    await page.get_by_role("button", name="Unload a").click()
    await expect(page.get_by_role("button", name="Load a")).to_be_visible()


async def test_a_name_that_is_no_model(tab: Tab, rig: Rig) -> None:
    """A link leads to those there are."""
    page = await tab.open(rig.port, "/models/nobody")
    await expect(page.get_by_text("No model has this name.")).to_be_visible()
    await page.get_by_role("link", name="All models").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Models")


async def test_the_requests_of_a_model(tab: Tab, rig: Rig) -> None:
    """Those under way, and, as they end, the newest; each leads to all that is known of it."""
    page = await tab.open(rig.port, "/models/org/deep/c")
    await expect(page.get_by_text("No request is under way.")).to_be_visible()
    held = await rig.ask_held("org/deep/c")
    await expect(page.get_by_text("the engine reads its prompt")).to_be_visible()
    await rig.chat("a")
    await rig.release("org/deep/c")
    await held
    await expect(page.get_by_text("No request is under way.")).to_be_visible()
    await expect(page.get_by_role("cell", name="/v1/chat/completions")).to_have_count(1)
    await expect(page.get_by_role("link", name="All of its requests")).to_have_attribute(
        "href", "#/requests?model=org%2Fdeep%2Fc"
    )
    await page.reload()
    await expect(page.get_by_role("cell", name="/v1/chat/completions")).to_have_count(1)
    await page.get_by_role("link", name="ago").or_(page.get_by_role("link", name="just now")).first.click()
    await expect(page).to_have_url(re.compile(r"#/requests/\d+$"))
    await rig.post("/api/models/unload")


async def test_after_a_restart_the_requests_are_those_of_this_run(tab: Tab, tmp_path: Path) -> None:
    """A table in memory numbers them from one again; none hides behind an earlier one of the same number."""
    tab.expected(GONE)
    async with swap_rig(tmp_path, fakes("a")) as rig:
        page = await tab.open(rig.port, "/models/a")
        rows = page.get_by_role("cell", name="/v1/chat/completions")
        for count in (1, 2, 3):
            await rig.chat("a")
            await expect(rows).to_have_count(count)
        await rig.program.stop()
        await expect(page).to_have_title(re.compile("^◐"))
        await rig.program.start()
        await tab.until_live()
        await expect(rows).to_have_count(0)
        for count in (1, 2):
            await rig.chat("a")
            await expect(rows).to_have_count(count)


async def test_the_log_of_a_model(tab: Tab, rig: Rig) -> None:
    """Live, and only its own; the tabs are reached by arrows, and the address names the tab."""
    tab.expected("500")
    page = await tab.open(rig.port, "/models/broken")
    await page.get_by_role("tab", name="Activity").focus()
    assert await tab.press("ArrowRight") == "tab Logs"
    await expect(page).to_have_url(re.compile("tab=logs"))
    await page.get_by_role("button", name="Load broken").click()
    await expect(page.get_by_text("boom").first).to_be_visible()


async def test_how_a_model_was_started(tab: Tab, tmp_path: Path) -> None:
    """The command and what was added to it; what its engine says that it is."""
    tab.expected(GONE)
    (tmp_path / "slots").mkdir()
    async with swap_rig(tmp_path, {"q": llama(tmp_path, env=["COLOUR=blue"])}) as rig:
        page = await tab.open(rig.port, "/models/q?tab=details")
        await expect(page.locator("pre")).to_contain_text("--slot-save-path")
        await expect(page.get_by_text("COLOUR=blue")).to_be_visible()
        await expect(page.locator("mark", has_text="LLAMA_ARG_CACHE_IDLE_SLOTS=0")).to_be_visible()
        await expect(page.get_by_text("known once it has run")).to_be_visible()
        assert "--slot-save-path" in await tab.copied(page.get_by_role("button", name="Copy the command"))
        await rig.chat("q")
        await expect(page.get_by_text("b11549-fake")).to_be_visible()
        await expect(page.get_by_text("32,768 tokens per slot")).to_be_visible()


async def test_the_cache_of_a_model(tab: Tab, tmp_path: Path) -> None:
    """Its slots while it runs, its snapshots afterwards, and what is known of both."""
    tab.expected(GONE)
    (tmp_path / "slots").mkdir()
    kv = {"min_seconds": 0.0, "min_free": 0}
    async with swap_rig(tmp_path, {"q": llama(tmp_path)}, kv=kv) as rig:
        page = await tab.open(rig.port, "/models/q?tab=cache")
        await expect(page.get_by_text("Its slots are shown while it runs.")).to_be_visible()
        await expect(page.get_by_text("What is on disk for this model is known once it has run.")).to_be_visible()
        await rig.chat("q", messages=PROMPT)
        await expect(page.get_by_role("cell", name="conversation", exact=True).first).to_be_visible()
        await expect(page.get_by_role("img", name=re.compile(r"Slot \d: tokens [1-9]"))).to_be_visible()
        await expect(page.get_by_text("restored and saved")).to_be_visible()
        await rig.post("/api/models/unload")
        await expect(page.get_by_text("1 that it can use")).to_be_visible()
        await expect(page.get_by_role("cell", name="conversation", exact=True)).to_have_count(1)
        for text in ("Reads prompts at", "Fingerprint", "It stands for"):
            await expect(page.get_by_text(text).first).to_be_visible()
        await page.get_by_role("link", name="All snapshots").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Cache")


async def test_an_engine_that_is_no_llama_server(tab: Tab, rig: Rig) -> None:
    """Nothing is said of its cache, for nothing is known of it."""
    await rig.chat("b")
    page = await tab.open(rig.port, "/models/b?tab=cache")
    await expect(page.get_by_text("it does not look like llama-server")).to_be_visible()
    await expect(page.locator("main").get_by_text(re.compile("slot", re.IGNORECASE))).to_have_count(0)


async def test_a_hostile_name(tab: Tab, tmp_path: Path) -> None:
    """What a configuration or an engine says is text, whatever it looks like."""
    tab.expected(GONE)
    evil = "<img src=x onerror=alert(1)>"
    async with swap_rig(tmp_path, {"a": fake("--exit 3", name=evil, description=evil)}) as rig:
        await rig.chat("a")
        page = await tab.open(rig.port, "/models")
        await expect(page.get_by_role("link", name=evil, exact=True)).to_be_visible()
        await tab.open(rig.port, "/models/a")
        await expect(page.get_by_role("heading", level=1)).to_have_text(evil)
        assert await page.locator("main img").count() == 0


# one engine


async def test_one_engine_is_a_fleet_of_one(tab: Tab, tmp_path: Path) -> None:
    """Its page stands in place of the list; what cannot be done with it, the program says."""
    tab.expected(f"{GONE}|409")
    async with FakeEngine() as engine, running_app(tmp_path, backend_url=engine.url, warmup={"enabled": False}) as app:
        page = await tab.open(app.admin_port, "/models")
        await expect(page.get_by_text("ready", exact=True)).to_be_visible()
        await expect(page.get_by_role("heading", level=1)).not_to_have_text("Models")
        await expect(page.get_by_text("0 requests of at most 1 at once, none waiting.")).to_be_visible()
        await page.get_by_role("tab", name="Details").click()
        await expect(page.get_by_text(engine.url, exact=True)).to_be_visible()
        await page.get_by_role("tab", name="Cache").click()
        await expect(page.get_by_role("heading", name="Slots")).to_be_visible()
        await page.get_by_role("button", name=re.compile("^Unload")).click()
        await tab.told("was not started by this bioproxy")


# for everyone


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_nobody_is_kept_out(tab: Tab, rig: Rig, *, dark: bool) -> None:
    """Axe finds nothing serious, and nothing reaches beyond a phone's edge."""
    await tab.dark(on=dark)
    await rig.chat("a")
    for route in ("/models", "/models/a", "/models/a?tab=details", "/models/a?tab=cache"):
        page = await tab.open(rig.port, route)
        await expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("Model"))
        assert await tab.axe() == []
        await tab.phone()
        assert await tab.spilled() == []
        assert await tab.axe() == []
        await page.set_viewport_size({"width": 1280, "height": 800})
    await rig.post("/api/models/unload")


async def test_a_keyboard_is_enough(tab: Tab, rig: Rig) -> None:
    """A model is loaded and unloaded without a pointer."""
    page = await tab.open(rig.port, "/models")
    await tab.tab_to("Load b")
    await tab.press("Enter")
    await expect(page.get_by_role("button", name="Unload b")).to_be_visible()
    await page.get_by_role("button", name="Unload b").press("Space")
    await expect(page.get_by_role("button", name="Load b", exact=True)).to_be_visible()
