"""What `niah` asks of a model and of its sessions.

A `Session` is one timeline of tokens: it can be extended and forked, never rewound. The contract
fits models in this process, on any device, and servers that take text or ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

TokenIds = Sequence[int] | NDArray[np.integer]
Decode = Callable[[TokenIds], str]  # ids of the sweep's tokenizer -> text
Forks = Literal["share", "copy", "resend"]
GoldScoring = Literal["none", "whole", "by token"]
Finish = Literal["stop", "eos", "length"]


class Piece(NamedTuple):
    """A stretch of a prompt. A session reads the ids, or the text where it takes no ids.

    Positions are counted in `ids`. A session that sends text joins the ids of all its pieces
    before it decodes them: a piece may end inside a character.
    """

    ids: TokenIds
    decode: Decode

    @property
    def text(self) -> str:
        return self.decode(self.ids)


class Decoding(NamedTuple):
    """How an answer is decoded: greedily, until a stop text, an end of sequence, or the limit."""

    max_new_tokens: int
    decode: Decode
    stop: tuple[str, ...] = ()  # matched on decoded text
    gold_ids: tuple[int, ...] = ()  # the right answer, to be scored; empty: not wanted
    end_ids: tuple[int, ...] = ()  # tokens that end an answer, beside the model's own


class Reply(NamedTuple):
    """A model's answer: its text up to the stop, and the ids that the text was decoded from.

    `gold_logprob` is the natural logarithm of the probability of `Decoding.gold_ids` after the
    question, None where it was not measured.
    """

    text: str
    ids: tuple[int, ...] = ()
    finish: Finish = "stop"
    gold_logprob: float | None = None
    thought: str | None = None  # before the answer, where a server tells them apart


class Usage(NamedTuple):
    """What a session itself has spent since it began or was forked, and what it holds now.

    Whoever does the work measures it, after the device has finished. None: not measured.
    `cache_bytes` are bytes of distinct storages by kind; a fork counts what it shares, too.
    `request_seconds` is what a server took for its last answer, the way there and back included;
    `requests_in_flight` the most requests of the same model that it worked on meanwhile, this one
    included; of a model in this process, how many answers were decoded together, whose
    `decode_seconds` are None: none was timed alone.
    """

    prefill_seconds: float | None = 0.0
    decode_seconds: float | None = 0.0
    gold_seconds: float | None = 0.0
    cache_bytes: Mapping[str, int] | None = None
    prompt_tokens: int | None = None  # as a server counted them
    cached_tokens: int | None = None
    request_seconds: float | None = None
    requests_in_flight: int | None = None


class TokenizerRef(NamedTuple):
    """Which tokenizer a model's ids belong to; `fingerprint` is None where it is not known."""

    name: str
    fingerprint: str | None = None


class Selection(NamedTuple):
    """How one layer that selects entries ranked those that hold a token, for one query."""

    layer: int
    rank: int  # from 0, of the best-ranked entry that holds the token
    entries: int  # visible to the query
    selected: bool


class Trace(NamedTuple):
    """Where a token could be found by one query."""

    in_window: bool  # exactly, in every layer
    selections: tuple[Selection, ...]


class Session(Protocol):
    """Tokens seen and their cache."""

    @property
    def position(self) -> int:
        """Tokens consumed so far."""

    def extend(self, piece: Piece) -> None:
        """Prefill a piece. Equal splits into calls give equal answers.

        Raises:
            ValueError: an id outside the vocabulary, more tokens than `max_position`, or a session
                whose last `extend` failed.
            ModelError: the model computed something that is no number.
        """

    def fork(self) -> Session:
        """An independent future of the same past; `Model.forks` says what it costs.

        A fork may compress its past once, before the question is read.
        """

    def generate(self, decoding: Decoding) -> Reply:
        """Decode an answer. Advances this session: fork first.

        Raises:
            ValueError: nothing has been consumed yet.
        """

    def usage(self) -> Usage:
        """What this session has spent itself, and what it holds at this moment."""


@runtime_checkable
class TracedSession(Session, Protocol):
    """A session that can say which entries its layers select."""

    def extend_traced(self, token_id: int, wanted: int) -> Trace:
        """Extend by one token; how did that query rank the entries that hold token `wanted`?"""


@runtime_checkable
class PressedSession(Session, Protocol):
    """A session that is told what it has read, so that it can compress its past at that moment."""

    def context_ends(self) -> None:
        """The context has been read, and no token of the question. Called once, at most."""

    def question_ends(self) -> None:
        """The question has been read: what follows is the answer."""


@runtime_checkable
class WindowedSession(Session, Protocol):
    """A session some of whose layers keep the newest tokens only."""

    def window_bytes(self) -> tuple[int, int]:
        """What these layers hold now, and what they will hold once their windows are full."""


class Model(Protocol):
    """Weights, and how to begin a session with them.

    `forks`: "share" (a fork costs the same at any position), "copy" (it copies the cache) or
    "resend" (it sends its prompt again). `cache_kinds` explains each kind of `Usage.cache_bytes`.
    `vocab_size` and `max_position` are None where there is no limit, or it is not known.
    `device` is a name of torch's such as "cpu" or "cuda:0", or "remote".
    """

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def tokenizer(self) -> TokenizerRef | None: ...
    @property
    def vocab_size(self) -> int | None: ...
    @property
    def max_position(self) -> int | None: ...
    @property
    def forks(self) -> Forks: ...
    @property
    def cache_kinds(self) -> Mapping[str, str]: ...
    @property
    def device(self) -> str: ...

    def session(self) -> Session:
        """A session at position 0."""

    def describe(self) -> dict[str, object]:
        """Architecture, parameter count and options, ready for JSON."""


class Earlier(NamedTuple):
    """A request that a server answers before a question is sent to it."""

    session: StartingSession
    decoding: Decoding


@runtime_checkable
class StartingSession(Session, Protocol):
    """A session of a server: it can be asked to answer while others are answered."""

    def start(self, decoding: Decoding, earlier: Sequence[Earlier] = ()) -> Future[Reply]:
        """As `generate`, at once; the reply comes later. `usage` is whole when it has come.

        Requests of `earlier` are answered first, one after the other.
        """

    def extend_in_steps(self, piece: Piece) -> None:
        """As `extend`; the server will compute each token of the piece alone.

        The reply is an error where the server does not.
        """


@runtime_checkable
class RemoteModel(Model, Protocol):
    """A model behind a server. Its sessions are `StartingSession`s.

    `concurrency`: how many requests it takes at once. `max_prompt_tokens`: how many tokens a run
    may send, None without a ceiling. `sends_prefixes`: what a fork shares is sent before it.
    `reuses_prefixes`: whether a prompt may find its beginning in the server's cache. `steps`:
    whether the server can be made to compute one token of a prompt alone. `gold_scoring`: whether
    a right answer is scored, by one request or by one for each of its tokens.
    """

    @property
    def concurrency(self) -> int: ...
    @property
    def max_prompt_tokens(self) -> int | None: ...
    @property
    def sends_prefixes(self) -> bool: ...
    @property
    def reuses_prefixes(self) -> bool: ...
    @property
    def steps(self) -> bool: ...
    @property
    def gold_scoring(self) -> GoldScoring: ...


@runtime_checkable
class SharingModel(Model, Protocol):
    """A model whose sessions can serve other models until the context ends, such as those of the
    same weights with other presses."""

    @property
    def trunk(self) -> str:
        """Fingerprint of all that decides a session until then: equal for models that share."""

    def share(self, session: Session, models: Sequence[Model]) -> None:
        """The session's forks are to serve `models`, all of this model's trunk."""

    def adopt(self, session: Session) -> None:
        """Make a fork, of a session that is shared, one of this model's."""


@runtime_checkable
class BatchingModel(Model, Protocol):
    """A model that decodes several sessions together faster than one after the other.

    `batch`: how many at once, at most; 1 where it cannot.
    """

    @property
    def batch(self) -> int: ...

    def batches(self, session: Session) -> bool:
        """Whether the session, which has read its question, can be one of several."""

    def generate_many(
        self, sessions: Sequence[Session], decodings: Sequence[Decoding]
    ) -> list[Reply | Exception]:
        """As `generate` of each, roundings apart; what it would raise stands in its place.

        Sessions may be of several models of one `trunk`. Each session's cache is its own.
        """


@runtime_checkable
class KeepingModel(Model, Protocol):
    """A model whose sessions can be put into a file, to be taken up by another process."""

    def save(self, session: Session, path: Path, notes: Mapping[str, str]) -> None:
        """Write the whole file or none. Raises OSError, as on a full disk."""

    def restore(self, path: Path) -> tuple[Session, dict[str, str]]:
        """The session of a file, with its notes; it goes on bit for bit like the saved one.

        Raises:
            ModelError: the file is torn, or of another model.
        """
