"""What `bioproxy status` and the banner of `bioproxy serve` say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bioproxy.cli.remote import snapshots_text
from bioproxy.cli.serve import banner
from bioproxy.config.load import load

BEFORE = {"directory": "", "reason": "", "notes": [], "policy": "auto"}  # the keeper has met no engine


@pytest.mark.parametrize(
    ("kv", "engine", "text"),
    [
        ({}, "absent", "nothing is known while there is no engine"),
        ({}, "loading", "nothing is known while the engine is loading"),
        ({}, "ready", "none: policy auto"),
        ({"policy": "off"}, "absent", "none: policy off"),
        ({"notes": ["a", "b"]}, "absent", "none: a; b"),
        ({"reason": "the folder is locked"}, "ready", "none: the folder is locked"),
    ],
)
def test_without_a_folder_the_reason_is_told(kv: dict[str, Any], engine: str, text: str) -> None:
    """Before an engine was met there is no reason; nobody knows yet."""
    assert snapshots_text(BEFORE | kv, engine) == text


def test_a_folder_is_told_while_the_engine_is_away() -> None:
    """What was found in it stays true."""
    kv = BEFORE | {"directory": "/slots", "snapshots": 2, "bytes": 2048, "budget": 4096, "paused": ""}
    assert snapshots_text(kv, "absent") == "2 with 2.0 KiB of 4.0 KiB in /slots"


def test_the_banner_names_lists_once(tmp_path: Path) -> None:
    """Their items, each with an origin of its own, are not told beside them."""
    environment = {"BIOPROXY_API_KEYS": '[{"key": "k", "name": "n"}]', "HOME": str(tmp_path)}
    loaded = load({"admin_hosts": '["a", "b"]'}, path=None, environment=environment)
    assert {"api_keys[0].name", "admin_hosts[0]"} <= loaded.origins.keys()
    [line] = [line for line in banner(loaded, proxy_port=1, admin_port=2) if line.startswith("not at its default")]
    told = "api_keys (BIOPROXY_API_KEYS), admin_hosts (flag -admin-hosts)"
    assert line == f"not at its default: {told}"
