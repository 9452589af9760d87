"""Tokens and prompts of the fake engine: deterministic, reversible for what was seen, and shaped like the real thing.

A token is a special marker (`<|im_start|>`), up to eight word characters with the blank before them, or any single
other character. Its number is a checksum of its text, so that every process gives the same numbers and a common text
prefix is a common token prefix, but for the word that is cut. The chat template is ChatML; `fold` puts the system
message into the first user turn, as some real templates do, and then renders nothing at all without one.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from typing import Any

Json = Any
BOS = 1
PATTERN = re.compile(r"<\|[a-z_]+\|>| ?\w{1,8}|.", re.DOTALL)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DATED = "{{ strftime_now('%d %B %Y') }}" + CHATML
FOLD = "{# system is folded into the first user turn #}" + CHATML
seen: dict[int, str] = {BOS: ""}


def tokenize(text: str, *, add_special: bool = False) -> list[int]:
    """Token numbers of `text`; with `add_special` the beginning-of-text token first."""
    tokens = [BOS] if add_special else []
    for piece in PATTERN.findall(text):
        number = 16 + zlib.crc32(piece.encode("utf-8", "surrogatepass")) % 0x7FFFFF00
        seen.setdefault(number, piece)
        tokens.append(number)
    return tokens


def text_of(token: int) -> str:
    """The text of a token that this process has seen, else a stand-in."""
    return seen.get(token, f"<{token}>")


def prompt_tokens(prompt: Json) -> list[int]:
    """The `prompt` field of /completion: a text, token ids, or a list that mixes both."""
    if isinstance(prompt, str):
        return tokenize(prompt, add_special=True)
    if not isinstance(prompt, list) or not prompt:
        raise ValueError('"prompt" must not be empty')
    tokens: list[int] = []
    for number, part in enumerate(prompt):
        tokens += [part] if isinstance(part, int) else tokenize(str(part), add_special=number == 0)
    return tokens


def plain(content: Json) -> str:
    """A message's content as text: a string, or the text parts joined."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content if isinstance(part, dict))


def render(body: Json, *, fold: bool = False, today: str = "", prints: Sequence[str] = ()) -> str:
    """What /apply-template answers for a chat body; ValueError for one without messages.

    `today`: a date that the chat template prints at the beginning; `prints`: fields of the body that it prints there.
    """
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        raise ValueError("'messages' is required")  # noqa: TRY004 - every bad body is a ValueError here
    messages = [(str(m.get("role", "")), plain(m.get("content"))) for m in body["messages"]]
    printed = ("tools", "chat_template_kwargs", *prints)
    extras = [f"Today: {today}"] * bool(today) + [f"{key}: {json.dumps(body[key])}" for key in printed if body.get(key)]
    if fold:
        system = "\n".join([*extras, *(text for role, text in messages if role == "system")])
        messages = [(role, text) for role, text in messages if role != "system"]
        if not messages:
            return ""
        messages[0] = (messages[0][0], f"{system}\n\n{messages[0][1]}" if system else messages[0][1])
    elif extras:
        messages.insert(0, ("system", "\n".join(extras)))
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)
    return text + ("<|im_start|>assistant\n" if body.get("add_generation_prompt", True) else "")


def chat_from_messages(body: Json) -> Json:
    """An Anthropic /v1/messages body as a chat body; what the real server drops is dropped."""
    system = [{"role": "system", "content": plain(body["system"])}] if body.get("system") else []
    return {
        "messages": system + list(body["messages"]),
        "tools": body.get("tools"),
        "chat_template_kwargs": body.get("chat_template_kwargs"),
        "stream": body.get("stream", False),
        "max_tokens": body.get("max_tokens"),
    }


def chat_from_responses(body: Json) -> Json:
    """A /v1/responses body as a chat body; every other field is copied."""
    given = body["input"]
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    if body.get("instructions"):
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    effort = {"reasoning_effort": body["reasoning"]["effort"]} if "effort" in (body.get("reasoning") or {}) else {}
    return {**body, **effort, "messages": messages, "max_tokens": body.get("max_output_tokens")}
