"""What `bioproxy check` says of each model without starting it: whether its command can run, and its swaps are warm.

The operator should hear of a model's mistake before the user who asks for it at night does. So what only a shell would
understand, a program that is not there and a model file that is missing are problems here, though `serve` starts in
spite of them: they may come later. Whether a swap is warm hangs on one thing that the command tells: a slot folder of
llama-server on a disk that we see.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence

import msgspec

from bioproxy import files
from bioproxy.config.dialect.per_model import kv_of
from bioproxy.config.dialect.schema import Model
from bioproxy.config.load import Loaded
from bioproxy.engines.commands import basename, is_container
from bioproxy.errors import Problem
from bioproxy.kv.arguments import Arguments, parse
from bioproxy.models import command

Find = Callable[[str, str], str | None]
OPERATORS = frozenset({"&&", "||", "|", ";", "&", ">", ">>", "<", "2>", "2>&1", "&>"})
EXPANDED = re.compile(r"\$\(|`|\$\{?[A-Za-z_]")
REMOTE = frozenset({"ssh", "mosh", "systemd-run"})  # what follows is read by another shell, or runs elsewhere
MODEL_FILES = ("--model", "--mmproj")


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `warm`: its conversations come back after a swap; `why`: how, or why not and what would mend it."""

    model: str
    warm: bool
    why: str


def examine(
    loaded: Loaded, *, which: Find = lambda program, path: shutil.which(program, path=path)
) -> tuple[list[Outlook], list[Problem]]:
    """Every model's outlook, and what keeps commands from running."""
    outlooks: list[Outlook] = []
    problems: list[Problem] = []
    for name, model in (loaded.dialect.models if loaded.dialect is not None else {}).items():
        words = command.split(model.cmd)
        origin = loaded.origins.get(f"models.{name}.cmd")
        where = origin.where if origin is not None else ""
        key = f"models.{name}.cmd"
        problems += [Problem(fault, where=where, key=key) for fault in faults(words, model, which=which)]
        outlooks.append(outlook(loaded, name, model, words))
    return outlooks, problems


def faults(words: Sequence[str], model: Model, *, which: Find) -> list[str]:
    """Why a command cannot run as it stands."""
    if not words:
        return []
    script = command.script_at(words)
    found = [] if basename(words[0]) in REMOTE else for_a_shell([w for n, w in enumerate(words) if n != script])
    variables = dict(entry.partition("=")[::2] for entry in model.env)
    path = variables.get("PATH", os.environ.get("PATH", ""))
    if which(words[0], path) is None:
        found.append(no_program(words[0]))
    elif (wrapped := command.wrapped_program(words)) and which(wrapped, path) is None:
        found.append(no_program(wrapped))
    if is_container(words) or basename(words[0]) in REMOTE or (at := command.program_at(words)) is None:
        return found
    arguments = parse(words[at - 1 :])
    for flag in MODEL_FILES:
        file = arguments.last(flag)
        if file and (fault := fault_of(file)):
            found.append(f"the file that {flag} names, {file}, {fault}")
    return found


def no_program(name: str) -> str:
    """Why nothing of that name or path can be executed."""
    if not os.path.dirname(name):
        return f"there is no program {name!r} on PATH"
    if os.path.isfile(name):
        return f"the program {name!r} may not be executed: chmod +x it"
    return f"there is no program {name!r}"


def fault_of(path: str) -> str:
    """Why a file cannot be read; empty for one that is there."""
    try:
        return "" if files.patiently(files.found, path) is not None else "is not there"
    except files.Stuck:
        return "does not answer; is it in a network folder whose server is gone?"
    except OSError as error:
        return f"cannot be read: {files.reason(error)}"


def for_a_shell(words: Sequence[str]) -> list[str]:
    """What only a shell would understand; none reads a command."""
    for word in words:
        if word in OPERATORS:
            return [f"no shell reads it, so {word} is an argument like any other: write sh -c '…'"]
        if word.startswith("#"):
            return [f"no shell reads it, so the note {word} … is passed to the program: put it on a line of its own"]
        if found := EXPANDED.search(word):
            hint = "write the value, ${env.NAME}, or sh -c '…'"
            return [f"no shell reads it, so {found[0]}… in {word} is passed on as it stands: {hint}"]
    return []


def outlook(loaded: Loaded, name: str, model: Model, words: Sequence[str]) -> Outlook:
    """Whether swaps of this model are warm, as far as its command tells."""

    def cold(why: str) -> Outlook:
        return Outlook(model=name, warm=False, why=why)

    kv = kv_of(loaded.config, model)
    if kv.policy == "off":
        return cold("kv.policy is off for it")
    prepared = command.prepare(words, folder=loaded.slot_folder, environment=model.env)
    known = command.named(words) or any(entry.startswith(f"{command.VARIABLE}=") for entry in model.env)
    if is_container(words):
        if not known and "llama" not in model.cmd:
            return cold("a container of something that does not look like llama-server")
        if not prepared.folders.ours and not kv.directory:
            return cold("its slot folder cannot be seen from here: add -v FOLDER:/slots and --slot-save-path /slots")
        return of_arguments(name, parse(words), folder=kv.directory or prepared.folders.ours)
    if not prepared.added and not known:
        return cold("it does not look like llama-server; if it starts one, let it pass --slot-save-path FOLDER on")
    at = command.program_at(words)
    return of_arguments(name, parse(words[(at or 1) - 1 :]), folder=prepared.folders.ours or "its own slot folder")


def of_arguments(name: str, arguments: Arguments, *, folder: str) -> Outlook:
    """What the engine's own flags allow."""
    if arguments.draft:
        return Outlook(model=name, warm=False, why="a draft model is not restored with the cache: leave it out")
    return Outlook(model=name, warm=True, why=f"snapshots in {folder}")
