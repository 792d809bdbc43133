"""How long threads of torch wait with a core awake: GNU's OpenMP reads it when it is imported."""

import os

VARIABLE = "GOMP_SPINCOUNT"
LOOKS = "2000"
"""Two threads that find their next work at once, as kernels of `models` hand it to them, gain from
every look; where another process wants the cores, each look is lost to both. With 2,000 a prefill
of nano-v4 takes a fifth to a quarter longer than with GNU's own 300,000, and two at once less than
half as long (tests/benchmarks/parallel.py)."""


def let_waiting_threads_sleep() -> None:
    """Call before torch is imported. What the environment says already stays."""
    os.environ.setdefault(VARIABLE, LOOKS)
