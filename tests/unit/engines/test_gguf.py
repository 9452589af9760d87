"""The identity of a model file: what it must survive, and what it must notice."""

from __future__ import annotations

import io
import os
import random
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioproxy.embedded import model as demo_model
from bioproxy.engines import gguf
from bioproxy.errors import BioproxyError

MIB = 1 << 20


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `a.gguf`, and `b.gguf` of the same shape with other weights."""
    folder = tmp_path_factory.mktemp("models")
    demo_model.write_model(folder / "a.gguf", shape="tiny", seed=1)
    demo_model.write_model(folder / "b.gguf", shape="tiny", seed=2)
    return folder


def large_file(path: Path, *, size: int = 12 * MIB) -> Path:
    """A file that is sampled, not read whole; no GGUF."""
    path.write_bytes(random.Random(1).randbytes(size))
    return path


def test_a_moved_and_touched_model_keeps_its_identity(models: Path, tmp_path: Path) -> None:
    """Path and time are no part of it: moving a models folder loses nothing."""
    copy = Path(shutil.copy(models / "a.gguf", tmp_path / "elsewhere.gguf"))
    os.utime(copy, (1, 1))
    assert gguf.identity(copy) == gguf.identity(models / "a.gguf")


def test_other_weights_of_the_same_shape_are_another_model(models: Path) -> None:
    """llama-server would take the one's snapshot for the other and write nonsense."""
    assert (models / "a.gguf").stat().st_size == (models / "b.gguf").stat().st_size
    assert gguf.identity(models / "a.gguf") != gguf.identity(models / "b.gguf")


def test_a_longer_or_shorter_file_is_another_model(tmp_path: Path) -> None:
    """The size counts, whatever the samples say."""
    path = large_file(tmp_path / "x.gguf")
    before = gguf.identity(path)
    with path.open("ab") as file:
        file.write(b"\0")
    assert gguf.identity(path) != before


@pytest.mark.parametrize("place", [0, 500_000, 12 * MIB - 1])
def test_a_changed_byte_at_the_ends_is_noticed(tmp_path: Path, place: int) -> None:
    """The header is covered whole and the last block ends with the file."""
    path = large_file(tmp_path / "x.gguf")
    before = gguf.identity(path)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert gguf.identity(path) != before


def test_an_exchange_of_all_weights_behind_the_same_header_is_noticed(tmp_path: Path) -> None:
    """Samples lie all over the file, so that a fine-tune of the same layout differs."""
    path = large_file(tmp_path / "x.gguf")
    before = gguf.identity(path)
    head = path.read_bytes()[: 2 * MIB]
    path.write_bytes(head + random.Random(2).randbytes(10 * MIB))
    assert gguf.identity(path) != before


def test_little_of_a_large_file_is_read(tmp_path: Path) -> None:
    """A 100 GB model costs its header and 64 blocks, here of a sparse file."""
    path = tmp_path / "large.gguf"
    with path.open("wb") as file:
        file.truncate(100 << 30)
    with path.open("rb") as file:
        assert sum(len(piece) for piece in gguf.samples(file)) < 6 * MIB


def test_all_parts_of_a_split_model_count(tmp_path: Path) -> None:
    """A change in the last part is another model, whichever part is named."""
    names = [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    before = gguf.identity(tmp_path / names[0])
    assert gguf.identity(tmp_path / names[1]) == before
    (tmp_path / names[2]).write_bytes(b"other")
    assert gguf.identity(tmp_path / names[0]) != before


def test_swapped_parts_are_another_model(tmp_path: Path) -> None:
    """The order of the parts counts."""
    first, second = tmp_path / "m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf"
    first.write_bytes(b"one")
    second.write_bytes(b"two")
    before = gguf.identity(first)
    first.write_bytes(b"two")
    second.write_bytes(b"one")
    assert gguf.identity(first) != before


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    """The error says which file is not there."""
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(b"one")
    with pytest.raises(BioproxyError, match=r"m-00002-of-00002\.gguf: No such file"):
        gguf.identity(tmp_path / "m-00001-of-00002.gguf")


def test_the_header_tells_architecture_and_context(models: Path) -> None:
    """Scalar keys are read, arrays count as their length, and the weights begin where the header ends."""
    with (models / "a.gguf").open("rb") as file:
        header = gguf.read_header(file)
    assert header.architecture == "llama"
    assert header.keys["llama.context_length"] == 32768
    assert header.keys["tokenizer.ggml.tokens"] == 4096
    assert header.tensors == 21
    assert 0 < header.size < (models / "a.gguf").stat().st_size


def test_an_edited_vocabulary_is_another_model(models: Path, tmp_path: Path) -> None:
    """The header counts to its last byte."""
    data = bytearray((models / "a.gguf").read_bytes())
    with (models / "a.gguf").open("rb") as file:
        end = gguf.read_header(file).size
    data[end - 300] ^= 1
    (tmp_path / "m.gguf").write_bytes(data)
    assert gguf.identity(tmp_path / "m.gguf") != gguf.identity(models / "a.gguf")


@given(cut=st.integers(min_value=0, max_value=300), junk=st.binary(max_size=64))
@settings(max_examples=60, deadline=None)
def test_a_broken_header_is_a_sentence_and_never_a_crash(models: Path, cut: int, junk: bytes) -> None:
    """Cut short or overwritten with anything."""
    with (models / "a.gguf").open("rb") as file:
        data = file.read(cut) + junk
    with pytest.raises(BioproxyError, match="GGUF"):
        gguf.read_header(io.BytesIO(data))


def test_a_file_that_is_no_gguf_has_an_identity_too(tmp_path: Path) -> None:
    """A later version of the format must not stop anybody."""
    (tmp_path / "m.bin").write_bytes(b"GGUF" + (99).to_bytes(4, "little") + b"rest")
    assert len(gguf.identity(tmp_path / "m.bin")) == 32


def test_an_empty_file_has_an_identity_too(tmp_path: Path) -> None:
    """It is a file like any other."""
    (tmp_path / "m.gguf").touch()
    assert len(gguf.identity(tmp_path / "m.gguf")) == 32


# headers that somebody made up


def entry(key: str, kind: int, rest: bytes) -> bytes:
    """A header that announces one key of this type, and what follows."""
    return b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, len(key)) + key.encode() + struct.pack("<I", kind) + rest


@pytest.mark.parametrize(
    "data",
    [
        b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62),
        entry("a", 8, struct.pack("<Q", 2**40)),
        entry("a", 9, struct.pack("<IQ", 8, 2**40) + b"\0" * 4096),
        entry("a", 9, struct.pack("<IQ", 8, 1000) + struct.pack("<Q", 2**64 - 1)),
        entry("a", 9, struct.pack("<IQ", 4, 2**61)),
        entry("a", 9, struct.pack("<IQ", 9, 3)),
        b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<I", 2**32 - 1),
    ],
    ids=["tensors", "keys", "name", "text", "texts", "length", "numbers", "nested", "dimensions"],
)
def test_a_length_is_compared_with_the_file_before_it_is_believed(data: bytes) -> None:
    """Announced sizes cost neither memory nor time."""
    counted = io.BytesIO(data)
    with pytest.raises(BioproxyError, match="broken GGUF header"):
        gguf.read_header(counted)


def test_texts_without_end_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may be as large as it likes: no vocabulary has that many words."""
    monkeypatch.setattr(gguf, "MOST_TEXTS", 100)
    many = struct.pack("<IQ", 8, 60) + b"\0" * 8 * 60
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + 2 * (struct.pack("<Q", 1) + b"a" + struct.pack("<I", 9) + many)
    with pytest.raises(BioproxyError, match="120 texts are announced"):
        gguf.read_header(io.BytesIO(data))


def test_long_texts_of_an_array_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that reach over what is read at once."""
    monkeypatch.setattr(gguf, "CHUNK", 16)
    texts = b"".join(struct.pack("<Q", size) + b"x" * size for size in (0, 3, 40, 8, 9, 100))
    header = gguf.read_header(io.BytesIO(entry("a", 9, struct.pack("<IQ", 8, 6) + texts)))
    assert header.keys == {"a": 6}
