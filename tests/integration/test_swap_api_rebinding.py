"""What others asked is not read by a page whose name was pointed at this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.http import call
from support.swap_models import fake
from support.swap_rig import swap_rig

Json = Any
OWN = ("localhost", "127.0.0.1:8080", "[::1]:8080")


async def test_a_foreign_name_reads_no_logs(tmp_path: Path) -> None:
    """The refusal says what to do where the name should be one of ours."""
    async with swap_rig(tmp_path, {"a": fake()}) as rig:
        refused = await call(rig.port, "GET", "/logs", headers={"Host": "evil.example:8080"})
        assert (refused.status, "admin_hosts" in refused.text) == (403, True)
        assert [(await call(rig.port, "GET", "/logs", headers={"Host": host})).status for host in OWN] == [
            200,
            200,
            200,
        ]


@pytest.mark.parametrize("config", [{"admin_hosts": ["box.lan"]}, {"apiKeys": ["sk-one"]}])
async def test_a_name_of_ours_and_whoever_has_a_key_do(tmp_path: Path, config: Json) -> None:
    """A page that was rebound has no key."""
    async with swap_rig(tmp_path, {"a": fake()}, **config) as rig:
        headers = {"Host": "box.lan", "Authorization": "Bearer sk-one"}
        assert (await call(rig.port, "GET", "/logs", headers=headers)).status == 200
