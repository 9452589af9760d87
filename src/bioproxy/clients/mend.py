"""Mending prompts that change where nothing of meaning does, so that their beginning is found in the cache again.

    move              a line of the system text goes to its end; what stood after it does not move any more
    pin               a line stays what it was at the first turn of the conversation, such as a date
    drop              a line goes that only counts or signs
    sort_tools        tools in the order of their names
    canonical_tools   the JSON of tools with sorted keys

A rule that is `observe` changes nothing. Both modes count what the rule spares, or would: when the same system text
comes with another line, or the same tools in another order, all that stands after it would be evaluated anew. That is
told in tokens, one for each four bytes. A conversation is known by what it keeps from turn to turn: who asks, its
system text without the line, its first user message.

What is remembered is bounded, in memory, and gone with the program: then a pinned line changes once more. Pure.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice

import msgspec
from msgspec import Raw

from bioproxy.clients.counts import MendCounts
from bioproxy.clients.view import Place, View, readable
from bioproxy.config.schema import StabilizeRule
from bioproxy.config.wildcards import lines, longest_piece
from bioproxy.templates.bodies import FIELDS, Json, countable, few
from bioproxy.templates.messages import ITEMS, KEYS

MOST_LINES = 64  # of one system text that one rule is for
MOST_KNOWN = 4096  # conversations and heads that are remembered, of each kind
MOST_FORMS = 64  # lists of tools whose other form is remembered
TOKEN = 4  # bytes, about
ENDS = 2048  # characters at either end of a text by which it is known, with its length
LONGEST_FORM = 1 << 20  # bytes of tools whose other form is remembered

Spans = tuple[tuple[int, int], ...]


class Costs(msgspec.Struct, frozen=True):
    """Bytes that are evaluated anew if what a rule is about changes: in the same conversation, and in a new one."""

    conversation: int
    head: int


class Form(msgspec.Struct, frozen=True):
    """What a rule makes of a list of tools; `known` is the same for lists that become the same, "" if it is none.

    `raw` is what it becomes, None if it stays as it is.
    """

    known: bytes
    raw: Raw | None


class Memory:
    """What was seen of lines and tools that change."""

    def __init__(self, *, most: int = MOST_KNOWN) -> None:
        self.most = most
        self.pins: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()
        self.values: OrderedDict[bytes, bytes] = OrderedDict()
        self.forms: OrderedDict[bytes, Form] = OrderedDict()
        self.counts: dict[str, MendCounts] = {}

    def keep_form(self, key: bytes, form: Form) -> None:
        """Remember what tools become: they are the same with each request."""
        self.forms[key] = form
        if len(self.forms) > MOST_FORMS:
            self.forms.popitem(last=False)

    def swap(self, key: bytes, value: bytes) -> bytes | None:
        """Remember a value, and tell the one before."""
        before = self.values.pop(key, None)
        self.values[key] = value
        if len(self.values) > self.most:
            self.values.popitem(last=False)
        return before

    def pinned(self, key: bytes, value: tuple[str, ...]) -> tuple[str, ...]:
        """What a conversation began with: `value` if this is its first turn."""
        kept = self.pins.pop(key, value)
        self.pins[key] = kept
        if len(self.pins) > self.most:
            self.pins.popitem(last=False)
        return kept

    def note(
        self,
        rule: StabilizeRule,
        view: View,
        *,
        head: bytes,
        value: bytes,
        costs: Callable[[], Costs],
        pins: bool = False,
    ) -> bytes:
        """Count what a rule met; if it `pins`, the key of the conversation.

        If the value is that which came last with this head, nothing has changed, and the conversation is not looked at.
        """
        counts = self.counts.setdefault(rule.name, MendCounts())
        counts.matched += 1
        other = self.swap(head, value)
        if other == value and not pins:
            return b""
        conversation = digest(head, *map(known_by, view.first))
        same = self.swap(conversation, value)
        before = same if same is not None else other
        if before is not None and before != value:
            counts.changed += 1
            counts.spared += (costs().conversation if same is not None else costs().head) // TOKEN
        return conversation


def known_by(text: str) -> bytes:
    """What tells a text from others that stand in the same place, without going through all of it."""
    ends = text if len(text) <= 2 * ENDS else f"{len(text)} {text[:ENDS]} {text[-ENDS:]}"
    return ends.encode("utf-8", "replace")


def mend(view: View, rules: Sequence[StabilizeRule], memory: Memory, scope: bytes) -> tuple[str, ...]:
    """Apply the rules to a body; the names of those that changed it. `scope`: whose conversations these are."""
    return tuple(rule.name for rule in rules if one(rule, view, memory, scope))


def one(rule: StabilizeRule, view: View, memory: Memory, scope: bytes) -> bool:
    """Apply one rule; whether it changed the body."""
    changed = (mend_tools if rule.do.endswith("tools") else mend_lines)(rule, view, memory, scope)
    if changed:
        memory.counts[rule.name].mended += 1
    return changed


# lines of the system text


def mend_lines(rule: StabilizeRule, view: View, memory: Memory, scope: bytes) -> bool:
    """Move, pin or drop the lines that a rule is for."""
    if not view.may_have(longest_piece(rule.line), system=True):
        return False
    found = {place: spans for place, text in view.system.items() if (spans := spans_of(rule.line, text))}
    if not found:
        return False
    values = tuple(view.system[place][start:end] for place, spans in found.items() for start, end in spans)
    rest = {place: without(text, found.get(place, ())) for place, text in view.system.items()}
    head = digest(scope, rule.name.encode(), *map(known_by, rest.values()))
    pins = rule.do == "pin" and rule.mode == "on"
    value, costs = digest(*map(known_by, values)), partial(costs_of, rule, view, found)
    conversation = memory.note(rule, view, head=head, value=value, costs=costs, pins=pins)
    if rule.mode != "on":
        return False
    if rule.do == "pin":
        rest = pinned(view.system, found, values, memory.pinned(conversation, values))
    elif rule.do == "move":
        last = next(reversed(rest))
        rest[last] = "\n".join((*filter(None, (rest[last],)), *values))
    changes = {place: text for place, text in rest.items() if text != view.system[place]}
    if changes:
        view.write(changes)
    return bool(changes)


def spans_of(pattern: str, text: str) -> Spans:
    """Where the lines stand that a rule is for."""
    return tuple(islice(lines(pattern, text), MOST_LINES))


def without(text: str, spans: Spans) -> str:
    """A text without some of its lines."""
    kept, at = list[str](), 0
    for start, end in spans:
        kept.append(text[at:start])
        at = min(end + 1, len(text))
    whole = "".join((*kept, text[at:]))
    return whole.removesuffix("\n") if spans and spans[-1][1] == len(text) else whole


def pinned(
    system: Mapping[Place, str], found: Mapping[Place, Spans], values: Sequence[str], kept: Sequence[str]
) -> dict[Place, str]:
    """The system texts with the lines that the conversation began with; as they are if it has more or fewer now."""
    if len(values) != len(kept):
        return dict(system)
    texts, left = dict(system), iter(kept)
    for place, spans in found.items():
        pieces, at = list[str](), 0
        for start, end in spans:
            pieces += (system[place][at:start], next(left))
            at = end
        texts[place] = "".join((*pieces, system[place][at:]))
    return texts


def costs_of(rule: StabilizeRule, view: View, found: Mapping[Place, Spans]) -> Costs:
    """What is evaluated anew if the first of these lines changes."""
    first, spans = next(iter(found.items()))
    places = list(view.system)
    after = len(view.system[first]) - spans[0][1] + sum(
        len(view.system[place]) for place in places[places.index(first) + 1 :]
    )  # fmt: skip
    if rule.do == "move":  # what the line goes to the end of is all that it spares
        return Costs(after, after)
    before = sum(len(view.system[place]) for place in places) - after
    return Costs(max(0, len(view.body.raw) - before), after + len(view.raw("tools")))


# tools


class Named(msgspec.Struct):
    """A tool's name, wherever its dialect has it."""

    name: str = ""
    type: str = ""
    function: Named | None = None


NAMED = msgspec.json.Decoder(Named)
VALUES = msgspec.json.Decoder(float_hook=lambda text: Raw(text.encode()))  # numbers stay as they were written


def mend_tools(rule: StabilizeRule, view: View, memory: Memory, scope: bytes) -> bool:
    """Put tools into an order, or their JSON into one form."""
    if not view.tools:
        return False
    raw = view.raw("tools")
    value = digest(rule.do.encode(), raw)
    form = memory.forms.get(value)
    if form is None:
        form = form_of(raw, rule)
        if len(raw) <= LONGEST_FORM:
            memory.keep_form(value, form)
    if not form.known:
        return False
    costs = Costs(len(raw) + len(view.raw(KEYS[view.dialect])), len(raw))
    memory.note(rule, view, head=digest(scope, rule.name.encode(), form.known), value=value, costs=lambda: costs)
    if rule.mode != "on" or form.raw is None:
        return False
    view.fields["tools"] = form.raw
    view.body.changed = True
    return True


def form_of(raw: bytes, rule: StabilizeRule) -> Form:
    """What a rule makes of tools."""
    none: list[Raw] = []
    tools = readable(lambda: few(ITEMS.decode(countable(Raw(raw)))), none)
    if not tools:
        return Form(b"", None)
    wanted = readable(lambda: (sorted_tools if rule.do == "sort_tools" else canonical)(tools), none)
    plain = [bytes(one) for one in wanted]
    changed = Raw(msgspec.json.encode(wanted)) if plain != [bytes(one) for one in tools] else None
    return Form(digest(*plain) if plain else b"", changed)


def sorted_tools(tools: Sequence[Raw]) -> list[Raw]:
    """Tools by name; a mark that says that a prefix ends with the last one moves to the one that is last now."""
    *others, last = tools
    fields = FIELDS.decode(last) if b"cache_control" in bytes(last) else {}
    mark = fields.pop("cache_control", None)
    found = sorted([*others, Raw(msgspec.json.encode(fields)) if mark is not None else last], key=name_of)
    if mark is not None:
        found[-1] = Raw(msgspec.json.encode(FIELDS.decode(found[-1]) | {"cache_control": mark}))
    return found


def name_of(tool: Raw) -> str:
    """What a tool is called; one without a name by its type."""
    named = NAMED.decode(tool)
    return (named.function or named).name or named.name or named.type


def canonical(tools: Sequence[Raw]) -> list[Raw]:
    """Tools as JSON with sorted keys and no blanks."""
    values: list[Json] = [VALUES.decode(tool) for tool in tools]
    return [Raw(msgspec.json.encode(value, order="sorted")) for value in values]


def digest(*parts: bytes) -> bytes:
    """One key of several parts, none of which can look like the end of another one."""
    lengths = b",".join([b"%d" % len(part) for part in parts])
    return hashlib.blake2b(b"".join((lengths, b";", *parts)), digest_size=16).digest()
