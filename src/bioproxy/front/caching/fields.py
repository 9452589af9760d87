"""What a request says about prompt caching, read and taken out before an engine sees it.

| field                                          | where                                     | becomes             |
|------------------------------------------------|-------------------------------------------|---------------------|
| `prompt_cache_key`, `metadata.user_id`         | top level                                 | a conversation's id |
| `prompt_cache_options` and `…_retention`       | top level                                 | what is kept        |
| `prompt_cache_breakpoint`                      | parts of messages (chat, Responses)       | a `Breakpoint`      |
| `cache_control`                                | top level, tools, system, messages, parts | a `Breakpoint`      |
| `diagnostics`                                  | top level (Anthropic)                     | what to compare     |

What of them is wrong is the client's mistake and a 400, for a field that is passed over in silence costs its user a
cache that he counts on. All other values pass as they came: only the messages that carry a mark are opened.

A breakpoint in `tools` or in a system message counts at the end of both: chat templates print the two together, in an
order of their own, so no place between them is the same for two templates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from bioproxy.errors import NOT_JSON, RequestError
from bioproxy.prompt import Piece
from bioproxy.templates.bodies import FIELDS, Body, Dialect, Fields, countable, few, string
from bioproxy.templates.messages import END, ITEMS, KEYS

Json: TypeAlias = Any
Form = Literal["chat", "anthropic", "responses"]
Ttl = Literal["5m", "30m", "1h", "12h"]

NULL = Raw(b"null")
OURS = ("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "cache_control")  # in all three APIs
OURS_ASKED = frozenset(OURS)
LOOKED_AT = frozenset({*OURS, "diagnostics", "metadata"})
LONG = 16 << 10  # bytes from which on another search is the quicker one
MARK, BREAKPOINT = b'"cache_control"', b'"prompt_cache_breakpoint"'  # in a text their quotes would be escaped
SECONDS: dict[Ttl, float] = {"5m": 300.0, "30m": 1800.0, "1h": 3600.0, "12h": 43200.0}
Retention = Literal["in_memory", "in-memory", "24h"]
RETENTIONS: dict[Retention | None, Literal["", "in_memory", "24h"]] = {
    "in_memory": "in_memory", "in-memory": "in_memory", "24h": "24h",
}  # fmt: skip
HEAD = -1  # the place of a breakpoint before the first message of a conversation
LAST = -1  # the part of a breakpoint at the end of its message
CONSIDERED = 80  # breakpoints of one request, the latest
WRITTEN = 4  # of them, those that are kept; one less if the end of the prompt is one, too
LONGEST_NAME = 500  # characters of a conversation's name
INNER = ("content", "output")  # where blocks stand in a message, and in a tool's result
DEEPEST = 4  # blocks in blocks
ENDS = END + END  # what stands after the last part of a message that has no other fields
ONLY_RESPONSES = "for chat completions; 12h is for /v1/responses"


class Breakpoint(msgspec.Struct, frozen=True, order=True):
    """The end of a beginning that shall be kept: after a part of a message. `item` is the message's place."""

    item: int
    part: int
    ttl: Ttl


class Options(msgspec.Struct, frozen=True):
    """`prompt_cache_options`."""

    mode: Literal["implicit", "explicit"] = "implicit"
    ttl: Literal["30m", "12h"] = "30m"
    prewarm: bool = False
    comparison_response_id: str | None = None


class Ephemeral(msgspec.Struct, frozen=True):
    """`cache_control`."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] = "5m"


class Explicit(msgspec.Struct, frozen=True):
    """`prompt_cache_breakpoint`."""

    mode: Literal["explicit"]
    ttl: Literal["30m", "12h"] | None = None


class Diagnostics(msgspec.Struct, frozen=True):
    """`diagnostics`."""

    previous_message_id: str | None = None


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What one request asks for.

    `asked`: the answer shall speak of the cache; with `metadata` alone it need not. `breakpoints` are those that are
    kept, in prompt order; `items` counts the messages that they were found in. `compare`: the answer to compare with
    ("": the client only wants to be told from now on); None if it did not ask. `conversation`: what the client calls
    it. `last`: Anthropic's mark at the top level, which stands for the end of the prompt.
    """

    form: Form
    asked: bool = False
    key: str | None = None
    options: Options | None = None
    retention: Literal["", "in_memory", "24h"] = ""
    prewarm: bool = False
    compare: str | None = None
    conversation: str = ""
    breakpoints: tuple[Breakpoint, ...] = ()
    items: int = 0

    @property
    def implicit(self) -> bool:
        """Whether the prompt's end is a breakpoint: always with OpenAI, unless the client said otherwise."""
        return self.form != "anthropic" and self.mode == "implicit"

    @property
    def mode(self) -> str:
        return self.options.mode if self.options is not None else "implicit"

    @property
    def stored(self) -> bool:
        """Whether anything of this request may be kept on the disk."""
        return self.retention != "in_memory"

    @property
    def kept(self) -> bool:
        """Whether the conversation as a whole may be; the breakpoints are another matter."""
        return self.stored and self.mode == "implicit"

    @property
    def ttl(self) -> Ttl:
        """How long a breakpoint lives that does not say so itself."""
        return self.options.ttl if self.options is not None else "30m"


def take(body: Body, dialect: Dialect) -> Wishes:
    """What a request asks for; `body` is without its fields then. RequestError for what cannot be meant."""
    fields = body.fields
    assert fields is not None
    assert dialect != "completion"
    options = read(fields, "prompt_cache_options", Options)
    taking = Taking(options.ttl if options is not None else "30m", chat=dialect == "chat")
    taking.everywhere(fields, KEYS[dialect])
    wishes = Wishes(
        form=dialect,
        asked=taking.found or not OURS_ASKED.isdisjoint(fields) or (dialect == "anthropic" and "diagnostics" in fields),
        key=read(fields, "prompt_cache_key", str),
        options=options,
        retention=RETENTIONS.get(read(fields, "prompt_cache_retention", Retention), ""),
        conversation=conversation_of(fields),
        items=taking.items,
    )
    check(wishes)
    wishes = replace(wishes, **by_api(wishes, fields), breakpoints=taking.kept(wishes))
    for name in (*OURS, "diagnostics") if dialect == "anthropic" else OURS:
        body.changed |= fields.pop(name, None) is not None
    body.changed |= taking.found
    if wishes.prewarm:
        limit = "max_tokens" if dialect == "anthropic" else "max_output_tokens"
        fields[limit], body.changed = Raw(b"1"), True  # the least that every engine takes; none of it is evaluated
    return wishes


def check(wishes: Wishes) -> None:
    """RequestError for options that this API has not."""
    options = wishes.options
    if options is None or wishes.form != "chat":
        return
    if options.prewarm or options.comparison_response_id is not None:
        name = "prewarm" if options.prewarm else "comparison_response_id"
        raise RequestError(f"prompt_cache_options.{name} is for /v1/responses; chat completions have none")
    if options.ttl != "30m":
        raise RequestError(f"prompt_cache_options.ttl is 30m {ONLY_RESPONSES}")


def by_api(wishes: Wishes, fields: Fields) -> dict[str, Json]:
    """What the two companies write differently: to warm only, and to compare with an earlier answer."""
    if wishes.form == "anthropic":
        asked = read(fields, "diagnostics", Diagnostics)
        prewarm = bytes(fields.get("max_tokens", Raw())) == b"0"
        compare = None if asked is None else asked.previous_message_id or ""
        return {"prewarm": prewarm, "compare": compare, "asked": wishes.asked or prewarm}
    if wishes.options is None:
        return {}
    return {"prewarm": wishes.options.prewarm, "compare": wishes.options.comparison_response_id}


def read(fields: Fields, name: str, kind: Json) -> Json:
    """A field of the type `kind`; None if it is missing or null."""
    raw = bytes(fields.get(name, NULL))
    return None if raw == b"null" else decoded(raw, name, kind)


def decoded(raw: bytes, name: str, kind: Json) -> Json:
    """A value of the type `kind`; RequestError says what is wrong with it."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except NOT_JSON as error:
        raise RequestError(f"`{name}` cannot be used: {error}") from error


def conversation_of(fields: Fields) -> str:
    """What the body calls its conversation: the session in `metadata.user_id`, else `prompt_cache_key`; "" for none."""
    try:
        user = string(FIELDS.decode(fields.get("metadata", Raw(b"{}"))).get("user_id", NULL))
    except NOT_JSON:
        user = ""
    return (session_in(user) or string(fields.get("prompt_cache_key", NULL)))[:LONGEST_NAME]


def session_in(user: str) -> str:
    """The session in a `user_id` of Claude Code, which is a text with `_session_` in it, or JSON; "" in any other."""
    if user.startswith("{"):
        try:
            return string(FIELDS.decode(user.encode()).get("session_id", NULL))
        except NOT_JSON:
            return ""
    return user.partition("_session_")[2]


SESSIONS = (
    b"x-claude-code-session-id", b"session-id", b"session_id", b"x-session-id", b"x-session-affinity",
    b"x-openwebui-chat-id", b"x-litellm-session-id",
)  # fmt: skip


NAMING = frozenset(SESSIONS)


def session_of(headers: dict[bytes, bytes], wishes: Wishes | None) -> str:
    """What a client calls its conversation, by its headers (lower case) and its body; "" for nothing."""
    named = next((headers[name] for name in SESSIONS if name in headers), b"")
    said = wishes.conversation if wishes is not None else ""
    return named.decode("utf-8", "replace")[:LONGEST_NAME] or said


class Taking:
    """Takes the marks out of a body, and notes where they stood. `ttl`: of a breakpoint that says none."""

    def __init__(self, ttl: Literal["30m", "12h"], *, chat: bool) -> None:
        self.ttl = ttl
        self.chat = chat
        self.found = False
        self.marks: list[Breakpoint] = []
        self.items = 0
        self.last: Ttl | None = None

    def everywhere(self, fields: Fields, messages: str) -> None:
        """Look wherever marks may stand."""
        if (top := read(fields, "cache_control", Ephemeral)) is not None:
            self.last = top.ttl
        for name in ("tools", "system", "instructions"):
            self.inside(fields, name, HEAD, part=LAST)
        if self.last is not None or has_mark(bytes(fields.get(messages, b""))):
            self.inside(fields, messages, None)

    def inside(self, fields: Fields, name: str, item: int | None, *, part: int | None = None, depth: int = 0) -> None:
        """Take the marks out of what stands in the list `name`; a value that is no list stays as it is.

        `item` None: its members are the messages themselves. `part` None: its members are the parts of that message.
        """
        raw = bytes(fields.get(name, b""))
        if item is not None and not has_mark(raw):
            return
        try:
            members: list[Json] = list(few(ITEMS.decode(countable(raw))))
        except msgspec.MsgspecError:
            return  # a text, or nothing that we know; the engine says what is wrong with it
        if item is None:
            self.items = len(members)
        for place, member in enumerate(members):
            if has_mark(data := bytes(member)):
                where = (place, None) if item is None else (item, place if part is None else part)
                members[place] = self.opened(data, *where, depth=depth)
        if any(isinstance(member, dict) for member in members):
            fields[name] = Raw(msgspec.json.encode(members))

    def opened(self, data: bytes, item: int, part: int | None, *, depth: int) -> Json:
        """A message (`part` None) or a block without its marks; those of what stands in a block count where it ends."""
        try:
            fields = FIELDS.decode(data)
        except NOT_JSON:  # no object, or a key of it is no UTF-8
            return Raw(data)
        self.note(fields, item, LAST if part is None else part)
        for name in INNER if depth < DEEPEST else ():
            self.inside(fields, name, item, part=part, depth=depth + 1)
        return fields

    def note(self, fields: Fields, item: int, part: int) -> None:
        """Take the marks of one object out of it."""
        if (mark := read(fields, "cache_control", Ephemeral)) is not None:
            self.marks.append(Breakpoint(item, part, mark.ttl))
        if (mark := read(fields, "prompt_cache_breakpoint", Explicit)) is not None:
            if self.chat and mark.ttl == "12h":
                raise RequestError(f"a prompt_cache_breakpoint's ttl is 30m {ONLY_RESPONSES}")
            self.marks.append(Breakpoint(item, part, mark.ttl or self.ttl))
        for name in ("cache_control", "prompt_cache_breakpoint"):
            self.found |= fields.pop(name, None) is not None

    def kept(self, wishes: Wishes) -> tuple[Breakpoint, ...]:
        """The breakpoints that are kept: the latest few, each place once, with the longest time asked for it."""
        marks = self.marks
        if self.last is not None:
            marks = [*marks, Breakpoint(max(0, self.items - 1), LAST, self.last)]
        places: dict[tuple[int, int], Breakpoint] = {}
        for mark in marks:
            key = mark.item, mark.part
            known = places.get(key)
            if known is None or SECONDS[known.ttl] < SECONDS[mark.ttl]:
                places[key] = mark
        latest = sorted(places.values(), key=order)[-CONSIDERED:]
        return tuple(latest[-(WRITTEN - wishes.implicit) :])


def has_mark(data: bytes) -> bool:
    if len(data) > LONG:
        return mark_search()(data) is not None
    return MARK in data or BREAKPOINT in data


@lru_cache(maxsize=1)
def mark_search() -> Callable[[bytes], object]:
    """What searches long bytes for a mark, at some twenty times the speed of two searches."""
    import re2  # 2.5 MB that only a long body needs

    search: Callable[[bytes], object] = re2.compile(rb"(?:%b|%b)" % (MARK, BREAKPOINT)).search
    return search


def order(mark: Breakpoint) -> tuple[int, float]:
    """Where a breakpoint stands in the prompt: the end of a message comes after all its parts."""
    return mark.item, float("inf") if mark.part == LAST else mark.part


# in the prompt's pieces


class Place(msgspec.Struct, frozen=True):
    """A breakpoint in the pieces of a prompt: after `offset` bytes of the piece number `piece`."""

    piece: int
    offset: int
    mark: Breakpoint


def places(pieces: Sequence[Piece], wishes: Wishes) -> list[Place]:
    """Where the breakpoints stand, in prompt order; what is no part of the prompt is left out."""
    first = wishes.items - (len(pieces) - 1)  # the place of the first message that is no part of the head
    found: dict[tuple[int, int], Place] = {}
    for mark in wishes.breakpoints:
        number = 0 if mark.item == HEAD else max(0, mark.item - first + 1)
        if number >= len(pieces):
            continue
        data = pieces[number].data
        offset = end_of_part(data, mark.part) if number else len(data)
        if len(data) - offset <= len(ENDS) and not data[offset:].strip(END):
            offset = len(data)  # the last part ends where its message does, so that it is found without the mark, too
        known = found.get((number, offset))
        if known is None or SECONDS[known.mark.ttl] < SECONDS[mark.ttl]:
            found[number, offset] = Place(number, offset, mark)
    return [found[key] for key in sorted(found)]


def end_of_part(data: bytes, part: int) -> int:
    """Where a part ends in a message's normal form (templates/messages.py); the end of the message if it has none."""
    place = -1
    for _ in range(0 if part == LAST else part + 2):
        place = data.find(END, place + 1)
        if place < 0:
            return len(data)
    return place if place >= 0 else len(data)


def marked(pieces: Sequence[Piece], wishes: Wishes) -> tuple[Piece, ...]:
    """The pieces with a cut at each breakpoint.

    If that is a message's last part there is one before the message's end as well: the next request may have a further
    part there.
    """
    found = list(pieces)
    for place in places(pieces, wishes):
        piece = found[place.piece]
        tail = piece.data[-len(ENDS) :]
        ends = len(tail) - len(tail.rstrip(END)) if place.piece and place.offset == len(piece.data) else 0
        cut = place.offset - ends
        if cut < len(piece.data) and cut not in piece.marks:
            found[place.piece] = replace(piece, marks=tuple(sorted({*piece.marks, cut})))
    return tuple(found)
