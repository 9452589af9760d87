"""YAML into the tree: PyYAML gives events with marks, and we decide what a scalar is.

PyYAML reads YAML 1.1, where `off` is False, `1:30` is ninety and `010` is eight. Here a plain scalar keeps its text
(`Node.raw`) for keys that want a word, numbers are decimal or say so (0x1F), and anything else is text. Anchors,
aliases and merge keys (`<<`) work. An alias counts as all that it stands for: a tree that aliases blow up is refused
as soon as it passes the limit, and so is one that contains itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import yaml
from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from bioproxy.config.tree import (
    DEPTH_LIMIT,
    NODE_LIMIT,
    TOO_DEEP,
    TOO_MANY,
    BrokenSyntax,
    Fault,
    Node,
    Parsed,
    join,
    plain,
    twice,
)

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TAG = "tag:yaml.org,2002:"
TAGS = {TAG + name for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")}
QUOTED = {"'", '"', "|", ">"}


def parse_yaml(text: str) -> Parsed:
    """Read one YAML document; broken syntax gives no root and one fault, a key that stands twice a fault each."""
    reader = _Reader(text)
    try:
        return Parsed(reader.document(), tuple(reader.faults), reader.count)
    except BrokenSyntax as broken:
        return Parsed(None, (*reader.faults, broken.fault))
    except yaml.YAMLError as error:
        return Parsed(None, (_syntax_fault(error, text),))
    except RecursionError:
        return Parsed(None, (Fault(1, f"not valid YAML: {TOO_DEEP}"),))


def _syntax_fault(error: yaml.YAMLError, text: str) -> Fault:
    mark = getattr(error, "problem_mark", None)
    if mark is None:  # the reader's error: a character that may not stand in YAML at all
        position = getattr(error, "position", 0)
        return Fault(text.count("\n", 0, position) + 1, f"not valid YAML: {getattr(error, 'reason', error)}")
    lines = text.split("\n")
    line = min(mark.line, len(lines) - 1)
    said = getattr(error, "problem", None) or getattr(error, "context", None) or str(error)
    return Fault(line + 1, f"not valid YAML: {_hint(lines[line], mark.column) or said}")


def _hint(line: str, column: int) -> str:
    """A sentence for the mistakes that prefixes invite: `@code: file` and tabs."""
    character = line[column : column + 1]
    if character in {"@", "`", "%", "!", "&", "*"}:
        word = re.split(r":(?:\s|$)|[\s,}\]]", line[column:], maxsplit=1)[0]
        return f'a text that begins with {character} must stand in quotes: write "{word}"'
    if "\t" in line[: column + 1]:
        return "a tab stands in this line; YAML is indented with blanks only"
    return ""


class _Reader:
    """Makes nodes of the parser's events, one document; ends at the first node that is too many."""

    def __init__(self, text: str) -> None:
        self.events: Iterator[Any] = yaml.parse(text, Loader=LOADER)
        self.faults: list[Fault] = []
        self.count = 0
        self.deepest = 0
        self.anchors: dict[str, _Anchored | None] = {}  # None: it is being read

    def document(self) -> Node | None:
        """The one document of the text; None if there is nothing."""
        next(self.events)  # the stream's beginning
        if isinstance(next(self.events), StreamEndEvent):
            return None
        root = self.value(next(self.events), "", 0)
        next(self.events)
        if not isinstance(further := next(self.events), StreamEndEvent):
            line = further.start_mark.line + 1
            raise BrokenSyntax(
                line, "not valid YAML: another document begins here, and a configuration is one document"
            )
        return root

    def value(self, event: Any, path: str, depth: int) -> Node:
        """The node that begins with `event`."""
        if isinstance(event, AliasEvent):
            return self.alias(event, depth)
        line = event.start_mark.line + 1
        before, outside, self.deepest = self.count, self.deepest, depth
        self.counted(1, depth, line)
        if event.anchor:
            self.anchors[event.anchor] = None
        if event.tag and event.tag not in TAGS:
            self.faults.append(Fault(line, f"the tag {event.tag.replace(TAG, '!!')} is unknown here", path))
        node = self.inside(event, path, depth, line)
        if event.anchor:
            self.anchors[event.anchor] = _Anchored(node, self.count - before, self.deepest - depth)
        self.deepest = max(outside, self.deepest)
        return node

    def inside(self, event: Any, path: str, depth: int, line: int) -> Node:
        """A mapping, a list or a scalar."""
        if isinstance(event, MappingStartEvent):
            return Node(self.mapping(path, depth), line)
        if isinstance(event, SequenceStartEvent):
            return Node(tuple(self.items(path, depth)), line)
        text = str(event.value)
        return Node(text, line) if event.style in QUOTED else Node(plain(text), line, text)

    def counted(self, size: int, depth: int, line: int) -> None:
        """Count `size` values, the deepest of them at `depth`."""
        self.count += size
        self.deepest = max(self.deepest, depth)
        if depth > DEPTH_LIMIT:
            raise BrokenSyntax(line, f"not valid YAML: {TOO_DEEP}")
        if self.count > NODE_LIMIT:  # "billion laughs": nine lines of aliases make 10**9 values
            aliases = " (too many aliases of aliases?)" if self.anchors else ""
            raise BrokenSyntax(line, f"{TOO_MANY}{aliases}")

    def alias(self, event: Any, depth: int) -> Node:
        """What an alias stands for; it counts with all that is in it."""
        line = event.start_mark.line + 1
        if event.anchor not in self.anchors:
            raise BrokenSyntax(
                line, f'not valid YAML: a text that begins with * must stand in quotes: write "*{event.anchor}"'
            )
        found = self.anchors[event.anchor]
        if found is None:
            raise BrokenSyntax(line, "an alias stands inside the very value that it names")
        self.counted(found.size, depth + found.height, line)
        return found.node

    def items(self, path: str, depth: int) -> Iterator[Node]:
        """The items of a list."""
        place = 0
        while not isinstance(event := next(self.events), SequenceEndEvent):
            yield self.value(event, f"{path}[{place}]", depth + 1)
            place += 1

    def mapping(self, path: str, depth: int) -> dict[str, Node]:
        """The members of a mapping; what is written wins over what is merged in, an earlier one over a later."""
        members: dict[str, Node] = {}
        merged: list[dict[str, Node]] = []
        while not isinstance(event := next(self.events), MappingEndEvent):
            line = event.start_mark.line + 1
            if is_merge(event):
                merged += self.merges(next(self.events), path, depth)
                continue
            key = self.key(event, path, depth)
            member = self.value(next(self.events), join(path, key), depth + 1)
            if key in members:
                self.faults.append(twice(join(path, key), line=line, first=members[key].line))
            else:
                members[key] = Node(member.value, line, member.raw)
        whole: dict[str, Node] = {}
        for mapping in (*reversed(merged), members):
            whole.update(mapping)
        return whole

    def merges(self, event: Any, path: str, depth: int) -> Iterator[dict[str, Node]]:
        """What << takes into a mapping at `depth`: a mapping, or a list of them."""
        known = self.anchors.get(event.anchor or "") if isinstance(event, AliasEvent) else None
        several = isinstance(event, SequenceStartEvent) or (known is not None and isinstance(known.node.value, tuple))
        node = self.value(event, path, depth - several)
        for part in node.value if isinstance(node.value, tuple) else (node,):
            if not isinstance(part.value, dict):
                raise BrokenSyntax(part.line, "what << takes in must be a mapping or a list of mappings")
            yield part.value

    def key(self, event: Any, path: str, depth: int) -> str:
        """A key, which may be an alias of a text."""
        found = self.value(event, path, depth + 1)
        if isinstance(found.value, dict | tuple):
            raise BrokenSyntax(event.start_mark.line + 1, "a key must be a text")
        return found.raw if found.value is None else found.raw or str(found.value)


class _Anchored(msgspec.Struct, frozen=True):
    """A value with a name; how many values it is, and how many levels are in it."""

    node: Node
    size: int
    height: int


def is_merge(event: Any) -> bool:
    """Whether a key is `<<`."""
    if not isinstance(event, ScalarEvent):
        return False
    return event.tag == f"{TAG}merge" or (event.value == "<<" and event.style not in QUOTED and not event.tag)
