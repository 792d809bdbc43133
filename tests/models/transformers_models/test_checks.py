"""The check at load: a fault is found, rounding is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers", reason="the adapter needs transformers: install the dev extra")

from models.protocols import TokenIds
from models.transformers_models.checks import TOLERANCE, relative_difference, split_fault
from models.transformers_models.loading import checked, in_memory
from tests.models.transformers_models.tiny import tiny_llama

WEIGHTS = torch.randn(50, 20, generator=torch.Generator().manual_seed(0))


class Counting:
    """Logits of a mean over the tokens that it has seen."""

    limit = 96

    def __init__(self, sees_past: bool = True, shared: bool = False, noise: float = 0.0) -> None:
        self.options = (sees_past, shared, noise)
        self.seen: list[int] = []

    def score(self, ids: TokenIds) -> Tensor:
        assert len(self.seen) + len(ids) <= self.limit
        sees_past, _, noise = self.options
        past = self.seen if sees_past else []
        sums = [WEIGHTS[[*past, *map(int, ids[: i + 1])]].mean(0) for i in range(len(ids))]
        self.seen += [int(i) for i in ids]
        logits = torch.stack(sums)
        return logits * (1 + noise * torch.randn(logits.shape))

    def fork(self) -> Counting:
        child = Counting(*self.options)
        child.seen = self.seen if self.options[1] else list(self.seen)
        return child


@pytest.mark.parametrize("limit", [None, 96, 60, 20])
def test_a_session_that_keeps_what_it_was_told_passes(
    limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counting, "limit", limit or 96)
    assert split_fault(Counting, 50, limit, torch.float32) is None
    assert split_fault(lambda: Counting(noise=1e-4), 50, limit, torch.float32) is None


def test_one_that_forgets_is_found() -> None:
    fault = split_fault(lambda: Counting(sees_past=False), 50, None, torch.bfloat16)
    assert fault is not None
    assert fault.startswith("gives other answers when a text is read in pieces (logits differ by ")


def test_a_fork_that_disturbs_its_parent_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "limit", 1000)
    fault = split_fault(lambda: Counting(shared=True), 50, None, torch.float32)
    assert fault is not None
    assert fault.startswith("gives other answers")


def test_rounding_of_half_types_is_none() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        weights = checked(in_memory(tiny_llama().to(dtype)))
        assert weights.fault is None
        assert not weights.network.stepwise


def test_differences_are_shares_of_the_logits() -> None:
    whole = torch.randn(40, 30)
    assert relative_difference(whole + 7, whole) < 1e-6  # a shift changes no probability
    assert relative_difference(whole * 1.01, whole) == pytest.approx(0.01)
    assert not relative_difference(whole * float("nan"), whole) <= TOLERANCE[torch.float32]
