"""Measure everything and write bench/results.md; `python -m bench proxying` measures one part and only prints."""

from __future__ import annotations

import sys
from pathlib import Path

from bench import agent, caching, estimates, proxying, relay_logs, starting, swapping, webpage
from bench.report import page, verdict

PARTS = {
    "proxying": ("The data plane", proxying.measure),
    "caching": ("The cache, on a real engine", caching.measure),
    "starting": ("A start with many snapshots", starting.measure),
    "agent": ("An agent", agent.measure),
    "swapping": ("Many models", swapping.measure),
    "estimates": ("How long still", estimates.measure),
    "relay_logs": ("Logs", relay_logs.measure),
    "webpage": ("The web page", webpage.measure),
}


def main() -> int:
    """Exit 0 when every figure holds, else 1."""
    wanted = sys.argv[1:] or list(PARTS)
    holds, sections = True, []
    for name in wanted:
        title, measure = PARTS[name]
        rows = measure()
        holds &= all(row.holds for row in rows)
        sections.append(verdict(title, rows))
        print(sections[-1], flush=True)
    if not sys.argv[1:]:
        (Path(__file__).parent / "results.md").write_text(page(sections))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
