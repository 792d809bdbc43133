"""What was compared: arms, needle families, texts and kinds of cache, each with one line on it.

A name that this installation does not know is listed without a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from haystacks.corpora.registry import available_corpora
from haystacks.needles.registry import available_families
from niah.report.glossary import CACHE
from niah.runs.tables import Run, cache_kinds
from niah.sweep.config import SERVER
from niah.text_format import counted

Named = list[tuple[str, str]]


def page_names(runs: Sequence[Run], rows: pd.DataFrame) -> dict[str, Named]:
    """(name, line or nothing) by heading. `rows` call arms as the page does."""
    return {
        "Arms": _arms(runs, rows),
        "Needle families": _looked_up(rows["family"], available_families()),
        "Haystacks": _looked_up(rows["corpus"], available_corpora()),
    }


def page_kinds(runs: Sequence[Run], rows: pd.DataFrame) -> dict[str, str]:
    """The kinds of cache in `rows`, as their models explain them, else as the glossary does.

    Where models explain a kind in different words, all are given.
    """
    told: dict[str, list[str]] = {}
    for run in runs:
        for model in _mapping(run.environment.get("models")).values():
            for kind, text in _mapping(_mapping(model).get("cache_kinds")).items():
                told.setdefault(kind, []).append(str(text))
    return {
        kind: "; ".join(dict.fromkeys(told.get(kind, ()))) or CACHE.get(kind, "")
        for kind in cache_kinds(rows)
    }


def _arms(runs: Sequence[Run], rows: pd.DataFrame) -> Named:
    """An arm that is the same in several runs is described once."""
    found: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        asked = rows.loc[rows["run"] == run.name, ["arm", "role"]].drop_duplicates()
        for shown, role in asked.itertuples(index=False):
            arm = shown.removeprefix(f"{run.name}/")
            found.setdefault((arm, _arm_text(run, arm, role)), []).append(shown)
    return [(", ".join(names), text) for (_, text), names in found.items()]


def _arm_text(run: Run, arm: str, role: str) -> str:
    model = _mapping(_mapping(run.environment.get("models")).get(arm))
    set_of_arm = {**_mapping(model.get("options")), **_mapping(model.get("session"))}
    options = [f"{name} {value}" for name, value in set_of_arm.items()]
    said = [str(model.get("description") or ""), " and ".join(options)]
    text = ": ".join(filter(None, (role, ", with ".join(filter(None, said)))))
    rows = run.rows[run.rows["arm"] == arm]
    return "; ".join(filter(None, (text, served_text(rows))))


def served_text(rows: pd.DataFrame) -> str:
    """What a server said of the prompts of an arm; nothing for a model in this process."""
    answered = rows[rows["model"].str.startswith(SERVER) & ~rows["failed"]]
    if answered.empty:
        return ""
    known = answered[answered["cached_tokens"].notna()]
    cached, whole = int(known["cached_tokens"].sum()), int(known["length"].sum())
    text = "the server did not say what its cache gave"
    if len(known):
        text = f"{cached:,} of {whole:,} prompt tokens came from the server's cache"
    if 0 < len(known) < len(answered):
        text += f", not known for {counted(len(answered) - len(known), 'answer')}"
    most = answered["requests_in_flight"].max()
    return f"{text}; up to {int(most)} requests at once" if most > 1 else text


def _mapping(value: object) -> Mapping[str, object]:
    """Of a file that may hold anything."""
    return value if isinstance(value, dict) else {}


def _looked_up(names: pd.Series, known: Mapping[str, str]) -> Named:
    return [(name, known.get(name, "")) for name in dict.fromkeys(names)]
