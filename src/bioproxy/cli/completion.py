"""`bioproxy completion bash|zsh|fish`: what a shell offers after Tab, made from the parser and the table of keys.

The scripts hold words and nothing else: pressing Tab starts no Python. A verb offers its own flags and fixed words,
and every place offers the flags of configuration keys. Loaded with `source <(bioproxy completion bash)`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping

import msgspec

BASH = """\
_bioproxy() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} verb="" word words
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case $word in {verbs}) verb=$word; break ;; esac
  done
  case $verb in
    "") words="{all}" ;;
{cases}
  esac
  [[ $current == -* ]] && words+=" {flags}"
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [[ ${{#COMPREPLY[@]}} -eq 0 ]] && COMPREPLY=($(compgen -f -- "$current"))
  return 0
}}
complete -F _bioproxy bioproxy
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"  # zsh runs bash's completions, and that spares a second script


class Words(msgspec.Struct, frozen=True):
    """One verb: what it is for, and the words that may follow."""

    about: str
    words: tuple[str, ...]


def script(shell: str, parser: argparse.ArgumentParser, flags: Iterable[str]) -> str:
    """The script for one of the three shells; `flags` are those of every place."""
    verbs, everywhere = verbs_of(parser), sorted(flags)
    if shell == "fish":
        return fish(verbs, everywhere)
    return (ZSH if shell == "zsh" else "") + bash(verbs, everywhere)


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, Words]:
    """Every verb with the flags and words that its parser takes."""
    found = {}
    for action in subparsers(parser):
        abouts = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001 - argparse tells nowhere else
        for name, verb in action.choices.items():
            found[name] = Words(abouts.get(name, ""), tuple(sorted(words_of(verb))))
    return found


def subparsers(parser: argparse.ArgumentParser) -> list[argparse._SubParsersAction[argparse.ArgumentParser]]:
    """The actions of a parser that choose a further parser."""
    actions = parser._actions  # noqa: SLF001 - the only way to the tree
    return [action for action in actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001


def words_of(parser: argparse.ArgumentParser) -> set[str]:
    """Flags and fixed words of one verb, its own verbs' among them."""
    found: set[str] = set()
    for action in parser._actions:  # noqa: SLF001 - as above
        found |= set(action.option_strings) | {str(choice) for choice in action.choices or ()}
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            found |= {word for inner in action.choices.values() for word in words_of(inner)}
    return found


def bash(verbs: Mapping[str, Words], flags: Iterable[str]) -> str:
    """Bash's."""
    cases = "\n".join(f'    {name}) words="{" ".join(verb.words)}" ;;' for name, verb in verbs.items())
    return BASH.format(verbs="|".join(verbs), all=" ".join(verbs), cases=cases, flags=" ".join(flags))


def fish(verbs: Mapping[str, Words], flags: Iterable[str]) -> str:
    """Fish's: a line for each word."""
    lines = []
    for name, verb in verbs.items():
        lines.append(f"complete -c bioproxy -n __fish_use_subcommand -a {name} -d {quoted(verb.about)}")
        seen = f"-n '__fish_seen_subcommand_from {name}'"
        lines += [f"complete -c bioproxy {seen} {fish_word(word)}" for word in verb.words]
    lines += [f"complete -c bioproxy {fish_word(flag)}" for flag in flags]
    return "\n".join(lines) + "\n"


def fish_word(word: str) -> str:
    """A flag or a word in the options of fish's `complete`: -l is --long, -o is -old, -s is -s."""
    name = word.lstrip("-")
    match len(word) - len(name):
        case 0:
            return f"-a {word}"
        case 1:
            return f"-s {name}" if len(name) == 1 else f"-o {name}"
        case _:
            return f"-l {name}"


def quoted(text: str) -> str:
    """A text as one word of fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
