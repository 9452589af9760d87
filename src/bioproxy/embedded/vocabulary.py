"""The vocabulary of the models that bioproxy writes itself: byte-level BPE, 4096 tokens, about four bytes each.

A model with one token per byte would make every prompt four times as long as a real one, and every figure that
`bioproxy demo` prints with it. So the pieces are real: `demo_merges.txt` beside this module holds 3832 merges that were
learned once, from English technical prose and Python source, and are kept as they are; what is learned anew at each
start would be another model after each edit of ours. All 256 bytes are tokens too, so any text survives the way to ids
and back. The layout is the one that llama.cpp reads as tokenizer `gpt2` (byte values shown as printable characters).
"""

from __future__ import annotations

from importlib.resources import files

import msgspec

BEGIN, END, TURN, TURN_END = "<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>"
CONTROL = (BEGIN, END, TURN, TURN_END, "<|spare_0|>", "<|spare_1|>", "<|spare_2|>", "<|spare_3|>")
NORMAL_TYPE, CONTROL_TYPE = 1, 3  # llama_token_type in llama.h

# Tools as JSON lines after the system part, then turns between <|im_start|> and <|im_end|>: the ChatML shape.
CHAT_TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages and messages[0].role == 'system' %}
{{- messages[0].content + '\\n\\n' }}
{%- endif %}
{{- 'You may call these functions:\\n' }}
{%- for tool in tools %}
{{- tool | tojson }}
{{- '\\n' }}
{%- endfor %}
{{- 'To call one, answer with <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if not (tools and loop.first and message.role == 'system') %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content %}
{{- message.content }}
{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}
{{- '}</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


class Vocabulary(msgspec.Struct, frozen=True):
    """Tokens in id order, their llama.cpp types, and the merges in order of rank."""

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]

    def id(self, token: str) -> int:
        """Where `token` stands; ValueError for an unknown one."""
        return self.tokens.index(token)

    @property
    def speakable(self) -> tuple[int, ...]:
        """Ids of printable ASCII pieces: what a random model may utter without breaking UTF-8 or a terminal."""
        return tuple(
            number
            for number, (token, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if kind == NORMAL_TYPE and all("!" <= character <= "~" or character in "ĠĊ" for character in token)
        )


def byte_characters() -> tuple[str, ...]:
    """The printable character that stands for each byte value, as the GPT-2 tokenizer lays them out."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [value for value in range(256) if value not in printable]
    return tuple(chr(value if value in printable else 256 + others.index(value)) for value in range(256))


def load() -> Vocabulary:
    """Read the merges that come with the package; 256 bytes, the merged pieces, then the control tokens."""
    text = files("bioproxy.embedded").joinpath("demo_merges.txt").read_text(encoding="utf-8")
    merges = tuple(text.splitlines())
    pieces = dict.fromkeys((*byte_characters(), *(merge.replace(" ", "") for merge in merges)))
    types = (NORMAL_TYPE,) * len(pieces) + (CONTROL_TYPE,) * len(CONTROL)
    return Vocabulary(tokens=(*pieces, *CONTROL), types=types, merges=merges)
