"""The planned experiment as immutable values: a question, its stream, the whole plan."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from haystacks.corpora.registry import Corpus
from haystacks.needles.registry import Fact
from niah.sweep.config import Control, Layout, Sweep, Templates


@dataclass(frozen=True)
class Trial:
    """One question about one context.

    The prompt is the context's first `cut` tokens (`prefix_ids` and the haystack), the question
    and `suffix_ids`: `length` tokens in all. A session that has consumed the stream's first
    `fork_at` tokens may be forked for it. `piece_ids` are the fact's pieces, then its distractor
    pieces, planted at `starts`. `depth` is the one asked for, `actual_depth` the one that came of
    it, both as shares of the haystack. Controls have no depth.
    """

    family: str
    templates: Templates
    requested_length: int
    length: int
    depth: float | None
    control: Control | None
    fact: Fact
    piece_ids: tuple[tuple[int, ...], ...]
    question_ids: tuple[int, ...]
    starts: tuple[int, ...]
    fork_at: int
    max_new_tokens: int
    prefix_ids: tuple[int, ...] = ()
    suffix_ids: tuple[int, ...] = ()
    pair: str = ""

    @property
    def cut(self) -> int:
        """Index of the question's first token."""
        return self.length - len(self.question_ids) - len(self.suffix_ids)

    @property
    def haystack_tokens(self) -> int:
        return self.cut - len(self.prefix_ids)

    @property
    def actual_depth(self) -> float | None:
        """Where the needle begins; None in a control."""
        if self.needle is None:
            return None
        return (self.needle[0] - len(self.prefix_ids)) / self.haystack_tokens

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """(start, end) of each of the fact's pieces, in tokens of the prompt."""
        pieces = zip(self.starts, self.piece_ids, self.fact.pieces, strict=False)
        return tuple((start, start + len(ids)) for start, ids, _ in pieces)

    @property
    def needle(self) -> tuple[int, int] | None:
        """From the first token of the fact to its last (exclusive); None in a control."""
        return (self.spans[0][0], self.spans[-1][1]) if self.starts else None

    @property
    def own_tokens(self) -> int:
        """Tokens of the prompt that no other question shares."""
        return self.length - self.fork_at


@dataclass(frozen=True)
class Stream:
    """A stretch of one corpus from `offset`, and its questions.

    `length` counts the prompts' prefix and the stretch once needles are planted in it.
    """

    corpus: str
    repeat: int
    index: int
    offset: int
    length: int
    trials: tuple[Trial, ...]

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """What every prompt of the stream begins with."""
        return self.trials[0].prefix_ids

    @property
    def trunk_tokens(self) -> int:
        """Tokens that a session has to consume to serve every fork."""
        return max(trial.fork_at for trial in self.trials)

    @property
    def computed_tokens(self) -> int:
        return self.trunk_tokens + sum(trial.own_tokens for trial in self.trials)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts, each computed by itself: the cell-by-cell way."""
        return sum(trial.length for trial in self.trials)


@dataclass(frozen=True)
class Plan:
    """Every stream of a sweep; each arm runs them all.

    `before`: the sweeps that the run was asked already, where it has grown.
    """

    sweep: Sweep
    streams: tuple[Stream, ...]
    before: tuple[Sweep, ...] = ()

    def trials(self) -> Iterator[tuple[Stream, Trial]]:
        return ((stream, trial) for stream in self.streams for trial in stream.trials)

    @property
    def questions(self) -> int:
        """Questions an arm."""
        return sum(len(stream.trials) for stream in self.streams)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with its answer."""
        return max(trial.length + trial.max_new_tokens for _, trial in self.trials())

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens computed an arm."""
        return sum(stream.computed_tokens for stream in self.streams)

    @property
    def prompt_tokens(self) -> int:
        return sum(stream.prompt_tokens for stream in self.streams)


def digest(value: object) -> str:
    """16 hex digits of a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stream_identity(stream: Stream, corpus: Corpus, layout: Layout) -> str:
    """Hash of the text that a stream's questions share."""
    planted = [[trial.starts, trial.piece_ids] for trial in stream.trials if layout == "stream"]
    text = [corpus.fingerprint, corpus.tokenizer_fingerprint]
    return digest([text, stream.offset, layout, planted])


def pair_identity(trial: Trial, stream: Stream, corpus: Corpus, identity: str) -> str:
    """Hash of everything that decides an answer but the model: rows of two arms pair by it."""
    framed = [trial.prefix_ids, trial.suffix_ids]
    return digest(
        [
            identity,
            [corpus.identity, stream.repeat, stream.index],
            [
                trial.fact.family,
                trial.templates,
                trial.control,
                trial.requested_length,
                trial.depth,
            ],
            [trial.length, trial.starts, trial.piece_ids, trial.question_ids],
            [trial.fact.gold, trial.max_new_tokens],
            *([framed] if any(framed) else []),
        ]
    )


def key_identity(pair: str, arm: str, model_fingerprint: str) -> str:
    """Hash of everything that decides an answer, the model with its weights and options too."""
    return digest([pair, arm, model_fingerprint])
