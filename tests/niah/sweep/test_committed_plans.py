"""The committed runs are planned as they were: their pairs, stream by stream."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from haystacks.corpora.registry import load_corpus
from haystacks.needles.registry import find_family
from haystacks.tokenizer import BUNDLED_NAME, load_tokenizer
from niah.sweep.config import Sweep, load_sweep
from niah.sweep.planner import Materials, make_plan

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs"  # where the relative paths of committed sweeps begin
RESULTS = sorted(path.parent for path in (ROOT / "results").glob("*/spec.yaml"))
REPEATS = 2
CORPORA = {"kjv", "python"}  # the others take long to be tokenised in a clean clone


def recorded_pairs(run: Path) -> dict[tuple[str, int], set[str]]:
    """By corpus and repeat."""
    found: dict[tuple[str, int], set[str]] = defaultdict(set)
    for line in (run / "rows.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found[row["corpus"], row["repeat"]].add(row["pair"])
    return found


def planned_pairs(sweep: Sweep) -> dict[tuple[str, int], set[str]]:
    tokenizer = load_tokenizer(BUNDLED_NAME)
    materials = Materials(
        tokenizer,
        {name: load_corpus(name, tokenizer) for name in sweep.corpora},
        {name: find_family(name, CONFIGS) for name in sweep.families},
    )
    found: dict[tuple[str, int], set[str]] = defaultdict(set)
    for stream, trial in make_plan(sweep, materials).trials():
        found[stream.corpus, stream.repeat].add(trial.pair)
    return found


def has_bundled_tokenizer(run: Path) -> bool:
    """Others are of models that are not in the repository."""
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    return bool(environment["identity"]["tokenizer_name"] == BUNDLED_NAME)


@pytest.mark.parametrize(
    "run", [run for run in RESULTS if has_bundled_tokenizer(run)], ids=lambda run: run.name
)
def test_a_committed_run_would_be_planned_the_same(run: Path) -> None:
    """A few repeats and corpora of it, which do not depend on the others."""
    sweep = load_sweep(run / "spec.yaml")
    corpora = tuple(name for name in sweep.corpora if name in CORPORA) or sweep.corpora
    few = sweep.model_copy(update={"repeats": min(sweep.repeats, REPEATS), "corpora": corpora})
    recorded = recorded_pairs(run)
    for place, pairs in planned_pairs(few).items():
        assert pairs == recorded[place]
