"""`niah export-model`: the folder that an engine loads, with its tokenizer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from haystacks.tokenizer import TokenizerError, load_tokenizer
from haystacks.tokenizer_files import bpe_parts, write_tokenizer
from models.deepseek_v4 import weights
from models.deepseek_v4.checkpoint_files import Card, write_card
from models.deepseek_v4.config import HCA, SLIDING
from models.deepseek_v4.loading import LoadedModel
from models.deepseek_v4.model import DeepseekV4
from models.errors import ModelError
from models.registry import RANDOM, load_model
from niah.interchange.export import ExportError, export_model
from niah.interchange.golden import GoldenError
from tests.models.small import full_logits, random_ids, relative_difference

TEXT = "The code is 48213; it's naïve — ünï 漢字\n\n\t don't  x" + chr(0xFFFD)


def network(name: str) -> DeepseekV4:
    model = load_model(name)
    assert isinstance(model, LoadedModel)
    return model.network


@pytest.mark.parametrize("layout", ["transformers", "official"])
def test_what_is_exported_is_read_by_path(layout: str, tmp_path: Path) -> None:
    assert export_model("random-v4", layout, tmp_path, "float32") == tmp_path
    again, first = load_model(f"path:{tmp_path}"), load_model("random-v4")
    assert again.fingerprint == first.fingerprint
    assert again.tokenizer == first.tokenizer


def test_a_checkpoint_in_one_layout_is_exported_in_another(tmp_path: Path) -> None:
    export_model("random-v4", "official", tmp_path / "a", "bfloat16")
    export_model(f"path:{tmp_path / 'a'}", "transformers", tmp_path / "b", "bfloat16")
    first, second = (network(f"path:{tmp_path / name}") for name in ("a", "b"))
    assert all(torch.equal(t, second.state_dict()[n]) for n, t in first.state_dict().items())


def test_its_tokenizer_gives_our_ids(tmp_path: Path) -> None:
    auto = pytest.importorskip("transformers").AutoTokenizer
    export_model("random-v4", "transformers", tmp_path)
    ours, theirs = load_tokenizer("bundled-bpe-2048"), auto.from_pretrained(tmp_path)
    for text in (TEXT, Path(__file__).read_text(encoding="utf-8"), " ", "1234567"):
        assert theirs(text)["input_ids"] == ours.encode(text)
        assert theirs.decode(theirs(text)["input_ids"]) == text
    assert (theirs.bos_token_id, theirs.eos_token_id) == (None, None)


def test_a_tokenizer_of_transformers_is_written_again(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    write_tokenizer("bundled-bpe-2048", tmp_path / "a")
    write_tokenizer(f"hf:{tmp_path / 'a'}", tmp_path / "b")
    assert load_tokenizer(f"hf:{tmp_path / 'b'}").encode(TEXT) == load_tokenizer(
        "bundled-bpe-2048"
    ).encode(TEXT)


def test_parts_of_the_bundled_tokenizer() -> None:
    parts, tokenizer = bpe_parts("bundled-bpe-2048"), load_tokenizer("bundled-bpe-2048")
    assert len(parts.tokens) == tokenizer.vocab_size
    assert parts.tokens[tokenizer.encode("a")[0]] == "a"
    assert tokenizer.decode([parts.unused_id]) == chr(0xFFFD)  # no text gives this byte
    with pytest.raises(TokenizerError, match=r"^tokenizer: got 'hf:x', expected 'bundled-bpe"):
        bpe_parts("hf:x")


def test_a_constant_takes_the_place_of_a_growing_temperature(tmp_path: Path) -> None:
    """Logits are equal at the position where the growing one is 2, and differ before it."""
    source, at = tmp_path / "source", 399
    kinds = (SLIDING, HCA)  # one layer that has a temperature: no other position's plays a part
    model = DeepseekV4(replace(RANDOM, layer_types=kinds, log_length_base=20))
    weights.initialize(model, seed=3)
    weights.save(model, source)
    write_card(source, Card("bundled-bpe-2048"))
    with pytest.raises(ModelError, match=r"^log_length_base: got 20, expected null: .*--sharpen 2"):
        export_model(f"path:{source}", "transformers", tmp_path / "out")
    export_model(f"path:{source}", "transformers", tmp_path / "out", sharpen=2.0)
    folded = network(f"path:{tmp_path / 'out'}")
    assert folded.config.log_length_base is None
    ids = random_ids(at + 1, vocab_size=2048)
    expected, logits = full_logits(model.eval(), ids), full_logits(folded, ids)
    assert relative_difference(logits[at], expected[at]) < 1e-4
    assert relative_difference(logits[at // 2], expected[at // 2]) > 1e-3


@pytest.mark.parametrize(
    ("name", "layout", "options", "message"),
    [
        (
            "random-v4",
            "onnx",
            {},
            r"^--format: got 'onnx', expected one of transformers",
        ),
        (
            "random-v4",
            "gguf",
            {},
            r"^head_dim: got 32, expected 512: llama.cpp comp",
        ),
        ("random-dense", "transformers", {}, r"^layer_types: got full_attention, expected layers"),
        (
            "random-v4",
            "transformers",
            {"sharpen": 2.0},
            r"^--sharpen: got 2, but the check",
        ),
        (
            "random-v4",
            "transformers",
            {"sharpen": -1.0},
            r"^--sharpen: got -1, expected a",
        ),
        (
            "random-v4",
            "official",
            {"precision": "int8"},
            r"^precision: got 'int8', expected one",
        ),
        ("openai:x", "gguf", {}, r"^model: 'openai:x' has no DeepSeek-V4 configuration$"),
    ],
)
def test_what_cannot_be_exported(
    name: str, layout: str, options: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises((ExportError, ModelError), match=message):
        export_model(name, layout, tmp_path, **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_golden_vectors_that_cannot_be_made_leave_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(GoldenError, match=r"^golden: got 3, expected at least 5 tokens$"):
        export_model("random-v4", "transformers", tmp_path / "out", golden=3)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_is_not_written_into_a_run(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    with pytest.raises(ExportError, match=r"^--out: got .*, which holds a run"):
        export_model("random-v4", "transformers", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_checkpoint_is_not_written_over_itself(tmp_path: Path) -> None:
    export_model("random-v4", "transformers", tmp_path)
    with pytest.raises(ExportError, match=r"^--out: got .*, which is the checkpoint itself"):
        export_model(f"path:{tmp_path}", "official", tmp_path)
    assert "layer_types" in json.loads((tmp_path / "config.json").read_text())
