"""How much memory an engine takes, with everything that it started, as the kernel tells in /proc.

Resident memory: weights that are mapped from a file count as far as they are in memory. Processes of one engine that
share memory count it once each; what a card holds is not in here. Everything below the engine's own process is found,
grandchildren in sessions of their own too, for the kernel keeps lists of children (listener.py). Blocks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bioproxy.engines.listener import PROC, family


def resident(pid: int, *, proc: Path = PROC) -> int | None:
    """Bytes of `pid` and its descendants; None if the system does not tell, or the process is gone."""
    if not sys.platform.startswith("linux"):
        return None
    page = os.sysconf("SC_PAGE_SIZE")
    pages = [found for one in set(family(pid, proc=proc)) if (found := resident_pages(one, proc=proc)) is not None]
    return sum(pages) * page if pages else None


def resident_pages(pid: int, *, proc: Path = PROC) -> int | None:
    """Pages in memory of one process (proc(5), statm: the second number)."""
    try:
        return int((proc / str(pid) / "statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
