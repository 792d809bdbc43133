"""The presses beside kvpress's (github.com/NVIDIA/kvpress) on the same keys, values and queries.

Runs in an environment of its own, since kvpress 0.5.5 wants transformers below 5.3 and pandas
below 3:

    python3 -m venv kv && kv/bin/pip install kvpress==0.5.5 torch
    PYTHONPATH=. kv/bin/python tests/benchmarks/beside_kvpress.py

A tiny random Llama (grouped queries, rotary positions) reads a random text in one piece. kvpress
computes queries from the hidden states of each layer; ours are taken from what the attention
function was called with, scaled and rotated. Printed: the share of kept entries that are the same,
over all layers and KV heads. Then, for each class that the option `press` takes, how far the logits
of a question are from those after kvpress's own hook, with half of the context kept; the context is
read in pieces here, and in one piece there.
"""

from __future__ import annotations

from typing import Any

import kvpress
import torch
from kvpress import (
    ExpectedAttentionPress,
    KnormPress,
    ObservedAttentionPress,
    SnapKVPress,
    StreamingLLMPress,
    TOVAPress,
)
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from models.presses.contract import Past, kept
from models.presses.kvpress_scorers import PREFIX, served
from models.presses.observed import Call, Observed
from models.presses.options import pressing
from models.presses.rotary import Rotary
from models.transformers_models.loading import HuggingFaceModel, in_memory

PAIRS = {
    "streaming_llm": lambda ratio: StreamingLLMPress(ratio),
    "snapkv": lambda ratio: SnapKVPress(ratio),
    "knorm": lambda ratio: KnormPress(ratio),
    "expected_attention": lambda ratio: ExpectedAttentionPress(ratio),
    "tova": lambda ratio: TOVAPress(ratio),
    "h2o": lambda ratio: ObservedAttentionPress(ratio),
}
KEEPS = (0.5, 0.25, 0.1)
SEEDED = {"RandomPress": {"seed": 1}}
"""Options of classes that draw other numbers each time otherwise."""
TOKENS, PIECES = 1000, (300, 1, 1, 698)


def model_of(attention: str) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=997,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        initializer_range=0.25,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).float().eval()


class Chosen:
    """A press of kvpress that writes down what it keeps."""

    def __init__(self, press: Any, ratio: float) -> None:
        self.press, self.ratio = press, ratio
        self.rows: dict[int, Tensor] = {}
        press.compress = self.compress

    def compress(
        self, module: Any, hidden: Tensor, keys: Tensor, values: Tensor, weights: Any, kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        from kvpress.utils import compute_n_kept

        scores = self.press.score(module, hidden, keys, values, weights, kwargs)
        count = compute_n_kept(keys.shape[2], self.ratio)
        self.rows[module.layer_idx] = scores.topk(count, dim=-1).indices[0].sort(-1).values
        return keys, values


@torch.no_grad()
def theirs(name: str, keep: float, ids: Tensor) -> dict[int, Tensor]:
    """Rows [G, k] that kvpress keeps, by layer."""
    model = model_of("eager" if name == "h2o" else "sdpa")
    chosen = Chosen(PAIRS[name](1 - keep), 1 - keep)
    with chosen.press(model):
        model.model(input_ids=ids, past_key_values=DynamicCache())
    return chosen.rows


@torch.no_grad()
def ours(name: str, keep: float, ids: Tensor) -> dict[int, Tensor]:
    """Rows [G, k] that our press keeps of the keys, values and queries of the same forward pass."""
    model = model_of("sdpa")
    found = pressing({"name": name, "keep": keep})
    assert found is not None
    frequencies = model.model.rotary_emb.inv_freq
    rows = {}
    attend = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def watching(
        module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        seen = Observed(found.needs, Rotary(frequencies))
        seen.add(Call(query[0] * kwargs["scaling"], key[0], 0))
        past = Past(module.layer_idx, key[0], value[0], seen)
        rows[module.layer_idx] = kept(found.press, past)
        return attend(module, query, key, value, *args, **kwargs)

    ALL_ATTENTION_FUNCTIONS["sdpa"] = watching
    try:
        model.model(input_ids=ids, past_key_values=DynamicCache())
    finally:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = attend
    return rows


def shared(a: dict[int, Tensor], b: dict[int, Tensor]) -> float:
    """The share of entries that both keep, over all layers and KV heads."""
    same = total = 0
    for layer, rows in a.items():
        for ours_row, theirs_row in zip(rows.tolist(), b[layer].tolist(), strict=True):
            same += len(set(ours_row) & set(theirs_row))
            total += max(len(ours_row), len(theirs_row))
    return same / total


@torch.no_grad()
def hooked_logits(name: str, ids: Tensor, question: Tensor) -> Tensor:
    """Logits [S, V] of a question after kvpress's own hook has dropped half of the context."""
    model, cache = model_of("sdpa"), DynamicCache()
    press = getattr(kvpress, name)(compression_ratio=0.5, **SEEDED.get(name, {}))
    with press(model):
        model.model(input_ids=ids, past_key_values=cache)
    positions = torch.arange(TOKENS, TOKENS + question.shape[1])[None]
    logits: Tensor = model(
        input_ids=question, past_key_values=cache, position_ids=positions
    ).logits[0]
    return logits


def logits_by_option(name: str, ids: Tensor, question: Tensor) -> Tensor:
    """The same with the option `press` of an arm."""
    press = {"name": PREFIX + name, "keep": 0.5, **SEEDED.get(name, {})}
    session = HuggingFaceModel("random", in_memory(model_of("sdpa")), {"press": press}).session()
    for piece in ids[0].split(PIECES):
        session.read(piece.numpy())
    session.context_ends()
    return session.score(question[0].numpy())


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    ids = torch.randint(997, (1, TOKENS), generator=torch.Generator().manual_seed(1))
    print(f"| press | {' | '.join(f'keep {keep}' for keep in KEEPS)} |")
    print("|---|" + "---|" * len(KEEPS))
    for name in PAIRS:
        shares = [shared(ours(name, keep, ids), theirs(name, keep, ids)) for keep in KEEPS]
        print(f"| {name} | {' | '.join(f'{share:.2%}' for share in shares)} |")
    question = torch.randint(997, (1, 9), generator=torch.Generator().manual_seed(2))
    print("\n| class | largest difference of logits, as a share of the largest |\n|---|---|")
    for name in served(kvpress):
        expected = hooked_logits(name, ids, question)
        error = (logits_by_option(name, ids, question) - expected).abs().max()
        print(f"| {name} | {float(error / expected.abs().max()):.1e} |")


if __name__ == "__main__":
    main()
