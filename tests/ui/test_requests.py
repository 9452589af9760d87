"""The pages on requests: statistics, what is under way, the table, and one request with all that is known of it."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from bioproxy import aio
from fakes.fake_engine import FakeEngine
from support.apps import running_app
from support.browser import GONE, Tab
from support.http import call
from support.swap_models import apart, fakes
from support.swap_rig import Rig, swap_rig

Json = Any
LLAMA = Path(__file__).parents[1] / "fakes" / "llama_server.py"
ALL = (  # in llama-swap's page, then those that it has not
    "ID Time Model Path Status Content type Cached Prompt Generated Drafted Prefill t/s Decode t/s Duration Capture "
    "Meta Source Client Program Work Cache Prefix Queue Swap Why"
)
HIDDEN = ["Path", "Content type", "Work", "Prefix", "Drafted", "Meta", "Source", "Program"]
SHOWN = [
    "ID", "Time", "Model", "Client", "Status", "Cache", "Cached", "Prompt", "Generated", "Prefill t/s", "Decode t/s",
    "Queue", "Swap", "Duration", "Capture", "Why",
]  # fmt: skip
UNDER_WAY = ["Cancel", "Elapsed", "Stage", "Model", "Request", "Address", "User agent", "Session", "Bytes received"]
HOSTILE = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>\x1b[31mred\x1b[0m"
PROMPT = [{"role": "user", "content": "hello"}]
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """Two models that stand side by side, and a llama-server with a cache; 30 requests have ended."""
    program = shlex.join([sys.executable, "-I", "-S", str(LLAMA)])
    llama = {"cmd": f"{program} --tokens-per-second 20000 --decode-rate 400 --predict 8 --port ${{PORT}}"}
    models = {**fakes("a b"), "llama": llama}
    groups = apart("a b llama")
    async with swap_rig(tmp_path_factory.mktemp("swap"), models, groups=groups, captureBuffer=20) as running:
        for number in range(12):
            day = "Monday" if number < 6 else "Tuesday"
            system = {"role": "system", "content": f"{'You are brief. ' * 60}Today is {day}. {'Be kind. ' * 60}"}
            question = {"role": "user", "content": f"Question {number} {'and more ' * 30}"}
            await running.chat("llama", messages=[system, question], stream=number % 2 == 0)
        for number in range(16):
            await running.chat("ab"[number % 2], headers={"X-Session-ID": "s1"})
        await running.chat("a", status=503)
        await running.chat("nobody")
        yield running


def table(page: Page) -> Locator:
    return page.get_by_role("region", name="Requests that have ended")


def under_way(page: Page) -> Locator:
    return page.get_by_role("region", name="Requests under way")


async def heads(where: Locator) -> list[str]:
    return [re.sub(r"[↓↑]", "", text).strip() for text in await where.locator("th").all_inner_texts()]


async def column(where: Locator, name: str) -> list[str]:
    """The texts of one column."""
    place = (await heads(where)).index(name) + 1
    return await where.locator(f"tbody td:nth-child({place})").all_inner_texts()


async def rows_of(rig: Rig, query: str = "") -> Json:
    return (await call(rig.ports.admin, "GET", f"/api/metrics/activity?{query}")).json()


async def newest(rig: Rig) -> int:
    return int((await rows_of(rig, "limit=1"))["data"][0]["id"])


# statistics


async def test_the_sums_and_the_distributions(tab: Tab, rig: Rig) -> None:
    """Of all requests, with what each bar means; a button hides the distributions, and the browser remembers that."""
    page = await tab.open(rig.port, "/requests")
    shown = page.get_by_role("region", name="Statistics")
    stats = (await call(rig.ports.admin, "GET", "/api/metrics/stats")).json()
    for label, name in (("Completed", "requests"), ("Cached", "cache_tokens"), ("Processed", "input_tokens")):
        figure = shown.get_by_text(label, exact=True).locator("xpath=..")
        await expect(figure).to_contain_text(f"{stats[f'total_{name}']:,}")
    histograms = shown.get_by_role("img")
    await expect(histograms).to_have_count(2)
    counts = await histograms.first.locator("rect.bar title").all_text_contents()
    assert [int(re.search(r": ([\d,]+) request", text)[1]) for text in counts] == stats["prompt_histogram"]["bins"]  # type: ignore[index]
    assert all("tokens/s" in text for text in counts)
    for name in ("min", "p50", "p95", "p99", "max"):
        await expect(shown.get_by_text(name, exact=True)).to_have_count(2)
    await shown.get_by_role("button", name="Hide distributions").click()
    await expect(histograms).to_have_count(0)
    await page.reload()
    await shown.get_by_role("button", name="Show distributions").click()
    await expect(histograms).to_have_count(2)


# under way


async def test_a_stream_is_watched_and_opens_as_it_ends(tab: Tab, rig: Rig) -> None:
    """Its time ticks and its bytes grow; its own page waits for its end, and then shows all of it."""
    page = await tab.open(rig.port, "/requests")
    await expect(under_way(page)).to_contain_text("No request is under way")
    async with rig.stream("a", hold=2, events=6) as stream:
        assert await stream.head() == 200
        row = under_way(page).locator("tbody tr")
        await expect(row).to_have_count(1)
        assert await heads(under_way(page)) == UNDER_WAY
        await expect(row).to_contain_text("POST /v1/chat/completions")
        await expect(row).to_contain_text("127.0.0.1")
        await expect(row).to_contain_text("answer")
        await expect(row).not_to_contain_text(" 0 B")
        first = (await column(under_way(page), "Elapsed"))[0]
        await expect(row.locator("td").nth(1)).not_to_have_text(first)
        title = row.get_by_title("POST /v1/chat/completions")
        await title.click()
        await expect(page.get_by_text("the answer comes")).to_be_visible()
        await rig.release("a")
        assert (await stream.rest())[-1] == "[DONE]"
    await expect(page.get_by_role("heading", name="Where its time went")).to_be_visible()
    await expect(page.get_by_role("region", name="Capture")).to_contain_text("word0 word1 word2")
    assert await tab.axe() == []


async def test_a_request_is_cancelled(tab: Tab, rig: Rig) -> None:
    """Its client is told, and the page says so."""
    page = await tab.open(rig.port, "/requests")
    asked = await rig.ask_held("a")
    await under_way(page).get_by_role("button", name="Cancel").click()
    answer = await asked
    assert (answer.status, "cancelled by an operator" in answer.text) == (503, True)
    await expect(under_way(page).locator("tbody tr")).to_have_count(0)
    await tab.told("Request cancelled")
    await expect(table(page).locator("tbody tr").first).to_contain_text("503")


async def test_the_columns_of_what_is_under_way(tab: Tab, rig: Rig) -> None:
    """Each can be left out and moved, and all of it folds."""
    page = await tab.open(rig.port, "/requests")
    asked = await rig.ask_held("a", path="/v1/chat/completions", headers={"X-Session-ID": "a long session " * 5})
    await expect(under_way(page).locator("tbody tr")).to_have_count(1)
    assert "a long session" in (await column(under_way(page), "Session"))[0]
    await page.get_by_role("button", name="Columns of requests under way").click()
    chooser = page.get_by_role("dialog", name="Columns of requests under way")
    await chooser.get_by_label("Address", exact=True).uncheck()
    await chooser.get_by_role("button", name="Session: to the front").click()
    await chooser.get_by_role("button", name="Elapsed: to the back").click()
    await tab.press("Escape")
    wanted = ["Cancel", "Stage", "Elapsed", "Model", "Request", "Session", "User agent", "Bytes received"]
    assert await heads(under_way(page)) == wanted
    await under_way(page).get_by_role("button", name="Fold", exact=True).click()
    await expect(under_way(page).locator("table")).to_have_count(0)
    await page.reload()
    await under_way(page).get_by_role("button", name="Unfold").click()
    await expect(under_way(page).locator("tbody tr")).to_have_count(1)
    assert await heads(under_way(page)) == wanted
    await rig.release("a")
    await asked


# the table


async def test_the_table_has_every_column(tab: Tab, rig: Rig) -> None:
    """Those of llama-swap's page and ours; the rest is a check away. What is chosen outlives the page."""
    page = await tab.open(rig.port, "/requests")
    await expect(table(page).locator("tbody tr")).to_have_count(25)
    assert await heads(table(page)) == SHOWN
    await page.get_by_role("button", name="Columns of requests that have ended").click()
    chooser = page.get_by_role("dialog", name="Columns of requests that have ended")
    await expect(chooser.locator("label").first).to_be_visible()
    labels = [text.strip() for text in await chooser.locator("label").all_inner_texts()]
    assert sorted(" ".join(labels).split()) == sorted(ALL.split())
    for name in HIDDEN:
        await chooser.get_by_label(name, exact=True).check()
    await chooser.get_by_label("Why", exact=True).focus()
    await tab.press("Alt+ArrowUp", "Alt+ArrowUp")
    await chooser.get_by_label("Model", exact=True).drag_to(chooser.get_by_label("ID", exact=True))
    await tab.press("Escape")
    order = await heads(table(page))
    assert sorted(order) == sorted([*SHOWN, *HIDDEN])
    assert order[:3] == ["Model", "ID", "Time"]
    assert order.index("Why") == order.index("Duration") - 1
    await page.reload()
    await expect(table(page).locator("tbody tr")).to_have_count(25)
    assert await heads(table(page)) == order
    assert set(await column(table(page), "Path")) <= {"/v1/chat/completions"}
    assert "s1" in await column(table(page), "Source")
    assert any("fifo_priority=0" in text for text in await column(table(page), "Meta"))
    await page.get_by_role("button", name="Columns of requests that have ended").click()
    await page.get_by_role("button", name="As at first").click()
    await expect(table(page).locator("th")).to_have_count(len(SHOWN))


@pytest.mark.parametrize(
    ("head", "sort"), [("Duration", "duration"), ("Model", "model"), ("Swap", "swap"), ("Generated", "generated")]
)
async def test_a_head_sorts_both_ways(tab: Tab, rig: Rig, head: str, sort: str) -> None:
    """Of all rows, not only of those that are shown; also by keyboard."""
    page = await tab.open(rig.port, "/requests")
    button = table(page).locator("th").get_by_role("button", name=head)
    for order in ("desc", "asc"):
        await button.press("Enter")
        shown = table(page).locator("th", has=page.get_by_role("button", name=head))
        await expect(shown).to_have_attribute("aria-sort", "descending" if order == "desc" else "ascending")
        wanted = [str(row["id"]) for row in (await rows_of(rig, f"sort={sort}&order={order}"))["data"]]
        await expect(table(page).locator("tbody tr td:first-child")).to_have_text(wanted)


async def test_filters_narrow_the_table(tab: Tab, rig: Rig) -> None:
    """Each of them; a dot says that one is set, also after the drawer was closed."""
    page = await tab.open(rig.port, "/requests")
    opener = table(page).get_by_role("button", name=re.compile("^Filters"))
    await opener.click()
    drawer = page.get_by_role("form", name="Filters")
    assert not await opener.get_by_text("set").count()

    async def narrowed(query: str) -> None:
        total = (await rows_of(rig, query))["total"]
        await expect(table(page).get_by_role("heading", level=2)).to_have_text(f"Ended {total}")

    async def fill(label: str, value: str, query: str) -> None:
        await drawer.get_by_label(re.compile(f"^{label}")).fill(value)
        await drawer.get_by_label(re.compile(f"^{label}")).press("Enter")
        await narrowed(query)
        await drawer.get_by_role("button", name="Clear filters").click()
        await narrowed("")

    await fill("ID from", "20", "min_id=20")
    await fill("ID to", "5", "max_id=5")
    await fill("Model", "llama", "model=llama")
    await fill("Client", "127.0.0.1", "client=127.0.0.1")
    await fill("Status", "4xx", "status=4xx")
    await fill("Status", "503", "status=503")
    await fill("Path contains", "chat", "path=chat")
    await drawer.get_by_label("Outcome").select_option("client_error")
    await narrowed("outcome=client_error")
    await drawer.get_by_label("Cache").select_option("miss")
    await expect(table(page)).to_contain_text("No request matches the filters")
    await opener.click()
    await expect(drawer).to_be_hidden()
    await expect(opener.get_by_text("set")).to_be_attached()
    await table(page).get_by_role("button", name="Show them").click()
    await drawer.get_by_role("button", name="Clear filters").click()
    await narrowed("")
    await expect(drawer.get_by_role("button", name="Clear filters")).to_be_disabled()
    await drawer.get_by_label("Status").fill("nonsense")
    await drawer.get_by_label("Status").press("Enter")
    tab.expected("400")
    await expect(page.get_by_role("alert")).to_have_text("status must be a number such as 404, or a class such as 4xx")
    await drawer.get_by_role("button", name="Clear filters").click()
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_an_address_can_name_filters(tab: Tab, rig: Rig) -> None:
    """As the page of a model does, which leads to all of its requests."""
    page = await tab.open(rig.port, "/requests?model=llama")
    total = (await rows_of(rig, "model=llama"))["total"]
    await expect(table(page).get_by_role("heading", level=2)).to_have_text(f"Ended {total}")
    assert set(await column(table(page), "Model")) == {"llama"}
    await page.goto(f"http://127.0.0.1:{rig.port}/ui/#/requests?model=b")
    await expect(table(page).locator("tbody tr td:nth-child(3)").first).to_have_text("b")


async def test_the_table_has_pages(tab: Tab, rig: Rig) -> None:
    """Ten rows each, by every button; only the first one moves when something ends."""
    page = await tab.open(rig.port, "/requests")
    await table(page).get_by_role("button", name="Filters").click()
    await page.get_by_label("Rows per page").select_option("10")
    rows = table(page).locator("tbody tr")
    await expect(rows).to_have_count(10)
    total = (await rows_of(rig))["total"]
    pages = -(-total // 10)
    pager = page.get_by_role("navigation", name="Pages of the table")
    ids = table(page).locator("tbody tr td:first-child")

    async def on(number: int) -> None:
        await expect(pager).to_contain_text(f"Page {number} of {pages}")
        wanted = [str(row["id"]) for row in (await rows_of(rig, f"limit=10&page={number}"))["data"]]
        await expect(ids).to_have_text(wanted)

    await on(1)
    await expect(pager.get_by_role("button", name="First page")).to_be_disabled()
    await pager.get_by_role("button", name="Next page").click()
    await on(2)
    await pager.get_by_role("button", name="Last page").click()
    await on(pages)
    await expect(pager.get_by_role("button", name="Next page")).to_be_disabled()
    await pager.get_by_role("button", name="Previous page").click()
    await pager.get_by_role("button", name="2", exact=True).click()
    await on(2)
    before = await ids.all_inner_texts()
    await rig.chat("a")
    await pager.get_by_role("button", name="First page").click()
    last = str(await newest(rig))
    await expect(ids.first).to_have_text(last)
    assert last not in before
    await rig.chat("b")
    await expect(ids.first).to_have_text(str(int(last) + 1))


async def test_back_from_a_request_is_where_one_was(tab: Tab, rig: Rig) -> None:
    """On the same page of the table, in the same order; who went elsewhere begins at the newest."""
    page = await tab.open(rig.port, "/requests?model=llama")
    await table(page).get_by_role("button", name="Filters").click()
    await page.get_by_label("Rows per page").select_option("10")
    await table(page).get_by_role("button", name="Duration").click()
    pager = page.get_by_role("navigation", name="Pages of the table")
    await pager.get_by_role("button", name="Next page").click()
    await expect(pager).to_contain_text("Page 2 of 2")
    rows = table(page).locator("tbody tr")
    await expect(rows).to_have_count(2)
    ids = await table(page).locator("tbody tr td:first-child").all_inner_texts()
    await rows.first.get_by_role("link").first.click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Request {ids[0]}")
    await page.go_back()
    await expect(pager).to_contain_text("Page 2 of 2")
    await expect(table(page).locator("tbody tr td:first-child")).to_have_text(ids)
    await tab.open(rig.port, "/models")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Models")
    await page.go_back()
    await expect(pager).to_contain_text("Page 1 of 2")
    await expect(table(page).get_by_role("columnheader", name="ID")).to_contain_text("↓")


async def test_the_table_is_exported(tab: Tab, rig: Rig) -> None:
    """The columns and rows that are shown, as Markdown, with a sentence that sums them up."""
    page = await tab.open(rig.port, "/requests")
    await expect(table(page).locator("tbody tr")).to_have_count(25)
    await table(page).get_by_role("button", name="Export as Markdown").click()
    dialog = page.get_by_role("dialog", name="Export as Markdown")
    source = await dialog.get_by_label("Markdown", exact=True).input_value()
    lines = source.splitlines()
    assert lines[0] == f"| {' | '.join(name for name in SHOWN if name != 'Capture')} |"
    assert len([line for line in lines if line.startswith("|")]) == 27
    assert re.search(r"^25 requests, \d+ of them failed; .* generated\.$", source, re.MULTILINE)
    await expect(dialog).to_contain_text("25 requests")
    assert await tab.copied(dialog.get_by_role("button", name="Copy Markdown")) == source
    await tab.press("Escape")
    await expect(dialog).to_be_hidden()


# one request


async def opened(tab: Tab, rig: Rig, identity: str) -> Page:
    page = await tab.open(rig.port, f"/requests/{identity}")
    await expect(page.get_by_role("heading", name="All fields")).to_be_visible()
    return page


async def test_each_number_of_a_request_leads_to_it(tab: Tab, rig: Rig) -> None:
    """The id of its record, also one with a slash, and the number of its row and capture."""
    await rig.chat("a", headers={"X-Request-Id": "mine/1 ä"[:6]})
    number = await newest(rig)
    for identity in (str(number), "mine%2F1"):
        page = await opened(tab, rig, identity)
        await expect(page.get_by_role("heading", level=1)).to_have_text(f"Request {number}")
        await expect(page.get_by_text("mine/1", exact=True)).to_be_visible()
    await page.get_by_role("link", name="All requests").click()
    await table(page).get_by_role("link", name=f"View the capture of {number}").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Request {number}")
    await expect(page.get_by_role("heading", name="Request and answer")).to_be_in_viewport()
    await page.goto(f"http://127.0.0.1:{rig.port}/ui/#/requests/unheard-of")
    tab.expected("404")
    await expect(page.get_by_text("no request 'unheard-of' is known")).to_be_visible()


async def test_both_addresses_outlive_a_restart(tab: Tab, tmp_path: Path) -> None:
    """With `store.path`: the number, and the id that a client was told."""
    tab.expected(f"404|{GONE}")
    async with swap_rig(tmp_path, fakes("a"), store={"path": str(tmp_path / "activity.db")}) as rig:
        await rig.chat("a")
        identity = (await rig.get("/api/requests")).json()["requests"][0]["id"]
        await rig.program.stop()
        await rig.program.start()
        for address in (identity, "1"):
            page = await tab.open(rig.port, f"/requests/{address}")
            await expect(page.get_by_role("heading", name="Request 1")).to_be_visible()
        await tab.open(rig.port, "/requests/nobody")
        await expect(page.get_by_text("with store.path those before")).to_be_visible()


async def test_a_request_opens_as_a_waterfall(tab: Tab, rig: Rig) -> None:
    """What it waited for and what it did, the share of the cache, why, and all fields."""
    first = (await rows_of(rig, "model=llama&order=asc&limit=1"))["data"][0]["id"]
    page = await opened(tab, rig, str(first))
    falls = page.get_by_role("region", name="Where its time went")
    parts = (await call(rig.ports.admin, "GET", f"/api/requests/{first}")).json()["parts"]
    assert {"start", "prefill", "decode"} <= {part["name"] for part in parts}
    for label in ("load", "prefill", "decode"):
        await expect(falls.get_by_text(label, exact=True)).to_be_visible()
    await expect(falls.get_by_role("img", name=re.compile("The prompt: from the cache"))).to_be_visible()
    await expect(page.get_by_text(re.compile("^Waited .* for the model to be loaded"))).to_be_visible()
    fields = page.get_by_role("region", name="All fields")
    for label in ("Request id", "Row", "Began", "Model", "Client", "Class of work", "Outcome", "First byte", "Prompt"):
        await expect(fields.get_by_text(label, exact=True)).to_be_visible()


async def test_a_miss_is_shown_in_its_own_text(tab: Tab, rig: Rig) -> None:
    """What stood there before, what stands there now, and the place in the request."""
    wanted: list[int] = []

    async def found() -> bool:
        for row in (await rows_of(rig, "model=llama&limit=50"))["data"]:
            detail = (await call(rig.ports.admin, "GET", f"/api/requests/{row['id']}")).json()
            place = (detail["request"]["finding"] or {}).get("place")
            if place and place["now"].startswith("Tuesday"):
                wanted.append(row["id"])
        return bool(wanted)

    await rig.look(found, "the request of the new day was compared")
    page = await opened(tab, rig, str(wanted[-1]))
    miss = page.get_by_role("region", name="Why the prompt was read again")
    await expect(miss.locator("del")).to_contain_text("Monday")
    await expect(miss.locator("ins")).to_contain_text("Tuesday")
    await expect(miss).to_contain_text("In the request, at messages[0].content")
    await expect(miss.locator("pre")).to_contain_text("You are brief. Today is Tuesday. Be kind.")
    await expect(miss.locator("mark")).to_contain_text("Tuesday")


async def test_what_went_over_the_wire(tab: Tab, rig: Rig) -> None:
    """Four folds; bodies as a conversation, made readable, and as they came, each to copy."""
    content = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    await rig.chat("a", messages=[{"role": "user", "content": content}], tool_calls=True)
    page = await opened(tab, rig, str(await newest(rig)))
    capture = page.get_by_role("region", name="Capture")
    await capture.get_by_text("Request headers").click()
    await expect(capture.get_by_text("Content-Type").first).to_be_visible()
    await capture.get_by_text("Response headers").click()
    await expect(capture.get_by_text("Content-Length", exact=True)).to_have_count(2)
    asked, answered = (
        capture.get_by_role("group", name=f"Show the {side} body as") for side in ("request", "response")
    )
    await expect(capture.get_by_role("img", name="Sent by user")).to_be_visible()
    await expect(capture).to_contain_text("word0 word1 word2 word3")
    await expect(capture).to_contain_text("Calls look_up")
    await expect(capture).to_contain_text("Ended: tool_calls")
    await asked.get_by_role("button", name="Pretty").click()
    await expect(capture.locator("pre", has_text='"model": "a",')).to_be_visible()
    await answered.get_by_role("button", name="Raw").click()
    await expect(capture.locator("pre", has_text='"finish_reason":"tool_calls"').or_(
        capture.locator("pre", has_text='"finish_reason": "tool_calls"'))).to_be_visible()  # fmt: skip
    copied = await tab.copied(capture.get_by_role("button", name="Copy the request body"))
    assert json.loads(copied)["messages"][0]["content"] == content
    await answered.get_by_role("button", name="Chat").click()
    await expect(answered.get_by_role("button", name="Chat")).to_have_attribute("aria-pressed", "true")
    await capture.get_by_text("Response body").click()
    await expect(answered).to_be_hidden()


async def test_a_request_is_copied_as_curl(tab: Tab, rig: Rig) -> None:
    """With the right address and body, quoted for a shell, and a placeholder for the key."""
    text = 'it\'s $HOME `id` "quoted"\nü'
    await rig.chat("a", messages=[{"role": "user", "content": text}], headers={"Authorization": "Bearer secret"})
    page = await opened(tab, rig, str(await newest(rig)))
    command = await tab.copied(page.get_by_role("button", name="Copy as curl"))
    assert "secret" not in command
    words = shlex.split(command.replace("\\\n", ""))
    assert words[:3] == ["curl", "-N", f"http://127.0.0.1:{rig.port}/v1/chat/completions"]
    assert "Authorization: Bearer $BIOPROXY_KEY" in words
    body = json.loads(words[words.index("--data-raw") + 1])
    assert body["messages"][0]["content"] == text
    sent = await asyncio.create_subprocess_exec("sh", "-c", f"{command} -s", stdout=-1, env={"BIOPROXY_KEY": "k"})
    answer, _ = await sent.communicate()
    assert json.loads(answer)["served_by"] == "a"


async def test_hostile_content_is_only_text(tab: Tab, rig: Rig) -> None:
    """Script, terminal codes and a line of a megabyte, in what was asked, answered and sent as a header."""
    headers = {"X-Session-ID": "<b>bold</b>", "User-Agent": "<script>window.pwned = 3</script>"}
    await rig.chat("a", messages=[{"role": "user", "content": HOSTILE}], headers=headers, bytes=1_000_000)
    number = await newest(rig)
    await call(rig.port, "POST", "/v1/rerank", data={"model": "a", "query": HOSTILE, "documents": ["<b>x</b>"]})
    page = await opened(tab, rig, str(number))
    capture = page.get_by_role("region", name="Capture")
    await expect(capture).to_contain_text("<script>window.pwned = 1</script>")
    await expect(capture).to_contain_text("␛[31mred␛[0m")
    more = capture.get_by_role("button", name=re.compile(r"^Show all \(900,000 more characters\)"))
    await more.click()
    await expect(more).to_have_count(0)
    assert await capture.evaluate("one => one.textContent.includes('x'.repeat(1_000_000))")
    assert await tab.spilled() == []
    echo = await opened(tab, rig, str(number + 1))
    await expect(
        echo.get_by_role("region", name="Capture").locator("pre", has_text="window.pwned = 1").first
    ).to_be_visible()
    await tab.open(rig.port, "/requests")
    await expect(table(page).locator("tbody tr").first).to_be_visible()
    assert await page.evaluate("window.pwned") is None
    assert await page.locator("main script, main b:has-text('bold'), main img[src='x']").count() == 0


# who may see what


async def test_one_of_several_keys_sees_its_own_requests(tab: Tab, tmp_path: Path) -> None:
    """Also on a model's page; and cancels them, and is told in words why it sees no captures."""
    tab.expected(GONE)
    async with swap_rig(tmp_path, fakes("a"), apiKeys=["anna", "bert"], captureBuffer=20) as rig:
        for key in ("anna", "bert", "anna"):
            await rig.chat("a", headers={"Authorization": f"Bearer {key}"})
        tab.expected("401")
        page = await tab.open(rig.port, "/requests", live=False)
        await page.get_by_label("Key", exact=True).last.fill("anna")
        await page.get_by_role("button", name="Use this key").click()
        await expect(table(page).locator("tbody tr")).to_have_count(2)
        await expect(page.get_by_text("you see the requests of your own key")).to_be_visible()
        await expect(page.get_by_text("1 requests")).to_have_count(0)
        await table(page).locator("tbody tr").first.get_by_role("link").first.click()
        await expect(page.get_by_text("is shown to the admin key only")).to_be_visible()
        await page.goto(f"http://127.0.0.1:{rig.port}/ui/#/requests/2")
        tab.expected("404")
        await expect(page.get_by_text("no request '2' is known")).to_be_visible()
        await page.goto(f"http://127.0.0.1:{rig.port}/ui/#/models/a")
        await expect(page.get_by_role("cell", name="/v1/chat/completions")).to_have_count(2)
        await page.goto(f"http://127.0.0.1:{rig.port}/ui/#/cache")
        await expect(page.get_by_text("you see the snapshots of templates")).to_be_visible()
        mine, other = (
            rig.ask("a", hold=0, headers={"Authorization": f"Bearer {key}", "X-Request-Id": f"{key}s"})
            for key in ("anna", "bert")
        )
        await rig.until(lambda: len(rig.log.of("held", "a")) == 2)
        await page.goto(f"http://127.0.0.1:{rig.port}/ui/#/requests")
        await expect(under_way(page).locator("tbody tr")).to_have_count(1)
        await under_way(page).get_by_role("button", name="Cancel", exact=True).click()
        assert (await mine).status == 503
        await expect(under_way(page)).to_contain_text("No request is under way")
        await rig.release("a")
        assert (await other).status == 200


async def test_one_engine_has_the_same_table(tab: Tab, tmp_path: Path) -> None:
    """Narrowed, sorted, counted and followed; one opens under its number, with its capture if that was asked for."""
    tab.expected(f"{GONE}|404")
    async with FakeEngine() as engine, running_app(tmp_path, backend_url=engine.url, ui={"captures": "1MB"}) as app:
        for number in range(3):
            body = {"messages": [{"role": "user", "content": f"Question {number}"}]}
            await call(
                app.proxy_port, "POST", "/v1/chat/completions", data=body, headers={"X-Request-Id": f"r{number}"}
            )
        page = await tab.open(app.admin_port, "/requests")
        rows = table(page).locator("tbody tr")
        await expect(rows).to_have_count(3)
        await expect(rows.locator("td:first-child")).to_have_text(["3", "2", "1"])
        await table(page).locator("th").get_by_role("button", name="Time").press("Enter")
        await table(page).locator("th").get_by_role("button", name="Time").press("Enter")
        await expect(rows.locator("td:first-child")).to_have_text(["1", "2", "3"])
        await table(page).get_by_role("button", name="Filters").click()
        await page.get_by_label("Outcome").select_option("timeout")
        await expect(table(page)).to_contain_text("No request matches the filters")
        await page.get_by_role("button", name="Clear filters").click()
        await call(app.proxy_port, "POST", "/v1/chat/completions", data=body, headers={"X-Request-Id": "r3"})
        await expect(rows).to_have_count(4)
        await expect(under_way(page)).to_contain_text("No request is under way")
        await table(page).get_by_role("link", name="4", exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Request 4")
        await expect(page.get_by_role("region", name="Capture")).to_contain_text("Question 2")


async def test_one_engine_keeps_no_captures_unless_told_to(tab: Tab, tmp_path: Path) -> None:
    """The page says which key does it."""
    tab.expected(f"{GONE}|404")
    async with FakeEngine() as engine, running_app(tmp_path, backend_url=engine.url) as app:
        await call(app.proxy_port, "POST", "/v1/chat/completions", data={"messages": PROMPT})
        page = await tab.open(app.admin_port, "/requests/1")
        await expect(page.get_by_role("region", name="Capture")).to_contain_text("with one engine ui.captures")


async def test_requests_of_one_engine_are_listed_and_cancelled(tab: Tab, tmp_path: Path) -> None:
    """On the start page, in the list, on the engine's page and on its own page; its client gets the error."""
    tab.expected(f"{GONE}|404")
    async with FakeEngine(decode_rate=50) as engine, running_app(tmp_path, backend_url=engine.url) as app:
        data = {"messages": PROMPT, "max_tokens": 100_000, "stream": True}
        asked = aio.spawn(
            call(app.proxy_port, "POST", "/v1/chat/completions", data=data, headers={"X-Request-Id": "long"}),
            name="asked",
        )
        page = await tab.open(app.admin_port)
        await expect(page.get_by_text(re.compile(r"is being answered, .* so far"))).to_be_visible()
        await page.goto(f"http://127.0.0.1:{app.admin_port}/ui/#/models")
        await expect(page.get_by_role("button", name="Cancel the request to the engine")).to_be_visible()
        await page.goto(f"http://127.0.0.1:{app.admin_port}/ui/#/requests/long")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Request long")
        await page.goto(f"http://127.0.0.1:{app.admin_port}/ui/#/requests")
        await expect(under_way(page)).to_contain_text("POST /v1/chat/completions")
        await under_way(page).get_by_role("button", name="Cancel", exact=True).click()
        await expect(under_way(page)).to_contain_text("No request is under way")
        assert "the request was cancelled by an operator" in (await asked).text
        await expect(table(page).locator("tbody tr")).to_have_count(1)


async def test_a_capture_that_is_gone(tab: Tab, tmp_path: Path) -> None:
    """The page says where it may have gone; the rest of the request is there."""
    tab.expected(GONE)
    async with swap_rig(tmp_path, fakes("a"), captureBuffer=0) as rig:
        await rig.chat("a")
        tab.expected("404")
        page = await opened(tab, rig, "1")
        await expect(page.get_by_role("region", name="Capture")).to_contain_text("Capture not found")
        await expect(page.get_by_role("button", name="Copy as curl")).to_have_count(0)


async def test_nothing_was_asked_yet(tab: Tab, tmp_path: Path) -> None:
    """Each part of the page says what would fill it."""
    tab.expected(GONE)
    async with swap_rig(tmp_path, fakes("a")) as rig:
        page = await tab.open(rig.port, "/requests")
        await expect(table(page)).to_contain_text("No request has ended yet")
        await expect(under_way(page)).to_contain_text("No request is under way")
        await expect(page.get_by_text("No request has told its speed yet")).to_have_count(2)
        await expect(table(page).get_by_role("button", name="Export as Markdown")).to_be_disabled()
        assert await tab.axe() == []


# everyone can use it


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_everyone_can_use_it(tab: Tab, rig: Rig, *, dark: bool) -> None:
    """On a phone, in both themes: nothing spills over, and nothing keeps anyone out."""
    await tab.dark(on=dark)
    await tab.phone()
    page = await tab.open(rig.port, "/requests")
    await expect(table(page).locator("tbody tr")).to_have_count(25)
    await table(page).get_by_role("button", name="Filters").click()
    assert await tab.axe() == []
    assert await tab.spilled() == []
    page = await opened(tab, rig, str(await newest(rig)))
    await expect(page.get_by_role("region", name="Capture").locator("summary")).to_have_count(4)
    assert await tab.axe() == []
    assert await tab.spilled() == []


async def test_it_works_with_a_keyboard_alone(tab: Tab, rig: Rig) -> None:
    """To the filters, into the table, to a request, and back."""
    page = await tab.open(rig.port, "/requests")
    await expect(table(page).locator("tbody tr")).to_have_count(25)
    await tab.tab_to("Filters")
    await tab.press("Enter")
    await tab.tab_to("ID from", most=5)
    await page.keyboard.type("3")
    number = str(await newest(rig))
    await tab.tab_to(f"a {number}", most=60)
    await tab.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Request {number}")
    await tab.tab_to("All requests", most=40)
    await tab.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Requests")
