"""Tiny random models of many architectures of transformers, and what the adapter makes of each.

`python -m tests.models.architectures` prints the table of docs/models.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import AutoConfig, AutoModelForCausalLM

from models.transformers_models.loading import HuggingFaceModel, Weights, checked, in_memory
from models.transformers_models.session import HuggingFaceSession
from tests.models.small import random_ids, relative_difference
from tests.sessions import greedy_ids

TINY: Mapping[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "sliding_window": 16,
    "attention_chunk_size": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    # experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "expert_ffn_hidden_size": 16,
    "intermediate_size_mlp": 48,
    # latent attention and indexers
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "index_n_heads": 16,  # with few heads many scores are exactly 0, and ties decide nothing
    "index_head_dim": 8,
    "index_topk": 8,
    # linear attention, state spaces, convolutions
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_expand": 2,
    "mamba_n_groups": 1,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "mamba_dt_rank": 4,
    "mamba_chunk_size": 16,
    "time_step_rank": 4,
    "state_size": 8,
    "ssm_state_size": 8,
    "num_heads": 8,
    "n_groups": 1,
    "chunk_size": 16,
    "lru_width": 32,
    "attention_hidden_size": 32,
    # older names
    "n_embd": 32,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 512,
    "n_inner": 48,
    "d_model": 32,
    "n_heads": 4,
    "n_layers": 4,
    "num_layers": 4,
    "ffn_dim": 48,
    "ffn_hidden_size": 48,
    "word_embed_proj_dim": 32,
    "rotary_dim": 8,
    "kv_channels": 8,
    # Gemma
    "query_pre_attn_scalar": 8,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 97,
    "laurel_rank": 4,
    "altup_num_inputs": 2,
}
"""Sizes by the names that configurations use; a model takes those that it knows."""

LATENT = {"num_key_value_heads": 4}
ALTERNATING = ["linear_attention", "full_attention"] * 2
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 2.0, 4.0, 8.0],
    "original_max_position_embeddings": 24,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 24,
}


class Architecture(NamedTuple):
    """A model type of transformers with what its tiny configuration needs besides `TINY`."""

    model_type: str
    fields: Mapping[str, Any] = {}
    note: str = ""  # what this row tries

    @property
    def label(self) -> str:
        return f"{self.model_type} {self.note}".strip()


PLAIN = """
afmoe apertus arcee aria_text beam biogpt bitnet bloom codegen cohere cohere2
cohere2_moe cwm diffllama doge ernie4_5 ernie4_5_moe exaone4 falcon flex_olmo gemma
gemma2 glm glm4 glm4_moe gpt2 gpt_bigcode gpt_neox gpt_oss gptj granite granitemoe
helium hunyuan_v1_dense hunyuan_v1_moe jetmoe llama llama4_text mamba2 minimax_m2
ministral mistral mixtral modernbert-decoder mpt nanochat nemotron olmo olmo2 olmo3
olmoe opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3
stablelm starcoder2 vaultgemma xglm
"""

SERVED = [
    *map(Architecture, PLAIN.split()),
    Architecture("gemma3_text", {"layer_types": ["sliding_attention", "full_attention"] * 2}),
    Architecture(
        "gemma3n_text",
        {
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "num_hidden_layers": 6,
            "num_kv_shared_layers": 2,
            "activation_sparsity_pattern": [0.0] * 6,
            "intermediate_size": [48] * 6,
        },
        "shared layers",
    ),
    Architecture(
        "gemma4_text",
        {"layer_types": ["sliding_attention", "full_attention"] * 2, "global_head_dim": 8},
    ),
    Architecture("deepseek_v2", LATENT),
    Architecture("deepseek_v3", LATENT),
    Architecture("deepseek_v32", LATENT),
    Architecture("glm_moe_dsa", LATENT),
    Architecture("glm4_moe_lite", LATENT),
    Architecture("longcat_flash", LATENT),
    Architecture("minicpm3", LATENT),
    Architecture("youtu", LATENT),
    Architecture("deepseek_v4"),
    Architecture("minimax_m3_vl_text"),
    Architecture("qwen3_next", {"layer_types": ALTERNATING}),
    Architecture("qwen3_5_text", {"layer_types": ALTERNATING}),
    Architecture("qwen3_5_moe_text", {"layer_types": ALTERNATING}),
    Architecture("olmo_hybrid", {"layer_types": ALTERNATING}),
    Architecture(
        "kimi_linear",
        {"layer_types": ALTERNATING, "linear_num_heads": 4, "linear_head_dim": 8, **LATENT},
    ),
    Architecture("lfm2", {"layer_types": ["conv", "full_attention"] * 2}),
    Architecture(
        "lfm2_moe", {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1}
    ),
    Architecture("bamba", {"attn_layer_indices": [1, 3]}),
    Architecture("granitemoehybrid", {"layer_types": ["mamba", "attention"] * 2}),
    Architecture("nemotron_h"),
    Architecture("falcon_h1", {"mamba_d_ssm": 64}),
    Architecture(
        "zamba2",
        {
            "layers_block_type": ["linear_attention", "hybrid"] * 2,
            "attention_hidden_size": 64,
            "head_dim": 16,
        },
    ),
    Architecture("phi3", {"rope_parameters": LONGROPE}, "LongRoPE"),
    Architecture("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 24}, "NTK"),
    Architecture("llama", {"rope_parameters": YARN, "max_position_embeddings": 24}, "YaRN"),
]
"""Those that must pass."""

STEPWISE = [
    Architecture("jamba", {"attn_layer_period": 2, "attn_layer_offset": 1}),
    Architecture("mamba"),
    Architecture("falcon_mamba"),
]
"""Those whose code continues a text only token by token: they pass so."""

REFUSED = [
    Architecture("bert"),
    Architecture("minimax"),
    Architecture("openai-gpt"),
    Architecture("recurrent_gemma"),
    Architecture("rwkv"),
    Architecture("xlnet"),
]
"""Those that must be refused at load."""

IDS = random_ids(60)
OTHER = random_ids(30, seed=5)


def build(architecture: Architecture) -> Any:
    """The tiny model, every weight matrix at random."""
    default = AutoConfig.for_model(architecture.model_type)
    known = {*inspect.signature(type(default).__init__).parameters, *vars(default)}
    fields = {name: value for name, value in TINY.items() if name in known}
    config = type(default)(**{**fields, **architecture.fields})
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config).float().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim >= 2:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
    module.generation_config.eos_token_id = None  # answers of a fixed length
    module.config.get_text_config(decoder=True).eos_token_id = None
    return module


class Result(NamedTuple):
    """What the adapter and the model itself say; differences are shares of the largest logit."""

    split: float  # in pieces against whole
    cached: float  # whole through the cache against a pass without
    forked: float  # a fork, and its parent after it, against sessions of their own
    held: Mapping[str, int]
    reachable: int  # bytes of all storages that the cache leads to
    generated: Sequence[int]
    expected: Sequence[int]
    forks: str


@torch.no_grad()
def examine(weights: Weights) -> Result:
    """Read, fork and answer."""
    network = weights.network
    module = network.module
    plain = module(input_ids=IDS[None], use_cache=False).logits[0]
    whole = HuggingFaceSession(network).score(IDS.numpy())
    session = HuggingFaceSession(network)
    pieces = torch.cat([session.score(part.numpy()) for part in IDS.split([7, 30, *[1] * 5, 18])])
    parent = HuggingFaceSession(network)
    parent.read(IDS[:30].numpy())
    child = parent.fork()
    child_logits, parent_logits = child.score(OTHER.numpy()), parent.score(IDS[30:].numpy())
    alone = HuggingFaceSession(network).score(torch.cat((IDS[:30], OTHER)).numpy())[30:]
    held = session.usage().cache_bytes
    assert held is not None
    return Result(
        relative_difference(pieces, whole),
        relative_difference(whole, plain),
        max(
            relative_difference(child_logits, alone), relative_difference(parent_logits, whole[30:])
        ),
        held,
        reachable_bytes(session.cache),
        greedy_ids(session, 6),
        generated(module, IDS, 6),
        HuggingFaceModel("tiny", weights).forks,
    )


def generated(module: Any, ids: Tensor, count: int) -> list[int]:
    """transformers' own greedy decoding."""
    found = module.generate(
        ids[None],
        attention_mask=torch.ones_like(ids)[None],
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
    )
    numbers: list[int] = found[0, len(ids) :].tolist()
    return numbers


def reachable_bytes(root: object) -> int:
    """Bytes of the distinct storages that an object leads to, numbers left out."""
    storages = {}
    for tensor in _reachable(root, set()):
        if tensor.ndim or tensor.is_floating_point():
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _reachable(value: Any, seen: set[int]) -> Iterator[Tensor]:
    if id(value) in seen or isinstance(value, type):
        return
    seen.add(id(value))
    if isinstance(value, Tensor) and not is_traceable_wrapper_subclass(value):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _reachable(part, seen)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _reachable(part, seen)
    elif hasattr(value, "__dict__"):
        yield from _reachable(vars(value), seen)


def load(architecture: Architecture) -> Weights:
    """The tiny model as `hf:` would load it, checked."""
    return checked(in_memory(build(architecture)))


def main() -> None:
    """Print the table."""
    print("| Architecture | Cache | Forks | In pieces | Forked | Read |\n|---|---|---|---|---|---|")
    for architecture in sorted((*SERVED, *STEPWISE), key=lambda a: a.label):
        weights = load(architecture)
        result = examine(weights)
        kinds = ", ".join(kind for kind in result.held if kind != "reserve")
        read = "token by token" if weights.network.stepwise else "in chunks"
        print(
            f"| {architecture.label} | {kinds} | {result.forks} | {result.split:.0e} "
            f"| {result.forked:.0e} | {read} |"
        )
    print("\n| Architecture | Refused, because it |\n|---|---|")
    for architecture in REFUSED:
        print(f"| {architecture.label} | {load(architecture).fault} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
