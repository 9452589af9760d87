"""The gate: who may use the engine now, and who goes next.

`queue.py` and `fairness.py` decide and know neither loop nor clock; `gate.py` is the thin async front that turns a
decision into a woken task. What a grant is used for (a completion, a slot action, a warm-up's chunk) lives elsewhere.
"""

from bioproxy.gate.gate import Gate, GateStatistics, Grant

__all__ = ["Gate", "GateStatistics", "Grant"]
