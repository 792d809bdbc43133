"""What is written, as transformers loads it: the same logits as here."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers.models.deepseek_v4", reason="an older transformers")

from transformers import AutoModelForCausalLM, FineGrainedFP8Config

from models.deepseek_v4.config import CSA, SLIDING
from models.deepseek_v4.layouts.folders import load_folder_into
from models.deepseek_v4.layouts.writing import write_official, write_transformers
from models.deepseek_v4.loading import load_folder
from models.deepseek_v4.model import DeepseekV4
from models.errors import ModelError
from tests.models.small import REAL, full_logits, random_ids, randomized, relative_difference

IDS = random_ids(400)


@pytest.fixture(scope="module")
def model() -> DeepseekV4:
    return randomized(DeepseekV4(REAL), seed=6)


def theirs(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize(
    ("write", "precision"),
    [
        (write_transformers, "float32"),
        (write_transformers, "bfloat16"),
        (write_official, "float32"),
        (write_official, "bfloat16"),
    ],
)
def test_transformers_loads_it_and_agrees(
    model: DeepseekV4, write: Callable[..., None], precision: str, tmp_path: Path
) -> None:
    write(model, tmp_path, precision)
    (tmp_path / "model.json").write_text('{"tokenizer_name": "bundled-bpe-2048"}')
    ours = load_folder("path:", tmp_path, {}).network
    loaded = theirs(tmp_path)
    with torch.no_grad():
        logits = loaded(IDS[None]).logits[0]
    assert relative_difference(logits, full_logits(ours, IDS)) < 1e-5
    assert loaded.generation_config.eos_token_id is None


@pytest.mark.parametrize("precision", ["fp8", "fp4"])
def test_transformers_reads_the_same_numbers_out_of_quantised_weights(
    precision: str, tmp_path: Path
) -> None:
    """Whole blocks only: its FP8 takes no others. It dequantises to bfloat16, which holds them."""
    widths = {"hidden_size": 128, "q_lora_rank": 128, "moe_intermediate_size": 128}
    heads = {"head_dim": 64, "num_attention_heads": 4, "o_lora_rank": 64, "index_head_dim": 32}
    model = randomized(DeepseekV4(replace(REAL, **widths, **heads)), seed=4)
    write_official(model, tmp_path, precision)
    again = DeepseekV4(model.config)
    load_folder_into(again, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = AutoModelForCausalLM.from_pretrained(
            tmp_path,
            dtype=torch.bfloat16,
            quantization_config=FineGrainedFP8Config(dequantize=True),
        )
    read = loaded.state_dict()
    assert set(read) == set(again.state_dict())
    different = [
        n for n, t in again.state_dict().items() if not torch.equal(read[n].float(), t.float())
    ]
    assert not different


def test_files_can_be_read_by_whoever_may_read_the_folder(
    model: DeepseekV4, tmp_path: Path
) -> None:
    write_transformers(model, tmp_path)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_what_cannot_be_written() -> None:
    narrow = replace(REAL, layer_types=(SLIDING, CSA), moe_intermediate_size=24)
    model = randomized(DeepseekV4(narrow), seed=1)
    with pytest.raises(ModelError, match=r"^moe_intermediate_size: got 24, expected a multiple of"):
        write_official(model, Path("/nowhere"), "fp4")
    with pytest.raises(ModelError, match=r"^precision: got 'fp8', expected one of float32, bfloat"):
        write_transformers(model, Path("/nowhere"), "fp8")
    tempered = DeepseekV4(replace(REAL, log_length_base=128))
    with pytest.raises(ModelError, match=r"^log_length_base: got 128, expected null"):
        write_transformers(tempered, Path("/nowhere"))


def test_the_official_file_names_what_engines_look_for(model: DeepseekV4, tmp_path: Path) -> None:
    write_official(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["compress_ratios"] == [0, 4, 128, 4]
    expected = {"topk_method": "noaux_tc", "expert_dtype": "bf16", "num_hash_layers": 1}
    assert {name: config[name] for name in expected} == expected
    assert (config["eos_token_id"], config["num_nextn_predict_layers"]) == (None, 0)
