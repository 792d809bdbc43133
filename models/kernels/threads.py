"""Shares of a kernel's work for as many threads as torch uses; the caller's is one of them.

Plain threads, because kernels hold no lock and a second OpenMP runtime beside torch's would
fight it for the cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import torch


def run_shares(size: int, at_least: int, work: Callable[[slice], None]) -> None:
    """Call `work` for contiguous shares of range(size), none much smaller than `at_least`."""
    shares = split(size, at_least)
    others = [_pool(os.getpid(), len(shares) - 1).submit(work, share) for share in shares[1:]]
    work(shares[0])
    for other in others:
        other.result()


def split(size: int, at_least: int) -> list[slice]:
    """Equal contiguous shares of range(size), at most one a thread and at least one."""
    count = max(1, min(torch.get_num_threads(), size // at_least))
    bounds = [size * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]


@lru_cache(maxsize=1)
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    """Kept between calls; a forked process has none of its parent's threads, hence the key."""
    return ThreadPoolExecutor(workers, thread_name_prefix="kernel")
