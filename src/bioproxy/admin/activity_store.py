"""The activity table: in memory, or in a SQLite file that outlives the program.

The table has llama-swap's columns, so a `store.path` of llama-swap's goes on where it was. SQLite blocks, so one worker
thread owns the connection, and a question first has everything written that came before it. `add` only takes a number
and puts the request's record into a queue; four times a second the worker makes rows of what waits and writes them in
one transaction. A table in memory is not even written before it is asked for: most never are, and what would be pruned
by then was never made.

Disks fail. A row that cannot be written is lost, counted, and said once; requests go on. A file that cannot be opened
at all is said at the start, and memory is used instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from bioproxy import aio, files
from bioproxy.activity import Record
from bioproxy.admin import activity_sql as sql
from bioproxy.admin.activity_row import Filters, Page, Row, Stats, record_of, row_of
from bioproxy.config.settings import Settings
from bioproxy.errors import BioproxyError

T = TypeVar("T")
log = logging.getLogger(__name__)

MOST_WAITING = 10_000  # rows that wait for a disk that does not answer; more are lost
BUSY_SECONDS = 5.0  # to wait for another program that writes to the file
PAUSE = 0.25  # seconds that rows may wait for more of them
LONGEST = 30.0  # seconds for anything that is asked of the worker
AGEING_SECONDS = 3600.0  # between two looks for rows that are too old
AT_ONCE = 1000  # of them that are taken out before others get a turn: a file may have millions


class StoreStatistics(msgspec.Struct, frozen=True):
    """Where the table is ("": in memory), rows written, waiting and lost since the start, and what is wrong now."""

    path: str
    written: int
    waiting: int
    lost: int
    fault: str


class ActivityStore:
    """The rows. `metricsMaxInMemory` bounds a table in memory, `kv.max_age` (seconds, 0: for ever) one in a file.

    Rows that are added before `start` wait for it; questions must not come before.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.path = ""
        self.worker = aio.Threads(1)
        self.lock = threading.Lock()  # over `next`, `scheduled` and `waiting`, which both threads change
        self.waiting: deque[tuple[int, Record | Row]] = deque()
        self.scheduled = True  # as `start` will write
        self.closed = False
        self.next = 1
        self.written = self.lost = 0
        self.fault = ""
        self.aged: float | None = None
        self.is_open = False
        self.database: sqlite3.Connection

    @property
    def limit(self) -> int:
        """Rows that a table in memory may have."""
        return self.settings.dialect.metrics_max_in_memory

    async def start(self) -> None:
        """Open the file of `store.path`, if there is one; never fails: a table in memory is better than no program.

        Called again by a reload: the table goes on where `store.path` says now. A disk that does not answer in time is
        waited for by the worker alone.
        """
        if self.closed:
            return
        opening = self.worker.submit(self.connect)  # not `run`, which forgets what did not begin in time
        try:
            await self.run(opening.result)
        except BioproxyError as error:
            log.warning("%s", error.message)

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` on the worker, after all that was asked of it before; a BioproxyError if the disk fails."""
        try:
            async with asyncio.timeout(LONGEST):
                return await asyncio.get_running_loop().run_in_executor(self.worker, work)
        except TimeoutError as error:
            place = self.path or self.settings.dialect.store.path or "memory"
            raise BioproxyError(f"the activity table in {place} does not answer; look at the disk") from error
        except sqlite3.Error as error:
            place = self.path or "memory"
            raise BioproxyError(f"the activity table in {place} cannot be read: {error}; look at the disk") from error
        except RuntimeError as error:  # the executor's word for "shut down"
            raise BioproxyError("the activity table is closed, for bioproxy is stopping", status=503) from error

    def add(self, row: Record | Row) -> int:
        """Take a request's record in (or the row of one); its id. Returns at once."""
        with self.lock:
            identity, self.next = self.next, self.next + 1
            if self.closed or (self.path and len(self.waiting) >= MOST_WAITING):
                self.lost += 1
                return identity
            self.waiting.append((identity, row))
            if not self.path and len(self.waiting) > self.settings.dialect.metrics_max_in_memory:
                self.waiting.popleft()
            start, self.scheduled = bool(self.path) and not self.scheduled, True
        if start:
            asyncio.get_running_loop().call_later(PAUSE, self.flush)
        return identity

    def flush(self) -> None:
        if not self.closed:
            self.worker.submit(self.write)

    async def put_back(self, records: Iterable[tuple[int, Record]]) -> None:
        """Have a table in memory show requests of earlier runs again; one in a file has them."""
        rows = [replace(whole(record), id=identity) for identity, record in records]
        if rows:
            with contextlib.suppress(BioproxyError):  # `start` said why
                await self.run(lambda: None if self.path else self.insert(rows))

    async def query(self, filters: Filters) -> Page:
        return await self.run(lambda: self.after_rows(lambda: sql.select(self.database, filters)))

    async def record(self, identity: int) -> Record | None:
        """The record of one row."""
        page = await self.query(Filters(min_id=identity, max_id=identity))
        return record_of(page.data[0]) if page.data else None

    async def named(self, identity: str) -> list[Record]:
        """The records of the newest rows whose request had this id; a client may give it to several."""
        if not identity:
            return []  # no id is that of no request, and would narrow nothing
        page = await self.query(Filters(request=identity))
        return [record_of(row) for row in page.data]

    async def stats(self, model: str = "") -> Stats:
        """Sums and speeds of one model, or of all."""
        return await self.run(lambda: self.after_rows(lambda: sql.stats(self.database, model)))

    async def close(self) -> None:
        """Write what waits and close the file; rows that come later are lost."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
        try:
            await self.run(self.finish)
        except BioproxyError as error:
            log.warning("%s; rows of activity may be lost", error.message)
        finally:
            self.worker.shutdown(wait=False)

    def statistics(self) -> StoreStatistics:
        """The counts of now and since the start."""
        return StoreStatistics(self.path, self.written, len(self.waiting), self.lost, self.fault)

    # on the worker

    def connect(self) -> None:
        """Open what `store.path` names, if that is not open yet."""
        path = self.settings.dialect.store.path or ""
        if not self.is_open or path != self.path:
            self.change(path)
        with self.lock:
            self.next = max(self.next, sql.next_id(self.database))
        self.tidy()
        self.write()

    def change(self, path: str) -> None:
        """Have the rows from now on in the file `path` ("": in memory); if it fails, where they were, or in memory."""
        fault = ""
        try:
            database = files.patiently(opened, path) if path else memory()
        except (OSError, sqlite3.Error, files.Stuck) as error:
            fault, place = str(error), self.path or "memory"
            log.warning("the activity table %s cannot be opened (%s): it is kept in %s", path, error, place)
            if self.is_open:
                self.fault = fault
                return
            database, path = memory(), ""
        if self.is_open:
            self.write()
            self.database.close()
        self.database, self.path, self.fault, self.is_open = database, path, fault, True

    def after_rows(self, work: Callable[[], T]) -> T:
        """Do `work` once all rows that wait are in the table."""
        self.write()
        return work()

    def write(self) -> None:
        """Write all that waits, in one transaction."""
        with self.lock:
            self.scheduled = False
            taken = list(self.waiting)
            self.waiting.clear()
        rows = [replace(whole(one), id=identity) for identity, one in taken]
        if not rows:
            return
        try:
            self.insert(rows)
        except (sqlite3.Error, ValueError, OverflowError) as error:
            with self.lock:
                self.lost += len(rows)
            if not self.fault:
                log.warning("%d rows of activity were lost: %s; more may follow, unsaid", len(rows), error)
            self.fault = str(error)
            return
        self.written += len(rows)
        if self.fault and self.path:
            log.warning("activity is written again")
            self.fault = ""
        self.tidy()

    def insert(self, rows: list[Row]) -> None:
        """Insert `rows`; if another program has taken their ids in the same file, the next free ones are theirs."""
        try:
            sql.insert(self.database, rows)
        except sqlite3.IntegrityError:
            sql.insert(self.database, [replace(row, id=0) for row in rows])
            with self.lock:
                self.next = max(self.next, sql.next_id(self.database))

    def tidy(self, *, on: bool = False) -> None:
        """Take out what is too much in memory, or too old in a file; a failure costs nothing but room.

        `on`: more was too old than is taken out at once.
        """
        with contextlib.suppress(sqlite3.Error):  # the next write finds the same fault and says so
            if not self.path:
                sql.prune(self.database, self.limit)
            elif on or self.aged is None or time.monotonic() - self.aged > AGEING_SECONDS:
                self.age()

    def age(self) -> None:
        """Take out rows that ended more than `kv.max_age` seconds ago, a part of them at a time."""
        self.aged = time.monotonic()
        if not self.path or not (max_age := self.settings.config.kv.max_age):
            return
        if sql.forget(self.database, before=int(time.time() - max_age), most=AT_ONCE):
            with contextlib.suppress(RuntimeError):  # the worker was shut down
                self.worker.submit(self.tidy, on=True)

    def finish(self) -> None:
        """Write what waits and close, if there is a table."""
        if self.is_open:
            self.write()
            self.database.close()


def whole(one: Record | Row) -> Row:
    """The row, with the record behind it."""
    return replace(row_of(one), request=one) if isinstance(one, Record) else one


def opened(path: str) -> sqlite3.Connection:
    """The file's connection; a new file can be read by its owner only, because it tells who asked for what."""
    with files.touching(path):
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        with files.touching(path):
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
        with files.touching(path):
            return prepared(database)
    except BaseException:
        database.close()
        raise


def memory() -> sqlite3.Connection:
    return prepared(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))


def prepared(database: sqlite3.Connection) -> sqlite3.Connection:
    """The connection, with the table in it; sqlite3.Error if one of that name has other columns, or is damaged."""
    database.executescript(sql.SCHEMA)
    if sql.lacks_record(database):
        database.execute(sql.ADD_COLUMN)
    database.execute(f"{sql.SELECT} LIMIT 0")
    sql.next_id(database)
    return database
