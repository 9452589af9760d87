"""`bioproxy status` and `bioproxy warm`: ask the program that runs, through its admin port.

`status` says in a screenful what `/status` says in two hundred lines; `--json` prints those. `warm` asks for a warm-up
and shows how far it is until it is done: the program goes on by itself if the command is interrupted. What is said of
many models and not of one engine stands in remote_fleet.py.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from bioproxy.cli import remote_fleet
from bioproxy.cli.client import Client
from bioproxy.cli.command import Command
from bioproxy.cli.output import Colour, Output, Progress, count, duration, size
from bioproxy.errors import BioproxyError

Json: TypeAlias = Any
PERIOD = 0.25  # seconds between looks at a warm-up
UNDER_WAY = {"waiting", "warming"}
NO_ENGINE = "there is no engine"
GOOD = {"saved", "warm", "ready", "ok"}
COLOURS: dict[str, Colour] = {"saved": "green", "warm": "green", "failed": "red", "too long": "red", "warming": "cyan"}


def status(command: Command) -> int:
    """Print what the running program does; 0 if requests are served, 1 if they would not be."""
    output, answer = command.output, command.client().get("/status")
    many = "models" in answer
    ready = many or answer["engine"]["state"] == "ready"  # models are started when they are asked for
    if output.json:
        output.document(answer)
        return 0 if ready else 1
    for name, text in remote_fleet.summary(answer) if many else summary(answer):
        output.line(f"{output.paint(name.ljust(10), 'bold')} {text}")
    if many:
        remote_fleet.tables(output, answer)
    targets = remote_fleet.targets(answer) if many else answer["warmup"]["targets"]
    if targets:
        output.line()
        columns = (*(("model",) if many else ()), "prefix", "head", "tokens", "evaluated", "took", "state")
        right = tuple(number + many for number in (2, 3, 4))
        output.table(columns, [target_row(each) for each in targets], right=right, colours=state_colour)
    for note in remote_fleet.notes(answer) if many else notes(answer):
        output.note(output.paint(f"note: {note}", "yellow"))
    return 0 if ready else 1


def summary(answer: Json) -> list[tuple[str, str]]:
    """The lines of `status`: a name, and a sentence or a few figures."""
    engine, gate, kv = answer["engine"], answer["gate"], answer["kv"]
    running, waiting = sum(gate["running"].values()), sum(gate["waiting"].values())
    return [
        ("bioproxy", f"{answer['version']}, up {duration(answer['uptime'])}, process {answer['pid']}"),
        ("engine", engine_text(engine)),
        ("gate", f"{running} running, {waiting} waiting of {count(gate['limit'])}, {count(gate['granted'])} served"),
        ("snapshots", snapshots_text(kv, engine["state"])),
        ("resident", ", ".join(slot_text(slot) for slot in kv["slots"]) or "nothing"),
    ]


def engine_text(engine: Json) -> str:
    """Where the engine is, what it is, and why it is not ready."""
    facts = engine.get("facts") or {}
    parts = [str(engine["url"]), str(engine["state"])]
    if facts:
        name = str(facts.get("alias") or facts.get("model_path", "")).rsplit("/", 1)[-1]
        parts += [name, f"build {facts.get('build') or 'unknown'}", f"context {count(facts.get('context'))}"]
    text = ", ".join(part for part in parts if part)
    return text if engine["state"] == "ready" else f"{text}: {engine['reason']}"


def snapshots_text(kv: Json, engine: str) -> str:
    """How much is on disk, and whether it is used; `engine` is its state, for the folder is known once it was met."""
    if not kv["directory"]:
        why = kv["reason"] or "; ".join(kv["notes"])
        if not why and kv["policy"] != "off" and engine != "ready":
            return "nothing is known while " + (NO_ENGINE if engine == "absent" else f"the engine is {engine}")
        return f"none: {why or 'policy ' + kv['policy']}"
    text = f"{count(kv['snapshots'])} with {size(kv['bytes'])} of {size(kv['budget'])} in {kv['directory']}"
    return f"{text}; saving is paused: {kv['reason']}" if kv["paused"] else text


def slot_text(slot: Json) -> str:
    """What one slot holds."""
    if not slot["tokens"]:
        return str(slot["state"])
    what = f"{slot['state']} {slot['prefix']}".rstrip()
    return f"{what}, {count(slot['tokens'])} tokens, {'saved' if slot['saved'] else 'not saved'}"


def target_row(target: Json) -> tuple[str, ...]:
    """One prompt prefix in the table; among many models with its model before it."""
    took = duration(target["seconds"]) if target["seconds"] else "-"
    return (
        *((target["model"],) if "model" in target else ()),
        target["prefix"],
        target["head"],
        count(target["total"]) if target["total"] else "-",
        count(target["evaluated"]) if target["total"] else "-",
        took,
        target["text"],
    )


def state_colour(row: Sequence[str]) -> Colour:
    """Good is green, bad is red."""
    state = row[-1].partition(":")[0]
    return COLOURS.get(state, COLOURS.get(state.split()[0], ""))


def notes(answer: Json) -> list[str]:
    """What an operator should know: of configuration, cache, engine and templates."""
    config, facts = answer["config"], answer["engine"].get("facts") or {}
    found = [*answer["notes"], *config["warnings"], *answer["kv"]["notes"]]
    found += facts.get("capabilities", {}).get("notes", [])
    found += [f"{each['prefix']}: {each['last_error']}" for each in answer["templates"] if each["state"] == "fault"]
    if config["reload_error"]:
        found.append(f"the last reload failed: {config['reload_error']}")
    return list(dict.fromkeys(str(one) for one in found))


def warm(command: Command) -> int:
    """Ask for a warm-up, and wait for its end unless told not to; 1 if it failed."""
    output, client = command.output, command.client()
    prefix, wait = command.arguments.prefix, not command.arguments.no_wait
    answer = client.warm(prefix)["warmup"]
    targets: Sequence[Mapping[str, Json]] = remote_fleet.by_model(answer) if isinstance(answer, dict) else answer
    if wait and targets:
        targets = follow(output, client, prefix)
    if output.json:
        output.document(targets)
    elif not targets:
        output.line(f"no model that has {prefix} is loaded; it is warmed up when one is")
    else:
        for target in targets:
            model = f"{target['model']}: " if "model" in target else ""
            output.line(f"{model}{prefix} ({target['head']}): {target['text']}{figures(target)}")
    return 0 if all(target["state"] in GOOD | (set() if wait else UNDER_WAY) for target in targets) else 1


def figures(target: Json) -> str:
    """What a warm-up cost."""
    if not target["evaluated"]:
        return ""
    return f", {count(target['evaluated'])} of {count(target['total'])} tokens in {duration(target['seconds'])}"


def follow(output: Output, client: Client, prefix: str) -> list[Mapping[str, Json]]:
    """Show how far the warm-up of `prefix` is until nothing of it is under way; its targets then."""
    with Progress(output, f"warming {prefix}") as progress:
        while True:
            answer = client.get("/status")
            many = "models" in answer
            known = remote_fleet.targets(answer, ready=True) if many else answer["warmup"]["targets"]
            targets: list[Mapping[str, Json]] = [each for each in known if each["prefix"] == prefix]
            if not targets and not many:
                raise BioproxyError(f"the prefix {prefix} is not configured any more")
            if not any(each["state"] in UNDER_WAY for each in targets):
                progress.update(*done(targets))
                return targets
            if many or answer["engine"]["state"] == "ready":
                progress.update(*done(targets))
            else:
                progress.say(f"waiting for the engine, which is {answer['engine']['state']}")
            time.sleep(PERIOD)


def done(targets: Sequence[Mapping[str, Json]]) -> tuple[int, int, str]:
    """Tokens done, tokens in all, and both in words."""
    so_far, total = sum(each["done"] for each in targets), sum(each["total"] for each in targets)
    return so_far, total, f"{count(so_far)} of {count(total)} tokens" if total else "waiting for its turn"
