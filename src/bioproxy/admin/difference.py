"""What is different between two looks at `/status`, and what of it one of several keys may see. Pure.

Both work on what `/status` is as JSON, so a new field needs no line here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

Json: TypeAlias = Any
Path: TypeAlias = list[str | int]

TICKING = frozenset({"uptime", "idle"})  # they grow with the clock alone


def difference(before: Json, now: Json) -> Iterator[tuple[Path, Json]]:
    """What to put where in `before` to make it `now`, but for what only grows with the clock.

    A list of another length, or an object with other names, is replaced whole.
    """
    if isinstance(now, dict) and isinstance(before, dict) and before.keys() == now.keys():
        parts: Iterator[tuple[str | int, Json, Json]] = (
            (name, before[name], value) for name, value in now.items() if name not in TICKING
        )
    elif isinstance(now, list | tuple) and isinstance(before, list | tuple) and len(before) == len(now):
        parts = ((index, old, new) for index, (old, new) in enumerate(zip(before, now, strict=True)))
    else:
        yield [], now
        return
    for name, old, new in parts:
        if old is not new and old != new:
            for path, value in difference(old, new):
                yield [name, *path], value


def reduced(status: Json) -> Json:
    """The status for one of several keys: without clients' names, conversations' snapshots, and refused pages."""
    snapshots = [one for one in status["snapshots"] if one["template"]]
    found = {**status, "refused_pages": {}, "keys": [], "snapshots": snapshots}
    if "models" in found:
        return found | {"models": [anonymous(model) for model in status["models"]]}
    return anonymous(found)


def anonymous(part: dict[str, Any]) -> dict[str, Any]:
    """One model's part of the status without the names of clients and groups, and without their heads."""
    kv, warmup = part["kv"], part["warmup"]
    slots = [slot | {"group": ""} for slot in kv["slots"]]
    targets = [target for target in warmup["targets"] if target["prefix"]]
    warmup = warmup | {"targets": targets, "heads": warmup["heads"] | {"plain": 0, "unstable": []}}
    return part | {"gate": part["gate"] | {"clients": []}, "kv": kv | {"slots": slots}, "warmup": warmup}
