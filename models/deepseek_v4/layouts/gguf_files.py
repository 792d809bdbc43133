"""Writes a model as a GGUF file for llama.cpp's architecture `deepseek4`.

Values are those of the official layout, experts stacked. llama.cpp computes V4's own widths only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from models.deepseek_v4.config import ConfigError, DeepseekV4Config
from models.deepseek_v4.layouts.configs import RATIOS, refuse_unpublished
from models.deepseek_v4.layouts.names import DOWN, GATE_UP, OFFICIAL
from models.deepseek_v4.model import DeepseekV4
from models.errors import ModelError
from models.files import replacing

if TYPE_CHECKING:
    from gguf import GGUFWriter

if TYPE_CHECKING:
    pass

ARCHITECTURE = "deepseek4"
WIDTHS = {
    "head_dim": 512,
    "qk_rope_head_dim": 64,
    "index_head_dim": 128,
    "csa_ratio": 4,
    "hca_ratio": 128,
}
"""What llama.cpp's kernels are written for."""
SQRT_SOFTPLUS = 4  # number of llama.cpp's gating function
NORMAL_TOKEN = 1
TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    **{f"model.hc_head.hc_{part}": f"output_hc_{part}.weight" for part in ("fn", "base", "scale")},
}
IN_LAYER = {
    "attn_norm.weight": "attn_norm",
    "ffn_norm.weight": "ffn_norm",
    **{
        f"hc_{of}_{part}": f"hc_{of}_{part}"
        for of in ("attn", "ffn")
        for part in ("fn", "base", "scale")
    },
    "attn.wq_a.weight": "attn_q_a",
    "attn.q_norm.weight": "attn_q_a_norm",
    "attn.wq_b.weight": "attn_q_b",
    "attn.wkv.weight": "attn_kv",
    "attn.kv_norm.weight": "attn_kv_a_norm",
    "attn.wo_a.weight": "attn_output_a",
    "attn.wo_b.weight": "attn_output_b",
    "attn.attn_sink": "attn_sinks",
    "attn.compressor.wkv.weight": "attn_compressor_kv",
    "attn.compressor.wgate.weight": "attn_compressor_gate",
    "attn.compressor.norm.weight": "attn_compressor_norm",
    "attn.compressor.ape": "attn_compressor_ape",
    "attn.indexer.compressor.wkv.weight": "indexer_compressor_kv",
    "attn.indexer.compressor.wgate.weight": "indexer_compressor_gate",
    "attn.indexer.compressor.norm.weight": "indexer_compressor_norm",
    "attn.indexer.compressor.ape": "indexer_compressor_ape",
    "attn.indexer.wq_b.weight": "indexer.attn_q_b",
    "attn.indexer.weights_proj.weight": "indexer.proj",
    "ffn.gate.weight": "ffn_gate_inp",
    "ffn.gate.bias": "exp_probs_b.bias",
    "ffn.gate.tid2eid": "ffn_gate_tid2eid",
    "ffn.shared_experts.w1.weight": "ffn_gate_shexp",
    "ffn.shared_experts.w3.weight": "ffn_up_shexp",
    "ffn.shared_experts.w2.weight": "ffn_down_shexp",
}
"""GGUF's name within a block, by the official one; `.weight` is added unless it ends in `.bias`."""


class BpeParts(NamedTuple):
    """A byte-level BPE: its tokens by id, merges as "left right", llama.cpp's name of its way to
    split a text, and an id that no text gives, which stands for BOS and end of sequence."""

    tokens: Sequence[str]
    merges: Sequence[str]
    splitting: str
    unused_id: int


def write_gguf(model: DeepseekV4, path: Path, tokenizer: BpeParts) -> None:
    """Write one file with weights (float32), configuration and tokenizer.

    Raises:
        ModelError: the model is no stock DeepSeek-V4 of V4's own widths, or the package `gguf` is
            missing.
    """
    refuse_narrow(model.config)
    try:
        import gguf
    except ImportError:
        raise ModelError("--format gguf needs gguf: in a checkout, pip install '.[gguf]'") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        writer = gguf.GGUFWriter(partial, ARCHITECTURE)
        _write_fields(writer, model.config)
        _write_tokenizer(writer, tokenizer)
        for name, tensor in model.state_dict().items():
            for stored, part in _tensors(name, tensor):
                kind = torch.float32 if part.is_floating_point() else torch.int32
                writer.add_tensor(stored, part.to(kind).contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def refuse_narrow(config: DeepseekV4Config) -> None:
    """Raises: ModelError for a model that llama.cpp does not compute."""
    try:
        refuse_unpublished(config)
    except ConfigError as error:
        raise ModelError(str(error)) from None
    for name, expected in WIDTHS.items():
        value = getattr(config, name)
        if value != expected:
            raise ModelError(
                f"{name}: got {value}, expected {expected}: llama.cpp computes DeepSeek-V4 in its "
                "own widths only, and stops at an assertion in others"
            )


def _write_fields(writer: GGUFWriter, config: DeepseekV4Config) -> None:
    layers = config.num_hidden_layers
    counts = {
        "block_count": layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.moe_intermediate_size,
        "vocab_size": config.vocab_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": 1,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.q_lora_rank": config.q_lora_rank,
        "attention.sliding_window": config.sliding_window,
        "attention.output_group_count": config.o_groups,
        "attention.output_lora_rank": config.o_lora_rank,
        "attention.indexer.head_count": config.index_n_heads,
        "attention.indexer.key_length": config.index_head_dim,
        "attention.indexer.top_k": config.index_topk,
        "rope.dimension_count": config.qk_rope_head_dim,
        "rope.scaling.original_context_length": config.yarn_original_positions,
        "expert_count": config.n_routed_experts,
        "expert_used_count": config.num_experts_per_tok,
        "expert_shared_count": config.n_shared_experts,
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_gating_func": SQRT_SOFTPLUS,
        "hash_layer_count": config.num_hash_layers,
        "hyper_connection.count": config.hc_mult,
        "hyper_connection.sinkhorn_iterations": config.hc_sinkhorn_iters,
    }
    numbers = {
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.compress_rope_freq_base": config.compress_rope_theta,
        "rope.freq_base": config.rope_theta,
        "rope.scaling.factor": config.yarn_factor,
        "rope.scaling.yarn_beta_fast": config.yarn_beta_fast,
        "rope.scaling.yarn_beta_slow": config.yarn_beta_slow,
        "expert_weights_scale": config.routed_scaling_factor,
        "hyper_connection.epsilon": config.hc_eps,
    }
    for name, count in counts.items():
        writer.add_uint32(f"{ARCHITECTURE}.{name}", count)
    for name, number in numbers.items():
        writer.add_float32(f"{ARCHITECTURE}.{name}", number)
    writer.add_string(f"{ARCHITECTURE}.rope.scaling.type", "yarn")
    writer.add_bool(f"{ARCHITECTURE}.expert_weights_norm", True)
    ratios = [RATIOS[kind] for kind in config.layer_types]
    writer.add_array(f"{ARCHITECTURE}.attention.compress_ratios", ratios)
    writer.add_array(f"{ARCHITECTURE}.swiglu_clamp_exp", [config.swiglu_limit] * layers)


def _write_tokenizer(writer: GGUFWriter, tokenizer: BpeParts) -> None:
    """llama.cpp's defaults for BOS and end of sequence are ids that texts have."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.splitting)
    writer.add_token_list(list(tokenizer.tokens))
    writer.add_token_types([NORMAL_TOKEN] * len(tokenizer.tokens))
    writer.add_token_merges(list(tokenizer.merges))
    writer.add_add_bos_token(False)
    writer.add_bos_token_id(tokenizer.unused_id)
    writer.add_eos_token_id(tokenizer.unused_id)


def _tensors(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """GGUF's names and values of a tensor of ours."""
    if name in TOP:
        return [(TOP[name], tensor)]
    _, _, number, rest = name.split(".", 3)
    if rest == GATE_UP:
        gate, up = tensor.chunk(2, dim=1)
        found = [("ffn_gate_exps", gate), ("ffn_up_exps", up)]
    elif rest == DOWN:
        found = [("ffn_down_exps", tensor)]
    else:
        found = [(IN_LAYER[OFFICIAL[rest]], tensor)]
    endings = ((stored, "" if stored.endswith(".bias") else ".weight", t) for stored, t in found)
    return [(f"blk.{number}.{stored}{ending}", t) for stored, ending, t in endings]
