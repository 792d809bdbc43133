"""How a run was made, for its page: commands, commit, configuration, environment, arms.

Owns wording and order; reads nothing but a loaded run.
"""

from __future__ import annotations

import shlex
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
        "arms": run.rows.groupby(["arm", "role", "model"], sort=False)
        .agg(
            questions=("key", "size"),
            computed=("computed_tokens", "sum"),
            reused=("reused_tokens", "sum"),
            prefill=("prefill_seconds", "sum"),
            decode=("decode_seconds", "sum"),
        )
        .reset_index()
        .to_dict("records"),
    }


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
