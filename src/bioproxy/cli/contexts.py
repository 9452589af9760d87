"""`bioproxy contexts list|keep|rename|export|import|delete`: what requests left, kept under a name.

All of it is the running program's to do. A file is written and read here, piece by piece: an export under another name
until it is whole, an import as the tar file that an export is, of which nothing counts before its last byte.
"""

from __future__ import annotations

import os
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.parse import quote

import msgspec

from bioproxy import files
from bioproxy.cli.client import Client
from bioproxy.cli.command import Command
from bioproxy.cli.logs import writer
from bioproxy.cli.output import Colour, Output, Progress, count, duration, size
from bioproxy.cli.verbs import STDOUT
from bioproxy.errors import BioproxyError

Json: TypeAlias = Any
AT, IMPORTS = "/api/contexts", "/api/context-imports"
COLUMNS = ("context", "key", "model", "tokens", "size", "spares", "age", "last use", "uses", "not used because")
STDIN = "-"
READING = {"list", "export"}
LARGEST = 64 << 20  # bytes of a description
FORM = "that is a tar file of a description and its data"


def run(command: Command) -> int:
    """Do one of them. BioproxyError with what the program, or the disk, said."""
    output, arguments = command.output, command.arguments
    client = command.client(changes=arguments.action not in READING).patient()
    match arguments.action:
        case "list":
            return show(output, client.get(AT))
        case "keep":
            row = client.ask("POST", AT, {"name": arguments.name, "from": arguments.request})
            said = f"{arguments.name} is kept: {count(row['tokens'])} tokens, {size(row['bytes'])}"
        case "rename":
            row = client.ask("PATCH", path_of(arguments.name), {"name": arguments.new})
            said = f"{arguments.name} is called {arguments.new} now"
        case "delete":
            row = client.ask("DELETE", path_of(arguments.name))
            said = f"{arguments.name} is deleted"
        case "export" if arguments.file == STDOUT:
            send_out(output, client, arguments.name)
            return 0
        case "export":
            row = export(output, client, arguments.name, Path(arguments.file or f"{arguments.name}.tar"))
            said = f"{arguments.name} is in {row['file']}, {size(row['bytes'])}"
        case _:
            row = bring_in(output, client, Path(arguments.file), name=arguments.name, key=arguments.key)
            said = f"{row['name']} is there, {size(row['bytes'])}"
    if output.json:
        output.document(row)
    else:
        output.line(said, "green")
    return 0


def path_of(name: str) -> str:
    return f"{AT}/{quote(name, safe='')}"


def show(output: Output, answer: Json) -> int:
    if output.json:
        output.document(answer)
        return 0
    rows, now = answer["contexts"], time.time()
    if rows:
        output.table(COLUMNS, [row_of(one, now) for one in rows], right=(3, 4, 5, 6, 7, 8), colours=bad)
    text = f"{count(len(rows))} in all, {size(sum(one['bytes'] for one in rows))}" if rows else "no contexts"
    room = answer["room"]
    output.line(f"{text}; {size(room['left'])} of {size(room['most'])} are left to keep" if room else text, "dim")
    return 0


def row_of(one: Json, now: float) -> tuple[str, ...]:
    return (
        one["name"],
        one["key"] or "-",
        one["model"] or "-",
        count(one["tokens"]),
        size(one["bytes"]),
        duration(one["seconds"]),
        duration(max(0.0, now - one["created"])),
        duration(max(0.0, now - one["used"])) if one["uses"] else "never",
        count(one["uses"]),
        one["unused"],
    )


def bad(cells: Sequence[str]) -> Colour:
    """What no request starts from is yellow."""
    return "yellow" if cells[-1] else ""


# files


def send_out(output: Output, client: Client, name: str) -> None:
    """Write a context's file to standard output."""
    if output.stream.isatty():
        raise BioproxyError("a context is no text for a terminal: name a file, or send it to another program with |")
    write = writer(output.stream)
    for piece in client.stream(f"{path_of(name)}/export", accept="application/x-tar", what="the export"):
        write(piece)


def export(output: Output, client: Client, name: str, path: Path) -> Json:
    """Write a context's file; a file that is there already is not overwritten."""
    written = 0
    with new_file(path) as file, Progress(output, f"exporting {name}") as progress:
        for piece in client.stream(f"{path_of(name)}/export", accept="application/x-tar", what="the export"):
            file.write(piece)
            written += len(piece)
            progress.say(f"{size(written)}")
    return {"name": name, "file": str(path), "bytes": written}


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that is there when the block has ended, whole and for us alone; BioproxyError if it cannot be.

    It is written under another name, and nobody else's file is touched, not even one that is half written.
    """
    unfinished = path.with_name(f"{path.name}.part")
    try:
        if path.exists():
            raise BioproxyError(f"{path} is there already; name another file")
        with ExitStack() as undo:
            with open(unfinished, "xb", opener=private) as file:
                undo.callback(unfinished.unlink, missing_ok=True)
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
    except FileExistsError:
        said = f"{unfinished} is there already: it is being written, or was left; remove it, or name another file"
        raise BioproxyError(said) from None
    except OSError as error:
        raise BioproxyError(f"cannot write {path}: {error.strerror}") from error


def private(path: str, flags: int) -> int:
    """It holds a conversation."""
    return os.open(path, flags, 0o600)


def opened(path: Path) -> AbstractContextManager[IO[bytes]]:
    """A file to read, or standard input; OSError."""
    return nullcontext(sys.stdin.buffer) if str(path) == STDIN else path.open("rb")


def bring_in(output: Output, client: Client, path: Path, *, name: str, key: str) -> Json:
    """Send a context's file, which may come through a pipe; it is there when this returns."""
    try:
        with opened(path) as raw, tarfile.open(fileobj=raw, mode="r|") as file:
            first = file.next()
            described = file.extractfile(first) if first is not None and first.size <= LARGEST else None
            if first is None or described is None or not first.name.endswith(".json"):
                raise BioproxyError(f"{path} is no exported context: {FORM}")
            description, second = msgspec.Raw(described.read()), file.next()
            data = file.extractfile(second) if second is not None and second.name.endswith(".kv") else None
            if data is None:
                raise BioproxyError(f"{path} is no exported context: {FORM}")
            name = name or first.name.removesuffix(".json")
            told = {"name": name, "key": key, "description": description}
            return {"name": name, "bytes": send(output, client, client.ask("POST", IMPORTS, told), data)}
    except (OSError, tarfile.TarError) as error:
        raise BioproxyError(f"cannot read {path}: {files.in_short(error)}") from error


def send(output: Output, client: Client, begun: Json, data: IO[bytes]) -> int:
    """Send the bytes in order; how many. BioproxyError if the program wants more than there are."""
    sent, done = 0, begun
    with Progress(output, "importing") as progress:
        while piece := data.read(begun["piece"]):
            done = client.ask("PUT", f"{IMPORTS}/{begun['id']}?offset={sent}", piece)
            sent += len(piece)
            progress.update(sent, begun["size"], f"{size(sent)} of {size(begun['size'])}")
    if not done.get("done"):
        raise BioproxyError(f"the file ends after {size(sent)} of {size(begun['size'])}: nothing was imported")
    return sent
