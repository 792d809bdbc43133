"""The headline says no more than is shown, at the lengths it is shown for."""

from __future__ import annotations

from pathlib import Path

import pytest

from niah.compare import Comparison, load_comparisons
from niah.headline import headline, overall, saving
from niah.results import load_run
from tests.synthetic_rows import Synthetic, held_bytes, write_run


def sentence(tmp_path: Path, lengths: tuple[int, ...], dense: object, v4: object) -> str:
    arms = {"dense": dense, "v4": v4}
    made = Synthetic(lengths, repeats=6, arms=arms)  # type: ignore[arg-type]
    rows, (comparison,) = load_comparisons([load_run(write_run(tmp_path / "run", made))])
    return headline(comparison, rows)


@pytest.mark.parametrize(
    ("dense", "v4", "said"),
    [
        (1.0, 0.7, "At 1K tokens v4 loses"),
        (0.95, 1.0, "no difference in recall between v4 and dense is shown"),
        (0.1, 1.0, "The tax of v4 is undefined"),
    ],
)
def test_a_loss_is_said_only_where_it_is_shown(
    tmp_path: Path, dense: float, v4: float, said: str
) -> None:
    assert said in sentence(tmp_path, (1024,), lambda *_: dense, lambda *_: v4)


def kept(length: int) -> str:
    share = sum(held_bytes(length, True).values()) / sum(held_bytes(length, False).values())
    return f"keeps {100 * share:.0f}% of the cache bytes"


def test_the_saving_is_that_of_the_longest_length_with_a_tax(tmp_path: Path) -> None:
    fails = lambda length, *_: 0.1 if length > 8192 else 1.0  # noqa: E731
    said = sentence(tmp_path, (1024, 8192, 65536), fails, lambda *_: 0.5)
    assert said.startswith("Over 1K to 8K tokens v4 loses ")
    assert f"and {kept(8192)} at 8K." in said


def test_lengths_left_out_in_between_are_named(tmp_path: Path) -> None:
    fails = lambda length, *_: 0.1 if length == 4096 else 1.0  # noqa: E731
    said = sentence(tmp_path, (1024, 4096, 8192), fails, lambda *_: 0.5)
    assert said.startswith("Over 1K to 8K tokens (without 4K) v4 loses ")


def test_no_bytes_no_saving(tmp_path: Path) -> None:
    rows, (comparison,) = load_comparisons(
        [load_run(write_run(tmp_path / "run", Synthetic((1024,), repeats=2)))]
    )
    assert saving(rows, comparison) is not None
    assert saving(rows.assign(bytes_total=0), comparison) is None


def test_several_comparisons_are_summed_up(tmp_path: Path) -> None:
    arms = {"dense": lambda *_: 1.0, "a": lambda *_: 1.0, "b": lambda *_: 0.0}
    _, found = load_comparisons(
        [load_run(write_run(tmp_path / "run", Synthetic((1024,), repeats=2, arms=arms)))]
    )
    assert overall(found) == "2 comparisons: between 0.0 and 100.0 points of recall lost"
    never = [Comparison(c.title, c.baseline, c.compressed, c.pairs, 1.01) for c in found]
    assert overall([found[0], never[1]]).endswith("0.0 points of recall lost; 1 tax undefined")
    assert "none with a tax" in overall(never)
