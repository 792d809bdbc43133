"""Prepares a sweep: loads its models and texts, plans it, estimates its cost, refuses it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from niah.execution.estimate import (
    Estimate,
    Sending,
    check_ceilings,
    check_memory,
    check_models,
    estimate_arms,
)
from niah.execution.loading import Bench, load_bench
from niah.execution.session_use import check_uses
from niah.sweep.config import Sweep, load_sweep
from niah.sweep.planner import make_plan
from niah.sweep.trials import Plan


class Prepared(NamedTuple):
    """A sweep ready to run; `estimates` by arm."""

    bench: Bench
    plan: Plan
    estimates: dict[str, Estimate | Sending | None]


def prepare(config: Path) -> Prepared:
    """Raises: NiahError (and other ValueErrors) where the sweep cannot be carried out here."""
    sweep = load_sweep(config)
    return lay_out(sweep, load_bench(sweep))


def lay_out(sweep: Sweep, bench: Bench, before: Sequence[Sweep] = ()) -> Prepared:
    """Plan and estimate `sweep`; `before` are the sweeps that a growing run was asked already.

    Raises: PlanError where the models, the texts or the memory do not suffice.
    """
    plan = make_plan(sweep, bench.materials, before)
    check_models(plan, bench.models)
    check_uses(sweep.arms, bench.models)
    tokenizer = bench.materials.tokenizer
    check_ceilings(plan, bench.models, tokenizer)
    estimates = estimate_arms(plan, bench.models, tokenizer)
    check_memory(estimates, sweep.max_memory_gb)
    return Prepared(bench, plan, estimates)
