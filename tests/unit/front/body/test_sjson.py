"""Setting and deleting a value of a JSON body by its path."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.front.body import sjson
from bioproxy.templates.bodies import FIELDS

Json: TypeAlias = Any


def put(body: str, path: str, value: Json) -> str:
    fields = FIELDS.decode(body)
    sjson.put(fields, sjson.parse(path), sjson.encoded(value))
    return msgspec.json.encode(fields).decode()


def remove(body: str, path: str) -> str:
    fields = FIELDS.decode(body)
    sjson.remove(fields, sjson.parse(path))
    return msgspec.json.encode(fields).decode()


@pytest.mark.parametrize(
    ("body", "path", "after"),
    [
        ('{"a":1}', "a", '{"a":9}'),
        ('{"a":1}', "b", '{"a":1,"b":9}'),
        ("{}", "a.b.c", '{"a":{"b":{"c":9}}}'),
        ('{"a":{"b":1,"c":2}}', "a.b", '{"a":{"b":9,"c":2}}'),
        ('{"a":null}', "a.b", '{"a":{"b":9}}'),
        ('{"a":"text"}', "a.b", '{"a":{"b":9}}'),
        ('{"a":[1,2]}', "a.0", '{"a":[9,2]}'),
        ('{"a":[1,2]}', "a.-1", '{"a":[1,2,9]}'),
        ('{"a":[1]}', "a.3", '{"a":[1,null,null,9]}'),
        ("{}", "a.-1", '{"a":[9]}'),
        ("{}", "a.1", '{"a":[null,9]}'),
        ("{}", "a.:1", '{"a":{"1":9}}'),
        ('{"a":{"1":2}}', "a.1", '{"a":{"1":9}}'),
        ('{"a":[{"b":1}]}', "a.0.b", '{"a":[{"b":9}]}'),
        ('{"a":[]}', "a.-1.b", '{"a":[{"b":9}]}'),
        ('{"a.b":1}', r"a\.b", '{"a.b":9}'),
        ("{}", r"a\:\\b", r'{"a:\\b":9}'),
        ("{}", r"\*\#", '{"*#":9}'),
        ("{}", "1", '{"1":9}'),
    ],
)
def test_a_value_is_set(body: str, path: str, after: str) -> None:
    """Objects and lists on the way are made; a number names an element where there is a list, or nothing yet."""
    assert put(body, path, 9) == after


@pytest.mark.parametrize(
    ("body", "path", "after"),
    [
        ('{"a":1,"b":2}', "a", '{"b":2}'),
        ('{"a":{"b":1,"c":2}}', "a.b", '{"a":{"c":2}}'),
        ('{"a":{"b":1}}', "a.b", '{"a":{}}'),
        ('{"a":[1,2,3]}', "a.1", '{"a":[1,3]}'),
        ('{"a":[1,2,3]}', "a.-1", '{"a":[1,2]}'),
        ('{"a":[{"b":1}]}', "a.0.b", '{"a":[{}]}'),
        ('{"a":[]}', "a.-1", '{"a":[]}'),
        ('{"a":[1]}', "a.5", '{"a":[1]}'),
        ('{"a":[1]}', "a.b", '{"a":[1]}'),
        ('{"a":1}', "a.b", '{"a":1}'),
        ('{"a":1}', "b.c", '{"a":1}'),
    ],
)
def test_a_value_is_deleted(body: str, path: str, after: str) -> None:
    """What is not there cannot be deleted, which is no error."""
    assert remove(body, path) == after


@pytest.mark.parametrize("path", ["", "a..b", ".a", "a.", "a.*", "#", "a.#(b=1).c", "a|b", "@this"])
def test_what_is_no_path(path: str) -> None:
    """An empty part names nothing, and wildcards are not known here."""
    with pytest.raises(ValueError, match="the path"):
        sjson.parse(path)


@pytest.mark.parametrize("path", ["a.b", "a.:0", "a.999999", "a." + "9" * 30])
def test_a_path_that_does_not_fit_the_body(path: str) -> None:
    """A list has no keys, and is not filled up with a million nulls."""
    with pytest.raises(ValueError, match="list"):
        put('{"a":[1]}', path, 9)


def test_a_list_of_a_million_is_not_taken_apart() -> None:
    """An object for each of its values would hold up everybody; beside the path it does no harm."""
    long = "[" + ",".join(["1"] * 600_000) + "]"
    with pytest.raises(ValueError, match="more than 500000 values"):
        put(f'{{"a":{long}}}', "a.-1", 9)
    assert put(f'{{"a":{long},"b":{{}}}}', "b.c", 9).endswith('"b":{"c":9}}')


def test_values_beside_the_path_stay_the_same_bytes() -> None:
    """Big integers, escapes, the order of keys and blanks inside a value."""
    beside = r'{"z": 123456789012345678901234567890, "a": "\u00e9\/", "e": 1e400}'
    body = f'{{"first":{beside},"kwargs":{{"x":{beside},"y":1}},"list":[{beside}]}}'
    after = put(body, "kwargs.y", 2)
    assert after == body.replace('"y":1', '"y":2')


def test_setting_what_is_there_changes_nothing() -> None:
    """So that the body can be forwarded as the same object."""
    fields = FIELDS.decode(b'{"a":0.5}')
    assert not sjson.put(fields, sjson.parse("a"), sjson.encoded(0.5))
    assert not sjson.remove(fields, sjson.parse("b.c"))


KEYS = st.sampled_from(["a", "b", "c.d", "0", "-1", "é", "x:y", ":", "#", "\\"])
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3))
VALUES = st.recursive(LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner)))
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)
STEPS = st.lists(st.one_of(KEYS, st.integers(0, 4).map(str)), min_size=1, max_size=4)


def path_of(keys: list[str]) -> str:
    """Keys as a path: what would mean something is escaped, numbers are not."""
    return ".".join("".join("\\" + sign if sign in "\\.:#" else sign for sign in key) for key in keys)


def plainly_set(value: Json, keys: list[str], new: Json) -> Json:
    """The same on plain Python values."""
    if not keys:
        return new
    key, rest = keys[0], keys[1:]
    if not isinstance(value, (dict, list)):
        value = [] if key.isdigit() or key == "-1" else {}
    if isinstance(value, dict):
        return {**value, key: plainly_set(value.get(key), rest, new)}
    if not (key.isdigit() or key == "-1"):
        raise ValueError(key)
    place = len(value) if key == "-1" else int(key)
    filled = value + [None] * (place + 1 - len(value))
    return [*filled[:place], plainly_set(filled[place], rest, new), *filled[place + 1 :]]


def plainly_deleted(value: Json, keys: list[str]) -> Json:
    """The same on plain Python values."""
    key, rest = keys[0], keys[1:]
    if isinstance(value, dict) and key in value:
        kept = {name: inner for name, inner in value.items() if name != key}
        return kept if not rest else {**value, key: plainly_deleted(value[key], rest)}
    if isinstance(value, list) and value and (key.isdigit() or key == "-1"):
        place = len(value) - 1 if key == "-1" else int(key)
        if place < len(value):
            inner = [plainly_deleted(value[place], rest)] if rest else []
            return [*value[:place], *inner, *value[place + 1 :]]
    return value


@given(document=DOCUMENTS, keys=STEPS, new=VALUES)
def test_setting_agrees_with_plain_python(document: Json, keys: list[str], new: Json) -> None:
    """Whatever the document, the path and the value."""
    try:
        expected = plainly_set({keys[0]: None} | document, keys, new)
    except ValueError:
        with pytest.raises(ValueError, match="list"):
            put(json.dumps(document), path_of(keys), new)
        return
    assert json.loads(put(json.dumps(document), path_of(keys), new)) == expected


@given(document=DOCUMENTS, keys=STEPS)
def test_deleting_agrees_with_plain_python(document: Json, keys: list[str]) -> None:
    """Whatever the document and the path; and a second time there is nothing left to delete, but in lists."""
    assert json.loads(remove(json.dumps(document), path_of(keys))) == plainly_deleted(document, keys)


@given(document=DOCUMENTS)
def test_a_document_that_was_opened_and_written_is_the_same(document: Json) -> None:
    """What is not touched is not understood either."""
    compact = msgspec.json.encode(document)
    assert msgspec.json.encode(FIELDS.decode(compact)) == compact
