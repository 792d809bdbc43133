"""Golden vectors: what a checkpoint predicts at chosen tokens, and whether another engine does too.

A file holds prompts as token ids, the most probable tokens with their log-probabilities at some
positions, and greedy answers. Lengths lie around windows of 128 and entries of 4 and 128 tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from haystacks.corpora.registry import Corpus, load_corpus
from haystacks.needles.registry import find_family
from haystacks.planting import Insertion, plant
from haystacks.tokenizer import Tokenizer, load_tokenizer
from models.protocols import Decoding, Model, Piece
from niah.errors import FileError, NiahError
from niah.files import read_json, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 1
GOLDEN_FILE = "golden.json"
CORPUS, FAMILY, SEED = "manual", "single_number", 0
PLAIN = (5, 126, 127, 128, 129, 130, 131)
ASKED = (200, 255, 256, 257, 258, 385, 514, 1027, 2051, 2500, 4096, 8192, 16384)
"""Lengths of prompts of text alone, and of those that end in a question."""
ANSWER_TOKENS = 8
TOP = 10
PLACES = (0, 2, 3, 4, 126, 127, 128, 255, 256)
"""Positions within a prompt, beside its middle and its end."""


class GoldenError(NiahError):
    """A file that holds no golden vectors, or a model that they cannot be asked of."""


@runtime_checkable
class ScoringSession(Protocol):
    """A session that tells the logits after each token that it reads."""

    def score(self, ids: Sequence[int]) -> Tensor:
        """Consume `ids`; logits [S, V] after each of them."""


class Top(NamedTuple):
    """The most probable tokens after the token at `position`, and their natural log-probabilities.

    Positions count the prompt and then the answer, from 0.
    """

    position: int
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Vector:
    """One prompt, the greedy answer to it, and predictions on the way. `gold`: the right answer,
    None where nothing is asked. `text` is what the prompt's ids say."""

    name: str
    text: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    gold: str | None
    top: tuple[Top, ...]


@dataclass(frozen=True)
class Golden:
    """The vectors of one checkpoint."""

    model: str
    fingerprint: str
    tokenizer: str
    vectors: tuple[Vector, ...]


class Finding(NamedTuple):
    """How a model did on one vector. `difference`: the largest of the log-probabilities, at
    `position`; None where the model tells none. `answer` is the text of the greedy answer."""

    name: str
    tokens: int
    difference: float | None
    position: int | None
    answers_alike: bool
    answer: str


def check_longest(tokens: int) -> None:
    """Raises: GoldenError where no prompt is so short."""
    if tokens < PLAIN[0]:
        raise GoldenError(f"golden: got {tokens}, expected at least {PLAIN[0]} tokens")


def make_golden(model: Model, longest: int) -> Golden:
    """Ask `model` prompts of at most `longest` tokens.

    Raises:
        GoldenError: the model does not tell logits or a tokenizer, or `longest` is below 5.
    """
    check_longest(longest)
    if model.tokenizer is None or not isinstance(model.session(), ScoringSession):
        raise GoldenError(f"model: {model.name!r} tells no log-probabilities of its tokens")
    tokenizer = load_tokenizer(model.tokenizer.name)
    corpus = load_corpus(CORPUS, tokenizer)
    prompts = _prompts(corpus, tokenizer, longest)
    vectors = tuple(_vector(model, tokenizer, *prompt) for prompt in prompts)
    return Golden(model.name, model.fingerprint, tokenizer.fingerprint, vectors)


def write_golden(golden: Golden, path: Path) -> None:
    """One vector a line."""
    lines = (json.dumps(_plain(vector), separators=(",", ":")) for vector in golden.vectors)
    head = {"schema": SCHEMA, "model": golden.model, "fingerprint": golden.fingerprint}
    head |= {"tokenizer": golden.tokenizer}
    body = ",\n".join(lines)
    write_atomically(path, f'{json.dumps(head)[:-1]}, "vectors": [\n{body}\n]}}\n')


def read_golden(path: Path) -> Golden:
    """Raises: FileError, GoldenError."""
    values = read_json(path)
    try:
        if values["schema"] != SCHEMA:
            raise GoldenError(f"{path}: schema: got {values['schema']!r}, expected {SCHEMA}")
        vectors = tuple(_read_vector(entry) for entry in values["vectors"])
        return Golden(
            str(values["model"]), str(values["fingerprint"]), str(values["tokenizer"]), vectors
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, GoldenError):
            raise
        lacks = isinstance(error, KeyError)
        why = f"has no field {error.args[0]}" if lacks else str(error)
        raise FileError(f"{path}: holds no golden vectors: {why}") from None


def check(model: Model, golden: Golden, tolerance: float) -> Iterator[Finding]:
    """Ask `model` every prompt.

    An answer that leaves the golden one where that had a rival within twice `tolerance` is alike:
    what follows is not compared.

    Raises:
        GoldenError: the model's tokenizer is another one.
    """
    if model.tokenizer is None:
        raise GoldenError(f"model: {model.name!r} does not say which tokenizer it reads")
    tokenizer = load_tokenizer(model.tokenizer.name)
    for vector in golden.vectors:
        if tokenizer.decode(vector.prompt_ids) != vector.text:
            raise GoldenError(
                f"model: {model.name!r} reads {tokenizer.name}, in which the ids of {vector.name} "
                "say another text"
            )
    for vector in golden.vectors:
        yield _check_vector(model, tokenizer, vector, tolerance)


def agrees(finding: Finding, tolerance: float) -> bool:
    """Whether answer and log-probabilities are those of the golden vector."""
    near = finding.difference is None or finding.difference <= tolerance
    return near and finding.answers_alike


def finding_line(finding: Finding, tolerance: float) -> str:
    """One line for the terminal."""
    verdict = "agrees " if agrees(finding, tolerance) else "DIFFERS"
    if finding.difference is None:
        off = "log-probabilities not told"
    else:
        off = f"log-probabilities off by {finding.difference:.5f} after token {finding.position}"
    answer = "the same answer" if finding.answers_alike else f"another answer: {finding.answer!r}"
    return f"{verdict}  {finding.name}: {off}; {answer}"


def _prompts(
    corpus: Corpus, tokenizer: Tokenizer, longest: int
) -> Iterator[tuple[str, list[int], str | None]]:
    """Name, ids and right answer of each prompt; needles lie at all residues of 4."""
    rng = np.random.default_rng(SEED)
    family = find_family(FAMILY)
    for length in (n for n in PLAIN if n <= longest):
        start = int(rng.integers(0, corpus.num_tokens - length))
        yield f"text-{length}", corpus.ids[start : start + length].tolist(), None
    for number, length in enumerate(n for n in ASKED if n <= longest):
        fact = family.make(rng, "train")
        question = tokenizer.encode(fact.question)
        needle = tokenizer.encode(fact.pieces[0])
        room = length - len(question)
        start = int(rng.integers(0, corpus.num_tokens - length))
        at = int((room - len(needle)) * (0.1 + 0.2 * (number % 5)))
        at += (number - at) % 4
        insertion = Insertion(at, needle)
        context = plant(corpus.ids[start : start + room], room, [insertion]).ids
        yield f"asked-{length}", [*context.tolist(), *question], fact.gold[0]


def _vector(
    model: Model, tokenizer: Tokenizer, name: str, prompt: list[int], gold: str | None
) -> Vector:
    session = model.session()
    session.extend(Piece(prompt, tokenizer.decode))
    answer = session.generate(Decoding(ANSWER_TOKENS, tokenizer.decode)).ids
    places = {*(p for p in PLACES if p < len(prompt)), len(prompt) // 2}
    places |= set(range(len(prompt) - 1, len(prompt) + max(len(answer), 1) - 1))
    logprobs = _logprobs(model, [*prompt, *answer])
    top = []
    for position in sorted(places):
        best = logprobs[position].topk(TOP)
        numbers = tuple(round(float(v), 5) for v in best.values)
        top.append(Top(position, tuple(int(i) for i in best.indices), numbers))
    text = tokenizer.decode(prompt)
    return Vector(name, text, tuple(prompt), tuple(answer), gold, tuple(top))


def _logprobs(model: Model, ids: list[int]) -> Tensor:
    """[S, V], after each of `ids`."""
    session = model.session()
    assert isinstance(session, ScoringSession)
    return session.score(ids).float().log_softmax(-1)


def _check_vector(model: Model, tokenizer: Tokenizer, vector: Vector, tolerance: float) -> Finding:
    session = model.session()
    session.extend(Piece(vector.prompt_ids, tokenizer.decode))
    reply = session.generate(Decoding(ANSWER_TOKENS, tokenizer.decode))
    alike = _alike(vector, reply.ids, reply.text, tokenizer, tolerance)
    difference, position = None, None
    if isinstance(session, ScoringSession):
        logprobs = _logprobs(model, [*vector.prompt_ids, *vector.answer_ids])
        found = [
            (abs(float(logprobs[entry.position, i]) - expected), entry.position)
            for entry in vector.top
            for i, expected in zip(entry.ids, entry.logprobs, strict=True)
        ]
        # A number that is none is as far off as can be.
        found = [(math.inf if math.isnan(d) else d, p) for d, p in found]
        difference, position = max(found)
    return Finding(vector.name, len(vector.prompt_ids), difference, position, alike, reply.text)


def _alike(
    vector: Vector, ids: tuple[int, ...], text: str, tokenizer: Tokenizer, tolerance: float
) -> bool:
    """Whether an answer is the golden one, as far as that is sure.

    A server may tell no ids: then texts are compared.
    """
    sure = _sure_tokens(vector, tolerance)
    if ids:
        return ids[:sure] == vector.answer_ids[:sure]
    return text.startswith(tokenizer.decode(vector.answer_ids[:sure]).rstrip("\ufffd"))


def _sure_tokens(vector: Vector, tolerance: float) -> int:
    """Tokens of the golden answer before the first with a rival within twice `tolerance`."""
    first = len(vector.prompt_ids) - 1
    steps = [entry for entry in vector.top if entry.position >= first]
    for number, entry in enumerate(steps):
        if entry.logprobs[0] - entry.logprobs[1] <= 2 * tolerance:
            return number
    return len(vector.answer_ids)


def _plain(vector: Vector) -> dict[str, Any]:
    return {
        "name": vector.name,
        "text": vector.text,
        "gold": vector.gold,
        "prompt_ids": vector.prompt_ids,
        "answer_ids": vector.answer_ids,
        "top": [entry._asdict() for entry in vector.top],
    }


def _read_vector(values: Mapping[str, Any]) -> Vector:
    top = tuple(
        Top(int(e["position"]), tuple(map(int, e["ids"])), tuple(map(float, e["logprobs"])))
        for e in values["top"]
    )
    prompt, answer = (tuple(map(int, values[name])) for name in ("prompt_ids", "answer_ids"))
    name, text = str(values["name"]), str(values["text"])
    return Vector(name, text, prompt, answer, values["gold"], top)
