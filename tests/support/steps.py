"""Counts what reading costs, in steps instead of seconds: lines, calls, steps of regular expressions.

A search of `re` is one line however long it takes, so while we count, the expressions of the modules
in question are replaced by ones that also count: they walk through the same tree that `re` compiles, as its engine
does, with every attempt that fails. What RE2 and msgspec do is linear by construction and counts as one step.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any

Next = Callable[[int], bool]
Node = tuple[Any, Any]
OPS: Any = vars(re)["_constants"]
PARSER: Any = vars(re)["_parser"]
MOST = 4_000_000  # calls; two seconds on a slow machine
OURS = "/src/bioproxy/"
DEEP = 100_000  # frames: a step of the walk is a call


def calls(work: Callable[[], object]) -> int:
    """How many calls of Python's functions `work` makes; AssertionError after `MOST`. One count may contain another."""
    count = 0
    outer = sys.getprofile()

    def note(frame: FrameType, event: Any, argument: Any) -> None:
        nonlocal count
        count += event == "call"
        if count > MOST:
            raise AssertionError("this does not end")
        if outer is not None:
            outer(frame, event, argument)

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(outer)
    return count


@contextmanager
def entered() -> Iterator[list[str]]:
    """Our functions that are called inside, as "kv/keeper.py:Keeper.want"; a coroutine that goes on counts again."""
    found: list[str] = []
    outer = sys.getprofile()

    def note(frame: FrameType, event: Any, argument: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and OURS in file:
            found.append(f"{file.rpartition(OURS)[2]}:{frame.f_code.co_qualname}")
        if outer is not None:
            outer(frame, event, argument)

    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(outer)


class Counter:
    """Steps so far."""

    def __init__(self) -> None:
        self.total = 0


class CountingPattern:
    """An expression that counts into `counter` what `re` needs for the same answer."""

    def __init__(self, pattern: re.Pattern[Any], counter: Counter) -> None:
        self.real = pattern
        self.counter = counter
        self.tree: list[Node] = list(PARSER.parse(pattern.pattern, pattern.flags))
        self.fold = bool(pattern.flags & re.IGNORECASE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def match(self, text: Any, pos: int = 0, *rest: int) -> Any:
        self.walk(text[: rest[0]] if rest else text, pos)
        return self.real.match(text, pos, *rest)

    def fullmatch(self, text: Any) -> Any:
        self.walk(text, 0, whole=True)
        return self.real.fullmatch(text)

    def search(self, text: Any, pos: int = 0, *rest: int) -> Any:
        self.seek(text[: rest[0]] if rest else text, pos)
        return self.real.search(text, pos, *rest)

    def finditer(self, text: Any) -> Iterator[Any]:
        place = 0
        for found in self.real.finditer(text):
            self.seek(text, place)
            yield found
            place = max(found.end(), place + 1)
        self.seek(text, place)

    def findall(self, text: Any) -> Any:
        list(self.finditer(text))
        return self.real.findall(text)

    def sub(self, replacement: Any, text: Any, count: int = 0) -> Any:
        list(self.finditer(text))
        return self.real.sub(replacement, text, count)

    def seek(self, text: Any, pos: int) -> None:
        """A search: an attempt at each place until one succeeds."""
        with untraced():
            attempt = Walk(text, self.counter, fold=self.fold).sequence(self.tree, lambda _at: True)
            for start in range(pos, len(text) + 1):
                if attempt(start):
                    return

    def walk(self, text: Any, start: int, *, whole: bool = False) -> None:
        """One attempt at one place."""
        with untraced():
            walk = Walk(text, self.counter, fold=self.fold)
            walk.sequence(self.tree, lambda at: not whole or at == len(text))(start)


class Walk:
    """A backtracking match of a parsed expression; every node that is tried at a place is a step."""

    def __init__(self, text: Any, counter: Counter, *, fold: bool) -> None:
        self.text = text
        self.counter = counter
        self.codes = list(text) if isinstance(text, bytes) else list(map(ord, text))
        self.fold = fold

    def sequence(self, nodes: list[Node], then: Next) -> Next:
        """Nodes one after the other, and then what follows."""
        for node in reversed(nodes):
            then = self.node(node, then)
        return then

    def node(self, node: Node, then: Next) -> Next:
        """One node and what follows."""
        op, value = node
        if op is OPS.MAX_REPEAT or op is OPS.MIN_REPEAT:
            return self.repeat(value, then, greedy=op is OPS.MAX_REPEAT)
        if op is OPS.BRANCH:
            ways = [self.sequence(list(way), then) for way in value[1]]
            return lambda at: self.step() and any(way(at) for way in ways)
        if op is OPS.SUBPATTERN:
            return self.sequence(list(value[3]), then)
        if op is OPS.ASSERT or op is OPS.ASSERT_NOT:
            inner = self.sequence(list(value[1]), lambda _at: True)
            return lambda at: self.step() and inner(at) is (op is OPS.ASSERT) and then(at)
        if op is OPS.AT:
            return lambda at: self.step() and self.at(value, at) and then(at)
        return lambda at: self.step() and self.fits(node, at) and then(at + 1)

    def repeat(self, value: Any, then: Next, *, greedy: bool) -> Next:
        """A repetition: as often as it goes and then less, or the other way round."""
        least, most, inner = value[0], value[1], list(value[2])
        limit = sys.maxsize if most is OPS.MAXREPEAT else most
        if len(inner) == 1 and inner[0][0] in {OPS.LITERAL, OPS.NOT_LITERAL, OPS.ANY, OPS.IN} and greedy:
            return lambda at: self.run(inner[0], at, least, limit, then)

        def again(at: int, done: int, before: int) -> bool:
            def more() -> bool:
                if done >= limit or at == before:
                    return False
                return self.sequence(inner, lambda end: again(end, done + 1, at))(at)

            self.step()
            if done < least:
                return more()
            return (more() or then(at)) if greedy else (then(at) or more())

        return lambda at: again(at, 0, -1)

    def run(self, node: Node, at: int, least: int, limit: int, then: Next) -> bool:
        """A repetition of one letter, without a call per letter."""
        end = at
        while end - at < limit and self.step() and self.fits(node, end):
            end += 1
        return any(self.step() and then(place) for place in range(end, at + least - 1, -1))

    def step(self) -> bool:
        """Count."""
        self.counter.total += 1
        return True

    def at(self, where: Any, at: int) -> bool:
        """Whether a place is the begin or the end."""
        if where in {OPS.AT_BEGINNING, OPS.AT_BEGINNING_STRING}:
            return at == 0
        assert where in {OPS.AT_END, OPS.AT_END_STRING}, f"{where}: not known here"
        return at == len(self.codes)

    def fits(self, node: Node, at: int) -> bool:
        """Whether one letter fits a node that stands for one."""
        if at >= len(self.codes):
            return False
        code = self.codes[at]
        return self.holds(node, code) or (
            self.fold and (self.holds(node, ord(chr(code).lower())) or self.holds(node, ord(chr(code).upper())))
        )

    def holds(self, node: Node, code: int) -> bool:
        """Whether a node that stands for one letter stands for this one."""
        op, value = node
        if op is OPS.LITERAL:
            return bool(code == value)
        if op is OPS.NOT_LITERAL:
            return bool(code != value)
        if op is OPS.ANY:
            return True
        if op is OPS.RANGE:
            return bool(value[0] <= code <= value[1])
        if op is OPS.CATEGORY:
            return bool(re.match(CATEGORIES[value], chr(code), re.ASCII))
        assert op is OPS.IN, f"{op}: not known here"
        negated = value[0][0] is OPS.NEGATE
        return any(self.holds(member, code) for member in value[negated:]) is not negated


CATEGORIES: dict[Any, str] = {
    OPS.CATEGORY_DIGIT: r"\d", OPS.CATEGORY_SPACE: r"\s", OPS.CATEGORY_NOT_SPACE: r"\S", OPS.CATEGORY_WORD: r"\w",
}  # fmt: skip


@contextmanager
def untraced() -> Iterator[None]:
    """What the walk itself costs is no step."""
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(trace)


@contextmanager
def counted(modules: list[ModuleType]) -> Iterator[Counter]:
    """Count what runs inside; the expressions of `modules` count, too."""
    counter = Counter()
    kept = [(module, name, value) for module in modules for name, value in vars(module).items() if is_pattern(value)]
    for module, name, value in kept:
        setattr(module, name, CountingPattern(value, counter))
    before = sys.gettrace(), sys.getrecursionlimit()
    sys.setrecursionlimit(DEEP)

    def trace(frame: FrameType, _event: str, _arg: object) -> Any:
        if frame.f_globals is globals():
            return None  # our own steps
        counter.total += 1
        return trace

    sys.settrace(trace)
    try:
        yield counter
    finally:
        sys.settrace(before[0])
        sys.setrecursionlimit(before[1])
        for module, name, value in kept:
            setattr(module, name, value)


def is_pattern(value: object) -> bool:
    """Whether a module's member is an expression of `re`."""
    return isinstance(value, re.Pattern)
