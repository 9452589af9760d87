"""`bioproxy snapshots prune`: remove many snapshots at once, chosen by key, age and model.

The running program lists them and deletes each one, because it knows what is in use; so this is a choice over its list
and nothing else. What somebody wants to keep is never chosen: a pin, a context, or a time that a key asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec

from bioproxy.cli.client import Client
from bioproxy.cli.command import Command
from bioproxy.cli.output import count, size
from bioproxy.config.load import Loaded
from bioproxy.config.units import read_seconds
from bioproxy.errors import BioproxyError
from bioproxy.keys import Keyring
from bioproxy.kv.budget import payer

Json: TypeAlias = Any
Test: TypeAlias = Callable[[Json], bool]
GONE, BUSY = 404, 409
NO_CHOICE = "say what is to go: `snapshots prune` takes --older TIME, --key NAME and --model MODEL"


def prune(command: Command) -> int:
    """Delete what was chosen. BioproxyError if nothing was, or no program answers."""
    output, arguments = command.output, command.arguments
    if arguments.name:
        raise BioproxyError("`snapshots prune` takes no name; `snapshots delete` does")
    chosen_model, bare = without_model(command)
    if not (arguments.key or arguments.older or chosen_model):
        raise BioproxyError(NO_CHOICE)
    loaded = bare.load()
    client = bare.client(changes=True).patient()
    rows = client.get("/api/snapshots")["snapshots"]
    tests = list(chosen_by(loaded, rows, key=arguments.key, older=arguments.older, model=chosen_model))
    fitting = [row for row in rows if all(test(row) for test in tests)]
    free = [row for row in fitting if not row["pinned"] and row["kept_until"] is None]
    deleted = [row for row in free if is_deleted(client, row["id"])]
    left = len(fitting) - len(deleted)
    if output.json:
        output.document({"deleted": deleted, "bytes": sum(row["bytes"] for row in deleted), "left": left})
        return 0
    output.line(f"{count(len(deleted))} deleted, {size(sum(row['bytes'] for row in deleted))}", "green")
    if left:
        output.note(f"{count(left)} more would fit, but are pinned, kept, or in use")
    return 0


def without_model(command: Command) -> tuple[str, Command]:
    """The model that `--model` chooses, which is a key of the configuration, too; and the command without it."""
    flags = command.flags
    values = {path: value for path, value in flags.values.items() if path != "model"}
    bare = msgspec.structs.replace(command, flags=msgspec.structs.replace(flags, values=values))
    return flags.values.get("model", ""), bare


def chosen_by(loaded: Loaded, rows: Sequence[Json], *, key: str, older: str, model: str) -> Iterable[Test]:
    """What must be true of a snapshot that goes; BioproxyError for a key or model that is none."""
    if key:
        groups = groups_of(loaded, key, {payer(row["group"]) for row in rows})
        yield lambda row: not row["template"] and payer(row["group"]) in groups
    if older:
        before = time.time() - read_seconds(older)
        yield lambda row: row["used"] < before
    if model:
        wanted = model_of(loaded, model)
        yield lambda row: row.get("model") == wanted or wanted in row["models"]


def groups_of(loaded: Loaded, name: str, left: Collection[str]) -> Collection[str]:
    """The groups of the keys with this name; or a group of keys, or of which snapshots are `left` after its key."""
    entries = loaded.config.api_keys
    keys = [one for _, one in Keyring(entries).principals.values()]
    if found := {one.group for one in keys if one.name == name}:
        return found
    groups = {*left, *(entry.group for entry in entries if not isinstance(entry, str))} - {""}
    if name not in groups:
        known = ", ".join(dict.fromkeys([*(one.name for one in keys), *sorted(groups)])) or "there are none"
        raise BioproxyError(f"no API key is called {name!r}, and no group of snapshots; the names: {known}")
    return {name}


def model_of(loaded: Loaded, name: str) -> str:
    """The ID of the model with this name or alias."""
    if loaded.dialect is None:
        raise BioproxyError("--model chooses among many models, and this configuration has one engine")
    found = loaded.dialect.aliases.get(name, name)
    if found not in loaded.dialect.models:
        raise BioproxyError(f"there is no model {name!r}; `bioproxy models` lists them")
    return found


def is_deleted(client: Client, name: str) -> bool:
    """Delete one; False if it is being read or written. One that went meanwhile is what was wanted."""
    try:
        client.send("DELETE", f"/api/snapshots/{quote(name, safe='')}")
    except BioproxyError as error:
        if error.status == BUSY:
            return False
        if error.status != GONE:
            raise
    return True
