"""What a name of a model means: an ID, an alias of one, or a model of a peer.

The order is llama-swap's: ID, alias, fully qualified peer name (`peer/model`), bare peer name if only one peer has it.
Whoever routes a request asks `Names.find`, and so do the checks here, so that a target that passes them is found later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import msgspec

from bioproxy.config.dialect.schema import DialectConfig, File, Model, Peer
from bioproxy.config.notes import Notes

MOST_LISTED = 5  # peers that have a model of one name


class Local(msgspec.Struct, frozen=True):
    """A model of ours, by its ID."""

    model: str


class Remote(msgspec.Struct, frozen=True):
    """A model of a peer, by the name that the peer knows."""

    peer: str
    model: str

    @property
    def qualified(self) -> str:
        """Its fully qualified name, by which it is always reachable."""
        return f"{self.peer}/{self.model}"


class Names(msgspec.Struct, frozen=True):
    """Every name there is. `bare` has the peers' own names with all who have them."""

    ids: frozenset[str]
    aliases: Mapping[str, str]
    qualified: Mapping[str, Remote]
    bare: Mapping[str, tuple[Remote, ...]]

    def find(self, name: str) -> Local | Remote | None:
        """What a name means; None if it means nothing, or more than one thing."""
        if name in self.ids:
            return Local(name)
        if name in self.aliases:
            return Local(self.aliases[name])
        if name in self.qualified:
            return self.qualified[name]
        remotes = self.bare.get(name, ())
        return remotes[0] if len(remotes) == 1 else None

    def real(self, name: str) -> str:
        """The ID of a local model, by any of its names; "" where there is none."""
        return name if name in self.ids else self.aliases.get(name, "")

    def ambiguous(self, name: str) -> str:
        """Why a name is ambiguous; "" where it is not."""
        if self.find(name) is not None or len(self.bare.get(name, ())) < 2:
            return ""
        return f'peer model name "{name}" is ambiguous between {_listed(self.bare[name])}'


def _listed(remotes: tuple[Remote, ...]) -> str:
    shown = [remote.qualified for remote in remotes[:MOST_LISTED]]
    return " and ".join(shown + [f"{len(remotes) - MOST_LISTED:,} more"] * (len(remotes) > MOST_LISTED))


def names_of(config: DialectConfig) -> Names:
    """The names of a loaded config, for routing."""
    return Names(frozenset(config.models), config.aliases, *_peer_names(config.peers))


def _peer_names(peers: Mapping[str, Peer]) -> tuple[dict[str, Remote], dict[str, tuple[Remote, ...]]]:
    qualified: dict[str, Remote] = {}
    bare: dict[str, list[Remote]] = defaultdict(list)
    for peer, settings in peers.items():
        for model in dict.fromkeys(settings.models):
            remote = Remote(peer, model)
            qualified.setdefault(remote.qualified, remote)
            bare[model].append(remote)
    return qualified, {model: tuple(remotes) for model, remotes in bare.items()}


def build_names(file: File, notes: Notes) -> Names:
    """All names of a file; every name that two things claim is noted."""
    aliases: dict[str, str] = {}
    for name, model in file.models.items():
        _aliases(name, model, aliases, notes)
    for name, model in file.models.items():
        _ids_with_parameters(name, model, file.models, aliases, notes)
    names = Names(frozenset(file.models), aliases, *_peer_names(file.peers))
    _reserved(file, names, notes)
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


def _reserved(file: File, names: Names, notes: Notes) -> None:
    """Fully qualified names belong to the peers; and two peers must not make the same one."""
    claims: list[tuple[tuple[str | int, ...], str, str]] = [
        *((("models", name), name, f'model ID "{name}"') for name in file.models),
        *((("models", owner), alias, f'model {owner} alias "{alias}"') for alias, owner in names.aliases.items()),
        *((("selectors", name), name, f'selector ID "{name}"') for name in file.selectors),
        *(
            (("profiles", profile, "pins", pin), pin, f'profile {profile} pin "{pin}"')
            for profile, settings in file.profiles.items()
            for pin in settings.pins
        ),
    ]
    for path, name, shown in claims:
        if name in names.qualified:
            notes.complain(path, f"{shown} conflicts with fully qualified peer model name")
    for first, second in _twice_qualified(names):
        said = f'peer model name "{first.qualified}" is ambiguous between peers {first.peer} and {second.peer}'
        notes.complain(("peers", second.peer, "models"), said)


def _twice_qualified(names: Names) -> Iterator[tuple[Remote, Remote]]:
    for remotes in names.bare.values():
        for remote in remotes:
            if (first := names.qualified[remote.qualified]) != remote:
                yield first, remote
