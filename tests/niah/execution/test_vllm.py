"""A tiny sweep through vLLM on the CPU, which `make servers` installs; left out elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from haystacks.tokenizer import BUNDLED_FILE, BUNDLED_NAME, load_tokenizer
from models.registry import load_model
from tests.models.servers.real_servers import vllm_server
from tests.niah.execution.test_real_servers import arm, asked

pytestmark = pytest.mark.slow


def saved_model(folder: Path) -> Path:
    """A random Llama in float32 that reads the bundled tokenizer's ids."""
    transformers = pytest.importorskip("transformers")
    from tests.models.transformers_models.tiny import tiny_llama

    shape: dict[str, Any] = {
        "vocab_size": 2048,
        "hidden_size": 128,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
    }
    tiny_llama(**shape).save_pretrained(folder)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(BUNDLED_FILE))
    fast.save_pretrained(folder)
    return folder


def test_vllm_answers_as_transformers_in_process(tmp_path: Path) -> None:
    folder = saved_model(tmp_path / "tiny")
    with vllm_server(folder) as url:
        served: dict[str, Any] = {"base_url": url, "tokenizer": f"hf:{folder}"}
        cold = served | {"prefix": "cold", "gold_logprob": True}
        rows = asked(
            tmp_path,
            [
                arm("local", "baseline", f"hf:{folder}", device="cpu"),
                arm("cold", "compressed", "openai:tiny", **cold),
                arm("warm", "compressed", "openai:tiny", prefix="warm", **served),
                arm("after", "compressed", "openai:tiny", **served)
                | {"session": {"question_before": True, "sibling_tokens": 130}},
                arm("four", "compressed", "openai:tiny", concurrency=4, **served),
            ],
            depths=4,
        )
        own = load_model("openai:tiny", {"base_url": url, "tokenizer": "server"})
        tokenizer = own.own_tokenizer  # type: ignore[attr-defined]
        bundled = load_tokenizer(BUNDLED_NAME)
        text = "The magic number of Oslo is 48213.\n漢字"
        assert tokenizer.encode(text) == bundled.encode(text)
        assert tokenizer.decode(bundled.encode(text)) == text
        assert tokenizer.vocab_size == bundled.vocab_size
    for name, found in rows.items():
        assert [row["error"] for row in found] == [None] * 4
        assert [row["answer_ids"] for row in found] == [r["answer_ids"] for r in rows["local"]]
        if name != "local":
            assert all(row["server_prompt_tokens"] == row["length"] for row in found)
    assert {row["cached_tokens"] for row in rows["cold"]} == {0}
    assert all(row["cached_tokens"] > 0 for row in rows["warm"] + rows["after"])
    for local, cold_row in zip(rows["local"], rows["cold"], strict=True):
        assert cold_row["gold_logprob"] == pytest.approx(local["gold_logprob"], abs=1e-3)
