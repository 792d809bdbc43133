"""Engines load what was exported: llama.cpp's own DeepSeek-V4, and transformers' server."""

from __future__ import annotations

from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml

from haystacks.tokenizer import load_tokenizer
from models.deepseek_v4 import weights
from models.deepseek_v4.checkpoint_files import Card, write_card
from models.deepseek_v4.config import CSA, HCA, SLIDING, DeepseekV4Config
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from models.protocols import Decoding, Piece
from models.registry import load_model
from niah.execution.sweeps import run_sweep
from niah.interchange.export import export_model
from niah.interchange.golden import agrees, check, read_golden
from tests.models.servers.real_servers import llama_server, transformers_server
from tests.models.small import random_ids
from tests.niah.rows import row_dicts

pytestmark = pytest.mark.slow
CONFIGS = Path(__file__).parents[3] / "configs"
CACHES = {"18101": "f16", "18102": "q8_0", "18103": "q4_0"}  # by the port in that file

V4_WIDTHS = DeepseekV4Config(
    vocab_size=2048,
    hidden_size=128,
    layer_types=(SLIDING, SLIDING, CSA, HCA, CSA),
    num_attention_heads=2,
    q_lora_rank=64,
    o_groups=2,
    o_lora_rank=32,
    n_routed_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    routed_scaling_factor=1.5,
    index_n_heads=4,
    index_topk=512,
    num_hash_layers=1,
)


def random_model() -> DeepseekV4:
    """As training begins, and no number left at 0 or 1."""
    model = DeepseekV4(V4_WIDTHS)
    weights.initialize(model, seed=1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.ndim == 1 or "position_bias" in name:
                if tensor.is_floating_point() and "frequencies" not in name:
                    tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
            elif "_hc." in name or "hc_head" in name:
                tensor.add_(0.02 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def require_llama_cpp() -> None:
    """Skips the test where llama.cpp is not installed."""
    for package in ("xllamacpp", "gguf"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: make install")


def test_llama_cpp_agrees_with_the_model_here(tmp_path: Path) -> None:
    """The bar is 0.005; without sinks, or without position biases, it would differ by more."""
    require_llama_cpp()
    model = random_model()
    weights.save(model, tmp_path / "ours")
    write_card(tmp_path / "ours", Card("bundled-bpe-2048"))
    file = export_model(f"path:{tmp_path / 'ours'}", "gguf", tmp_path / "theirs", golden=257)
    text = "The code is 48213; it's naïve — ünï 漢字\n\n\t don't  x"
    with llama_server(file, "f16") as url:
        base = url.removesuffix("/v1")

        def asked(path: str, **body: object) -> dict[str, object]:
            answer = httpx.post(f"{base}/{path}", json=body, timeout=120)
            assert answer.status_code == 200, answer.text
            found: dict[str, object] = answer.json()
            return found

        assert asked("tokenize", content=text)["tokens"] == load_tokenizer(
            "bundled-bpe-2048"
        ).encode(text)
        for count in (5, 130, 300, 700):
            ids = random_ids(count, seed=count, vocab_size=2048).tolist()
            session = DeepseekV4Session(model)
            session.read(ids)
            expected = session.next_logits().log_softmax(-1)
            reply = asked(
                "completion", prompt=ids, n_predict=1, n_probs=10, cache_prompt=False, temperature=0
            )
            top = reply["completion_probabilities"][0]["top_logprobs"]  # type: ignore[index]
            assert len(top) == 10
            for entry in top:
                assert entry["logprob"] == pytest.approx(float(expected[entry["id"]]), abs=0.002)
        served = load_model("openai:any", {"base_url": url, "tokenizer": "bundled-bpe-2048"})
        findings = list(check(served, read_golden(file.parent / "golden.json"), 0.002))
        assert len(findings) == 11
        assert all(agrees(finding, 0.002) for finding in findings)


def asked(name: str, folder: Path, instead: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The rows by arm and pair of a conformance sweep with fewer and shorter questions.

    `instead`: addresses and folders of the test by those in the configuration.
    """
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    for written, meant in instead.items():
        text = text.replace(written, meant)
    sweep = yaml.safe_load(text)
    sweep |= {"lengths": 384, "depths": [0.4], "repeats": 1, "chunk_tokens": 150}
    sweep["decoding"] = {"max_new_tokens": 8}
    sweep["needle_phase"]["residues"] = [116]
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
    run_sweep(folder / "sweep.yaml", folder / "run")
    rows: dict[str, dict[str, Any]] = {}
    for row in row_dicts(folder / "run"):
        assert row["error"] is None
        rows.setdefault(row["arm"], {})[row["pair"]] = row
    here = rows["in-process"]
    assert {row["length"] % 128 for row in here.values()} == {0, 1, 2, 127}
    assert all(served.keys() == here.keys() for served in rows.values())
    return rows


def test_the_trained_checkpoint_recalls_through_llama_cpp(tmp_path: Path) -> None:
    """Right answers and their probabilities are those of the same weights here."""
    require_llama_cpp()
    file = export_model("nano-v4-engine", "gguf", tmp_path / "engine")
    with ExitStack() as servers:
        instead = {}
        for port, cache in CACHES.items():
            url = servers.enter_context(llama_server(file, cache, slots=8))
            instead[f"http://127.0.0.1:{port}/v1"] = url
        rows = asked("conformance-llamacpp", tmp_path, instead)
    here = rows.pop("in-process")
    assert sum(row["correct"] for row in here.values()) >= 3, "of four questions"
    off = {}
    for arm, served in rows.items():
        assert all(row["server_prompt_tokens"] == row["length"] for row in served.values())
        off[arm] = max(
            abs(row["gold_logprob"] - here[pair]["gold_logprob"]) for pair, row in served.items()
        )
        if arm not in ("q8_0", "q4_0"):
            assert off[arm] < 0.005
            assert all(row["answer"] == here[pair]["answer"] for pair, row in served.items())
    assert off["cold"] < off["q8_0"] < off["q4_0"] < 0.5, "each cache is in use"


def test_transformers_serve_answers_as_the_model_here(tmp_path: Path) -> None:
    pytest.importorskip("transformers.models.deepseek_v4", reason="an older transformers")
    folder = export_model("nano-v4", "transformers", tmp_path / "model")
    tokenizer = load_tokenizer("bundled-bpe-2048")
    prompt = (
        "The special magic number for brave otter is 48213. The grass is green. "
        * 3
        + "What is the special magic number for brave otter? "
        "The special magic number for brave otter is"
    )
    session = load_model(f"path:{folder}").session()
    session.extend(Piece(tokenizer.encode(prompt), tokenizer.decode))
    expected = session.generate(Decoding(8, tokenizer.decode))
    with transformers_server(folder) as url:
        body = {"model": str(folder), "prompt": prompt, "max_tokens": 8, "temperature": 0}
        answer = httpx.post(f"{url}/completions", json=body, timeout=120).json()
        instead = {"http://127.0.0.1:18100/v1": url, "runs/export/nano-v4": str(folder)}
        rows = asked("conformance-server", tmp_path, instead)
    assert answer["choices"][0]["text"] == expected.text
    assert answer["usage"]["prompt_tokens"] == len(tokenizer.encode(prompt))
    assert "48213" in expected.text
    here = rows.pop("in-process")
    for served in rows.values():
        as_planned = [
            p for p, row in served.items() if row["server_prompt_tokens"] == row["length"]
        ]
        assert as_planned, "no text was encoded as it was planned"
        assert all(served[pair]["answer"] == here[pair]["answer"] for pair in as_planned)
