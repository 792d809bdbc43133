"""Folders in the published layouts, read: what is written is what is read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.deepseek_v4.config import CSA, HCA, V4_FLASH, V4_PRO, DeepseekV4Config
from models.deepseek_v4.layouts.folders import find_parts, load_folder_into, shapes_of
from models.deepseek_v4.layouts.headers import Stored, read_headers
from models.deepseek_v4.layouts.writing import write_official, write_transformers
from models.deepseek_v4.loading import build, load_folder
from models.deepseek_v4.model import DeepseekV4
from models.errors import ModelError
from models.registry import load_model
from tests.models.small import REAL, full_logits, random_ids, randomized, relative_difference

BLOCKS = replace(REAL, hidden_size=160, q_lora_rank=32, moe_intermediate_size=64)
"""More than one block of 128 in a matrix, the last one not whole; rows of whole 32s."""
IDS = random_ids(150)
INDEX = Path("index")


@pytest.fixture(scope="module")
def model() -> DeepseekV4:
    return randomized(DeepseekV4(BLOCKS), seed=4)


def read(folder: Path) -> DeepseekV4:
    (folder / "model.json").write_text('{"tokenizer_name": "bundled-bpe-2048"}')
    return load_folder("path:", folder, {}).network


def largest_rounding(before: DeepseekV4, after: DeepseekV4) -> dict[str, float]:
    """The largest difference of each tensor, over its largest number."""
    changed = after.state_dict()
    return {
        name: float((tensor - changed[name]).abs().max() / tensor.abs().max().clamp(min=1e-9))
        for name, tensor in before.state_dict().items()
    }


@pytest.mark.parametrize("write", [write_transformers, write_official])
def test_float32_comes_back_bit_for_bit(
    model: DeepseekV4, write: Callable[..., None], tmp_path: Path
) -> None:
    write(model, tmp_path, "float32")
    again = read(tmp_path)
    assert again.config == model.config
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in model.state_dict().items())
    assert torch.equal(full_logits(again, IDS), full_logits(model, IDS))


@pytest.mark.parametrize("write", [write_transformers, write_official])
def test_bfloat16_rounds_matrices_alone(
    model: DeepseekV4, write: Callable[..., None], tmp_path: Path
) -> None:
    write(model, tmp_path, "bfloat16")
    kinds = {stored.dtype for stored in read_headers(tmp_path).values()}
    assert kinds == {"BF16", "F32", "I64"}
    rounding = largest_rounding(model, read(tmp_path))
    assert 2**-12 < max(rounding.values()) <= 2**-8
    kept = [name for name in rounding if "norm" in name or "_hc." in name or "sinks" in name]
    assert len(kept) > 20
    assert not any(rounding[name] for name in kept)


@pytest.mark.parametrize(("precision", "of_experts"), [("fp8", 2**-4), ("fp4", 1 / 4)])
def test_quantised_weights_are_within_their_formats_rounding(
    model: DeepseekV4, precision: str, of_experts: float, tmp_path: Path
) -> None:
    """e4m3 has three bits behind the point; e2m1's widest gap, 4 to 6, is a third of its top,
    and a scale may be twice what would do."""
    write_official(model, tmp_path, precision)
    stored = read_headers(tmp_path)
    kinds = {"fp8": "F8_E4M3", "fp4": "I8"}
    assert stored["layers.1.ffn.experts.1.w1.weight"].dtype == kinds[precision]
    assert stored["layers.1.ffn.experts.1.w1.scale"].dtype == "F8_E8M0"
    assert stored["layers.1.attn.wq_b.weight"].dtype == "F8_E4M3"
    assert stored["layers.1.attn.compressor.wkv.weight"].dtype == "BF16"
    rounding = largest_rounding(model, read(tmp_path))
    for name, lost in rounding.items():
        if "mlp.experts" in name:
            assert of_experts / 8 < lost <= of_experts, name
        elif "q_b_proj" in name or "o_a_proj" in name or "shared_experts" in name:
            assert 2**-8 < lost <= 2**-4, name
        else:
            assert lost <= 2**-4, name
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["expert_dtype"] == precision
    assert config["quantization_config"]["weight_block_size"] == [128, 128]


def test_what_was_quantised_once_is_read_again_as_it_was(model: DeepseekV4, tmp_path: Path) -> None:
    write_official(model, tmp_path / "a", "fp4")
    once = read(tmp_path / "a")
    write_official(once, tmp_path / "b", "fp4")
    assert not any(largest_rounding(once, read(tmp_path / "b")).values())


@pytest.mark.parametrize(
    "options", [{}, {"save_original_format": False}, {"max_shard_size": "20KB"}]
)
def test_what_transformers_saves(options: Mapping[str, object], tmp_path: Path) -> None:
    """Its own names, those that it writes unless told otherwise, and shards."""
    pytest.importorskip("transformers.models.deepseek_v4")
    from tests.models.oracle import SPEC, oracle

    theirs = oracle(SPEC, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(tmp_path, **options)
    assert (tmp_path / "model.safetensors.index.json").exists() == ("max_shard_size" in options)
    ours = read(tmp_path)
    with torch.no_grad():
        expected = theirs(IDS[None] % SPEC.vocab_size).logits[0]
    assert relative_difference(full_logits(ours, IDS % SPEC.vocab_size), expected) < 1e-5


def test_draft_layers_are_left_out(model: DeepseekV4, tmp_path: Path) -> None:
    write_official(model, tmp_path, "float32")
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), "mtp.0.enorm.weight": torch.ones(3)}, path)
    assert torch.equal(full_logits(read(tmp_path), IDS), full_logits(model, IDS))


def test_a_folder_without_a_card_has_its_own_tokenizer(model: DeepseekV4, tmp_path: Path) -> None:
    write_transformers(model, tmp_path, eos_ids=[5])
    with pytest.raises(ModelError, match=r"model.json is missing: .*; so is tokenizer.json$"):
        load_model(f"path:{tmp_path}")
    (tmp_path / "tokenizer.json").write_text("{}")
    loaded = load_model(f"path:{tmp_path}")
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.name == f"hf:{tmp_path}"
    assert loaded.fingerprint.endswith("-eos5")


def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


KEY = "layers.1.attn.wq_b"
DAMAGE: list[tuple[Callable[[dict[str, Tensor]], object], str]] = [
    (lambda t: t.pop("norm.weight"), r"model.norm.weight is missing$"),
    (lambda t: t.pop(f"{KEY}.weight"), rf"{KEY}.weight is missing$"),
    (lambda t: t.update({"extra.weight": torch.ones(1)}), r"extra.weight is no tensor of DeepSeek"),
    (
        lambda t: t.update({"layers.9.attn_norm.weight": torch.ones(1)}),
        r"layers.9.attn_norm.weight is no tensor of this configuration$",
    ),
    (
        lambda t: t.update({"layers.0.ffn.experts.2.w2.weight": torch.ones(1)}),
        r"experts.2.w2.weight is one expert more than the 2 of config.json$",
    ),
    (lambda t: t.update({"norm.weight": torch.ones(3)}), r"norm.weight has shape \[3\], expected"),
    (lambda t: t.pop(f"{KEY}.scale"), rf"{KEY}.weight is of type F8_E4M3 and has no scales$"),
    (
        lambda t: t.update({f"{KEY}.scale": t[f"{KEY}.scale"][:, :0]}),
        rf"{KEY}.scale has shape \[1, 0\], expected \[1, 1\]$",
    ),
    (
        lambda t: t.update({f"{KEY}.weight": t[f"{KEY}.weight"].float()}),
        rf"{KEY}.weight has scales and is of type F32, expected FP8 or FP4$",
    ),
]


@pytest.mark.parametrize(("edit", "message"), DAMAGE)
def test_weights_that_do_not_fit(
    model: DeepseekV4,
    edit: Callable[[dict[str, Tensor]], object],
    message: str,
    tmp_path: Path,
) -> None:
    write_official(model, tmp_path, "fp8")
    change(tmp_path, edit)
    with pytest.raises(ModelError, match=rf"^model: weights do not fit .*config.json: .*{message}"):
        load_folder_into(DeepseekV4(BLOCKS), tmp_path)


def test_files_that_are_not_whole(model: DeepseekV4, tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(ModelError, match=message) as caught:
            load_folder_into(DeepseekV4(BLOCKS), tmp_path)
        assert "\n" not in str(caught.value)

    write_transformers(model, tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "none.safetensors"}}))
    refused(r"none.safetensors cannot be read: No such file")
    index.write_text(json.dumps({"weight_map": {"absent": "model.safetensors"}}))
    refused(r"model.safetensors does not hold absent, as model.safetensors.index.json says$")
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../model.safetensors"}}))
    refused(r"index.json is no index of safetensors: a shard's name is '../model.safetensors'")
    index.write_text("{}")
    refused(r"index.json is no index of safetensors: 'weight_map'$")
    index.unlink()
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 9)
    refused(r"model.safetensors cannot be read: its header would take")
    (tmp_path / "model.safetensors").write_bytes(whole[:-4])
    refused(r"model.safetensors cannot be read: ")


def official_listing(config: DeepseekV4Config) -> dict[str, Stored]:
    """An official checkpoint's names and shapes as the specification states them, in its types."""
    d, h, c, r = (
        config.hidden_size,
        config.num_attention_heads,
        config.head_dim,
        config.q_lora_rank,
    )
    g, o, ci, hi = config.o_groups, config.o_lora_rank, config.index_head_dim, config.index_n_heads
    inner, experts = config.moe_intermediate_size, config.n_routed_experts
    found: dict[str, Stored] = {}

    def plain(name: str, *shape: int, dtype: str = "BF16") -> None:
        found[name] = Stored(INDEX, shape, dtype)

    def fp8(name: str, rows: int, columns: int) -> None:
        plain(f"{name}.weight", rows, columns, dtype="F8_E4M3")
        plain(f"{name}.scale", -(-rows // 128), -(-columns // 128), dtype="F8_E8M0")

    def fp4(name: str, rows: int, columns: int) -> None:
        plain(f"{name}.weight", rows, columns // 2, dtype="I8")
        plain(f"{name}.scale", rows, columns // 32, dtype="F8_E8M0")

    def compressor(name: str, width: int, entry: int, ratio: int) -> None:
        for part in ("wkv", "wgate"):
            plain(f"{name}.{part}.weight", width, d)
        plain(f"{name}.norm.weight", entry)
        plain(f"{name}.ape", ratio, width, dtype="F32")

    for name in ("embed", "head"):
        plain(f"{name}.weight", config.vocab_size, d)
    plain("norm.weight", d)
    for part, shape in (("fn", (4, 4 * d)), ("base", (4,)), ("scale", (1,))):
        plain(f"hc_head_{part}", *shape, dtype="F32")
    for i, kind in enumerate(config.layer_types):
        layer = f"layers.{i}"
        for of in ("attn", "ffn"):
            plain(f"{layer}.{of}_norm.weight", d)
            for part, shape in (("fn", (24, 4 * d)), ("base", (24,)), ("scale", (3,))):
                plain(f"{layer}.hc_{of}_{part}", *shape, dtype="F32")
        fp8(f"{layer}.attn.wq_a", r, d)
        plain(f"{layer}.attn.q_norm.weight", r)
        fp8(f"{layer}.attn.wq_b", h * c, r)
        fp8(f"{layer}.attn.wkv", c, d)
        plain(f"{layer}.attn.kv_norm.weight", c)
        fp8(f"{layer}.attn.wo_a", g * o, h * c // g)
        fp8(f"{layer}.attn.wo_b", d, g * o)
        plain(f"{layer}.attn.attn_sink", h, dtype="F32")
        if kind == CSA:
            compressor(f"{layer}.attn.compressor", 2 * c, c, 4)
            compressor(f"{layer}.attn.indexer.compressor", 2 * ci, ci, 4)
            fp8(f"{layer}.attn.indexer.wq_b", hi * ci, r)
            plain(f"{layer}.attn.indexer.weights_proj.weight", hi, d)
        if kind == HCA:
            compressor(f"{layer}.attn.compressor", c, c, 128)
        plain(f"{layer}.ffn.gate.weight", experts, d)
        if i < 3:
            plain(f"{layer}.ffn.gate.tid2eid", config.vocab_size, 6, dtype="I32")
        else:
            plain(f"{layer}.ffn.gate.bias", experts, dtype="F32")
        for w, (rows, columns) in {"w1": (inner, d), "w3": (inner, d), "w2": (d, inner)}.items():
            fp8(f"{layer}.ffn.shared_experts.{w}", rows, columns)
            for e in range(experts):
                fp4(f"{layer}.ffn.experts.{e}.{w}", rows, columns)
    plain("mtp.0.e_proj.weight", d, d)
    return found


def numbers(stored: Mapping[str, Stored]) -> float:
    """Trained numbers, in billions: scales, tables and draft layers are none of them."""
    total = 0
    for name, entry in stored.items():
        if not name.endswith((".scale", "tid2eid")) and not name.startswith("mtp."):
            size = 1
            for n in entry.shape:
                size *= n
            total += size * (2 if entry.dtype == "I8" else 1)
    return total / 1e9


@pytest.mark.parametrize(("config", "billions"), [(V4_FLASH, 284.3), (V4_PRO, 1573.0)])
def test_presets_fit_an_index_of_their_shapes(config: DeepseekV4Config, billions: float) -> None:
    """The report's totals, with no weight there."""
    with torch.device("meta"):
        shapes = shapes_of(build(config))
    listing = official_listing(config)
    assert numbers(listing) == pytest.approx(billions, rel=1e-3)
    parts = find_parts(listing, shapes, INDEX)
    assert {part.place.name for part in parts} == set(shapes)


def test_an_expert_that_is_missing() -> None:
    with torch.device("meta"):
        shapes = shapes_of(build(REAL))
    listing = {name: Stored(INDEX, shape, "F32") for name, shape in shapes.items()}
    experts = "model.layers.2.mlp.experts.down_proj"
    listing.pop(experts)
    listing["layers.2.ffn.experts.1.w2.weight"] = Stored(INDEX, shapes[experts][1:], "F32")
    with pytest.raises(ModelError, match=r"down_proj \(its experts but 1 matrices\) is missing$"):
        find_parts(listing, shapes, INDEX)
