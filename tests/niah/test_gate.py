"""The gate passes, fails and abstains when it should, and refuses what does not pair."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from niah.errors import NiahError
from niah.gate import run_gate
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
    assert result.as_text().startswith("PASS")


def test_fails_where_much_is_lost(tmp_path: Path) -> None:
    result = run_gate(write_run(tmp_path / "bad", made(0.85)), None, 0.03)
    assert (result.verdict, result.exit_code) == ("fail", 1)
    assert "overall" in result.as_text().splitlines()[0]


def test_abstains_with_few_pairs_and_says_how_many_more(tmp_path: Path) -> None:
    result = run_gate(write_run(tmp_path / "few", made(0.97, repeats=2)), None, 0.02)
    overall = result.checks[0]
    assert (result.verdict, result.exit_code) == ("inconclusive", 3)
    assert overall.more_pairs is not None
    assert f"{overall.more_pairs:,} more pairs" in result.as_text()


def test_the_advice_is_enough(tmp_path: Path) -> None:
    """With about as many pairs as advised, the same truth is decided."""
    few = run_gate(write_run(tmp_path / "few", made(0.97, repeats=5)), None, 0.12).checks[0]
    assert few.more_pairs is None or few.verdict == "inconclusive"
    many = run_gate(write_run(tmp_path / "many", made(0.97, repeats=40)), None, 0.12)
    assert many.verdict == "pass"


def test_a_huge_loss_in_two_streams_is_inconclusive_and_takes_few_more(tmp_path: Path) -> None:
    arms = {"dense": keeps(1.0), "v4": keeps(0.02)}
    made_of = made(1.0, repeats=2, lengths=(1024,), depths=(0.5,), families=("single",), arms=arms)
    overall = run_gate(write_run(tmp_path / "run", made_of), None, 0.02).checks[0]
    assert overall.tax.value == 1
    assert overall.verdict == "inconclusive"
    assert overall.more_pairs is not None
    assert 1 <= overall.more_pairs < 1000


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
    run = write_run(tmp_path / "run", made(0.99, repeats=8))
    assert run_gate(run, None, 0.04).exit_code == 0
    strict = run_gate(run, None, 0.04, require_slices=True, slices=("at_depth",))
    assert strict.exit_code == 3


def test_questions_of_one_stream_decide_nothing(tmp_path: Path) -> None:
    result = run_gate(write_run(tmp_path / "one", made(1.0, repeats=1)), None, 0.3)
    assert result.exit_code == 3
    assert "repeats: 2" in result.as_text()


def test_a_weak_baseline_is_no_pass(tmp_path: Path) -> None:
    arms = {"dense": keeps(0.2), "v4": keeps(1.0)}
    run = write_run(tmp_path / "weak", made(1.0, arms=arms))
    result = run_gate(run, None, 0.05)
    assert (result.verdict, result.exit_code) == ("undefined", 3)
    assert "below the floor" in result.as_text()


def test_errors_cannot_buy_a_pass(tmp_path: Path) -> None:
    clean = run_gate(write_run(tmp_path / "clean", made(1.0)), None, 0.03)
    assert clean.exit_code == 0
    broken = run_gate(write_run(tmp_path / "broken", made(1.0, error_every=9)), None, 0.03)
    assert broken.exit_code != 0
    assert any("error" in note for note in broken.notes)


def test_an_interrupted_run_cannot_pass(tmp_path: Path) -> None:
    run = write_run(tmp_path / "cut", made(1.0))
    lines = (run / "rows.jsonl").read_text().splitlines(keepends=True)
    kept = [line for number, line in enumerate(lines) if number % 2 == 0 or number < 600]
    (run / "rows.jsonl").write_text("".join(kept))
    assert run_gate(run, None, 0.03).exit_code == 3


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_tax": 2}, "max_tax is 2"),
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
    content = json.loads(result.as_json())
    assert (content["verdict"], content["exit_code"]) == ("fail", 1)
    assert content["checks"][0]["pairs"] == result.checks[0].tax.pairs
    suite = ElementTree.fromstring(result.as_junit())
    assert len(suite) == len(result.checks) == int(suite.attrib["tests"])
    failed = [check for check in result.checks if check.decides and check.verdict == "fail"]
    assert int(suite.attrib["failures"]) == len(failed) == len(suite.findall("*/failure"))
    assert "a\\_b\\|c\\<d\\>" in result.as_markdown()
