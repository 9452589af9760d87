"""The vocabulary for what shapes a prompt; shared by templates, kv and warmup, which do not know each other.

A conversation is a row of *pieces* in prompt order: the head first, then each message as the engine receives it. The
KV cache is known by *cuts* through that row: a running hash up to a place, so that two conversations that begin alike
share the digests of their common beginning, whatever comes after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import msgspec


class Piece(msgspec.Struct, frozen=True, gc=False):
    """One stretch of a prompt: its name for people ("message 3 (user)") and its normalised bytes.

    `marks` are offsets in `data` at which a further cut is wanted: where a template's static beginning ends. `seams`
    finds more of them, if they are needed: where the system messages and tools of a head end.
    """

    label: str
    data: bytes
    marks: tuple[int, ...] = ()
    seams: Callable[[bytes], Iterable[int]] | None = None


class Cut(msgspec.Struct, frozen=True, gc=False):
    """A place in a prompt: the digest of everything before it (16 bytes), and how many bytes that is.

    There are hundreds of thousands of them, so the garbage collector is told that they hold nothing.
    """

    digest: bytes
    offset: int


Doubt = tuple[str, bytes]  # a field of a request whose meaning is not known: its name, and a digest of its value


class Head(msgspec.Struct, frozen=True):
    """What stands before the first user message, in the chat dialect, as raw JSON; empty if the client sent none.

    `messages`: the system (and developer) messages, a JSON array; `tools`: a JSON array; `kwargs`:
    `chat_template_kwargs`, a JSON object; `lora`: a JSON array; `extra`: further fields that may shape the prompt, a
    JSON object. Equal heads render to the same text.
    """

    messages: bytes = b"[]"
    tools: bytes = b""
    kwargs: bytes = b""
    lora: bytes = b""
    extra: bytes = b""

    @property
    def values(self) -> dict[str, bytes]:
        """The fields that may shape the prompt, with their values as JSON."""
        extra = msgspec.json.decode(self.extra, type=dict[str, msgspec.Raw]) if self.extra else {}
        found = {name: bytes(value) for name, value in extra.items()}
        return found | {"chat_template_kwargs": self.kwargs} if self.kwargs else found

    @property
    def fields(self) -> dict[Doubt, bytes]:
        """The same, each with a digest of its value."""
        return {(name, hashlib.sha256(value).digest()[:16]): value for name, value in self.values.items()}

    @property
    def shape(self) -> str:
        """What a chat template may look at: whether there are system messages and tools."""
        system, tools = self.messages not in {b"", b"[]"}, self.tools not in {b"", b"[]"}
        return ", ".join(("system",) * system + ("tools",) * tools) or "plain"


def common(one: Sequence[object], other: Sequence[object]) -> int:
    """How many leading elements (bytes, characters, tokens, lines) are equal.

    Halving, on equal slices: the comparing is done in C, not in a Python loop over 100,000 tokens.
    """
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
