"""What `bioproxy status` and `warm` make of a program with many models (admin/status.py, as JSON)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from bioproxy.cli.models import COLOURS, LOG_FOLLOWS
from bioproxy.cli.output import Output, count, duration, size

Json: TypeAlias = Any
Target: TypeAlias = Mapping[str, Json]

MODELS = ("model", "state", "since", "running", "waiting", "resident", "snapshots", "load", "cache back in")


def summary(answer: Json) -> list[tuple[str, str]]:
    """The lines of `status` before the table of models: a name, and a sentence or a few figures."""
    ready = sum(one["state"] == "ready" for one in answer["models"])
    lines = [
        ("bioproxy", f"{answer['version']}, up {duration(answer['uptime'])}, process {answer['pid']}"),
        ("config", ", ".join(answer["config"]["paths"]) or "none"),
        ("models", f"{ready} of {len(answer['models'])} ready"),
        ("requests", f"{answer['running']} hold a model, {answer['waiting']} wait for one"),
        *(("snapshots", shelf_text(shelf)) for shelf in answer["shelves"]),
    ]
    if answer["profiles"]["names"]:
        lines.append(("profile", answer["profiles"]["active"] or "none is active"))
    lines += [("peer", f"{one['peer']} at {one['url']}: {', '.join(one['models'])}") for one in answer["peers"]]
    lines += [("selector", selector_text(one)) for one in answer["selectors"]]
    return lines


def shelf_text(shelf: Json) -> str:
    """One snapshot folder."""
    return f"{count(shelf['snapshots'])} with {size(shelf['bytes'])} of {size(shelf['budget'])} in {shelf['directory']}"


def selector_text(one: Json) -> str:
    """A selector, its targets, and how busy they are by it."""
    targets = ", ".join(f"{name} ({one['busy'][name]})" if name in one["busy"] else name for name in one["targets"])
    return f"{one['selector']} ({one['strategy']}): {targets}"


def tables(output: Output, answer: Json) -> None:
    """The models."""
    if not answer["models"]:
        return
    now = time.time()
    rows = [row(one, now) for one in answer["models"]]
    output.line()
    output.table(MODELS, rows, right=(2, 3, 4, 6, 7, 8), colours=lambda cells: COLOURS.get(cells[1], "dim"))


def row(one: Json, now: float) -> tuple[str, ...]:
    """One model."""
    schedule, price = one["schedule"], one["price"]
    return (
        one["model"],
        one["state"] + (", closed" if one["closed"] else ""),
        duration(max(0.0, now - one["since"])) if schedule["starts"] else "-",
        str(schedule["running"]),
        str(schedule["waiting"]),
        resident(one["kv"]["slots"]) if price["tokens"] else "-",
        count(one["kv"]["snapshots"] or None),
        duration(schedule["load_seconds"]),
        duration(price["restore"]) if price["tokens"] else "-",
    )


def resident(slots: Sequence[Json]) -> str:
    """What the slots of a model hold."""
    held = [slot for slot in slots if slot["tokens"]]
    unsaved = sum(not slot["saved"] for slot in held)
    return f"{count(sum(slot['tokens'] for slot in held))} tokens" + (f", {unsaved} not saved" if unsaved else "")


def targets(answer: Json, *, ready: bool = False) -> list[Target]:
    """The warm-ups of models that ever ran, or only of those that are `ready`, each with its model."""
    models = [one for one in answer["models"] if (one["state"] == "ready" if ready else one["schedule"]["starts"])]
    return by_model({one["model"]: one["warmup"]["targets"] for one in models})


def by_model(found: Mapping[str, Iterable[Target]]) -> list[Target]:
    """Warm-ups by model as a list, each with its model."""
    return [{"model": model, **target} for model, each in found.items() for target in each]


def notes(answer: Json) -> list[str]:
    """What an operator should know: of the program and its configuration, of each model, of templates."""
    config = answer["config"]
    found = [*answer["notes"], *config["warnings"]]
    for one in answer["models"]:
        facts = (one["engine"] or {}).get("facts") or {}
        said = [*one["kv"]["notes"], *facts.get("capabilities", {}).get("notes", [])]
        if one["kv"]["paused"]:
            said.append(f"saving is paused: {one['kv']['reason']}")
        if one["schedule"]["reason"] and one["state"] == "failed":
            said.append(one["schedule"]["reason"].strip().partition("\n")[0].removesuffix(LOG_FOLLOWS))
        said += faults(one["templates"])
        found += [f"{one['model']}: {text}" for text in said]
    found += faults(answer["templates"])
    if config["reload_error"]:
        found.append(f"the last reload failed: {config['reload_error']}")
    return list(dict.fromkeys(str(one) for one in found))


def faults(templates: Iterable[Json]) -> list[str]:
    """Templates that cannot be read."""
    return [f"{each['prefix']}: {each['last_error']}" for each in templates if each["state"] == "fault"]
