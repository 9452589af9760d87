"""`bioproxy snapshots prune` beside the real program with fake llama-servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.cache_rig import listed, program, snapshots
from support.command import Ended
from support.swap_api import verb
from support.swap_rig import Rig

KEYS = [{"key": "k1", "name": "ann"}, {"key": "k2", "name": "bob"}]
KV = {"min_seconds": 0, "min_free": 0, "save_after": 0.05}


@asynccontextmanager
async def used(folder: Path) -> AsyncIterator[Rig]:
    """Ann and Bob each asked model `a` something, and the template is saved, too."""
    async with program(folder, kv=KV, api_keys=KEYS) as rig:
        for saved, (key, word) in enumerate((("k1", "cache"), ("k2", "proxy")), 2):
            messages = [{"role": "user", "content": f"what is a {word}? " * 40}]
            headers = {"Authorization": f"Bearer {key}"}
            assert (await rig.chat("a", messages=messages, headers=headers)).status == 200
            await listed(rig, saved)
        yield rig


async def prune(rig: Rig, *words: str) -> Ended:
    return await verb(rig, "snapshots", "prune", *words)


async def test_a_keys_conversations_go_and_no_others(tmp_path: Path) -> None:
    """The other key's and the template stay."""
    async with used(tmp_path) as rig:
        ended = await prune(rig, "--key", "ann")
        assert (ended.code, ended.out.startswith("1 deleted, ")) == (0, True), ended.err
        left = (await snapshots(rig)).snapshots
        assert [one.template for one in left].count(True) == 1
        assert len(left) == 2
        assert (await prune(rig, "--key", "ann", "--json")).json() == {"deleted": [], "bytes": 0, "left": 0}


async def test_a_key_that_is_gone_is_named_by_its_group(tmp_path: Path) -> None:
    """What somebody who left had cached can be removed after the key was taken out; the list has its group."""
    async with used(tmp_path) as rig:
        path = rig.folder / "config.yaml"
        path.write_text(path.read_text().replace('- "key": "k1"\n  "name": "ann"\n', ""))
        groups = {one.group for one in (await snapshots(rig)).snapshots} - {""}
        for group in groups:
            ended = await prune(rig, "--key", group)
            assert (ended.code, ended.out.startswith("1 deleted, ")) == (0, True), ended.err
        assert len(groups) == 2


async def test_keys_of_one_name_are_one_and_a_group_may_have_nothing(tmp_path: Path) -> None:
    """Somebody who has an old key and a new one; and a script that names a group every night."""
    async with used(tmp_path) as rig:
        path = rig.folder / "config.yaml"
        text = path.read_text().replace('"name": "bob"', '"name": "ann"')
        path.write_text(text.replace('"key": "k2"', '"key": "k3"\n  "group": "team"\n- "key": "k2"'))
        ended = await prune(rig, "--key", "team")
        assert (ended.code, ended.out) == (0, "0 deleted, 0 B\n"), ended.err
        assert (await prune(rig, "--key", "ann")).out.startswith("2 deleted, ")


async def test_age_and_model_are_both_to_be_true(tmp_path: Path) -> None:
    """What was used since stays, and so does another model's; a bare 0 is any age."""
    async with used(tmp_path) as rig:
        assert (await prune(rig, "--older", "1h")).out.startswith("0 deleted")
        assert (await prune(rig, "--model", "b", "--older", "0")).out.startswith("0 deleted")
        assert (await prune(rig, "--model=a", "--older", "0")).out.startswith("3 deleted")
        assert (await snapshots(rig)).snapshots == ()


async def test_what_is_pinned_stays_and_is_told(tmp_path: Path) -> None:
    """The count of what would fit says that something is left."""
    async with used(tmp_path) as rig:
        first = (await snapshots(rig)).snapshots[0]
        assert (await verb(rig, "snapshots", "pin", first.id)).code == 0
        ended = await prune(rig, "--model", "a")
        assert (ended.out.startswith("2 deleted"), "1 more would fit" in ended.err) == (True, True)
        assert [one.id for one in (await snapshots(rig)).snapshots] == [first.id]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say what is to go"),
        (("--key", "eve"), "no API key is called 'eve', and no group of snapshots; the names: ann, bob"),
        (("--model", "c"), "there is no model 'c'"),
        (("x", "--older", "1d"), "takes no name"),
    ],
)
async def test_a_useless_choice_deletes_nothing(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """A sentence says what would be one."""
    async with program(tmp_path, kv=KV, api_keys=KEYS, admin_key="root") as rig:
        ended = await prune(rig, *words)
        assert (ended.code, said in ended.err) == (1, True), ended.err
