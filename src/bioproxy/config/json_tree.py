"""JSON into the tree, with lines, and with sentences for the mistakes that people make in JSON files.

Scalars are read by the standard library's decoder; objects and lists are walked here, because the library tells neither
lines nor keys that stand twice. Strict JSON: NaN, comments and commas before a closing bracket are refused and named.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

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
    twice,
)

BLANKS = re.compile(r"[ \t\r\n]*")
HALF = re.compile("[\ud800-\udfff]")
CLOSING = {"{": "}", "[": "]"}


def parse_json(text: str) -> Parsed:
    """Read one JSON document; broken syntax gives no root and one fault, a key that stands twice a fault each."""
    reader = _Reader(text)
    try:
        root = reader.document()
    except BrokenSyntax as broken:
        return Parsed(None, (*reader.faults, broken.fault))
    return Parsed(root, tuple(reader.faults), reader.count)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.counted = 0, 1  # a position, and the line that it is in
        self.count = 0
        self.faults: list[Fault] = []
        self.scalars = json.JSONDecoder(parse_constant=_no_constant)

    def line(self, position: int) -> int:
        """The line of a position; counted on from the last that was asked for, or each would cost the whole text."""
        start, line = self.counted if position >= self.counted[0] else (0, 1)
        self.counted = position, line + self.text.count("\n", start, position)
        return self.counted[1]

    def peek(self) -> str:
        """Skip blanks; the next character, "" at the end."""
        match = BLANKS.match(self.text, self.position)
        self.position = match.end() if match else self.position
        return self.text[self.position : self.position + 1]

    def broken(self, message: str, position: int | None = None) -> BrokenSyntax:
        return BrokenSyntax(self.line(self.position if position is None else position), f"not valid JSON: {message}")

    def document(self) -> Node | None:
        if not self.peek():
            return None
        root = self.value("", 0)
        if rest := self.peek():
            raise self.broken(self.comment(rest) or "something follows after the end of the document")
        return root

    def value(self, path: str, depth: int) -> Node:
        self.count += 1
        if self.count > NODE_LIMIT:
            raise BrokenSyntax(self.line(self.position), TOO_MANY)
        match self.peek():
            case "{" | "[" if depth >= DEPTH_LIMIT:
                raise self.broken(TOO_DEEP)
            case "{":
                return self.mapping(path, depth)
            case "[":
                return self.sequence(path, depth)
            case character:
                return self.scalar(character)

    def scalar(self, character: str) -> Node:
        start = self.position
        try:
            value, self.position = self.scalars.raw_decode(self.text, start)
        except json.JSONDecodeError as error:
            raise self.broken(self.hint(character, error), error.pos) from error
        except ValueError as error:
            raise self.broken(str(error)) from error
        if isinstance(value, str) and HALF.search(value):
            raise self.broken("an escape such as \\ud83d is half a character; its other half is missing", start)
        return Node(value, self.line(start))

    def mapping(self, path: str, depth: int) -> Node:
        opened, first = self.position, self.line(self.position)
        members: dict[str, Node] = {}
        self.position += 1
        while self.another(opened, empty=not members):
            line = self.line(self.position)
            key = self.key()
            member = join(path, key)
            node = self.value(member, depth + 1)
            if key in members:
                self.faults.append(twice(member, line=line, first=members[key].line))
            else:
                members[key] = Node(node.value, line)
        return Node(members, first)

    def key(self) -> str:
        character = self.peek()
        if character != '"':
            raise self.broken(self.comment(character) or 'a key must stand in double quotes, as in "proxy_port": 8088')
        self.count += 1
        key = self.scalar(character).value
        if self.peek() != ":":
            raise self.broken(f'a colon is missing after the key "{key}"')
        self.position += 1
        return str(key)

    def sequence(self, path: str, depth: int) -> Node:
        opened, first = self.position, self.line(self.position)
        items: list[Node] = []
        self.position += 1
        while self.another(opened, empty=not items):
            items.append(self.value(f"{path}[{len(items)}]", depth + 1))
        return Node(tuple(items), first)

    def another(self, opened: int, *, empty: bool) -> bool:
        """Stand before the next member or item (True), or step over the closing bracket (False)."""
        closing = CLOSING[self.text[opened]]
        end = self.position
        character = self.peek()
        if character == closing:
            self.position += 1
            return False
        if empty and character:
            return True
        if character == ",":
            self.position += 1
            if self.peek() == closing:
                raise self.broken(f'there must be no comma before the closing "{closing}"')
            return True
        if not character:
            raise self.broken(f'the "{self.text[opened]}" that stands here is never closed', opened)
        raise self.broken(self.comment(character) or f'a comma or "{closing}" is missing after this line', end)

    def comment(self, character: str) -> str:
        if character in {"#", "/"}:
            return "JSON has no comments; a file named config.yaml may have them (and may hold this very text)"
        return ""

    def hint(self, character: str, error: json.JSONDecodeError) -> str:
        match character:
            case "":
                return "the file ends where a value is missing"
            case "'":
                return "texts stand in double quotes, not in single ones"
            case '"' if error.msg.startswith("Unterminated"):
                return "this text has no closing double quote"
            case '"' if error.msg.startswith("Invalid control"):
                return "a text must end in the line in which it begins: a double quote is missing"
            case '"' if error.msg.startswith("Invalid \\escape"):
                return "a backslash in a text is written twice: \\\\"
            case "," | "}" | "]":
                return "a value is missing here"
            case _:
                word = re.compile(r"[^\s,\]}]*").match(self.text, self.position)
                return (
                    self.comment(character)
                    or f"{word[0] if word else character} is no value; texts stand in double quotes"
                )
