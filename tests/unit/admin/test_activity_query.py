"""What the query of the activity table may say, and in what words it is refused."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.admin.activity_api import filters_of
from bioproxy.admin.activity_row import Filters
from bioproxy.errors import RequestError


def read(query: str) -> Filters:
    return filters_of(parse_qsl(query, keep_blank_values=True))


def test_without_a_query_there_are_defaults() -> None:
    """Empty values count as none."""
    assert read("") == read("limit=&page=&sort=&order=&start=&model= ") == Filters()


def test_everything_can_be_said() -> None:
    """Times to the second, as the table has them; the first of several values counts, but for models."""
    found = read(
        "model=a&model=%20b%20&start=2027-01-15T08:00:00.9Z&end=2027-01-15T10:00:00%2B01:00&min_id=2&max_id=9"
        "&limit=999&limit=5&page=3&sort=gen_speed&order=ASC"
    )
    assert found == Filters(
        models=("a", "b"),
        start=1_800_000_000,
        end=1_800_003_600,
        min_id=2,
        max_id=9,
        limit=999,
        page=3,
        sort="gen_speed",
        order="asc",
    )


def test_what_only_our_records_know_can_be_said() -> None:
    """A status is one, or a class of them."""
    found = read("client=anna&client=bert&outcome=ok&cache=miss&path=/v1/chat&status=4xx")
    assert found == Filters(
        clients=("anna", "bert"), outcomes=("ok",), caches=("miss",), path="/v1/chat", statuses=(400, 499)
    )
    assert read("status=404").statuses == (404, 404)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("status=40", "status must be a number such as 404, or a class such as 4xx"),
        ("status=4x4", "status must be a number such as 404, or a class such as 4xx"),
        ("limit=x", "invalid limit"),
        ("limit=1_0", "invalid limit"),
        ("limit=99999999999999999999", "invalid limit"),
        ("limit=0", "limit must be between 1 and 999"),
        ("limit=1000", "limit must be between 1 and 999"),
        ("page=0", "page must be >= 1"),
        ("page=x", "page must be >= 1"),
        ("sort=ts_created", "invalid sort column"),
        ("order=up", "order must be asc or desc"),
        ("min_id=0", "min_id must be >= 1"),
        ("max_id=-3", "max_id must be >= 1"),
        ("min_id=3&max_id=2", "min_id must be <= max_id"),
        ("start=2027-01-15T10:00:00Z&end=2027-01-15T08:00:00Z", "start must be before end"),
        ("start=yesterday", "invalid 'start' timestamp, use RFC3339 format"),
        ("end=2027-02-31T10:00:00Z", "invalid 'end' timestamp, use RFC3339 format"),
        ("end=2027-01-15", "invalid 'end' timestamp, use RFC3339 format"),
    ],
)
def test_what_is_wrong_is_said_in_llama_swaps_words(query: str, message: str) -> None:
    """Scripts match on them."""
    with pytest.raises(RequestError) as caught:
        read(query)
    assert (caught.value.message, caught.value.status) == (message, 400)


@given(st.lists(st.tuples(st.sampled_from([*Filters.__struct_fields__, "model"]), st.text(max_size=25))))
def test_whatever_a_client_writes_is_read_or_refused(query: list[tuple[str, str]]) -> None:
    """Never anything else."""
    try:
        found = filters_of(query)
    except RequestError:
        return
    assert found.page >= 1
    assert 1 <= found.limit <= 999
