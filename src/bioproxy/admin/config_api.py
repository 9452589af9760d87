"""The configuration on the web page: what is in force and why, and with `ui.edit_config` its files.

A change is tried as a reload would take it, with the new text instead of the file: all problems with their lines, the
keys that change, and what that means for models that run. Only a text without problems is written, in one step, with
the old one beside it (`.bak`), and then the program reloads by difference. A file that somebody else changed since the
page read it is not overwritten.

Who may change a configuration may run any command, so without an `admin_key` it is done on the admin port only, which
other machines cannot reach then.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from bioproxy import aio, files
from bioproxy.admin.routes import Entry, Json, Question, answer
from bioproxy.config.files import BOM, LARGEST, decoded, read_text
from bioproxy.config.keys import KEYS
from bioproxy.config.load import Loaded
from bioproxy.errors import NOT_JSON, ConfigError, Forbidden, NotFound, Problem, RequestError
from bioproxy.models.fleet import ModelEffect

if TYPE_CHECKING:
    from bioproxy.config.describe import Described

BACKUP = ".bak"
CHANGED_MEANWHILE = 412
OFF = "the configuration is not changed here: set ui.edit_config to allow it"
ELSEWHERE = "without an admin_key the configuration is changed on the admin port only"


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the configuration; `digest` tells this text from another one. `text` is only told to who may edit."""

    path: str
    text: str | None
    digest: str
    schema: Literal["bioproxy", "llama-swap"]


class ConfigValue(msgspec.Struct, frozen=True, kw_only=True):
    """One effective value as a file would have it, secrets masked, and the place it came from (`default` for none).

    `live`: a reload changes it; else a restart does. None: llama-swap's keys say so in docs/llama-swap.md.
    """

    key: str
    text: str
    origin: str
    live: bool | None
    about: str


class ConfigPage(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `GET /api/config`; `edit`: this client may change the files, else `why` not."""

    edit: bool
    why: str
    files: tuple[ConfigFile, ...]
    values: tuple[ConfigValue, ...]
    warnings: tuple[Problem, ...]


class PlacedProblem(msgspec.Struct, frozen=True, kw_only=True):
    """A problem of a configuration, and its line in the file that was edited; 0: it has none there."""

    message: str
    key: str
    where: str
    line: int


class ConfigTrial(msgspec.Struct, frozen=True, kw_only=True):
    """What a text would do: `problems`, each with its `line` in the file if it has one, or what it would change.

    `late` are the keys that need a restart; `warnings` stop no save.
    """

    problems: tuple[PlacedProblem, ...] = ()
    changed: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    models: tuple[ModelEffect, ...] = ()
    warnings: tuple[PlacedProblem, ...] = ()


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """A text for one of the configuration's files; `digest` is that of the text which it was made from."""

    path: str
    text: str
    digest: str = ""


class ConfigApi:
    """`loaded` is the configuration in force. `trial` tries texts by path; `reload` reads the files again."""

    def __init__(
        self,
        loaded: Callable[[], Loaded],
        *,
        trial: Callable[[Mapping[str, bytes]], Awaitable[ConfigTrial]],
        reload: Callable[[], Awaitable[tuple[str, ...]]],
    ) -> None:
        self.loaded, self.trial, self.reload = loaded, trial, reload
        self.turn = asyncio.Lock()  # of saves

    def entries(self) -> tuple[Entry, ...]:
        return (
            Entry("GET", "/api/config", "The configuration in force, and its files.", self.show, guard="manage"),
            Entry("GET", "/api/config/schema", "The JSON Schemas of its files.", self.schema, guard="manage"),
            Entry("POST", "/api/config/check", "What another text would change.", self.check, guard="manage"),
            Entry("PUT", "/api/config", "Save a file of it, and reload.", self.save, guard="manage"),
        )

    def refusal(self, question: Question) -> str:
        """Why this client may not change files; "" if it may."""
        config = self.loaded().config
        if not config.ui.edit_config:
            return OFF
        return ELSEWHERE if question.proxy and not config.admin_key else ""

    async def show(self, question: Question) -> None:
        loaded, why = self.loaded(), self.refusal(question)
        found = await files.away(partial(read_files, loaded, texts=not why))
        rows = await asyncio.to_thread(values, loaded)  # of very many models there are thousands
        page = ConfigPage(edit=not why, why=why, files=found, values=rows, warnings=loaded.warnings)
        answer(question.responder, page)

    async def schema(self, question: Question) -> None:
        from bioproxy.config.json_schema import schemas

        answer(question.responder, await asyncio.to_thread(schemas))

    async def check(self, question: Question) -> None:
        answer(question.responder, await self.tried(self.edit(question)))

    async def save(self, question: Question) -> None:
        """Write the file and reload; ConfigError (422) with all problems, 412 if the file is another one by now.

        A client that leaves meanwhile stops nothing: a file that is written is taken over.
        """
        answer(question.responder, await aio.shielded(self.take(self.edit(question))))

    async def take(self, edit: Edit) -> Json:
        async with self.turn:
            await self.trial({edit.path: edit.text.encode()})
            backup = await files.away(write, edit)
            return {"changed": await self.reload(), "backup": backup}

    def edit(self, question: Question) -> Edit:
        """What is asked for; Forbidden if it may not be, NotFound for a file that is none of the configuration's."""
        if why := self.refusal(question):
            raise Forbidden(why)
        try:
            edit = msgspec.json.decode(question.request.body, type=Edit)
        except NOT_JSON as error:
            raise RequestError(f"the body must be {{path, text, digest}} as JSON: {error}") from error
        if edit.path not in self.loaded().paths:
            raise NotFound(f"{edit.path} is no file of this configuration")
        return edit

    async def tried(self, edit: Edit) -> ConfigTrial:
        try:
            return await self.trial({edit.path: edit.text.encode()})
        except ConfigError as error:
            return ConfigTrial(problems=tuple(placed(one, edit.path) for one in error.problems))


def placed(problem: Problem, path: str) -> PlacedProblem:
    line = line_of(problem.where, path)
    return PlacedProblem(message=problem.message, key=problem.key, where=problem.where, line=line)


def line_of(where: str, path: str) -> int:
    """The line of `conf.yaml:12` if that is the file at `path`, which is absolute, however it was written; else 0."""
    file, _, line = where.rpartition(":")
    same = line.isdecimal() and os.path.abspath(os.path.expanduser(file)) == path
    return int(line) if same else 0


def read_files(loaded: Loaded, *, texts: bool) -> tuple[ConfigFile, ...]:
    """The configuration's files as they are now; one that cannot be read any more is left out. Blocks."""
    found = []
    for path in loaded.paths:
        try:
            text = read_text(path, several=True)
        except ValueError:
            continue
        schema: Literal["bioproxy", "llama-swap"] = "bioproxy" if loaded.dialect is None else "llama-swap"
        found.append(ConfigFile(path=path, text=text if texts else None, digest=digest(text), schema=schema))
    return tuple(found)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write(edit: Edit) -> str:
    """Replace the file, or what a link leads to; returns the path of the old one beside it. Blocks.

    It keeps its mode, its owner as far as we may give files away, and the byte order mark if it had one.
    RequestError: 412 if it is not the text that the edit was made from, 409 if it is no regular file.
    """
    target = Path(os.path.realpath(edit.path))
    try:
        before = files.read(target, most=LARGEST)
        known = files.stat(target)
        mode, owner = stat.S_IMODE(known.st_mode), (known.st_uid, known.st_gid)
        if digest(decoded(before)) != edit.digest:
            sentence = f"{edit.path} was changed by somebody else since you opened it; open it again"
            raise RequestError(sentence, status=CHANGED_MEANWHILE)
        begin = BOM if before.startswith(BOM) else b""
        files.write_whole(f"{target}{BACKUP}", before, owner=owner)
        files.write_whole(target, begin + edit.text.encode().removeprefix(BOM), mode=mode, owner=owner)
    except (OSError, ValueError) as error:
        reason = files.reason(error) if isinstance(error, OSError) else str(error)
        raise RequestError(f"{edit.path} cannot be written: {reason}; nothing was changed", status=409) from error
    return f"{target}{BACKUP}"


def values(loaded: Loaded) -> tuple[ConfigValue, ...]:
    """Every effective value, bioproxy's own keys first."""
    from bioproxy.config.describe import describe, describe_dialect

    rows = describe(loaded)
    if loaded.dialect is not None:
        rows += describe_dialect(loaded.dialect, loaded.origins)
    return tuple(value_of(row) for row in rows)


def value_of(row: Described) -> ConfigValue:
    option = KEYS.get(row.key)
    return ConfigValue(
        key=row.key,
        text=row.text,
        origin=row.origin,
        live=option.kind.live if option is not None else None,
        about=option.description if option is not None else "",
    )
