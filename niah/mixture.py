"""Training sequences: facts stated in text and asked for later, and snippets that recur.

Everything is drawn from (seed, step) alone, so both arms see the same batches and a resumed
training goes on where it stopped. Only training words, values, templates and text are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from haystacks.corpus import Corpus
from haystacks.needles import FAMILIES, Fact
from haystacks.tokenizer import Tokenizer

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class MixtureSettings:
    """What a stage's sequences are made of."""

    length: int
    items: tuple[int, int]  # fewest and most facts or snippets a sequence
    snippet_share: float = 0.3  # of items: token runs that recur, rather than facts
    coined_key_share: float = 0.3  # of facts: keys of random tokens instead of words
    bare_share: float = 0.5  # of questions: only the restated sentence
    scattered_share: float = 0.5  # of sequences: questions anywhere after their fact
    noise_share: float = 0.15  # of sequences: filler of random tokens instead of text
    jump_share: float = 0.0  # of batches: positions that jump, to reach far distances
    max_jump: int = 1 << 20


class Item(NamedTuple):
    """A statement, and how it is asked for later."""

    statement: list[int]
    prompt: list[int]
    answer: list[int]
    is_fact: bool


class Batch(NamedTuple):
    """Token ids and what to learn from them; `answers` marks positions whose NEXT token counts."""

    ids: Tensor  # [B, S]
    positions: Tensor  # [S]
    answers: Tensor  # [B, S] bool
    fact_spans: list[tuple[int, int, int]]  # (row, first, last + 1) in `answers`, facts only


class Mixture:
    """Draws batches of one stage."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, seed: int) -> None:
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.seed = seed
        self.family = FAMILIES["single_number"]

    def batch(self, step: int, rows: int, settings: MixtureSettings) -> Batch:
        """The batch of training step `step`, the same whenever and for whichever arm."""
        rng = np.random.default_rng([self.seed, step])
        drawn = [self._sequence(rng, settings) for _ in range(rows)]
        answers = np.zeros((rows, settings.length), dtype=bool)
        spans = []
        for row, (_, sequence_spans) in enumerate(drawn):
            for first, last, is_fact in sequence_spans:
                answers[row, first:last] = True
                if is_fact:
                    spans.append((row, first, last))
        return Batch(
            torch.from_numpy(np.stack([ids for ids, _ in drawn])),
            torch.from_numpy(self._positions(rng, settings)),
            torch.from_numpy(answers),
            spans,
        )

    def _sequence(
        self, rng: np.random.Generator, settings: MixtureSettings
    ) -> tuple[Ids, list[tuple[int, int, bool]]]:
        """Ids [S], and spans of positions that predict an answer."""
        low, high = settings.items
        items = self._items(rng, settings, int(rng.integers(low, high + 1)))
        events = self._order(rng, len(items), rng.random() < settings.scattered_share)
        pieces = [self._piece(items[i], asks) for i, asks in events]
        room = settings.length - sum(len(piece) for piece, _, _ in pieces)
        while room < 0:  # too many items for this length: the last event goes
            room += len(pieces.pop()[0])
        return self._join(rng, pieces, self._filler(rng, room, settings))

    def _items(self, rng: np.random.Generator, settings: MixtureSettings, count: int) -> list[Item]:
        num_snippets = int(rng.binomial(count, settings.snippet_share))
        facts = self.family.make_many(rng, count - num_snippets, split="train", templates="trained")
        items = [self._fact_item(rng, fact, settings) for fact in facts]
        items += [self._snippet_item(rng) for _ in range(num_snippets)]
        return [items[i] for i in rng.permutation(len(items))]

    def _fact_item(self, rng: np.random.Generator, fact: Fact, settings: MixtureSettings) -> Item:
        statement, question = fact.pieces[0], fact.question
        if rng.random() < settings.bare_share:
            question = statement[: statement.index(" " + fact.gold[0])]
        if rng.random() < settings.coined_key_share:
            tokens = rng.integers(256, self.tokenizer.vocab_size, int(rng.integers(2, 5)))
            coined = self.tokenizer.decode(tokens.tolist()).strip() or "x"
            statement = statement.replace(fact.key, coined)
            question = question.replace(fact.key, coined)
        encode = self.tokenizer.encode
        return Item(encode(statement), encode(question), encode(f" {fact.gold[0]}."), True)

    def _snippet_item(self, rng: np.random.Generator) -> Item:
        length = int(rng.integers(6, 25))
        if rng.random() < 0.5:
            tokens = rng.integers(0, self.tokenizer.vocab_size, length).tolist()
        else:
            tokens = self._text(rng, length).tolist()
        asked = int(rng.integers(2, 5))
        return Item(tokens, tokens[:asked], tokens[asked:], False)

    def _order(
        self, rng: np.random.Generator, count: int, scattered: bool
    ) -> list[tuple[int, bool]]:
        """Events (item, asks?): each statement before its question."""
        if not scattered:
            asked = [(int(i), True) for i in rng.permutation(count)]
            return [(i, False) for i in range(count)] + asked
        when = rng.random((count, 2))
        when.sort(axis=1)
        events = [(when[i, k], i, k == 1) for i in range(count) for k in (0, 1)]
        return [(i, asks) for _, i, asks in sorted(events)]

    @staticmethod
    def _piece(item: Item, asks: bool) -> tuple[list[int], int, bool]:
        """Tokens, how many of the last are the answer, and whether it is a fact's."""
        if asks:
            return item.prompt + item.answer, len(item.answer), item.is_fact
        return item.statement, 0, item.is_fact

    def _join(
        self, rng: np.random.Generator, pieces: list[tuple[list[int], int, bool]], filler: Ids
    ) -> tuple[Ids, list[tuple[int, int, bool]]]:
        """Cut the filler at random places and set the pieces between."""
        cuts = np.sort(rng.integers(0, len(filler) + 1, len(pieces)))
        # Questions come in a run at the end unless scattered; text between is harmless.
        out: list[NDArray[np.int64]] = []
        spans = []
        position = previous = 0
        for cut, (tokens, num_answer, is_fact) in zip(cuts, pieces, strict=True):
            out += [filler[previous:cut], np.asarray(tokens, dtype=np.int64)]
            position += int(cut) - previous + len(tokens)
            previous = int(cut)
            if num_answer:
                # The state before a token predicts it, hence one position earlier.
                spans.append((position - num_answer - 1, position - 1, is_fact))
        out.append(filler[previous:])
        return np.concatenate(out), spans

    def _filler(self, rng: np.random.Generator, length: int, settings: MixtureSettings) -> Ids:
        if rng.random() < settings.noise_share:
            return rng.integers(0, self.tokenizer.vocab_size, length)
        return self._text(rng, length)

    def _text(self, rng: np.random.Generator, length: int) -> Ids:
        start = int(rng.integers(0, self.corpus.num_tokens - length))
        return np.asarray(self.corpus.ids[start : start + length], dtype=np.int64)

    def _positions(self, rng: np.random.Generator, settings: MixtureSettings) -> Ids:
        """Rotary positions: consecutive, or with a few jumps at multiples of 128 tokens.

        A short sequence so meets the distances of a long one; windows of 4 and 128 stay whole.
        """
        positions = np.arange(settings.length)
        if settings.length >= 256 and rng.random() < settings.jump_share:
            for _ in range(int(rng.integers(1, 4))):
                at = 128 * int(rng.integers(1, settings.length // 128))
                reach = np.log2(settings.max_jump / 128 / 4)
                positions[at:] += 128 * int(2 ** rng.uniform(0, reach))
        return positions
