"""The prompt prefix of a template, token by token: what every request through it will begin with (kv-rule 12).

Where a chat template puts the user's words, and how the tokenizer merges what stands around them, cannot be known from
outside. So the conversation is rendered twice by the engine itself, with two messages that differ in their first
character, both are tokenized as the engine tokenizes a chat, and what the two have in common is the prompt prefix.
Rendering the system message alone is not the same: a chat template that folds it into the first user turn renders
nothing, and the warm-up would silently warm nothing (facts, section 7).

What an engine cannot do shapes what it gets instead: without `/tokenize` the common *text* is evaluated, without
`/apply-template` (and on engines that are no llama-server) an ordinary chat request carries the template's beginning.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from bioproxy.engines.facts import Capabilities
from bioproxy.engines.llama import Llama
from bioproxy.kv.fingerprint import Traits
from bioproxy.prompt import Head, common
from bioproxy.templates.parse import Filled

Json: TypeAlias = Any

FIRST_MESSAGE, SECOND_MESSAGE = "Compare this.", "7 questions"  # differ in the first character, and in its kind
FIRST_WORD, SECOND_WORD = "Compare", "7th"  # the same, for what ends in the middle of a head
LETTERS_PER_TOKEN = 4  # a guess, if the engine cannot count
MARGIN = 8  # tokens less on models whose cache cannot be cut at any place


class PromptPrefix(msgspec.Struct, frozen=True, kw_only=True):
    """What to evaluate. `length` counts tokens (a guess unless `kind` is `tokens`).

    `tokens`: token ids; `text`: a prompt's text; `chat`: the body of a chat request, which cannot be cut into chunks.
    """

    kind: Literal["tokens", "text", "chat"]
    length: int
    tokens: tuple[int, ...] = ()
    text: str = ""
    body: bytes = b""
    lora: bytes = b""

    def first(self, length: int) -> tuple[int, ...] | str:
        """The prompt's first `length` tokens, or about as much of its text."""
        if self.kind == "tokens":
            return self.tokens[:length]
        return self.text if length >= self.length else self.text[: length * LETTERS_PER_TOKEN]


def chat(head: Head, content: str, *more: str, extra: dict[str, Json] | None = None) -> bytes:
    """The body of a chat request: `head`, then a user message of `content`; `extra` fields win.

    `more`: further user messages, each after an answer.
    """
    body: dict[str, Json] = {}
    if head.extra:
        body.update(msgspec.json.decode(head.extra, type=dict[str, msgspec.Raw]))
    messages: list[Json] = msgspec.json.decode(head.messages or b"[]", type=list[msgspec.Raw])
    messages.append({"role": "user", "content": content})
    for one in more:
        messages += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": one}]
    body["messages"] = messages
    for name, value in (("tools", head.tools), ("chat_template_kwargs", head.kwargs), ("lora", head.lora)):
        if value:
            body[name] = msgspec.Raw(value)
    return msgspec.json.encode(body | (extra or {}))


def margin_of(traits: Traits) -> int:
    """How many tokens to leave off at the end, by what the model's file says; 8 if it could not be read.

    A cache with a sliding window or a recurrent state can only be cut where there is a checkpoint (facts, section 1),
    so a prompt prefix that ends too exactly would be worth nothing; one that ends 8 tokens early costs 8 tokens.
    """
    return 0 if traits.full else MARGIN


async def find(
    engine: Llama,
    can: Capabilities,
    head: Head,
    filled: Filled,
    *,
    margin: int = 0,
    model: str = "",
    other: Head | None = None,
) -> PromptPrefix:
    """The prompt prefix of a template after `head`, as exactly as the engine lets us see it.

    Without a template it is what stands before the first user message of any turn; with an `other` head it ends where
    the two differ. `margin`: tokens to leave off at the end; `model`: its name, for an engine that can only be sent a
    chat request. Raises what the engine's client raises.
    """
    if not can.apply_template:
        return chat_prefix(head, filled, model=model)
    first = await engine.apply_template(chat(head, filled.fill(FIRST_MESSAGE)))
    # some chat templates print tools before the last user message: a head must stand before later turns as well
    later = () if filled.prefix else (FIRST_MESSAGE,)
    second = await engine.apply_template(chat(other or head, filled.fill(SECOND_MESSAGE), *later))
    if not can.tokenize:
        text = first[: common(first, second)]
        return PromptPrefix(kind="text", text=text, length=guess(text), lora=head.lora)
    tokens = await engine.tokenize(first)
    shared = common(tokens, await engine.tokenize(second))
    kept = tuple(tokens[: max(0, shared - margin)])
    return PromptPrefix(kind="tokens", tokens=kept, length=len(kept), lora=head.lora)


def chat_prefix(head: Head, filled: Filled, *, model: str = "") -> PromptPrefix:
    """One ordinary chat request of one token that begins as the template does; for engines that can do no better."""
    extra: dict[str, Json] = {"max_tokens": 1, "stream": False}
    if model:
        extra["model"] = model
    body = chat(head, filled.parts[0], extra=extra)
    return PromptPrefix(kind="chat", body=body, length=guess(filled.parts[0]))


def guess(text: str) -> int:
    """About how many tokens `text` is, at least one if there is any text."""
    return -(-len(text) // LETTERS_PER_TOKEN)
