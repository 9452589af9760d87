"""From method and path to what serves them.

Patterns are literal segments, `{name}` for one segment and `{name...}` for everything from there on. Literal paths are
one dictionary look-up; patterns are tried in the order of their number of literal segments, so the more exact
one wins, whatever the order of `add`. HEAD is served by what serves GET. Pure.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")
Parameters = dict[str, str]


class NotAllowed(msgspec.Struct, frozen=True):
    """The path is known and the method is not; `allow` is the value of the Allow header of a 405."""

    allow: str


class Pattern(msgspec.Struct, frozen=True):
    """A path with placeholders, split into its segments."""

    segments: tuple[str, ...]

    @property
    def literals(self) -> int:
        """How many segments are no placeholders; the more there are, the earlier it is tried."""
        return sum(not segment.startswith("{") for segment in self.segments)

    def read(self, parts: list[str]) -> Parameters | None:
        """The placeholders' values for a path's segments, or None if it does not fit."""
        found: Parameters = {}
        for index, segment in enumerate(self.segments):
            if segment.endswith("...}"):
                found[segment[1:-4]] = "/".join(parts[index:])
                return found if len(parts) > index else None
            if index >= len(parts) or (not segment.startswith("{") and segment != parts[index]):
                return None
            if segment.startswith("{"):
                if not parts[index]:
                    return None
                found[segment[1:-1]] = parts[index]
        return found if len(parts) == len(self.segments) else None


class Router(Generic[T]):
    """A table of routes; `find` ignores paths known for other methods only, `match` tells of them."""

    def __init__(self) -> None:
        self.exact: dict[str, dict[str, T]] = {}
        self.patterns: list[tuple[Pattern, dict[str, T]]] = []

    def add(self, method: str, pattern: str, value: T) -> None:
        """Serve `method` ("*": any) on `pattern` by `value`; ValueError if that is taken already."""
        if "{" not in pattern:
            methods = self.exact.setdefault(pattern, {})
        else:
            methods = self.methods_of(Pattern(tuple(pattern.split("/"))))
        if method in methods:
            raise ValueError(f"{method} {pattern} is served already")
        methods[method] = value

    def methods_of(self, pattern: Pattern) -> dict[str, T]:
        """The methods of a pattern; a new one is added in its place."""
        for known, methods in self.patterns:
            if known == pattern:
                return methods
        added: dict[str, T] = {}
        self.patterns.append((pattern, added))
        self.patterns.sort(key=lambda entry: -entry[0].literals)
        return added

    def match(self, method: str, path: str) -> tuple[T, Parameters] | NotAllowed | None:
        """What serves this request with its placeholders' values; None for an unknown path."""
        allowed: set[str] = set()
        for methods, parameters in self.candidates(path):
            for asked in (method, "GET" if method == "HEAD" else method, "*"):
                if asked in methods:
                    return methods[asked], parameters
            allowed.update(methods)
        if "GET" in allowed:
            allowed.add("HEAD")
        return NotAllowed(", ".join(sorted(allowed))) if allowed else None

    def find(self, method: str, path: str) -> tuple[T, Parameters] | None:
        """The same, but a path that is known only for other methods counts as unknown."""
        found = self.match(method, path)
        return None if isinstance(found, NotAllowed) else found

    def candidates(self, path: str) -> list[tuple[dict[str, T], Parameters]]:
        """All entries that the path fits, the most exact first."""
        found: list[tuple[dict[str, T], Parameters]] = []
        if path in self.exact:
            found.append((self.exact[path], {}))
        if self.patterns:
            parts = path.split("/")
            for pattern, methods in self.patterns:
                parameters = pattern.read(parts)
                if parameters is not None:
                    found.append((methods, parameters))
        return found
