"""Figures tell things apart, keep their axes whatever the names, and let no text collide."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from niah.report.charts import Plate, make_plates
from niah.report.drawing import palette, parts
from niah.report.drawing.figures import seconds_text
from niah.report.drawing.heatmap import draw_heatmaps, tax_limit
from niah.report.drawing.look import fitted
from niah.report.drawing.parts import shifts, thinned
from niah.report.drawing.theme import style
from niah.report.heatmap import make_heatmap
from niah.report.tables import LOST_BY, OUTCOMES
from niah.runs.tables import NUMBERS, load_run
from niah.statistics.comparisons import load_comparisons
from tests.synthetic_rows import Synthetic, write_run

MANY_WRONG = Synthetic(
    (1024,), arms={"dense": lambda *_: 1.0, "v4": lambda *_: 0.2}, families=("a", "b")
)
LENGTHS = tuple(1024 * 2**i for i in range(11))
LONG = "a-run-of-a-long-name-that-goes-on-and-on-and-on/and-an-arm-of-a-long-name-"


def plates(tmp_path: Path, made: Synthetic) -> dict[str, Plate]:
    rows, comparisons = load_comparisons([load_run(write_run(tmp_path / "run", made))])
    return {plate.name: plate for plate in make_plates(rows, comparisons)}


def many_arms(name: str, count: int = 8) -> Synthetic:
    arms = {"dense": lambda *_: 0.99, **{f"{name}{n}": lambda *_: 0.7 for n in range(count)}}
    return Synthetic(LENGTHS, (0.0, 0.5, 1.0), repeats=3, arms=arms)


def laid_out(figure: Figure) -> Figure:
    with style():
        FigureCanvasAgg(figure).draw()
    return figure


def overlapping(texts: Sequence[Text]) -> list[str]:
    shown = [text for text in texts if text.get_text() and text.get_visible()]
    boxes = sorted(
        ((text.get_window_extent(), text.get_text()) for text in shown), key=lambda b: b[0].x0
    )
    return [
        f"{a[1]} {b[1]}" for a, b in pairwise(boxes) if a[0].x1 > b[0].x0 and a[0].overlaps(b[0])
    ]


def test_kinds_have_colours_of_their_own() -> None:
    for colours, kinds in (
        (palette.OUTCOME_COLOURS, set(OUTCOMES) - {"exact"}),
        (palette.LOSS_COLOURS, {*LOST_BY, "elsewhere"}),
    ):
        assert set(colours) == kinds
        assert len(set(colours.values())) == len(colours)
    assert len(palette.THEMED) == len(set(palette.THEMED.values()))


def test_the_palette_is_the_only_place_of_its_colours() -> None:
    """The page gets them as variables; the style sheet and the script hold none of them."""
    folder = Path(palette.__file__).parents[1] / "html" / "templates"
    variables = dict(re.findall(r"--([\w-]+): (#\w+);", palette.css_variables()))
    assert {variables[name] for name in palette.THEMED.values()} == set(palette.THEMED)
    css = (folder / "report.css").read_text(encoding="utf-8")
    used = set(re.findall(r"var\(--((?:recall|tax|arm|kind|outcome|loss)-[\w-]+)\)", css))
    assert {"recall-low", "recall-high", "tax-zero", "tax-loss", "tax-gain"} <= used
    assert used <= set(variables)
    light = css[: css.index("@media")] + (folder / "report.js").read_text(encoding="utf-8")
    assert not [colour for colour in variables.values() if colour in light]
    dark = set(re.findall(r"--([\w-]+): #\w+;", css[css.index("@media") :]))
    assert dark <= {*variables, *re.findall(r"--([\w-]+): #\w+;", light)}


def test_scales_end_in_the_colours_that_the_page_gets() -> None:
    ends = [to_hex(palette.TAX_MAP(at)) for at in (0.0, 0.5, 1.0)]
    assert ends[::2] == [palette.SCALES["tax-gain"], palette.SCALES["tax-loss"]]
    assert to_hex(palette.RECALL_MAP(1.0)) == palette.SCALES["recall-high"]


def test_where_needles_were_lost_is_drawn_in_those_colours(tmp_path: Path) -> None:
    figure = plates(tmp_path, Synthetic((1024, 65536), repeats=6))["losses"].figure()
    drawn = {to_hex(bar.get_facecolor()) for bar in figure.axes[0].patches if bar.get_height()}
    assert {palette.LOSS_COLOURS["selection"], palette.LOSS_COLOURS["compression"]} <= drawn
    assert palette.MUTED not in drawn


def test_every_kind_of_error_is_drawn_in_its_own_colour(tmp_path: Path) -> None:
    made = replace(MANY_WRONG, repeats=6)
    run = write_run(tmp_path / "run", made)
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    wrong = [row for row in rows if row["arm"] == "v4" and not row["correct"]]
    kinds = [kind for kind in OUTCOMES if kind != "exact"]
    for row, kind in zip(wrong, cycle(kinds), strict=False):
        row["outcome"] = kind
    assert len(wrong) > len(kinds)
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows_, comparisons = load_comparisons([load_run(run)])
    (plate,) = [plate for plate in make_plates(rows_, comparisons) if plate.name == "outcomes"]
    panel = plate.figure().axes[1]
    drawn = [to_hex(bar.get_facecolor()) for bar in panel.patches if bar.get_height()]
    assert drawn == [palette.OUTCOME_COLOURS[kind] for kind in kinds]


def test_a_repeat_has_its_baselines_colour_and_no_place_among_compressed_arms(
    tmp_path: Path,
) -> None:
    arms = {"dense": lambda *_: 1.0, "v4": lambda *_: 0.5, "again": lambda *_: 0.9}
    found = plates(tmp_path, Synthetic((1024, 4096), (0.0, 0.5), repeats=4, arms=arms))
    styles = found["recall"].look.arms
    assert list(styles) == ["dense", "v4", "again"]
    assert styles["again"] == styles["dense"]._replace(repeats=True)
    line = found["recall"].figure().axes[0].containers[2].lines[0]
    assert (to_hex(line.get_color()), line.get_linestyle()) == (styles["dense"].colour, ":")
    for name in ("tax", "outcomes", "losses", "bytes", "phases", "logprob"):
        assert "again" not in set(found[name].frame["arm"])


def untold(rows: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """As if the models of `arms` told no seconds, bytes, ratios, log-probabilities or tokens."""
    known = ("depth", "actual_depth", "needle_start", "needle_end")
    numbers = [name for name in NUMBERS if name not in known]
    held = [name for name in rows if str(name).startswith("bytes_")]
    measured = [*numbers, *held]
    return rows.assign(**rows[measured].mask(rows["arm"].isin(arms)))


@pytest.mark.parametrize("arms", [["v4"], ["dense", "v4"]])
def test_what_was_not_measured_breaks_no_figure(tmp_path: Path, arms: list[str]) -> None:
    made = Synthetic((1024, 65536), (0.0, 0.5), corpora=("kjv", "python"), repeats=4)
    rows, comparisons = load_comparisons([load_run(write_run(tmp_path / "run", made))])
    told = untold(rows, arms)
    assert told.loc[told["arm"] == "v4", "decode_seconds"].isna().all()
    found = {plate.name: plate for plate in make_plates(told, comparisons)}
    for plate in found.values():
        laid_out(plate.figure())
        plate.table()
    assert ("seconds" in found) == (len(arms) == 1)
    assert ("bytes" in found) == (len(arms) == 1)
    only_decoding = told.assign(decode_seconds=rows["decode_seconds"], cold_prefill_seconds=np.nan)
    (seconds,) = [p for p in make_plates(only_decoding, comparisons) if p.name == "seconds"]
    titles = [axes.get_title("left") for axes in laid_out(seconds.figure()).axes]
    assert titles == ["Prefill of the prompt, s (not measured)", "Decoding, s"]


def test_an_arm_looks_the_same_in_every_figure_and_like_no_other(tmp_path: Path) -> None:
    found = plates(tmp_path, many_arms("v", 20))
    styles = found["recall"].look.arms
    assert len(set(styles.values())) == len(styles) == 21
    for name in ("recall", "seconds", "bytes"):
        axes = found[name].figure().axes[0]
        colours = [to_hex(line.get_color()) for line in axes.lines if len(line.get_xdata()) > 1]
        assert colours[: len(styles)] == [style.colour for style in styles.values()]
    taxed = found["tax"].figure().axes[0]
    drawn = [to_hex(bars.lines[0].get_color()) for bars in taxed.containers]
    assert drawn == [styles[arm].colour for arm in list(styles)[1:]]


def test_memories_have_a_row_an_arm_with_its_bytes_and_its_losses(tmp_path: Path) -> None:
    """A panel of bytes and one of points a length; bars end at the bytes that are gone."""
    arms = {"dense": lambda *_: 1.0, "v4": lambda *_: 1.0, f"{LONG}{LONG}": lambda *_: 0.0}
    arms["top-16"] = lambda *_: 0.5
    options = [{}, {}, {"without": "csa"}, {"question_topk": 16}]
    listed = [
        {"name": name, "model": "m" if place else "dense", "options": of}
        for place, (name, of) in enumerate(zip(arms, options, strict=True))
    ]
    made = Synthetic((1024, 4096), (0.0, 0.5), ("number", "word"), repeats=6, arms=arms)
    folder = write_run(tmp_path / "run", made, arms=listed)
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for line in lines:
        if line["arm"].startswith(LONG):
            line["cache_bytes"] |= {"csa": 0, "index": 0}
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows, comparisons = load_comparisons([load_run(folder)])
    (plate,) = [plate for plate in make_plates(rows, comparisons) if plate.name == "memories"]
    assert {"whole, %", "left, %", "tax, points", "csa", "gone"} <= set(plate.table()[0])
    figure = laid_out(plate.figure())
    assert len(figure.axes) == 4
    held, lost = figure.axes[2:]
    ends = [bar.get_x() + bar.get_width() for bar in held.patches]
    assert max(ends) == pytest.approx((4096 // 4 * 2 * (512 + 128)) / 2**20)
    assert held.get_xlabel() == "MiB gone"
    colours = {to_hex(bar.get_facecolor()) for bar in held.patches}
    assert colours == {palette.KINDS["csa"], palette.KINDS["index"]}
    found = [np.asarray(bars.lines[0].get_xdata(), dtype=float) for bars in lost.containers]
    assert [points[0] for points in found] == [100, 100]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[1] == "top-16"
    assert len(names[0]) <= 24
    assert held.get_window_extent().width > 0.25 * figure.bbox.width


@pytest.mark.parametrize("name", ["v", LONG])
def test_axes_keep_their_width_and_texts_their_room(tmp_path: Path, name: str) -> None:
    for plate in plates(tmp_path, many_arms(name)).values():
        figure = laid_out(plate.figure())
        inner = figure.bbox
        for axes in figure.axes:
            columns = axes.get_subplotspec().get_gridspec().ncols
            if axes.axison:
                assert axes.get_window_extent().width > 0.6 * inner.width / columns
            assert overlapping(axes.get_xticklabels()) == []
        assert overlapping([axes._left_title for axes in figure.axes]) == []
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert box.x1 <= inner.x1 + 1
            assert box.y0 >= inner.y0 - 1


def test_arms_of_one_technique_have_one_colour() -> None:
    techniques = {"dense": "", "fp8": "format", "snapkv": "eviction", "int4": "format"}
    found = palette.arm_styles(techniques)
    colours = {arm: style.colour for arm, style in found.items()}
    assert list(found) == list(techniques)
    assert colours["fp8"] == colours["int4"]
    assert len(set(colours.values())) == 3
    assert len({(style.colour, style.marker) for style in found.values()}) == 4
    many = {f"arm-{number}": "format" for number in range(12)}
    assert palette.arm_styles(many) == palette.arm_styles(dict.fromkeys(many, ""))


def test_the_last_length_is_labelled(tmp_path: Path) -> None:
    for name, plate in plates(tmp_path, Synthetic(LENGTHS, (0.5,), repeats=3)).items():
        if name != "phases":
            labels = [label.get_text() for label in plate.figure().axes[0].get_xticklabels()]
            assert labels[-1] == "1M"


def test_tables_name_their_units(tmp_path: Path) -> None:
    """`compressed` is a recall in one table and, in older rows, a kind of bytes in another."""
    made = Synthetic((1024, 4096), families=("single_number", "single_word"), repeats=3)
    found = plates(tmp_path, made)
    older = found["bytes"].frame.rename(columns={"csa": "compressed"}).drop(columns="hca")
    headers, lines = replace(found["bytes"], frame=older).table()
    kept = older["compressed"]
    assert "compressed" in headers
    assert [line[headers.index("compressed")] for line in lines] == [f"{n:,.0f}" for n in kept]
    headers, _ = found["families"].table()
    assert {"compressed, %", "tax, points", "low, points", "high, points"} <= set(headers)
    headers, _ = found["recall"].table()
    assert {"recall, %", "low, %"} <= set(headers)


def test_a_heatmap_shows_the_scales_of_its_colours(tmp_path: Path) -> None:
    arms = {"dense": lambda *_: 1.0, "v4": lambda *_: 0.5}
    run = write_run(tmp_path / "run", Synthetic((1024, 4096), (0.0, 0.5), arms=arms))
    _, (found,) = load_comparisons([load_run(run)])
    heatmap = make_heatmap(found)
    with style():
        figure = laid_out(draw_heatmaps(heatmap, "dense", "v4"))
    *panels, recall, tax = figure.axes
    assert [text.get_text() for text in recall.texts] == ["0", "100"]
    limit = f"{100 * tax_limit(heatmap):.0f}"
    assert [text.get_text() for text in tax.texts] == [f"−{limit} gained", f"lost +{limit}"]
    assert panels[0].images[0].get_clim() == panels[1].images[0].get_clim() == (0, 1)
    below = min(panel.get_tightbbox().y0 for panel in panels)
    for bar in (recall, tax):
        assert bar.get_tightbbox().y1 < below
        assert bar.get_tightbbox().x1 <= figure.bbox.x1


def test_hours_are_written_out() -> None:
    assert [seconds_text(n) for n in (8192, 128, 2, 0.125)] == ["8,192", "128", "2", "0.125"]


def test_labels_that_do_not_fit_are_thinned() -> None:
    assert thinned([0, 1, 2, 3], ["1K"] * 4, 5.0) == [0, 1, 2, 3]
    assert thinned(range(11), ["128K"] * 11, 2.2) == [0, 2, 4, 6, 8, 10]
    assert thinned([0, 1, 1.02, 1.04], ["1K", "2K", "3K", "4K"], 3.0) == [0, 3]


@pytest.mark.parametrize("arms", [1, 2, 8, 40])
@pytest.mark.parametrize("spacing", [1.0, 8.0])
def test_shifts_are_centred_and_stay_at_their_residue(arms: int, spacing: float) -> None:
    moves = shifts(arms, spacing)
    assert moves.mean() == pytest.approx(0)
    assert np.abs(moves).max() < spacing / 2
    assert len(set(moves)) == arms


def test_a_phase_point_is_nearest_to_its_own_residue(tmp_path: Path) -> None:
    plate = plates(tmp_path, many_arms("v"))["phases"]
    figure = plate.figure()
    for axes in figure.axes:
        residues = plate.frame.loc[
            plate.frame["phase"] == axes.get_title("left"), "residue"
        ].unique()
        for bars in axes.containers:
            at = np.asarray(bars.lines[0].get_xdata(), dtype=float)
            nearest = [residues[np.abs(residues - x).argmin()] for x in at]
            assert len(set(nearest)) == len(nearest)


def test_residues_that_are_the_same_are_drawn_once(tmp_path: Path) -> None:
    figure = plates(tmp_path, Synthetic((1024, 1025, 1026, 1027), (0.5,)))["phases"].figure()
    titles = [axes.get_title("left") for axes in figure.axes if axes.axison]
    assert "Length mod 4" in titles
    assert "Length mod 128" not in titles


def test_markers_of_decoding_are_whole(tmp_path: Path) -> None:
    """Where medians hardly differ, and where they are zero."""
    plate = plates(tmp_path, Synthetic((1024, 4096), (0.5,), repeats=3))["seconds"]
    for most in (0.0501, 0.0):
        seconds = np.linspace(most - most / 500, most, len(plate.frame))
        figure = laid_out(replace(plate, frame=plate.frame.assign(decode_seconds=seconds)).figure())
        axes = figure.axes[1]
        marker = axes.lines[0].get_markersize() / 2 * figure.dpi / 72
        top = axes.transData.transform((0, most))[1]
        assert top + marker < axes.get_window_extent().y1


@pytest.mark.parametrize("name", ["recall", "pareto"])
def test_markers_at_both_ends_of_recall_are_whole(tmp_path: Path, name: str) -> None:
    arms = {"dense": lambda *_: 1.0, "none": lambda *_: 0.0, "also": lambda *_: 0.0}
    found = plates(tmp_path, Synthetic((1024, 4096), (0.5,), repeats=3, arms=arms))
    axes = laid_out(found[name].figure()).axes[0]
    marker = parts.MARK["markersize"] / 2 * axes.figure.dpi / 72
    box = axes.get_window_extent()
    (_, bottom), (_, top) = axes.transData.transform([(1024, 0.0), (1024, 1.0)])
    assert box.y0 < bottom - marker
    assert top + marker < box.y1
    assert min(axes.get_yticks()) == pytest.approx(0)


def test_recall_has_no_tick_above_all(tmp_path: Path) -> None:
    axes = plates(tmp_path, Synthetic((1024, 4096), repeats=2))["recall"].figure().axes[0]
    assert max(axes.get_yticks()) <= 1


def test_the_tax_line_breaks_where_it_is_undefined(tmp_path: Path) -> None:
    arms = {"dense": lambda length, *_: 0.1 if length == 4096 else 1.0, "v4": lambda *_: 0.9}
    made = Synthetic((1024, 4096, 8192), repeats=6, arms=arms)
    bars = plates(tmp_path, made)["tax"].figure().axes[0].containers[0]
    assert np.isnan(np.asarray(bars.lines[0].get_ydata(), dtype=float)).tolist() == [
        False,
        True,
        False,
    ]


def test_names_are_shortened_and_told_apart() -> None:
    names = [f"{LONG}{n}{LONG}" for n in range(3)]
    short = fitted(names, 20)
    assert len(set(short.values())) == 3
    assert all(len(line) <= 20 for text in short.values() for line in text.split("\n"))
    assert fitted(["v4"], 20) == {"v4": "v4"}


def test_a_frame_without_wrong_answers_can_be_drawn(tmp_path: Path) -> None:
    sure = {"dense": lambda *_: 1.0, "v4": lambda *_: 1.0}
    found = plates(tmp_path, Synthetic((1024,), (0.5,), repeats=3, arms=sure))
    assert isinstance(found["outcomes"].frame, pd.DataFrame)
    for plate in found.values():
        laid_out(plate.figure())
