"""The prompt prefix, exact to the token, on a toy engine whose tokenizer merges what stands together."""

from __future__ import annotations

import re
from typing import cast

import msgspec
import pytest

from bioproxy.engines.facts import Capabilities
from bioproxy.engines.llama import Llama
from bioproxy.prompt import Head
from bioproxy.templates.parse import Filled
from bioproxy.warmup import prefix as module
from bioproxy.warmup.prefix import chat, chat_prefix, find

CAN = Capabilities(tokenize=True, apply_template=True)


def text(*parts: str) -> Filled:
    """A template whose message stands between `parts`."""
    return Filled("@code", "1", parts)


class Toy:
    """Renders `<role>content` and makes one token of a blank and the word that follows it."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {}

    async def apply_template(self, body: bytes) -> str:
        messages = msgspec.json.decode(body)["messages"]
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"

    async def tokenize(self, text: str) -> list[int]:
        return [self.words.setdefault(word, len(self.words)) for word in re.findall(r"<\w+>| ?\w+|\W", text)]


async def test_the_prompt_prefix_begins_every_request() -> None:
    """Whatever the message, a request's tokens begin with the prompt prefix, and it could not be longer."""
    toy, filled = Toy(), text("You know this code: x y z. ", " Be short.")
    found = await find(cast("Llama", toy), CAN, Head(), filled)
    rests = set()
    for message in ("how does it work?", "9 lives", "Zebra"):
        tokens = await toy.tokenize(await toy.apply_template(chat(Head(), filled.fill(message))))
        assert tuple(tokens[: found.length]) == found.tokens
        rests.add(tokens[found.length])
    assert len(rests) == 3


async def test_a_token_that_merges_with_the_message_does_not_belong_to_it() -> None:
    """The blank before the message becomes a part of the message's first token."""
    toy, filled = Toy(), text("Code: ", "")
    found = await find(cast("Llama", toy), CAN, Head(), filled)
    assert found.tokens == tuple(await toy.tokenize("<user>Code:"))


async def test_the_head_is_rendered_as_clients_send_it() -> None:
    """System message, tools and template arguments stand in the rendered request."""
    head = Head(messages=b'[{"role":"system","content":"Rules."}]', tools=b'[{"type":"function"}]', kwargs=b'{"a":1}')
    body = msgspec.json.decode(chat(head, "hello"))
    assert body == {
        "messages": [{"role": "system", "content": "Rules."}, {"role": "user", "content": "hello"}],
        "tools": [{"type": "function"}],
        "chat_template_kwargs": {"a": 1},
    }
    found = await find(cast("Llama", Toy()), CAN, head, text("Code: ", ""))
    assert found.length == len(await Toy().tokenize("<system>Rules.<user>Code:"))


async def test_further_fields_of_a_head_are_sent() -> None:
    """What changes the rendered prompt beside messages and tools goes along."""
    body = msgspec.json.decode(chat(Head(extra=b'{"reasoning_effort":"low"}'), "hello"))
    assert body["reasoning_effort"] == "low"


async def test_a_margin_is_cut_off() -> None:
    """On models whose cache cannot be cut anywhere the prompt prefix ends a little earlier."""
    toy, filled = Toy(), text("a b c d e f g h i j k l ", "")
    whole = await find(cast("Llama", toy), CAN, Head(), filled)
    cut = await find(cast("Llama", toy), CAN, Head(), filled, margin=module.MARGIN)
    assert cut.tokens == whole.tokens[: -module.MARGIN]


async def test_without_tokenize_the_common_text_is_found() -> None:
    """A server that cannot tokenize for us gets the text up to where the message begins."""
    found = await find(cast("Llama", Toy()), Capabilities(apply_template=True), Head(), text("Code: ", " end"))
    assert (found.kind, found.text) == ("text", "<user>Code: ")
    assert found.first(found.length) == found.text
    assert found.text.startswith(str(found.first(1)))


async def test_without_apply_template_a_chat_request_carries_the_beginning() -> None:
    """An engine that cannot render gets an ordinary chat request of one token."""
    found = await find(cast("Llama", Toy()), Capabilities(tokenize=True), Head(), text("Code: ", " end"))
    body = msgspec.json.decode(found.body)
    assert found.kind == "chat"
    assert (body["messages"][0]["content"], body["max_tokens"]) == ("Code: ", 1)


def test_a_chat_request_names_the_model() -> None:
    """Servers of many models need to be told which."""
    assert msgspec.json.decode(chat_prefix(Head(), text("Code: "), model="m").body)["model"] == "m"


@pytest.mark.parametrize("length", [0, 1, 3, 5])
async def test_the_beginning_of_a_prompt_prefix(length: int) -> None:
    """Chunks are beginnings of the same tokens."""
    found = await find(cast("Llama", Toy()), CAN, Head(), text("a b c d e ", ""))
    assert found.first(length) == found.tokens[:length]


class Late(Toy):
    """A chat template that prints the tools before the last user message, wherever that stands."""

    async def apply_template(self, body: bytes) -> str:
        *before, last = msgspec.json.decode(body)["messages"]
        return "".join(f"<{m['role']}>{m['content']}" for m in before) + f"<tools>look<user>{last['content']}"


async def test_a_head_ends_where_a_later_turn_is_another_prompt() -> None:
    """Tools that move on with the conversation are no part of it, though they stand before a first message."""
    head = Head(messages=b'[{"role":"system","content":"Rules."}]')
    toy = Late()
    found = await find(cast("Llama", toy), CAN, head, Filled("", "", ("", "")))
    assert found.tokens == tuple(await toy.tokenize("<system>Rules."))


async def test_a_head_that_changes_ends_where_it_does() -> None:
    """Two heads that part are rendered, each once."""
    one, other = (Head(messages=b'[{"role":"system","content":"Rules. %s"}]' % word) for word in (b"Compare", b"7th"))
    toy = Toy()
    found = await find(cast("Llama", toy), CAN, one, Filled("", "", ("", "")), other=other)
    assert found.tokens == tuple(await toy.tokenize("<system>Rules."))
