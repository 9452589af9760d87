"""Filling templates into a request, and saying what its prompt is made of.

Every user message of a conversation is expanded, not only the last: the client sends `@code What is this?` again with
each turn, and if only the newest message were filled in, the prompt would change at its beginning and no cache could
help. A message that an assistant has answered is expanded as it was the first time (its *pin*), so that an
edited file costs one evaluation at the next new conversation instead of one in the middle of each old one.

What comes out beside the body are the prompt's pieces in prompt order. The same conversation with one more turn has the
same leading bytes; a warm-up, which knows only a head and a template (`template_pieces`), has the same bytes up to the
template's mark. That is all that the KV cache on disk is found by (kv-rule 19).

Pure: catalogue and pins are asked, nothing is stored; what shall be pinned is returned, for a request that is refused
must leave no trace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import msgspec
from msgspec import Raw

from bioproxy.errors import NOT_JSON, RequestError
from bioproxy.prompt import Head, Piece
from bioproxy.templates.bodies import (
    NOTHING,
    TEXT,
    Body,
    Dialect,
    Fields,
    Json,
    countable,
    few,
)
from bioproxy.templates.dialect_heads import head_of, head_piece, value
from bioproxy.templates.messages import ANSWERS, END, ITEMS, Turn, rewritten, turns_of
from bioproxy.templates.parse import Filled

MOST_ADDED = 64 << 20  # characters that templates may add to one request


class Catalogue(Protocol):
    """What expansion needs of the catalogue."""

    def match(self, text: str) -> tuple[str, str] | None:
        """(prefix, message) if `text` begins with a prefix."""

    def current(self, prefix: str) -> Filled:
        """The newest good text of a prefix."""


class Pins(Protocol):
    """What expansion needs of the pins."""

    def get(self, key: bytes) -> Filled | None:
        """How a message was expanded the first time."""


class Expanded(msgspec.Struct, frozen=True, kw_only=True):
    """A request after expansion.

    `body` is the very object that came in if nothing changed. `prefix` and `version` name the template of the last user
    message, else of the first message that was expanded. `lora`: the scales of LoRA adapters that it asks for, as they
    came. `pieces` is what shapes the prompt (empty if that is not known, or if the engine is told to reuse nothing);
    `sent` is the data of the same pieces before templates were filled in, () if none was. `head` is None if there is no
    such notion. `pins` are to be put once the request is accepted.
    """

    body: bytes
    stream: bool = False
    prefix: str = ""
    version: str = ""
    lora: bytes = b""
    pieces: tuple[Piece, ...] = ()
    sent: tuple[bytes, ...] = ()
    head: Head | None = None
    pins: tuple[tuple[bytes, Filled], ...] = ()


class Result(msgspec.Struct):
    """What one dialect's expansion found: the changed top-level values, and the rest as in Expanded."""

    changes: dict[str, Json] = {}
    pieces: tuple[Piece, ...] = ()
    sent: tuple[bytes, ...] = ()
    head: Head | None = None
    named: Filled | None = None  # of the last user message, else of the first message that was expanded
    pins: tuple[tuple[bytes, Filled], ...] = ()


def expand(
    body: Body,
    *,
    dialect: Dialect,
    catalogue: Catalogue,
    pins: Pins | None,
    scope: bytes,
    drop: frozenset[str] = NOTHING,
) -> Expanded:
    """Fill the templates into `body` and take the top-level keys in `drop` out of it; `body` stays as it is.

    `scope` separates the pins of different API keys. RequestError if a key of `drop` cannot be taken out.
    """
    fields, result = body.fields or {}, Result()
    try:
        if dialect == "completion":
            result = expand_prompt(fields, catalogue)
        elif fields:
            result = expand_turns(fields, dialect=dialect, catalogue=catalogue, pins=pins, scope=scope)
        if dialect != "anthropic" and bytes(fields.get("cache_prompt", b"")) == b"false":
            result.pieces = ()  # the engine was told to use nothing of what it has: a restore would be for nothing
        written = body.written(result.changes, drop)
    except NOT_JSON:  # a text inside cannot be read
        body.refuse(drop)
        written = body.written()
    named = result.named
    return Expanded(
        body=written,
        stream=body.stream,
        prefix=named.prefix if named else "",
        version=named.version if named else "",
        lora=value(fields, "lora"),
        pieces=result.pieces,
        sent=result.sent,
        head=result.head,
        pins=result.pins,
    )


def expand_turns(fields: Fields, *, dialect: Dialect, catalogue: Catalogue, pins: Pins | None, scope: bytes) -> Result:
    """Expand a conversation."""
    turns = turns_of(dialect, fields)
    if turns is None:
        return Result()
    first = 0
    while first < len(turns) and turns[first].role != "user":
        first += 1
    head = head_of(dialect, fields, turns[:first])
    work = Conversation(turns, first=first, head=head, catalogue=catalogue)
    work.run(pins, scope)
    return Result(
        changes=rewritten(dialect, fields, work.changes) if work.changes else {},
        pieces=tuple(work.pieces),
        sent=tuple(work.sent) if work.used else (),
        head=head,
        named=work.named() if work.used else None,
        pins=tuple(work.pins),
    )


class Conversation:
    """The expansion of one conversation, message by message. `first` is the place of the first user message."""

    def __init__(self, turns: Sequence[Turn], *, first: int, head: Head, catalogue: Catalogue) -> None:
        self.turns = turns
        self.first = first
        self.catalogue = catalogue
        self.pieces = [head_piece(head)]
        self.changes: dict[int, tuple[int, str]] = {}
        self.used: dict[int, Filled] = {}
        self.pins: list[tuple[bytes, Filled]] = []
        self.sent: list[bytes] = [self.pieces[0].data]  # the conversation as the client sent it
        self.room: Room | None = None

    def run(self, pins: Pins | None, scope: bytes) -> None:
        """Go through the messages after the head."""
        digest: Running | None = None
        for place in range(self.first, len(self.turns)):
            turn = self.turns[place]
            data = turn.normal()
            self.sent.append(data)
            found = self.find(turn) if turn.role == "user" else None
            label = f"message {place - self.first + 1} ({turn.role})"
            if found is None:
                self.pieces.append(Piece(label, data))
            else:
                at, prefix, message = found
                if digest is None and pins is not None:
                    digest = Running(scope, self.sent)
                filled = self.choose(place, prefix, pins=pins, key=digest.key() if digest else b"")
                self.fill(place, at, filled=filled, message=message, label=label)

    def named(self) -> Filled:
        """The template of the last user message, else of the first message that has one."""
        last = max(place for place, turn in enumerate(self.turns) if turn.role == "user")
        return self.used.get(last) or next(iter(self.used.values()))

    def find(self, turn: Turn) -> tuple[int, str, str] | None:
        """(place of the part, prefix, message) of the first text part that begins with a prefix."""
        for at, text in turn.texts():
            if match := self.catalogue.match(text):
                return at, *match
        return None

    def choose(self, place: int, prefix: str, *, pins: Pins | None, key: bytes) -> Filled:
        """The text to use: the pinned one if an assistant has answered already, else the current one."""
        if pins is not None and place < self.answered:
            pinned = pins.get(key)
            if pinned is not None and pinned.prefix == prefix:
                return pinned
        filled = self.catalogue.current(prefix)
        if pins is not None:
            self.pins.append((key, filled))
        return filled

    @cached_property
    def answered(self) -> int:
        """The place of the last answer; -1 if there is none."""
        return max((place for place, turn in enumerate(self.turns) if turn.role in ANSWERS), default=-1)

    def fill(self, place: int, at: int, *, filled: Filled, message: str, label: str) -> None:
        """Put the filled text into the message, and note the piece that it becomes."""
        self.room = self.room or Room()
        self.room.take(filled, message)
        text = filled.fill(message)
        data, offset = self.turns[place].filled(at, text)
        marks = () if self.used else (offset + len(filled.parts[0].encode()),)
        self.pieces.append(Piece(label, data, marks))
        self.changes[place] = at, text
        self.used[place] = filled


class Room:
    """How much templates may still add to a request: a body of many small messages could fill the memory."""

    def __init__(self) -> None:
        self.added = 0

    def take(self, filled: Filled, message: str) -> None:
        """Count one filled template. RequestError (413) if it becomes too much."""
        self.added += filled.growth(message)
        if self.added > MOST_ADDED:
            raise RequestError(
                f"with its templates filled in ({filled.prefix} among them) this request would be more than "
                f"{MOST_ADDED >> 20} MiB longer; send fewer messages that begin with a prefix",
                status=413,
            )


class Running:
    """A digest of a growing row of byte strings, computed only as far as it is asked for."""

    def __init__(self, scope: bytes, row: Sequence[bytes]) -> None:
        self.hash = hashlib.sha256(b"%d:%s" % (len(scope), scope))
        self.row = row
        self.done = 0

    def key(self) -> bytes:
        """The digest (16 bytes) of the scope and of everything in the row so far."""
        for data in self.row[self.done :]:
            self.hash.update(data)
        self.done = len(self.row)
        return self.hash.copy().digest()[:16]


def expand_prompt(fields: Fields, catalogue: Catalogue) -> Result:
    """Expand the `prompt` of a completion: a string, or the strings in a list; token ids stay as they are."""
    raw = fields.get("prompt")
    if raw is None:
        return Result()
    prompts = prompts_in(raw)
    changes: dict[int, tuple[int, str]] = {}
    used: list[Filled] = []
    pieces: list[Piece] = []
    room = Room()
    for place, prompt in enumerate(prompts):
        piece, text, filled = expand_one(fields, prompt, catalogue, room)
        pieces.append(piece)
        if filled is not None:
            changes[place] = 0, text
            used.append(filled)
    changed = rewritten("completion", fields, changes) if changes else {}
    known = tuple(pieces) if len(pieces) == 1 else ()  # of several prompts none is "the" prompt
    return Result(changed, pieces=known, named=used[0] if used else None)


def prompts_in(raw: Raw) -> list[Raw]:
    """The prompts in a list; a list of token ids, or anything else, is one prompt that we leave alone."""
    data = bytes(raw)
    if data[:1] != b"[" or (b'"' not in data and b"[" not in data[1:]):
        return [raw]
    try:
        return few(ITEMS.decode(countable(data)))
    except msgspec.ValidationError:  # more than anybody asks at once
        return [raw]


def expand_one(fields: Fields, prompt: Raw, catalogue: Catalogue, room: Room) -> tuple[Piece, str, Filled | None]:
    """One prompt: its piece, its new text, and the template that was used."""
    start = b"prompt" + value(fields, "lora") + END
    if bytes(prompt)[:1] != b'"':
        return Piece("prompt", start + bytes(prompt)), "", None
    text = TEXT.decode(prompt)
    match = catalogue.match(text)
    if match is None:
        return Piece("prompt", start + text.encode()), text, None
    filled = catalogue.current(match[0])
    room.take(filled, match[1])
    text = filled.fill(match[1])
    return Piece("prompt", start + text.encode(), (len(start) + len(filled.parts[0].encode()),)), text, filled


def template_pieces(head: Head, filled: Filled) -> tuple[Piece, ...]:
    """The pieces of the prompt prefix that a warm-up evaluates: they end where the template's static beginning ends.

    A request whose first user message is this template after this head has the same bytes up to its mark.
    """
    return head_piece(head), Piece("message 1 (user)", b"user" + END + filled.parts[0].encode())
