"""Where GGUF files are found, what they are called, and what is passed over."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy.engines import gguf, library
from bioproxy.engines.library import Found, Place, look, place_of, usual
from support.faults import hung
from support.gguf_files import QWEN, header, ollama, write

Json = Any
PROJECTOR: Json = {
    "general.architecture": "clip", "general.type": "mmproj", "general.name": "Qwen3 8B",
    "clip.vision.projection_dim": 4096,
}  # fmt: skip


def names(found: Found) -> list[str]:
    return [one.name for one in found.entries]


def in_folder(folder: Path, *, repository: bool = False) -> Found:
    return look([Place(path=str(folder), repository=repository)])


def test_a_file_is_called_by_its_name(tmp_path: Path) -> None:
    """In folders below, too; hidden ones are not looked into."""
    write(tmp_path / "Qwen3-8B-Q4_K_M.gguf")
    write(tmp_path / "more" / "B.gguf")
    write(tmp_path / ".trash" / "C.gguf")
    assert names(in_folder(tmp_path)) == ["Qwen3-8B-Q4_K_M", "B"]


def test_a_split_model_is_one(tmp_path: Path) -> None:
    """Named by its first part; a missing part is told."""
    for number in (1, 2):
        write(tmp_path / f"big-0000{number}-of-00002.gguf")
        write(tmp_path / f"half-0000{number}-of-00003.gguf")
    found = in_folder(tmp_path)
    assert names(found) == ["big"]
    assert found.entries[0].path.endswith("big-00001-of-00002.gguf")
    assert "half-00003-of-00003.gguf: no such file" in found.notes[0]


def test_a_split_model_without_its_beginning_is_named_once(tmp_path: Path) -> None:
    """The other parts alone are of no use."""
    for number in (2, 3):
        write(tmp_path / f"big-0000{number}-of-00003.gguf")
    assert in_folder(tmp_path).notes == (
        f"{tmp_path / 'big-00002-of-00003.gguf'}: the first part of this model, big-00001-of-00003.gguf, is missing",
    )


def test_an_ending_may_be_written_in_any_case(tmp_path: Path) -> None:
    """llama.cpp looks at what is in a file; the parts of a split model it finds in small letters only."""
    write(tmp_path / "Loud.GGUF", QWEN)
    for number in (1, 2):
        write(tmp_path / f"big-{number:05d}-of-00002.GGUF", QWEN)
    found = look([Place(path=str(tmp_path))])
    assert [one.name for one in found.entries] == ["Loud"]
    assert found.notes == (
        f"{tmp_path / 'big-00001-of-00002.GGUF'}: the parts of a split model must end in .gguf, in small letters",
    )


def test_a_projector_belongs_to_the_model_beside_it(tmp_path: Path) -> None:
    """In a repository's folder; of several the one of 16 bits, which every engine can use."""
    write(tmp_path / "model.gguf")
    write(tmp_path / "mmproj-F32.gguf", PROJECTOR)
    write(tmp_path / "mmproj-model-f16.gguf", PROJECTOR)
    [one] = in_folder(tmp_path, repository=True).entries
    assert os.path.basename(one.projector) == "mmproj-model-f16.gguf"
    assert one.projector_bytes == (tmp_path / "mmproj-model-f16.gguf").stat().st_size


def test_a_projector_of_another_model_is_left_alone(tmp_path: Path) -> None:
    """Its width must be the model's, and in a folder of many models its name."""
    write(tmp_path / "model.gguf", {**QWEN, "general.name": "Another"})
    write(tmp_path / "mmproj.gguf", PROJECTOR)
    assert in_folder(tmp_path).entries[0].projector == ""
    write(tmp_path / "mmproj.gguf", {**PROJECTOR, "clip.vision.projection_dim": 5120})
    assert in_folder(tmp_path, repository=True).entries[0].projector == ""


def test_what_is_no_model_is_passed_over(tmp_path: Path) -> None:
    """Adapters, matrices for quantising, vocabularies without weights."""
    write(tmp_path / "lora.gguf", {**QWEN, "general.type": "adapter"})
    write(tmp_path / "imatrix.gguf", {**QWEN, "general.type": "imatrix"})
    (tmp_path / "vocab.gguf").write_bytes(header(QWEN, {}))
    assert in_folder(tmp_path) == Found(places=(str(tmp_path),))


def test_a_broken_file_is_named_and_stops_nobody(tmp_path: Path) -> None:
    """Cut short, or something else."""
    write(tmp_path / "good.gguf")
    (tmp_path / "cut.gguf").write_bytes(header(QWEN)[:100])
    (tmp_path / "text.gguf").write_text("version https://git-lfs.github.com/spec/v1")
    found = in_folder(tmp_path)
    assert names(found) == ["good"]
    assert [note.partition(": ")[2] for note in found.notes] == [
        "broken GGUF header: the file ends at 100",
        "no GGUF file: the magic is missing",
    ]


def test_hugging_faces_cache_counts_each_file_once(tmp_path: Path) -> None:
    """Snapshots are links to blobs; the newest revision's name is the one that stays."""
    repository = tmp_path / "models--Qwen--Qwen3-8B-GGUF"
    blob = write(repository / "blobs" / "0123")
    for age, revision in enumerate(("new", "old")):
        snapshot = repository / "snapshots" / revision
        snapshot.mkdir(parents=True)
        (snapshot / "Qwen3-8B.gguf").symlink_to(blob)
        os.utime(snapshot, (1_000_000 - age, 1_000_000 - age))
    found = look([Place(path=str(tmp_path), owner="Hugging Face", repository=True)])
    assert names(found) == ["Qwen3-8B"]
    assert found.entries[0].path == str(repository / "snapshots" / "new" / "Qwen3-8B.gguf")


def test_hugging_faces_cache_without_links_counts_each_name_once(tmp_path: Path) -> None:
    """Where links are not allowed, each revision has the file itself."""
    repository = tmp_path / "models--Qwen--Qwen3-8B-GGUF"
    for age, revision in enumerate(("new", "old")):
        write(repository / "snapshots" / revision / "Q8_0" / "Qwen3-8B.gguf")
        os.utime(repository / "snapshots" / revision / "Q8_0", (1_000_000 - age, 1_000_000 - age))
    found = look([Place(path=str(tmp_path), owner="Hugging Face", repository=True)])
    assert [one.path for one in found.entries] == [str(repository / "snapshots" / "new" / "Q8_0" / "Qwen3-8B.gguf")]


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    """A blob that was deleted."""
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nothing")
    assert "no such file" in in_folder(tmp_path).notes[0]


def test_ollamas_models_have_the_names_of_their_manifests(tmp_path: Path) -> None:
    """Library models without their namespace, others with it; a projector layer is the model's own."""
    ollama(tmp_path, "library/qwen3/8b", header(QWEN), projector=header(PROJECTOR))
    ollama(tmp_path, "ann/mine/latest", header({**QWEN, "general.name": "Mine, which is longer"}))
    found = look([Place(path=str(tmp_path), owner="Ollama", ollama=True)])
    projectors = {one.name: one.projector for one in found.entries}
    assert projectors.keys() == {"ann/mine:latest", "qwen3:8b"}
    assert projectors["qwen3:8b"].startswith(str(tmp_path / "blobs" / "sha256-"))
    assert projectors["ann/mine:latest"] == ""


def test_a_folder_of_a_program_is_known_wherever_it_lies(tmp_path: Path) -> None:
    """Ollama's on another disk has no names of files that say anything; Hugging Face's has several revisions."""
    ollama(tmp_path / "disk", "library/qwen3/8b", header(QWEN))
    repository = tmp_path / "hub" / "models--Qwen--Qwen3-8B-GGUF" / "snapshots"
    for age, revision in enumerate(("new", "old")):
        write(repository / revision / "Qwen3-8B.gguf")
        os.utime(repository / revision, (1_000_000 - age, 1_000_000 - age))
    write(tmp_path / "plain" / "mine.gguf")
    found = look([place_of(str(tmp_path / name)) for name in ("disk", "hub", "plain", "gone")])
    assert names(found) == ["qwen3:8b", "Qwen3-8B", "mine"]
    assert [one.owner for one in found.entries] == ["Ollama", "Hugging Face", ""]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"layers": 1}', '{"layers": [1, {"mediaType": "application/vnd.ollama.image.model"}]}',
             '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../etc/passwd"}]}'],
)  # fmt: skip
def test_a_strange_manifest_names_no_model(tmp_path: Path, text: str) -> None:
    """Least of all a file outside the blobs."""
    path = tmp_path / "manifests" / "host" / "library" / "x" / "latest"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert look([Place(path=str(tmp_path), owner="Ollama", ollama=True)]).entries == ()


@pytest.mark.parametrize("kind", ["model", "projector"])
def test_a_blob_that_is_gone_is_named_with_its_model(tmp_path: Path, kind: str) -> None:
    """Its own name says nothing to a person."""
    digest = "0" * 64
    also = [{"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}"}]
    ollama(tmp_path, "library/whole/8b", header({**QWEN, "general.name": "Another one"}))
    ollama(tmp_path, "library/qwen3/8b", header(QWEN))
    manifest = tmp_path / "manifests" / "registry.ollama.ai" / "library" / "qwen3" / "8b"
    layers = json.loads(manifest.read_text())["layers"]
    manifest.write_text(json.dumps({"layers": [*(layers if kind == "projector" else ()), *also]}))
    found = look([Place(path=str(tmp_path), owner="Ollama", ollama=True)])
    assert names(found) == ["whole:8b"]
    [note] = found.notes
    assert note.startswith("qwen3:8b (")
    assert f"sha256-{digest}" in note
    assert note.endswith(": no such file or directory")


@contextmanager
def forbidden(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the system refuse `path` and what is below it, as it does for another user's (to root it refuses nothing)."""

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(given: Any, *more: Any, **named: Any) -> Any:
            if path in (Path(given), *Path(given).parents):
                raise PermissionError(13, "Permission denied", str(given))
            return real(given, *more, **named)

        return call

    with monkeypatch.context() as patch:
        for name in ("stat", "scandir", "open"):
            patch.setattr(os, name, refusing(getattr(os, name)))
        yield


@pytest.mark.parametrize("ollama", [False, True])
def test_a_folder_that_is_for_others_keeps_nobody_from_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, ollama: bool
) -> None:
    """Ollama's service has a home of its own, `~/models` a folder of somebody else's: both are named."""
    write(tmp_path / "near" / "near.gguf")
    write(tmp_path / "near" / "other" / "far.gguf")
    (tmp_path / "service" / "manifests").mkdir(parents=True)
    places = [Place(path=str(tmp_path / "service"), ollama=ollama), Place(path=str(tmp_path / "near"))]
    for closed in (tmp_path / "service", tmp_path / "service" / "manifests", tmp_path / "near" / "other"):
        with forbidden(closed, monkeypatch):
            found = look(places)
        assert "near" in names(found)
        assert f"{closed}: permission denied" in found.notes


def test_two_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """By their folders."""
    for folder in ("a", "b"):
        write(tmp_path / folder / "model.gguf", {**QWEN, "general.name": folder})
    assert names(in_folder(tmp_path)) == ["model", "b/model"]


def test_the_usual_places_follow_their_variables() -> None:
    """Each program's own."""
    ann = os.path.abspath("/home/ann")
    places = {place.path for place in usual({"HOME": ann})}
    usually = (".cache/huggingface/hub", ".lmstudio/models", "models", ".ollama/models")
    assert {os.path.join(ann, *one.split("/")) for one in usually} <= places
    variables = {"HF_HOME": "/hf", "OLLAMA_MODELS": "/o", "LLAMA_CACHE": "/l", "LOCALAPPDATA": "/local"}
    moved = {place.path for place in usual({"HOME": ann, **variables})}
    assert set(map(os.path.abspath, ("/hf/hub", "/o", "/l", "/local/llama.cpp"))) <= moved


def test_two_hundred_models_cost_the_beginnings_of_their_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vocabularies are not read if there are many files, and weights never are."""
    words = [f"word {number}" for number in range(2000)]
    data = header({**QWEN, "tokenizer.ggml.tokens": words}, {"blk.0.attn_q.weight": 1 << 30})
    for number in range(200):
        path = tmp_path / f"m{number}.gguf"
        path.write_bytes(data)
        os.truncate(path, 1 << 30)
    read: list[int] = []
    bytes_of = gguf.Reader.bytes

    def counted(self: gguf.Reader, count: int) -> bytes:
        read.append(count)
        return bytes_of(self, count)

    monkeypatch.setattr(gguf.Reader, "bytes", counted)
    found = in_folder(tmp_path)
    assert len(found.entries) == 200
    assert sum(read) < 200 * 1000
    assert 0 < (1 << 30) - found.entries[0].shape.weights < 1000


@pytest.mark.skipif(sys.platform == "win32", reason="its calls are others")
def test_a_folder_that_does_not_answer_keeps_nobody_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share whose server is gone; or one file of it."""
    write(tmp_path / "net" / "far.gguf")
    write(tmp_path / "near" / "near.gguf")
    places = [Place(path=str(tmp_path / name)) for name in ("net", "near")]
    for stuck in (tmp_path / "net", tmp_path / "net" / "far.gguf"):
        with hung(stuck, monkeypatch):
            found = look(places)
        assert names(found) == ["near"]
        assert f"{stuck} does not answer" in found.notes[0]


def test_a_folder_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many entries are looked at, and no more."""
    monkeypatch.setattr(library, "MOST_ENTRIES", 5)
    for number in range(9):
        write(tmp_path / f"{number}.gguf")
    assert len(in_folder(tmp_path).entries) == 5
