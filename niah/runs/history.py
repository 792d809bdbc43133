"""What a run's folder was asked, by which invocations and on which machine, and what may be added.

A run grows: a sweep may add repeats, lengths, depths, corpora, families, wordings, controls and
arms to those that were asked. What was asked stays. environment.json keeps

- `identity`: fingerprints of models, tokenizer and corpora, on which the answers depend;
- `models`: what each arm's model says of itself;
- `runs`: an entry for each invocation of `niah run` that wrote rows: machine, versions, commit,
  and `from_row`, the index of its first line in rows.jsonl;
- `sweeps`: once the run has grown, every sweep that it was asked, the oldest first.

Files of before held the entry of the first invocation beside `identity` and `models`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from niah.errors import ChangedError, FileError, SpecError
from niah.files import read_mapping, write_atomically
from niah.sweep.config import Sweep, deciding_options, parse_sweep

SPEC, ENVIRONMENT = "spec.yaml", "environment.json"
Fields = dict[str, Any]

# Fields of a sweep that decide how fast it runs, not what it asks.
FREE_FIELDS = frozenset({"threads", "max_memory_gb", "checkpoint_minutes"})
LABELS = frozenset({"technique"})  # of an arm: a report reads them in the folder's sweep
LISTS = ("corpora", "families", "templates", "lengths", "depths", "controls")  # which may grow


@dataclass(frozen=True)
class History:
    """A run's environment.json."""

    identity: Fields
    models: Fields
    runs: tuple[Fields, ...] = ()
    sweeps: tuple[Fields, ...] = ()

    def write(self, folder: Path) -> None:
        """Raises: OSError."""
        fields: Fields = {"identity": self.identity, "models": self.models, "runs": self.runs}
        if self.sweeps:
            fields["sweeps"] = self.sweeps
        write_atomically(folder / ENVIRONMENT, json.dumps(fields, indent=2) + "\n")

    def with_run(self, facts: Mapping[str, Any], from_row: int) -> "History":
        return replace(self, runs=(*self.runs, {**facts, "from_row": from_row}))

    def grown_by(self, identity: Fields, models: Fields, sweeps: Sequence[Fields]) -> "History":
        """With further arms and corpora; what was known of the others stays."""
        together: Fields = {
            name: {**identity.get(name, {}), **self.identity.get(name, {})}
            for name in ("models", "corpora", "families")
            if name in identity or name in self.identity
        }
        return replace(
            self,
            identity={**identity, **self.identity, **together},
            models={**models, **self.models},
            sweeps=tuple(sweeps),
        )


def read_history(folder: Path) -> History | None:
    """None where there is no environment.json. Raises: FileError."""
    path = folder / ENVIRONMENT
    if not path.exists():
        return None
    fields = read_mapping(path)
    for name, kind in (("identity", dict), ("models", dict), ("runs", list), ("sweeps", list)):
        if not isinstance(fields.get(name, kind()), kind):
            raise FileError(
                f"{path}: {name} is {fields[name]!r:.40}; it should be a {kind.__name__}"
            )
    identity, models = fields.pop("identity", {}), fields.pop("models", {})
    sweeps, runs = fields.pop("sweeps", []), fields.pop("runs", None)
    if runs is None:  # of before: the first invocation's entry lies open
        runs = [{**fields, "from_row": 0}] if fields else []
    if not all(isinstance(entry, dict) for entry in (*runs, *sweeps)):
        raise FileError(f"{path}: runs and sweeps should hold names and values")
    return History(identity, models, tuple(runs), tuple(sweeps))


def read_environment(folder: Path) -> Fields:
    """What a page says of how a run was made: the entry of the first invocation, `identity` and
    `models`, and under `resumed` the entries of later invocations.

    Empty where there is no environment.json. Raises: FileError where it is not JSON.
    """
    path = folder / ENVIRONMENT
    fields = read_mapping(path) if path.exists() else {}
    runs = fields.pop("runs", None)
    fields.pop("sweeps", None)
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        return fields
    first, *later = runs or [{}]
    resumed = {"resumed": later} if later else {}
    return {name: first[name] for name in first if name != "from_row"} | fields | resumed


def asked_sweeps(folder: Path) -> list[Fields]:
    """Every sweep that the folder was asked, the oldest first; none in a new folder.

    Raises: FileError.
    """
    if not (folder / SPEC).exists():
        return []
    history = read_history(folder)
    kept = list(history.sweeps) if history else []
    return [complete(sweep) for sweep in kept or [read_mapping(folder / SPEC)]]


def complete(sweep: Mapping[str, Any]) -> Fields:
    """With the defaults of fields that a sweep of before did not have."""
    try:
        return parse_sweep(dict(sweep), SPEC).model_dump(mode="json")
    except SpecError:
        return dict(sweep)


def earlier_sweeps(folder: Path, sweep: Sweep) -> tuple[Sweep, ...]:
    """The sweeps that `sweep` adds to in `folder`, the oldest first.

    Raises: ChangedError where it lacks or changes what was asked; FileError.
    """
    before = added_to(folder, sweep.model_dump(mode="json"))
    return tuple(parse_sweep(fields, str(folder / ENVIRONMENT)) for fields in before)


def added_to(folder: Path, sweep: Mapping[str, Any]) -> list[Fields]:
    """As `earlier_sweeps`, as fields."""
    asked = asked_sweeps(folder)
    if not asked:
        return []
    refuse(folder, sweep_changes(asked[-1], complete(sweep)))
    return asked[:-1] if is_same(asked[-1], complete(sweep)) else asked


def refuse(folder: Path, changes: Sequence[str]) -> None:
    """Raises: ChangedError naming the changes, if there are any."""
    if changes:
        raise ChangedError(
            f"{folder}: was started with {'; '.join(changes)}; "
            "choose another --out, or keep what was asked: a run may only grow"
        )


def sweep_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What `now` changes or lacks of `before`, as `field = old, now new`."""
    may_grow = {"arms", "repeats", *LISTS}
    changes = differences(before, now, ignore=FREE_FIELDS | may_grow)
    for field in LISTS:
        if not set(listed(before, field)) <= set(listed(now, field)):
            changes.append(changed(field, before.get(field), now.get(field)))
    if before.get("repeats", 0) > now.get("repeats", 0):
        changes.append(changed("repeats", before["repeats"], now.get("repeats")))
    asked, wanted = named_arms(before), named_arms(now)
    arms = {name: arm for name, arm in wanted.items() if name in asked}
    return changes + differences({"arms": asked}, {"arms": arms})


def deciding(arm: Mapping[str, Any]) -> Fields:
    """An arm without its labels, and without what decides no answer: a server may move."""
    fields = {field: value for field, value in arm.items() if field not in LABELS}
    options = fields.get("options")
    if isinstance(options, Mapping):
        fields["options"] = deciding_options(str(arm.get("model")), options)
    return fields


def identity_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What `now` changes of the fingerprints in `before`; further models and texts are none."""
    common = dict(now)
    for field in ("models", "corpora", "families"):
        known = before.get(field, {})
        common[field] = {name: v for name, v in now.get(field, {}).items() if name in known}
    return differences({"families": {}, **before}, common)


def is_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two sweeps ask the same."""
    return not sweep_changes(before, now) and not sweep_changes(now, before)


def listed(sweep: Mapping[str, Any], field: str) -> Sequence[Any]:
    return sweep.get(field) or ()


def named_arms(sweep: Mapping[str, Any]) -> Fields:
    """The arms of a sweep by name, as far as they decide answers."""
    return {arm["name"]: deciding(arm) for arm in listed(sweep, "arms")}


def differences(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    ignore: frozenset[str] | set[str] = frozenset(),
) -> list[str]:
    """`field = old, now new` for each field that differs, at the depth where it does."""
    found = []
    for field in sorted((before.keys() | now.keys()) - ignore):
        old, new = before.get(field), now.get(field)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [f"{field}.{change}" for change in differences(old, new)]
        elif old != new:
            found.append(changed(field, old, new))
    return found


def changed(field: str, old: object, new: object) -> str:
    old, new = (json.dumps(value, ensure_ascii=False) for value in (old, new))
    return f"{field} = {old}, now {new}"
