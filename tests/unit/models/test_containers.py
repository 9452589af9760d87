"""Containers: their marks, the listing, and which of them are ours (pure); the commands, against a fake docker."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.dialect.read import read_dialect
from bioproxy.config.files import Source
from bioproxy.models.command import split
from bioproxy.models.containers import (
    Container,
    Listed,
    clean_up,
    container_name,
    container_of,
    containers_of,
    listed,
    stale,
)
from bioproxy.recipes import yaml_text
from bioproxy.recipes.recipe import entry_of, recipe_named
from support.docker import Docker, fake_docker

A = Container(engine="docker", name="bioproxy-a", model="a")
B = Container(engine="docker", name="bioproxy-b", model="b")
RUN = "docker run --rm --name bioproxy-a --label bioproxy=a image"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    return fake_docker(tmp_path, monkeypatch)


# names and marks


def test_a_plain_id_is_seen_in_its_container() -> None:
    """People look for it with `docker ps`."""
    assert container_name("qwen3-8b") == "bioproxy-qwen3-8b"


@given(st.text(min_size=1), st.text(min_size=1))
def test_names_are_allowed_and_differ(one: str, other: str) -> None:
    """Whatever stands in an ID, and also where only what was replaced differs."""
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}", container_name(one))
    assert one == other or container_name(one) != container_name(other)


@pytest.mark.parametrize(
    "command",
    [
        RUN,
        "/usr/bin/docker run --name=bioproxy-a --label=bioproxy=a image",
        "docker run -l bioproxy=a --label other=1 --name bioproxy-a image",
        r"'C:\Program Files\Docker\docker.EXE' run --name=bioproxy-a --label=bioproxy=a image",
    ],
)
def test_a_labelled_container_is_recognised(command: str) -> None:
    """However its marks are written."""
    found = container_of("a", command)
    assert found is not None
    assert (found.name, found.model) == ("bioproxy-a", "a")


@pytest.mark.parametrize(
    "command",
    [
        "",
        "llama-server --name bioproxy-a --label bioproxy=a",
        "docker run --name bioproxy-a image",
        "docker run --label bioproxy=a image",
        "docker run --name bioproxy-a --label bioproxy=b image",
        "docker stop --name bioproxy-a --label bioproxy=a",
        "docker run --name",
    ],
)
def test_what_lacks_a_mark_is_none_of_ours(command: str) -> None:
    """A user's own container command is left alone for ever."""
    assert container_of("a", command) is None


def test_the_containers_of_a_config_are_those_of_its_models() -> None:
    """Models without one are passed over."""
    assert containers_of({"a": RUN, "b": "llama-server"}) == [A]


# the listing


def test_a_listing_is_read_by_lines() -> None:
    """What is no line of three is none: warnings that the program mixes in."""
    assert listed("1\tx\ta\nwarning: no swap\n\t\t\n2\ty\tb\n") == [
        Listed(id="1", name="x", label="a"),
        Listed(id="2", name="y", label="b"),
    ]


def test_label_and_name_must_both_be_ours() -> None:
    """Another bioproxy labels as well; another container may have such a name."""
    output = "1\tbioproxy-a\ta\n2\tmine\ta\n3\tbioproxy-a\tz\n4\tbioproxy-c\tc\n5\tbioproxy-b\tb\n"
    assert [one.id for one in stale(output, [A, B])] == ["1", "5"]


NAMES = st.sampled_from(["bioproxy-a", "bioproxy-b", "bioproxy-c", "db", ""])
LABELS = st.sampled_from(["a", "b", "c", "", "a\tb"])


@given(st.lists(st.tuples(NAMES, LABELS)), st.sets(st.sampled_from([A, B])))
def test_nothing_else_is_ever_stale(rows: list[tuple[str, str]], ours: set[Container]) -> None:
    """Whatever is listed."""
    output = "".join(f"{number}\t{name}\t{label}\n" for number, (name, label) in enumerate(rows, 1))
    marks = {(one.model, one.name) for one in ours}
    assert {(one.label, one.name) for one in stale(output, ours)} <= marks


# the commands


async def test_only_what_is_left_over_of_ours_is_removed(docker: Docker) -> None:
    """A database, another bioproxy's model and one of no known model stay."""
    docker.leave("bioproxy-a", "bioproxy=a")
    docker.leave("database", "")
    docker.leave("bioproxy-z", "bioproxy=z")
    docker.leave("impostor", "bioproxy=a")
    assert await clean_up([A, B]) == ["bioproxy-a"]
    assert sorted(docker.containers) == ["bioproxy-z", "database", "impostor"]


async def test_a_config_without_containers_asks_nobody(docker: Docker) -> None:
    """No program is run for it."""
    assert await clean_up([]) == []
    assert docker.calls == []


async def test_a_broken_daemon_is_told_and_no_fault(docker: Docker, caplog: pytest.LogCaptureFixture) -> None:
    """The start that follows will say what is in its way."""
    docker.break_down()
    assert await clean_up([A]) == []
    assert "the daemon is not there" in caplog.text


async def test_without_docker_there_is_nothing_left_over(caplog: pytest.LogCaptureFixture) -> None:
    """The command cannot be run at all."""
    assert await clean_up([Container(engine="/nowhere/docker", name="bioproxy-a", model="a")]) == []
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("name", ["llama-cpp-container", "vllm-container"])
async def test_the_recipes_commands_start_and_stop_one_container(docker: Docker, tmp_path: Path, name: str) -> None:
    """`cmd` makes it under its name and label, `cmdStop` ends exactly that one."""
    docker.leave("database", "")
    values = {"image": "server:1", "model": "a/b", "models": str(tmp_path), "file": "x.gguf"}
    recipe = recipe_named(name)
    entry = entry_of(recipe, "my/model", {key: value for key, value in values.items() if key in recipe.settings})
    text = "\n".join(yaml_text.lines({"models": {"my/model": entry}}))
    model = read_dialect([Source("c.yaml", text)], environment=dict(os.environ)).models["my/model"]
    process = await docker.start(split(model.cmd))
    assert docker.containers[container_name("my/model")]["label"] == "bioproxy=my/model"
    stop = await asyncio.create_subprocess_exec(*split(model.cmd_stop))
    assert (await stop.wait(), await process.wait()) == (0, 0)
    assert sorted(docker.containers) == ["database"]


async def test_what_a_kill_left_over_is_removed_and_the_next_start_works(docker: Docker) -> None:
    """After a kill -9 of the client the name is taken; the next start would fail."""
    process = await docker.start(split(RUN))
    process.send_signal(signal.SIGKILL)
    await process.wait()
    refused = await asyncio.create_subprocess_exec(*split(RUN), stderr=asyncio.subprocess.DEVNULL)
    assert await refused.wait() == 125
    assert await clean_up([A]) == ["bioproxy-a"]
    again = await docker.start(split(RUN))
    again.send_signal(signal.SIGUSR1)
    await again.wait()
