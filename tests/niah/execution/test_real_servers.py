"""Tiny sweeps through real servers: llama.cpp's with two types of cache, and transformers'."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import pytest
import yaml

from haystacks.corpora import bundled
from haystacks.tokenizer import BUNDLED_FILE, Tokenizer, load_tokenizer
from models.registry import load_model
from niah.execution.sweeps import run_sweep
from tests.models.servers.real_servers import llama_server, smollm2, transformers_server
from tests.niah.rows import row_dicts

pytestmark = pytest.mark.slow
TEXT = Path(bundled.__file__).parent / "kjv.txt.xz"


def asked(folder: Path, arms: list[dict[str, Any]], **fields: Any) -> dict[str, list[Any]]:
    """The rows of a sweep by arm, in the order of their questions."""
    text = lzma.decompress(TEXT.read_bytes()).decode()[:40_000]
    (folder / "text.txt").write_text(text, encoding="utf-8")
    sweep = {
        "name": "servers",
        "arms": arms,
        "corpora": "file:text.txt",
        "families": "single_number",
        "lengths": [256],
        "depths": [0.3, 0.7],
        "max_needle_share": 0.5,
        "repeats": 1,
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep | fields), encoding="utf-8")
    run_sweep(folder / "sweep.yaml", folder / "run")
    found: dict[str, list[Any]] = {}
    for row in sorted(row_dicts(folder / "run"), key=lambda row: row["pair"]):
        found.setdefault(row["arm"], []).append(row)
    return found


def arm(name: str, role: str, model: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "role": role, "model": model, "options": options}


def test_llama_cpp_with_two_types_of_cache(tmp_path: Path) -> None:
    weights = smollm2()
    tokenizer = f"hf:{weights}"
    with llama_server(weights, "f16") as plain, llama_server(weights, "q4_0") as small:
        full = {"base_url": plain, "tokenizer": tokenizer, "declared": {"cache": "f16"}}
        decoded = arm("decoded", "compressed", "openai:smollm2", **full)
        full = full | {"gold_logprob": True}
        quantised = {"base_url": small, "tokenizer": tokenizer, "declared": {"cache": "q4_0"}}
        rows = asked(
            tmp_path,
            [
                arm("f16", "baseline", "openai:smollm2", prefix="cold", **full),
                arm("f16-warm", "compressed", "openai:smollm2", prefix="warm", **full),
                arm("q4-0", "compressed", "openai:smollm2", prefix="warm", **quantised),
                decoded | {"session": {"decode_tail": 3, "question_before": True}},
            ],
        )
    assert [len(found) for found in rows.values()] == [2, 2, 2, 2]
    for name, found in rows.items():
        for row in found:
            assert row["error"] is None
            assert row["server_prompt_tokens"] == row["length"]
            assert row["requests_in_flight"] == 1
            scored = name.startswith("f16")
            assert -20 < row["gold_logprob"] < 0 if scored else row["gold_logprob"] is None
            assert (row["cached_tokens"] == 0) == (name == "f16")
            assert row["computed_tokens"] + row["cached_tokens"] == row["length"]
            assert row["prefill_seconds"] + row["decode_seconds"] <= row["request_seconds"]
            assert (row["cold_prefill_seconds"] is not None) == (name == "f16")
            assert row["cache_bytes"] is None
            assert row["answer_ids"], "llama.cpp tells the answer's ids"
    # Not all: so small a model is of two minds, and a warm prompt is computed in other batches.
    assert any(row["outcome"] == "exact" for row in rows["f16"]), "SmolLM2 repeats a number"


def test_llama_cpp_reads_texts_as_its_tokenizers_file_says(tmp_path: Path) -> None:
    weights = smollm2()
    named = load_tokenizer(f"hf:{weights}")
    text = "The magic number of Oslo is 48213.\n\nÆther, <|im_end|> 漢字 🙂 naïve"
    with llama_server(weights, "f16") as url:
        model = load_model("openai:smollm2", {"base_url": url, "tokenizer": "server"})
        own: Tokenizer = model.own_tokenizer  # type: ignore[attr-defined]
        assert own.encode(text) == named.encode(text)
        assert own.decode(own.encode(text)) == text
        assert (own.vocab_size, own.start_ids) == (named.vocab_size, named.start_ids)
        assert own.eos_ids
        assert set(own.eos_ids) <= set(named.eos_ids)
        options = {"base_url": url, "tokenizer": "server"}
        rows = asked(tmp_path, [arm("served", "compressed", "openai:smollm2", **options)])
    assert [row["error"] for row in rows["served"]] == [None, None]
    assert all(row["server_prompt_tokens"] == row["length"] for row in rows["served"])


def test_transformers_serve_answers_as_transformers_in_process(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tests.models.transformers_models.tiny import tiny_llama

    folder = tmp_path / "tiny"
    tiny_llama(vocab_size=2048, max_position_embeddings=1024).save_pretrained(folder)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(BUNDLED_FILE))
    fast.save_pretrained(folder)
    with transformers_server(folder) as url:
        remote = {"base_url": url, "tokenizer": f"hf:{folder}", "concurrency": 2}
        rows = asked(
            tmp_path,
            [
                arm("local", "baseline", f"hf:{folder}", device="cpu"),
                arm("served", "compressed", f"openai:{folder}", **remote),
            ],
            depths=4,
        )
    assert len(rows["local"]) == len(rows["served"]) == 4
    for local, served in zip(rows["local"], rows["served"], strict=True):
        assert served["error"] is None
        assert served["answer_ids"] is served["cached_tokens"] is None
        if served["server_prompt_tokens"] == served["length"]:
            assert (served["answer"], served["finish"]) == (local["answer"], local["finish"])
    exact = [row for row in rows["served"] if row["server_prompt_tokens"] == row["length"]]
    assert exact, "no text was encoded as it was planned"
