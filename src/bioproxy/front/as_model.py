"""A template by the model's name: `qwen+code` is `qwen` with `@code` before the first user message.

Many clients have a list of models and no place to type a prefix into every conversation. So the prefix is put where a
user would have typed it, and everything after that (expansion, pins, warm-up, cache) is as if he had. A message that
begins with the prefix already stays as it is. Pure.
"""

from __future__ import annotations

import msgspec

from bioproxy.templates.bodies import Dialect, open_body, write_body
from bioproxy.templates.messages import rewritten, turns_of

NOTHING: frozenset[str] = frozenset()


def with_prefix(body: bytes, prefix: str, dialect: Dialect) -> bytes:
    """The body with `prefix` and a blank before the first user message's text; the same object where there is none."""
    opened = open_body(body)
    if opened.fields is None:
        return body
    try:
        if dialect == "completion":
            text = msgspec.json.decode(opened.fields.get("prompt", msgspec.Raw(b"null")), type=str)
            return body if begins(text, prefix) else write_body(opened.fields, {"prompt": f"{prefix} {text}"}, NOTHING)
        for place, turn in enumerate(turns_of(dialect, opened.fields) or ()):
            if turn.role == "user":
                texts = dict(turn.texts())
                if not texts or any(begins(text, prefix) for text in texts.values()):
                    return body
                at = max(texts)  # agents put reminders before what was typed
                changes = rewritten(dialect, opened.fields, {place: (at, f"{prefix} {texts[at]}")})
                return write_body(opened.fields, changes, NOTHING)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body  # it cannot be read well enough, and passes as it came
    return body


def begins(text: str, prefix: str) -> bool:
    """Whether a message is one with this prefix already."""
    return text == prefix or (text.startswith(prefix) and text[len(prefix) : len(prefix) + 1].isspace())
