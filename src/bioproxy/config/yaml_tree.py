"""YAML into the tree: PyYAML's composer gives nodes with marks, and we decide what a scalar is.

PyYAML reads YAML 1.1, where `off` is False, `1:30` is ninety and `010` is eight. Here a plain scalar keeps its text
(`Node.raw`) for keys that want a word, numbers are decimal or say so (0x1F), and anything else is text. Anchors,
aliases and merge keys (`<<`) work. A tree that aliases blow up, or that contains itself, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from bioproxy.config.tree import DEPTH_LIMIT, BrokenSyntax, Fault, Node, Parsed, join, twice

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NODE_LIMIT = 100_000  # "billion laughs": nine lines of aliases make 10**9 values
TAG = "tag:yaml.org,2002:"
TAGS = {TAG + name for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")}
TRUE, FALSE, NULL = {"true", "yes", "on"}, {"false", "no", "off"}, {"", "~", "null"}
INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,300}|[1-9][0-9]{0,2}(?:_[0-9]{3}){1,100}|0x[0-9a-fA-F]{1,200})")
FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")


def parse_yaml(text: str) -> Parsed:
    """Read one YAML document; broken syntax gives no root and one fault, a key that stands twice a fault each."""
    reader = _Reader()
    try:
        root = yaml.compose(text, Loader=LOADER)
        return Parsed(None if root is None else reader.value(root, "", ()), tuple(reader.faults))
    except BrokenSyntax as broken:
        return Parsed(None, (*reader.faults, broken.fault))
    except yaml.YAMLError as error:
        return Parsed(None, (_syntax_fault(error, text),))
    except RecursionError:
        return Parsed(None, (Fault(1, f"not valid YAML: nested deeper than {DEPTH_LIMIT} levels"),))


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
    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.count = 0

    def value(self, node: yaml.Node, path: str, above: tuple[int, ...]) -> Node:
        """One node of the composer's tree; `above` holds the identities of the nodes around it."""
        line = node.start_mark.line + 1
        self.count += 1
        if id(node) in above:
            raise BrokenSyntax(line, "an alias stands inside the very value that it names")
        if self.count > NODE_LIMIT or len(above) > DEPTH_LIMIT:
            raise BrokenSyntax(
                line, f"more than {NODE_LIMIT} values or {DEPTH_LIMIT} levels: too many aliases of aliases?"
            )
        if node.tag not in TAGS:
            self.faults.append(Fault(line, f"the tag {node.tag.replace(TAG, '!!')} is unknown here", path))
        above = (*above, id(node))
        if isinstance(node, MappingNode):
            return Node(self.mapping(node, path, above), line)
        if isinstance(node, SequenceNode):
            items = (self.value(item, f"{path}[{index}]", above) for index, item in enumerate(node.value))
            return Node(tuple(items), line)
        assert isinstance(node, ScalarNode)
        return self.scalar(node, line)

    def mapping(self, node: MappingNode, path: str, above: tuple[int, ...]) -> dict[str, Node]:
        members: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == TAG + "merge":
                for mapping in self.merges(value_node):
                    merged = {**self.mapping(mapping, path, (*above, id(mapping))), **merged}
                continue
            key = self.key(key_node)
            member = self.value(value_node, join(path, key), above)
            if key in members:
                self.faults.append(twice(join(path, key), line=line, first=members[key].line))
            else:
                members[key] = Node(member.value, line, member.raw)
        return {**merged, **members}

    def merges(self, node: yaml.Node) -> Iterator[MappingNode]:
        for part in node.value if isinstance(node, SequenceNode) else [node]:
            if not isinstance(part, MappingNode):
                raise BrokenSyntax(part.start_mark.line + 1, "what << takes in must be a mapping or a list of mappings")
            yield part

    def key(self, node: yaml.Node) -> str:
        if not isinstance(node, ScalarNode):
            raise BrokenSyntax(node.start_mark.line + 1, "a key must be a text")
        return str(node.value)

    def scalar(self, node: ScalarNode, line: int) -> Node:
        text = str(node.value)
        return Node(text, line) if node.style in {"'", '"', "|", ">"} else Node(plain(text), line, text)


def plain(text: str) -> str | int | float | bool | None:
    """What a scalar without quotes is: true, false, nothing, a number, else its text."""
    word = text.lower()
    if word in NULL:
        return None
    if word in TRUE or word in FALSE:
        return word in TRUE
    if INTEGER.fullmatch(text):
        return int(text, 0)
    return float(text) if FLOAT.fullmatch(text) else text
