"""Words that stand in no list, so that a value has to be read: a list can be learnt by heart."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from haystacks.needles.words import adjectives, nouns

if TYPE_CHECKING:
    import numpy as np

    from haystacks.tokenizer import Tokenizer


class CoinedWords:
    """Draws lower-case words made of two to four tokens; never one that is kept for evaluation."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        texts = (tokenizer.decode([token]) for token in range(tokenizer.vocab_size))
        self.pieces = [text for text in texts if re.fullmatch("[a-z]+", text)]
        self.held_out = {*nouns("eval"), *adjectives("eval")}

    def draw(self, rng: np.random.Generator) -> str:
        """The next word."""
        word = ""
        while not word or word in self.held_out:
            word = "".join(rng.choice(self.pieces, int(rng.integers(2, 5))))
        return word
