"""Training on a CUDA device takes the CPU's steps, and goes on from a state of either device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from niah.training.config import TrainConfig, Twin
from niah.training.trainer import Trainer
from tests.niah.training.test_trainer import DISTANT, TINY

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

ENGRAM = {"engram": {"model": {"engram": {"layers": [1], "rows": 50}}}}


def figures_of(trainer: Trainer, count: int) -> list[dict[str, float]]:
    return [figures() for _, figures in zip(range(count), trainer._steps(), strict=False)]


@pytest.mark.parametrize(
    ("arm", "distant"),
    [
        *(("compressed", None), ("compressed", DISTANT), ("dense", None), ("dense", DISTANT)),
        *(("mla", None), ("dsa", None), ("engram", None)),
    ],
)
def test_losses_are_the_cpus(arm: Twin, distant: dict[str, Any] | None, tmp_path: Path) -> None:
    config = TrainConfig.model_validate({**TINY, **ENGRAM, "distant": distant})
    expected = figures_of(Trainer(config, arm, tmp_path / "cpu"), 3)
    found = figures_of(Trainer(config, arm, tmp_path / "cuda", "cuda"), 3)
    # Rounding may move an entry in or out of a selection, and each step adds to that.
    for ours, theirs, tolerance in zip(found, expected, [0.01, 0.05, 0.05], strict=True):
        for name in ("answer", "text", "index", "grad"):
            assert ours[name] == pytest.approx(theirs[name], rel=tolerance, abs=1e-4), name


def test_a_state_goes_on_on_the_other_device(tmp_path: Path) -> None:
    config = TrainConfig.model_validate({**TINY, "distant": DISTANT})
    first = Trainer(config, "compressed", tmp_path, "cuda")
    figures_of(first, 3)
    first.save()
    for device in ("cpu", "cuda"):
        resumed = Trainer(config, "compressed", tmp_path, device)
        assert resumed.step == 3
        resumed.run()
        assert resumed.step == config.num_steps
        assert all(p.isfinite().all() for p in resumed.model.parameters())
        first.save()  # as it was
