"""Ctrl-C reaches the programs that tests start, also if a shell runs the tests in the background (`make test &`).

There it is ignored, and children inherit that.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
