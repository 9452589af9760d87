"""GGUF files where people keep them: Hugging Face's cache, llama.cpp's, LM Studio's, Ollama's, a folder of their own.

Each program has its own way. Hugging Face's cache is links to blobs, one snapshot for each revision; a model counts
once, under the newest one. Ollama's blobs are named after their content, so the manifests say which is a model, which
one its projector, and what people call it. Everywhere else a file's name is the model's. A folder may hold other things
than models (projectors, adapters, matrices for quantising): the header says what a file is, and nothing else is read.

Looking is bounded: so many folders deep, so many entries, so many files, and of each file its header's beginning. One
that cannot be read, or is broken, is named with the reason and keeps nobody from the others. Everything here blocks.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bioproxy import files
from bioproxy.config.files import base, home
from bioproxy.engines import gguf
from bioproxy.engines.gguf import Header
from bioproxy.engines.shape import Shape, shape_of
from bioproxy.errors import NOT_JSON, BioproxyError

DEEPEST, MOST_ENTRIES, MOST_FILES = 6, 50_000, 2_000
WHOLE = 40  # so many headers are read to their end; of more, only as far as the vocabulary
MANIFEST = 1 << 20
LAYER = "application/vnd.ollama.image."
PROJECTORS = ("clip", "mmproj")  # architecture and type of a projector
OTHERS = ("adapter", "imatrix", "controlvector")
PRECISE = re.compile(r"b?f16", re.IGNORECASE)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A folder to look in, and whose it is: `repository` if each folder in it holds one model's files."""

    path: str
    owner: str = ""
    repository: bool = False
    ollama: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One model: what it may be called, its first file, its projector's, and what its header says."""

    name: str
    path: str
    header: Header
    shape: Shape
    owner: str = ""
    projector: str = ""
    projector_bytes: int = 0


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a look found: the models, the folders that exist, and sentences about files that are of no use."""

    entries: tuple[Entry, ...] = ()
    places: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A file that may be a model."""

    name: str
    path: str
    place: Place
    projector: str = ""


EVERYBODYS = (
    Place(path="/usr/share/ollama/.ollama/models", owner="Ollama", ollama=True),
    Place(path="/models"),
    Place(path="/srv/models"),
)


def usual(environment: Mapping[str, str]) -> list[Place]:
    """The places that programs use, by their own variables, and those that people use."""
    user, caches = home(environment), base(environment, variable="XDG_CACHE_HOME", default=".cache")
    hub = environment.get("HF_HUB_CACHE") or f"{environment.get('HF_HOME') or f'{caches}/huggingface'}/hub"
    ollama, local = environment.get("OLLAMA_MODELS"), environment.get("LOCALAPPDATA") or f"{user}/Library/Caches"
    places = [
        Place(path=hub, owner="Hugging Face", repository=True),
        Place(path=environment.get("LLAMA_CACHE") or f"{caches}/llama.cpp", owner="llama.cpp"),
        Place(path=f"{local}/llama.cpp", owner="llama.cpp"),  # on Windows and macOS
        Place(path=f"{user}/.lmstudio/models", owner="LM Studio", repository=True),
        Place(path=f"{user}/.cache/lm-studio/models", owner="LM Studio", repository=True),
        Place(path=ollama or f"{user}/.ollama/models", owner="Ollama", ollama=True),
        *(Place(path=path) for path in (f"{user}/models", f"{user}/.local/share/models")),
        *EVERYBODYS,
    ]
    return [msgspec.structs.replace(one, path=os.path.abspath(one.path)) for one in places]


def place_of(path: str) -> Place:
    """A folder that somebody named: one of a program that keeps models in its own way is known by what is in it."""
    try:
        names = {one.name for one in files.patiently(files.listed, path)}
    except (OSError, files.Stuck):
        names = set()  # `look` says why
    if {"manifests", "blobs"} <= names:
        return Place(path=path, owner="Ollama", ollama=True)
    if any(name.startswith("models--") for name in names):
        return Place(path=path, owner="Hugging Face", repository=True)
    return Place(path=path)


def look(places: Sequence[Place]) -> Found:
    """Every model in `places`; one that lies in two of them counts once. A folder that hangs is left alone."""
    heads: dict[str, tuple[Candidate, Header]] = {}
    there, notes = [], []
    for place in places:
        try:
            found = files.patiently(examine, place)
        except files.Stuck as error:
            notes.append(error.message)
            continue
        if found is not None:
            there.append(place.path)
            notes += found.notes
            for key, one in found.heads.items():
                heads.setdefault(key, one)
    try:
        entries, broken = files.patiently(assemble, list(heads.values()))
    except files.Stuck as error:
        entries, broken = [], [error.message]
    return Found(entries=tuple(distinct(entries)), places=tuple(there), notes=(*notes, *broken))


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """The GGUF files of a place by what their links lead to, with the beginnings of their headers."""

    heads: dict[str, tuple[Candidate, Header]]
    notes: tuple[str, ...] = ()


def examine(place: Place) -> Examined | None:
    """Every file of a place that says what it is; None if there is no such folder."""
    try:
        status = files.found(place.path)
    except OSError as error:  # Ollama's service has a home of its own, which often is for nobody else
        return Examined(heads={}, notes=(f"{place.path}: {reason(error)}",))
    if status is None or not stat.S_ISDIR(status.st_mode):
        return None
    heads: dict[str, tuple[Candidate, Header]] = {}
    notes: list[str] = []
    candidates = list(manifests(place, notes) if place.ollama else named(place, notes))
    if len(candidates) > MOST_FILES:
        notes.append(f"{place.path} has {len(candidates):,} GGUF files; only {MOST_FILES:,} were looked at")
    for one in candidates[:MOST_FILES]:
        if not (one.path.isprintable() and one.name.isprintable()):
            notes.append(f"{one.path!a}: its name has characters that no configuration can have")
            continue
        try:
            header = head(one.path, whole=False)
            heads.setdefault(os.path.realpath(one.path), (one, header))
        except (OSError, BioproxyError) as error:
            notes.append(f"{title(one)}: {reason(error)}")
    return Examined(heads=heads, notes=tuple(notes))


def assemble(heads: Sequence[tuple[Candidate, Header]]) -> tuple[list[Entry], list[str]]:
    """The models among these files, each with its projector; and why some are of no use."""
    models = [(one, header) for one, header in heads if is_model(header)]
    projectors = [(one, header) for one, header in heads if is_projector(header)]
    entries: list[Entry] = []
    notes = []
    for one, header in models:
        try:
            entries.append(entry(one, header, projectors, whole=len(models) <= WHOLE))
        except (OSError, BioproxyError) as error:
            notes.append(f"{title(one)}: {reason(error)}")
    return entries, notes


def title(one: Candidate) -> str:
    """What a note calls a file: a blob's name says nothing to a person."""
    return f"{one.name} ({one.path})" if one.place.ollama else one.path


def reason(error: OSError | BioproxyError) -> str:
    return error.message if isinstance(error, BioproxyError) else files.reason(error)


def entry(one: Candidate, header: Header, projectors: Sequence[tuple[Candidate, Header]], *, whole: bool) -> Entry:
    """A model with its projector, and its shape out of as much of its header as is wanted."""
    if not one.path.endswith(gguf.ENDING) and gguf.SPLIT.match(gguf.stem(os.path.basename(one.path)) + gguf.ENDING):
        raise BioproxyError(f"the parts of a split model must end in {gguf.ENDING}, in small letters")
    projector = one.projector or projector_of(one, header, projectors)
    if whole:
        header, shape = shape_in(one.path)
    else:
        shape = shape_of([(header, sum(size_of(str(part)) for part in gguf.parts(one.path)))])
    return Entry(
        name=one.name,
        path=one.path,
        header=header,
        shape=shape,
        owner=one.place.owner,
        projector=projector,
        projector_bytes=size_of(projector) if projector else 0,
    )


def size_of(path: str) -> int:
    """The bytes of one of a model's files; BioproxyError names it."""
    try:
        return files.stat(path).st_size
    except OSError as error:
        raise BioproxyError(f"cannot read the model file {path}: {files.reason(error)}") from error


def head(path: str, *, whole: bool = True) -> Header:
    """The header of one file."""
    with files.opened(path) as file:
        return gguf.read_header(file, whole=whole)


def shape_in(path: str) -> tuple[Header, Shape]:
    """What a model's file says, all of its parts included. BioproxyError names the part that is missing or broken."""
    parts: list[tuple[Header, int]] = []
    for part in gguf.parts(path):
        try:
            parts.append((head(str(part)), size_of(str(part))))
        except OSError as error:
            raise BioproxyError(f"cannot read the model file {part}: {files.reason(error)}") from error
        except BioproxyError as error:
            raise BioproxyError(f"{part}: {error.message}") from error
    return parts[0][0], shape_of(parts)


def is_projector(header: Header) -> bool:
    return header.architecture in PROJECTORS or header.keys.get("general.type") in PROJECTORS


def is_model(header: Header) -> bool:
    """Whether it is worth a look: no projector, no adapter, and there are weights."""
    return not is_projector(header) and header.keys.get("general.type") not in OTHERS and bool(header.tensors)


def projector_of(one: Candidate, header: Header, projectors: Sequence[tuple[Candidate, Header]]) -> str:
    """The projector beside a model that was made for it, the one of 16 bits if there are several; else empty."""
    width = header.keys.get(f"{header.architecture}.embedding_length")
    folder = os.path.dirname(one.path)
    fitting = [
        other.path
        for other, its in projectors
        if os.path.dirname(other.path) == folder
        and width in (its.keys.get("clip.vision.projection_dim", width), its.keys.get("clip.audio.projection_dim"))
        and (one.place.repository or basename(its) == basename(header) != "")
    ]
    return min(fitting, key=lambda path: (PRECISE.search(os.path.basename(path)) is None, path), default="")


def basename(header: Header) -> str:
    """What a model's files are called together."""
    return str(header.keys.get("general.basename") or header.keys.get("general.name") or "").lower()


def named(place: Place, notes: list[str]) -> Iterator[Candidate]:
    """Files of a folder by their names: of a split model the first one, of a cache's revisions the newest.

    llama.cpp loads a file whatever case its ending has, but finds the parts of a split model in small letters only.
    """
    paths = walk(place.path, notes)
    begun = set()  # split models, by the path of their first part
    for path in newest(paths) if place.owner == "Hugging Face" else paths:  # a first part comes before the others
        stem = gguf.stem(os.path.basename(path))
        split = gguf.SPLIT.match(stem + gguf.ENDING)
        if split is None:
            yield Candidate(name=stem, path=path, place=place)
            continue
        first = str(gguf.parts(os.path.join(os.path.dirname(path), stem + gguf.ENDING))[0])
        if int(split["number"]) == 1:
            yield Candidate(name=split["stem"], path=path, place=place)
        elif first not in begun:
            notes.append(f"{path}: the first part of this model, {os.path.basename(first)}, is missing")
        begun.add(first)


def walk(folder: str, notes: list[str], depth: int = DEEPEST) -> Iterator[str]:
    """GGUF files below a folder, in the order of their names; links to folders are not followed."""
    left, pending = MOST_ENTRIES, [(folder, depth)]
    while pending and left > 0:
        here, deeper = pending.pop()
        try:
            entries = sorted(files.listed(here), key=lambda one: one.name)[:left]
        except OSError as error:  # it is another user's
            notes.append(f"{here}: {reason(error)}")
            continue
        left -= len(entries)
        yield from (one.path for one in entries if gguf.stem(one.name) != one.name and not one.name.startswith("."))
        below = [one.path for one in entries if not one.name.startswith(".") and one.is_dir(follow_symlinks=False)]
        pending += [(path, deeper - 1) for path in reversed(below) if deeper]


def newest(paths: Iterator[str]) -> Iterator[str]:
    """Of each repository's snapshots (`models--owner--name/snapshots/REVISION/file`) the files of the newest one."""
    found: dict[tuple[str, str], tuple[float, str]] = {}
    for path in paths:
        repository, snapshots, rest = path.replace(os.sep, "/").partition("/snapshots/")
        key = (repository, rest.partition("/")[2] if snapshots else path)
        try:
            changed = files.stat(os.path.dirname(path)).st_mtime
        except OSError:
            continue
        found[key] = max(found.get(key, (0.0, "")), (changed, path))
    return (path for _, path in found.values())


def manifests(place: Place, notes: list[str]) -> Iterator[Candidate]:
    """Ollama's models: `manifests/HOST/NAMESPACE/NAME/TAG` names blobs by what they are."""
    root = Path(place.path) / "manifests"
    for path in every(str(root), notes):
        *above, name, tag = ("", *Path(path).relative_to(root).parts)
        try:
            layers = layers_of(files.read(path, most=MANIFEST))
        except OSError as error:
            notes.append(f"{path}: {reason(error)}")
            continue
        except NOT_JSON:
            continue
        blob = {kind: os.path.join(place.path, "blobs", digest.replace(":", "-")) for kind, digest in layers}
        if "model" in blob:
            space = "" if above[-1] in {"", "library"} else f"{above[-1]}/"
            yield Candidate(
                name=f"{space}{name}:{tag}", path=blob["model"], place=place, projector=blob.get("projector", "")
            )


def every(folder: str, notes: list[str]) -> Iterator[str]:
    """All files below a folder of manifests."""
    left, pending = MOST_FILES, [folder]
    while pending and left > 0:
        here = pending.pop()
        try:
            entries = sorted(files.listed(here), key=lambda one: one.name)[:left]
        except FileNotFoundError:
            continue  # no model was ever fetched
        except OSError as error:
            notes.append(f"{here}: {reason(error)}")
            continue
        left -= len(entries)
        pending += [one.path for one in entries if one.is_dir(follow_symlinks=False)]
        yield from (one.path for one in entries if one.is_file())


def layers_of(text: bytes) -> list[tuple[str, str]]:
    """The layers of a manifest: what each is, and its digest."""
    manifest: Any = msgspec.json.decode(text)
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    return [
        (layer["mediaType"].removeprefix(LAYER), layer["digest"])
        for layer in (layers if isinstance(layers, list) else ())
        if isinstance(layer, dict)
        and re.fullmatch(r"sha256[:-][0-9a-f]{64}", str(layer.get("digest")))
        and str(layer.get("mediaType")).startswith(LAYER)
    ]


def distinct(entries: Sequence[Entry]) -> Iterator[Entry]:
    """With names of their own: one that is taken gets its folder's before it, or a number after it."""
    taken: set[str] = set()
    for number, one in enumerate(entries, 1):
        longer = f"{os.path.basename(os.path.dirname(one.path))}/{one.name}"
        name = next(text for text in (one.name, longer, f"{longer} {number}") if text not in taken)
        taken.add(name)
        yield msgspec.structs.replace(one, name=name)
