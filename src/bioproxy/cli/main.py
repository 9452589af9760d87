"""`bioproxy`: one command with verbs; what each does is in a module of its own.

Every configuration key is a flag (`-proxy-port 8090`, `--kv-policy=off`); `config/flags.py` takes those off the command
line, and argparse sees what is left: the verb and the few flags that belong to verbs. Modules are imported when their
verb is called, because `bioproxy version` should not wait for an HTTP server to load.

`-version` prints llama-swap's line, for scripts that read it; the verb `version` is for people.

Exit codes: 0 all is well; 1 it failed, and the last line on stderr says why (a configuration with problems, nothing
answers, a damaged snapshot, a demo that was not fast enough); 2 the command line itself is wrong; 130 interrupted
(Ctrl-C), and 143 where a second SIGTERM cut the orderly end short.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bioproxy import __version__
from bioproxy.cli.output import Output
from bioproxy.config.flags import Flags, parse_flags
from bioproxy.config.keys import CONFIG_FLAG, FOLDER_FLAG, KEYS, LISTEN_FLAG, WATCH_FLAG
from bioproxy.errors import BioproxyError, ConfigError

FAILED, USAGE, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141
FILE_FLAGS = {
    f"{CONFIG_FLAG} FILE": "the configuration file",
    f"{FOLDER_FLAG} FOLDER": "a folder whose *.yaml and *.yml are the configuration, after FILE",
    WATCH_FLAG: "look at these files every two seconds, and reload when one changed",
    f"{LISTEN_FLAG} ADDRESS": "host:port for clients, instead of proxy_host and proxy_port; :8080 is all hosts",
}
OWN_FLAGS = ("-h", "--help", "--json", "--colour", "--once", "--no-wait", "--schema", "--version")
EPILOG = """\
Exit codes: 0 fine, 1 failed, 2 wrong usage, 130 interrupted.

Every key of the configuration is a flag as well, with one dash or two, for every verb; `bioproxy config` shows their
values and where each came from.

{flags}
"""


class Verb(msgspec.Struct, frozen=True):
    """One verb: `run` gets the whole command and returns the exit code; `flags` adds arguments to its parser."""

    name: str
    about: str
    run: Callable[[Command], int]
    flags: Callable[[argparse.ArgumentParser], object] = lambda _parser: None
    engine: bool = False  # takes llama-server's arguments behind `--`


class Command(msgspec.Struct, frozen=True):
    """A command line, taken apart. `engine`: the words behind `--`."""

    arguments: argparse.Namespace
    flags: Flags
    engine: tuple[str, ...]
    output: Output

    def load(self) -> Any:
        """The configuration as file, environment and flags say now. Raises ConfigError with all problems."""
        from bioproxy.config.load import load  # noqa: PLC0415 - version and help need none

        values, names = dict(self.flags.values), dict(self.flags.names)
        if self.engine:
            values["engine_arguments"] = msgspec.json.encode(self.engine).decode()
            names["engine_arguments"] = "--"
        flags = self.flags
        return load(values, path=flags.path, directory=flags.directory, environment=os.environ, names=names)


def serve(command: Command) -> int:
    """Serve until a signal comes."""
    from bioproxy.cli import serve as module  # noqa: PLC0415 - loads the whole program

    loaded = command.load()
    return module.run(lambda: module.serve(loaded, command.load, watch=command.flags.watch))


def demo(command: Command) -> int:
    """Show on a real engine what a warm cache is worth."""
    from bioproxy.cli import demo as module  # noqa: PLC0415 - loads the whole program

    return module.run(command.output, once=command.arguments.once)


def engine(_command: Command) -> int:
    """The embedded engine; `command` sends its words there before anything else is looked at."""
    from bioproxy.engines import embedded  # noqa: PLC0415 - loads llama.cpp

    return embedded.main(["--help"])


def check(command: Command) -> int:
    """Validate configuration and templates."""
    from bioproxy.cli import checks  # noqa: PLC0415 - reads templates

    return checks.check(command.output, command.load)


def config(command: Command) -> int:
    """Print every effective value and where it came from."""
    from bioproxy.cli import checks  # noqa: PLC0415 - reads templates

    wanted = command.arguments.schema
    return checks.schema(command.output, wanted) if wanted else checks.config(command.output, command.load)


def status(command: Command) -> int:
    """What the running program does, and why."""
    from bioproxy.cli import remote  # noqa: PLC0415 - talks HTTP

    return remote.status(command.output, command.load().config)


def warm(command: Command) -> int:
    """Warm one template up now."""
    from bioproxy.cli import remote  # noqa: PLC0415 - talks HTTP

    arguments = command.arguments
    return remote.warm(command.output, command.load().config, prefix=arguments.prefix, wait=not arguments.no_wait)


def snapshots(command: Command) -> int:
    """The snapshots on disk: list them, or compare each with what was written."""
    from bioproxy.cli import snapshots as module  # noqa: PLC0415 - reads files

    return module.run(command.output, command.load().config, verify=command.arguments.action == "verify")


def version(command: Command) -> int:
    """The version."""
    if command.output.json:
        command.output.document({"version": __version__, "python": sys.version.split()[0]})
    else:
        command.output.line(f"bioproxy {__version__}")
    return 0


def demo_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `demo`."""
    parser.add_argument("--once", action="store_true", help="end after the table instead of serving on")


def config_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `config`."""
    parser.add_argument(
        "--schema",
        nargs="?",
        const="bioproxy",
        choices=("bioproxy", "llama-swap"),
        help="print the JSON Schema of the file, for editors, in its own or in llama-swap's dialect",
    )


def warm_flags(parser: argparse.ArgumentParser) -> None:
    """Arguments of `warm`."""
    parser.add_argument("prefix", help="the template's prefix, such as @code")
    parser.add_argument("--no-wait", action="store_true", help="ask for it and return at once")


def snapshots_flags(parser: argparse.ArgumentParser) -> None:
    """Arguments of `snapshots`."""
    parser.add_argument("action", choices=("list", "verify"), help="show them, or read them and compare")


VERBS = (
    Verb("serve", "run the proxy (the default); -model FILE serves a model of its own", serve, engine=True),
    Verb("demo", "a real engine on a generated model: cold, warm, after kill -9; then it serves on", demo, demo_flags),
    Verb("engine", "the embedded llama.cpp alone, with llama-server's own flags", engine),
    Verb("check", "validate configuration and templates; exit 0 or 1", check),
    Verb("config", "print every effective value and where it came from", config, config_flags),
    Verb("status", "what the running program does, and why", status),
    Verb("warm", "warm one template up now", warm, warm_flags),
    Verb("snapshots", "list or verify the snapshots on disk", snapshots, snapshots_flags),
    Verb("version", "print the version", version),
)
BY_NAME = {verb.name: verb for verb in VERBS}


def flag_lines() -> str:
    """A line for each flag that names files, and for each flag of a config key."""
    lines = {**FILE_FLAGS, **{", ".join(option.flags): option.description for option in KEYS.values()}}
    return "\n".join(f"  {flags:<30} {what}" for flags, what in lines.items())


class ShowVersion(argparse.Action):
    """`-version`: print one line and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Where argparse meets the flag."""
        from bioproxy.cli.build import version_line  # noqa: PLC0415 - reads files

        sys.stdout.write(version_line() + "\n")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The parser of what config flags leave over."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument("--colour", choices=("auto", "always", "never"), help="colours (auto: on a terminal)")
    parser = argparse.ArgumentParser(
        prog="bioproxy",
        description="The front door of self-hosted LLM servers: no prompt prefix is ever computed twice.",
        epilog=EPILOG.format(flags=flag_lines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="print version, commit and date, and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="verb")
    for verb in VERBS:
        verb.flags(verbs.add_parser(verb.name, help=verb.about, description=verb.about, parents=[common]))
    return parser


def with_two_dashes(word: str) -> str:
    """`-json` is `--json`, as the flags of config keys allow; `-h` stays."""
    return f"-{word}" if word.startswith("-") and not word.startswith("--") and len(word) > 2 else word


def understand(words: Sequence[str]) -> Command:
    """Take a command line apart. Usage errors end the program with 2, as argparse does."""
    parser = build_parser()
    try:
        flags = parse_flags(words, others=OWN_FLAGS)
    except ConfigError as error:
        parser.exit(USAGE, "".join(f"bioproxy: {problem}\n" for problem in error.problems))
    cut = flags.rest.index("--") if "--" in flags.rest else len(flags.rest)
    engine_words = tuple(flags.rest[cut + 1 :])
    arguments = parser.parse_args([with_two_dashes(word) for word in flags.rest[:cut]])
    arguments.verb = arguments.verb or "serve"
    if engine_words and not BY_NAME[arguments.verb].engine:
        parser.error(f"`{arguments.verb}` takes no arguments for an engine behind --")
    colour = {"always": True, "never": False}.get(getattr(arguments, "colour", "auto"))
    return Command(arguments, flags, engine_words, Output(json=getattr(arguments, "json", False), colour=colour))


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors become sentences on stderr."""
    words = sys.argv[1:] if words is None else words
    try:
        if list(words[:1]) == ["engine"]:
            from bioproxy.engines import embedded  # noqa: PLC0415 - loads llama.cpp

            return embedded.main(list(words[1:]))
        command = understand(words)
        return BY_NAME[command.arguments.verb].run(command)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at its own end
        return PIPE_CLOSED
    except ConfigError as error:
        return complain([str(problem) for problem in error.problems])
    except BioproxyError as error:
        return complain([error.message])


def complain(sentences: Sequence[str]) -> int:
    """Say what is wrong, a line each."""
    for sentence in sentences:
        sys.stderr.write(f"bioproxy: {sentence}\n")
    return FAILED
