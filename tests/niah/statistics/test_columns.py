"""Labels of an axis say what is there: a bin its range, two depths never the same."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from niah.report.heatmap import make_heatmap
from niah.runs.tables import PHASES, load_run
from niah.statistics.columns import EXACT, FILTERS, SLICES, axis_labels
from niah.statistics.comparisons import axis_values, load_comparisons, slice_rows
from tests.niah.report.pages import CHOICES, page_data, page_of
from tests.synthetic_rows import Synthetic, write_run


def binned(values: list[float], axis: str) -> list[str]:
    exact = pd.Series(values)
    name = axis.replace("at_", "exact_")
    frame = pd.DataFrame({axis: axis_values(exact, axis), name: exact})
    return list(axis_labels(frame, axis).values())


def test_slices_filters_and_axes_are_one_table() -> None:
    assert list(EXACT) == ["at_length", "at_depth"]
    assert [column.name for column in FILTERS] == [name for name in SLICES if name not in EXACT]
    assert {SLICES[name] for name in PHASES} == {
        f"{of} mod {modulus}" for of in ("Length", "Needle start") for modulus in (4, 128)
    }


def test_a_value_of_its_own_is_called_by_it() -> None:
    assert binned([1024, 4096, 1048576], "at_length") == ["1K", "4K", "1M"]
    assert binned([0.0, 0.1, 1.0], "at_depth") == ["0%", "10%", "100%"]


def test_depths_close_together_get_more_digits() -> None:
    assert binned([0.0, 0.002, 0.004, 0.5], "at_depth") == ["0.0%", "0.2%", "0.4%", "50.0%"]


def test_bins_are_called_by_what_is_in_them() -> None:
    lengths = binned([1024.0 * k for k in range(1, 25)], "at_length")
    assert lengths == ["1K", "2K–3K", "4K–7K", "8K–15K", "16K–24K"]
    depths = binned([k / 40 for k in range(41)], "at_depth")
    assert depths[0] == "0–2%"
    assert depths[-1] == "95–100%"


@pytest.mark.parametrize(("depth", "bin_"), [(0.05, 0.1), (0.15, 0.2), (0.25, 0.3), (0.35, 0.4)])
def test_a_depth_between_two_tenths_goes_up(depth: float, bin_: float) -> None:
    many = pd.Series([depth, *(k / 100 for k in range(60, 90))])
    assert axis_values(many, "at_depth")[0] == pytest.approx(bin_)


def test_cells_and_slices_of_depths_close_together_stay_apart(tmp_path: Path) -> None:
    made = Synthetic((1024,), (0.0, 0.002, 0.004), repeats=4)
    run = write_run(tmp_path / "run", made)
    _, (comparison,) = load_comparisons([load_run(run)])
    assert len(make_heatmap(comparison).whole) == 3
    assert [s.value for s in slice_rows(comparison) if s.what == "Depth"] == [
        "0.0%",
        "0.2%",
        "0.4%",
    ]
    data = page_data(page_of(tmp_path, run))
    (view,), listed = data["comparisons"], data["questions"]
    places = [listed["tables"]["at_depth"][line[1]] for line in listed["lines"]]
    assert {place: places.count(place) for place in view["at_depth"]} == {
        0.0: 4,
        0.002: 4,
        0.004: 4,
    }


def test_phases_modulo_128_can_be_chosen_where_a_sweep_visits_them(tmp_path: Path) -> None:
    made = Synthetic((1024,), (0.0, 0.5), repeats=4)
    phase = {"modulus": 128, "residues": [0, 64]}
    runs = [
        write_run(tmp_path / "plain", made),
        write_run(tmp_path / "phased", made, needle_phase=phase),
    ]
    plain, phased = ({found.name: load(run).options for found in load(run).filters} for run in runs)
    assert "needle_mod_128" not in plain
    residues = phased["needle_mod_128"]["needle_mod_128"]
    assert residues == sorted(residues, key=int)
    listed = page_data(page_of(tmp_path, runs[1]))["questions"]
    place = listed["filters"].index("needle_mod_128")
    found = {listed["tables"]["needle_mod_128"][line[CHOICES][place]] for line in listed["lines"]}
    assert found == set(residues)


def load(run: Path):  # type: ignore[no-untyped-def]
    return make_heatmap(load_comparisons([load_run(run)])[1][0])
