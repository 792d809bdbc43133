"""Simple English words in disjoint splits: what keys, word values and random-word text are made of.

Words come from wonderwords (MIT; see corpora/PROVENANCE.md). A word belongs to one split only,
whether it is an adjective, a noun or both.
"""

from functools import cache
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).parent / "wordlists"

Split = Literal["train", "eval", "filler"]


@cache
def adjectives(split: Split) -> tuple[str, ...]:
    """Adjectives of `split`, lower-case a-z, 3 to 9 letters, sorted."""
    return tuple((FOLDER / f"adjectives_{split}.txt").read_text().split())


@cache
def nouns(split: Split) -> tuple[str, ...]:
    """Nouns of `split`, lower-case a-z, 3 to 9 letters, sorted."""
    return tuple((FOLDER / f"nouns_{split}.txt").read_text().split())
