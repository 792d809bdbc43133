"""The headline says no more than is shown, at the lengths it is shown for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from niah.report.sentences import headline, of_two_runs, overall, saving, summed_up
from niah.runs.tables import load_run
from niah.statistics.comparisons import Comparison, load_comparisons
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


def title(tmp_path: Path, floor: float = 0.5, **chances: float) -> str:
    """Of a run in which an arm a name answers what the baseline does with that chance."""
    arms = {"dense": lambda *_: 1.0} | {name: lambda *_, c=c: c for name, c in chances.items()}
    run = write_run(tmp_path / "run", Synthetic((1024,), repeats=6, arms=arms))  # type: ignore[arg-type]
    rows, found = load_comparisons([load_run(run)], floor)
    return overall(found, rows)


@pytest.mark.parametrize(
    ("chances", "said"),
    [
        ({"a": 1.0, "b": 1.0, "c": 0.97}, r"No loss is shown in any of 3 comparisons\."),
        ({"a": 0.6, "b": 0.5}, r"Both compressed arms lose recall: \d+\.\d to \d+\.\d points\."),
        ({"a": 0.0, "b": 0.0, "c": 0.0}, r"All 3 .* arms lose recall: 100\.0 points each\."),
        (
            {"a": 1.0, "b": 0.6, "c": 1.0},
            r"1 of 3 compressed arms loses recall: \d\d\.\d points \(95%: \d.* to \d.*\)\.",
        ),
        (
            {"a": 0.0, "b": 0.0, "c": 1.0},
            r"2 of 3 compressed arms lose recall: 100\.0 points each\.",
        ),
    ],
)
def test_a_title_counts_only_the_losses_that_are_shown(
    tmp_path: Path, chances: dict[str, float], said: str
) -> None:
    assert re.fullmatch(said, title(tmp_path, **chances))


def test_many_comparisons_are_told_by_what_they_show(tmp_path: Path) -> None:
    chances = {"half": 0.5, "most": 0.8, "same": 1.0, "also": 1.0, "none": 0.0}
    arms = {"dense": lambda *_: 1.0} | {
        name: lambda *_, chance=chance: chance for name, chance in chances.items()
    }
    made = Synthetic((1024, 4096), repeats=6, arms=arms)
    rows, comparisons = load_comparisons([load_run(write_run(tmp_path / "run", made))])
    taxes = {found.compressed: found.tax for found in comparisons if found.tax}
    lost = {name: f"{100 * taxes[name].value:.1f}" for name in ("most", "half", "none")}
    high = f"{100 * taxes['same'].interval.high:.1f}"
    assert [text.replace("\N{NO-BREAK SPACE}", " ") for text in summed_up(comparisons, rows)] == [
        "Over 1K to 4K tokens 3 arms lose recall against dense, in points: "
        f"most {lost['most']}, half {lost['half']}, none {lost['none']}.",
        "Over 1K to 4K tokens no difference in recall from dense is shown for 2 arms. "
        f"The largest loss that fits, in points: also {high}, same {high}.",
    ]
    few = comparisons[:4]
    assert summed_up(few, rows) == [headline(found, rows, left_out=False) for found in few]


def test_of_many_a_tax_that_is_undefined_has_a_sentence_of_its_own(tmp_path: Path) -> None:
    arms = {"dense": lambda *_: 0.1} | {f"v{n}": lambda *_: 0.1 for n in range(5)}
    made = Synthetic((1024,), repeats=6, arms=arms)  # type: ignore[arg-type]
    rows, comparisons = load_comparisons([load_run(write_run(tmp_path / "run", made))])
    assert [text.split(" is ")[0] for text in summed_up(comparisons, rows)] == [
        f"The tax of v{n}" for n in range(5)
    ]


def swapped(comparison: Comparison) -> Comparison:
    """As if the compressed arm had recalled what the baseline did, and the reverse."""
    sides = {"baseline": "compressed", "compressed": "baseline"}
    return replace(comparison, pairs=comparison.pairs.rename(columns=sides), floor=0.0)


def test_a_gain_is_told_apart_and_never_as_a_negative_loss(tmp_path: Path) -> None:
    arms = {"dense": lambda *_: 1.0, "a": lambda *_: 0.7, "b": lambda *_: 0.7}
    made = Synthetic((1024,), repeats=6, arms=arms)
    rows, found = load_comparisons([load_run(write_run(tmp_path / "run", made))])
    said = overall([found[0], swapped(found[1])], rows)
    assert re.fullmatch(r"1 of 2 .* loses recall: [^−]*; 1 recalls more: [^−]*\.", said)
    said = overall([swapped(one) for one in found], rows)
    assert said.startswith("No loss is shown in any of 2 comparisons; 2 recall more: ")
    assert "−" not in said


def test_undefined_taxes_are_counted_apart(tmp_path: Path) -> None:
    made = Synthetic((1024,), repeats=3, arms=dict.fromkeys("xyz", lambda *_: 1.0))
    rows, found = load_comparisons([load_run(write_run(tmp_path / "run", made))])
    never = [replace(one, floor=1.01) for one in found]
    said = overall([found[0], never[1]], rows)
    assert said == "No loss is shown in any of 2 comparisons; 1 is undefined."
    assert overall(never, rows) == "No tax is defined in 2 comparisons."


def two_runs(tmp_path: Path, second: float) -> tuple[pd.DataFrame, list[Comparison]]:
    """Runs a and b of the same questions; arm v4 recalls all in a, the share `second` in b."""
    runs = [
        write_run(tmp_path / name, Synthetic((1024,), repeats=6, arms=arms))
        for name, arms in (
            ("a", {"dense": lambda *_: 1.0, "v4": lambda *_: 1.0}),
            ("b", {"dense": lambda *_: 1.0, "v4": lambda *_: second}),
        )
    ]
    return load_comparisons([load_run(run) for run in runs])


def test_runs_set_against_each_other_are_no_loss_by_compression(tmp_path: Path) -> None:
    rows, found = two_runs(tmp_path / "same", 1.0)
    assert [of_two_runs(one, rows) for one in found] == [False, False, True, True]
    assert overall(found, rows) == (
        "No loss is shown in any of 2 comparisons. "
        "No difference between runs is shown in any of 2 comparisons."
    )
    assert overall(found[2:], rows) == (
        "No difference between runs is shown in any of 2 comparisons."
    )
    rows, found = two_runs(tmp_path / "other", 0.0)
    said = overall(found, rows)
    assert said.startswith("1 of 2 compressed arms loses recall: 100.0 points (95%: ")
    assert said.endswith(". A difference between runs is shown in 1 of 2 comparisons.")


def test_the_sentence_on_two_runs_speaks_of_no_tax(tmp_path: Path) -> None:
    rows, found = two_runs(tmp_path, 0.5)
    dense, v4 = (headline(one, rows) for one in found[2:])
    assert dense.startswith(
        "At 1K tokens no difference in recall between b/dense and a/dense is shown: anything from "
    )
    assert re.search(r"from \d+\.\d points less to \d+\.\d more fits 66 paired questions", dense)
    assert re.search(r"b/v4 recalls \d\d\.\d points less than a/v4 \(95%: \d", v4)
    assert re.search(r"b/v4 recalls \d\d\.\d points more", headline(swapped(found[3]), rows))
    assert "tax" not in dense + v4
    assert "cache" not in dense + v4


def test_what_is_left_out_can_be_left_to_the_notices(tmp_path: Path) -> None:
    arms = {"dense": lambda length, *_: 0.1 if length > 2048 else 1.0, "v4": lambda *_: 0.9}
    made = Synthetic((1024, 4096), repeats=6, arms=arms)
    rows, (found,) = load_comparisons([load_run(write_run(tmp_path / "run", made))])
    assert "Left out are 66 of 132 questions" in headline(found, rows)
    assert "Left out" not in headline(found, rows, left_out=False)
