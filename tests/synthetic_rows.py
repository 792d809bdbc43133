"""Made-up rows in the shape of a run, for tests of what reads them. No model answered anything.

The chance of a right answer is written down here (`CHANCE`), so a test knows the truth.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

Chance = Callable[[int, float, str], float]


def baseline_chance(length: int, depth: float, family: str) -> float:
    return 0.985


def compressed_chance(length: int, depth: float, family: str) -> float:
    """Chance to keep what the baseline recalls: worse far away and in the middle."""
    reach = max(0.0, np.log2(length / 4096))
    return 0.99 - 0.05 * reach * (1 - 1.2 * abs(depth - 0.5)) - (0.03 if family != "single" else 0)


@dataclass(frozen=True)
class Synthetic:
    """What `records` makes up: every combination, `repeats` streams each."""

    lengths: Sequence[int] = (1024, 2048, 4096, 8192, 16384, 32768)
    depths: Sequence[float] = tuple(round(i / 10, 2) for i in range(11))
    families: Sequence[str] = ("single_number",)
    corpora: Sequence[str] = ("kjv",)
    repeats: int = 6
    arms: dict[str, Chance] = field(
        default_factory=lambda: {"dense": baseline_chance, "v4": compressed_chance}
    )
    answer: str | None = None
    error_every: int = 0
    seed: int = 0
    weights: str = "weights-1"

    def role(self, number: int, name: str) -> str:
        """The first arm is the baseline; a name tells whether another repeats or retrains it."""
        if number == 0:
            return "baseline"
        named = {"again": "repeat", "seed": "retrained"}
        return next((role for head, role in named.items() if name.startswith(head)), "compressed")


def records(made: Synthetic) -> list[dict[str, Any]]:
    """One record a question and arm; the first arm is the baseline, whose misses all arms share."""
    rng = np.random.default_rng(made.seed)
    rows: list[dict[str, Any]] = []
    for repeat in range(made.repeats):
        for corpus in made.corpora:
            for family in made.families:
                for length in made.lengths:
                    for depth in made.depths:
                        rows += question(made, rng, repeat, corpus, family, length, depth)
    if made.error_every:
        for row in rows[:: made.error_every]:
            row |= {"correct": None, "error": "RuntimeError: out of memory", "outcome": "error"}
            row |= {"answer": "", "answer_ids": None, "gold_logprob": None}
    return rows


def question(
    made: Synthetic,
    rng: np.random.Generator,
    repeat: int,
    corpus: str,
    family: str,
    length: int,
    depth: float,
) -> list[dict[str, Any]]:
    names, asked = list(made.arms), length - 24
    start = int(depth * (asked - 20)) + int(rng.integers(0, 4))
    gold = f"{rng.integers(10_000, 100_000)}"
    pair = digest([family, corpus, repeat, length, depth, made.seed])
    known = rng.random() < made.arms[names[0]](length, depth, family)
    rows = []
    for number, name in enumerate(names):
        kept = number == 0 or rng.random() < made.arms[name](length, depth, family)
        right = bool(known and kept)
        outcome, answer = wrong_answer(rng, gold)
        said = made.answer or (f" {gold}." if right else answer)
        speed = 4000 if number else 6000 / (1 + length / 60_000)  # tokens a second
        rows.append(
            {
                "key": digest([pair, name, made.weights]),
                "pair": pair,
                "arm": name,
                "role": made.role(number, name),
                "model": "nano-dense" if number == 0 else "nano-v4",
                "family": family,
                "corpus": corpus,
                "layout": "stream",
                "template_split": "unseen" if repeat % 3 == 2 else "trained",
                "stream": 0,
                "repeat": repeat,
                "length": length,
                "requested_length": length,
                "depth": depth,
                "actual_depth": start / asked,
                "needle_start": start,
                "needle_end": start + 16,
                "question": f" What is the secret code for amber falcon {pair[:6]}? "
                f"The secret code for amber falcon {pair[:6]} is",
                "gold": [gold],
                "rivals": length // 1024,
                "answer": said,
                "answer_ids": [ord(letter) for letter in said],
                "gold_logprob": -0.125 * (number > 0) - (0.25 if right else 4.0),
                "correct": right,
                "outcome": "exact" if right else outcome,
                "error": None,
                "control": None,
                "excerpt": {
                    "before": "In the beginning was the word,",
                    "needle": f" The secret code for amber falcon {pair[:6]} is {gold}.",
                    "after": " and the word was",
                },
                **traced(number > 0 and not right, length, start),
                "prompt_tokens": length,
                "computed_tokens": length // 11,
                "reused_tokens": length - length // 11,
                "prefill_seconds": length / 11 / speed,
                "cold_prefill_seconds": length / speed,
                "decode_seconds": 0.06 if number else 0.05 + length / 3e5,
                "cache_bytes": held_bytes(length, compressed=number > 0),
            }
        )
    return rows


def traced(missed: bool, length: int, start: int) -> dict[str, Any]:
    """Where a compressed arm lost a needle: every third by selection."""
    if not missed:
        return {"lost_by": None, "selection": []}
    selected = start % 3 > 0
    layer = {"layer": 2, "rank": 5 if selected else 1000, "entries": length // 4}
    lost_by = "compression" if selected else "selection"
    return {"lost_by": lost_by, "selection": [{**layer, "selected": selected}]}


def wrong_answer(rng: np.random.Generator, gold: str) -> tuple[str, str]:
    outcome = str(
        rng.choice(
            ["distractor", "near_miss", "invented", "copied", "malformed"],
            p=[0.5, 0.2, 0.15, 0.1, 0.05],
        )
    )
    near = gold[:-1] + str((int(gold[-1]) + 1) % 10)
    texts = {"near_miss": near, "malformed": "the sea", "copied": "144000"}
    return outcome, f" {texts.get(outcome, rng.integers(10_000, 100_000))}."


def planned_questions(made: Synthetic) -> list[dict[str, Any]]:
    """What `niah run` keeps of every question before the first is answered."""
    fields = (
        *("pair", "family", "template_split", "corpus", "layout", "stream", "repeat", "control"),
        *("requested_length", "length", "depth", "needle_start"),
    )
    first = next(iter(made.arms))
    return [{name: row[name] for name in fields} for row in records(made) if row["arm"] == first]


def held_bytes(length: int, compressed: bool) -> dict[str, int]:
    if not compressed:
        return {"window": 2 * 128 * 512, "full": length * 4 * 512}
    return {
        "window": 6 * 128 * 512,
        "csa": length // 4 * 2 * 512,
        "index": length // 4 * 2 * 128,
        "hca": length // 128 * 2 * 512,
        "tail": 9_000,
    }


def write_run(folder: Path, made: Synthetic | None = None, **spec: object) -> Path:
    """A results folder as `niah run` leaves it."""
    made = made or Synthetic()
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in records(made))
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")
    planned = "".join(json.dumps(row) + "\n" for row in planned_questions(made))
    (folder / "planned.jsonl").write_text(planned, encoding="utf-8")
    resolved = {
        "name": folder.name,
        "note": "synthetic test data; no model answered",
        "lengths": list(made.lengths),
        "decoding": {"max_new_tokens": None},
        **spec,
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
    environment = {
        **{"python": "3.11", "torch": "2.13.0", "cpu": "a made-up one", "threads": 2},
        "identity": {"tokenizer": "bpe-1", "models": dict.fromkeys(made.arms, made.weights)},
    }
    (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    return folder


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def repeated_run(folder: Path, compressed: float, again: float, repeats: int = 24) -> Path:
    """A baseline that is always right; `again` keeps a share of it, and so does `v4`."""
    shares = {"dense": 1.0, "v4": compressed, "again": again}
    arms: dict[str, Chance] = {name: lambda *_, kept=kept: kept for name, kept in shares.items()}
    return write_run(folder, Synthetic(lengths=(1024, 4096), repeats=repeats, arms=arms))
