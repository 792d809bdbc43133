"""Every kind that a figure may name is explained."""

from __future__ import annotations

from pathlib import Path

from niah import glossary
from niah.results import CACHE_KINDS
from niah.series import LOST_BY, OUTCOMES
from tests.niah.pages import page_of, words_of
from tests.synthetic_rows import Synthetic, write_run


def test_every_kind_is_explained() -> None:
    assert set(glossary.ERRORS) == set(OUTCOMES)
    assert set(glossary.LOSSES) == {*LOST_BY, "elsewhere"}
    assert set(glossary.CACHE) == set(CACHE_KINDS)


def test_the_page_says_what_it_is_about(tmp_path: Path) -> None:
    said = words_of(page_of(tmp_path, write_run(tmp_path / "run", Synthetic((1024,), repeats=2))))
    assert glossary.LEAD in said
    for words in glossary.GROUPS.values():
        assert all(f"{word.replace('_', ' ')} {text}" in said for word, text in words.items())
