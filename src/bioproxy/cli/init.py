"""`bioproxy init`: a configuration for what is on this machine, written after a look at it.

It looks for a llama-swap configuration, GGUF files, an engine to run them, servers that run already, cards and memory;
says what it found, asks (or takes `--yes`), and writes one file. A file that was there stays beside it. Then `check`
has the last word. What is proposed and why, engines/placement.py decides; the text is recipes/propose.py's.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from bioproxy import files
from bioproxy.cli import checks, machine, running
from bioproxy.cli.command import Command
from bioproxy.cli.output import Colour, Output, count, size
from bioproxy.config.files import Found as Sources
from bioproxy.config.files import config_folder, default_files, find
from bioproxy.config.json_schema import schemas
from bioproxy.engines import library
from bioproxy.engines.library import Found
from bioproxy.engines.placement import place
from bioproxy.errors import BioproxyError, ConfigError, Problem
from bioproxy.recipes import insert, propose
from bioproxy.recipes.propose import Peer, Proposal

Json: TypeAlias = Any
Ask: TypeAlias = Callable[[str], str]

YAML = (".yaml", ".yml")
NAME = "config.yaml"
SHOWN = 5  # names of a server's models, notes about what is of no use
ALL = "all that fit"
NO_TERMINAL = "there is no terminal to ask on: `bioproxy init --yes` takes what it proposes"
NOTHING = """\
there is nothing to serve yet: no GGUF file, no engine that runs, no llama-swap configuration to take over. Looked in
{places}
Put a model into one of them (a GGUF file of a chat model, from https://huggingface.co/models?library=gguf, say),
or name its folder: bioproxy init FOLDER. `bioproxy demo` shows everything without a model of yours."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was found on this machine."""

    here: machine.Here
    found: Found
    places: tuple[str, ...]
    proposals: tuple[Proposal, ...]
    engines: tuple[running.Engine, ...] = ()
    swap: running.Swap | None = None


def run(command: Command) -> int:
    """Look, ask, write, check. BioproxyError if there is nothing to write, or nobody to ask."""
    output, arguments = command.output, command.arguments
    asking = not arguments.yes and not output.json
    if asking and not sys.stdin.isatty():
        raise BioproxyError(NO_TERMINAL)
    target = target_of(command)
    seen = look(arguments.folders, slots=arguments.slots)
    if not output.json:
        show(output, seen)
    if not (seen.swap or seen.proposals or seen.engines):
        raise BioproxyError(NOTHING.format(places="\n".join(f"  {path}" for path in seen.places)))
    ask = asked if asking else (lambda _question: "")
    text = decide(seen, ask)
    if not yes(ask(f"Write {target}?{kept_hint(target)} [Y/n] ")):
        raise BioproxyError("nothing was written")
    kept = write(target, text, mode=mode_of(seen.swap, text))
    return finish(command, seen, target=target, kept=kept)


def target_of(command: Command) -> str:
    """Where the configuration belongs: the file that was named, else one in the named folder, or at the usual place."""
    found = named_in(command)
    if found.path is None and found.directory:
        return os.path.join(found.directory, NAME)
    named = found.path
    usual = named is None or named in default_files(os.environ)
    path = os.path.join(config_folder(os.environ), NAME) if usual or named is None else named
    if not path.endswith(YAML):
        raise ConfigError([Problem("init writes YAML: name a file that ends in .yaml", path)])
    return path


def named_in(command: Command) -> Sources:
    """The file and the folder that flags or variables name, else the file at the default place."""
    return find(command.flags.path, command.flags.directory, os.environ, folder=os.getcwd())


def look(folders: Sequence[str], *, slots: int = 1) -> Seen:
    """Everything that can be found out."""
    named = [os.path.abspath(os.path.expanduser(one)) for one in folders]
    places = [*map(library.place_of, named), *library.usual(os.environ)]
    commands = running.processes()
    here = machine.look(os.environ)
    found = library.look(places)
    if missing := [one for one in named if one not in found.places]:
        raise BioproxyError(f"{missing[0]} is no folder; name one that has GGUF files in it")
    unusable = [f"{one.path}: {reason}" for one in found.entries if (reason := propose.unusable(one))]
    swap, unreadable = running.swap(commands, os.environ, folder=os.getcwd())
    found = msgspec.structs.replace(found, notes=(*unreadable, *found.notes, *unusable))
    proposals = [
        Proposal(entry=one, placement=place(one.shape, here.machine, projector=one.projector_bytes, slots=slots))
        for one in found.entries
        if not propose.unusable(one)
    ]
    return Seen(
        here=here,
        found=found,
        places=tuple(dict.fromkeys(place.path for place in places)),
        proposals=tuple(proposals),
        engines=tuple(running.engines(commands)),
        swap=swap,
    )


def show(output: Output, seen: Seen) -> None:
    """What was found, for a person."""
    rows = [("machine", propose.described(seen.here.machine))]
    rows.append(("engine", " ".join(seen.here.program) or "none"))
    rows += [("llama-swap", f"{seen.swap.path}: {plural(len(seen.swap.models), 'model')}")] if seen.swap else []
    rows += [("running", f"{one.kind} at {one.url}: {several(one.models)}") for one in seen.engines]
    folders = f" in {', '.join(seen.found.places)}" if seen.found.places else ""
    rows.append(("GGUF files", plural(len(seen.found.entries), "model") + folders))
    for name, value in rows:
        output.line(f"{output.paint(f'{name:<11}', 'bold')} {value}")
    if seen.here.hint:
        output.note(output.paint(seen.here.hint, "yellow"))
    for note in seen.found.notes[:SHOWN]:
        output.note(f"passed over: {note}")
    if len(seen.found.notes) > SHOWN:
        output.note(f"passed over: {len(seen.found.notes) - SHOWN} more")
    if seen.proposals and any(one.kind == "llama-server" for one in seen.engines):
        output.note("a llama-server that runs keeps its memory: stop it before models that bioproxy starts need that")
    if seen.proposals:
        output.line()
        table = [row(number, one, seen) for number, one in enumerate(seen.proposals, 1)]
        output.table(("", "model", "size", "context", "takes"), table, right=(0, 2, 3), colours=colour)


def colour(cells: Sequence[str]) -> Colour:
    return "red" if cells[-1].startswith("does not fit") else ""


def row(number: int, one: Proposal, seen: Seen) -> tuple[str, ...]:
    """A proposal in the table."""
    found = one.placement.estimate
    cards = f"{size(found.cards.total)} on {propose.cards_of(seen.here.machine)}"
    takes = f"{cards}, {size(found.memory.total)} in memory"
    if not seen.here.machine.cards or not found.layers:
        takes = f"{size(found.memory.total)} in memory"
    elif found.layers == len(one.entry.shape.layers) and not one.placement.settings.cpu_experts:
        takes = cards
    takes = takes if one.placement.fits else f"does not fit: {takes}"
    context = count(one.placement.settings.context)
    return (str(number), one.entry.name, size(one.entry.shape.weights), context, takes)


def decide(seen: Seen, ask: Ask) -> str:
    """The file's text, after the questions that there are."""
    if seen.swap is not None and yes(ask(f"Take {seen.swap.path} over as it stands? [Y/n] ")):
        return propose.adopted(seen.swap.path, seen.swap.text)
    llamas = [one for one in seen.engines if one.kind == "llama-server"]
    if not seen.proposals and len(llamas) == len(seen.engines) == 1:
        [only] = llamas
        return propose.attached(only.url, model=", ".join(only.models), remarks=only.remarks)
    chosen = choose(seen.proposals, ask) if seen.proposals else []
    others = [peer(one) for one in seen.engines if one.kind != "llama-server" or not chosen]
    peers = propose.taken_names({one.entry.name: one for one in chosen}, others)
    if not chosen and not peers:
        none = "" if any(one.placement.fits for one in seen.proposals) else " and none fits this machine"
        raise BioproxyError(f"no model was chosen{none}; nothing was written")
    return propose.text(chosen, seen.here.machine, program=seen.here.program, peers=peers)


def choose(proposals: Sequence[Proposal], ask: Ask) -> list[Proposal]:
    """Those that somebody names by their numbers; without an answer all that fit."""
    question = f"Which models? Numbers such as 1,3-5, or nothing for {ALL}: "
    while True:
        answer = ask(question).strip()
        if not answer:
            return [one for one in proposals if one.placement.fits]
        numbers = numbers_in(answer, most=len(proposals))
        if numbers is not None:
            return [proposals[number - 1] for number in numbers]
        question = f"Numbers from 1 to {len(proposals)}, please, or nothing for {ALL}: "


def numbers_in(answer: str, *, most: int) -> list[int] | None:
    """`1,3-5` as numbers; None if it says anything else."""
    found: set[int] = set()
    for word in re.split(r"[\s,]+", answer):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", word)
        if match is None:
            return None
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(found) if found and min(found) >= 1 and max(found) <= most else None


def peer(engine: running.Engine) -> Peer:
    """A running server as a peer, called after its program and port."""
    port = engine.url.rpartition(":")[2]
    return Peer(name=f"{engine.kind.lower().replace(' ', '-')}-{port}", url=engine.url, models=engine.models)


def asked(question: str) -> str:
    """What somebody types. BioproxyError at the end of the input."""
    try:
        return input(question)
    except EOFError as error:
        raise BioproxyError("no answer came; nothing was written") from error


def yes(answer: str) -> bool:
    return answer.strip().lower() in {"", "y", "yes"}


def kept_hint(target: str) -> str:
    there = replaced(target)
    return f" What is there stays as {', '.join(os.path.basename(aside(path)) for path in there)}." if there else ""


def replaced(target: str) -> list[str]:
    """Files that the new one takes the place of: itself, and at the default place those that would come before it."""
    standing = default_files(os.environ)
    same = standing if os.path.dirname(target) == config_folder(os.environ) else []
    return list(dict.fromkeys([*([target] if os.path.lexists(target) else []), *same]))


def aside(path: str) -> str:
    """A name that is free for a file's old content."""
    tries = (f"{path}.old" + (f".{number}" if number else "") for number in range(1000))
    return next(one for one in tries if not os.path.lexists(one))


def write(target: str, text: str, *, mode: int) -> list[str]:
    """Write the file, and the schema that its first line names; the names that old files have now. ConfigError.

    `mode` are the rights of a file that is new.
    """
    kept = []
    try:
        folder = os.path.dirname(target)
        os.makedirs(folder, exist_ok=True)
        for path in replaced(target):
            kept.append(aside(path))
            shutil.copy2(path, kept[-1])
        named = re.match(r"# yaml-language-server: \$schema=(bioproxy|llama-swap)\.schema\.json\n", text)
        if named is not None:
            schema = msgspec.json.format(msgspec.json.encode(schemas()[named[1]]), indent=2)
            files.write_whole(f"{folder}/{named[1]}.schema.json", schema + b"\n", mode=0o644)
    except OSError as error:
        raise ConfigError([Problem(f"nothing was written: {files.reason(error)}", target)]) from error
    insert.write(Path(target), text, mode=mode)
    for path in replaced(target):
        if path != target:
            os.unlink(path)
    return kept


def mode_of(swap: running.Swap | None, text: str) -> int:
    """The rights of a new file: those of the one that it was taken from, which may have keys in it."""
    return os.stat(swap.path).st_mode & 0o777 if swap is not None and swap.text in text else 0o644


def finish(command: Command, seen: Seen, *, target: str, kept: Sequence[str]) -> int:
    """Say what was written, and check it; the exit code is the check's."""
    output = command.output
    directory = named_in(command).directory
    inside = os.path.dirname(target) == directory
    flags = msgspec.structs.replace(command.flags, path=None if inside else target, directory=directory)
    checking = msgspec.structs.replace(command, flags=flags)
    if output.json:
        found = checks.examine(checking.load)
        output.document(
            {
                "path": target,
                "kept": kept,
                "machine": seen.here.machine,
                "models": list(map(shown, seen.proposals)),
                "passed_over": seen.found.notes,
                "running": seen.engines,
                "check": found,
            }
        )
        return 0 if found.ok else 1
    output.line(f"\nwrote {target}" + "".join(f"\nkept  {path}" for path in kept), "bold")
    code = checks.check(checking)
    if not code:
        standard = inside or os.path.dirname(target) == config_folder(os.environ)
        named = ("" if standard else f" -config {target}") + (f" -config-dir {directory}" if directory else "")
        output.line(f"start it: bioproxy{named}")
        output.line("clients connect to http://localhost:8088")
    return code


def shown(one: Proposal) -> Json:
    """A proposal as JSON."""
    placement = one.placement
    return {
        "name": one.entry.name,
        "path": one.entry.path,
        "projector": one.entry.projector,
        "settings": placement.settings,
        "estimate": placement.estimate,
        "fits": placement.fits,
        "why": placement.why,
    }


def several(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {count(more)} more" if more > 0 else "")


def plural(number: int, noun: str) -> str:
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"
