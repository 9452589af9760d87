"""`bioproxy snapshots list|verify|pin|unpin|delete|prune`: the KV cache on disk, for people.

`list` asks the running program, because only it knows which snapshots its engine can use; without one it reads what
stands beside the slot files. `verify` has the running program read them, every byte, because it knows what is in use
and does not use what is damaged; without one the command reads them itself, and never writes. A file of an older
version has no checksum yet: of that one the command can only compare samples.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

import msgspec

from bioproxy.cli.client import Client
from bioproxy.cli.command import Command
from bioproxy.cli.output import Colour, Output, count, duration, size
from bioproxy.config.load import Loaded
from bioproxy.errors import BioproxyError
from bioproxy.kv.folder import Verified, examine_all
from bioproxy.kv.statistics import SnapshotStatistics

Json: TypeAlias = Any
COLUMNS = (
    "snapshot", "of", "tokens", "size", "spares", "age", "last use", "uses", "spared", "pinned", "not used because",
)  # fmt: skip
ROUTES = {
    "pin": ("PUT", "/pin", "pinned"),
    "unpin": ("DELETE", "/pin", "not pinned"),
    "delete": ("DELETE", "", "deleted"),
}


def run(command: Command) -> int:
    """List, verify or change; 1 if a file is damaged. BioproxyError if there is neither a program nor a folder."""
    output, arguments = command.output, command.arguments
    if arguments.action == "prune":
        from bioproxy.cli.prune import prune

        return prune(command)
    if arguments.key or arguments.older:
        raise BioproxyError(f"--key and --older are for `snapshots prune`, not for `{arguments.action}`")
    if bool(arguments.name) != (arguments.action in ROUTES):
        raise BioproxyError(
            f"`snapshots {arguments.action}` takes {'no name' if arguments.name else 'the name or id of one'}"
        )
    if arguments.action in ROUTES:
        method, rest, done = ROUTES[arguments.action]
        command.client(changes=True).patient().send(method, f"/api/snapshots/{quote(arguments.name, safe='')}{rest}")
        output.line(f"{arguments.name} is {done}", "green")
        return 0
    client = command.client()
    status = ask(client)
    if arguments.action == "verify":
        if status is not None:
            return check(output, verified(client.patient(), status["snapshots"]))
        return check(output, [of_file(one) for one in examine_all(folder_of(command.load()))])
    if status is None:
        rows = [row_of_file(one) for one in examine_all(folder_of(command.load()), whole=False)]
    else:
        rows = msgspec.convert(status["snapshots"], list[SnapshotStatistics])
    return show(output, rows)


def ask(client: Client) -> Json | None:
    """`/status` of the running program; None if none answers."""
    try:
        return client.get("/status")
    except BioproxyError as error:
        if error.status != 502:  # it answers, and refuses
            raise
        return None


def folder_of(loaded: Loaded) -> Path:
    """The snapshot folder that the configuration tells."""
    config = loaded.config
    folder = config.kv.directory
    if not folder and (config.model or loaded.dialect is not None):
        folder = loaded.slot_folder
    if not folder:
        raise BioproxyError(
            "no snapshot folder is known: no bioproxy answers on the admin port (or it has none), and kv.directory is "
            "not set; name it with -kv-directory FOLDER"
        )
    return Path(folder)


def row_of_file(one: Verified) -> SnapshotStatistics:
    """What a file's description says, if no program runs that knows more."""
    fields = msgspec.structs.asdict(one.snapshot)
    names = [name for name in SnapshotStatistics.__struct_fields__ if name in fields]
    known = {name: fields[name] for name in names}
    return SnapshotStatistics(name=one.snapshot.name, bytes=one.snapshot.size, unused=one.fault, **known)


def show(output: Output, rows: Sequence[SnapshotStatistics]) -> int:
    if output.json:
        output.document(rows)
        return 0
    if not rows:
        output.line("no snapshots")
        return 0
    now = time.time()
    output.table(COLUMNS, [row(one, now) for one in rows], right=(2, 3, 4, 5, 6, 7, 8), colours=bad)
    output.line(f"{count(len(rows))} in all, {size(sum(one.bytes for one in rows))}", "dim")
    return 0


def row(one: SnapshotStatistics, now: float) -> tuple[str, ...]:
    """One snapshot in the list: whose it is, what it weighs, what it is worth."""
    of = f"template {one.prefix}" if one.template else f"conversation {one.prefix}".rstrip()
    of = f"head {one.head}" if one.head else of
    return (
        one.id,
        f"{of} ({one.group})" if one.group else of,
        count(one.tokens),
        size(one.bytes),
        duration(one.seconds),
        duration(max(0.0, now - one.created)),
        duration(max(0.0, now - one.used)) if one.uses else "never",
        count(one.uses),
        duration(one.gained) if one.uses else "-",
        "pinned" if one.pinned else "",
        one.unused,
    )


def bad(cells: Sequence[str]) -> Colour:
    """What is not used is yellow."""
    return "yellow" if cells[-1] else ""


class Checked(NamedTuple):
    """One snapshot, what is wrong with it, and what was compared if nothing is."""

    id: str
    name: str
    bytes: int
    fault: str
    whole: str = "whole"


def verified(client: Client, rows: Sequence[Json]) -> list[Checked]:
    """Have the program read one file after the other; one that goes meanwhile is left out."""
    found = []
    for row in sorted(rows, key=lambda row: -int(row["bytes"])):
        try:
            told = client.post(f"/api/snapshots/{quote(row['name'], safe='')}/verify")
        except BioproxyError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
        else:
            found.append(Checked(row["id"], row["name"], row["bytes"], told["fault"]))
    return found


def of_file(one: Verified) -> Checked:
    snapshot = one.snapshot
    return Checked(snapshot.id, snapshot.name, snapshot.size, one.fault, wholeness(one))


def check(output: Output, found: Sequence[Checked]) -> int:
    """The result of reading every file."""
    broken = [one for one in found if one.fault]
    if output.json:
        output.document([{"name": one.name, "bytes": one.bytes, "fault": one.fault} for one in found])
        return 1 if broken else 0
    rows = [(one.id, size(one.bytes), one.fault or one.whole) for one in found]
    if rows:
        output.table(("snapshot", "size", "result"), rows, right=(1,), colours=lambda cells: result_colour(cells[-1]))
    text = f"{count(len(found) - len(broken))} of {count(len(found))} snapshots are whole"
    output.line(text, "red" if broken else "green")
    return 1 if broken else 0


def wholeness(one: Verified) -> str:
    """What was compared of a file in which nothing is wrong."""
    return "whole" if one.snapshot.checksum is not None else "samples are whole; no checksum until it is used"


def result_colour(result: str) -> Colour:
    """Whole is green."""
    return "green" if result.startswith(("whole", "samples")) else "red"
