"""Every tensor is made on its inputs' device, and all types give float32's answers.

Devices are tested without an accelerator: the default device is `meta` while a model on the CPU
runs, so a factory call that names no device makes a meta tensor, and that is refused at once.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models import kernels
from models.deepseek_v3.sparse import IndexedAttention
from models.deepseek_v4.attention import IndexerTraining
from models.deepseek_v4.config import DeepseekV4Config, uncompressed
from models.deepseek_v4.loading import build
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.moe import MoE
from models.deepseek_v4.session import DeepseekV4Session
from models.deepseek_v4.weights import fingerprint, initialize
from models.registry import load_model
from tests.devices import no_default_device
from tests.models.small import (
    BUILDS,
    GATHERED,
    LATENT,
    full_logits,
    random_ids,
    relative_difference,
    score_in_pieces,
    session_of,
)
from tests.sessions import greedy_ids, held

IDS = random_ids(400)


@pytest.fixture(params=["1", "0"], ids=["kernels", "plain torch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(kernels.SWITCH, request.param)
    return str(request.param)


def life(model: DeepseekV4) -> list[object]:
    """Everything that a session can do; the results that depend on numbers."""
    session = DeepseekV4Session(model, chunk_size=150)
    session.read(IDS[:300].numpy())
    child = session.fork()
    child.read(IDS[300:330].numpy())
    answer = greedy_ids(child.fork(), 6)
    trace = child.extend_traced(5, wanted=12)
    restored = DeepseekV4Session.restored(model, child.state({}))
    scores = restored.score(IDS[330:340].numpy())
    return [answer, trace, scores.tolist(), held(restored)]


def test_the_check_sees_a_factory_without_a_device() -> None:
    with pytest.raises(AssertionError), no_default_device():
        torch.arange(3)


def test_a_session_makes_every_tensor_on_its_models_device(small: DeepseekV4, path: str) -> None:
    expected = life(small)
    with no_default_device():
        assert life(small) == expected


def test_a_pass_without_a_cache_makes_every_tensor_on_its_models_device(
    small: DeepseekV4, path: str
) -> None:
    expected = full_logits(small, IDS)
    with no_default_device():
        found = full_logits(small, IDS)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("sparse", [True, False])
def test_training_makes_every_tensor_on_its_models_device(sparse: bool) -> None:
    weights = torch.full((1, 140), 1 / 140)
    for name in ("top 3", "uncompressed", "latent"):
        training = IndexerTraining(sparse, weights)
        model = BUILDS[name]()
        with no_default_device():
            states = model.hidden(IDS[None, :140], training=training)
            torch.stack([states.square().mean(), *training.losses]).sum().backward()


def test_all_experts_over_all_tokens_are_the_chosen_ones() -> None:
    """What an accelerator does, and a CPU does not."""
    config = replace(GATHERED, n_routed_experts=4, num_experts_per_tok=2)
    experts = MoE(config, layer=1).experts
    generator = torch.Generator().manual_seed(0)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    x = torch.randn(50, config.hidden_size, generator=generator)
    weights = torch.rand(50, 2, generator=generator)
    chosen = torch.rand(50, 4, generator=generator).argsort(-1)[:, :2]
    expected = experts(x, weights, chosen)
    torch.testing.assert_close(experts._all_experts(x, weights, chosen), expected)


@pytest.mark.parametrize("config", [GATHERED, uncompressed(GATHERED), LATENT])
def test_initial_weights_do_not_depend_on_the_default_device(config: DeepseekV4Config) -> None:
    one, other = build(config), build(config)
    initialize(one, seed=3)
    with no_default_device():
        initialize(other, seed=3)
    assert fingerprint(one, config) == fingerprint(other, config)


HALF = {torch.bfloat16: 0.05, torch.float16: 0.006}
"""Root mean square error of all logits over their root mean square: twice what is seen."""


def selecting_all(model: DeepseekV4) -> DeepseekV4:
    """DSA reads nothing but what it selects, and of near ties rounding to half decides."""
    for layer in model.model.layers:
        if isinstance(layer.self_attn, IndexedAttention):
            layer.self_attn.config = replace(model.config, index_topk=len(IDS))
    return model


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("sizes", [[], [100, 1, 1, 130, 60]], ids=["whole", "in pieces"])
def test_half_types_give_the_logits_of_float32(
    small: DeepseekV4, name_of_small: str, dtype: torch.dtype, sizes: list[int]
) -> None:
    expected = score_in_pieces(selecting_all(BUILDS[name_of_small]()), IDS, [])
    found = score_in_pieces(selecting_all(BUILDS[name_of_small]()).to(dtype), IDS, sizes)
    assert found.dtype is torch.float32
    assert float((found - expected).norm() / expected.norm()) < HALF[dtype]


@pytest.fixture
def name_of_small(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["small"])


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_pass_without_a_cache_runs_in_half_types(
    small: DeepseekV4, name_of_small: str, dtype: torch.dtype
) -> None:
    expected = full_logits(selecting_all(BUILDS[name_of_small]()), IDS)
    found = full_logits(selecting_all(BUILDS[name_of_small]()).to(dtype), IDS)
    assert float((found - expected).norm() / expected.norm()) < HALF[dtype]


def test_float64_equals_float32(small: DeepseekV4, name_of_small: str) -> None:
    wide = BUILDS[name_of_small]().double()
    wide.local_frequencies = small.local_frequencies.double()
    found = score_in_pieces(wide, IDS, [100, 1, 130])
    assert relative_difference(found, score_in_pieces(small, IDS, []).double()) < 2e-5


KEPT = (
    *(
        "engram.",
        "norm",
        "_hc.",
        "hc_head",
        "lm_head",
        "sinks",
        "position_bias",
        "gate.",
        "frequencies",
    ),
    *("compressor.kv_proj", "compressor.gate_proj", "indexer.kv_proj", "indexer.gate_proj"),
)


def test_what_the_architecture_wants_in_float32_stays_so(
    small: DeepseekV4, name_of_small: str
) -> None:
    """Section 4, item 15 of the specification, the logits, and nothing else."""
    half = BUILDS[name_of_small]().to(torch.bfloat16)
    tensors = dict((*half.named_parameters(), *half.named_buffers()))
    original = dict((*small.named_parameters(), *small.named_buffers()))
    for name, tensor in tensors.items():
        if any(part in name for part in KEPT):
            assert torch.equal(tensor, original[name]), name
            assert tensor.dtype is original[name].dtype, name
        else:
            assert tensor.dtype is torch.bfloat16, name
    assert half.to("meta").local_frequencies.device.type == "meta"


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_keys_are_held_in_the_models_type_and_tails_in_float32(
    small: DeepseekV4, name_of_small: str, dtype: torch.dtype
) -> None:
    session = session_of(BUILDS[name_of_small]().to(dtype))
    session.read(IDS.numpy())
    for name, tensor in session.state({}).tensors.items():
        wide = "tail" in name or name == "last"
        if tensor.is_floating_point():
            assert tensor.dtype is (torch.float32 if wide else dtype), name


@pytest.mark.parametrize(
    ("name", "expected"), [("nano-v4", "3bd9e7b21e22d6da"), ("nano-dense", "73e3702e3169941a")]
)
def test_fingerprints_of_the_committed_checkpoints(name: str, expected: str) -> None:
    """Rows in results/ name these: a change would orphan them."""
    model = load_model(name)
    assert model.describe()["weights_fingerprint"] == expected


def test_fingerprints_tell_types_apart() -> None:
    model = BUILDS["top 3"]()
    found = {fingerprint(model.to(d), GATHERED) for d in (torch.float32, *HALF)}
    assert len(found) == 3
