"""The gate passes, fails and abstains when it should, and refuses what does not pair."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from niah.errors import NiahError
from niah.gate.formats import as_json, as_junit, as_markdown, as_text
from niah.gate.verdict import decide, run_gate
from niah.runs.tables import QUESTION
from niah.statistics.comparisons import Comparison
from tests.synthetic_rows import Synthetic, write_run

LENGTHS = (1024, 4096)


def keeps(share: float) -> Callable[[int, float, str], float]:
    return lambda length, depth, family: share


def made(kept: float, repeats: int = 20, **changes: Any) -> Synthetic:
    arms = {"dense": keeps(0.97), "v4": keeps(kept)}
    return Synthetic(**{"lengths": LENGTHS, "repeats": repeats, "arms": arms, **changes})


def test_passes_where_little_is_lost(tmp_path: Path) -> None:
    result = run_gate(write_run(tmp_path / "good", made(0.995)), None, 0.03)
    assert (result.verdict, result.exit_code) == ("pass", 0)
    assert as_text(result).startswith("PASS")


def test_fails_where_much_is_lost(tmp_path: Path) -> None:
    result = run_gate(write_run(tmp_path / "bad", made(0.85)), None, 0.03)
    assert (result.verdict, result.exit_code) == ("fail", 1)
    assert "overall" in as_text(result).splitlines()[0]


def test_abstains_with_few_pairs_and_says_how_many_more(tmp_path: Path) -> None:
    result = run_gate(write_run(tmp_path / "few", made(0.97, repeats=3)), None, 0.02)
    overall = result.checks[0]
    assert (result.verdict, result.exit_code) == ("inconclusive", 3)
    assert not overall.errors_decide
    assert overall.more_pairs is not None
    assert f"{overall.more_pairs:,} more pairs" in as_text(result)


@pytest.mark.slow
@pytest.mark.parametrize(("kept", "verdict"), [(0.97, "pass"), (0.86, "fail")])
def test_the_advice_is_enough(tmp_path: Path, kept: float, verdict: str) -> None:
    """With as many pairs as advised, a truth as was seen is decided four times of five."""
    few = run_gate(write_run(tmp_path / "few", made(kept, repeats=3)), None, 0.06).checks[0]
    assert few.verdict == "inconclusive"
    assert few.more_pairs is not None
    repeats = -(-(few.tax.pairs + few.more_pairs) * 3 // few.tax.pairs)
    found = []
    for seed in range(8):
        many = made(few.tax.compressed / few.tax.baseline, repeats=repeats, seed=seed)
        run = write_run(tmp_path / f"many-{seed}", many)
        found.append(run_gate(run, None, 0.06, slices=()).checks[0].verdict)
    assert found.count(verdict) >= 5
    assert set(found) <= {verdict, "inconclusive"}


def test_a_huge_loss_in_two_streams_is_inconclusive(tmp_path: Path) -> None:
    arms = {"dense": keeps(1.0), "v4": keeps(0.02)}
    made_of = made(1.0, repeats=2, lengths=(1024,), depths=(0.5,), families=("single",), arms=arms)
    overall = run_gate(write_run(tmp_path / "run", made_of), None, 0.02).checks[0]
    assert overall.tax.value == 1
    assert overall.verdict == "inconclusive"
    assert "2 streams whose sizes make them worth 2.0, where 3 are needed" in overall.reason


def test_one_bad_slice_fails_a_good_whole(tmp_path: Path) -> None:
    def forgets_one_family(length: int, depth: float, family: str) -> float:
        return 0.6 if family == "uuid" else 1.0

    families = ("single", "multi", "uuid")
    arms = {"dense": keeps(1.0), "v4": forgets_one_family}
    run = write_run(tmp_path / "slice", made(1.0, families=families, arms=arms))
    result = run_gate(run, None, 0.2)
    assert result.checks[0].verdict == "pass"
    assert result.exit_code == 1
    assert [check.name for check in result.checks if check.verdict == "fail"] == [
        "Needle family uuid"
    ]


def test_slices_have_to_pass_only_if_required(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", made(0.99, repeats=16))
    assert run_gate(run, None, 0.04).exit_code == 0
    strict = run_gate(run, None, 0.04, require_slices=True, slices=("at_depth",))
    assert strict.exit_code == 3


def test_questions_of_one_stream_decide_nothing(tmp_path: Path) -> None:
    result = run_gate(write_run(tmp_path / "one", made(1.0, repeats=1)), None, 0.3)
    assert result.exit_code == 3
    assert "repeats: 3" in as_text(result)


def test_a_weak_baseline_is_no_pass(tmp_path: Path) -> None:
    arms = {"dense": keeps(0.2), "v4": keeps(1.0)}
    run = write_run(tmp_path / "weak", made(1.0, arms=arms))
    result = run_gate(run, None, 0.05)
    assert (result.verdict, result.exit_code) == ("undefined", 3)
    assert "below the floor" in as_text(result)


def test_the_unanswerable_does_not_thin_out_a_slice(tmp_path: Path) -> None:
    """Two families at one length; the baseline answers one, and there 20 points are lost."""

    def baseline(length: int, depth: float, family: str) -> float:
        return 0.05 if family == "uuid" else 1.0

    def compressed(length: int, depth: float, family: str) -> float:
        return 0.8 if length == 4096 else 1.0

    arms = {"dense": baseline, "v4": compressed}
    run = write_run(tmp_path / "run", made(1.0, families=("single", "uuid"), arms=arms))
    result = run_gate(run, None, 0.15, slices=("at_length",), require_slices=True)
    named = {check.name: check for check in result.checks}
    assert named["Length 4K"].tax.value == pytest.approx(0.2, abs=0.05)
    assert named["Length 4K"].tax.pairs == 220
    assert result.exit_code != 0
    assert "440 of 880 pairs are left out of the tax" in as_text(result)
    assert "(uuid, 1K, trained; uuid, 1K, unseen; uuid, 4K, trained" in as_text(result)


def test_an_arm_that_broke_at_one_length_is_not_left_out(tmp_path: Path) -> None:
    """A baseline that ran out of memory there recalled nothing, which says nothing of it."""
    arms = {"dense": keeps(1.0), "v4": lambda length, *_: 0.5 if length == 4096 else 1.0}
    run = write_run(tmp_path / "run", made(1.0, arms=arms))
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        if row["arm"] == "dense" and row["length"] == 4096:
            row |= {"correct": None, "outcome": "error", "error": "MemoryError: full"}
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run_gate(run, None, 0.03)
    assert result.exit_code == 3
    assert "220 errors or missing answers could turn the verdict" in result.checks[0].reason
    assert result.checks[0].errors_decide


def one_residue_fails(folder: Path, spec: dict[str, object]) -> Path:
    """Needles at residue 3 modulo 4 are all lost; the others never."""
    run = write_run(folder, made(1.0, arms={"dense": keeps(1.0), "v4": keeps(1.0)}), **spec)
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        if row["arm"] == "v4" and row["needle_start"] % 4 == 3:
            row |= {"correct": False, "outcome": "invented"}
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def test_one_bad_residue_fails_a_sweep_over_phases(tmp_path: Path) -> None:
    phase = {"needle_phase": {"modulus": 4, "residues": [0, 1, 2, 3]}}
    result = run_gate(one_residue_fails(tmp_path / "asked", phase), None, 0.35)
    failed = [check.name for check in result.checks if check.verdict == "fail"]
    assert failed == ["Needle start mod 4 3"]
    assert result.exit_code == 1
    other = run_gate(one_residue_fails(tmp_path / "not", {}), None, 0.35)
    assert not [check for check in other.checks if "mod" in check.what]


def test_errors_cannot_buy_a_pass(tmp_path: Path) -> None:
    clean = run_gate(write_run(tmp_path / "clean", made(1.0)), None, 0.03)
    assert clean.exit_code == 0
    broken = run_gate(write_run(tmp_path / "broken", made(1.0, error_every=9)), None, 0.03)
    assert broken.exit_code != 0
    assert any("error" in note for note in broken.notes)


def cut(run: Path, share: float) -> Path:
    """The run as it was when `share` of its rows, of both arms, had been written."""
    lines = (run / "rows.jsonl").read_text().splitlines(keepends=True)
    (run / "rows.jsonl").write_text("".join(lines[: round(share * len(lines) / 2) * 2]))
    return run


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_an_interrupted_run_does_not_pass(tmp_path: Path, share: float) -> None:
    run = write_run(tmp_path / "cut", made(1.0))
    assert run_gate(run, None, 0.03).exit_code == 0
    result = run_gate(cut(run, share), None, 0.03)
    assert result.exit_code == 3
    if share == 0.9:  # enough for a pass, were the rest as good
        assert "44 errors or missing answers could turn the verdict" in result.checks[0].reason
    asked = result.checks[0].tax.pairs
    assert asked == round(share * 440)
    assert f"{440 - asked} of 440 questions were not put to both arms" in as_text(result)


def test_an_arm_ahead_of_the_other_is_no_loss(tmp_path: Path) -> None:
    """The last stream before Ctrl-C has answers of one arm only: they are missing, not wrong."""
    arms = {"dense": keeps(1.0), "v4": keeps(1.0)}
    run = write_run(tmp_path / "cut", made(1.0, arms=arms))
    lines = (run / "rows.jsonl").read_text().splitlines(keepends=True)
    kept = [line for number, line in enumerate(lines) if number % 2 == 0 or number < 600]
    (run / "rows.jsonl").write_text("".join(kept))
    result = run_gate(run, None, 0.03)
    assert result.exit_code == 3
    assert (result.checks[0].tax.pairs, result.checks[0].tax.lost) == (300, 0)
    assert result.checks[0].bounds.unanswered == 140
    assert result.checks[0].bounds.p_at_most > 0.5


def test_a_verdict_that_missing_answers_cannot_turn_stands(tmp_path: Path) -> None:
    good = cut(write_run(tmp_path / "good", made(1.0)), 0.995)
    assert run_gate(good, None, 0.05).exit_code == 0
    bad = cut(write_run(tmp_path / "bad", made(0.5)), 0.9)
    assert run_gate(bad, None, 0.05).exit_code == 1


def test_questions_that_only_the_reference_has_are_missing(tmp_path: Path) -> None:
    before = write_run(tmp_path / "before", made(0.97))
    now = cut(write_run(tmp_path / "now", made(0.97)), 0.7)
    for planned in (True, False):
        result = run_gate(now, before, 0.03)
        assert result.exit_code == 3
        missing = {check.bounds.unanswered for check in result.checks if check.what == "overall"}
        assert missing == {132}
        if planned:
            (now / "planned.jsonl").unlink()  # as in a folder from before it was kept


@pytest.mark.parametrize(("kept", "code"), [(0.97, 0), (0.80, 1)])
def test_against_an_earlier_run(tmp_path: Path, kept: float, code: int) -> None:
    before = write_run(tmp_path / "before", made(0.97))
    now = write_run(tmp_path / "now", made(kept))
    assert run_gate(now, before, 0.03).exit_code == code


def test_what_recalled_little_can_still_regress(tmp_path: Path) -> None:
    before = write_run(tmp_path / "before", made(0.45))
    now = write_run(tmp_path / "now", made(0.1))
    assert run_gate(now, before, 0.05).exit_code == 1


def refused(now: Path, before: Path) -> str:
    with pytest.raises(NiahError) as refusal:
        run_gate(now, before, 0.03)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_refuses_other_questions_and_says_what_differs(tmp_path: Path) -> None:
    before = write_run(tmp_path / "before", made(1.0))
    other = write_run(tmp_path / "other", made(1.0, lengths=(1024, 8192)))
    message = refused(other, before)
    assert "do not pair" in message
    assert "lengths = [1024, 4096], now [1024, 8192]" in message


def test_refuses_other_tokens(tmp_path: Path) -> None:
    before = write_run(tmp_path / "before", made(1.0))
    now = write_run(tmp_path / "now", made(1.0, seed=1))
    environment = json.loads((now / "environment.json").read_text())
    environment["identity"]["tokenizer"] = "bpe-2"
    (now / "environment.json").write_text(json.dumps(environment))
    assert 'tokenizer = "bpe-1", now "bpe-2"' in refused(now, before)


def test_refuses_other_weights_of_the_same_name(tmp_path: Path) -> None:
    before = write_run(tmp_path / "before", made(1.0))
    now = write_run(tmp_path / "now", made(1.0, weights="weights-2"))
    assert "has other weights (fingerprint weights-2, was weights-1)" in refused(now, before)


def test_other_options_are_what_is_under_test(tmp_path: Path) -> None:
    def arms(top_k: int) -> list[dict[str, object]]:
        return [{"name": "dense"}, {"name": "v4", "options": {"index_topk": top_k}}]

    before = write_run(tmp_path / "before", made(1.0), arms=arms(64))
    now = write_run(tmp_path / "now", made(1.0, weights="weights-2"), arms=arms(16))
    environment = json.loads((now / "environment.json").read_text())
    environment["identity"]["models"]["dense"] = "weights-1"
    (now / "environment.json").write_text(json.dumps(environment))
    result = run_gate(now, before, 0.03)
    assert result.exit_code == 0
    assert "arm v4: index_topk = 64, now 16" in result.notes


def test_other_weights_are_refused_behind_other_options(tmp_path: Path) -> None:
    runs = []
    for name, top_k in (("before", 64), ("now", 16)):
        arms = [{"name": "dense"}, {"name": "v4", "options": {"index_topk": top_k}}]
        runs.append(write_run(tmp_path / name, made(1.0, weights=f"all-{name}"), arms=arms))
        environment = json.loads((runs[-1] / "environment.json").read_text())
        environment["identity"]["models"]["dense"] = "all"
        environment["models"] = {"v4": {"weights_fingerprint": f"weights-{name}"}}
        (runs[-1] / "environment.json").write_text(json.dumps(environment))
    assert "has other weights (weights weights-now, was weights-before)" in refused(*runs[::-1])


def test_of_several_arms_the_one_that_failed_is_named(tmp_path: Path) -> None:
    arms = {"dense": keeps(1.0), "good": keeps(1.0), "bad": keeps(0.5), "few": keeps(0.97)}
    result = run_gate(write_run(tmp_path / "run", made(1.0, arms=arms)), None, 0.03)
    first = as_text(result).splitlines()[0]
    assert "(bad against dense: overall" in first
    assert "good" not in first
    for text in (as_text(result), as_markdown(result)):
        assert "few against dense, overall: neither shown" in text.replace("\\", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_tax": 2}, "max_tax is 2; a share from 0 to less than 1"),
        ({"max_tax": float("nan")}, "max_tax is nan"),
        ({"max_tax": 0.02, "max_slice_tax": -0.1}, "max_slice_tax is -0.1; a share from 0"),
        ({"max_tax": 0.02, "max_slice_tax": 1.0}, "max_slice_tax is 1.0"),
        ({"max_tax": 0.02, "alpha": 0}, "alpha is 0; a share above 0 and below 0.5"),
        ({"max_tax": 0.02, "alpha": 0.5}, "alpha is 0.5"),
        ({"max_tax": 0.02, "arms": ["v5"]}, "arm 'v5' is not in"),
        ({"max_tax": 0.02, "slices": ["colour"]}, "slice 'colour' is not one of"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    run = write_run(tmp_path / "run", made(1.0, repeats=2))
    with pytest.raises(NiahError, match=message):
        run_gate(run, None, **arguments)


def test_all_forms_tell_the_same(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a_b|c<d>", made(0.85))
    result = run_gate(run, None, 0.03)
    content = json.loads(as_json(result))
    assert (content["verdict"], content["exit_code"]) == ("fail", 1)
    assert content["checks"][0]["pairs"] == result.checks[0].tax.pairs
    suite = ElementTree.fromstring(as_junit(result))
    assert len(suite) == len(result.checks) == int(suite.attrib["tests"])
    failed = [check for check in result.checks if check.decides and check.verdict == "fail"]
    assert int(suite.attrib["failures"]) == len(failed) == len(suite.findall("*/failure"))
    assert "a\\_b\\|c\\<d\\>" in as_markdown(result)


def experiment(rng: np.random.Generator, tax: float) -> Comparison:
    """16 streams of 40 questions in two families; streams draw their own chance of a loss."""
    streams, each, gained, spread = 16, 40, 0.01, 0.02
    lost = tax + gained
    chance = rng.beta(lost / spread, (1 - lost) / spread, streams).repeat(each)
    draw = rng.random(streams * each)
    pairs = pd.DataFrame(dict.fromkeys(QUESTION, 0.0), index=range(streams * each))
    return Comparison(
        "v4 against dense",
        "dense",
        "v4",
        pairs.assign(
            family=np.tile(["single", "uuid"], streams * each // 2),
            stream_id=np.arange(streams).repeat(each),
            baseline=(draw < chance) | (draw >= chance + gained),
            compressed=draw >= chance,
            baseline_failed=False,
            compressed_failed=False,
            incomplete=False,
        ),
    )


def verdicts(tax: float, margin: float, times: int = 200) -> dict[str, float]:
    """Shares of the verdicts over experiments with this true tax, of all pairs and of slices."""
    rng = np.random.default_rng(round(1000 * tax))
    found = [
        decide([experiment(rng, tax)], ("family",), (margin, margin), 0.05) for _ in range(times)
    ]
    return {
        "pass": np.mean([checks[0].verdict == "pass" for checks in found]),
        "fail": np.mean([checks[0].verdict == "fail" for checks in found]),
        "slice fails": np.mean([any(c.verdict == "fail" for c in checks[1:]) for checks in found]),
    }


@pytest.mark.slow
def test_at_the_margin_wrong_verdicts_are_rare() -> None:
    """Of a tax equal to the margin a pass is wrong and a failure too; 5% each is nominal."""
    found = verdicts(tax=0.05, margin=0.05)
    assert 0.005 <= found["pass"] <= 0.09
    assert 0.005 <= found["fail"] <= 0.07
    assert found["slice fails"] <= 0.07


@pytest.mark.slow
def test_beyond_the_margin_it_fails_and_within_it_passes() -> None:
    beyond, within = verdicts(0.12, 0.05, 80), verdicts(0.01, 0.05, 80)
    assert beyond["fail"] >= 0.85
    assert beyond["pass"] == 0
    assert beyond["slice fails"] >= 0.6
    assert within["pass"] >= 0.7  # 16 streams: docs/statistics.md tells the price in power
    assert within["fail"] == within["slice fails"] == 0


def test_unequal_streams_are_inconclusive() -> None:
    """120, 9, 9 and 2 questions, 20 of them lost, 18 in the largest: it failed a margin of 1."""
    sizes, lost = (120, 9, 9, 2), (18, 1, 1, 0)
    pairs = pd.DataFrame(dict.fromkeys(QUESTION, 0.0), index=range(sum(sizes)))
    of_four = Comparison(
        "v4 against dense",
        "dense",
        "v4",
        pairs.assign(
            family="single",
            stream_id=np.arange(4).repeat(sizes),
            baseline=True,
            compressed=np.concatenate(
                [np.arange(n) >= k for n, k in zip(sizes, lost, strict=True)]
            ),
            baseline_failed=False,
            compressed_failed=False,
            incomplete=False,
        ),
    )
    checks = decide([of_four], ("family",), (0.01, 0.01), 0.05)
    assert checks[0].tax.value == pytest.approx(20 / 140)
    assert checks[0].verdict == "inconclusive"
    assert "4 streams whose sizes make them worth 2.2" in checks[0].reason
    assert not any(check.verdict in ("pass", "fail") for check in checks)


def test_a_run_that_lacks_an_arm_is_incomplete(tmp_path: Path) -> None:
    arms = [{"name": "dense", "role": "baseline"}, {"name": "v4", "role": "compressed"}]
    run = write_run(tmp_path / "run", Synthetic((1024,), repeats=3), arms=arms)
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    lines = [json.dumps(row) + "\n" for row in rows if row["arm"] == "dense"]
    (run / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    with pytest.raises(NiahError, match=r"is incomplete \(v4 answered 0 of 33 questions\)"):
        run_gate(run, None, 0.05)
