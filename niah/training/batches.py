"""Training sequences: facts stated in text and asked for later, and snippets that recur.

Everything is drawn from (seed, step) alone, so both arms see the same batches and a resumed
training goes on where it stopped. Only training words, values, templates and text are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from haystacks.corpora.registry import Corpus
from haystacks.needles.multi import near_keys
from haystacks.needles.registry import FAMILIES, Fact, find_family
from haystacks.needles.single import Single
from haystacks.needles.templates import Template
from haystacks.needles.values import distinct
from haystacks.tokenizer import Tokenizer
from niah.training import wordings
from niah.training.coined import CoinedWords

Ids = NDArray[np.int64]
ANSWER_ENDS = (".", "\n")  # as for the runner
# One sentence is asked for and has one value; what else a family plants only distracts.
ONE_SENTENCE = (
    *("single_number", "single_word", "single_uuid", "multi_key"),
    *("contract_clause", "code_declaration", "agent_log_fact"),
)
# Several sentences in order lead to the answer, or the answer lists several values.
SEVERAL_SENTENCES = (
    *("multi_value", "multi_query", "variable_value", "variable_tracking", "uuid_chain"),
    *("latent_association", "nth_ask"),
)
TAUGHT = "taught"  # the name of taught facts in a training's curve
TRAINABLE = (*ONE_SENTENCE, *SEVERAL_SENTENCES)
LONGEST_RIVALS = 220  # most tokens of the rivals of one fact
# Most tokens that an item of a family (or a snippet: "") takes with its question and answer.
LONGEST_ITEM = {
    "": 60,
    **{"single_number": 110, "single_word": 110, "single_uuid": 170, "multi_key": 350},
    **{"contract_clause": 210, "code_declaration": 190, "agent_log_fact": 270},
    **{"multi_value": 210, "multi_query": 310, "variable_value": 230, "variable_tracking": 260},
    **{"uuid_chain": 520, "latent_association": 110, "nth_ask": 330},
}


@dataclass(frozen=True)
class MixtureSettings:
    """What a stage's sequences are made of."""

    length: int
    items: tuple[int, int]  # fewest and most facts or snippets a sequence
    snippet_share: float = 0.3  # of items: token runs that recur, rather than facts
    coined_key_share: float = 0.3  # of facts: keys of random tokens instead of words
    coined_word_share: float = 0.0  # of `single_word` facts: values that stand in no list of words
    bare_share: float = 0.5  # of questions: only the restated sentence
    scattered_share: float = 0.5  # of sequences: questions anywhere after their fact
    noise_share: float = 0.15  # of sequences: filler of random tokens instead of text
    jump_share: float = 0.0  # of batches: positions that jump, to reach far distances
    max_jump: int = 1 << 20
    families: Mapping[str, float] = field(default_factory=lambda: {"single_number": 1.0})
    varied_share: float = 0.0  # of facts of one sentence: wordings made up for the sequence
    rival_share: float = 0.0  # of facts of one sentence: near-duplicate keys with other values
    taught_share: float = 0.0  # of items: taught facts, asked for and stated nowhere
    far: bool = False  # positions begin late; `far_share` of batches ask beyond one long gap
    far_share: float = 0.5
    min_gap: int = 128  # tokens, of the long gaps


class StatedFact(NamedTuple):
    """Statements, and how the first of them is asked for later."""

    statements: list[list[int]]
    prompt: list[int]
    answer: list[int]
    family: str | None  # None: a snippet
    num_ordered: int = 1  # the first so many statements keep their order


class SequencePart(NamedTuple):
    """Tokens set into the text; the last `num_answer` of them are an answer."""

    ids: list[int]
    num_answer: int
    family: str | None
    item: int = 0  # which item of the sequence, from 0
    found_in: int = -1  # of a question: which of the item's statements says the answer
    found_at: int = -1  # and at which of its tokens
    statement: int = -1  # of a statement: its place among the item's


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
    sources: Tensor  # [B, S] where the next token of an answer was stated; -1: not known
    asked: Tensor  # [B, S] number of the question that a token belongs to, from 1; 0: none
    planted: Tensor  # [B, S] bool, tokens of statements and questions

    def to(self, device: torch.device) -> Batch:
        """With its tensors on a device."""
        fields: dict[str, Any] = self._asdict()
        moved = {name: x.to(device) for name, x in fields.items() if isinstance(x, Tensor)}
        return Batch(**(fields | moved))


class Sequence(NamedTuple):
    """One row of a batch."""

    ids: Ids  # [S]
    spans: list[AnswerSpan]
    sources: Ids  # [S]
    asked: Ids  # [S]
    planted: NDArray[np.bool_]  # [S]


class Mixture:
    """Draws batches of one stage. `taught` facts are there to be learnt by heart."""

    def __init__(
        self, corpus: Corpus, tokenizer: Tokenizer, seed: int, taught: tuple[Fact, ...] = ()
    ) -> None:
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.seed = seed
        self.taught = taught

    @cached_property
    def coined(self) -> CoinedWords:
        """Made when a stage asks for the first of them."""
        return CoinedWords(self.tokenizer)

    def batch(self, step: int, rows: int, settings: MixtureSettings) -> Batch:
        """The batch of training step `step`, the same whenever and for whichever arm."""
        rng = np.random.default_rng([self.seed, step])
        gap_at = self._gap_at(rng, settings)
        drawn = [self._sequence(rng, settings, row, gap_at) for row in range(rows)]
        answers = np.zeros((rows, settings.length), dtype=bool)
        spans = [span for sequence in drawn for span in sequence.spans]
        for span in spans:
            answers[span.row, span.first : span.last] = True
        if settings.far:
            positions = np.arange(settings.length) + far_positions(rng, settings, gap_at)
        else:
            positions = self._positions(rng, settings)
        return Batch(
            torch.from_numpy(np.stack([sequence.ids for sequence in drawn])),
            torch.from_numpy(positions),
            torch.from_numpy(answers),
            [span for span in spans if span.family],
            torch.from_numpy(np.stack([sequence.sources for sequence in drawn])),
            torch.from_numpy(np.stack([sequence.asked for sequence in drawn])),
            torch.from_numpy(np.stack([sequence.planted for sequence in drawn])),
        )

    def _gap_at(self, rng: np.random.Generator, settings: MixtureSettings) -> int | None:
        """Where a long gap parts statements from questions; None: it does not in this batch."""
        if not settings.far or settings.length < 256 or rng.random() >= settings.far_share:
            return None
        windows = settings.length // 128
        return 128 * int(np.clip(round(windows * rng.uniform(0.25, 0.6)), 1, windows - 1))

    def _sequence(
        self, rng: np.random.Generator, settings: MixtureSettings, row: int, gap_at: int | None
    ) -> Sequence:
        """One row; with `gap_at`, statements lie before that token and questions behind it."""
        low, high = settings.items
        items = self._items(rng, settings, int(rng.integers(low, high + 1)))
        scattered = rng.random() < settings.scattered_share
        if gap_at is not None:
            return self._around_gap(rng, settings, items, row, gap_at)
        pieces = self._scatter(rng, items) if scattered else self._state_then_ask(rng, items)
        pieces = fitting(pieces, settings.length)
        room = settings.length - num_tokens(pieces)
        return self._join(rng, pieces, [self._filler(rng, room, settings)], row)

    def _around_gap(
        self,
        rng: np.random.Generator,
        settings: MixtureSettings,
        items: list[StatedFact],
        row: int,
        gap_at: int,
    ) -> Sequence:
        """Statements among the first `gap_at` tokens, their questions among the others."""
        while len(items) > 1 and (
            sum(len(ids) for item in items for ids in item.statements) > gap_at
            or sum(len(i.prompt) + len(i.answer) for i in items) > settings.length - gap_at
        ):
            items = items[:-1]
        pieces = fitting(self._state_then_ask(rng, items), settings.length)
        stated = [piece for piece in pieces if not piece.num_answer]
        asked = [piece for piece in pieces if piece.num_answer]
        before = max(0, gap_at - num_tokens(stated))
        after = settings.length - num_tokens(pieces) - before
        if after < 0:  # one item that is longer than either part
            before, after = before + after, 0
        fillers = [self._filler(rng, room, settings) for room in (before, after)]
        return self._join(rng, stated + asked, fillers, row, len(stated))

    def _items(
        self, rng: np.random.Generator, settings: MixtureSettings, count: int
    ) -> list[StatedFact]:
        num_snippets = int(rng.binomial(count, settings.snippet_share))
        wordings = self._wordings(rng) if settings.varied_share else []
        num_taught = 0
        if settings.taught_share:
            num_taught = int(rng.binomial(count - num_snippets, settings.taught_share))
        facts = self._facts(rng, settings.families, count - num_snippets - num_taught)
        items = [
            self._fact_item(rng, fact, settings, wordings)
            if fact.family in ONE_SENTENCE
            else self._several_sentences(rng, fact)
            for fact in facts
        ]
        items += [self._snippet_item(rng) for _ in range(num_snippets)]
        items += [self._taught_item(rng) for _ in range(num_taught)]
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
    ) -> StatedFact:
        (gold,) = fact.gold
        statement, question = fact.pieces[0], fact.question
        coining = settings.coined_word_share if fact.family == "single_word" else 0.0
        if coining and rng.random() < coining:
            coined = self.coined.draw(rng)
            statement, gold = statement.replace(f" {gold}", f" {coined}"), coined
        family = find_family(fact.family)
        if isinstance(family, Single) and wordings and rng.random() < settings.varied_share:
            wording = wordings[int(rng.integers(len(wordings)))]
            statement = wording.piece(fact.key, family.noun, gold)
            question = wording.question(fact.key, family.noun)
        if rng.random() < settings.bare_share:
            question = statement[: statement.rindex(f" {gold}")]
        if isinstance(family, Single) and rng.random() < settings.coined_key_share:
            tokens = rng.integers(256, self.tokenizer.vocab_size, int(rng.integers(2, 5)))
            key = self.tokenizer.decode(tokens.tolist()).strip() or "x"
            statement = statement.replace(fact.key, key)
            question = question.replace(fact.key, key)
        others = list(fact.distractor_pieces)
        if settings.rival_share and rng.random() < settings.rival_share:
            others += self._rivals(rng, statement, fact, gold)
        encode = self.tokenizer.encode
        statements = [encode(piece) for piece in (statement, *others)]
        return StatedFact(statements, encode(question), encode(said(statement, gold)), fact.family)

    def _rivals(self, rng: np.random.Generator, statement: str, fact: Fact, gold: str) -> list[str]:
        """One to three statements in the same words about keys that are nearly the fact's.

        Where the key was replaced by a coined one there is none to vary.
        """
        family = find_family(fact.family)
        if not isinstance(family, Single) or fact.key not in statement:
            return []
        keys = [near_key(rng, fact.key) for _ in range(int(rng.integers(1, 4)))]
        values = distinct(family.value, rng, "train", len(keys) + 1, unlike=statement)
        pairs = zip(keys, (v for v in values if v != gold), strict=False)
        return [
            statement.replace(fact.key, key).replace(f" {gold}", f" {value}")
            for key, value in pairs
            if key != fact.key
        ]

    def _several_sentences(self, rng: np.random.Generator, fact: Fact) -> StatedFact:
        """A fact whose sentences keep their order; several values are listed in that order."""
        encode = self.tokenizer.encode
        if len(fact.gold) > 1:
            answer = f" {', '.join(fact.gold[:-1])} and {fact.gold[-1]}."
        else:
            answer = f" {fact.gold[0]}."
        statements = [encode(piece) for piece in (*fact.pieces, *fact.distractor_pieces)]
        return StatedFact(
            statements, encode(fact.question), encode(answer), fact.family, len(fact.pieces)
        )

    def _taught_item(self, rng: np.random.Generator) -> StatedFact:
        """A question whose answer stands nowhere in the sequence."""
        fact = self.taught[int(rng.integers(len(self.taught)))]
        encode, (gold,) = self.tokenizer.encode, fact.gold
        return StatedFact([], encode(fact.question), encode(f" {gold}."), TAUGHT, 0)

    def _snippet_item(self, rng: np.random.Generator) -> StatedFact:
        length = int(rng.integers(6, 25))
        if rng.random() < 0.5:
            tokens = rng.integers(0, self.tokenizer.vocab_size, length).tolist()
        else:
            tokens = self._text(rng, length).tolist()
        asked = int(rng.integers(2, 5))
        return StatedFact([tokens], tokens[:asked], tokens[asked:], None)

    def _scatter(self, rng: np.random.Generator, items: list[StatedFact]) -> list[SequencePart]:
        """Every question anywhere after its item's statements."""
        when = rng.random((len(items), 2))
        when.sort(axis=1)
        timed: list[tuple[float, int, SequencePart]] = []
        for number, (item, (stated, asked)) in enumerate(zip(items, when, strict=True)):
            times = [stated] + [asked * rng.random() for _ in item.statements[1:]]
            times = times[: len(item.statements)]
            times[: item.num_ordered] = sorted(times[: item.num_ordered])
            pieces = item_pieces(item, number)
            timed += [
                (time, len(timed) + i, piece)
                for i, (time, piece) in enumerate(zip([*times, asked], pieces, strict=True))
            ]
        return [piece for _, _, piece in sorted(timed, key=lambda entry: entry[:2])]

    def _state_then_ask(
        self, rng: np.random.Generator, items: list[StatedFact]
    ) -> list[SequencePart]:
        """All statements, then all questions in another order."""
        pieces = [item_pieces(item, number) for number, item in enumerate(items)]
        asked = [pieces[int(i)][-1] for i in rng.permutation(len(items))]
        stated = [piece for group in pieces for piece in group[:-1]]
        if len(stated) > len(items):  # otherwise the items come in random order already
            stated = [stated[int(i)] for i in rng.permutation(len(stated))]
        return in_order(stated, items) + asked

    def _join(
        self,
        rng: np.random.Generator,
        pieces: list[SequencePart],
        fillers: list[Ids],
        row: int,
        split: int = 0,
    ) -> Sequence:
        """Cut the fillers at random places and set the pieces between.

        Two fillers: the first `split` pieces go into the first, the others into the second.
        """
        # Questions come in a run at the end unless scattered; text between is harmless.
        if len(fillers) == 1:
            cuts = np.sort(rng.integers(0, len(fillers[0]) + 1, len(pieces)))
        else:
            first = np.sort(rng.integers(0, len(fillers[0]) + 1, split))
            second = np.sort(rng.integers(0, len(fillers[1]) + 1, len(pieces) - split))
            cuts = np.concatenate((first, second + len(fillers[0])))
        filler = np.concatenate(fillers)
        length = len(filler) + num_tokens(pieces)
        ids = np.empty(length, dtype=np.int64)
        sources, asked = np.full(length, -1), np.zeros(length, dtype=np.int64)
        planted = np.zeros(length, dtype=bool)
        spans = []
        places: dict[tuple[int, int], int] = {}
        position = previous = 0
        for cut, piece in zip(cuts, pieces, strict=True):
            start = position + int(cut) - previous
            ids[position:start] = filler[previous:cut]
            position, previous = start + len(piece.ids), int(cut)
            ids[start:position] = piece.ids
            planted[start:position] = True
            if not piece.num_answer:
                places[piece.item, piece.statement] = start
                continue
            # The state before a token predicts it, hence one position earlier.
            begin = position - piece.num_answer - 1
            spans.append(AnswerSpan(row, begin, position - 1, piece.family))
            asked[start:position] = len(spans)
            place = places.get((piece.item, piece.found_in))
            if place is not None and piece.found_at >= 0:
                stated = place + piece.found_at
                sources[begin : position - 1] = np.arange(stated, stated + piece.num_answer)
        ids[position:] = filler[previous:]
        return Sequence(ids, spans, sources, asked, planted)

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


def item_pieces(item: StatedFact, number: int) -> list[SequencePart]:
    """The statements of a sequence's item, then its question with the answer."""
    stated = [
        SequencePart(ids, 0, None, number, statement=index)
        for index, ids in enumerate(item.statements)
    ]
    found_in, found_at = -1, -1
    for index in range(item.num_ordered):
        at = last_place(item.answer[:-1], item.statements[index])
        if at is not None:
            found_in, found_at = index, at
    question = SequencePart(
        item.prompt + item.answer, len(item.answer), item.family, number, found_in, found_at
    )
    return [*stated, question]


def last_place(part: list[int], whole: list[int]) -> int | None:
    """Where `part` begins in `whole`, the last time that it occurs."""
    for at in range(len(whole) - len(part), -1, -1):
        if whole[at : at + len(part)] == part:
            return at
    return None


def in_order(stated: list[SequencePart], items: list[StatedFact]) -> list[SequencePart]:
    """The statements at the same places, those of one item that keep their order put in order."""
    result = list(stated)
    for number, item in enumerate(items):
        if item.num_ordered > 1:
            places = [
                at
                for at, piece in enumerate(stated)
                if piece.item == number and piece.statement < item.num_ordered
            ]
            ordered = sorted((stated[at] for at in places), key=lambda piece: piece.statement)
            for at, piece in zip(places, ordered, strict=True):
                result[at] = piece
    return result


def num_tokens(pieces: list[SequencePart]) -> int:
    return sum(len(piece.ids) for piece in pieces)


def fitting(pieces: list[SequencePart], length: int) -> list[SequencePart]:
    """Drop the last pieces until the rest fits, but never the last question and its statements."""
    kept = list(pieces)
    excess = num_tokens(kept) - length
    while excess > 0:
        questions = [piece for piece in kept if piece.num_answer]
        spare = [
            at
            for at, piece in enumerate(kept)
            if len(questions) > 1 or piece.item != questions[0].item
        ]
        excess -= len(kept.pop(spare[-1] if spare else -1).ids)
    return kept


def near_key(rng: np.random.Generator, key: str) -> str:
    """A key that shares one of two words with `key`, or differs from it in one letter."""
    if rng.random() < 0.7:
        return near_keys(rng, "train", key, 2)[int(rng.integers(2))]
    letters = [at for at, letter in enumerate(key) if letter != " "]
    at = letters[int(rng.integers(len(letters)))]
    return key[:at] + "abcdefghijklmnopqrstuvwxyz"[int(rng.integers(26))] + key[at + 1 :]


def far_positions(rng: np.random.Generator, settings: MixtureSettings, gap_at: int | None) -> Ids:
    """What to add to positions [S]: a late beginning and, at token `gap_at`, a long gap.

    Gaps are drawn evenly in log length from `min_gap` to `max_jump`, then the whole reach evenly
    in log length from the gap to `max_jump`: what the gap leaves of it lies before the sequence.
    Multiples of 128, so that windows of 4 and 128 stay whole.
    """
    top = np.log2((settings.max_jump - 4 * settings.length) / 128)
    gap = rng.uniform(np.log2(settings.min_gap / 128), top)
    reach = rng.uniform(gap, top)
    late = np.zeros(settings.length, dtype=np.int64)
    if gap_at is None:
        late += 128 * int(2**reach)
    else:
        late += 128 * (int(2**reach) - int(2**gap))
        late[gap_at:] += 128 * int(2**gap)
    return late


def said(statement: str, gold: str) -> str:
    """What a statement says from the space before its value on, through the first full stop or
    line's end: the answer as a model should write it."""
    start = statement.rindex(f" {gold}")
    after = start + 1 + len(gold)
    ends = [at for mark in ANSWER_ENDS if (at := statement.find(mark, after)) >= 0]
    return statement[start : min(ends) + 1]
