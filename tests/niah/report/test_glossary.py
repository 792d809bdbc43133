"""Every kind that a figure may name is explained, and every name that a page compares is listed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from haystacks.corpora.registry import available_corpora
from haystacks.needles.registry import available_families
from models.deepseek_v4.loading import CACHE_KINDS
from niah.report import glossary
from niah.report.html.names import page_names
from niah.report.tables import LOST_BY, OUTCOMES
from niah.runs.tables import load_run
from niah.statistics.comparisons import load_comparisons
from tests.niah.report.pages import page_of, words_of
from tests.synthetic_rows import Synthetic, write_run

SMALL = Synthetic((1024,), repeats=2)


def test_every_kind_is_explained() -> None:
    assert set(glossary.ANSWERS) == set(OUTCOMES)
    assert set(glossary.LOSSES) == {*LOST_BY, "elsewhere"}
    of_older_runs = {"compressed"}  # of CSA and HCA together
    assert set(glossary.CACHE) <= set(CACHE_KINDS) | of_older_runs


def test_the_page_explains_its_words(tmp_path: Path) -> None:
    said = words_of(page_of(tmp_path, write_run(tmp_path / "run", SMALL)))
    explained = [word for words in glossary.GROUPS.values() for word in words]
    kept = {kind: glossary.CACHE[kind] for kind in ("window", "index", "tail", "full")}
    for words in (glossary.GROUPS | {"What a cache holds": kept}).values():
        assert all(f"{word.replace('_', ' ')} {text}" in said for word, text in words.items())
    for word in (
        "gold",
        "entry",
        "rank",
        "layer",
        "residue",
        "prefill",
        "recall",
        "95%",
        "p (Holm",
    ):
        assert any(found.startswith(word) for found in explained), word


def test_the_page_says_what_it_is_about(tmp_path: Path) -> None:
    alone = replace(SMALL, arms={"v4": lambda *_: 1.0})
    runs = {"a": SMALL, "b": SMALL, "lone": alone, "again": alone}
    folders = {name: write_run(tmp_path / name, made) for name, made in runs.items()}
    for names, compressed, repeated in (
        (["a"], True, False),
        (["a", "b"], True, True),
        (["lone"], False, False),
        (["lone", "again"], False, True),
    ):
        said = words_of(page_of(tmp_path, *map(folders.__getitem__, names)))
        assert glossary.lead(compressed, repeated) in said
        assert (glossary.COMPRESSED in said, glossary.REPEATED in said) == (compressed, repeated)


def described(folder: Path, made: Synthetic, models: object) -> Path:
    """A run whose environment says `models` of its models."""
    run = write_run(folder, made)
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(environment | {"models": models}))
    return run


def test_what_was_compared_is_listed_with_its_descriptions(tmp_path: Path) -> None:
    made = replace(SMALL, families=("single_word", "<own>"), corpora=("kjv", "file:/x"))
    models = {"v4": {"description": "a <small> one", "options": {"index_topk": 8}}}
    run = described(tmp_path / "run", made, models)
    names = page_names([load_run(run)], load_comparisons([load_run(run)])[0])
    assert names == {
        "Arms": [("dense", "baseline"), ("v4", "compressed: a <small> one, with index_topk 8")],
        "Needle families": [("single_word", available_families()["single_word"]), ("<own>", "")],
        "Haystacks": [("kjv", available_corpora()["kjv"]), ("file:/x", "")],
    }
    page = page_of(tmp_path, run)
    assert "<dt>&lt;own&gt;</dt><dd></dd>" in page
    assert "a &lt;small&gt; one" in page


@pytest.mark.parametrize("models", [None, [], {"v4": 1}, {"v4": {"options": "x"}}])
def test_an_environment_may_hold_anything(tmp_path: Path, models: object) -> None:
    run = load_run(described(tmp_path / "run", SMALL, models))
    assert page_names([run], load_comparisons([run])[0])["Arms"][1] == ("v4", "compressed")


def test_an_arm_of_several_runs_is_described_once(tmp_path: Path) -> None:
    runs = [load_run(write_run(tmp_path / name, SMALL)) for name in "ab"]
    arms = page_names(runs, load_comparisons(runs)[0])["Arms"]
    assert [name for name, _ in arms] == ["a/dense, b/dense", "a/v4, b/v4"]
