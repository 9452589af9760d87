"""What `bioproxy config` tells of a config with models."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from bioproxy.config.describe import Commands, Described, as_configured, describe_dialect
from bioproxy.config.dialect.schema import Model
from bioproxy.config.masking import MASK
from support.config_files import loaded
from support.swap_models import EVERY_KEY

TEXT = """\
macros: {size: 4096, token: s3cret}
globalTTL: 60
models:
  llama-3.1:
    cmd: |
      llama-server --port ${PORT} -c ${size}
      --api-key ${token}
    env: [HF_TOKEN=s3cret]
    aliases: [gpt]
  other:
    cmd: other
    proxy: http://me:s3cret@host
    ttl: 0
peers:
  box: {proxy: http://box.lan, models: [big], apiKey: s3cret}
groups:
  both: {swap: false, members: [other]}
"""


def rows(folder: Path, text: str = TEXT, *, command: Commands = as_configured) -> dict[str, Described]:
    """The rows of a config by their keys."""
    found = loaded(folder, text, environment={"SECOND_KEY": "two"})
    assert found.dialect is not None
    described = describe_dialect(found.dialect, found.origins, command=command)
    assert len({row.key for row in described}) == len(described)
    return {row.key: row for row in described}


def test_macros_and_ports_are_filled_in(tmp_path: Path) -> None:
    """A command of several lines is one line in a table."""
    row = rows(tmp_path)["models.llama-3.1.cmd"]
    assert row.text == f"llama-server --port 5800 -c 4096 --api-key {MASK}"
    assert row.origin == f"{tmp_path}/conf.yaml:5"


def test_what_a_section_does_not_set_is_a_default(tmp_path: Path) -> None:
    """Though the section itself stands in the file; what is deeper than places are known has the place of its key."""
    text = """\
ui: {edit_config: true}
routing: {router: {settings: {groups: {all: {members: [a.b]}}}}}
models: {a.b: {cmd: "serve ${PORT}"}}
"""
    shown = rows(tmp_path, text)
    assert shown["routing.router.settings"].origin == f"{tmp_path}/conf.yaml:2"
    assert shown["models.a.b.cmd"].origin == f"{tmp_path}/conf.yaml:3"
    for key in ("ui.activity.session_id", "models.a.b.proxy", "routing.router.use"):
        assert shown[key].origin == "default"


def test_a_model_shows_what_is_otherwise_than_for_all(tmp_path: Path) -> None:
    """Its command and address always."""
    keys = {key for key in rows(tmp_path) if key.startswith("models.")}
    assert keys == {
        *(f"models.llama-3.1.{key}" for key in ("cmd", "proxy", "env", "aliases")),
        *(f"models.other.{key}" for key in ("cmd", "proxy", "ttl")),
    }


def test_no_secret_is_told(tmp_path: Path) -> None:
    """Of commands, variables, URLs and peers; macros are not shown at all, for they are filled in."""
    shown = rows(tmp_path)
    assert "s3cret" not in msgspec.json.encode(list(shown.values())).decode()
    assert shown["peers.box.apiKey"].value == MASK


def test_the_command_is_what_will_be_started(tmp_path: Path) -> None:
    """Whoever starts it may add to it."""

    def command(name: str, model: Model) -> str:
        return f"{model.cmd} --slot-save-path /slots/{name}" if name == "other" else model.cmd

    assert rows(tmp_path, command=command)["models.other.cmd"].text == "other --slot-save-path /slots/other"


def test_groups_stand_where_they_count(tmp_path: Path) -> None:
    """Both places for them are one in the end."""
    row = rows(tmp_path)["routing.router.settings"]
    assert row.value["groups"]["both"]["members"] == ["other"]
    assert rows(tmp_path)["globalTTL"].value == 60
    assert rows(tmp_path)["healthCheckTimeout"].origin == "default"


def test_every_key_can_be_told(tmp_path: Path) -> None:
    """As JSON, too; durations as they are written."""
    shown = rows(tmp_path, EVERY_KEY.read_text())
    assert json.loads(msgspec.json.encode(list(shown.values())))
    assert shown["performance.every"].value == "1m30s"
    assert shown["selectors.best.strategy"].value == "spillover"
    assert shown["profiles.work.pins"].value["fast"] == "llama"
