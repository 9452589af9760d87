"""The activity table: ids, order, pages, sums, and what happens when the disk does not play along."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from bioproxy import aio
from bioproxy.activity import Usage
from bioproxy.admin import activity_store
from bioproxy.admin.activity_row import Filters, Row, Tokens, record_of
from bioproxy.admin.activity_sql import SCHEMA, SORTS
from bioproxy.admin.activity_store import ActivityStore
from bioproxy.config.dialect.schema import DialectConfig, Store
from bioproxy.errors import BioproxyError
from support.admin import metered, row, system_changed, table
from support.apps import MS
from support.config_files import settings


async def ids(store: ActivityStore, **filters: Any) -> list[int]:
    page = await store.query(Filters(**filters))
    return [found.id for found in page.data]


async def test_a_row_comes_back_as_it_went_in() -> None:
    """With the id that was told at once."""
    whole = row(
        tokens=Tokens(cache_tokens=-1, input_tokens=3, prompt_per_second=1.5),
        resp_status_code=500,
        error_msg="engine lost",
        metadata={"selector": "größe"},
    )
    async with table() as store:
        assert store.add(whole) == 1
        (found,) = (await store.query(Filters())).data
    assert found == Row(**{name: getattr(whole, name) for name in Row.__struct_fields__} | {"id": 1})


async def test_an_empty_table_has_no_pages() -> None:
    """And no distribution."""
    async with table() as store:
        page, stats = await store.query(Filters()), await store.stats()
    assert (page.data, page.total, page.total_pages) == ([], 0, 0)
    assert (stats.total_requests, stats.prompt_histogram, stats.gen_histogram) == (0, None, None)


async def test_the_newest_rows_come_first_in_pages() -> None:
    """The last page may be short, and what is behind it is empty."""
    async with table() as store:
        for second in range(7):
            store.add(row(second))
        assert await ids(store, limit=3) == [7, 6, 5]
        assert await ids(store, limit=3, page=3) == [1]
        assert await ids(store, limit=3, page=10**18) == []
        assert (await store.query(Filters(limit=3))).total_pages == 3


async def test_rows_can_be_narrowed_by_model_time_and_id() -> None:
    """All bounds belong to what they bound."""
    async with table() as store:
        for second, model in enumerate(("a", "b", "c", "a")):
            store.add(row(second, model=model))
        assert await ids(store, models=("a", "c")) == [4, 3, 1]
        assert await ids(store, start=1_800_000_001, end=1_800_000_002) == [3, 2]
        assert await ids(store, min_id=2, max_id=3) == [3, 2]
        assert await ids(store, models=("a' OR 1=1 --",)) == []


@pytest.mark.parametrize("sort", SORTS)
async def test_each_column_sorts_both_ways(sort: str) -> None:
    """Equal values go by id, so that no row is on two pages."""
    async with table() as store:
        for _ in range(3):
            store.add(row())
        assert await ids(store, sort=sort, order="asc") == [1, 2, 3]
        assert await ids(store, sort=sort, order="desc") == [3, 2, 1]


async def test_sorting_goes_by_value() -> None:
    """The id is the second key only."""
    async with table() as store:
        for duration in (5, 9, 7):
            store.add(row(duration_ms=duration))
        assert await ids(store, sort="duration", order="desc") == [2, 3, 1]


async def test_sums_leave_out_what_is_not_known() -> None:
    """-1 is no count, and a request without a speed is in no distribution."""
    async with table() as store:
        store.add(row(tokens=Tokens(cache_tokens=-1, input_tokens=5, output_tokens=2, prompt_per_second=-1.0)))
        store.add(row(tokens=Tokens(cache_tokens=4, input_tokens=6, output_tokens=1, prompt_per_second=8.0)))
        store.add(row(model="other", tokens=Tokens(input_tokens=100)))
        stats, every = await store.stats("llama"), await store.stats()
    assert (stats.total_requests, stats.total_input_tokens, stats.total_output_tokens) == (2, 11, 3)
    assert stats.total_cache_tokens == 4
    assert stats.prompt_histogram is not None
    assert stats.prompt_histogram.bins == [1]
    assert stats.gen_histogram is None
    assert every.total_requests == 3


async def test_a_table_in_memory_keeps_the_newest() -> None:
    """As many as it was told."""
    async with table(limit=3) as store:
        for second in range(10):
            store.add(row(second))
        assert await ids(store) == [10, 9, 8]


async def test_a_file_outlives_the_program_and_its_ids_go_on(tmp_path: Path) -> None:
    """Also where the newest rows are gone; and nobody else can read it."""
    path = tmp_path / "activity.db"
    async with table(str(path)) as store:
        assert [store.add(row()), store.add(row())] == [1, 2]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM activity WHERE id = 2")
    async with table(str(path), limit=1) as store:
        assert store.add(row()) == 3
        assert await ids(store) == [3, 1]


async def test_a_file_of_llama_swaps_goes_on_where_it_was(tmp_path: Path) -> None:
    """Its columns are ours, one that came later has a default, and what it noted is shown."""
    path = str(tmp_path / "swap.db")
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(SCHEMA)
        database.execute("ALTER TABLE activity DROP COLUMN record_json")
        database.execute("ALTER TABLE activity ADD COLUMN src TEXT NOT NULL DEFAULT ''")
        insert = "INSERT INTO activity (id, ts_created, model_id, metadata_json) VALUES (?, ?, 'old', ?)"
        database.executemany(insert, [(41, 5, '{"fifo_priority":"0"}'), (42, 6, "not JSON")])
    async with table(path) as store:
        assert store.add(row()) == 43
        page = await store.query(Filters(models=("old",), order="asc"))
    assert [found.id for found in page.data] == [41, 42]
    assert page.data[0].metadata == {"fifo_priority": "0"}
    assert (record_of(page.data[0]).id, record_of(page.data[0]).model) == ("41", "old")


async def test_a_row_brings_its_requests_record_back(tmp_path: Path) -> None:
    """All of it but the place where the prompt differed, which quotes prompts and must not reach a disk."""
    told = metered(
        client="anna",
        cache="miss",
        finding=system_changed("new words"),
        waits={"stop": 0.5},
        swap=0.5,
        error="half \ud800 a character",
        session="s1",
        metadata={"selector": "fast"},
        usage=Usage(input_tokens=3),
    )
    path = tmp_path / "activity.db"
    async with table(str(path)) as store:
        store.add(told)
        (found,) = (await store.query(Filters())).data
        assert await store.record(1) == record_of(found)
        assert await store.record(2) is None
    kept = replace(told, finding=None, error="half ? a character", activity=1)
    assert record_of(found) == replace(kept, metadata={"selector": "fast", "session_id": "s1"})
    assert b"new words" not in path.read_bytes()


async def test_a_row_is_found_by_its_requests_id() -> None:
    """The newest first; a row without a record has none."""
    async with table() as store:
        for one in (metered(id="r1", started=1.0), metered(id="r2"), row(), metered(id="r1", started=2.0)):
            store.add(one)
        assert [found.activity for found in await store.named("r1")] == [4, 1]
        for other in ("r3", "3", ""):
            assert await store.named(other) == []


async def test_rows_can_be_narrowed_by_what_the_record_says() -> None:
    """Client, outcome, cache, status and a part of the path; rows without a record count by their status."""
    async with table() as store:
        store.add(metered(client="anna", cache="hit"))
        store.add(metered(client="bert", cache="miss", outcome="engine_error", status=502))
        store.add(metered(client="anna", path="/v1/embeddings", outcome="client_error", status=404))
        store.add(row(resp_status_code=404))
        assert await ids(store, clients=("anna",)) == [3, 1]
        assert await ids(store, caches=("hit", "miss")) == [2, 1]
        assert await ids(store, outcomes=("client_error",)) == [4, 3]
        assert await ids(store, outcomes=("ok", "engine_error")) == [2, 1]
        assert await ids(store, statuses=(404, 404)) == [4, 3]
        assert await ids(store, statuses=(500, 599)) == [2]
        assert await ids(store, path="embed") == [3]
        assert await ids(store, path="%") == []


async def test_sorting_goes_by_what_the_record_says() -> None:
    """Rows without a record come as if it took no time."""
    async with table() as store:
        store.add(metered(queue=2.0))
        store.add(metered(queue=10.0))
        store.add(row())
        assert await ids(store, sort="queue") == [2, 1, 3]


async def test_old_rows_leave_a_file(tmp_path: Path) -> None:
    """Those that ended more than `max_age` seconds ago, when it is opened."""
    path = str(tmp_path / "activity.db")
    old = row(-800_000_000)
    async with table(path) as store:
        store.add(old)
        assert await ids(store) == [1]
    async with table(path, max_age=3600.0) as store:
        assert await ids(store) == []


async def test_many_old_rows_hold_up_no_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of llama-swap's may have millions: they leave it part by part, and questions come in between."""
    path = str(tmp_path / "activity.db")
    async with table(path) as store:
        for second in range(5):
            store.add(row(second - 800_000_000))
    monkeypatch.setattr(activity_store, "AT_ONCE", 2)
    store, asked = ActivityStore(settings(DialectConfig(store=Store(path=path)), kv__max_age=3600.0)), threading.Event()
    store.worker.submit(asked.wait)
    async with asyncio.TaskGroup() as group:
        group.create_task(store.start())
        question = group.create_task(ids(store))
        asyncio.get_running_loop().call_soon(asked.set)
    assert question.result() == [5, 4, 3]

    async def gone() -> bool | None:
        return True if await ids(store) == [] else None

    assert await aio.poll(gone, interval=MS, deadline=30)
    await store.close()


async def test_a_file_that_does_not_answer_stops_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said, and once the file answers, the rows are in it."""
    path, answers = str(tmp_path / "activity.db"), threading.Event()
    store = ActivityStore(settings(DialectConfig(store=Store(path=path))))
    store.worker.submit(answers.wait)
    with monkeypatch.context() as patched:
        patched.setattr(activity_store, "LONGEST", MS)
        await store.start()
        await store.put_back([(1, record_of(row()))])
    assert f"the activity table in {path} does not answer" in caplog.text
    store.add(row())
    answers.set()
    assert await ids(store) == [1]
    await store.close()


async def test_a_file_whose_rows_are_damaged_is_replaced_by_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The beginning of the file, which says what is in it, may be whole all the same."""
    path = tmp_path / "activity.db"
    async with table(str(path)) as store:
        for second in range(100):
            store.add(row(second))
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    async with table(str(path)) as store:
        store.add(row())
        assert await ids(store) == [1]
    assert caplog.text.count(f"{path} cannot be opened (database disk image is malformed)") == 1


async def test_rows_of_a_moment_are_written_together() -> None:
    """And a question that comes after them sees them all."""
    async with table(limit=2000) as store:
        for second in range(1500):
            store.add(row(second))
        assert (await store.query(Filters())).total == 1500
        assert store.statistics().written == 1500


@pytest.mark.parametrize("text", ["not a database, though large enough to look like one" * 100, ""])
async def test_a_file_that_cannot_be_used_is_replaced_by_memory(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning names it, and rows are kept all the same."""
    path = tmp_path / "activity.db"
    if text:
        path.write_text(text)
    else:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE activity (other TEXT, id INTEGER, ts_created TEXT, model_id TEXT)")
    async with table(str(path)) as store:
        store.add(row())
        assert await ids(store) == [1]
        assert store.statistics().fault
    assert caplog.text.count(str(path)) == 1


async def test_a_disk_that_fails_costs_rows_and_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Requests go on; when the disk is well again, so are the rows, and that is said too."""
    path = str(tmp_path / "activity.db")
    async with table(path) as store:
        await store.run(lambda: store.database.execute("PRAGMA query_only = ON"))
        for _ in range(3):
            store.add(row())
            await store.query(Filters())
        assert store.statistics().lost == 3
        assert caplog.text.count("lost") == 1
        await store.run(lambda: store.database.execute("PRAGMA query_only = OFF"))
        assert store.add(row()) == 4
        assert await ids(store) == [4]
        assert (store.statistics().fault, store.statistics().written) == ("", 1)


async def test_another_program_in_the_same_file_costs_no_row(tmp_path: Path) -> None:
    """It took our next id: the row gets a free one, and ids go on behind it."""
    path = str(tmp_path / "activity.db")
    async with table(path) as store:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("INSERT INTO activity (id, ts_created, model_id) VALUES (1, 5, 'theirs')")
        store.add(row())
        assert await ids(store) == [2, 1]
        assert store.add(row()) == 3


async def test_a_name_with_half_a_character_is_kept(tmp_path: Path) -> None:
    """A client may write what UTF-8 cannot."""
    async with table(str(tmp_path / "activity.db")) as store:
        store.add(row(model="m\ud800", metadata={"a\ud800": "b\ud800"}))
        (found,) = (await store.query(Filters())).data
    assert found.model == "m?"


async def test_rows_before_the_start_wait_for_it() -> None:
    """Nothing that is metered is lost on the way up."""
    store = ActivityStore(settings())
    assert store.add(row()) == 1
    await store.start()
    assert await ids(store) == [1]
    await store.close()


async def test_closing_writes_what_waits_and_later_rows_are_lost(tmp_path: Path) -> None:
    """A question then is refused in words."""
    path = str(tmp_path / "activity.db")
    store = ActivityStore(settings(DialectConfig(store=Store(path=path))))
    await store.start()
    store.add(row())
    await store.close()
    await store.close()
    store.add(row())
    assert store.statistics().lost == 1
    with pytest.raises(BioproxyError, match="stopping"):
        await store.query(Filters())
    async with table(path) as again:
        assert await ids(again) == [1]


async def test_a_broken_table_is_reported_and_not_guessed() -> None:
    """A question that the disk cannot answer is an error with a sentence."""
    async with table() as store:
        await store.run(lambda: store.database.execute("DROP TABLE activity"))
        with pytest.raises(BioproxyError, match="no such table"):
            await store.query(Filters())


async def test_a_question_that_is_cancelled_leaves_the_table_usable() -> None:
    """The client left; the worker goes on with the next one."""
    async with table() as store:
        store.add(row())
        asking = aio.spawn(store.query(Filters()), name="question")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await ids(store) == [1]
