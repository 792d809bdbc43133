"""Routed experts by sorted tokens against torch's path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("numba", reason="the kernels need numba")

from models import kernels
from models.deepseek_v4.moe import MoE
from models.kernels.experts import best_experts
from tests.models.small import REAL, randomize

TOLERANCE = 1e-5


@pytest.mark.parametrize("hashed", [False, True], ids=["by score", "by id"])
@pytest.mark.parametrize(("experts", "per_token"), [(1, 1), (4, 2), (9, 3)])
@pytest.mark.parametrize("tokens", [1, 2, 70, 300])
def test_equals_torch(
    hashed: bool, experts: int, per_token: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(REAL, n_routed_experts=experts, num_experts_per_tok=per_token)
    moe = MoE(config, layer=0 if hashed else 1)
    randomize(moe, config, seed=experts)
    generator = torch.Generator().manual_seed(tokens)
    x = 30 * torch.randn(1, tokens, config.hidden_size, generator=generator)  # both clamps act
    ids = torch.randint(config.vocab_size, (1, tokens), generator=generator)
    with torch.no_grad():
        found = moe(x, ids)
        monkeypatch.setenv(kernels.SWITCH, "0")
        expected = moe(x, ids)
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE * 30)


def test_gates_of_any_magnitude(monkeypatch: pytest.MonkeyPatch) -> None:
    moe = MoE(REAL, layer=1)
    randomize(moe, REAL, seed=0)
    x = torch.logspace(-30, 30, 40)[None, :, None] * torch.randn(1, 40, REAL.hidden_size)
    ids = torch.zeros(1, 40, dtype=torch.long)
    with torch.no_grad():
        found = moe(x, ids)
        monkeypatch.setenv(kernels.SWITCH, "0")
        expected = moe(x, ids)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_number_that_is_none_stays_visible() -> None:
    moe = MoE(REAL, layer=1)
    randomize(moe, REAL, seed=0)
    x = torch.ones(1, 3, REAL.hidden_size)
    x[0, 1, 0] = torch.nan
    with torch.no_grad():
        found = moe(x, torch.zeros(1, 3, dtype=torch.long))
    assert found.isnan().any(-1).tolist() == [[False, True, False]]


def test_the_best_experts_are_those_of_torch() -> None:
    scores = torch.randn(500, 11)
    for k in (1, 4, 11):
        assert torch.equal(best_experts(scores, k), scores.topk(k).indices)
