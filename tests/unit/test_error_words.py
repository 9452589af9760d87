"""What errors that say nothing, as time-outs do, are called in a log line or a message."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import bioproxy
from bioproxy.errors import RequestError, in_words

SOURCE = Path(bioproxy.__file__).parent
MUTE = {"TimeoutError", "CancelledError", "Exception", "BaseException"}  # these may say nothing


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RequestError("no such thing"), "no such thing"),
        (TimeoutError(), "there was no answer in time"),
        (TimeoutError("the disk is slow"), "the disk is slow"),
        (asyncio.CancelledError(), "CancelledError"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_an_error_is_never_nothing(error: BaseException, text: str) -> None:
    """Its own words, else what it is."""
    assert in_words(error) == text
    assert in_words(TimeoutError(), late="it was busy") == "it was busy"


def mute_words(tree: ast.Module) -> Iterator[int]:
    """Lines that put an error which may say nothing into a text, or a log, as it stands."""
    for handler in ast.walk(tree):
        if not isinstance(handler, ast.ExceptHandler) or handler.type is None or handler.name is None:
            continue
        caught = {one.id for one in ast.walk(handler.type) if isinstance(one, ast.Name)}
        caught |= {one.attr for one in ast.walk(handler.type) if isinstance(one, ast.Attribute)}
        if not caught & MUTE:
            continue
        for node in ast.walk(handler):
            for part in parts(node):
                if isinstance(part, ast.Name) and part.id == handler.name:
                    yield part.lineno


def parts(node: ast.AST) -> list[ast.expr]:
    """What a node makes a text of."""
    if isinstance(node, ast.FormattedValue) and node.conversion == -1:
        return [node.value]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str":
        return node.args
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        of_log = isinstance(node.func.value, ast.Name) and node.func.value.id == "log"
        return node.args if of_log else []
    return []


def test_no_line_ends_with_nothing() -> None:
    """Whoever catches an error that may say nothing asks `in_words` for its words."""
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line in mute_words(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []
