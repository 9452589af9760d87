"""API keys in files: read at load, never shown, and a sentence for each that cannot be used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from bioproxy.config.describe import describe
from bioproxy.config.schema import Key
from support.config_files import loaded, problems, sentences


def key_file(folder: Path, data: bytes, *, mode: int = 0o600) -> Path:
    """A key file and its mode."""
    path = folder / "key"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_a_key_file_is_read_into_the_key(tmp_path: Path) -> None:
    """Blanks and newlines around it go; the rest of the entry stays."""
    key_file(tmp_path, b"\n s3cret \r\n")
    text = "api_keys: [{key_file: key, name: alice, priority: 3, models: [a], max_running: 2, forwards_users: yes}]"
    assert loaded(tmp_path, text).config.api_keys == (
        Key(key="s3cret", name="alice", priority=3, models=("a",), max_running=2, forwards_users=True),
    )


def test_a_mark_of_an_editor_is_no_part_of_a_key(tmp_path: Path) -> None:
    """Some begin a text file with it, and end lines in their own way."""
    key_file(tmp_path, b"\xef\xbb\xbfs3cret\r\n")
    assert loaded(tmp_path, "api_keys: [{key_file: key}]").config.api_keys == (Key(key="s3cret"),)


def test_plain_texts_become_keys(tmp_path: Path) -> None:
    """A loaded Config holds Key structs only."""
    assert loaded(tmp_path, "api_keys: [a, {sha256: " + "0" * 64 + "}]").config.api_keys == (
        Key(key="a"),
        Key(sha256="0" * 64),
    )


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"two words\n", "holds more than one word"),
        (b"one\ntwo\n", "holds more than one word"),
        (b"caf\xe9", "holds bytes that no key has"),
        (b"x" * 5000, "is too long for a key"),
    ],
)
def test_a_file_that_holds_no_key(data: bytes, part: str, tmp_path: Path) -> None:
    """The sentence names the file and not what is in it."""
    path = key_file(tmp_path, data)
    (found,) = sentences(tmp_path, "api_keys:\n  - key_file: key\n")
    assert found.startswith("conf.yaml:2: api_keys[0].key_file: key ")
    assert part in found
    assert path.exists()


@pytest.mark.parametrize(("name", "reason"), [("none", "No such file or directory"), (".", "Is a directory")])
def test_a_key_file_that_cannot_be_read(name: str, reason: str, tmp_path: Path) -> None:
    """With the system's reason."""
    (found,) = sentences(tmp_path, f"api_keys: [{{key_file: {name}}}]")
    assert f"cannot be read: {reason}" in found


def test_every_key_file_is_tried(tmp_path: Path) -> None:
    """And the other entries are judged as well, each under its own number."""
    text = "api_keys:\n  - key_file: a\n  - x y\n  - key_file: b\n  - {}\n"
    assert [(each.where[-1], each.key) for each in problems(tmp_path, text)] == [
        ("2", "api_keys[0].key_file"),
        ("3", "api_keys[1]"),
        ("4", "api_keys[2].key_file"),
        ("5", "api_keys[3]"),
    ]


def test_a_key_in_a_file_and_the_same_in_the_config_are_equal(tmp_path: Path) -> None:
    """However they came."""
    key_file(tmp_path, b"s3cret")
    (found,) = sentences(tmp_path, "api_keys: [s3cret, {key_file: key}]")
    assert found == "conf.yaml:1: api_keys[1]: is the same key as api_keys[0]; each key must be another"


def test_a_key_file_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    """It names the command that mends it."""
    path = key_file(tmp_path, b"s3cret", mode=0o644)
    (warning,) = loaded(tmp_path, "api_keys: [{key_file: key}]").warnings
    assert f"{path} can be read by other users (mode 0644); chmod 600 it" in str(warning)


def test_a_key_file_that_only_we_can_read_is_none(tmp_path: Path) -> None:
    """The group may read it: secrets of containers come so."""
    key_file(tmp_path, b"s3cret", mode=0o640)
    assert loaded(tmp_path, "api_keys: [{key_file: key}]").warnings == ()


def test_no_key_is_shown(tmp_path: Path) -> None:
    """Neither in `bioproxy config` nor as JSON."""
    key_file(tmp_path, b"s3cret-file")
    hashed = hashlib.sha256(b"x").hexdigest()
    text = f"api_keys: [s3cret-plain, {{key_file: key, name: bob}}, {{sha256: {hashed}}}]\nadmin_key: s3cret-admin\n"
    rows = describe(loaded(tmp_path, text))
    shown = json.dumps([(row.key, row.value, row.text, row.origin) for row in rows])
    assert "s3cret" not in shown
    assert hashed not in shown
    assert "bob" in shown
