"""Where a configuration's state lies, and how it gets there from where it lay before."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from bioproxy.config.load import Loaded, load, make_state_folder


def read(folder: Path, port: int) -> Loaded:
    """One configuration file, served on `port`."""
    path = folder / "conf.yaml"
    path.write_text(f"state_directory: {folder}/state")
    return load({"proxy_port": str(port)}, path=str(path), environment={"HOME": str(folder)})


def test_the_state_of_a_port_is_moved_over_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What an earlier version kept per port belongs to the configuration from now on, slot files too."""
    caplog.set_level(logging.INFO)
    old = tmp_path / "state" / "8088"
    (old / "slots").mkdir(parents=True)
    (old / "slots" / "one.kv").write_text("cache")
    folder = make_state_folder(read(tmp_path, 8088))
    assert (folder / "slots" / "one.kv").read_text() == "cache"
    assert not old.exists()
    assert f"the state of port 8088 was moved to {folder}" in caplog.text
    old.mkdir()
    assert make_state_folder(read(tmp_path, 8088)) == folder
    assert old.exists()


def test_another_port_finds_the_same_state(tmp_path: Path) -> None:
    """Another `-listen` makes nothing cold."""
    assert make_state_folder(read(tmp_path, 1)) == make_state_folder(read(tmp_path, 2))
    assert [one.name for one in (tmp_path / "state").iterdir()] == [make_state_folder(read(tmp_path, 3)).name]


def test_the_folder_is_ours_alone(tmp_path: Path) -> None:
    """It will hold what people wrote."""
    assert make_state_folder(read(tmp_path, 8088)).stat().st_mode & 0o777 == 0o700
