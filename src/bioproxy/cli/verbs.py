"""Every verb of the command line: what it is for, what it takes, and which function does it.

A verb's function stands in a module of this package and takes the whole command. It is named here as a text and
imported when it is called, because `bioproxy version` should not wait until an HTTP server is loaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import get_args

import msgspec

from bioproxy.activity import Outcome
from bioproxy.cli.command import Command
from bioproxy.config.units import read_seconds

NEWEST = 20  # requests that are shown if no number is given
DIGITS = 9
MOST_SLOTS = 256  # of llama.cpp: n_seq_max must be <= 256, it says
STDOUT = "-"  # in the place of a file: standard output
CACHE_TYPES = ("f16", "q8_0", "q4_0", "f32", "bf16", "q5_1", "q5_0", "q4_1", "iq4_nl")


class Verb(msgspec.Struct, frozen=True):
    """One verb. `function` is `module:name` in this package; `flags` adds the verb's arguments to its parser."""

    name: str
    about: str
    function: str
    flags: Callable[[argparse.ArgumentParser], object] = lambda _parser: None
    engine: bool = False  # takes llama-server's arguments after `--`

    def run(self, command: Command) -> int:
        module, _, name = self.function.partition(":")
        return int(getattr(import_module(f"bioproxy.cli.{module}"), name)(command))


def new_file(text: str) -> str:
    """A file that a verb writes; "" is standard output, and so is `-`."""
    return "" if text == STDOUT else text


def common_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that every verb takes."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--colour", choices=("auto", "always", "never"), help="colours (auto: on a terminal)")


def demo_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="end after the tables instead of serving on")


def config_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--schema",
        nargs="?",
        const="bioproxy",
        choices=("bioproxy", "llama-swap"),
        help="print the JSON Schema of the file, for editors, in its own or in llama-swap's dialect",
    )


def load_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="the model, by any of its names")


def unload_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="", help="the model; without it, all of them")


def pause_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--for", dest="length", metavar="TIME", type=time_span, default="", help="for so long, such as 1h30m"
    )


def logs_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", default="", help="a model, `proxy` (our own) or `upstream` (all engines'); without it, both"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing what is added to it")


def at_least_one(text: str) -> int:
    """A number of requests."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def requests_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n", dest="number", metavar="N", type=at_least_one, default=NEWEST, help="how many (%(default)s)"
    )
    parser.add_argument("--outcome", choices=get_args(Outcome), default="", help="only those that ended like this")
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing requests as they end")


def warm_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prefix", help="the template's prefix, such as @code")
    parser.add_argument("--no-wait", action="store_true", help="start it and return at once")


def snapshots_flags(parser: argparse.ArgumentParser) -> None:
    actions = ("list", "verify", "pin", "unpin", "delete", "prune")
    about = "list them, compare every byte with its checksum, keep or remove one, or remove many"
    parser.add_argument("action", choices=actions, help=about)
    parser.add_argument("name", nargs="?", default="", help="the snapshot to pin, unpin or delete: its id in the list")
    parser.add_argument("--key", metavar="NAME", default="", help="prune: conversations of the API key with this name")
    parser.add_argument(
        "--older", metavar="TIME", type=time_span, default="", help="prune: not used for so long, such as 30d"
    )
    parser.epilog = f"prune also takes --model MODEL: snapshots of this one of many models\n\n{parser.epilog or ''}"


def contexts_flags(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="list|keep|rename|export|import|delete", required=True)

    def action(name: str, about: str, *words: tuple[str, str]) -> argparse.ArgumentParser:
        found = actions.add_parser(name, help=about, argument_default=argparse.SUPPRESS)
        for word, said in words:
            found.add_argument(word, metavar=word.upper(), help=said)
        common_flags(found)
        return found

    action("list", "every context that the key may see")
    action("keep", "keep what a request left", ("name", "the context's name"), ("request", "the id of that request"))
    action("rename", "give one another name", ("name", "the context"), ("new", "its new name"))
    export = action("export", "write one into a file", ("name", "the context"))
    export.add_argument(
        "file", metavar="FILE", nargs="?", default="", help="a new file, or - for stdout; without it, NAME.tar"
    )
    bring_in = action("import", "bring one in from a file", ("file", "what an export wrote, or - for stdin"))
    bring_in.add_argument("name", metavar="NAME", nargs="?", default="", help="its name; without it, as it was called")
    bring_in.add_argument("--key", dest="key", metavar="NAME", default="", help="the API key whose it shall be")
    action("delete", "delete one", ("name", "the context"))


def captures_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("export",), help="write them as JSON Lines, the oldest first")
    said = "a new file; without it, or with -, to stdout"
    parser.add_argument("file", metavar="FILE", nargs="?", default="", type=new_file, help=said)
    parser.add_argument("--since", metavar="TIME", type=time_span, default="", help="those of so long, such as 2d")
    parser.add_argument("--client", metavar="NAME", default="", help="those of the API key, or address, of this name")
    parser.epilog = f"it also takes --model MODEL: those of this one of many models\n\n{parser.epilog or ''}"


def recipes_flags(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="list|show|add", required=True)
    every = actions.add_parser("list", help="every recipe in a line", argument_default=argparse.SUPPRESS)
    show = actions.add_parser(
        "show", help="what a recipe needs, and the entry that it makes", argument_default=argparse.SUPPRESS
    )
    show.add_argument("name", metavar="RECIPE")
    add = actions.add_parser(
        "add", help="write the entry into a configuration file", argument_default=argparse.SUPPRESS
    )
    add.add_argument("name", metavar="RECIPE")
    add.add_argument(
        "file", metavar="FILE", nargs="?", default="", help="the config, or - for stdout; without it, the one in use"
    )
    add.add_argument("--set", dest="given", metavar="NAME=VALUE", action="append", default=[], help="a setting")
    add.add_argument("--as", dest="model", metavar="MODEL", default="", help="the model's name")
    for action in (every, show, add):
        common_flags(action)


def import_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.ini", help="the preset")
    said = "a new file for it; without, or with -, to stdout"
    parser.add_argument("-o", dest="target", metavar="FILE", default="", type=new_file, help=said)


def init_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", metavar="FOLDER", nargs="*", default=[], help="further folders with GGUF files")
    parser.add_argument("--yes", action="store_true", help="ask nothing: take what is proposed")
    slots = "conversations that a model can answer at once (1); each has a part of the context"
    parser.add_argument("--slots", metavar="N", type=slot_count, default=1, help=slots)


def fit_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="MODEL.gguf", help="the model: of a split one, any part")
    parser.add_argument("-c", "--ctx-size", dest="context", metavar="N", type=tokens, help="context, over all slots")
    parser.add_argument("--np", "--parallel", dest="slots", metavar="N", type=slot_count, help="slots (1)")
    parser.add_argument("--ngl", "--gpu-layers", dest="gpu_layers", metavar="N", type=tokens, help="layers on cards")
    parser.add_argument(
        "--n-cpu-moe", dest="cpu_experts", metavar="N", type=tokens, help="layers with experts in memory"
    )
    parser.add_argument("--ctk", "--cache-type-k", dest="cache_k", choices=CACHE_TYPES, help="cache type of keys (f16)")
    parser.add_argument("--ctv", "--cache-type-v", dest="cache_v", choices=CACHE_TYPES, help="the same of values")
    parser.add_argument("--ub", "--ubatch-size", dest="batch", metavar="N", type=at_least_one, help="batch (512)")
    parser.add_argument("--mmproj", metavar="FILE", default="", help="its projector")


def slot_count(text: str) -> int:
    """A number of slots that llama.cpp takes."""
    if (number := at_least_one(text)) > MOST_SLOTS:
        raise argparse.ArgumentTypeError(f"llama.cpp has {MOST_SLOTS} slots at most, got {text!r}")
    return number


def time_span(text: str) -> str:
    """A length of time as it was written; "" is none."""
    try:
        read_seconds(text or "0")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, got {text!r}") from None
    return text


def tokens(text: str) -> int:
    """A whole number of few digits: more of them are a slip of the finger."""
    if not text.isdecimal() or len(text) > DIGITS:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {10**DIGITS - 1}, got {text!r}")
    return int(text)


def completion_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")


def help_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("about", metavar="VERB", nargs="?", choices=tuple(BY_NAME), help="the verb")


VERBS = (
    Verb("serve", "run the proxy (the default); -model FILE gives it an engine of its own", "serve:verb", engine=True),
    Verb("demo", "measure what a warm cache is worth, on a real engine and a generated model", "demo:run", demo_flags),
    Verb("engine", "run the embedded llama.cpp alone, with llama-server's own flags", "main:engine"),
    Verb("check", "validate configuration and templates; exit 0 or 1", "checks:check"),
    Verb("config", "print every effective value and where it came from", "checks:config", config_flags),
    Verb("status", "show what the running program does, and why", "remote:status"),
    Verb("models", "list every model: state, memory, requests, what its cache holds", "models:models"),
    Verb("load", "load a model", "models:load", load_flags),
    Verb("unload", "stop a model, or all of them", "models:unload", unload_flags),
    Verb("pause", "save, stop every engine and refuse requests: the card is wanted", "pause:pause", pause_flags),
    Verb("resume", "end a pause", "pause:resume"),
    Verb("logs", "print a model's log, or another one; -f follows", "logs:logs", logs_flags),
    Verb("requests", "list the newest requests and where time went; -f follows", "requests:requests", requests_flags),
    Verb("doctor", "say why prompts were read again, and what would save most", "doctor:doctor"),
    Verb("top", "watch models and requests under way", "top:top"),
    Verb("warm", "warm up one template now", "remote:warm", warm_flags),
    Verb("snapshots", "list, verify, pin, delete or prune the snapshots on disk", "snapshots:run", snapshots_flags),
    Verb("captures", "write captured requests and answers into a file", "captures:run", captures_flags),
    Verb("contexts", "keep, list, export or delete what requests left, by name", "contexts:run", contexts_flags),
    Verb("recipes", "list or show entries for `models`, or add one to a config", "recipes:run", recipes_flags),
    Verb("import", "turn a llama.cpp router preset into a configuration", "import_preset:run", import_flags),
    Verb("init", "look at this machine and write a configuration for what is on it", "init:run", init_flags),
    Verb("fit", "estimate the memory that a GGUF file will take, and what fits this machine", "fit:run", fit_flags),
    Verb("completion", "print the script that lets a shell complete commands", "completion:script", completion_flags),
    Verb("version", "print the version", "main:version"),
    Verb("help", "show this help, or that of a verb", "main:show_help", help_flags),
)  # fmt: skip
BY_NAME = {verb.name: verb for verb in VERBS}
