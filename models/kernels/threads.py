"""Shares of a kernel's work for as many threads as torch uses; the caller's is one of them.

Torch's own threads do the work: its OpenMP team waits with its cores awake between two operations,
so that threads of our own would have to fight for these. Where torch does not bring GNU's runtime
(macOS, Windows), or this process was forked and has no team, plain threads do it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from numpy.typing import NDArray

How = tuple[int, int, int, tuple[Any, ...], tuple[Any, ...]]
"""The address of the team's fork or 0, threads, shares, and a kernel's arguments: arrays of which
each share gets its rows, and what every share gets."""
Launch = Callable[[How], int]
"""A kernel that hands another one and `How` to `team.in_shares`."""

IMPORTED_BY = os.getpid()


def run_shares(
    launch: Launch,
    at_least: int,
    split: tuple[NDArray[Any], ...],
    whole: tuple[Any, ...] = (),
    shares_each: int = 1,
) -> None:
    """Call a kernel with rows of `split`, arrays of one length, and with `whole`.

    Shares are contiguous, and none is much smaller than `at_least` rows. With more than one a
    thread, those who are done early take what is left: for rows that differ in cost.
    Raises: MemoryError.
    """
    size, threads = len(split[0]), torch.get_num_threads()
    shares = share_count(size, at_least, shares_each)
    fork = fork_address() if shares > 1 else 0
    if fork or shares == 1:
        failed = launch((fork, threads, shares, split, whole))
    else:
        parts = [tuple(array[share] for array in split) for share in cut(size, shares)]
        pool = _pool(os.getpid(), threads)
        failed = sum(pool.map(lambda part: launch((0, 1, 1, part, whole)), parts))
    if failed:
        raise MemoryError("a kernel lacks memory")


def share_count(size: int, at_least: int, shares_each: int = 1) -> int:
    """How many shares `size` rows are cut into: one, or up to `shares_each` a thread."""
    threads = torch.get_num_threads()
    return max(1, min(threads * shares_each, size // at_least)) if threads > 1 else 1


def cut(size: int, shares: int) -> list[slice]:
    """Equal contiguous shares of range(size)."""
    bounds = [size * i // shares for i in range(shares + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]


def fork_address() -> int:
    """Where GNU OpenMP's `GOMP_parallel` is that torch calls; 0 without, or in a forked process."""
    return _gomp_parallel() if os.getpid() == IMPORTED_BY else 0


@lru_cache(maxsize=1)
def _gomp_parallel() -> int:
    try:
        function = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@lru_cache(maxsize=1)
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    """Kept between calls; a forked process has none of its parent's threads, hence the key."""
    return ThreadPoolExecutor(workers, thread_name_prefix="kernel")
