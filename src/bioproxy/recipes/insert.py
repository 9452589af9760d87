"""An entry written into a config file, with every other byte as it was.

A parser that writes YAML back loses comments, quotes, anchors and blank lines, so nothing is written back: the parser
only says *where* things stand, and the entry is put in as text. There are a few places where it may stand (behind the
last model, before the first one, behind the last key of the file), and YAML has corners in which each of them is
wrong: a block that ends without a line end, a block whose blank lines count, an alias that stands for the whole
mapping. So each place is tried, and the result is read again: it is taken only if the file then says what it said
before and the entry, nothing else. Where no place will do, the file is left alone, and the user is told to write the
entry in themselves.

Pure: texts in, text out. `write` is the one function that touches a file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
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
BLANK_OR_COMMENT = re.compile(r"[ \t]*(#.*)?")
BREAK = re.compile(r"\r\n|\n|\r")
NO_PLACE = (
    "the entry of {model} could not be put into the file without changing what else it says; "
    "`bioproxy recipes show` prints it, to be written in by hand"
)


class Edit(msgspec.Struct, frozen=True):
    """`text` in place of what stands between two positions; mostly there is nothing between them."""

    start: int
    end: int
    text: str

    def apply(self, whole: str) -> str:
        """The text with the edit made."""
        return whole[: self.start] + self.text + whole[self.end :]


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
        raise ConfigError([Problem(f"{MODELS} is no mapping there; nothing was changed", path)])
    if model in (models or {}):
        raise ConfigError([Problem(f"{MODELS}.{model} stands there already; give another name with --as", path)])
    wanted = {**old, MODELS: {**(models or {}), model: entry}}
    for edit in places(text, model, entry):
        after = edit.apply(text)
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


def places(text: str, model: str, entry: dict[str, Json]) -> Iterator[Edit]:
    """Edits that may do, the one that people would make first."""
    try:
        root = yaml.compose(text, Loader=LOADER)
    except yaml.YAMLError:  # JSON that is no YAML: a surrogate in it, a tab at a wrong place
        return
    if root is None:
        yield at_the_end(text, MODELS, {model: entry}, column=0)
        return
    if not isinstance(root, MappingNode):
        return
    pairs = {key.value: (key, value) for key, value in root.value if isinstance(key, ScalarNode)}
    if MODELS in pairs:
        key, value = pairs[MODELS]
        yield from beside_models(text, root, key, value, model, entry)
    elif root.flow_style:
        yield in_braces(text, root, MODELS, {model: entry})
    else:
        column = root.value[0][0].start_mark.column
        yield at_the_end(text, MODELS, {model: entry}, column=column)
        yield Edit(*line_of(text, root.value[0][0]), block(text, MODELS, {model: entry}, column))


def beside_models(
    text: str, root: MappingNode, key: Node, value: Node, model: str, entry: dict[str, Json]
) -> Iterator[Edit]:
    """Edits of a file that has `models`, with or without anything in it."""
    if isinstance(value, MappingNode) and not value.flow_style:
        yield from in_block(text, root, value, model, entry)
    elif isinstance(value, MappingNode):
        if value.start_mark.index >= key.end_mark.index:  # else it is an alias for what stands elsewhere
            yield in_braces(text, value, model, entry)
    elif isinstance(value, ScalarNode) and not root.flow_style:
        column = key.start_mark.column + STEP
        line_end = end_of_line(text, value.end_mark.index if value.value else key.end_mark.index)
        rest = text[value.end_mark.index if value.value else key.end_mark.index + 1 : line_end]
        head = text[key.start_mark.index : key.end_mark.index] + ":"
        spaced = rest.rstrip() if not rest.strip() else rest
        yield Edit(
            key.start_mark.index,
            next_line(text, line_end),
            head + spaced + newline(text) + block(text, model, entry, column),
        )
    elif isinstance(value, ScalarNode):
        written = f"{json.dumps(MODELS)}: {{{flow(model, entry)}}}"
        end = value.end_mark.index if value.value else end_of_flow_key(text, key)
        yield Edit(key.start_mark.index, end, written)


def in_block(text: str, root: MappingNode, models: MappingNode, model: str, entry: dict[str, Json]) -> Iterator[Edit]:
    """Behind the last model, else before the first one."""
    first, last = models.value[0][0], models.value[-1][0]
    column = first.start_mark.column
    following = [key.start_mark.index for key, _ in root.value if key.start_mark.index > last.start_mark.index]
    stop = line_start(text, min(following)) if following else len(text)
    end = last_content(text, last.start_mark.index, stop, column)
    written = block(text, model, entry, column)
    above = text[: line_start(text, last.start_mark.index)].splitlines()
    spaced = len(models.value) > 1 and above and not above[-1].strip()
    gap = newline(text) if spaced else ""
    yield Edit(end, end, ended(text, end) + gap + written)
    start, _ = line_of(text, first)
    yield Edit(start, start, written + gap)


def last_content(text: str, start: int, stop: int, column: int) -> int:
    """The end of the last line before `stop` that belongs to a mapping whose keys stand in `column`.

    Blank lines at its end, and comments that stand further left, belong to what follows.
    """
    end = position = start
    while position < stop:
        following = min(next_line(text, end_of_line(text, position)), stop)
        line = BREAK.sub("", text[position:following])
        blank = BLANK_OR_COMMENT.fullmatch(line) is not None
        indent = len(line) - len(line.lstrip(" "))
        if not blank or (line.strip() and indent >= column):
            end = following
        position = following
    return end


def at_the_end(text: str, name: str, value: Json, *, column: int) -> Edit:
    """Behind everything, comments too."""
    return Edit(len(text), len(text), ended(text, len(text)) + block(text, name, value, column))


def in_braces(text: str, mapping: Node, name: str, value: Json) -> Edit:
    """The first member of a mapping in braces, written as JSON, which is YAML."""
    brace = text.index("{", mapping.start_mark.index) + 1
    written = flow(name, value)
    return Edit(brace, brace, f"{written}, " if isinstance(mapping, MappingNode) and mapping.value else written)


def flow(name: str, value: Json) -> str:
    """A key and its value in one line."""
    return f"{yaml_text.scalar(name)}: {yaml_text.flow(value)}"


def block(text: str, name: str, value: Json, column: int) -> str:
    """A key and its value as lines that begin in `column`, with the file's own line ends."""
    return "".join(f"{' ' * column}{line}{newline(text)}" for line in yaml_text.member(yaml_text.key(name), value))


def newline(text: str) -> str:
    """The line end of a file: that of its first line."""
    found = BREAK.search(text)
    return found[0] if found else "\n"


def ended(text: str, position: int) -> str:
    """What is missing so that a line begins at `position`."""
    return newline(text) if position and text[position - 1] not in "\r\n" else ""


def end_of_line(text: str, position: int) -> int:
    """Where the line of `position` ends, before its line end."""
    found = BREAK.search(text, position)
    return found.start() if found else len(text)


def next_line(text: str, line_end: int) -> int:
    """Where the line after the one that ends at `line_end` begins."""
    found = BREAK.match(text, line_end)
    return found.end() if found else line_end


def line_start(text: str, position: int) -> int:
    """Where the line of `position` begins."""
    return max(text.rfind("\n", 0, position), text.rfind("\r", 0, position)) + 1


def line_of(text: str, node: Node) -> tuple[int, int]:
    """The beginning of a node's line, as an edit that replaces nothing."""
    start = line_start(text, node.start_mark.index)
    return start, start


def end_of_flow_key(text: str, key: Node) -> int:
    """The end of a key in braces that has no value: its colon, if it has one."""
    found = re.compile(r"\s*:").match(text, key.end_mark.index)
    return found.end() if found else key.end_mark.index


def read(path: Path) -> str:
    """The text of a config file, byte for byte; "" where there is none yet. ConfigError if it is no text."""
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


def write(path: Path, text: str) -> None:
    """Replace a file in one step, with the rights that it had; behind a link, the file that it leads to."""
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode & 0o7777 if target.exists() else 0o644
        files.write_whole(target, text.encode("utf-8"), mode=mode)
    except OSError as error:
        sentence = f"the config file cannot be written, nothing was changed: {error.strerror or error}"
        raise ConfigError([Problem(sentence, str(path))]) from error
