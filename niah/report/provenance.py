"""How a run was made, for its page: commands, commit, configuration, environment, arms."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import yaml

from niah.runs.history import SPEC
from niah.runs.tables import Run


def described(run: Run) -> dict[str, Any]:
    spec = yaml.safe_dump(dict(run.spec), sort_keys=False, allow_unicode=True)
    return {
        "name": run.name,
        "spec": spec if run.spec else "",
        "spec_file": SPEC,
        "commands": commands(run),
        "environment": list(flat(run.environment)),
        "arms": list(arm_totals(run)),
    }


def arm_totals(run: Run) -> Iterator[dict[str, Any]]:
    """What every arm computed and took; NaN where no row tells it."""
    for (arm, role, model), rows in run.rows.groupby(["arm", "role", "model"], sort=False):
        sums = rows[["computed_tokens", "reused_tokens", "prefill_seconds", "decode_seconds"]].sum(
            min_count=1
        )
        totals = dict(zip(("computed", "reused", "prefill", "decode"), sums, strict=True))
        yield {"arm": arm, "role": role, "model": model, "questions": len(rows), **totals}


def commands(run: Run) -> list[str]:
    """What makes the run and its page again, at the commit it was made at where that is known.

    Into a folder of its own: the commit may hold an earlier run of the name, which other weights or
    questions could not go on with.
    """
    again = shlex.quote(f"again/{run.name}")
    commit = run.environment.get("commit")
    checkout = [f"git checkout {shlex.quote(str(commit))}"] if commit else []
    return [*checkout, f"niah run {SPEC} --out {again}", f"niah report {again}"]


def flat(values: object, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value) lines."""
    if not isinstance(values, dict | list) or not values:
        return [(prefix, str(values))]
    items = values.items() if isinstance(values, dict) else enumerate(values)
    return [
        line
        for name, value in items
        for line in flat(value, f"{prefix}.{name}" if prefix else str(name))
    ]
