"""The matrix's little language: which models may run together, as an expression.

    expr := and ('|' and)*          a | b      either
    and  := atom ('&' atom)*        a & b      both; binds tighter than |
    atom := NAME | '+' SET | '(' expr ')'      +x: whatever set x allows

An expression stands for a family of model sets. It is kept as a tree and never multiplied out: six places with ten
alternatives each are a million sets, but 60 leaves. `matrix.py` evaluates it against what runs now.

Names consist of letters, digits, `_`, `-` and `.`; a model whose ID has other characters needs a `vars` entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

DEPTH_LIMIT = 50  # parentheses in parentheses; ten are more than people write, and recursion has an end
OPERATORS = "&|()"
TOKEN = re.compile(r"\s+|(?P<operator>[&|()])|(?P<plus>\+)(?P<name>[\w.-]*)|(?P<alone>[\w.-]+)")


class Leaf(msgspec.Struct, frozen=True):
    """A name that stands for one model, or with `reference` for another set."""

    name: str
    reference: bool = False


class Branch(msgspec.Struct, frozen=True):
    """Two or more parts: `all` of them at once, or `any` one of them."""

    kind: Literal["all", "any"]
    parts: tuple[Leaf | Branch, ...]


Node = Leaf | Branch


class ExpressionError(Exception):
    """The expression cannot be read; the sentence says what is wrong and at which character (counted from 0)."""


class Token(msgspec.Struct, frozen=True):
    """One piece of an expression: an operator, a name, or a `+name`; "" is the end."""

    text: str
    position: int
    reference: bool = False

    @property
    def is_name(self) -> bool:
        return self.reference or (bool(self.text) and self.text not in OPERATORS)


def tokens(text: str) -> Iterator[Token]:
    """The tokens of `text`, the end last."""
    at = 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise ExpressionError(f"unexpected character '{text[at]}' at position {at}")
        if found["plus"] and not found["name"]:
            raise ExpressionError(f"expected set name after '+' at position {found.end()}")
        if word := found["operator"] or found["alone"] or found["name"]:
            yield Token(word, at, bool(found["plus"]))
        at = found.end()
    yield Token("", len(text))


def parse(text: str) -> Node:
    """Read one expression; raises ExpressionError."""
    if not text.strip():
        raise ExpressionError("empty DSL expression")
    reader = Reader(list(tokens(text)))
    node = reader.alternatives()
    reader.expect_end()
    return node


class Reader:
    """Reads tokens by recursive descent; one method per line of the grammar."""

    def __init__(self, found: list[Token]) -> None:
        self.tokens = found
        self.at = 0
        self.depth = 0

    def next_is(self, text: str) -> bool:
        """Take the next token if it is the operator `text`."""
        token = self.tokens[self.at]
        if token.text != text or token.is_name:
            return False
        self.at += 1
        return True

    def alternatives(self) -> Node:
        """Expr: parts between `|`."""
        parts = [self.conjunction()]
        while self.next_is("|"):
            parts.append(self.conjunction())
        return parts[0] if len(parts) == 1 else Branch("any", tuple(parts))

    def conjunction(self) -> Node:
        """And: atoms between `&`."""
        parts = [self.atom()]
        while self.next_is("&"):
            parts.append(self.atom())
        return parts[0] if len(parts) == 1 else Branch("all", tuple(parts))

    def atom(self) -> Node:
        """Read a name, a reference or a parenthesis."""
        token = self.tokens[self.at]
        if token.is_name:
            self.at += 1
            return Leaf(token.text, token.reference)
        if not self.next_is("("):
            raise unexpected(token)
        self.depth += 1
        if self.depth > DEPTH_LIMIT:
            raise ExpressionError(f"more than {DEPTH_LIMIT} parentheses in one another at position {token.position}")
        node = self.alternatives()
        self.depth -= 1
        if not self.next_is(")"):
            raise ExpressionError(f"missing closing parenthesis at position {self.tokens[self.at].position}")
        return node

    def expect_end(self) -> None:
        """Nothing may follow a whole expression."""
        token = self.tokens[self.at]
        if token.text:
            raise unexpected(token)


def unexpected(token: Token) -> ExpressionError:
    """A token that cannot stand where it does."""
    what = f"'{token.text}'" if token.text else "end of expression"
    return ExpressionError(f"unexpected token {what} at position {token.position}")


def leaves(node: Node) -> Iterator[Leaf]:
    """All names and references of `node`, in order."""
    if isinstance(node, Leaf):
        yield node
    else:
        for part in node.parts:
            yield from leaves(part)
