"""One run or several as one HTML page that needs nothing else: no network, no folder beside it.

Owns what the page says and in which order; `templates/` owns how it looks. Everything that came
from a model, a text or a file name reaches the page through Jinja's autoescape or as JSON.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from markupsafe import Markup

from niah.compare import Comparison, headline, load_comparisons, saving, slice_rows
from niah.figures import tax_limit
from niah.page_data import page_questions, page_views
from niah.plates import make_plates, text_table
from niah.power import more_samples
from niah.results import Run, load_run, pair_arms
from niah.series import controls, questions
from niah.stats import BASELINE_FLOOR, Tax, estimate_recall
from niah.store import SPEC
from niah.views import Heatmap, make_heatmap
from niah.wording import points


@dataclass(frozen=True)
class Summary:
    """A comparison with its heatmap, as the top of the page shows it.

    `alone`: an arm without another to compare it with, set against itself for its recall.
    """

    comparison: Comparison
    heatmap: Heatmap
    sentence: str
    saving: tuple[float, float] | None = None
    alone: bool = False

    @property
    def tax(self) -> Tax | None:
        return self.comparison.tax

    @property
    def limit(self) -> float:
        return tax_limit(self.heatmap)

    def page_data(self) -> dict[str, Any]:
        arms = [self.comparison.baseline, self.comparison.compressed]
        return page_views(arms, self.heatmap, self.limit) | {"alone": self.alone}


def write_report(runs: Sequence[Path], out: Path, floor: float = BASELINE_FLOOR) -> Path:
    """Write the page about `runs` and return its path.

    Args:
        runs: results folders; with several, arms are called FOLDER/ARM.
        out: a folder to hold index.html, or a file name that ends in .html.
        floor: baseline recall below which a tax is undefined.

    Raises:
        NiahError: a folder that holds no readable run, or two folders of one name.
    """
    page = render_page([load_run(run) for run in runs], floor)
    target = out if out.suffix == ".html" else out / "index.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    partial.write_text(page, encoding="utf-8")
    return partial.replace(target)


def render_page(runs: Sequence[Run], floor: float = BASELINE_FLOOR) -> str:
    """The page as text; the same runs give the same page."""
    rows, comparisons = load_comparisons(runs, floor)
    summaries = [
        Summary(
            comparison,
            make_heatmap(comparison),
            headline(comparison, rows),
            saving(rows, comparison.baseline, comparison.compressed),
        )
        for comparison in comparisons
    ]
    alone = [] if summaries else list(_alone(rows))
    shown = summaries or alone
    script = _asset("report.js")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("niah"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"points": points}
    return environment.get_template("report.html").render(
        title=" · ".join(run.name for run in runs),
        summaries=summaries,
        alone=alone,
        shown=shown,
        notices=_notices(rows, comparisons),
        plates=make_plates(rows, comparisons),
        slices=[(summary, slice_rows(summary.comparison)) for summary in summaries],
        power=[(summary, _power(summary.tax)) for summary in summaries if summary.tax],
        controls=text_table(controls(rows)),
        runs=[_described(run) for run in runs],
        floor=floor,
        data={
            "comparisons": [summary.page_data() for summary in shown],
            "questions": page_questions(rows),
            "floor": floor,
        },
        style=Markup(_asset("report.css")),  # our own file, not a run's
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _notices(rows: pd.DataFrame, comparisons: Sequence[Comparison]) -> list[str]:
    """What a reader has to know before reading a number."""
    notices = []
    for arm, failed in rows.groupby("arm", sort=False)["failed"].sum().items():
        if failed:
            asked = int((rows["arm"] == arm).sum())
            notices.append(
                f"{int(failed):,} of {asked:,} questions to {arm} ended in an error. They count as "
                "not recalled; the same niah run asks them again."
            )
    for comparison in comparisons:
        missing = int(comparison.pairs["incomplete"].sum())
        if missing:
            notices.append(
                f"{comparison.title}: {missing:,} of {len(comparison.pairs):,} questions were put "
                "to one arm only and count as not recalled by the other. Finish the run first."
            )
        if comparison.tax and comparison.tax.streams == 1:
            notices.append(
                f"{comparison.title}: all questions share one stream, so the intervals take them "
                "as independent and are too narrow. Use repeats: 2 or more."
            )
        if comparison.left_out:
            families = sorted({family for family, _ in comparison.left_out})
            notices.append(
                f"{comparison.title}: the tax leaves out {len(comparison.left_out)} of its "
                f"family-length slices ({', '.join(families)}), where the baseline recalls less "
                f"than {100 * comparison.floor:.0f}% itself."
            )
    return notices


def _alone(rows: pd.DataFrame) -> Iterator[Summary]:
    """The arms of a run in which no two can be compared."""
    for arm, group in questions(rows).groupby("arm", sort=False):
        recall = estimate_recall(group["recalled"].to_numpy(), group["stream_id"].to_numpy())
        low, high = recall.interval
        sentence = (
            f"{arm} recalls {points(recall.value)}% of {recall.asked:,} questions "
            f"(95%: {points(low)} to {points(high)}); no other arm was asked them, so there is "
            "no tax to show."
        )
        name = str(arm)
        itself = Comparison(name, name, name, pair_arms(rows, name, name))
        yield Summary(itself, make_heatmap(itself), sentence, alone=True)


def _power(tax: Tax) -> list[tuple[int, float]]:
    found = more_samples(tax.pairs, tax.discordance, design_effect=tax.design_effect)
    return list(found.items())


def _described(run: Run) -> dict[str, Any]:
    spec = yaml.safe_dump(dict(run.spec), sort_keys=False, allow_unicode=True)
    return {
        "name": run.name,
        "spec": spec if run.spec else "",
        "spec_file": SPEC,
        "environment": list(_flat(run.environment)),
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


def _flat(values: object, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value) lines."""
    if not isinstance(values, dict | list) or not values:
        return [(prefix, str(values))]
    items = values.items() if isinstance(values, dict) else enumerate(values)
    return [
        line
        for name, value in items
        for line in _flat(value, f"{prefix}.{name}" if prefix else str(name))
    ]


def _asset(name: str) -> str:
    folder = importlib.resources.files("niah") / "templates"
    return (folder / name).read_text(encoding="utf-8")
