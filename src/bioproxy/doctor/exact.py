"""How many tokens two prompts begin with, by the engine's own chat template and tokenizer.

`/apply-template` and `/tokenize` compute nothing: llama-server answers them beside its work, out of the threads that
take requests, and no slot is touched. They are asked only for a miss that was worth something, and only of an engine
that has both.

The engine renders the chat dialect. Of the other two dialects the head is known in that form (it was made for
warm-ups), and messages that are plain text are easily put into it; what has calls, results or pictures is not.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from bioproxy.doctor.compare import Prompt
from bioproxy.doctor.units import items
from bioproxy.engines.llama import Llama
from bioproxy.prompt import Piece, common
from bioproxy.templates.messages import END

Json: TypeAlias = Any
LARGEST = 1 << 20  # bytes of a body that the engine is asked to render
MEDIA = (b'"image_url"', b'"input_audio"', b'"image"')  # they are tokens, and no text that could be tokenized


async def shared_tokens(engine: Llama, earlier: Prompt, later: Prompt) -> int | None:
    """The tokens that both begin with; None if that cannot be told. Raises what the engine's client raises."""
    one, other = await rendered(engine, earlier), await rendered(engine, later)
    if not (one and other):
        return None
    return common(await engine.tokenize(one), await engine.tokenize(other))


async def rendered(engine: Llama, prompt: Prompt) -> str:
    """The text that the engine makes of a prompt; empty if that is not known."""
    if prompt.dialect == "completion":
        return prompt.pieces[0].data.partition(END)[2].decode(errors="replace") if prompt.pieces else ""
    body = prompt.body if prompt.dialect == "chat" else chat_body(prompt)
    if not body or any(kind in body for kind in MEDIA):
        return ""
    return await engine.apply_template(body)


def chat_body(prompt: Prompt) -> bytes:
    """A conversation of another dialect in the chat dialect; empty if it has more than texts."""
    turns = list(map(plain, prompt.pieces[1:]))
    if not prompt.body or None in turns:
        return b""
    _, _, _, messages, tools, _ = prompt.pieces[0].data.split(END)
    body: dict[str, Json] = {name: msgspec.Raw(value) for name, value in prompt.arguments.items()}
    body["messages"] = [*map(msgspec.Raw, items(messages)), *turns]
    if tools:
        body["tools"] = msgspec.Raw(tools)
    return msgspec.json.encode(body)


def plain(piece: Piece) -> Json | None:
    """A message in the chat dialect, if it is a role and one text."""
    role, *parts, others, _ = piece.data.split(END)
    if len(parts) != 1 or others or parts[0].startswith(b'{"'):
        return None
    return {"role": role.decode(), "content": parts[0].decode(errors="replace")}
