"""Durations and sizes as people write them: "1h30m", "500ms", "20GiB", "500MB"; bare numbers are seconds and bytes.

Reading and writing belong together: what `write_seconds` and `write_bytes` print, `read_seconds` and `read_bytes` take
back as the same value, so that the output of `bioproxy config` can be pasted into a file. A text that is no duration or
size raises ValueError with a sentence that says what would be one; `convert.py` adds its place.
"""

from __future__ import annotations

import math
import re

SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}  # longest first: so they are written
BYTES = {
    "TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10,
    "TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1,
}  # fmt: skip
EXACT = float(1 << 53)  # from here on a float has no unit digit left to split into days and hours

NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|\.[0-9]+")
PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-zµ]+)\s*")
DURATION_WORDS = {
    "sec": "s", "secs": "s", "second": "s", "seconds": "s", "min": "m", "mins": "m", "minute": "m", "minutes": "m",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h", "day": "d", "days": "d",
}  # fmt: skip

DURATION_HINT = "a duration such as 500ms, 30s, 10m or 1h30m (a bare number is seconds)"
SIZE_HINT = "a size such as 500MB or 20GiB (a bare number is bytes)"


def read_seconds(text: str) -> float:
    """Seconds from "30s", "1h30m", "2d", "500ms" or a bare number; ValueError says what is wrong with it."""
    text = text.strip()
    if NUMBER.fullmatch(text):
        return float(text)
    total, position = 0.0, 0
    while position < len(text):
        part = PART.match(text, position)
        if part is None:
            raise ValueError(f"expected {DURATION_HINT}")
        total += float(part[1]) * _seconds_per(part[2])
        position = part.end()
    if not position:
        raise ValueError(f"expected {DURATION_HINT}")
    return total


def _seconds_per(unit: str) -> float:
    if unit in SECONDS:
        return SECONDS[unit]
    known = DURATION_WORDS.get(unit.lower(), unit.lower())
    near = f'write "{known}" instead of "{unit}"' if known in SECONDS else "the units are ms, s, m, h and d"
    raise ValueError(f"expected {DURATION_HINT}; {near}")


def read_bytes(text: str) -> int:
    """Bytes from "20GiB" (powers of 1024), "500MB" (powers of 1000) or a bare number; ValueError says what is wrong."""
    text = text.strip()
    if NUMBER.fullmatch(text):
        return _whole(float(text) if not text.isdigit() else int(text))
    part = PART.fullmatch(text)
    if part is None:
        raise ValueError(f"expected {SIZE_HINT}")
    return _whole(_multiply(part[1], _bytes_per(part[2])))


def _multiply(number: str, factor: int) -> int | float:
    return int(number) * factor if number.isdigit() else float(number) * factor


def _whole(value: float) -> int:
    if not math.isfinite(value):
        raise ValueError(f"expected {SIZE_HINT}, not a number beyond all bounds")
    return round(value)


def _bytes_per(unit: str) -> int:
    for name, factor in BYTES.items():
        if name.lower() == unit.lower():
            return factor
    letter = unit[0].upper()
    if unit.upper() in {"K", "M", "G", "T"}:  # 1000 or 1024? Programs differ, and it is 7 % at G: we do not guess
        raise ValueError(f'expected {SIZE_HINT}; write "{letter}iB" (powers of 1024) or "{letter}B" (of 1000)')
    raise ValueError(f"expected {SIZE_HINT}; the units are B, KB, MB, GB, TB and KiB, MiB, GiB, TiB")


def write_seconds(value: float) -> str:
    """The shortest exact writing of a duration: 90 → "1m30s", 0.25 → "250ms", 0.1234567 → "0.1234567s", 0 → "0s"."""
    if not value.is_integer() or value >= EXACT:
        milliseconds = value * 1000
        if milliseconds.is_integer() and value < 1 and milliseconds * 0.001 == value:
            return f"{int(milliseconds)}ms"
        return repr(value) if "e" in repr(value) else f"{value!r}s"
    rest, parts = int(value), ""
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, int(SECONDS[unit]))
        parts += f"{count}{unit}" if count else ""
    return parts or "0s"


def write_bytes(value: int) -> str:
    """The shortest exact writing of a size: 5368709120 → "5GiB", 500000000 → "500MB", 1025 → "1025"."""
    for unit, factor in BYTES.items():
        if factor > 1 and value and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)
