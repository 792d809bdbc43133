"""A heatmap of a real model, asked here and cell by cell with `generate` of transformers.

    python -m tests.benchmarks.beside_generate hf:./runs/gemma/gemma.gguf \\
        --lengths 1K 2K 4K --depths 11 --cells 2

lm-evaluation-harness and kvpress read each prompt anew and call `generate` for it. Both ways have
the same weights in memory, the same prompts, the same limits and stop texts, and one thread. A
niah run also plans, scores the right answer and writes rows. Times are CPU seconds of the process,
which other work on the machine changes little; loading is left out of both. `--cells N` asks N
depths of each length cell by cell, evenly spread, and multiplies by depths / N: what a cell takes
depends on its length only. Printed: the answers that are equal, and the ratio.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.utils.logging import disable_progress_bar

from models.stop_texts import stop_index
from niah.execution.jobs import Tally, open_store
from niah.execution.loading import Bench, load_bench
from niah.execution.sweeps import ask_what_is_left, no_progress
from niah.sweep.config import Sweep, parse_sweep
from niah.sweep.planner import make_plan
from niah.sweep.prompt_format import stop_texts
from niah.sweep.prompts import build_context
from niah.sweep.trials import Plan, Stream, Trial
from tests.niah.rows import row_dicts


class AtStopText(StoppingCriteria):
    """Ends an answer where niah ends it."""

    def __init__(self, bench: Bench, start: int, stops: tuple[str, ...]) -> None:
        self.decode, self.start, self.stops = bench.materials.tokenizer.decode, start, stops

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        text = self.decode(input_ids[0, self.start :].tolist())
        return torch.tensor([stop_index(text, self.stops) is not None], device=input_ids.device)


def generated(bench: Bench, sweep: Sweep, stream: Stream, trial: Trial) -> tuple[str, float]:
    """A cell's answer, from `generate` on its whole prompt, and CPU seconds."""
    model: Any = bench.models["full"]
    network = model._weights.network
    tokenizer, corpus = bench.materials.tokenizer, bench.materials.corpora[stream.corpus]
    stops = stop_texts(sweep.prompt, trial.fact)
    began = time.process_time()
    prompt = build_context(stream, corpus, sweep.layout).prompt(trial)
    ids = torch.from_numpy(np.asarray(prompt, dtype=np.int64))[None].to(network.input_device)
    found = network.module.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=trial.max_new_tokens,
        stopping_criteria=StoppingCriteriaList([AtStopText(bench, ids.shape[1], stops)]),
    )[0, ids.shape[1] :].tolist()
    seconds = time.process_time() - began
    if found and found[-1] in network.eos_ids:
        found.pop()
    text = tokenizer.decode(found)
    end = stop_index(text, stops)
    return text if end is None else text[:end], seconds


def asked_here(bench: Bench, sweep: Sweep) -> tuple[Plan, dict[str, str], float]:
    """The plan, answers by pair, and CPU seconds of planning and asking."""
    began = time.process_time()
    plan, tally = make_plan(sweep, bench.materials), Tally()
    with tempfile.TemporaryDirectory() as folder:
        with open_store(Path(folder), plan, bench) as store:
            ask_what_is_left(plan, bench, store, no_progress, tally)
        seconds = time.process_time() - began
        answers = {row["pair"]: row["answer"] for row in row_dicts(Path(folder))}
    return plan, answers, seconds


def cells(plan: Plan, depths: int, count: int) -> list[tuple[Stream, Trial]]:
    """`count` depths of each length, evenly spread."""
    by_length: dict[int, list[tuple[Stream, Trial]]] = defaultdict(list)
    for stream, trial in plan.trials():
        by_length[trial.requested_length].append((stream, trial))
    chosen = []
    for found in by_length.values():
        found.sort(key=lambda pair: pair[1].depth or 0.0)
        chosen += [found[int(i)] for i in np.linspace(0, depths - 1, count).round()]
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--lengths", nargs="+", default=["1K", "2K", "4K"])
    parser.add_argument("--depths", type=int, default=11)
    parser.add_argument("--cells", type=int, help="depths asked cell by cell; all if left out")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--needle-share", type=float, default=0.15)
    told = parser.parse_args()
    count = told.cells or told.depths
    disable_progress_bar()
    torch.set_num_threads(1)
    arm = {"name": "full", "role": "baseline", "model": told.model}
    sweep = parse_sweep(
        {
            "name": "beside-generate",
            "arms": [arm | {"options": {"batch": told.batch}}],
            "corpora": "postgresql",
            "families": "single_number",
            "lengths": told.lengths,
            "depths": told.depths,
            "repeats": 1,
            "max_needle_share": told.needle_share,
            "threads": 1,
        },
        "beside_generate",
    )
    bench = load_bench(sweep)
    plan, answers, here = asked_here(bench, sweep)
    print(
        f"here: {len(answers)} questions, {plan.computed_tokens:,} tokens, {here:.1f} s", flush=True
    )
    seconds: dict[int, list[float]] = defaultdict(list)
    equal = 0
    for stream, trial in cells(plan, told.depths, count):
        text, taken = generated(bench, sweep, stream, trial)
        seconds[trial.requested_length].append(taken)
        equal += text == answers[trial.pair]
        print(f"generate: {trial.requested_length} tokens, {taken:.1f} s", flush=True)
    apart = sum(sum(each) / count * told.depths for each in seconds.values())
    print(f"generate: {len(told.lengths) * told.depths} questions, {apart:.1f} s")
    print(f"equal answers: {equal} of {count * len(told.lengths)}; ratio {apart / here:.1f}")


if __name__ == "__main__":
    main()
