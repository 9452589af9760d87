"""Scalars as llama-swap sees them: what a plain word is, how a number looks inside of a text, how names sort.

llama-swap decodes YAML 1.2: `yes` and `off` are texts unless a key wants true or false. Our tree took them for
booleans and kept the word beside (`Node.raw`).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, TypeAlias

from bioproxy.config.tree import Node

Json: TypeAlias = Any
Scalar: TypeAlias = str | int | float | bool

PARTS = re.compile(r"[0-9]+|.", re.DOTALL)
DURATION = re.compile(r"[-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+")
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def scalar(node: Node) -> Scalar | None:
    """The value of a node that is neither list nor mapping."""
    value = node.value
    assert not isinstance(value, dict | tuple)
    return node.raw if isinstance(value, bool) and node.raw and node.raw.lower() not in {"true", "false"} else value


def builtins(node: Node) -> Json:
    """A whole tree as dicts, lists and scalars."""
    match node.value:
        case dict():
            return {key: builtins(child) for key, child in node.value.items()}
        case tuple():
            return [builtins(child) for child in node.value]
        case _:
            return scalar(node)


def write_scalar(value: Scalar | None) -> str:
    """A scalar inside of a text, as Go prints it: true, 4096, 0.7, 1e+06; nothing is the empty text."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return _write_float(value)
        case _:
            return str(value)


def _write_float(value: float) -> str:
    """Shortest digits; an exponent where it is less than -4 or more than 5."""
    exact = Decimal(repr(value)).normalize()
    if not exact:
        return "0"
    exponent = exact.adjusted()
    if -4 <= exponent < 6:
        return format(exact, "f")
    sign, digits, _ = exact.as_tuple()
    mantissa = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if len(digits) > 1 else "")
    return f"{'-' if sign else ''}{mantissa}e{exponent:+03d}"


def natural(name: str) -> tuple[tuple[int, int, int], ...]:
    """The sort key of names in YAML that Go wrote: signs before numbers before letters, numbers by their value."""
    return tuple(
        (1, int(part), len(part)) if part.isascii() and part.isdigit() else (2 if part.isalpha() else 0, ord(part), 0)
        for part in PARTS.findall(name)
    )


def read_duration(text: str) -> float:
    """Seconds from "5s" or "1m30s"; ValueError if it is no such duration."""
    if text == "0":
        return 0.0
    if not DURATION.fullmatch(text):
        raise ValueError("expected a duration such as 5s or 1m30s")
    parts = re.findall(r"([0-9.]+)([a-zµμ]+)", text)
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    return -total if text.startswith("-") else total


def write_duration(seconds: float) -> str:
    """A duration as Go prints it: 0s, 500ms, 4.9s, 1m30s, 1h0m0s."""
    if abs(seconds) < 1:
        value = next(((seconds / UNITS[unit], unit) for unit in ("ms", "µs") if abs(seconds) >= UNITS[unit]), None)
        return (
            f"{write_scalar(round(value[0], 6))}{value[1]}"
            if value
            else f"{write_scalar(round(seconds * 1e9))}ns"
            if seconds
            else "0s"
        )
    sign, rest = ("-" if seconds < 0 else ""), round(abs(seconds), 9)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    head = f"{int(hours)}h{int(minutes)}m" if hours else f"{int(minutes)}m" if minutes else ""
    return f"{sign}{head}{write_scalar(round(rest, 9))}s"
