"""The page's Playground as a person meets it, before engines that answer what a test wants."""

from __future__ import annotations

import json
from typing import Any

from playwright.async_api import Locator, Page, expect

from support.browser import Tab
from support.http import call
from support.swap_rig import Rig

Json = Any
CHAT, PLACE = "/v1/chat/completions", "/playground"


async def script(rig: Rig, model: str = "a", **how: Json) -> None:
    """From now on the fake answers like this; it runs when this returns."""
    if model not in await rig.running():
        await rig.chat(model)
    await call(rig.log.port(model), "POST", "/script", data=how)


def events(*deltas: Json, **last: Json) -> Json:
    """A stream of chat completion chunks, as `streams` of a script."""
    chunks: list[Json] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return {CHAT: [["", chunk] for chunk in [*chunks, {"choices": [], **last}]] + [["", "[DONE]"]]}


class Chat:
    """The chat as a person meets it."""

    def __init__(self, tab: Tab, rig: Rig) -> None:
        self.tab, self.page, self.rig = tab, tab.page, rig
        self.box = self.page.get_by_role("textbox", name="Message")
        self.answers = self.page.get_by_role("article", name="Answer")
        self.questions = self.page.get_by_role("article", name="Question")
        self.stop = self.button("Stop")

    def button(self, name: str, *, exact: bool = True) -> Locator:
        return self.page.get_by_role("button", name=name, exact=exact)

    async def open(self, model: str = "a") -> Page:
        await self.tab.open(self.rig.port, f"{PLACE}?model={model}")
        await self.box.wait_for()
        return self.page

    async def say(self, text: str) -> None:
        await self.box.fill(text)
        await self.box.press("Enter")

    async def ended(self, count: int = 1) -> Locator:
        """The newest of so many answers, none of which runs."""
        await expect(self.page.locator("article[aria-label=Answer][aria-busy=false]")).to_have_count(count)
        await expect(self.button("Send")).to_be_visible()
        return self.answers.last

    async def parameters(self, **values: str) -> None:
        await self.button("Parameters").click()
        dialog = self.page.get_by_role("dialog", name="Parameters")
        for name, value in values.items():
            field = dialog.get_by_label(name.replace("_", " "))
            await (field.select_option(value) if name == "Endpoint" else field.fill(value))
        await self.page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()

    async def sent(self, model: str = "a") -> Json:
        """The body of the newest request as the engine got it."""
        return json.loads((await self.rig.last(model))["body"])
