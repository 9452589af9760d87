"""llama.cpp's router presets, translated into a config for bioproxy.

A preset is an INI file (llama.cpp: docs/preset.md and its reader): `[*]` holds what is common, each other section is a
model, each key an option of llama-server. A model's key wins over the common one of the same option, whatever the two
are called. From that come a `cmd` for each model and the keys that llama-swap's dialect has in place of options of the
router: `load-on-startup`, `stop-timeout`, `alias`, `tags`. What has no counterpart is named, in the config and beside
it, because what is dropped in silence is missed in production. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from bioproxy.engines.commands import joined
from bioproxy.errors import ConfigError, Problem
from bioproxy.recipes import yaml_text
from bioproxy.recipes.options import FALSE, TRUE, Option, option_of, words_of

Json: TypeAlias = Any

COMMON = "*"
EMPTY = re.compile(r"[ \t]*(?:[;#].*)?")
HEADER = re.compile(r"[ \t]*\[([^\]]*)\][ \t]*(?:[;#].*)?")
PAIR = re.compile(r"[ \t]*(-{0,2}[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=([^;#]*)(?:([;#]).*)?")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(?::[\w.-]+)?")
SOURCES = ("model", "model-url", "hf-repo", "docker-repo")
CHOSEN_HERE = ("host", "port", "reuse-port")  # where a model listens is between it and us
ELSEWHERE = {
    "api-key": "write apiKeys at the top of the config",
    "api-key-file": "write apiKeys at the top of the config",
    "ssl-key-file": "give bioproxy -tls-key-file",
    "ssl-cert-file": "give bioproxy -tls-cert-file",
    "api-prefix": "models are reached without one here",
    "models-dir": "each model needs an entry here",
    "models-preset": "each model needs an entry here",
    "models-max": "write groups or a matrix",
    "models-autoload": "models are always loaded when asked for",
    "dedup-cache-models": "only the models of the preset are listed here",
    "control-vector-layer-range": "it has two values, which a preset cannot hold",
}
ONE_AT_A_TIME = (
    "models run one at a time, while the router keeps up to four; write groups or a matrix to let some run together"
)


class Pair(msgspec.Struct, frozen=True):
    """One `key = value` with its line."""

    key: str
    value: str
    line: int
    cut: bool = False  # a comment ended it


class Translated(msgspec.Struct, frozen=True):
    """The config, and what a person should know about it."""

    text: str
    notes: tuple[str, ...]
    models: tuple[str, ...]


class Collected(msgspec.Struct):
    """What the models have together."""

    notes: list[str] = []
    preload: list[str] = []


def parse(text: str, path: str) -> dict[str, list[Pair]]:
    """Sections in their order; "" is what stands before the first. ConfigError with every line that is none."""
    sections: dict[str, list[Pair]] = {"": []}
    current, problems = "", []
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff")), start=1):
        if EMPTY.fullmatch(line):
            continue
        if (header := HEADER.fullmatch(line)) and (name := header[1].strip(" \t")):
            current = name
            sections.pop(current, None)  # a section that stands twice: the last one counts, as in llama.cpp
            sections[current] = []
        elif pair := PAIR.fullmatch(line):
            sections[current].append(Pair(pair[1], pair[2].strip(" \t"), number, cut=pair[3] is not None))
        else:
            problems.append(Problem(f"neither a [section] nor a key = value: {line.strip()[:60]}", f"{path}:{number}"))
    if problems:
        raise ConfigError(problems)
    return sections


def translate(text: str, *, path: str) -> Translated:
    """The config for the preset `text`; `path` is its name in messages. ConfigError if there is no model in it."""
    sections = parse(text, path)
    collected = Collected()
    common = sections.pop(COMMON, [])
    collected.notes += [
        f"line {pair.line}: {pair.key} belongs to no model; write it into [*]"
        for pair in sections.pop("")
        if pair.key != "version"
    ]
    entries = {}
    for name, pairs in sections.items():
        entry = entry_of(name, merged(common, pairs), collected)
        if entry is not None:
            entries[name] = entry
    if not entries:
        raise ConfigError([Problem("; ".join(["there is no model in this preset", *collected.notes]), path)])
    collected.notes += lost_text([*common, *(pair for pairs in sections.values() for pair in pairs)])
    if len(entries) > 1:
        collected.notes.append(ONE_AT_A_TIME)
    config: dict[str, Json] = {"models": entries}
    if collected.preload:
        config["hooks"] = {"on_startup": {"preload": collected.preload}}
    notes = tuple(dict.fromkeys(collected.notes))
    return Translated(written(config, path, notes), notes, tuple(entries))


def lost_text(pairs: list[Pair]) -> Iterator[str]:
    """Values that a comment sign cuts without a blank before it, which people rarely mean."""
    for pair in pairs:
        if pair.cut and pair.key in {"samplers", "chat-template", "dry-sequence-breaker", "reverse-prompt"}:
            yield f"line {pair.line}: the value of {pair.key} ends at ; or #, which begin a comment in a preset"


def merged(common: list[Pair], own: list[Pair]) -> dict[str, tuple[Option, str]]:
    """Option name to option and value: the model's wins, and of two equal ones the last."""
    found: dict[str, tuple[Option, str]] = {}
    for pair in (*common, *own):
        option = option_of(pair.key)
        found[option.name] = (option, pair.value)
    return found


def entry_of(name: str, options: dict[str, tuple[Option, str]], collected: Collected) -> dict[str, Json] | None:
    """One model; None if nothing says which file it is."""
    entry: dict[str, Json] = {}
    command = [["llama-server", "--host", "127.0.0.1", "--port", "${PORT}"]]
    if not any(source in options for source in SOURCES):
        if not REPOSITORY.fullmatch(name):
            collected.notes.append(f"[{name}] names no model file (model, hf-repo, …); it is left out")
            return None
        command.append(["--hf-repo", name])
    for option, value in options.values():
        if not taken_over(name, option, value, entry, collected):
            command.append(argument(name, option, value, collected))
    lines = [" ".join(word if word == "${PORT}" else joined([word]) for word in words) for words in command if words]
    return {"cmd": "\n".join(lines) + "\n", "proxy": "http://127.0.0.1:${PORT}", **entry}


def taken_over(name: str, option: Option, value: str, entry: dict[str, Json], collected: Collected) -> bool:
    """Whether the option became a key of the entry, or a note, and is none of llama-server's own here."""
    match option.name:
        case "alias":
            aliases = dict.fromkeys(alias.strip() for alias in value.split(","))
            entry["aliases"] = [alias for alias in aliases if alias not in {"", name}]
        case "tags":
            entry["metadata"] = {"tags": [tag.strip() for tag in value.split(",") if tag.strip()]}
        case "hf-token":
            entry["env"] = [f"HF_TOKEN={value}"]
        case "stop-timeout" if value.isdigit():
            entry["unloadTimeout"] = int(value)
        case "load-on-startup" if value.lower() in TRUE | FALSE:
            if value.lower() in TRUE:
                collected.preload.append(name)
        case "version" | "host" | "port" | "reuse-port":
            if option.name in CHOSEN_HERE:
                collected.notes.append(f"{option.name}: bioproxy decides where a model listens")
        case "stop-timeout" | "load-on-startup":
            collected.notes.append(f"[{name}] {option.name} = {value}: not understood; left out")
        case other if other in ELSEWHERE:
            collected.notes.append(f"{other}: {ELSEWHERE[other]}")
        case _:
            return False
    return True


def argument(name: str, option: Option, value: str, collected: Collected) -> list[str]:
    """The words of an option of llama-server's, and notes about what is doubtful in them."""
    if "${" in value:
        collected.notes.append(f"[{name}] {option.name}: a value with ${{ in it cannot be written here; left out")
        return []
    if not option.known:
        collected.notes.append(f"{option.name}: not known here; passed on as it is")
    return words_of(option, value)


def written(config: dict[str, Json], path: str, notes: tuple[str, ...]) -> str:
    """The config's text, with the notes above it."""
    head = [f"# Translated from {path} by `bioproxy import`.", *(f"# - {note}" for note in notes)]
    comments = [re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]", " ", line) for line in head]
    return "".join(f"{line}\n" for line in [*comments, *yaml_text.lines(config)])
