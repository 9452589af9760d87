"""Command-line flags of config keys, as Go programs take them: -port 8090, -port=8090, --port 8090, --port=8090.

Every key of the table has a flag, and the seed's -host, -port, -backend stand for three of them. Four flags are no
keys: -config and -config-dir name the files, -watch-config says that they are watched, and -listen is llama-swap's
word for host and port. All other words (verbs, --json, what follows after --) are handed back untouched and in order,
for the command line's own parser. argparse could take the flags of keys as well, but it would say less about a missing
value, would not know `--kv.max_age` for `-kv-max-age`, and would need each flag in the parser of each verb.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import msgspec

from bioproxy.config.addresses import UNIX
from bioproxy.config.keys import CONFIG_FLAG, FLAGS, FOLDER_FLAG, LISTEN_FLAG, TUNNEL_FLAG, WATCH_FLAG, Option
from bioproxy.config.nearest import unknown_flag
from bioproxy.errors import ConfigError, Problem

EXAMPLES = {"seconds": "30s", "bytes": "20GiB"}
OTHERS = {
    CONFIG_FLAG: "~/bioproxy.yaml", FOLDER_FLAG: "~/bioproxy.d", LISTEN_FLAG: "localhost:8080", WATCH_FLAG: "true",
}  # fmt: skip
NEGATIVE = re.compile(r"-\d+")
NUMBERED = re.compile(r"(?<=^-[a-z])\d+$")
VERB = re.compile(r"[a-z-]+")
KNOWN = frozenset({*FLAGS, *OTHERS})
BOOLEANS = {  # as Go's flag package reads them
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


class Flags(msgspec.Struct, frozen=True):
    """What the command line says of the config.

    `values`: texts by dotted key, for `load`; `names`: the flags as they were written; `path`: the file of -config;
    `rest`: every other word; `directory`: the folder of -config-dir; `watch`: whether -watch-config was given;
    `warnings` are about flags without effect.
    """

    values: dict[str, str]
    names: dict[str, str]
    path: str | None
    rest: list[str]
    directory: str | None = None
    watch: bool = False
    warnings: tuple[Problem, ...] = ()


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
    return Flags(
        values=parser.values,
        names=parser.names,
        path=parser.others_given.get(CONFIG_FLAG),
        rest=[*parser.rest, *words[position:]],
        directory=parser.others_given.get(FOLDER_FLAG),
        watch=BOOLEANS.get(parser.others_given.get(WATCH_FLAG, ""), False),
        warnings=tuple(parser.warnings),
    )


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
        self.others_given: dict[str, str] = {}  # -config and the like: they are no keys
        self.rest: list[str] = []
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def take(self, words: Sequence[str], position: int) -> int:
        """Take the word at `position` and the value that belongs to it; how many words that were."""
        word = words[position]
        written, equals, value = word.partition("=")
        flag = spelled(written)
        option = FLAGS.get(flag)
        if flag == TUNNEL_FLAG:
            return self.pass_over(words, position)
        if flag not in KNOWN:
            self.leave(word, flag, written)
            return 1
        if equals:
            self.keep(flag, written, value)
            return 1
        if option.boolean if option else flag == WATCH_FLAG:
            self.keep(flag, written, "true")
            return 1
        following = words[position + 1] if position + 1 < len(words) else None
        if following is None or following == "--" or spelled(following.partition("=")[0]) in KNOWN:
            shown = example(option) if option else OTHERS[flag]
            self.complain(written, f"needs a value, as in {written} {shown}")
            return 1
        self.keep(flag, written, following)
        return 2

    def pass_over(self, words: Sequence[str], position: int) -> int:
        """A flag of llama-swap's for what we do not have, and its value if the next word can be nothing else."""
        written, equals, _ = words[position].partition("=")
        said = "has no effect: bioproxy has no tailcat tunnel, and listens as -listen says"
        self.warnings.append(Problem(said, where=f"flag {written}"))
        following = "" if equals else words[position + 1] if position + 1 < len(words) else ""
        return 2 if following and not spelled(following) and not VERB.fullmatch(following) else 1

    def complain(self, written: str, message: str) -> None:
        self.problems.append(Problem(message, where=f"flag {written}"))

    def keep(self, flag: str, written: str, value: str) -> None:
        if option := FLAGS.get(flag):
            self.values[option.path], self.names[option.path] = value, written
        elif flag == LISTEN_FLAG:
            self.listen(written, value)
        elif flag == WATCH_FLAG and value not in BOOLEANS:
            self.complain(written, f'expected true or false, got "{value}"')
        else:
            self.others_given[flag] = value

    def listen(self, written: str, address: str) -> None:
        """`-listen host:port`; without a host all addresses are meant, an empty text is as good as no flag.

        `unix:/path` is `proxy_host` alone, where a path that is of no use is judged as in a file.
        """
        if not address:
            return
        if address.startswith(UNIX):
            self.values["proxy_host"], self.names["proxy_host"] = address, written
            return
        host, colon, port = address.rpartition(":")
        if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
            example = OTHERS[LISTEN_FLAG]
            self.complain(
                written, f'expected an address such as {example}, :8080 (all hosts) or unix:/path, got "{address}"'
            )
            return
        for path, value in (("proxy_host", host.strip("[]")), ("proxy_port", port or "0")):
            self.values[path], self.names[path] = value, written

    def leave(self, word: str, flag: str, written: str) -> None:
        """A word for the command line's own parser, or an unknown flag; `-n5` is its `-n`, `-5` the value of one."""
        if (
            flag
            and not NEGATIVE.fullmatch(word)
            and self.others is not None
            and NUMBERED.sub("", flag) not in self.foreign
        ):
            self.complain(written, unknown_flag(written, [*self.others, *OTHERS]))
        else:
            self.rest.append(word)


def example(option: Option) -> str:
    """A value that a flag may have."""
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
