"""What a shell offers after Tab: `bioproxy completion SHELL` prints a script, and the script asks this program.

One place knows what may stand where: the parser, the table of keys, the configuration that the line names. A shell's
script would be a second copy of that, three times, and could not know a model. So each script only hands the line up to
the cursor to `bioproxy __complete`, which prints a word on each line; if it prints none, the shell offers files. That
takes a tenth of a second, and a configuration that cannot be read costs its names and nothing else. A script may be
sourced, or be a file of its own in the folder from which the shell loads what it needs (docs/install.md).
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from bioproxy.cli.command import Command
from bioproxy.config.flags import parse_flags, spelled
from bioproxy.config.keys import CONFIG_FLAG, FLAGS, FOLDER_FLAG, LISTEN_FLAG, WATCH_FLAG, Kind
from bioproxy.errors import BioproxyError

if TYPE_CHECKING:
    from bioproxy.config.load import Loaded

BREAKS = ":="  # bash takes what follows one of these for a word of its own
SCRIPTS = {
    "bash": """\
_bioproxy() {
  local IFS=$'\\n'
  COMPREPLY=($("$1" __complete bash "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
}
complete -o default -F _bioproxy bioproxy
""",
    "zsh": """\
#compdef bioproxy
_bioproxy() {
  local -a found
  found=("${(@f)$("${words[1]}" __complete zsh "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
  if [[ -n "${found[1]}" ]]; then compadd -a found; else _files; fi
}
if [[ "${funcstack[1]}" == _bioproxy ]]; then
  _bioproxy "$@"
else
  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u; }
  compdef _bioproxy bioproxy
fi
""",
    "fish": """\
function __bioproxy
  set -l found (bioproxy __complete fish (commandline -cp) 2>/dev/null)
  if test -n "$found"
    printf '%s\\n' $found
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c bioproxy -f -a '(__bioproxy)'
""",
}


def script(command: Command) -> int:
    command.output.line(SCRIPTS[command.arguments.shell].rstrip())
    return 0


def ask(words: Sequence[str], parser: argparse.ArgumentParser) -> int:
    """`__complete SHELL LINE`: print what may follow."""
    shell, line = words if len(words) == 2 else ("", "")
    typed, current = split(line)
    try:
        found = sorted({word for word in offers(typed, current, parser) if word.startswith(current)})
    except BioproxyError:
        return 0  # a configuration that cannot be read has no names to offer, and Tab is no place for its errors
    start = max(current.rfind(sign) for sign in BREAKS) + 1 if shell == "bash" else 0
    sys.stdout.write("".join(f"{word[start:]}\n" for word in found))
    return 0


def split(line: str) -> tuple[list[str], str]:
    """The words after the program's name, and the one at the cursor, which may be empty."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quote that is still open
        words = line.split()
    if not line or line[-1].isspace():
        words.append("")
    return words[1:-1], words[-1]


def offers(typed: Sequence[str], current: str, parser: argparse.ArgumentParser) -> Iterable[str]:
    """What may stand at the cursor after the words `typed`; none: a file's name, or anything."""
    if "--" in typed:
        return ()
    verb, place = parser, 0
    for before, word in zip(["", *typed], typed, strict=False):
        if word.startswith("-") or takes_value(before, verb):
            continue
        chosen = positional(verb, place)
        if isinstance(chosen, argparse._SubParsersAction) and word in chosen.choices:  # noqa: SLF001 - argparse tells nowhere else
            verb, place = chosen.choices[word], 0
        else:
            place += 1
    if typed and takes_value(typed[-1], verb):
        return values(typed[-1], verb)
    name, equals, _ = current.partition("=")
    if equals:
        return [f"{name}={value}" for value in values(name, verb)]
    if current.startswith("-"):
        return flags(verb, two="-" if current.startswith("--") else "")
    found = positional(verb, place)
    if found is None:
        return ()
    if found.choices is not None:
        return map(str, found.choices)
    named = NAMES.get((verb.prog.removeprefix(parser.prog).strip(), found.dest))
    return named(typed) if named is not None else ()


def positional(parser: argparse.ArgumentParser, place: int) -> argparse.Action | None:
    """What the word number `place` without a dash stands for."""
    found = [action for action in parser._actions if not action.option_strings]  # noqa: SLF001
    return found[place] if place < len(found) else None


def own(flag: str, parser: argparse.ArgumentParser) -> argparse.Action | None:
    """A flag of the parser's own, with one dash or two."""
    flag = flag if flag.startswith("--") or len(flag) == 2 else f"-{flag}"
    return next((action for action in parser._actions if flag in action.option_strings), None)  # noqa: SLF001


def takes_value(flag: str, parser: argparse.ArgumentParser) -> bool:
    """Whether the word after `flag` is its value."""
    if not flag.startswith("-") or "=" in flag:
        return False
    if action := own(flag, parser):
        return action.nargs != 0
    option = FLAGS.get(spelled(flag))
    return not option.boolean if option else spelled(flag) in {CONFIG_FLAG, FOLDER_FLAG, LISTEN_FLAG}


def values(flag: str, parser: argparse.ArgumentParser) -> list[str]:
    """What a flag may be set to, if that is known."""
    if action := own(flag, parser):
        return [str(choice) for choice in action.choices or ()]
    option = FLAGS.get(spelled(flag))
    return [value for kind in option.kind.choices for value in of_kind(kind)] if option else []


def of_kind(kind: Kind) -> list[str]:
    """The values of a kind that has a few."""
    if isinstance(kind.type, msgspec.inspect.LiteralType):
        return [str(value) for value in kind.type.values]
    return ["true", "false"] if isinstance(kind.type, msgspec.inspect.BoolType) else []


def flags(parser: argparse.ArgumentParser, *, two: str) -> list[str]:
    """The verb's own flags, and those of every key."""
    found = [flag for action in parser._actions for flag in action.option_strings]  # noqa: SLF001
    return found + [f"{two}{flag}" for flag in (*FLAGS, CONFIG_FLAG, FOLDER_FLAG, LISTEN_FLAG, WATCH_FLAG)]


def models(typed: Sequence[str]) -> list[str]:
    """Every name of a model in the configuration that this line names."""
    dialect = configuration(typed).dialect
    return [*dialect.models, *dialect.aliases] if dialect is not None else []


def logs(typed: Sequence[str]) -> list[str]:
    return ["proxy", "upstream", *models(typed)]


def prefixes(typed: Sequence[str]) -> list[str]:
    return list(configuration(typed).config.prefixes)


def recipes(_typed: Sequence[str]) -> list[str]:
    from bioproxy.recipes.recipe import recipes as known

    return list(known())


def configuration(typed: Sequence[str]) -> Loaded:
    """What file, environment and the flags of the line say. Raises BioproxyError."""
    from bioproxy.config.load import load

    given = parse_flags(typed)
    return load(given.values, path=given.path, directory=given.directory, environment=os.environ, names=given.names)


NAMES: dict[tuple[str, str], Callable[[Sequence[str]], list[str]]] = {
    ("load", "model"): models,
    ("unload", "model"): models,
    ("logs", "model"): logs,
    ("warm", "prefix"): prefixes,
    ("recipes show", "name"): recipes,
    ("recipes add", "name"): recipes,
}
