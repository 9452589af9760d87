"""What a model file is, asked once as long as nobody touches it."""

from __future__ import annotations

import os
from pathlib import Path

from bioproxy.kv.fingerprint import MOST, Identities, Traits
from support.faults import changed
from support.real_engine import header


class Reader:
    """Counts how often a file is read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, path: str) -> str:
        self.read.append(path)
        return Path(path).read_text()


def test_a_file_is_read_once(tmp_path: Path) -> None:
    """Under whatever name it lies: a container shows it under another one for each process."""
    model, link = tmp_path / "a.gguf", tmp_path / "b.gguf"
    model.write_text("weights")
    link.symlink_to(model)
    reader = Reader()
    known = Identities(reader)
    assert [known(str(path)) for path in (model, model, link)] == ["weights"] * 3
    assert reader.read == [str(model)]


def test_a_file_that_was_written_to_is_read_again(tmp_path: Path) -> None:
    """Also where size and modification time are as before: the change time tells."""
    model = tmp_path / "a.gguf"
    model.write_text("old")
    os.utime(model, (1, 1))
    known = Identities(Reader())
    first = known(str(model))
    before = changed(model)
    with model.open("r+") as file:
        file.write("new")
    while changed(model) == before:  # the system's clock for files is coarse
        os.utime(model, (1, 1))
    assert (first, known(str(model))) == ("old", "new")


def test_what_changes_while_it_is_read_is_not_remembered(tmp_path: Path) -> None:
    """Nobody knows which of the two was seen."""
    model = tmp_path / "a.gguf"
    model.write_text("first")

    def slow(path: str) -> str:
        text = Path(path).read_text()
        if text == "first":
            model.write_text("second one")
        return text

    known = Identities(slow)
    assert [known(str(model)), known(str(model))] == ["first", "second one"]


def test_only_so_many_are_remembered(tmp_path: Path) -> None:
    """A program that runs for a year meets many files."""
    known = Identities(Reader())
    for number in range(MOST + 5):
        path = tmp_path / str(number)
        path.write_text("x")
        known(str(path))
    assert len(known.identities) == MOST


LLAMA = {
    "general__architecture": "llama",
    "llama__block_count": 2,
    "llama__embedding_length": 128,
    "llama__attention__head_count": 4,
    "llama__attention__head_count_kv": 2,
}


def test_the_header_tells_how_large_a_token_is(tmp_path: Path) -> None:
    """Keys and values of each layer, two bytes each: enough for a first guess at what a save costs."""
    model = tmp_path / "a.gguf"
    model.write_bytes(header(**LLAMA))  # type: ignore[arg-type]
    assert Identities().traits(str(model)) == Traits(window=False, token_bytes=2 * 2 * 2 * (32 + 32))


def test_sliding_windows_are_seen(tmp_path: Path) -> None:
    """Their restores are another matter (facts, 0.8)."""
    model = tmp_path / "a.gguf"
    model.write_bytes(header(**LLAMA, llama__attention__sliding_window=512))  # type: ignore[arg-type]
    assert Identities().traits(str(model)).window is True


def test_positions_that_the_context_turns_are_seen(tmp_path: Path) -> None:
    """By a tensor, in whichever part of the model it is."""
    parts = [tmp_path / f"a-0000{number}-of-00002.gguf" for number in (1, 2)]
    parts[0].write_bytes(header(b"token_embd.weight", **LLAMA))  # type: ignore[arg-type]
    parts[1].write_bytes(header(b"output.weight"))
    assert not Identities().traits(str(parts[0])).long_rope
    parts[1].write_bytes(header(b"rope_factors_long.weight", b"output.weight"))
    assert Identities().traits(str(parts[0])).long_rope


def test_a_file_without_a_header_tells_nothing(tmp_path: Path) -> None:
    """And is no error."""
    model = tmp_path / "a.gguf"
    model.write_bytes(b"something else")
    assert Identities().traits(str(model)) == Identities().traits(str(tmp_path / "missing")) == Traits()
