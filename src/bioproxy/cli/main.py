"""`bioproxy`: one command with verbs; what each does is in a module of its own.

Every configuration key is a flag (`-proxy-port 8090`, `--kv-policy=off`); `config/flags.py` takes those off the command
line, and argparse sees what is left: the verb and the few flags that belong to verbs. Modules are imported when their
verb is called, because `bioproxy version` should not wait for an HTTP server to load.

`-version` prints llama-swap's line, for scripts that read it; the verb `version` is for people.

Exit codes: 0 all is well; 1 it failed, and the last line on stderr says why (a configuration with problems, nothing
answers, a damaged snapshot, a demo that was not fast enough); 2 the command line itself is wrong; 130 interrupted
(Ctrl-C), and 143 if a second SIGTERM cut the orderly end short.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from bioproxy import __version__
from bioproxy.cli.command import Command
from bioproxy.cli.output import Output, let_go
from bioproxy.cli.verbs import BY_NAME, VERBS, common_flags
from bioproxy.config.files import working_folder
from bioproxy.config.flags import parse_flags
from bioproxy.config.keys import CONFIG_FLAG, FOLDER_FLAG, KEYS, LISTEN_FLAG, WATCH_FLAG
from bioproxy.config.layers import read_flags
from bioproxy.config.nearest import close
from bioproxy.errors import BioproxyError, ConfigError

FAILED, USAGE, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141
FILE_FLAGS = {
    f"{CONFIG_FLAG} FILE": "the configuration file",
    f"{FOLDER_FLAG} FOLDER": "a folder whose *.yaml and *.yml are the configuration, after FILE",
    WATCH_FLAG: "look at these files every two seconds, and reload when one changed",
    f"{LISTEN_FLAG} ADDRESS": "proxy_host and proxy_port in one: host:port, :8080 (all hosts), or unix:/path",
}
OWN_FLAGS = (
    "-h", "--help", "--version", "--json", "--colour",
    "--as", "-c", "--cache-type-k", "--cache-type-v", "--client", "--ctk", "--ctv", "--ctx-size", "-f", "--follow",
    "--for", "--gpu-layers", "--key", "--mmproj", "-n", "--n-cpu-moe", "--ngl", "--no-wait", "--np", "--older", "-o",
    "--once", "--outcome", "--parallel", "--schema", "--set", "--since", "--slots", "--ub", "--ubatch-size", "--yes",
)  # fmt: skip
EPILOG = """\
Every key of the configuration is a flag as well, with one dash or two, for every verb;
`bioproxy config` shows their values and where each came from.

{flags}

Exit codes: 0 fine, 1 failed, 2 wrong usage, 130 interrupted.
"""
SHORT_EPILOG = """\
Which program is meant, its configuration says:

{flags}

Every key of the configuration is a flag as well; `bioproxy help` lists them all.
Exit codes: 0 fine, 1 failed, 2 wrong usage, 130 interrupted.
"""
WITH_CONFIG = frozenset({"serve", "check", "config"})  # verbs whose help lists every key of the configuration
STD_OUTPUT, STD_ERROR, VIRTUAL_TERMINAL = -11, -12, 0x7  # winbase.h, consoleapi.h: that, and what is usual
ASKED_AT = ("admin_host", "admin_port", "admin_key")
WIDTH = 100  # columns that a help text fits into


def engine(_command: Command) -> int:
    """The embedded engine's help; `main` sends every other word after `engine` to it before anything is parsed."""
    from bioproxy.embedded import program  # loads llama.cpp

    return program.main(["--help"])


def show_help(command: Command) -> int:
    build_parser().parse_args([*filter(None, [command.arguments.about]), "--help"])
    return 0


def version(command: Command) -> int:
    if command.output.json:
        command.output.document({"version": __version__, "python": sys.version.split()[0]})
    else:
        command.output.line(f"bioproxy {__version__}")
    return 0


def flag_lines(keys: Iterable[str] = KEYS) -> str:
    """A paragraph for each flag that names files, and for each flag of these config keys."""
    options = [KEYS[key] for key in keys]
    lines = {**FILE_FLAGS, **{", ".join(option.flags): option.description for option in options}}
    following = " " * 33
    return "\n".join(
        textwrap.fill(f"{flags:<30} {what}", WIDTH, initial_indent="  ", subsequent_indent=following)
        for flags, what in lines.items()
    )


def help_format(prog: str) -> argparse.HelpFormatter:
    """Help that fits, with the epilog as it is."""
    return argparse.RawDescriptionHelpFormatter(prog, width=min(WIDTH, shutil.get_terminal_size().columns))


class UsageError(Exception):
    """The command line is wrong, in a line or more; `usage` is argparse's line on what it may be."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class Parser(argparse.ArgumentParser):
    """Argparse's, which names the nearest word for a wrong one, and raises instead of ending the program."""

    in_two = False  # words and flags are parsed one after the other

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, self.format_usage())

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """A word that may be missing may also stand after a flag; argparse alone takes it for missing then."""
        takes = {action.nargs for action in self._actions if not action.option_strings}
        if self.in_two or argparse.PARSER in takes or not takes & {"?", "*"}:
            return super().parse_known_args(args, namespace)
        self.in_two = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.in_two = False

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # the only place that argparse offers
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            near = close(str(value), map(str, action.choices or ()))
            message = f"there is no {value!r}; did you mean {near}?" if near else error.message
            raise argparse.ArgumentError(action, message) from None


class ShowVersion(argparse.Action):
    """`-version`: print one line and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from bioproxy.build import this_build, version_line

        sys.stdout.write(version_line(this_build()) + "\n")
        parser.exit()


@functools.cache
def build_parser() -> Parser:
    """The parser of what config flags leave over."""
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common_flags(common)
    epilog, short = EPILOG.format(flags=flag_lines()), SHORT_EPILOG.format(flags=flag_lines(ASKED_AT))
    parser = Parser(
        prog="bioproxy",
        description="The front door of self-hosted LLM servers: no prompt prefix is ever computed twice.",
        epilog=epilog,
        formatter_class=help_format,
        parents=[common],
    )
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="print version, commit and date, and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="verb")
    for verb in VERBS:
        flags = verbs.add_parser(
            verb.name, help=verb.about, description=verb.about, epilog=epilog if verb.name in WITH_CONFIG else short,
            formatter_class=help_format, parents=[common],
        )  # fmt: skip
        verb.flags(flags)
    return parser


def with_two_dashes(word: str) -> str:
    """`-json` is `--json`, as the flags of config keys allow; `-h` and `-n5` stay."""
    long = re.match(r"-[a-z][^\d]", word)
    return f"-{word}" if long else word


def understand(words: Sequence[str]) -> Command:
    """Take a command line apart. UsageError for a flag or a verb that is not there, or whose value is of no use."""
    parser = build_parser()
    try:
        flags = parse_flags(words, others=OWN_FLAGS)
    except ConfigError as error:
        raise UsageError(error.message, "") from error
    values = read_flags(flags.values, names=flags.names, folder=working_folder(), environment=os.environ)
    if values.problems:
        raise UsageError(ConfigError(values.problems).message, "")
    cut = flags.rest.index("--") if "--" in flags.rest else len(flags.rest)
    engine_words = tuple(flags.rest[cut + 1 :])
    arguments = parser.parse_args([with_two_dashes(word) for word in flags.rest[:cut]])
    arguments.verb = arguments.verb or "serve"
    if engine_words and not BY_NAME[arguments.verb].engine:
        parser.error(f"`{arguments.verb}` takes no arguments for an engine after --")
    colour = {"always": True, "never": False}.get(getattr(arguments, "colour", "auto"))
    return Command(arguments, flags, engine_words, Output(json=getattr(arguments, "json", False), colour=colour))


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors become sentences on stderr."""
    words = sys.argv[1:] if words is None else words
    prepare_console()
    try:
        if list(words[:1]) == ["engine"]:
            from bioproxy.embedded import program  # loads llama.cpp

            return program.main(list(words[1:]))
        if list(words[:1]) == ["__complete"]:
            from bioproxy.cli import completion as completing

            return completing.ask(words[1:], build_parser())
        command = understand(words)
        return BY_NAME[command.arguments.verb].run(command)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        let_go(sys.stdout)
        return PIPE_CLOSED
    except UsageError as error:
        sys.stderr.write(error.usage)
        return complain(words, str(error).splitlines(), USAGE)
    except ConfigError as error:
        return complain(words, [str(problem) for problem in error.problems], FAILED)
    except BioproxyError as error:
        return complain(words, [error.message], FAILED)


def prepare_console() -> None:
    """Have somewhere to print to, also the names of files, whatever bytes they have.

    What whoever started us has closed is opened, or the next file would get its number, and what children print.
    On Windows: print in UTF-8, into pipes as well, and let its window act upon what paints and moves the cursor.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as we run
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        for stream, number in ((sys.stdout, STD_OUTPUT), (sys.stderr, STD_ERROR)):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8", errors="replace")
            kernel.SetConsoleMode(kernel.GetStdHandle(number), VIRTUAL_TERMINAL)


def complain(words: Sequence[str], sentences: Sequence[str], code: int) -> int:
    """Say what is wrong, a line each on stderr; with `--json` also as the document that a script waits for."""
    for sentence in sentences:
        sys.stderr.write(f"bioproxy: {sentence}\n")
    ours = words[: words.index("--")] if "--" in words else words
    if "--json" in map(with_two_dashes, ours):
        with contextlib.suppress(BioproxyError):  # it may be the output that failed
            Output(json=True).document({"error": {"message": "\n".join(sentences), "code": code}})
    return code
