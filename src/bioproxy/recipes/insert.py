"""An entry written into a config file, with every other byte as it was.

A parser that writes YAML back loses comments, quotes, anchors and blank lines, so nothing is written back: the parser
only says *where* things stand, and the entry is put in as text. There are a few places for it (after the last model,
before the first one, at the file's end), and YAML has corners in which each of them is wrong: a block that ends without
a line end, a block whose blank lines count, an alias that stands for the whole mapping. So each place is tried, and the
result is read again: it is taken only if the file then says what it said before and the entry, nothing else. If no
place will do, the file is left alone, and the user is told to write the entry in by hand.

Pure: texts in, text out. `write` is the one function that touches a file.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from bioproxy import files
from bioproxy.config.files import SIZE_LIMIT, parse
from bioproxy.config.tree import Node as Value
from bioproxy.config.yaml_tree import LOADER
from bioproxy.errors import ConfigError, Problem
from bioproxy.recipes import yaml_text

Json: TypeAlias = Any

MODELS = "models"
BYTE_ORDER_MARK = "\ufeff"
STEP = 2
NO_PLACE = (
    "the entry of {model} could not be put into the file without changing what else it says; "
    "`bioproxy recipes show` prints it, to be written in by hand"
)


def insert(text: str, *, path: str, model: str, entry: dict[str, Json]) -> str:
    """The config `text` with `entry` as `models.<model>`. ConfigError if it cannot be read or has such a model.

    `path` names the file in messages, and its ending says whether it is JSON.
    """
    if text.startswith(BYTE_ORDER_MARK):  # the parsers count it differently
        return BYTE_ORDER_MARK + insert(text.removeprefix(BYTE_ORDER_MARK), path=path, model=model, entry=entry)
    before = parse(text, path)
    if before.faults:
        raise ConfigError([Problem(fault.message, f"{path}:{fault.line}", fault.key) for fault in before.faults])
    old = {} if before.root is None or before.root.value is None else plain(before.root)
    models = old.get(MODELS) if isinstance(old, dict) else None
    if not isinstance(old, dict) or not isinstance(models, dict | None):
        raise ConfigError([Problem(f"{MODELS} is no mapping in it; nothing was changed", path)])
    if model in (models or {}):
        raise ConfigError([Problem(f"{MODELS}.{model} is there already; give another name with --as", path)])
    wanted = {**old, MODELS: {**(models or {}), model: entry}}
    for after in candidates(text, model, entry):
        found = parse(after, path)
        if found.root is not None and not found.faults and plain(found.root) == wanted:
            return after
    raise ConfigError([Problem(NO_PLACE.format(model=model), path)])


def plain(node: Value) -> Json:
    """A tree as Python's own values; a word such as `off` is its text, so that no two spellings look alike."""
    match node.value:
        case dict():
            return {name: plain(child) for name, child in node.value.items()}
        case tuple():
            return [plain(child) for child in node.value]
        case _:
            return node.value


def candidates(text: str, model: str, entry: dict[str, Json]) -> Iterator[str]:
    """Texts that may do, first the one that people would write."""
    try:
        root = yaml.compose(text, Loader=LOADER)
    except yaml.YAMLError:  # JSON that is no YAML: a surrogate in it, a tab at a wrong place
        return
    if root is None:
        yield put(text, len(text), block(text, MODELS, {model: entry}, column=0))
    elif isinstance(root, MappingNode):
        places = {key.value: (key, value) for key, value in root.value if isinstance(key, ScalarNode)}
        if MODELS in places:
            yield from with_models(text, root, *places[MODELS], model, entry)
        elif root.flow_style:
            yield in_braces(text, root, flow(MODELS, {model: entry}))
        else:
            first: Node = root.value[0][0]
            written = block(text, MODELS, {model: entry}, first.start_mark.column)
            yield put(text, len(text), written)
            yield put(text, line_start(text, first), written)


def with_models(
    text: str, root: MappingNode, key: Node, value: Node, model: str, entry: dict[str, Json]
) -> Iterator[str]:
    """Texts of a file that has `models`, with or without anything in it."""
    if isinstance(value, MappingNode) and not value.flow_style:
        yield from in_block(text, root, value, model, entry)
    elif isinstance(value, MappingNode):
        if value.start_mark.index >= key.end_mark.index:  # else it is an alias for what stands elsewhere
            yield in_braces(text, value, flow(model, entry))
    elif root.flow_style:
        written = f"{json.dumps(MODELS)}: {{{flow(model, entry)}}}"
        yield text[: key.start_mark.index] + written + text[value.end_mark.index :]
    else:
        line, *following = lines_of(text[value.end_mark.index :]) or [""]
        comment = line.rstrip("\r\n") if line.strip() else ""
        head = text[: key.end_mark.index] + ":" + comment + newline(text)
        yield head + block(text, model, entry, key.start_mark.column + STEP) + "".join(following)


def in_block(text: str, root: MappingNode, models: MappingNode, model: str, entry: dict[str, Json]) -> Iterator[str]:
    """After the last model, else before the first one.

    Blank lines at the end of `models`, and comments that stand further left, belong to what follows.
    """
    first, last = models.value[0][0], models.value[-1][0]
    column = first.start_mark.column
    following = [line_start(text, key) for key, _ in root.value if key.start_mark.index > last.start_mark.index]
    before = lines_of(text[: min(following, default=len(text))])
    while not (line := before[-1].strip()) or (line.startswith("#") and indent(before[-1]) < column):
        before.pop()
    written = block(text, model, entry, column)
    above = lines_of(text[: line_start(text, last)])
    gap = newline(text) if len(models.value) > 1 and above and not above[-1].strip() else ""
    yield put(text, len("".join(before)), gap + written)
    yield put(text, line_start(text, first), written + gap)


def in_braces(text: str, mapping: MappingNode, member: str) -> str:
    """With another first member in a mapping in braces, written as JSON, which is YAML."""
    brace = text.index("{", mapping.start_mark.index) + 1
    return text[:brace] + (f"{member}, " if mapping.value else member) + text[brace:]


def put(text: str, position: int, written: str) -> str:
    """With lines at `position`, which begins a line: if the one before it has no end, it gets one."""
    gap = newline(text) if position and text[position - 1] not in "\r\n" else ""
    return text[:position] + gap + written + text[position:]


def flow(name: str, value: Json) -> str:
    """A key and its value in one line."""
    return f"{yaml_text.scalar(name)}: {yaml_text.flow(value)}"


def block(text: str, name: str, value: Json, column: int) -> str:
    """A key and its value as lines that begin in `column`, with the file's own line ends."""
    return "".join(f"{' ' * column}{line}{newline(text)}" for line in yaml_text.member(yaml_text.key(name), value))


def lines_of(text: str) -> list[str]:
    """The lines with their ends, which are those of any system."""
    return list(io.StringIO(text, newline=""))


def newline(text: str) -> str:
    """The line end of a file: that of its first line."""
    first = next(iter(lines_of(text)), "")
    return first[len(first.rstrip("\r\n")) :] or "\n"


def indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def line_start(text: str, node: Node) -> int:
    """Where the line of a node begins."""
    return max(text.rfind("\n", 0, node.start_mark.index), text.rfind("\r", 0, node.start_mark.index)) + 1


def read(path: Path) -> str:
    """The text of a config file, byte for byte; "" if there is none yet. ConfigError if it is no text."""
    try:
        data = files.patiently(files.read, path, most=SIZE_LIMIT)
        if len(data) > SIZE_LIMIT:
            raise ConfigError([Problem(f"the config file is larger than {SIZE_LIMIT >> 20} MiB", str(path))])
        return data.decode("utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise ConfigError([Problem("the config file is not UTF-8 text; nothing was changed", str(path))]) from error
    except OSError as error:
        raise ConfigError([Problem(f"the config file cannot be read: {error.strerror or error}", str(path))]) from error


def write(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file in one step, with the rights that it had, or `mode`; of a link, the file that it leads to."""
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode & 0o7777 if target.exists() else mode
        files.write_whole(target, text.encode("utf-8"), mode=mode)
    except OSError as error:
        sentence = f"the config file cannot be written, nothing was changed: {error.strerror or error}"
        raise ConfigError([Problem(sentence, str(path))]) from error
