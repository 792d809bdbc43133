"""Time by component: functions wrapped while a measurement lasts, each timed without those inside.

What no wrapped function covers is `other`. Only the calling thread is timed; kernels that use
more return when all of them are done.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from models.deepseek_v3.latent import LatentLayer
from models.deepseek_v4 import attention, blocked, dense, fused
from models.deepseek_v4.compressor import Compressor
from models.deepseek_v4.indexer import Indexer
from models.deepseek_v4.mhc import HyperConnection, HyperHead
from models.deepseek_v4.moe import MoE
from models.kernels import gathered, selection

WRAPPED: dict[str, list[tuple[Any, str]]] = {
    "weights": [
        (MoE, "forward"),
        (attention.Attention, "forward"),
        (LatentLayer, "forward"),
        (Compressor, "compress"),
    ],
    "hyper-connections": [
        (HyperConnection, "forward"),
        (HyperConnection, "spread"),
        (HyperHead, "forward"),
    ],
    "window": [(fused, "attend_window"), (attention, "window_part")],
    "indexer": [(selection, "best_entries"), (Indexer, "score"), (attention, "select")],
    "gathered": [
        (gathered, "attend_rows"),
        (fused, "attend_prefixes"),
        (attention, "gathered_part"),
        (attention, "selection_mask"),
    ],
    "HCA": [(fused, "attend_runs")],
    "dense attention": [
        (dense, "attend"),
        (blocked, "attend"),
        (LatentLayer, "attend_to_all"),
    ],
    "merge": [(fused, "merge"), (dense, "merge"), (attention, "softmax_with_sink")],
}
"""`weights` is the projections, norms, rotations and experts around what is listed below it."""


def now() -> float:
    """In seconds: of the processor where torch uses one thread, which other programs hardly
    lengthen, else of the clock."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


class Timers:
    """Seconds by component so far."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[str] = ["other"]
        self._since = now()

    def enter(self, component: str) -> None:
        self._settle()
        self._inside.append(component)

    def leave(self) -> None:
        self._settle()
        self._inside.pop()

    def snapshot(self) -> dict[str, float]:
        self._settle()
        return dict(self.seconds)

    def restart(self) -> None:
        """Forget the time since the last event: what a caller does between measurements."""
        self._since = now()

    def _settle(self) -> None:
        moment = now()
        self.seconds[self._inside[-1]] += moment - self._since
        self._since = moment


@contextmanager
def timed() -> Iterator[Timers]:
    """Wrap every function of `WRAPPED` for the duration of the block."""
    timers = Timers()
    originals = [
        (owner, name, component, owner.__dict__[name])
        for component, functions in WRAPPED.items()
        for owner, name in functions
    ]
    for owner, name, component, original in originals:
        setattr(owner, name, _wrapped(timers, component, original))
    try:
        timers.restart()
        yield timers
    finally:
        for owner, name, _, original in originals:
            setattr(owner, name, original)


def _wrapped(timers: Timers, component: str, original: Any) -> Any:
    static = isinstance(original, staticmethod)
    function: Callable[..., Any] = original.__func__ if static else original

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        timers.enter(component)
        try:
            return function(*args, **kwargs)
        finally:
            timers.leave()

    return staticmethod(wrapper) if static else wrapper
