"""What `bioproxy status` and the banner of `bioproxy serve` say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bioproxy.cli.remote import snapshots_text
from bioproxy.cli.serve import banner
from bioproxy.config.load import Loaded, load

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


def test_a_default_that_is_written_out_is_none_that_was_changed(tmp_path: Path) -> None:
    """The banner names what is otherwise, not what stands in a file."""
    (tmp_path / "c.json").write_text('{"proxy_port": 8088, "queue_limit": 7, "kv": {"policy": "auto"}}')
    loaded = load(path=str(tmp_path / "c.json"), environment={"HOME": str(tmp_path)})
    [line] = [line for line in banner(loaded, proxy_port=1, admin_port=2) if line.startswith("not at its default")]
    assert line == f"not at its default: queue_limit ({tmp_path}/c.json:1)"


def with_models(folder: Path, count: int, text: str = "") -> Loaded:
    """A configuration with so many models."""
    path = folder / "c.yaml"
    path.write_text("models:\n" + "".join(f"  m{number}: {{cmd: 'x ${{PORT}}'}}\n" for number in range(count)) + text)
    return load(path=str(path), environment={"HOME": str(folder)})


@pytest.mark.parametrize(
    ("count", "text", "line"),
    [
        (2, "", "models: 2 (m0, m1)"),
        (12, "", "models: 12 (m0, m1, m2, m3, m4, m5, m6, m7, m8, m9 and 2 more)"),
        (0, "", "models: none"),
        (1, "peers: {a: {proxy: 'http://a.lan', models: [x]}}", "models: 1 (m0); peers: a"),
    ],
)
def test_the_banner_counts_models(count: int, text: str, line: str, tmp_path: Path) -> None:
    """And names the first ten, in place of the one engine."""
    told = banner(with_models(tmp_path, count, text), proxy_port=1, admin_port=2)
    assert line in told
    assert not [other for other in told if other.startswith("engine:")]


def test_the_banner_tells_of_a_missing_admin_port(tmp_path: Path) -> None:
    """One that nobody asked for may be taken by another instance."""
    told = banner(with_models(tmp_path, 1), proxy_port=1, admin_port=0)
    assert "proxy on http://localhost:1, no admin port" in told


def test_the_banner_tells_scheme_and_address(tmp_path: Path) -> None:
    """As one types it into a browser."""
    arguments = {"tls_cert_file": "c", "tls_key_file": "k", "proxy_host": "::1"}
    loaded = load(arguments, environment={"HOME": str(tmp_path)})
    assert banner(loaded, proxy_port=1, admin_port=2)[1] == "proxy on https://[::1]:1, admin on http://localhost:2"
