"""An earlier prompt and a later one: what changed, where, and how much of it had to be evaluated again for that.

`compare` looks at two prompts alone. Whether the cache still held what they share is another question (verdict.py).

What counts is the normal form of a prompt (templates/messages.py): what a client moves about and no chat template shows
(`cache_control`, a string that becomes one part) is no change. The first difference in the order of the normal form
decides: model, template arguments, system messages, tools, messages. A chat template may print the tools first;
`changed` has all that changed, so whoever needs another order can choose.

Expanded templates are compared as the engine gets them, because that is what it evaluates; the place is then looked for
in what the client sent, and if nothing differs there, the template was edited. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from bioproxy.activity import Cause, Place
from bioproxy.doctor.units import Unit, json_of, place_of, tool_name, units
from bioproxy.errors import NOT_JSON
from bioproxy.prompt import Head, Piece, common
from bioproxy.templates.bodies import Dialect, Fields
from bioproxy.templates.dialect_heads import ASIDE
from bioproxy.templates.messages import KEYS

Shapes: TypeAlias = Callable[[str, bytes], bool | None]  # whether a field with this value shapes prompts; None: unknown

LONGEST_FIELD = 512  # bytes of a field's value that are kept; of a longer one its length and both ends
IN_UNITS = frozenset({"system", "instructions", "tools", "lora", "model", *KEYS.values()})  # compared as such
OURS = frozenset({"stream", "stream_options"})  # how the answer comes
BESIDE = ASIDE - IN_UNITS - OURS
CHANGED: Mapping[str, Cause] = {
    "lora": "model_changed",
    "system": "system_changed",
    "tool": "tools_changed",
    "message": "message_changed",
    "prompt": "message_changed",
}
KINDS = tuple(CHANGED)


class Prompt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One prompt as it was sent.

    `pieces` as the engine got them; `sent` the same before templates were filled in, () if none was. `arguments`: the
    fields that a chat template may look at, by name; `aside`: those that none hears of; both as JSON. `engine`: the
    fingerprint of what computed it; `day`: what the chat template prints beside it. `body`: what the engine got, if it
    is kept. `tokens`: its length by the engine's count; 0: not known.
    """

    pieces: tuple[Piece, ...] = ()
    sent: tuple[bytes, ...] = ()
    arguments: dict[str, bytes] = {}
    aside: dict[str, bytes] = {}
    dialect: Dialect = "chat"
    model: str = ""
    engine: str = ""
    group: str = ""
    prefix: str = ""
    version: str = ""
    day: str = ""
    body: bytes = b""
    tokens: int = 0

    @property
    def size(self) -> int:
        """Bytes of the normal form."""
        return sum(len(piece.data) for piece in self.pieces)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What changed from an earlier prompt to a later one; `cause` is the first of `changed`, if anything did.

    `fields` changed and do not shape the prompt, `arguments` do, or may. `shared`: bytes of the normal form that both
    begin with, of `size` in the later one; `repeated`: bytes after these that the earlier prompt had, too, so that they
    are evaluated again. `compacted`: the client shortened the conversation.
    """

    cause: Cause
    changed: tuple[Cause, ...] = ()
    place: Place | None = None
    fields: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    note: str = ""
    shared: int = 0
    repeated: int = 0
    size: int = 0
    compacted: bool = False


def arguments_of(head: Head | None) -> dict[str, bytes]:
    """The fields of a request that its chat template may look at."""
    return head.values if head is not None and (head.extra or head.kwargs) else {}


def aside_of(fields: Fields) -> dict[str, bytes]:
    """The fields of a body that no chat template hears of; a copy, because a Raw holds all of its body."""
    return {name: brief(bytes(value)) for name, value in fields.items() if name in BESIDE}


def brief(value: bytes) -> bytes:
    """A field's value, or enough of it to tell that it changed."""
    if len(value) <= LONGEST_FIELD:
        return value
    return b"%d bytes: %b ... %b" % (len(value), value[: LONGEST_FIELD // 2], value[-LONGEST_FIELD // 2 :])


def unknown(_name: str, _value: bytes) -> bool | None:
    """What a field does to prompts, if no engine was asked."""
    return None


def compare(earlier: Prompt, later: Prompt, *, shapes: Shapes = unknown) -> Difference:
    """What changed; `shapes` says of a field whether it shapes the engine's prompts."""
    if not (earlier.pieces and later.pieces):
        return Difference(cause="not_comparable", note="one of the two has no messages that could be compared")
    fields, arguments = changed_fields(earlier, later, shapes)
    found = differing(earlier, later)
    changed: list[Cause] = []
    notes = [found.note] if found.note else []
    if (earlier.model, earlier.engine) != (later.model, later.engine):
        changed.append("model_changed")
        notes.insert(0, model_note(earlier, later))
    if earlier.group != later.group:
        changed.append("group_changed")
    if arguments or earlier.day != later.day:
        changed.append("arguments_changed")
        notes += [f"changed: {', '.join(arguments)}"] if arguments else []
        notes += ["the chat template prints another date"] if earlier.day != later.day else []
    changed += [cause for cause in found.changed if cause not in changed]
    cause = changed[0] if changed else "field_changed" if fields else "grown"
    if cause == "grown":
        return found
    return msgspec.structs.replace(
        found, cause=cause, changed=tuple(changed), fields=fields, arguments=arguments, note="; ".join(notes)
    )


def model_note(earlier: Prompt, later: Prompt) -> str:
    if earlier.model != later.model:
        return f"the earlier one went to {earlier.model}"
    return "the model was started with another file, or with other arguments that shape its cache"


def changed_fields(earlier: Prompt, later: Prompt, shapes: Shapes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the fields that changed: those that do not shape the prompt, and those that do or may."""
    if earlier.aside == later.aside and earlier.arguments == later.arguments:
        return (), ()
    aside = [
        name for name in sorted({*earlier.aside, *later.aside}) if earlier.aside.get(name) != later.aside.get(name)
    ]
    arguments: list[str] = []
    for name in sorted({*earlier.arguments, *later.arguments}):
        values = [prompt.arguments[name] for prompt in (earlier, later) if name in prompt.arguments]
        if len(values) == 1 or values[0] != values[1]:
            harmless = all(shapes(name, value) is False for value in values)
            (aside if harmless else arguments).append(name)
    return tuple(sorted(aside)), tuple(arguments)


def differing(earlier: Prompt, later: Prompt) -> Difference:
    """What differs in the pieces; the cause is `grown` if the later ones only go on, or end early."""
    first = equal_pieces(earlier.pieces, later.pieces)
    if first == min(len(earlier.pieces), len(later.pieces)):  # as nearly always
        size = later.size
        shared = size if first == len(later.pieces) else earlier.size
        return Difference(cause="grown", shared=shared, size=size)
    before, after = units(earlier.pieces[first:]), units(later.pieces[first:])
    number = next((at for at, pair in enumerate(zip(before, after, strict=False)) if not alike(*pair)), None)
    start = sum(len(piece.data) for piece in later.pieces[:first])
    if number is None:
        shared = start + sum(len(unit.data) for unit in after[: len(before)])
        return Difference(cause="grown", shared=shared, size=later.size)
    one, other = before[number], after[number]
    at = common(one.data, other.data) if one.kind == other.kind else 0
    known = Difference(
        cause="grown",
        shared=start + sum(len(unit.data) for unit in after[:number]) + at,
        repeated=again(before, after, number, at),
        size=later.size,
        compacted=len(later.pieces) < len(earlier.pieces),
    )
    if one.kind == other.kind == "prompt" and at == len(one.data):
        return known
    at_piece = first + number - (len(after) - (len(later.pieces) - first))  # a head is one piece, and many units
    if one.kind == other.kind == "prompt" or (at_piece > 0 and differs_at(earlier.pieces, later.pieces, at_piece)):
        return in_message(earlier, later, at_piece, known)
    found = in_head(before, after, number, known)
    turned = equal_pieces(earlier.pieces[1:], later.pieces[1:]) + 1 < min(len(earlier.pieces), len(later.pieces))
    if turned and "message_changed" not in found.changed:
        return msgspec.structs.replace(found, changed=(*found.changed, "message_changed"))
    return found


def differs_at(earlier: Sequence[Piece], later: Sequence[Piece], number: int) -> bool:
    """Whether this piece is where two prompts differ; else it is something in the head, which has many units."""
    return equal_pieces(earlier[1:], later[1:]) + 1 == number < len(earlier)


def equal_pieces(earlier: Sequence[Piece], later: Sequence[Piece]) -> int:
    """How many leading pieces are equal."""
    count = 0
    for one, other in zip(earlier, later, strict=False):
        if one.data != other.data:
            break
        count += 1
    return count


def alike(one: Unit, other: Unit) -> bool:
    """Whether two units render to the same text: blanks between the members of a tool do not count."""
    if one.kind != other.kind:
        return False
    return one.data == other.data or (one.kind == "tool" and compact(one.data) == compact(other.data))


def compact(data: bytes) -> bytes:
    """JSON without blanks, its keys in their order."""
    try:
        return msgspec.json.format(data, indent=-1)
    except NOT_JSON:
        return data


def again(before: Sequence[Unit], after: Sequence[Unit], number: int, at: int) -> int:
    """Bytes after a difference that the earlier prompt had, too: `number` is the unit that differs, `at` its byte."""
    had = {unit.data for unit in before}
    one, other = before[number].data, after[number].data
    most = min(len(one), len(other)) - at if before[number].kind == after[number].kind else 0
    end = common(one[len(one) - most :][::-1], other[len(other) - most :][::-1])
    if other in had:
        end = len(other) - at
    return end + sum(len(unit.data) for unit in after[number + 1 :] if unit.data in had)


def in_message(earlier: Prompt, later: Prompt, number: int, known: Difference) -> Difference:
    """The message of piece `number` differs: in what the client sent, or in the template that was filled in."""
    one, other = (units(prompt.pieces[number : number + 1])[-1] for prompt in (earlier, later))
    edited = earlier.prefix == later.prefix and earlier.version != later.version
    if earlier.sent or later.sent:
        was, now = (
            prompt.sent[number] if prompt.sent else unit.data for prompt, unit in ((earlier, one), (later, other))
        )
        edited = was == now
        if not edited:
            one, other = Unit(one.kind, one.label, was), Unit(other.kind, other.label, now)
    note = f"template {later.prefix or earlier.prefix}" if edited else ""
    changed: tuple[Cause, ...] = ("template_edited" if edited else "message_changed",)
    return msgspec.structs.replace(known, changed=changed, place=place_of(one, other), note=note)


def in_head(before: Sequence[Unit], after: Sequence[Unit], number: int, known: Difference) -> Difference:
    """Something before the first user message differs: what comes first there decides."""
    one, other = before[number], after[number]
    kind = min(one.kind, other.kind, key=KINDS.index)
    place = place_of(one if one.kind == kind else None, other if other.kind == kind else None)
    changed = [CHANGED[kind]]
    note = ""
    if (was := tools_of(before)) != (now := tools_of(after)):
        changed += [] if kind == "tool" else ["tools_changed"]
        note = tools_note(was, now)
    return msgspec.structs.replace(known, changed=tuple(changed), place=place, note=note)


def tools_of(all_units: Sequence[Unit]) -> list[bytes]:
    return [compact(unit.data) for unit in all_units if unit.kind == "tool"]


def tools_note(before: Sequence[bytes], after: Sequence[bytes]) -> str:
    """What changed among the tools, in words."""
    if sorted(before) == sorted(after):
        return "the same tools in another order"
    was, now = (list(map(tool_name, tools)) for tools in (before, after))
    added = [name for name in now if name not in was]
    gone = [name for name in was if name not in now]
    told = [f"{len(names)} {word}: {', '.join(names[:3])}" for names, word in ((added, "new"), (gone, "gone")) if names]
    if told:
        return f"tools, {'; '.join(told)}"
    moved = next((name for name, one, other in zip(now, before, after, strict=False) if rearranged(one, other)), "")
    return f"the keys of tool {moved} stand in another order" if moved else ""


def rearranged(one: bytes, other: bytes) -> bool:
    """Whether two JSON values are the same but for the order of keys."""
    return one != other and json_of(one) == json_of(other)
