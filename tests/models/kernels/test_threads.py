"""Shares of a kernel's work: whose they are, on which threads, and what a failure leaves."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("numba", reason="the kernels need numba")

from models.kernels import threads
from models.kernels.compile import kernel
from models.kernels.team import in_shares
from models.kernels.threads import How, cut, run_shares, share_count


@kernel
def _shifted(x: Any, rows: Any, out: Any, by: Any) -> None:
    """Each row with its share's length; the share's parts must be of the same rows."""
    for i in range(len(x)):
        out[i, 0] = len(x)
        for c in range(x.shape[1]):
            out[i, 1 + c] = x[i, c] + rows[i] + by[c]


@kernel
def _shifted_shares(how: How) -> int:
    return in_shares(_shifted, how)


@kernel
def _too_large(x: Any) -> None:
    if x[-1] == 2:
        raise MemoryError


@kernel
def _too_large_shares(how: How) -> int:
    return in_shares(_too_large, how)


@pytest.fixture(params=["team", "pool"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Torch's threads, or those that take their place where torch brings another runtime."""
    if request.param == "pool":
        monkeypatch.setattr(threads, "fork_address", lambda: 0)
    elif not threads.fork_address():
        pytest.skip("torch does not use GNU's OpenMP here")
    yield request.param
    torch.set_num_threads(1)


def shifted(size: int, at_least: int, shares_each: int = 1) -> list[int]:
    """Checks every row's sum; the lengths of the shares that rows were in."""
    x = np.arange(3 * size, dtype=np.float32).reshape(size, 3)
    x = np.asfortranarray(x) if size % 2 else x
    rows, out = np.arange(size) * 1000, np.full((size, 4), -1, np.float32)
    by = np.array([0.25, 0.5, 0.75], np.float32)
    run_shares(_shifted_shares, at_least, (x, rows, out), (by,), shares_each)
    assert np.array_equal(out[:, 1:], x + rows[:, None] + by)
    return [int(count) for count in out[:, 0]]


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 7, 64, 101])
def test_each_row_is_in_one_share(way: str, num_threads: int, size: int) -> None:
    torch.set_num_threads(num_threads)
    for shares_each in (1, 4):
        wanted = cut(size, share_count(size, 2, shares_each))
        lengths = [part.stop - part.start for part in wanted for _ in range(part.start, part.stop)]
        assert shifted(size, 2, shares_each) == lengths
    assert share_count(64, 2) == num_threads


def test_shares_cover_the_range() -> None:
    for size in (1, 5, 100):
        bounds = [(part.start, part.stop) for part in cut(size, 3)]
        assert bounds[0][0] == 0
        assert bounds[-1][1] == size
        assert all(a[1] == b[0] for a, b in pairwise(bounds))


def test_a_share_that_fails_is_told(way: str) -> None:
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        run_shares(_too_large_shares, 1, (np.arange(2),))
        with pytest.raises(MemoryError, match="a kernel lacks memory"):
            run_shares(_too_large_shares, 1, (np.arange(3),))


def test_callers_in_several_threads(way: str) -> None:
    """Each has a team of its own."""
    torch.set_num_threads(2)
    failed: list[BaseException] = []

    def call() -> None:
        try:
            for _ in range(50):
                shifted(64, 2)
        except BaseException as error:
            failed.append(error)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not any(caller.is_alive() for caller in callers)
    assert not failed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_process_does_not_wait_for_its_parents_team() -> None:
    torch.set_num_threads(2)
    try:
        shifted(64, 2)
        torch.ones(512, 512) @ torch.ones(512, 512)  # the team exists
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if shifted(64, 2) else 1
            finally:
                os._exit(code)
        for _ in range(200):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            threading.Event().wait(0.05)
        else:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the forked process waits")
        assert status == 0
    finally:
        torch.set_num_threads(1)
