"""What a value becomes before the Config is made: one form for prefixes and keys, key files read, one engine chosen.

Each step works on the merged layers, so that a message can still say where a value was written. A value that cannot be
resolved is left out after its problem was noted; the load fails, and nobody sees a Config with a hole.
"""

from __future__ import annotations

import os
import stat

import msgspec

from bioproxy import files
from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.config.layers import Layer
from bioproxy.config.schema import Key, Prefix
from bioproxy.config.tree import DEFAULT
from bioproxy.errors import Problem

KEY_FILE_LIMIT = 4096  # bytes; a key is some dozens


def note(layer: Layer, key: str, message: str) -> None:
    """Note a problem of a key at the place where it was written."""
    layer.problems.append(Problem(message, where=layer.origins.get(key, DEFAULT).where, key=key))


RANK = {"default": 0, "file": 1, "environment": 2, "flag": 3}  # as load.py lets layers win


def resolve_source(layer: Layer, dialect: DialectConfig | None = None, *, models: str = "") -> DialectConfig | None:
    """One of `models`, `backend_url` and `model` decides where requests go; the DialectConfig if it is `models`.

    `models` is the place where models or peers stand ("" where there are none); beside them nothing else may be set. A
    file in llama-swap's dialect without any counts only where nothing else is set.
    """
    given = [key for key in ("backend_url", "model") if layer.values.get(key)]
    if dialect is None or (given and not models):
        _one_engine(layer)
        return None
    for key in given:
        said = f"is set, and so are models ({models}): only one of the two decides where requests go; remove the other"
        note(layer, key, said)
    layer.values["backend_url"] = layer.values["model"] = ""
    return dialect


def _one_engine(layer: Layer) -> None:
    """One of `backend_url` and `model` decides: both set in one place, or none, is a problem.

    Where they come from different places the later one wins, as it does for every key: `--model` on the command line
    beats a `backend_url` in the file.
    """
    model, url = layer.values.get("model", ""), layer.values.get("backend_url")
    if model and url:
        ranks = {key: RANK[layer.origins[key].source] for key in ("model", "backend_url")}
        if ranks["model"] == ranks["backend_url"]:
            other = layer.origins["backend_url"].where
            sentence = (
                f"is set, and so is backend_url ({other}): a request can go to one engine only; remove one of the two"
            )
            note(layer, "model", sentence)
        elif ranks["model"] > ranks["backend_url"]:
            layer.values["backend_url"] = ""
        else:
            layer.values["model"] = ""
    elif model:
        layer.values["backend_url"] = ""
    elif url == "":
        note(
            layer,
            "backend_url",
            "is empty, and no model is set: there is no engine to send requests to; set one of the two",
        )


def resolve_prefixes(layer: Layer) -> None:
    """Every prefix becomes a `Prefix`, whichever way it is written."""
    prefixes = layer.values.get("prefixes", {})
    layer.values["prefixes"] = {
        name: Prefix(template=value) if isinstance(value, str) else value for name, value in prefixes.items()
    }


def resolve_model(layer: Layer) -> None:
    """A model must be a file that is there."""
    model = layer.values.get("model", "")
    if not model:
        return
    try:
        mode = files.stat(model).st_mode
    except OSError as error:
        note(layer, "model", f"{model} cannot be used: {error.strerror or error}")
    else:
        if not stat.S_ISREG(mode):
            note(layer, "model", f"{model} is no file")


def resolve_keys(layer: Layer) -> tuple[str, ...]:
    """Every API key becomes a `Key`, and the key files are read, here and nowhere else; their paths.

    What is wrong with an entry otherwise is for `check.py`; an entry whose file cannot be read stays as it is.
    """
    keys = [Key(key=value) if isinstance(value, str) else value for value in layer.values.get("api_keys", ())]
    layer.values["api_keys"] = tuple(_with_file(layer, key, f"api_keys[{index}]") for index, key in enumerate(keys))
    return tuple(key.key_file for key in keys if key.key_file)


def _with_file(layer: Layer, key: Key, place: str) -> Key:
    if not key.key_file or key.key or key.sha256:
        return key
    layer.origins.setdefault(f"{place}.key_file", layer.origins.get(place, DEFAULT))
    try:
        text = read_key_file(key.key_file)
    except ValueError as error:
        note(layer, f"{place}.key_file", str(error))
        return key
    if mode := _open_to_others(key.key_file):
        sentence = f"{key.key_file} can be read by other users (mode {mode}); chmod 600 it"
        where = layer.origins[f"{place}.key_file"].where
        layer.warnings.append(Problem(sentence, where=where, key=f"{place}.key_file"))
    return msgspec.structs.replace(key, key=text, key_file="")


def read_key_file(path: str) -> str:
    """The key that a file holds, without blanks and newlines around it; ValueError says why there is none."""
    try:
        data = files.read(path, most=KEY_FILE_LIMIT)
        text = data.decode("ascii").strip()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} holds bytes that no key has") from error
    if not text or len(data) > KEY_FILE_LIMIT:
        raise ValueError(f"{path} is empty" if not text else f"{path} is too long for a key")
    if len(text.split()) > 1:
        raise ValueError(f"{path} holds more than one word; it must hold the key and nothing else")
    return text


def _open_to_others(path: str) -> str:
    """The mode of a file that other users may read, as text; "" where they may not or the system has no modes."""
    mode = stat.S_IMODE(files.stat(path).st_mode)
    return f"{mode:04o}" if os.name == "posix" and mode & stat.S_IROTH else ""
