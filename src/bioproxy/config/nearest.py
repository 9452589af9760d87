"""The known name that an unknown key, environment variable or flag probably means."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bioproxy.config.keys import ALIASES, FLAGS, KEYS, SECTIONS, VARIABLES
from bioproxy.config.tree import join

LONGEST = 100  # characters of a name that is compared with others; no key has half of that


def normal(name: str) -> str:
    """One writing for proxyPort, proxy-port, Proxy_Port: proxy_port."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[-.\s]+", "_", name).strip("_").lower()


def close(name: str, known: Iterable[str]) -> str:
    """The known name that is nearest, or "" if none is near."""
    from difflib import get_close_matches  # 6 ms that a start without a mistake is spared

    if len(name) > LONGEST:
        return ""
    table = {normal(candidate): candidate for candidate in known}
    found = get_close_matches(normal(name), table, n=1, cutoff=0.6)
    return table[found[0]] if found else ""


def unknown_key(section: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a key that `section` ("" for the top, "kv", "api_keys[0]") does not have."""
    known = list(known)
    if len(name) > LONGEST:
        return "unknown key; `bioproxy config` lists every key there is"
    elsewhere = [path for path, option in KEYS.items() if option.section != section and normal(name) == option.name]
    if section == "" and normal(name) in _seed_names():
        return f"unknown key; did you mean {_seed_names()[normal(name)]}?"
    if section == "" and (path := _written_flat().get(normal(name))):
        outer, _, inner = path.partition(".")
        return f"unknown key; write {inner} inside of {outer}"
    if elsewhere:
        return f"unknown key here; did you mean {' or '.join(elsewhere)}?"
    if near := close(name, known):
        return f"unknown key; did you mean {join(section, near)}?"
    if section:
        return f"unknown key; what may stand here: {', '.join(known)}"
    return "unknown key; `bioproxy config` lists every key there is"


def _seed_names() -> dict[str, str]:
    """The seed's flag names, as keys: people write `port: 8090` into the file, too."""
    return {flag.lstrip("-"): path for path, flags in ALIASES.items() for flag in flags}


def _written_flat() -> dict[str, str]:
    """The keys of sections as people write them flat: kv.policy, kv_policy, kv-policy."""
    return {normal(path): path for path in KEYS if "." in path}


def unknown_variable(name: str) -> str:
    """The sentence for a variable that begins with BIOPROXY_ and is none of ours."""
    near = close(name, VARIABLES)
    return f"is not known and has no effect; did you mean {near}?" if near else "is not known and has no effect"


def unknown_flag(name: str, others: Iterable[str] = ()) -> str:
    """The sentence for an unknown flag; `others` are flags of the command line that are no config keys."""
    near = close(name, [*FLAGS, *others])
    return f"unknown flag; did you mean {near}?" if near else "unknown flag; -help lists the flags there are"


def top_names() -> list[str]:
    """What may stand at the top of a config file: keys and sections, in the schema's order."""
    return [*(path for path in KEYS if "." not in path), *SECTIONS]
