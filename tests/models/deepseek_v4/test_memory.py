"""No tensor of queries x context: the largest one made is bounded by a block, or by the rows.

Counts every tensor that an operation returns, views and all; not what a kernel uses inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models import kernels
from models.deepseek_v3.model import LatentTwin
from models.deepseek_v4 import blocked
from models.deepseek_v4.config import CSA, DSA, HCA, MLA, DeepseekV4Config
from models.deepseek_v4.dense import DenseTwin
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from tests.models.small import GATHERED, LATENT, REAL, random_ids, randomized

CHUNK = 256
BLOCK = 2**15  # logits of one query block; the chunk's over all entries would be 8 times as many


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation under it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0
        self.shape: tuple[int, ...] = ()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            # A broadcast view has many elements and no memory of its own.
            if isinstance(leaf, Tensor) and 0 not in leaf.stride() and leaf.numel() > self.numel:
                self.numel, self.shape = leaf.numel(), tuple(leaf.shape)
        return result


MODELS: dict[str, Callable[[], DeepseekV4]] = {
    "CSA, gathered": lambda: DeepseekV4(replace(GATHERED, layer_types=(CSA,))),
    "CSA, all entries": lambda: DeepseekV4(replace(REAL, layer_types=(CSA,), index_topk=4096)),
    "HCA": lambda: DeepseekV4(replace(REAL, layer_types=(HCA,), hca_ratio=4)),
    "uncompressed": lambda: DenseTwin(replace(REAL, layer_types=(CSA,))),
    "MLA": lambda: LatentTwin(replace(LATENT, layer_types=(MLA,))),
    "DSA": lambda: LatentTwin(replace(LATENT, layer_types=(DSA,))),
}


def row_width(config: DeepseekV4Config) -> int:
    """Channels of what a token or an entry is kept as."""
    if config.latent is None:
        return config.head_dim
    return config.latent.kv_lora_rank + config.qk_rope_head_dim


PATHS = pytest.mark.parametrize("switch", ["1", "0"], ids=["kernels", "plain torch"])


@PATHS
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_no_tensor_of_queries_by_context(
    build: Callable[[], DeepseekV4], switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kernels.SWITCH, switch)
    monkeypatch.setattr(blocked, "CPU_LIMIT", BLOCK)
    model = randomized(build(), seed=0)
    config = model.config
    session = DeepseekV4Session(model, CHUNK)
    length = 4096
    ids = random_ids(length)
    session.read(ids[:-CHUNK].numpy())
    with LargestTensor() as largest:
        session.read(ids[-CHUNK:].numpy())
    # The window's logits and the streams do not depend on the context; rows grow linearly.
    constant = CHUNK * max(
        config.num_attention_heads * 2 * config.sliding_window, config.hc_mult * config.hidden_size
    )
    linear = 2 * length * row_width(config)  # capacity doubles
    assert largest.numel <= max(BLOCK, constant, linear), largest.shape
    ratio = config.csa_ratio if config.latent is None else 1
    queries_by_entries = CHUNK * length // ratio * config.num_attention_heads
    assert max(BLOCK, constant, linear) < queries_by_entries / 2


@PATHS
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_the_largest_tensor_of_a_step_is_linear_in_the_context(
    build: Callable[[], DeepseekV4], switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kernels.SWITCH, switch)
    session = DeepseekV4Session(randomized(build(), seed=0), 1024)
    sizes = []
    for length in (2048, 4096, 8192):
        session.read(random_ids(length - session.position).numpy())
        with LargestTensor() as largest:
            session.fork().read([1])
        sizes.append(largest.numel)
    assert sizes[1] <= 2 * sizes[0]
    assert sizes[2] <= 2 * sizes[1]
    assert sizes[2] <= 8192 * row_width(session._model.config)
