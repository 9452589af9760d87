"""Where files are: the default places of the config, `~`, and paths relative to the file that names them.

The environment is an argument everywhere, so that a test (or a reload) sees exactly what it gives.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence

from bioproxy.files import touching

APPLICATION = "bioproxy"
NAMES = ("conf.json", "config.json", "config.yaml", "config.yml")


def home(environment: Mapping[str, str]) -> str:
    """The home folder: $HOME, else what the system says."""
    return environment.get("HOME") or os.path.expanduser("~")  # pathlib gives no text


def expand(path: str, environment: Mapping[str, str]) -> str:
    """A path with a leading `~` or `~name` replaced by that home folder."""
    if path == "~" or path.startswith("~/"):
        return home(environment) + path[1:]
    return os.path.expanduser(path)  # pathlib raises where a user is unknown


def resolve(path: str, *, folder: str, environment: Mapping[str, str]) -> str:
    """A path of ours, absolute: `~` is expanded, a relative one starts at `folder`; an empty one stays empty."""
    return os.path.normpath(os.path.join(folder, expand(path, environment))) if path else ""


def base(environment: Mapping[str, str], *, variable: str, default: str) -> str:
    """An XDG folder: the variable's value if it is absolute (the XDG rule), else `default` under the home folder."""
    value = environment.get(variable, "")
    return value if os.path.isabs(value) else f"{home(environment)}/{default}"


def config_folder(environment: Mapping[str, str]) -> str:
    """Where a config file is looked for: $XDG_CONFIG_HOME/bioproxy, else ~/.config/bioproxy."""
    return f"{base(environment, variable='XDG_CONFIG_HOME', default='.config')}/{APPLICATION}"


def state_folder(environment: Mapping[str, str]) -> str:
    """Where state lives by default: $XDG_STATE_HOME/bioproxy, else ~/.local/state/bioproxy."""
    return f"{base(environment, variable='XDG_STATE_HOME', default='.local/state')}/{APPLICATION}"


def own_folder(base: str, *, paths: Sequence[str], otherwise: str) -> str:
    """The folder below `base` in which one configuration has its state and slot files, whatever port it serves on.

    It is named after the configuration's files as they were given (not what a link leads to: a new version of a file is
    the same configuration), or after what is served (`otherwise`) if there is no file.
    """
    names = [os.path.abspath(path) for path in paths] or [otherwise]
    digest = hashlib.blake2b("\0".join(names).encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", os.path.basename(names[0].rstrip("/")))[:40]
    return f"{base}/{stem}-{digest}"


def default_files(environment: Mapping[str, str]) -> list[str]:
    """The config files that stand at the default places, the one that counts first."""
    folder = config_folder(environment)
    with touching(folder):
        return [path for name in NAMES if os.path.lexists(path := f"{folder}/{name}")]
