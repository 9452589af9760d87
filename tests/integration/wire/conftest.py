"""Every test of the data plane runs on both event loops: uvloop, and asyncio's own where there is no uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from bioproxy.cli.serve import loop_factory


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    uvloop = loop_factory()
    return {"asyncio": asyncio.new_event_loop, **({"uvloop": uvloop} if uvloop else {})}
