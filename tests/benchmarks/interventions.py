"""Why a compressed arm forgets: its questions asked again, each with one thing changed.

    python -m tests.benchmarks.interventions configs/million.yaml --lengths 262144,1048576

The text is read once, as it is. Only the question and the answer see a change: more or fewer
entries selected, HCA with its newest entries alone or with none, flatter or sharper logits. What
mends a wrong answer was in its way. Prints right answers by length, and of the wrong ones how
many each change mends and how many right ones it breaks.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from torch import Tensor

from haystacks.corpora.registry import Corpus
from models.deepseek_v4 import fused
from models.deepseek_v4.attention import (
    Attention,
    CompressedSparseAttention,
    HeavilyCompressedAttention,
    Step,
)
from models.deepseek_v4.cache import HcaCache, LayerCache, visible_prefix
from models.deepseek_v4.loading import LoadedModel
from models.deepseek_v4.model import DeepseekV4
from niah.execution.ask import Asker
from niah.execution.loading import load_bench
from niah.execution.streams import StreamReader
from niah.sweep.config import load_sweep
from niah.sweep.planner import make_plan
from niah.sweep.trials import Stream, Trial

Change = Callable[[DeepseekV4], AbstractContextManager[object]]
Right = dict[tuple[int, str], dict[str, bool]]  # by length and change: by question


def top_k(k: int) -> Change:
    """Another number of entries selected."""

    @contextmanager
    def change(network: DeepseekV4) -> Iterator[None]:
        sparse = [m for m in network.modules() if isinstance(m, CompressedSparseAttention)]
        for attention in sparse:
            attention.config = replace(network.config, index_topk=k)
        try:
            yield
        finally:
            for attention in sparse:
                attention.config = network.config

    return change


def newest_heavy_entries(count: int) -> Change:
    """HCA over its newest `count` entries; over its window alone if 0."""

    def reach(
        self: HeavilyCompressedAttention,
        x: Tensor,
        latent: Tensor,
        q: Tensor,
        step: Step,
        cache: HcaCache | None,
        visible: Tensor,
    ) -> fused.Mixed | None:
        segments, seen = self.compress(x, step, cache), int(visible[-1])
        if not seen or not count:
            return None
        hidden = max(0, seen - count)
        entries = visible_prefix(segments, seen)[:, hidden:]
        return fused.attend_runs(q, entries, (visible - hidden).clamp(min=0))

    return lambda network: patch.object(HeavilyCompressedAttention, "reach", reach)


def sharper(factor: float) -> Change:
    """Logits over window and entries times a factor, in CSA and HCA."""
    tempered = Attention.tempered

    def times(self: Attention[LayerCache], q: Tensor, step: Step) -> Tensor:
        return factor * tempered(self, q, step)

    return lambda network: patch.object(Attention, "tempered", times)


AS_IT_IS = "as it is"
CHANGES: dict[str, Change] = {
    AS_IT_IS: nullcontext,
    "top-16": top_k(16),
    "top-256": top_k(256),
    "top-1024": top_k(1024),
    "top-4096": top_k(4096),
    "HCA: newest 1,024 entries": newest_heavy_entries(1024),
    "HCA: newest 128 entries": newest_heavy_entries(128),
    "HCA: window alone": newest_heavy_entries(0),
    "logits x 0.8": sharper(0.8),
    "logits x 1.25": sharper(1.25),
    "logits x 1.5": sharper(1.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--lengths", type=lambda text: [int(n) for n in text.split(",")])
    options = parser.parse_args()
    sweep = load_sweep(options.sweep)
    sweep = sweep.model_copy(update={"arms": [a for a in sweep.arms if a.role == "compressed"][:1]})
    bench = load_bench(sweep)
    plan = make_plan(sweep, bench.materials)
    (model,) = bench.models.values()
    asker = Asker(sweep, sweep.arms[0], model, bench.materials.tokenizer, lambda tokens: None)
    right: Right = defaultdict(dict)
    for stream in plan.streams:
        ordered = sorted(stream.trials, key=lambda trial: trial.fork_at)
        asked = [trial for trial in ordered if is_wanted(trial, options.lengths)]
        answers(asker, stream, bench.materials.corpora[stream.corpus], asked, right)
    table(right)


def is_wanted(trial: Trial, lengths: list[int] | None) -> bool:
    return not lengths or trial.length in lengths


def answers(
    asker: Asker, stream: Stream, corpus: Corpus, trials: list[Trial], right: Right
) -> None:
    """Read the stream once; ask at its forks under every change."""
    assert isinstance(asker.model, LoadedModel)
    reader = StreamReader([asker], stream, corpus)
    trunk = asker.timeline(asker.model.session())
    for trial in trials:
        reader.read(trunk, trial.fork_at)
        shared = reader.context_read(trial, trunk, [asker])
        for name, change in CHANGES.items():
            with change(asker.model.network):
                question = asker.begin(trial, reader.context, shared)
                row = asker.judged(trial, reader.context, asker.read_answer(question))
            right[trial.length, name][trial.pair] = row["correct"]


def table(right: Right) -> None:
    print("| tokens | change at the question | right | mended | broken |\n|---|---|---|---|---|")
    for (length, name), found in sorted(right.items(), key=lambda item: item[0][0]):
        before = right[length, AS_IT_IS]
        mended = sum(found[pair] and not before[pair] for pair in found)
        broken = sum(before[pair] and not found[pair] for pair in found)
        print(
            f"| {length} | {name} | {sum(found.values())} of {len(found)} | {mended} | {broken} |"
        )


if __name__ == "__main__":
    main()
