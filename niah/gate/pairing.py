"""Decides whether two runs may be compared, and says what differs if they may not.

Two runs pair only if they asked the same questions
about the same tokens with the same weights; what may differ is what is under test: the code, the
machine, an arm's options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from niah.errors import NiahError
from niah.runs.history import FREE_FIELDS, differences
from niah.runs.tables import Run, pair_arms
from niah.statistics.comparisons import Comparison
from niah.sweep.config import deciding_options

# What a later run may change without asking something else.
UNDER_TEST = FREE_FIELDS | {"name", "arms", "chunk_tokens"}


class NoPairError(NiahError):
    """Two runs that did not ask the same of the same."""


def compare_runs(run: Run, against: Run) -> tuple[list[Comparison], list[str]]:
    """Every arm of `run` against the arm of that name in the earlier run, and remarks.

    Raises:
        NoPairError: no arm in common, other weights or another model under the same name, or
            questions of `run` that the earlier run was not asked.
    """
    shared = [arm for arm in run.baselines + run.compressed if arm in set(against.rows["arm"])]
    if not shared:
        raise NoPairError(
            f"{run.path} and {against.path} do not pair: no arm has the same name "
            f"({', '.join(run.rows['arm'].unique())}; {', '.join(against.rows['arm'].unique())})"
        )
    refuse_other_weights(run, against, shared)
    found, notes = [], option_changes(run, against, shared)
    for arm in shared:
        rows = pd.concat([_named(against, arm, "before"), _named(run, arm, "now")])
        refuse_other_questions(run, against, rows, arm)
        # What only the earlier run asked, or only the plan has, is incomplete, not left out.
        pairs = pair_arms(rows, "before", "now", run.planned)
        found.append(Comparison(f"{arm} now against before", "before", arm, pairs, floor=0.0))
    return found, notes


def refuse_other_questions(run: Run, against: Run, rows: pd.DataFrame, arm: str) -> None:
    """Raises: NoPairError if `run` asked what the earlier run did not."""
    now, before = (set(rows.loc[rows["arm"] == name, "pair"]) for name in ("now", "before"))
    alone = now - before
    if not alone:
        return
    changed = differences(run_identity(against), run_identity(run))
    why = "; ".join(changed) if changed else "the tokens, needles or decoding differ"
    raise NoPairError(
        f"{run.path} and {against.path} do not pair: {len(alone):,} of {len(now):,} questions to "
        f"{arm} were not asked there: {why}"
    )


def refuse_other_weights(run: Run, against: Run, arms: list[str]) -> None:
    """Raises: NoPairError if an arm is another model, or the same name with other weights."""
    for arm in arms:
        now, before = arm_identity(run, arm), arm_identity(against, arm)
        if now["model"] != before["model"]:
            raise NoPairError(
                f"{run.path} and {against.path} do not pair: arm {arm} is {now['model']} now and "
                f"was {before['model']}"
            )
        same_options = now["options"] == before["options"]
        for field in ("weights", "fingerprint"):
            known = now[field] and before[field]
            if known and now[field] != before[field] and (field == "weights" or same_options):
                raise NoPairError(
                    f"{run.path} and {against.path} do not pair: {now['model']} of arm {arm} has "
                    f"other weights ({field} {now[field]}, was {before[field]})"
                )


def option_changes(run: Run, against: Run, arms: list[str]) -> list[str]:
    """The options that are under test, as remarks."""
    return [
        f"arm {arm}: {change}"
        for arm in arms
        for change in differences(
            _dict(arm_identity(against, arm)["options"]), _dict(arm_identity(run, arm)["options"])
        )
    ]


def arm_identity(run: Run, arm: str) -> dict[str, Any]:
    """model, options, and as far as known the fingerprints: of the weights alone, and of it all."""
    specs = run.spec.get("arms")
    listed = specs if isinstance(specs, list) else []
    spec: object = next((found for found in listed if _dict(found).get("name") == arm), {})
    described = _dict(_dict(run.environment.get("models")).get(arm))
    prints = _dict(_dict(run.environment.get("identity")).get("models"))
    model = str(run.rows.loc[run.rows["arm"] == arm, "model"].iloc[0])
    session = {name: value for name, value in _dict(_dict(spec).get("session")).items() if value}
    return {
        "model": model,
        "options": deciding_options(model, _dict(_dict(spec).get("options")))
        | ({"session": session} if session else {}),
        "weights": described.get("weights_fingerprint"),
        "fingerprint": prints.get(arm),
    }


def run_identity(run: Run) -> dict[str, Any]:
    """What decides the questions: the sweep and the fingerprints, without what is under test."""
    identity = _dict(run.environment.get("identity"))
    sweep = {field: value for field, value in run.spec.items() if field not in UNDER_TEST}
    return {**sweep, **{field: identity[field] for field in identity if field != "models"}}


def _named(run: Run, arm: str, name: str) -> pd.DataFrame:
    return run.rows[run.rows["arm"] == arm].assign(arm=name)


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
