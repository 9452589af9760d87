"""What an engine said last before it died: who may hear it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bioproxy.models.book import EARLY
from support.http import call
from support.swap_client import message
from support.swap_models import fake
from support.swap_rig import swap_rig

Json = Any
TALKS = fake("--say a-prompt-of-somebody")
KEY = {"Authorization": "Bearer sk-one"}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"apiKeys": ["sk-one"]}, True),
        ({"apiKeys": ["sk-one", "sk-two"], "admin_key": "boss"}, True),
        ({"apiKeys": ["sk-one", "sk-two"]}, False),
    ],
)
async def test_one_of_several_keys_does_not_hear_it(tmp_path: Path, keys: Json, told: bool) -> None:
    """It may be about another one's prompt."""
    async with swap_rig(tmp_path, {"a": TALKS}, **keys) as rig:
        body = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
        for ends in range(1, EARLY + 1):
            assert (await call(rig.port, "POST", "/v1/chat/completions", data=body, headers=KEY)).status == 200
            rig.kill("a")
            await rig.until(lambda ends=ends: len(rig.said("exited unexpectedly")) == ends)  # type: ignore[misc]
        answer = await call(rig.port, "POST", "/v1/chat/completions", data=body, headers=KEY)
        assert (answer.status, "a-prompt-of-somebody" in message(answer)) == (500, told)
