"""The program with many models runs on the event loop that users have, uvloop; the others on asyncio's own.

Both are tried so, each with thousands of requests. `wire/` runs every test on both. On Windows there is only one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping

import pytest

from bioproxy.cli.serve import loop_factory

if sys.platform == "win32":  # they are about what only POSIX has: signals, groups, limits, terminals, unix sockets
    collect_ignore = [
        "test_child_output.py",
        "test_cli_requests.py",
        "test_faults_clients.py",
        "test_process.py",
        "test_process_lives.py",
        "wire/test_wire_crowd.py",
        "wire/test_wire_unix.py",
    ]

MANY_MODELS = ("test_swap_", "test_models_", "test_faults_models_")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name.startswith(MANY_MODELS):
        return {"uvloop": loop_factory() or asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
