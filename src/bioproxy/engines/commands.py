"""What a command line starts: a llama-server, known by its name, or a container, and what of our files that shows.

Two readers need this. Before a start, models/command.py asks where a slot folder may be added. After it, discover.py
asks whether the process that listens is the engine itself: only a command line that is llama-server's own says what
shapes its cache, and any other program that holds a port (a forwarder, a container's client, another proxy) says
nothing about the engine that it leads to. So a program counts by what it is known to be, and never by not being on a
list.

The words after a container's image are the engine's own arguments, and its volumes say which of our files it calls
`/models/x.gguf`. Pure.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from posixpath import normpath

import msgspec

SERVER = re.compile(r"llama-server([-_.]\S*)?")
ALSO = re.compile(r"\.?llama[-_]server([-_.]\S*)?")  # as packages and scripts name what they start
DATA = re.compile(r".*\.(log|gguf|bin|txt|json|ya?ml|jinja2?|conf|cfg|ini|toml|sock|pid|md|service)", re.IGNORECASE)
MODULES = frozenset({"bioproxy.embedded", "bioproxy.engines.embedded"})  # the second: what earlier versions started
AS_IT_IS = re.compile(r"""(?:[^\s"'\\]|\\(?!\Z))+""")  # a word that Windows has without quotes
DRIVE = re.compile(r"[A-Za-z]:(?=[/\\])")  # begins a path of Windows
TWO_WORDS = frozenset({("llama", "serve"), ("bioproxy", "engine")})
INTERPRETER = re.compile(r"python[\d.]*")
WITH_VALUE = frozenset({"-X", "-W"})  # Python's options that take the next word
CONTAINERS = frozenset({"docker", "podman", "nerdctl"})
LETTERS = "ditqP"  # options of `run` without a value
SWITCHES = frozenset({
    "--detach", "--interactive", "--tty", "--rm", "--init", "--privileged", "--publish-all", "--read-only", "--rmi",
    "--no-healthcheck", "--oom-kill-disable", "--sig-proxy", "--disable-content-trust", "--quiet", "--replace",
    "--env-host", "--http-proxy", "--no-hosts", "--no-hostname", "--passwd", "--read-only-tmpfs", "--tls-verify",
    "--unsetenv-all",
})  # fmt: skip


class ContainerRun(msgspec.Struct, frozen=True, kw_only=True):
    """`docker run …`, read. `words` follow the image; `volumes` are (here, there), those to be read only as well."""

    image: str
    words: tuple[str, ...]
    environment: tuple[str, ...] = ()
    environment_files: tuple[str, ...] = ()
    volumes: tuple[tuple[str, str], ...] = ()
    folder: str = ""
    entrypoint: str = ""


# words


def basename(word: str) -> str:
    """The program that a word names: without its folder, and without the ending that Windows does not ask for."""
    return re.sub(r"(?i)\.exe\Z", "", re.split(r"[/\\]", word)[-1])


def joined(words: Sequence[str], *, windows: bool = sys.platform == "win32") -> str:
    """The command line that comes apart into `words` again; on Windows with `"` around a path that has blanks."""
    return " ".join(on_windows(word) for word in words) if windows else shlex.join(words)


def on_windows(word: str) -> str:
    if AS_IT_IS.fullmatch(word):
        return word
    return shlex.quote(word) if '"' in word or word.endswith("\\") else f'"{word}"'


# a llama-server


def server_at(words: Sequence[str], place: int) -> int:
    """The index after a llama-server's name that begins at `place`; 0 if none does."""
    if place >= len(words):
        return 0
    name, following = basename(words[place]), words[place + 1] if place + 1 < len(words) else ""
    if SERVER.fullmatch(name) and not DATA.fullmatch(name):
        return place + 1
    if (name, following) in TWO_WORDS:
        return place + 2
    return place + 1 if words[place] in MODULES and words[place - 1] == "-m" else 0


def is_server(words: Sequence[str], program: str = "") -> bool:
    """Whether a process with this command line is a llama-server; `program` is the file that it runs, if known.

    Only its own name counts, or that of the script or module that Python runs. What follows after that is an
    argument: `forward llama-server 8080` is a forwarder.
    """
    place = 0
    if words and INTERPRETER.fullmatch(basename(words[0])):
        place = 1
        while place < len(words) and words[place].startswith("-") and words[place] != "-m":
            place += 2 if words[place] in WITH_VALUE else 1
        place += place < len(words) and words[place] == "-m"
        if words[place : place + 2] == ["bioproxy", "engine"]:
            return True
    names = [basename(one) for one in (*words[place : place + 1], program)]
    return bool(server_at(words, place)) or any(ALSO.fullmatch(name) and not DATA.fullmatch(name) for name in names)


def option(command: Sequence[str], *names: str) -> str:
    """The value that `command` gives one of the flags `names`, the last one; `--flag value` and `--flag=value`."""
    found = ""
    for place, word in enumerate(command):
        name, equals, value = word.partition("=")
        if name in names and equals:
            found = value
        elif word in names and place + 1 < len(command):
            found = command[place + 1]
    return found


# a container


def is_container(words: Sequence[str]) -> bool:
    return run_at(words) > 0


def run_at(words: Sequence[str]) -> int:
    """The index after `run` of a command that runs a container; 0 for any other."""
    at = next((index for index, word in enumerate(words) if basename(word) in CONTAINERS), None)
    if at is None or "run" not in words[at + 1 : at + 4]:
        return 0
    return list(words).index("run", at + 1) + 1


def container_run(words: Sequence[str]) -> ContainerRun | None:
    """Read a command that runs a container; None for any other, and if no image can be found."""
    rest = list(words[run_at(words) :]) if is_container(words) else []
    given: list[tuple[str, str]] = []
    while rest and rest[0].startswith("-"):
        given.append(taken(rest))
    if not rest:
        return None
    values = [(name, value) for name, value in given if value]
    return ContainerRun(
        image=rest[0],
        words=tuple(rest[1:]),
        environment=tuple(value for name, value in values if name in {"-e", "--env"}),
        environment_files=tuple(value for name, value in values if name == "--env-file"),
        volumes=tuple(volumes([word for pair in values for word in pair], writable=False)),
        folder=next((value for name, value in reversed(values) if name in {"-w", "--workdir"}), ""),
        entrypoint=next((value for name, value in reversed(values) if name == "--entrypoint"), ""),
    )


def taken(rest: list[str]) -> tuple[str, str]:
    """Take one option of `run` off the front, with its value: `-it`, `-dp 80:80`, `-v=a:b`, `--env A=b`."""
    word = rest.pop(0)
    name, equals, value = word.partition("=")
    if not word.startswith("--"):
        letters = name[1:].lstrip(LETTERS)
        if not letters:
            return name, ""
        name, value = f"-{letters[0]}", letters[1:] + equals + value if letters[1:] else value
        equals = equals or letters[1:]
    if equals or name in SWITCHES:
        return name, value
    return name, rest.pop(0) if rest else ""


def volumes(words: Sequence[str], *, writable: bool = True) -> list[tuple[str, str]]:
    """The folders that a container shares with us: (here, there), from `-v`, `--volume` and `--mount type=bind`.

    What is mounted there and is not one of these (a volume without a name, `--tmpfs`, a mount of another type; if it
    shall be `writable`, what may only be read) has nothing on our side: it may lie over a part of another one.
    """
    found = []
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        given = value if equals else (words[index + 1] if index + 1 < len(words) else "")
        if name == "--volumes-from":
            return []  # another container's, wherever they are
        if name in {"-v", "--volume", "--tmpfs"} and (":" in given or given.startswith("/")):
            found.append(volume(given, writable=writable) if name != "--tmpfs" else ("", given.partition(":")[0]))
        elif name == "--mount":
            found += mount(given, writable=writable)
    return found


def volume(given: str, *, writable: bool) -> tuple[str, str]:
    """The value of `-v`: `here:there`, with options after it, or `there` alone."""
    drive = given[:2] if DRIVE.match(given) else ""
    source, colon, rest = given.removeprefix(drive).partition(":")
    source = drive + source
    target, *options = rest.split(":")
    readable = not writable or "ro" not in ",".join(options).split(",")
    return (source if readable else "", target) if colon else ("", given)


def mount(given: str, *, writable: bool) -> list[tuple[str, str]]:
    """The value of `--mount`, if it names a place in the container."""
    parts = dict(part.partition("=")[::2] for part in given.split(","))
    target = parts.get("target") or parts.get("dst") or parts.get("destination") or ""
    source = parts.get("source") or parts.get("src") or ""
    readable = not writable or not {"readonly", "ro"} & parts.keys()
    return [(source if parts.get("type") == "bind" and readable else "", target)] if target else []


def here(path: str, shared: Sequence[tuple[str, str]]) -> str:
    """What we call the file that a container with these volumes calls `path`; empty if no volume shows it to us."""
    inside = normpath(path)
    for source, target in sorted(shared, key=lambda pair: -len(normpath(pair[1]))):
        root = normpath(target)
        if inside == root or inside.startswith(root.rstrip("/") + "/"):
            return (
                normpath(source + inside[len(root.rstrip("/")) :])
                if DRIVE.match(source) or source.startswith("/")
                else ""
            )
    return ""
