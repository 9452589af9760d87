"""`/api/contexts`: what a request left, kept under a name; list, rename, export, import, delete.

A key sees and manages the contexts of its own group, the admin all of them. Only the admin imports, if several keys may
use the models: the engine reads a slot file without distrust, and one that somebody made up may stop it for everybody.
What is done is kv/contexts.py's and kv/importing.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from bioproxy.admin.requests_api import KEPT, Requests
from bioproxy.admin.routes import ALWAYS, Entry, Question, answer, asked
from bioproxy.config.settings import Settings
from bioproxy.errors import NOT_JSON, Forbidden, NotFound, RequestError
from bioproxy.keys import Keyring
from bioproxy.kv import by_hand, contexts, importing, keeping
from bioproxy.kv.budget import Room, payer
from bioproxy.kv.contexts import Context, Left
from bioproxy.kv.index import unusable
from bioproxy.kv.keeper import Keeper
from bioproxy.kv.shelf import Shelf
from bioproxy.kv.shelves import Shelves
from bioproxy.station import Station

T = TypeVar("T")
CREATED = 201
LONGEST = 18  # digits of a number of bytes
ADMIN_IMPORTS = "only the admin imports contexts: a slot file that somebody made up may stop the engine for everybody"
NOT_RUN = "its model has not run since the start"


class ContextRow(msgspec.Struct, frozen=True, kw_only=True):
    """One context. `key`: whose it is; `snapshot`: the id of its snapshot; `seconds`: the prefill that it stands for.

    `unused`: why no request will start from it as things are; "" if one can.
    """

    name: str
    key: str
    model: str
    snapshot: str
    tokens: int
    bytes: int
    seconds: float
    created: float
    used: float
    uses: int
    unused: str


class ContextList(msgspec.Struct, frozen=True):
    """All that may be seen, by name; `room`: what the key may keep in all, None for the admin of several."""

    contexts: tuple[ContextRow, ...]
    room: Room | None


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /api/contexts` takes: the name, and the id of the request that left it."""

    name: str
    from_: str = msgspec.field(name="from")


class NewName(msgspec.Struct, forbid_unknown_fields=True):
    """What `PATCH` takes."""

    name: str


class Announced(msgspec.Struct, forbid_unknown_fields=True):
    """What an import begins with: the name, the description as it was exported, and the key whose it shall be."""

    name: str
    description: msgspec.Raw
    key: str = ""


class Place(msgspec.Struct, frozen=True):
    """The query of a piece: at which byte it begins."""

    offset: str = ""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an import is. `piece`: bytes that are best sent at once; `done`: it is there."""

    id: str
    size: int
    received: int
    piece: int = importing.PIECE
    done: bool = False


class ContextsApi:
    """`stations` are those of all models; `folder` is the folder of those that name none."""

    def __init__(
        self,
        stations: Callable[[], Iterable[Station]],
        *,
        settings: Settings,
        shelves: Shelves,
        requests: Requests,
        folder: Callable[[], str],
    ) -> None:
        self.stations = stations
        self.settings = settings
        self.shelves = shelves
        self.requests = requests
        self.folder = folder
        self.imports = importing.Imports()
        self.coming: set[tuple[str, str]] = set()  # groups and names that are being given

    def entries(self) -> tuple[Entry, ...]:
        one, more = "/api/contexts/{name}", "/api/context-imports"
        return (
            Entry("GET", "/api/contexts", "Contexts: what requests left, kept under a name.", self.listed,
                  guard="client"),
            Entry("POST", "/api/contexts", "Keep what a request left.", self.keep, guard="client"),
            Entry("PATCH", one, "Give a context another name.", self.rename, guard="client"),
            Entry("DELETE", one, "Delete a context.", self.delete, guard="client"),
            Entry("GET", f"{one}/export", "A context as a file.", self.export, guard="client"),
            Entry("POST", more, "Begin to import a context.", self.begin, guard="client"),
            Entry("PUT", f"{more}/{{id}}", "The next piece of a context's file; ?offset= says which.", self.add,
                  guard="client"),
        )  # fmt: skip

    # looking

    async def listed(self, question: Question) -> None:
        group, shelves = self.group_of(question), await self.folders()
        found = contexts.contexts(shelves, group)
        rows = sorted((self.row(one) for one in found), key=lambda row: (row.name, row.key))
        room = keeping.room_now(shelves[0], group or "") if shelves and group is not None else None
        answer(question.responder, ContextList(tuple(rows), room))

    def row(self, one: Context) -> ContextRow:
        snapshot = one.snapshot
        return ContextRow(
            name=one.pin.name,
            key=self.shown(one.pin.group),
            model=snapshot.model,
            snapshot=snapshot.id,
            tokens=snapshot.tokens,
            bytes=snapshot.size,
            seconds=snapshot.seconds,
            created=snapshot.created,
            used=snapshot.used,
            uses=snapshot.uses,
            unused=self.unused(one),
        )

    def unused(self, one: Context) -> str:
        """Why no request starts from it as things are."""
        snapshot, stations = one.snapshot, list(self.stations())
        if snapshot.quarantined:
            return snapshot.quarantined
        for station in stations:
            tenant, decisions = station.keeper.tenant, station.keeper.decisions
            if tenant.scope.fingerprint == snapshot.fingerprint:
                return unusable(snapshot, tenant.scope) or decisions.useless(template=False)
        theirs = [station.keeper.tenant.scope for station in stations if station.model == snapshot.model]
        if not theirs:
            return f"its model {snapshot.model or 'that it had'} is gone"
        if not theirs[0].fingerprint:
            return NOT_RUN
        return "its model is another file now, or has other arguments"

    def shown(self, group: str) -> str:
        """A group by the names of its keys, and whether it is that of one of a key's users."""
        budgets = self.shelves.budgets()
        name = budgets.names.get(budgets.payer(group), payer(group))
        return f"{name} (a user)" if group != payer(group) else name

    # changes

    @asynccontextmanager
    async def named_anew(self, name: str, group: str) -> AsyncIterator[list[Shelf]]:
        """Have a name of a group for oneself until it is given, or given up; RequestError if it cannot be given."""
        shelves = await self.folders()
        contexts.check_name(shelves, name, group)
        if (group, name) in self.coming:
            raise RequestError(f"{name} is just being given to another context", status=contexts.CONFLICT)
        self.coming.add((group, name))
        try:
            yield shelves
        finally:
            self.coming.discard((group, name))

    async def keep(self, question: Question) -> None:
        wanted = body(question, Wanted)
        keeper, left = await self.left_by(question, wanted.from_)
        async with self.named_anew(wanted.name, left.group):
            kept = await contexts.keep(keeper, left, wanted.name)
        shelf = keeper.tenant.shelf
        pin = next(one for one in kept.pins if (one.group, one.name) == (left.group, wanted.name))
        answer(question.responder, self.row(Context(shelf, kept, pin)), status=CREATED)

    async def left_by(self, question: Question, identity: str) -> tuple[Keeper, Left]:
        """What a request left, and where; NotFound for one that is not known, or is another key's."""
        group = self.group_of(question)
        narrowed = question if group is None else msgspec.structs.replace(question, own=True)  # to the key's own
        record = await self.requests.find(identity, narrowed)
        if record is None:
            raise NotFound(f"no request {identity[:100]!r} is known; the last {KEPT} requests to models are kept")
        for station in sorted(self.stations(), key=lambda one: one.model != record.model):
            left = Left(*station.keeper.left.get(record.id, (b"", "")))
            if left.end and group in (None, left.group):
                return station.keeper, left
        raise RequestError(f"request {identity[:100]}: {contexts.NOTHING}", status=contexts.GONE)

    async def rename(self, question: Question) -> None:
        new = body(question, NewName).name
        one = await self.named(question)
        async with self.named_anew(new, one.pin.group):
            await contexts.rename(one, new)
        answer(question.responder, {"name": new})

    async def delete(self, question: Question) -> None:
        """The name goes; so does what was kept, if nobody else has it kept."""
        one = await self.named(question)
        try:
            deleted = await contexts.delete(one)
        finally:
            if not one.shelf.has(one.snapshot.id):
                for station in self.stations():
                    station.keeper.deleted(one.snapshot.id)
        answer(question.responder, {"name": one.pin.name, "deleted": deleted})

    # files

    async def export(self, question: Question) -> None:
        """Every byte is compared before the first one is sent."""
        one, responder = await self.named(question), question.responder
        if fault := await by_hand.verify(one.shelf, one.snapshot):
            raise RequestError(f"{one.pin.name} cannot be exported: {fault}", status=409)
        named = f'attachment; filename="{one.pin.name}.tar"'.encode()
        headers = [(b"Content-Type", b"application/x-tar"), (b"Content-Disposition", named), *ALWAYS]
        responder.start(200, headers, length=contexts.length(one))
        async with aclosing(contexts.exported(one)) as pieces:  # a client that leaves must not keep it held
            async for piece in pieces:
                responder.write(piece)
                await responder.drain()
        responder.finish()

    async def begin(self, question: Question) -> None:
        self.check_import(question)
        wanted = body(question, Announced)
        group = self.group_of(question)
        group = self.group_named(wanted.key) if group is None else group
        async with self.named_anew(wanted.name, group) as shelves:
            if not shelves:
                raise RequestError("no snapshot folder is open: load a model first", status=contexts.CONFLICT)
            snapshot = importing.read(bytes(wanted.description))
            shelf = next((one for one in shelves if snapshot.fingerprint in one.scopes), shelves[0])
            begun = await self.imports.begin(shelf, snapshot, group=group, name=wanted.name)
        told = Progress(id=begun.snapshot.id, size=begun.snapshot.size, received=0)
        answer(question.responder, told, status=CREATED)

    async def add(self, question: Question) -> None:
        self.check_import(question)
        offset = asked(question.request, Place).offset
        if not (offset.isascii() and offset.isdecimal() and len(offset) <= LONGEST):
            raise RequestError("offset must say at which byte this piece begins")
        one, kept = await self.imports.add(question.parameters["id"], int(offset), question.request.body)
        told = Progress(id=one.snapshot.id, size=one.snapshot.size, received=one.received, done=kept is not None)
        answer(question.responder, told)

    def check_import(self, question: Question) -> None:
        several = len(self.settings.config.api_keys) > 1
        if question.proxy and question.principal is not None and several and not self.is_admin(question):
            raise Forbidden(ADMIN_IMPORTS)

    # who, and what

    def is_admin(self, question: Question) -> bool:
        """Whether the proxy port was shown the admin key."""
        key = self.settings.config.admin_key
        if not key or question.principal is None:
            return False
        [(_, admin)] = Keyring((key,)).principals.values()
        return question.principal.group == admin.group

    def group_of(self, question: Question) -> str | None:
        """Whose contexts may be seen; None: everybody's."""
        if not question.proxy or self.is_admin(question):
            return None
        return question.principal.group if question.principal is not None else ""

    def group_named(self, key: str) -> str:
        """The group of a key, by its name or its own; NotFound. Without a name it is the only group that there is."""
        names = self.shelves.budgets().names
        if not key and len(names) <= 1:
            return next(iter(names), "")
        for group, shown in names.items():
            if key in (group, *shown.split(", ")):
                return group
        raise NotFound(f"no API key is called {key!r}: say whose the context shall be")

    async def named(self, question: Question) -> Context:
        return contexts.named(await self.folders(), question.parameters["name"], self.group_of(question))

    async def folders(self) -> list[Shelf]:
        """Every folder, also those of models that have not run yet. FolderError."""
        usual = self.folder()
        for path in dict.fromkeys(Path(one.keeper.config.directory or usual) for one in self.stations()):
            if not await asyncio.to_thread(path.is_dir):  # nobody has saved there, and no page shall show its budget
                continue
            shelf = await self.shelves.at(path)
            if shelf.folder is None:
                await shelf.open()
        return [shelf for shelf in self.shelves.known.values() if shelf.folder is not None]


def body(question: Question, kind: type[T]) -> T:
    """What was sent; RequestError says what is wrong with it."""
    try:
        return msgspec.json.decode(question.request.body, type=kind)
    except NOT_JSON as error:
        raise RequestError(f"the body cannot be read: {error}") from error
