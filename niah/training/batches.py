"""Training sequences: facts stated in text and asked for later, and snippets that recur.

Everything is drawn from (seed, step) alone, so both arms see the same batches and a resumed
training goes on where it stopped. Only training words, values, templates and text are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from haystacks.corpora.registry import Corpus
from haystacks.needles.registry import FAMILIES, Fact, find_family
from haystacks.needles.single import Single
from haystacks.needles.templates import Template
from haystacks.tokenizer import Tokenizer
from niah.training import wordings

Ids = NDArray[np.int64]
ANSWER_ENDS = (".", "\n")  # as for the runner
# One sentence is asked for and has one value; what else a family plants only distracts.
TRAINABLE = (
    *("single_number", "single_word", "single_uuid", "multi_key"),
    *("contract_clause", "code_declaration", "agent_log_fact"),
)


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
    families: Mapping[str, float] = field(default_factory=lambda: {"single_number": 1.0})
    varied_share: float = 0.0  # of facts of one sentence: wordings made up for the sequence


class Item(NamedTuple):
    """Statements, and how the first of them is asked for later."""

    statements: list[list[int]]
    prompt: list[int]
    answer: list[int]
    family: str | None  # None: a snippet


class Piece(NamedTuple):
    """Tokens set into the text; the last `num_answer` of them are an answer."""

    ids: list[int]
    num_answer: int
    family: str | None


class AnswerSpan(NamedTuple):
    """Positions [first, last) that predict the answer to a fact of `family`; None: a snippet."""

    row: int
    first: int
    last: int
    family: str | None


class Batch(NamedTuple):
    """Token ids and what to learn from them; `answers` marks positions whose NEXT token counts."""

    ids: Tensor  # [B, S]
    positions: Tensor  # [S]
    answers: Tensor  # [B, S] bool
    facts: list[AnswerSpan]


class Mixture:
    """Draws batches of one stage."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, seed: int) -> None:
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.seed = seed

    def batch(self, step: int, rows: int, settings: MixtureSettings) -> Batch:
        """The batch of training step `step`, the same whenever and for whichever arm."""
        rng = np.random.default_rng([self.seed, step])
        drawn = [self._sequence(rng, settings, row) for row in range(rows)]
        answers = np.zeros((rows, settings.length), dtype=bool)
        spans = [span for _, row_spans in drawn for span in row_spans]
        for span in spans:
            answers[span.row, span.first : span.last] = True
        return Batch(
            torch.from_numpy(np.stack([ids for ids, _ in drawn])),
            torch.from_numpy(self._positions(rng, settings)),
            torch.from_numpy(answers),
            [span for span in spans if span.family],
        )

    def _sequence(
        self, rng: np.random.Generator, settings: MixtureSettings, row: int
    ) -> tuple[Ids, list[AnswerSpan]]:
        """Ids [S], and where answers are predicted."""
        low, high = settings.items
        items = self._items(rng, settings, int(rng.integers(low, high + 1)))
        scattered = rng.random() < settings.scattered_share
        pieces = self._scatter(rng, items) if scattered else self._state_then_ask(rng, items)
        room = settings.length - sum(len(piece.ids) for piece in pieces)
        while room < 0:  # too many items for this length: the last piece goes
            room += len(pieces.pop().ids)
        return self._join(rng, pieces, self._filler(rng, room, settings), row)

    def _items(self, rng: np.random.Generator, settings: MixtureSettings, count: int) -> list[Item]:
        num_snippets = int(rng.binomial(count, settings.snippet_share))
        wordings = self._wordings(rng) if settings.varied_share else []
        facts = self._facts(rng, settings.families, count - num_snippets)
        items = [self._fact_item(rng, fact, settings, wordings) for fact in facts]
        items += [self._snippet_item(rng) for _ in range(num_snippets)]
        return [items[i] for i in rng.permutation(len(items))]

    def _facts(
        self, rng: np.random.Generator, families: Mapping[str, float], count: int
    ) -> list[Fact]:
        """Facts of which no two share a key or a value."""
        shares = np.array(list(families.values())) / sum(families.values())
        counts = rng.multinomial(count, shares) if len(families) > 1 else [count]
        facts: list[Fact] = []
        for name, n in zip(families, counts, strict=True):
            taken = {claim for fact in facts for claim in fact.claims}
            facts += FAMILIES[name].make_many(rng, int(n), "train", "trained", taken)
        return facts

    def _wordings(self, rng: np.random.Generator) -> list[Template]:
        """A few for a sequence, so that keys have to be told apart within one wording."""

        def text(rng: np.random.Generator, length: int) -> str:
            return self.tokenizer.decode(self._text(rng, length).tolist())

        drawn = [rng.random() < 0.5 for _ in range(rng.integers(1, 4))]
        return [wordings.english(rng) if e else wordings.scraps(rng, text) for e in drawn]

    def _fact_item(
        self,
        rng: np.random.Generator,
        fact: Fact,
        settings: MixtureSettings,
        wordings: list[Template],
    ) -> Item:
        (gold,) = fact.gold
        statement, question = fact.pieces[0], fact.question
        family = find_family(fact.family)
        if isinstance(family, Single) and wordings and rng.random() < settings.varied_share:
            wording = wordings[int(rng.integers(len(wordings)))]
            statement = wording.piece(fact.key, family.noun, gold)
            question = wording.question(fact.key, family.noun)
        if rng.random() < settings.bare_share:
            question = statement[: statement.rindex(f" {gold}")]
        if isinstance(family, Single) and rng.random() < settings.coined_key_share:
            tokens = rng.integers(256, self.tokenizer.vocab_size, int(rng.integers(2, 5)))
            coined = self.tokenizer.decode(tokens.tolist()).strip() or "x"
            statement = statement.replace(fact.key, coined)
            question = question.replace(fact.key, coined)
        encode = self.tokenizer.encode
        statements = [encode(piece) for piece in (statement, *fact.distractor_pieces)]
        return Item(statements, encode(question), encode(said(statement, gold)), fact.family)

    def _snippet_item(self, rng: np.random.Generator) -> Item:
        length = int(rng.integers(6, 25))
        if rng.random() < 0.5:
            tokens = rng.integers(0, self.tokenizer.vocab_size, length).tolist()
        else:
            tokens = self._text(rng, length).tolist()
        asked = int(rng.integers(2, 5))
        return Item([tokens], tokens[:asked], tokens[asked:], None)

    def _scatter(self, rng: np.random.Generator, items: list[Item]) -> list[Piece]:
        """Every question anywhere after its item's statements."""
        when = rng.random((len(items), 2))
        when.sort(axis=1)
        timed: list[tuple[float, int, Piece]] = []
        for item, (stated, asked) in zip(items, when, strict=True):
            times = [stated] + [asked * rng.random() for _ in item.statements[1:]]
            pieces = [*map(statement_piece, item.statements), question_piece(item)]
            timed += [
                (time, len(timed) + i, piece)
                for i, (time, piece) in enumerate(zip([*times, asked], pieces, strict=True))
            ]
        return [piece for _, _, piece in sorted(timed, key=lambda entry: entry[:2])]

    def _state_then_ask(self, rng: np.random.Generator, items: list[Item]) -> list[Piece]:
        """All statements, then all questions in another order."""
        asked = [question_piece(items[int(i)]) for i in rng.permutation(len(items))]
        stated = [statement_piece(ids) for item in items for ids in item.statements]
        if len(stated) > len(items):  # otherwise the items come in random order already
            stated = [stated[int(i)] for i in rng.permutation(len(stated))]
        return stated + asked

    def _join(
        self, rng: np.random.Generator, pieces: list[Piece], filler: Ids, row: int
    ) -> tuple[Ids, list[AnswerSpan]]:
        """Cut the filler at random places and set the pieces between."""
        cuts = np.sort(rng.integers(0, len(filler) + 1, len(pieces)))
        # Questions come in a run at the end unless scattered; text between is harmless.
        out: list[NDArray[np.int64]] = []
        spans = []
        position = previous = 0
        for cut, piece in zip(cuts, pieces, strict=True):
            out += [filler[previous:cut], np.asarray(piece.ids, dtype=np.int64)]
            position += int(cut) - previous + len(piece.ids)
            previous = int(cut)
            if piece.num_answer:
                # The state before a token predicts it, hence one position earlier.
                first = position - piece.num_answer - 1
                spans.append(AnswerSpan(row, first, position - 1, piece.family))
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


def statement_piece(ids: list[int]) -> Piece:
    return Piece(ids, 0, None)


def question_piece(item: Item) -> Piece:
    """The question with its answer."""
    return Piece(item.prompt + item.answer, len(item.answer), item.family)


def said(statement: str, gold: str) -> str:
    """What a statement says from the space before its value on, through the first full stop or
    line's end: the answer as a model should write it."""
    start = statement.rindex(f" {gold}")
    after = start + 1 + len(gold)
    ends = [at for mark in ANSWER_ENDS if (at := statement.find(mark, after)) >= 0]
    return statement[start : min(ends) + 1]
