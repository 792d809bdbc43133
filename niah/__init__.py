"""Measures what a compressed KV cache forgets.

The functions of `__all__` are what the command line calls, for notebooks and other programs. Each
is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from niah.execution.sweeps import run_sweep
    from niah.gate.verdict import run_gate
    from niah.report.html.page import write_report
    from niah.runs.tables import load_run
    from niah.statistics.comparisons import compare

__all__ = ["compare", "load_run", "run_gate", "run_sweep", "write_report"]

_ROOMS = {
    "compare": "niah.statistics.comparisons",
    "load_run": "niah.runs.tables",
    "run_gate": "niah.gate.verdict",
    "run_sweep": "niah.execution.sweeps",
    "write_report": "niah.report.html.page",
}


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
