"""`bioproxy status` and `bioproxy warm`: ask the program that runs, through its admin port.

`status` says in a screenful what `/status` says in two hundred lines; `--json` prints those. `warm` asks for a warm-up
and shows how far it is until it is done: the program goes on by itself if the command is interrupted.

One engine and many models answer alike but for the lines at the top: a model says of itself what a program with one
engine says of that (`parts`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from bioproxy.cli.client import Client
from bioproxy.cli.command import Command
from bioproxy.cli.models import LOG_FOLLOWS, model_colour
from bioproxy.cli.output import Colour, Output, Progress, count, duration, size
from bioproxy.errors import BioproxyError

Json: TypeAlias = Any
Target: TypeAlias = Mapping[str, Json]

PERIOD = 0.25  # seconds between looks at a warm-up
UNDER_WAY = {"waiting", "warming"}
NO_ENGINE = "there is no engine"
GOOD = {"saved", "warm", "ready", "ok"}
COLOURS: dict[str, Colour] = {"saved": "green", "warm": "green", "failed": "red", "too long": "red", "warming": "cyan"}
MODELS = ("model", "state", "since", "running", "waiting", "resident", "snapshots", "load", "cache back in")
WARMUPS = ("prefix", "head", "tokens", "evaluated", "took", "state")


def status(command: Command) -> int:
    """Print what the running program does; 0 if requests are served, 1 if they would not be."""
    output, answer = command.output, command.client().get("/status")
    many = "models" in answer
    served = not answer["pause"] and (many or answer["engine"]["state"] == "ready")  # a model is started when asked for
    code = 0 if served else 1
    if output.json:
        output.document(answer)
        return code
    if answer["pause"]:
        output.line(output.paint(pause_text(answer["pause"], time.time()), "yellow"))
    for name, text in summary_of_models(answer) if many else summary(answer):
        output.line(f"{output.paint(name.ljust(10), 'bold')} {text}")
    if many and answer["models"]:
        output.line()
        rows = [model_row(one, time.time()) for one in answer["models"]]
        output.table(MODELS, rows, right=(2, 3, 4, 6, 7, 8), colours=model_colour)
    if found := targets(answer):
        output.line()
        columns, right = (("model", *WARMUPS), (3, 4, 5)) if many else (WARMUPS, (2, 3, 4))
        output.table(columns, [target_row(each) for each in found], right=right, colours=state_colour)
    for note in notes(answer):
        output.note(output.paint(f"note: {note}", "yellow"))
    return code


def pause_text(pause: Json, now: float) -> str:
    """Since when it is paused, and how long still."""
    left = "until `bioproxy resume`" if pause["until"] is None else f"for another {duration(pause['until'] - now)}"
    return f"paused for {duration(now - pause['since'])} so far, {left}: requests are refused"


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
        *keys_text(answer["keys"]),
        *clients_text(answer["clients"]),
    ]


def summary_of_models(answer: Json) -> list[tuple[str, str]]:
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
    return [*lines, *keys_text(answer["keys"]), *clients_text(answer["clients"])]


def keys_text(keys: Json) -> Iterator[tuple[str, str]]:
    """What API keys used today, as far as they may not use any number of tokens."""
    for one in keys:
        if one["left"] is not None:
            text = f"{one['key']}: {count(one['left'])} of {count(one['tokens_per_day'])} tokens left today"
            refused = one["today"]["refused"]
            yield "key", f"{text}, {count(refused)} requests refused" if refused else text


def clients_text(clients: Json) -> Iterator[tuple[str, str]]:
    """What rules about clients did: requests beside conversations, and prompts that change."""
    for name, one in clients["side"].items():
        done = [f"{count(one[word])} {word}" for word in ("refused", "rerouted") if one[word]]
        kept = [f"{count(one['kept'])} tokens of conversations kept"] if one["kept"] else []
        yield "side", ", ".join((f"{name}: {count(one['matched'])} requests", *done, *kept))
    for name, one in clients["stabilize"].items():
        spared = f"about {count(one['spared'])} tokens {'spared' if one['mended'] else 'would be spared'}"
        yield "prompts", f"{name}: {count(one['matched'])} requests, {count(one['changed'])} changed, {spared}"


def shelf_text(shelf: Json) -> str:
    return f"{count(shelf['snapshots'])} with {size(shelf['bytes'])} of {size(shelf['budget'])} in {shelf['directory']}"


def selector_text(one: Json) -> str:
    """A selector, its targets, and how busy they are by it."""
    targets = ", ".join(f"{name} ({one['busy'][name]})" if name in one["busy"] else name for name in one["targets"])
    return f"{one['selector']} ({one['strategy']}): {targets}"


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
    """How much is on disk, and whether it is used; `engine` is its state: the folder is known once it answered."""
    if not kv["directory"]:
        why = kv["reason"] or "; ".join(kv["notes"])
        if not why and kv["policy"] != "off" and engine != "ready":
            return "nothing is known while " + (NO_ENGINE if engine == "absent" else f"the engine is {engine}")
        return f"none: {why or 'policy ' + kv['policy']}"
    text = f"{count(kv['snapshots'])} with {size(kv['bytes'])} of {size(kv['budget'])} in {kv['directory']}"
    return f"{text}; saving is paused: {kv['reason']}" if kv["paused"] else text


def slot_text(slot: Json) -> str:
    if not slot["tokens"]:
        return str(slot["state"])
    what = f"{slot['state']} {slot['prefix']}".rstrip()
    return f"{what}, {count(slot['tokens'])} tokens, {'saved' if slot['saved'] else 'not saved'}"


def model_row(one: Json, now: float) -> tuple[str, ...]:
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


def target_row(target: Json) -> tuple[str, ...]:
    """One prompt prefix in the table; among many models with its model before it."""
    took = duration(target["seconds"]) if target["seconds"] else "-"
    return (
        *((target["model"],) if "model" in target else ()),
        target["prefix"] or "-",
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


def parts(answer: Json) -> list[Json]:
    """Every model, or the program itself, which says of its one engine what a model says."""
    found: list[Json] = answer.get("models", [answer])
    return found


def targets(answer: Json, *, ready: bool = False) -> list[Target]:
    """The warm-ups; of many models each with its model, of those that ever ran or only of those that are `ready`."""
    if "models" not in answer:
        return list(answer["warmup"]["targets"])
    models = [one for one in answer["models"] if (one["state"] == "ready" if ready else one["schedule"]["starts"])]
    return by_model({one["model"]: one["warmup"]["targets"] for one in models})


def by_model(found: Mapping[str, Iterable[Target]]) -> list[Target]:
    """Warm-ups by model as a list, each with its model."""
    return [{"model": model, **target} for model, each in found.items() for target in each]


def notes(answer: Json) -> list[str]:
    """What an operator should know: of the program and its configuration, of each engine, of templates."""
    config = answer["config"]
    found = [*answer["notes"], *config["warnings"]]
    if late := config.get("late"):
        found.append(f"changed in the configuration, and in force after a restart: {', '.join(late)}")
    for part in parts(answer):
        facts = (part["engine"] or {}).get("facts") or {}
        said = [*part["kv"]["notes"], *facts.get("capabilities", {}).get("notes", [])]
        found += [f"{part['model']}: {text}" for text in (*said, *troubles(part))] if "model" in part else said
    found += faults(answer["templates"])
    if config["reload_error"]:
        found.append(f"the last reload failed: {config['reload_error']}")
    return list(dict.fromkeys(str(one) for one in found))


def troubles(model: Json) -> list[str]:
    """What keeps one of many models from doing its work."""
    schedule, found = model["schedule"], []
    if model["kv"]["paused"]:
        found.append(f"saving is paused: {model['kv']['reason']}")
    if schedule["reason"] and model["state"] == "failed":
        found.append(schedule["reason"].strip().partition("\n")[0].removesuffix(LOG_FOLLOWS))
    return found + faults(model["templates"])


def faults(templates: Iterable[Json]) -> list[str]:
    return [f"{each['prefix']}: {each['last_error']}" for each in templates if each["state"] == "fault"]


def warm(command: Command) -> int:
    """Ask for a warm-up, and wait for its end unless told not to; 1 if it failed."""
    output, client = command.output, command.client(changes=True)
    prefix, wait = command.arguments.prefix, not command.arguments.no_wait
    answer = client.warm(prefix)["warmup"]
    found: Sequence[Target] = by_model(answer) if isinstance(answer, dict) else answer
    if wait and found:
        found = follow(output, client, prefix)
    if output.json:
        output.document(found)
    elif not found:
        output.line(f"no model that has {prefix} is loaded; it is warmed up when one is")
    else:
        for target in found:
            model = f"{target['model']}: " if "model" in target else ""
            output.line(f"{model}{prefix} ({target['head']}): {target['text']}{figures(target)}")
    return 0 if all(target["state"] in GOOD | (set() if wait else UNDER_WAY) for target in found) else 1


def figures(target: Json) -> str:
    if not target["evaluated"]:
        return ""
    return f", {count(target['evaluated'])} of {count(target['total'])} tokens in {duration(target['seconds'])}"


def follow(output: Output, client: Client, prefix: str) -> list[Target]:
    """Show how far the warm-up of `prefix` is until nothing of it is under way; its targets then."""
    with Progress(output, f"warming {prefix}") as progress:
        while True:
            answer = client.get("/status")
            many = "models" in answer
            found = [each for each in targets(answer, ready=True) if each["prefix"] == prefix]
            if not found and not many:
                raise BioproxyError(f"the prefix {prefix} is not configured any more")
            if not any(each["state"] in UNDER_WAY for each in found):
                progress.update(*done(found))
                return found
            if many or answer["engine"]["state"] == "ready":
                progress.update(*done(found))
            else:
                progress.say(f"waiting for the engine, which is {answer['engine']['state']}")
            time.sleep(PERIOD)


def done(found: Sequence[Target]) -> tuple[int, int, str]:
    """Tokens done, tokens in all, and both in words."""
    so_far, total = sum(each["done"] for each in found), sum(each["total"] for each in found)
    return so_far, total, f"{count(so_far)} of {count(total)} tokens" if total else "waiting for its turn"
