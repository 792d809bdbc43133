"""Prepares a sweep: loads its models and texts, plans it, estimates its cost, refuses it."""

from pathlib import Path
from typing import NamedTuple

from niah.execution.estimate import Estimate, check_memory, check_models, estimate_arm
from niah.execution.loading import Bench, load_bench
from niah.sweep.config import load_sweep
from niah.sweep.planner import make_plan
from niah.sweep.trials import Plan


class Prepared(NamedTuple):
    """A sweep ready to run; `estimates` by arm."""

    bench: Bench
    plan: Plan
    estimates: dict[str, Estimate | None]


def prepare(config: Path) -> Prepared:
    """Raises: NiahError (and other ValueErrors) where the sweep cannot be carried out here."""
    sweep = load_sweep(config)
    bench = load_bench(sweep)
    plan = make_plan(sweep, bench.materials)
    check_models(plan, bench.models)
    estimates = {arm: estimate_arm(plan, model) for arm, model in bench.models.items()}
    check_memory(estimates, sweep.max_memory_gb)
    return Prepared(bench, plan, estimates)
