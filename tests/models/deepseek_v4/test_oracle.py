"""The model against transformers 5.23.0, an implementation of its own, in fp32.

What this does not establish: that either equals DeepSeek's released code (the specification
measured that once), and anything about FP8 or FP4, which neither side has.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers", reason="the oracle is transformers: install the dev extra")

from models.deepseek_v4.config import DeepseekV4Config
from models.deepseek_v4.model import DeepseekV4
from tests.models.oracle import SPEC, drawn_config, oracle
from tests.models.small import random_ids, relative_difference, score_in_pieces

TOLERANCE = 2e-5
NUM_TOKENS = 300
CONFIGS = {"spec": SPEC} | {f"drawn {seed}": drawn_config(seed) for seed in range(8)}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_logits_equal_transformers(config: DeepseekV4Config) -> None:
    theirs = oracle(config, seed=0)
    ours = DeepseekV4(config)
    ours.load_state_dict(theirs.state_dict())
    ids = torch.stack([random_ids(NUM_TOKENS, seed) for seed in (1, 2)])
    with torch.no_grad():
        expected = theirs(ids, use_cache=False).logits
        assert relative_difference(ours(ids), expected) <= TOLERANCE
    cached = score_in_pieces(ours, ids[0], [3, 130, 1])
    assert relative_difference(cached, expected[0]) <= TOLERANCE


def test_weights_load_both_ways() -> None:
    theirs, ours = oracle(SPEC, seed=3), DeepseekV4(SPEC)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    back = oracle(SPEC, seed=4)
    back.load_state_dict(ours.state_dict(), strict=True)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name


def test_drawn_configurations_cover_what_they_should() -> None:
    drawn = list(CONFIGS.values())
    assert {c.csa_ratio for c in drawn} == {2, 4, 8}
    for field in ("sliding_window", "hca_ratio", "index_topk", "hc_mult", "num_hash_layers"):
        assert len({getattr(c, field) for c in drawn}) >= 3, field
