"""Text of controlled structure: one repeated passage, random words, nothing but needles.

Random tokens, which are no text, are in haystacks/corpora/registry.py.
"""

import numpy as np

from haystacks.corpora.generated.chunks import endless_text
from haystacks.corpora.texts import Text
from haystacks.needles.base import pick, pick_distinct
from haystacks.needles.templates import TRAINED
from haystacks.needles.values import number
from haystacks.needles.words import Split, adjectives, nouns

# The passage of the pass-key task (arXiv:2305.16300), which RULER uses as its noise haystack.
NOISE = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
)
REPEATS_PER_CHUNK = 64
WORDS_PER_LINE = 100
SPLITS: tuple[Split, ...] = ("train", "filler")


def noise() -> Text:
    """The corpus "noise": the same line over and over, the most compressible text there is."""
    return endless_text(
        "noise", "noise: one passage repeated (as in RULER)", lambda _: NOISE * REPEATS_PER_CHUNK
    )


def random_words() -> Text:
    """The corpus "random-words": no word predicts the next; one line of 100 words a chunk."""
    # Words of evaluation keys are left out; the small filler split alone would repeat too soon.
    words = [w for split in SPLITS for kind in (nouns, adjectives) for w in kind(split)]

    def line(rng: np.random.Generator) -> str:
        return " ".join(pick_distinct(rng, words, WORDS_PER_LINE)) + "\n"

    return endless_text("random-words", "random words: no word predicts the next", line)


def needle_lines() -> Text:
    """The corpus "needle-lines": every line a needle, as in RULER's hardest multi-key tasks.

    Keys are of filler words and values of the training split: none is an evaluation needle's.
    """

    def line(rng: np.random.Generator) -> str:
        key = f"{pick(rng, adjectives('filler'))} {pick(rng, nouns('filler'))}"
        return pick(rng, TRAINED).piece(key, "code", number(rng, "train")).strip() + "\n"

    return endless_text("needle-lines", "needles: every line gives a number for a key", line)
