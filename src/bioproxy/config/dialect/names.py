"""What a name of a model means: an ID, an alias of one, or a model of a peer.

The order is llama-swap's: ID, alias, fully qualified peer name (`peer/model`), bare peer name if only one peer has it.
Requests are routed by `Names.find` (`models/names.py` asks it), and the checks here ask it too, so that a target that
passes them is found later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from bioproxy.config.dialect.schema import DialectConfig, Model
from bioproxy.config.notes import Notes

MOST_LISTED = 5  # peers that have a model of one name


class Meaning(msgspec.Struct, frozen=True):
    """A model of ours by its ID, or one of a peer by the name that the peer knows."""

    model: str
    peer: str = ""

    @property
    def qualified(self) -> str:
        """The name by which a peer's model is always reachable."""
        return f"{self.peer}/{self.model}"


class Names:
    """Every name that means a model; `peers` are the models that each of them has."""

    def __init__(self, *, ids: Iterable[str], aliases: Mapping[str, str], peers: Mapping[str, Iterable[str]]) -> None:
        self.ids = frozenset(ids)
        self.aliases = aliases
        self.qualified: dict[str, Meaning] = {}
        self.bare: dict[str, list[Meaning]] = defaultdict(list)  # a peer's own name, with all peers that have it
        for peer, models in peers.items():
            for model in dict.fromkeys(models):
                meaning = Meaning(model, peer)
                self.qualified.setdefault(meaning.qualified, meaning)
                self.bare[model].append(meaning)
        self.meanings = {  # the later ones win
            **{name: found[0] for name, found in self.bare.items() if len(found) == 1},
            **self.qualified,
            **{alias: Meaning(model) for alias, model in aliases.items()},
            **{name: Meaning(name) for name in self.ids},
        }

    def find(self, name: str) -> Meaning | None:
        """What a name means; None if it means nothing, or more than one thing."""
        return self.meanings.get(name)

    def real(self, name: str) -> str:
        """The ID of a local model, by any of its names; "" if there is none."""
        return name if name in self.ids else self.aliases.get(name, "")

    def ambiguous(self, name: str) -> str:
        """Why a name is ambiguous; "" if it is not."""
        if name in self.meanings or len(peers := self.bare.get(name, ())) < 2:
            return ""
        shown = [meaning.qualified for meaning in peers[:MOST_LISTED]]
        shown += [f"{len(peers) - MOST_LISTED:,} more"] * (len(peers) > MOST_LISTED)
        return f'peer model name "{name}" is ambiguous between {" and ".join(shown)}'


def build_names(config: DialectConfig, notes: Notes) -> Names:
    """All names of a file; every name that two things claim is noted."""
    aliases: dict[str, str] = {}
    for name, model in config.models.items():
        _aliases(name, model, aliases, notes)
    for name, model in config.models.items():
        _ids_with_parameters(name, model, config.models, aliases, notes)
    peers = {name: peer.models for name, peer in config.peers.items()}
    names = Names(ids=config.models, aliases=aliases, peers=peers)
    _reserved(config, names, notes)
    return names


def _aliases(name: str, model: Model, aliases: dict[str, str], notes: Notes) -> None:
    for index, alias in enumerate(model.aliases):
        if alias in aliases:
            notes.complain(("models", name, "aliases", index), f"duplicate alias {alias} found in model: {name}")
        else:
            aliases[alias] = name


def _ids_with_parameters(
    name: str, model: Model, models: Mapping[str, Model], aliases: dict[str, str], notes: Notes
) -> None:
    """Names in filters.setParamsByID: each but the model's own ID becomes an alias."""
    for key in model.filters.set_params_by_id:
        path = ("models", name, "filters", "setParamsByID", key)
        if key == name or aliases.get(key) == name:
            continue
        if key in models:
            notes.complain(path, f"model {name} filters.setParamsByID: key '{key}' conflicts with an existing model ID")
        elif key in aliases:
            said = (
                f"duplicate alias '{key}' in model {name} filters.setParamsByID, already used by model {aliases[key]}"
            )
            notes.complain(path, said)
        else:
            aliases[key] = name


def with_aliases(model: Model, name: str) -> Model:
    """A model whose aliases name those of filters.setParamsByID, too."""
    further = (key for key in model.filters.set_params_by_id if key != name)
    return msgspec.structs.replace(model, aliases=tuple(dict.fromkeys((*model.aliases, *further))))


def _reserved(config: DialectConfig, names: Names, notes: Notes) -> None:
    """Fully qualified names belong to the peers; and two peers must not make the same one."""
    claims: list[tuple[tuple[str | int, ...], str, str]] = [
        *((("models", name), name, f'model ID "{name}"') for name in config.models),
        *((("models", owner), alias, f'model {owner} alias "{alias}"') for alias, owner in names.aliases.items()),
        *((("selectors", name), name, f'selector ID "{name}"') for name in config.selectors),
        *(
            (("profiles", profile, "pins", pin), pin, f'profile {profile} pin "{pin}"')
            for profile, settings in config.profiles.items()
            for pin in settings.pins
        ),
    ]
    for path, name, shown in claims:
        if name in names.qualified:
            notes.complain(path, f"{shown} conflicts with fully qualified peer model name")
    for meaning in (meaning for found in names.bare.values() for meaning in found):
        if (first := names.qualified[meaning.qualified]) != meaning:
            said = f'peer model name "{meaning.qualified}" is ambiguous between peers {first.peer} and {meaning.peer}'
            notes.complain(("peers", meaning.peer, "models"), said)
