"""One run or several as one HTML page that needs nothing else: no network, no folder beside it.

Everything that came from a model, a text or a file name reaches the page through Jinja's autoescape
or as JSON.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from niah.files import write_atomically
from niah.report import glossary
from niah.report.charts import Plate, make_plates, make_tables, text_table
from niah.report.drawing.palette import css_variables
from niah.report.heatmap import MAX_CELLS, make_heatmap
from niah.report.html.cells import CLASSES
from niah.report.html.data import page_json, page_questions
from niah.report.html.names import page_kinds, page_names
from niah.report.html.summary import Summary, alone_summaries
from niah.report.notices import notices
from niah.report.provenance import described
from niah.report.sentences import headline, of_two_runs, overall, saving, summed_up
from niah.report.tables import controls
from niah.runs.store import refuse_run_file
from niah.runs.tables import Run, load_runs
from niah.statistics.clusters import FEW_STREAMS
from niah.statistics.comparisons import Comparison, load_comparisons, slice_rows
from niah.statistics.intervals import BASELINE_FLOOR
from niah.statistics.noise import Noise, noise_floors, noise_text
from niah.text_format import counted, number_text, points, whole_points

MAX_PAGE_BYTES = 4_800_000
MAX_ALL_CELLS = 10_000  # of the views of all comparisons together


def write_report(runs: Sequence[Path], out: Path, floor: float = BASELINE_FLOOR) -> Path:
    """Write the page about `runs` and return its path.

    Args:
        runs: results folders; with several, arms are called FOLDER/ARM.
        out: a folder to hold index.html, or a file name that ends in .html.
        floor: baseline recall below which a tax is undefined.

    Raises:
        NiahError: a folder that holds no readable run, or is given twice.
    """
    target = out if out.suffix == ".html" else out / "index.html"
    refuse_run_file(target)
    page = render_page(load_runs(runs), floor)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, page.encode("utf-8", "replace"))
    return target


def render_page(runs: Sequence[Run], floor: float = BASELINE_FLOOR) -> str:
    """The page as text; the same runs give the same page. Questions fill what is left of it."""
    rows, comparisons = load_comparisons(runs, floor)
    noises = noise_floors(runs, floor)
    summaries = _summaries(rows, comparisons, noises)
    shown = summaries or list(alone_summaries(rows))
    data = {
        "comparisons": [summary.page_data() for summary in shown],
        "show": {run.name: f"niah show {shlex.quote(str(run.path))}" for run in runs},
        "floor": floor,
        "classes": CLASSES,
    }
    plates = make_plates(rows, comparisons)
    tables = {table.name: table for table in make_tables(rows, comparisons, noises)}
    content = {
        "title": " · ".join(run.name for run in runs),
        "heading": shown[0].sentence
        if len(shown) == 1
        else _heading(rows, comparisons, noises, shown),
        "lead": _lead(rows, comparisons),
        "sentences": summed_up(comparisons, rows, noises) or [each.sentence for each in shown],
        "summaries": summaries,
        "shown": shown,
        "names": page_names(runs, rows),
        "notices": notices(runs, rows, comparisons, noises),
        "noises": noises,
        "plates": _drawn(plates),
        "asked": tables.pop("asked", None),
        "tables": list(tables.values()),
        "slices": [(summary, slice_rows(summary.comparison)) for summary in summaries],
        "controls": text_table(controls(rows)),
        "runs": [described(run) for run in runs],
        "floor": floor,
        "glossary": glossary.groups(page_kinds(runs, rows)),
    }
    spent = len(_render(content, data | {"questions": page_questions(rows, 0)}).encode())
    return _render(content, data | {"questions": page_questions(rows, MAX_PAGE_BYTES - spent)})


def _summaries(
    rows: pd.DataFrame, comparisons: Sequence[Comparison], noises: Sequence[Noise]
) -> list[Summary]:
    """Where there are several, the notices alone say what each of them leaves out."""
    most = min(MAX_CELLS, MAX_ALL_CELLS // max(1, len(comparisons)))
    one = len(comparisons) == 1
    return [
        Summary(
            found,
            make_heatmap(found, most),
            headline(found, rows, noises, left_out=one),
            saving(rows, found),
        )
        for found in comparisons
    ]


def _heading(
    rows: pd.DataFrame,
    comparisons: Sequence[Comparison],
    noises: Sequence[Noise],
    shown: Sequence[Summary],
) -> str:
    if len(shown) == 1:
        return shown[0].sentence
    if comparisons:
        return overall(comparisons, rows, noises)
    return f"{counted(len(shown), 'arm')}, no two of which were asked the same questions."


def _lead(rows: pd.DataFrame, comparisons: Sequence[Comparison]) -> str:
    of_runs = {of_two_runs(comparison, rows) for comparison in comparisons}
    return glossary.lead(compressed=False in of_runs, repeated=True in of_runs)


def _drawn(plates: Sequence[Plate]) -> list[dict[str, Any]]:
    return [
        {
            "name": plate.name,
            "title": plate.title,
            "caption": plate.caption,
            "svg": Markup(plate.svg()),
            "table": plate.table(),
        }
        for plate in plates
    ]


def _render(content: dict[str, Any], data: dict[str, Any]) -> str:
    script = _asset("report.js")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("niah.report.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"points": points, "counted": counted, "whole": whole_points}
    environment.filters |= {"number": number_text, "noise": noise_text}
    environment.globals["few_streams"] = FEW_STREAMS
    return environment.get_template("report.html").render(
        **content,
        data=page_json(data),
        style=Markup(f":root {{ {css_variables()} }}\n{_asset('report.css')}"),  # nothing of a run
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _asset(name: str) -> str:
    folder = importlib.resources.files("niah.report.html") / "templates"
    return (folder / name).read_text(encoding="utf-8")
