"""`niah run --ray`: what is refused before a cluster is joined, and what a summary counts."""

import sys
from pathlib import Path

import pytest
import yaml

from niah.cli.printing import count_answers
from tests.niah.cli.conftest import Call
from tests.niah.rows import row_of

PAIR = {
    "name": "dry",
    "arms": [{"name": "dense", "role": "baseline", "model": "random-dense"}],
    "corpora": "kjv",
    "families": "single_number",
    "lengths": [128],
    "depths": [0, 1],
    "repeats": 1,
}


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:1", "--ray = 127.0.0.1:1: no cluster answers there (Connection refused)"),
        ("ray://127.0.0.1:10001", "should be local, auto, or HOST:PORT of the cluster's head"),
        ("somewhere", "should be local, auto, or HOST:PORT"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_one_line(
    call: Call, tmp_path: Path, address: str, told: str
) -> None:
    pytest.importorskip("ray")
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(PAIR), encoding="utf-8")
    done = call("run", config, "--out", tmp_path / "run", "--ray", address)
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_without_ray_installed_the_extra_is_named(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(PAIR), encoding="utf-8")
    done = call("run", config, "--out", tmp_path / "run", "--ray", "local")
    assert (done.code, done.err) == (
        2,
        "niah: --ray: needs ray: in a checkout, pip install '.[ray]'\n",
    )


def test_gpus_without_a_cluster_are_refused(call: Call, tmp_path: Path) -> None:
    for options in (["--ray-gpus", "2"], ["--ray", "local", "--ray-gpus", "0"]):
        done = call("run", tmp_path / "none.yaml", *options)
        assert done.code == 2
        assert "should be above 0, and be given with --ray" in done.err


def test_a_summary_counts_a_retried_error_once() -> None:
    """Rows are counted as they are read: none is kept."""
    asked = {"arm": "a", "role": "baseline", "model": "m", "family": "f", "corpus": "c"}
    asked |= {"length": 100, "schema": 2}
    right = asked | {"depth": 0.5, "correct": True}
    failed = asked | {"depth": 0.5, "correct": None, "error": "MemoryError: full"}
    control = asked | {"depth": None, "control": "no_needle", "correct": False}
    rows = [
        row_of(**failed, key="1", pair="1"),
        row_of(**failed, key="2", pair="2"),
        row_of(**control, key="3", pair="3"),
        row_of(**right, key="1", pair="1"),
        row_of(**failed, key="2", pair="2"),
    ]
    answers = count_answers(rows)
    assert answers.cells == {(100, "a"): [1, 2]}
    assert answers.errors == {"2": ("MemoryError: full", (100, "a"))}
    assert answers.first_error == "MemoryError: full"
