"""What a model's `cmd` becomes before it is run: words, and for a llama-server a folder for its slot files.

No shell reads a `cmd`, so it is split here as one would split it. If it runs llama-server, directly or after `env`,
`taskset`, `nice`, `sh -c "…"` and the like, it gets `--slot-save-path FOLDER` right after the program's name, unless
it has one; nothing else of it changes. Right after the name, because there it is an argument of that program whatever
follows: in `sh -c "llama-server -m x.gguf | tee log"` the end of the words belongs to `tee`.

The name counts only where a program's name stands: as the command, or as the first argument of a command that we do not
know (`my-wrapper llama-server`). In `vllm serve /models/llama-server` it is a folder, and a flag that vLLM does not
know would keep it from starting; if it cannot be told, nothing is added.

A container sees other folders than we do. Nothing is added to such a command; if it names a slot folder itself and
a volume shows that folder to us, the two names of it are known, and that is all that is needed.

Whether a process *is* a llama-server is found out by asking it once it is ready (engines/discover.py); a script of
another name may well start one. Pure.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence

import msgspec

from bioproxy.engines.commands import INTERPRETER, basename, here, is_container, option, server_at, volumes

FLAG = "--slot-save-path"
VARIABLE = "LLAMA_ARG_SLOT_SAVE_PATH"
IDLE_SLOTS = "LLAMA_ARG_CACHE_IDLE_SLOTS"
WRAPPERS = frozenset({
    "env", "taskset", "nice", "ionice", "nohup", "numactl", "stdbuf", "time", "timeout", "setsid", "chrt", "sudo",
    "doas", "systemd-run", "prlimit", "exec", "unbuffer",
})  # fmt: skip
PASSED = re.compile(r"-.*|\w+=.*|[\d.,:x-]+[smhd]?")  # options, variables, numbers: what stands before what is wrapped
MENTION = frozenset({"echo", "printf", "cat", "tail", "ls", "rm", "which", "type", "pkill", "killall", "pgrep", "ssh"})
KEYWORDS = frozenset({"if", "then", "elif", "else", "while", "until", "do", "!", "{"})
SCRIPT = re.compile(r"""(?P<end>[;&|()\n]+)|(?P<word>(?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s;&|()"'\\])+)|.""", re.DOTALL)
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ash", "ksh"})
CONTINUED = re.compile(r"(?<!\\)((?:\\\\)*)\\\r?\n")  # of two backslashes the second one is meant
PIECE = re.compile(
    r"""(?P<blank>[ \t\r\n]+)|(?P<plain>[^ \t\r\n"'\\]+)|\\(?P<escaped>.)|'(?P<single>[^']*)(?:'|\Z)"""
    r"""|"(?P<double>[^"\\]*(?:\\.[^"\\]*)*)(?:"|\Z)|(?P<left>.)""",
    re.DOTALL,
)
ON_WINDOWS = re.compile(  # the same, and a backslash is one unless a `"` follows it
    r"""(?P<blank>[ \t\r\n]+)|(?P<plain>(?:[^ \t\r\n"'\\]|\\(?!"))+)|\\(?P<escaped>")|'(?P<single>[^']*)(?:'|\Z)"""
    r"""|"(?P<double>(?:\\"|[^"])*)(?:"|\Z)""",
)
ESCAPED = re.compile(r"""\\(["\\])""")  # in double quotes a backslash is one before other characters
QUOTED = re.compile(r"""\\(")""")  # and so on Windows


class Folders(msgspec.Struct, frozen=True):
    """One slot folder: as we see it, and as the engine calls it; both empty if none is known."""

    ours: str = ""
    engine: str = ""


class Prepared(msgspec.Struct, frozen=True):
    """A command ready to be run. `added`: we gave it its slot folder. `folders` differ for a container only."""

    words: tuple[str, ...]
    added: bool = False
    folders: Folders = Folders()


def split(command: str, *, windows: bool = sys.platform == "win32") -> list[str]:
    """The words of `command`, as a shell would split them, without anything else that a shell does.

    A backslash at a line's end joins lines; on Windows any other is a part of a path, unless a `"` follows it. With a
    quote that is not closed the rest is one word. (The standard library's `shlex` takes a second for a megabyte, and
    minutes if that is one word.)
    """
    text = CONTINUED.sub(r"\1 ", command).rstrip()
    if not windows and text.endswith("\\") and not text.endswith("\\\\"):
        text = text[:-1]
    escaped = QUOTED if windows else ESCAPED
    words: list[str] = []
    parts: list[str] | None = None  # of the word that is being read
    for piece in (ON_WINDOWS if windows else PIECE).finditer(text):
        if piece.lastgroup == "blank":
            if parts is not None:
                words.append("".join(parts))
            parts = None
            continue
        part = piece[piece.lastgroup or 0]
        parts = [] if parts is None else parts
        parts.append(escaped.sub(r"\1", part) if piece.lastgroup == "double" else part)
    return words if parts is None else [*words, "".join(parts)]


def names_port(words: Sequence[str], port: int | str) -> bool:
    """Whether `port` stands in a command as a number of its own, not as digits of another one (`--ctx 141995`).

    Or the path of a socket, not as the beginning of another one.
    """
    number = re.compile(rf"(?<![\d.]){re.escape(str(port))}(?![\d.])")
    return any(number.search(word) for word in words)


def prepare(words: Sequence[str], *, folder: str, environment: Sequence[str] = ()) -> Prepared:
    """`words` with a slot folder for a llama-server that has none; `folder` empty: nothing is ever added.

    `environment`: the model's own `NAME=value` entries, in which llama-server may find the folder as well.
    """
    plain = Prepared(tuple(words))
    if is_container(words):
        return Prepared(tuple(words), folders=shared_folder(words))
    if not folder or named(words) or any(entry.startswith(f"{VARIABLE}=") for entry in environment):
        return plain
    at = program_at(words)
    if at is not None:
        return Prepared((*words[:at], FLAG, folder, *words[at:]), added=True, folders=Folders(folder, folder))
    script = script_at(words)
    place = None if script is None else place_in(words[script])
    if script is None or place is None:
        return plain
    text = words[script]
    changed = f"{text[:place]} {FLAG} {shlex.quote(folder)}{text[place:]}"
    return Prepared((*words[:script], changed, *words[script + 1 :]), added=True, folders=Folders(folder, folder))


def keeps_idle_slots(words: Sequence[str], environment: Sequence[str]) -> tuple[str, ...]:
    """What to add to the environment of a llama-server, so that one slot's request does not empty the idle ones.

    As `--no-cache-idle-slots`, but a build that is too old to know it would not start with the flag, and passes over
    the variable. Nothing if the command or its environment says anything about it.
    """
    said = any("cache-idle-slots" in word or IDLE_SLOTS in word for word in (*words, *environment))
    return () if said or is_container(words) or not (named(words) or program_at(words)) else (f"{IDLE_SLOTS}=0",)


def named(words: Sequence[str]) -> bool:
    """Whether a slot folder stands in the command already, in a script inside it too."""
    return any(FLAG in word or f"{VARIABLE}=" in word for word in words)


def places(words: Sequence[str]) -> tuple[int, ...]:
    """Where a program's name may stand: after what wraps it, or as the first argument of a command not known to us."""
    place = 0
    while place < len(words) and wraps(words[place]):
        place += 1
        while place < len(words) and PASSED.fullmatch(words[place]):
            place += 1
    known = basename(words[place]) if place < len(words) else ""
    return (place,) if known in SHELLS or known in MENTION else (place, place + 1)


def wrapped_program(words: Sequence[str]) -> str:
    """The program that `env`, `nice` and the like run; "" if the command is no such wrapper, or names none.

    What an interpreter runs is a script or a module, which need not be on PATH.
    """
    place = places(words)[0]
    scripted = any(INTERPRETER.fullmatch(basename(word)) for word in words[:place])
    return words[place] if 0 < place < len(words) and not scripted else ""


def program_at(words: Sequence[str]) -> int | None:
    """The index after the words that name a llama-server (`llama-server`, `llama serve`); None if none does."""
    return next((behind for place in places(words) if (behind := server_at(words, place))), None)


def wraps(word: str) -> bool:
    """Whether a program runs the one that follows."""
    return basename(word) in WRAPPERS or INTERPRETER.fullmatch(basename(word)) is not None


def place_in(script: str) -> int | None:
    """Where in a shell's script the arguments of a llama-server begin; None if none is run."""
    words: list[str] = []
    ends: list[int] = []
    for found in [*SCRIPT.finditer(script), None]:
        if found is not None and found["word"]:
            words.append(re.sub(r"[\"']|\\(?=.)", "", found["word"]))
            ends.append(found.end())
        elif found is None or found["end"]:
            start = next((at for at, word in enumerate(words) if word not in KEYWORDS and not is_variable(word)), 0)
            behind = program_at(words[start:])
            if behind is not None and not words[start].startswith("#"):
                return ends[start + behind - 1]
            words, ends = [], []
        elif found[0] in "\"'":  # not closed: no shell would run this
            return None
    return None


def is_variable(word: str) -> bool:
    """Whether a word of a script sets a variable."""
    name, equals, _ = word.partition("=")
    return bool(equals) and name.isidentifier()


def script_at(words: Sequence[str]) -> int | None:
    """The index of the script in `sh -c SCRIPT`; None if there is no such thing."""
    shell = next((place for place in places(words) if place < len(words) and basename(words[place]) in SHELLS), None)
    if shell is None:
        return None
    for later in range(shell + 1, len(words) - 1):
        option = words[later]
        if option.startswith("-") and not option.startswith("--") and option.endswith("c"):
            return later + 1
    return None


def shared_folder(words: Sequence[str]) -> Folders:
    """The slot folder of a container, if a volume shows it to us."""
    engine = option(words, FLAG)
    ours = here(engine, volumes(words)) if engine else ""
    return Folders(ours, engine) if ours else Folders()
