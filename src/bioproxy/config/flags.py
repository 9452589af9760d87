"""Command-line flags of config keys, as Go programs take them: -port 8090, -port=8090, --port 8090, --port=8090.

Every key of the table has a flag, and the seed's -host, -port, -backend stand for three of them; -config names the
file. What is no config flag (verbs, --json, what follows after --) is handed back untouched and in order, for the
command line's own parser: argparse knows neither single dashes nor eighty flags made from a schema.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from bioproxy.config.keys import CONFIG_FLAG, FLAGS, Option
from bioproxy.config.nearest import unknown_flag
from bioproxy.errors import ConfigError, Problem

EXAMPLES = {"seconds": "30s", "bytes": "20GiB"}


class Flags(msgspec.Struct, frozen=True):
    """What the command line says of the config.

    `values`: texts by dotted key, for `load`; `names`: the flags as they were written; `path`: the file of -config;
    `rest`: every other word.
    """

    values: dict[str, str]
    names: dict[str, str]
    path: str | None
    rest: list[str]


def parse_flags(words: Sequence[str], *, others: Collection[str] | None = None) -> Flags:
    """Split a command line. Of a flag given twice the last counts, as in Go.

    `others` are the flags of the command line's own parser (`--json`, `-h`): with them given, an unknown flag is an
    error that names the nearest one; without, it goes to the rest. Raises ConfigError with all problems.
    """
    parser = _Parser(others)
    position = 0
    while position < len(words) and words[position] != "--":
        position += parser.take(words, position)
    if parser.problems:
        raise ConfigError(parser.problems)
    path = parser.values.pop(CONFIG_FLAG, None)
    parser.names.pop(CONFIG_FLAG, None)
    return Flags(parser.values, parser.names, path, [*parser.rest, *words[position:]])


def spelled(word: str) -> str:
    """A flag in the table's spelling: --kv.max_age is -kv-max-age; "" for a word that is no flag."""
    name = word.lstrip("-")
    dashes = len(word) - len(name)
    return "-" + name.replace("_", "-").replace(".", "-") if name and dashes in {1, 2} else ""


class _Parser:
    def __init__(self, others: Collection[str] | None) -> None:
        self.others = others
        self.foreign = {spelled(other) for other in others or ()}
        self.values: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.rest: list[str] = []
        self.problems: list[Problem] = []

    def take(self, words: Sequence[str], position: int) -> int:
        """Take the word at `position` and the value that belongs to it; how many words that were."""
        word = words[position]
        written, equals, value = word.partition("=")
        flag = spelled(written)
        option = FLAGS.get(flag)
        if option is None and flag != CONFIG_FLAG:
            self.leave(word, flag, written)
            return 1
        if equals:
            return self.keep(option, written, value, count=1)
        if option is not None and option.boolean:
            return self.keep(option, written, "true", count=1)
        following = words[position + 1] if position + 1 < len(words) else None
        if following is None or following == "--" or spelled(following.partition("=")[0]) in {*FLAGS, CONFIG_FLAG}:
            self.problems.append(Problem(f"needs a value, as in {written} {example(option)}", where=f"flag {written}"))
            return 1
        return self.keep(option, written, following, count=2)

    def keep(self, option: Option | None, written: str, value: str, *, count: int) -> int:
        key = option.path if option else CONFIG_FLAG
        self.values[key], self.names[key] = value, written
        return count

    def leave(self, word: str, flag: str, written: str) -> None:
        """A word for somebody else, or a flag that nobody knows."""
        if flag and self.others is not None and flag not in self.foreign:
            self.problems.append(Problem(unknown_flag(written, self.others), where=f"flag {written}"))
        else:
            self.rest.append(word)


def example(option: Option | None) -> str:
    """A value that a flag may have."""
    if option is None:
        return "~/bioproxy.yaml"
    if option.kind.unit:
        return EXAMPLES[option.kind.unit]
    match option.default:
        case tuple():
            return """'["one", "two"]'"""
        case dict():
            return """'{"@code": "code.txt"}'"""
        case "":
            return "VALUE"
        case value:
            return str(value)
