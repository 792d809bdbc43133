"""Fused attention against the differentiable parts, and a whole model on both paths."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("numba", reason="the kernels need numba")

from models import kernels
from models.deepseek_v4 import fused
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.parts import gathered_part, softmax_with_sink, window_part
from models.kernels.gathered import attend_rows
from tests.models.small import random_ids, relative_difference, score_in_pieces

TOLERANCE = 2e-5
HEADS, DIM = 3, 24
SINKS = torch.tensor([-1.0, 0.0, 2.0])


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("window", [1, 5, 32, 128])
@pytest.mark.parametrize("num_queries", [1, 4, 31, 32, 100, 300])
@pytest.mark.parametrize("past", [0, 3, 31, 127])
def test_the_window(window: int, num_queries: int, past: int) -> None:
    past = min(past, window - 1)
    q, keys = drawn(2, num_queries, HEADS, DIM), drawn(2, past + num_queries, DIM)
    ours = fused.merge([fused.attend_window(q, keys, window)], SINKS)
    assert relative_difference(ours, softmax_with_sink([window_part(q, keys, window)], SINKS)) < (
        TOLERANCE
    )


@pytest.mark.parametrize("num_queries", [1, 70, 200])
@pytest.mark.parametrize("k", [1, 17, 64])
@pytest.mark.parametrize("size", [1.0, 40.0], ids=["smooth", "sharp"])
def test_gathered_rows(num_queries: int, k: int, size: float) -> None:
    rows, q = drawn(2, 500, DIM), size * drawn(2, num_queries, HEADS, DIM)
    chosen = drawn(2, num_queries, 500).argsort(-1)[..., :k]
    counts = (2 * torch.arange(num_queries) + 1) % (k + 1)  # none, some, all
    taken = torch.stack([table[picks] for table, picks in zip(rows, chosen, strict=True)])
    visible = (torch.arange(k) < counts[:, None]).expand(2, -1, -1)
    part = gathered_part(q.double(), taken.double(), visible)
    ours = fused.merge([fused.Mixed(*attend_rows(q, rows, chosen, counts))], SINKS)
    # A weight is the exponential of a logit: it carries the rounding of the largest one.
    largest = float(part.logits.nan_to_num(neginf=0.0).abs().max())
    allowed = TOLERANCE + torch.finfo(torch.float32).eps * largest
    assert relative_difference(ours, softmax_with_sink([part], SINKS.double())) < allowed


IDS = random_ids(700)
SPLITS = {
    "at once": [700],
    "tokens after a prefill": [600, *[1] * 20],
    "odd": [1, 130, 3, 129, 257],
}


@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)
def test_a_model_gives_the_same_on_both_paths(
    small: DeepseekV4, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = score_in_pieces(small, IDS, sizes)
    monkeypatch.setenv(kernels.SWITCH, "0")
    assert relative_difference(found, score_in_pieces(small, IDS, sizes)) < TOLERANCE


def test_forks_of_forks_read_entries_of_all_segments(
    small: DeepseekV4, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forked() -> torch.Tensor:
        from tests.models.small import session_of

        session = session_of(small)
        for piece in IDS.split(90):
            session.read(piece.numpy())
            session = session.fork()
        return session.score(random_ids(40, seed=5).numpy())

    found = forked()
    monkeypatch.setenv(kernels.SWITCH, "0")
    assert relative_difference(found, forked()) < TOLERANCE


def test_the_switch_says_which_path_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.usable(IDS.float())
    assert kernels.describe().startswith("numba ")
    monkeypatch.setenv(kernels.SWITCH, "0")
    assert not kernels.usable(IDS.float())
    assert kernels.describe() == "torch (NIAH_NATIVE=0)"


def test_gradients_and_other_precisions_take_torchs_path() -> None:
    assert not kernels.usable(IDS.double())
    with torch.enable_grad():
        assert not kernels.usable(IDS.float())
