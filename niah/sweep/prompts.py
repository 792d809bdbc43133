"""Turns a planned stream into token ids: its trunk, and what each question adds.

Tokens are planted as they are and never encoded again.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from haystacks.compressibility import context_ratio
from haystacks.corpora.registry import Corpus
from haystacks.planting import Insertion, plant
from haystacks.tokenizer import Tokenizer
from niah.sweep.config import Layout
from niah.sweep.trials import Stream, Trial

Ids = NDArray[np.integer]


@dataclass(frozen=True)
class Context:
    """A stream's tokens.

    `trunk` is what every fork of the stream has read a part of: the prompts' prefix, and the
    planted text in the stream layout, the clean text in the isolated one.
    """

    stream: Stream
    layout: Layout
    trunk: Ids
    _ratios: dict[int, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def compression_ratio(self, length: int, tokenizer: Tokenizer) -> float:
        """zlib's, of the text up to a prompt's `length`: computed once for all its questions."""
        if length not in self._ratios:
            self._ratios[length] = context_ratio(self.trunk[:length], tokenizer)
        return self._ratios[length]

    def own_ids(self, trial: Trial) -> Ids:
        """What is read after the fork: the rest of the context, the question, the suffix."""
        return np.concatenate([self.rest_ids(trial), self.question_ids(trial)])

    def rest_ids(self, trial: Trial) -> Ids:
        """What is left of the context after the fork: nothing in the stream layout."""
        return self._context_ids(trial)[trial.fork_at :]

    @staticmethod
    def question_ids(trial: Trial) -> Ids:
        """The question and the prompt's suffix."""
        return np.asarray(trial.question_ids + trial.suffix_ids, dtype=np.int64)

    def prompt(self, trial: Trial) -> Ids:
        """All `trial.length` tokens."""
        return np.concatenate([self.trunk[: trial.fork_at], self.own_ids(trial)])

    def text_ids(self, trial: Trial) -> Ids:
        """The prompt up to its question; in the stream layout a view of the trunk, no copy."""
        return self._context_ids(trial)

    def rivals(self, trial: Trial) -> tuple[str, ...]:
        """Values that the prompt holds and that answer another question."""
        others = self.stream.trials if self.layout == "stream" else ()
        planted = [
            value
            for other in others
            if other is not trial and other.starts and min(other.starts) < trial.cut
            for value in other.fact.values
        ]
        return (*trial.fact.distractors, *planted)

    def _context_ids(self, trial: Trial) -> Ids:
        if self.layout == "isolated" and trial.starts:
            return plant(self.trunk, trial.cut, insertions(trial)).ids
        return self.trunk[: trial.cut]


def insertions(trial: Trial) -> list[Insertion]:
    """The trial's pieces at their starts."""
    pieces = zip(trial.starts, trial.piece_ids, strict=True)
    return [Insertion(start, ids) for start, ids in pieces]


def build_context(stream: Stream, corpus: Corpus, layout: Layout) -> Context:
    """Read the stream's stretch of the corpus and, in the stream layout, plant every needle."""
    prefix = np.asarray(stream.prefix_ids, dtype=np.int64)
    text = corpus.read(stream.offset, stream.length - len(prefix))
    clean = np.concatenate([prefix, text]) if len(prefix) else text
    if layout == "isolated":
        return Context(stream, layout, np.asarray(clean, dtype=np.int64))
    planted = [insertion for trial in stream.trials for insertion in insertions(trial)]
    return Context(stream, layout, plant(clean, stream.length, planted).ids)
