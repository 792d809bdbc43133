"""A named text as one long stream of token ids, memory-mapped and cached by text and tokenizer.

Holds the names of corpora, how text becomes a stream, and the rule that no text is recycled
silently.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from haystacks.corpora import token_cache
from haystacks.corpora.derived import mixed, shuffled
from haystacks.corpora.external import huggingface, local
from haystacks.corpora.generated.agent_log import agent_log
from haystacks.corpora.generated.legal import legal
from haystacks.corpora.generated.plain import needle_lines, noise, random_words
from haystacks.corpora.texts import BUNDLED, CorpusError, Text, bundled
from haystacks.tokenizer import BUNDLED_NAME, Tokenizer

__all__ = ["Corpus", "CorpusError", "available_corpora", "find_text", "load_corpus"]

# Raise it when the division of text into chunks changes: streams on disk are then built anew.
STREAM_VERSION = 1
CHUNK_CHARS = 1 << 16
CHUNK_TOKENS = 1 << 16
# An endless text is kept to the next power of two: two processes that ask for different lengths
# never write the same file, and the stream of a length is always the same.
MIN_ENDLESS_TOKENS = 1 << 17
DEFAULT_ENDLESS_TOKENS = 1 << 21
RANDOM_TOKENS = "random-tokens"
RANDOM_TOKENS_SEED = 20260103
USERS_OWN = re.compile(r"(^|[:+])(file|hf):")  # anywhere in a name such as "shuffled:file:a.txt"

GENERATED: dict[str, Callable[[], Text]] = {
    "legal": legal,
    "agent-log": agent_log,
    "needle-lines": needle_lines,
    "noise": noise,
    "random-words": random_words,
}
FORMS: dict[str, str] = {
    RANDOM_TOKENS: "random tokens: uniform over the vocabulary, special tokens left out",
    "shuffled:NAME": "the sentences of another corpus in random order, e.g. shuffled:kjv",
    "mixed:NAME+NAME": "passages of corpora in turn, e.g. mixed:kjv+postgresql+python",
    "file:PATH": "a UTF-8 text file, or a folder of .txt, .md and .rst files",
    "hf:NAME:COLUMN": "a column of a Hugging Face data set (extra `hf`; may need a network)",
}


@dataclass(frozen=True)
class Corpus:
    """`ids`: the whole stream, read-only, [num_tokens] uint16 (uint32 above 65,536 entries).

    `fingerprint` (16 hex) is that of the text, `tokenizer_fingerprint` that of the tokenizer.
    `starts_character` is the tokenizer's table ([vocabulary] bool); None where every index may be
    cut at, as in random tokens, which are no text.
    """

    name: str
    fingerprint: str
    tokenizer_fingerprint: str
    num_tokens: int
    ids: np.ndarray[Any, Any]
    licence: str
    source: str
    starts_character: NDArray[np.bool_] | None = None

    @property
    def identity(self) -> str:
        """What seeds and pairs know the text by: its name, or its content where that is a user's.

        So a file gives the same questions wherever it lies and however its path is written.
        """
        return f"content:{self.fingerprint}" if USERS_OWN.search(self.name) else self.name

    def boundaries(self, start: int, stop: int) -> NDArray[np.bool_]:
        """[stop - start + 1] whether a character begins at each token index, `stop` included.

        The end of the stream counts as one. Nothing is decoded: a token begins a character unless
        its first byte continues one.
        """
        if self.starts_character is None:
            return np.ones(stop - start + 1, dtype=np.bool_)
        begins = self.starts_character[self.ids[start : stop + 1]]
        return np.append(begins, True) if stop == self.num_tokens else begins

    def read(self, start: int, count: int, *, recycle: bool = False) -> np.ndarray[Any, Any]:
        """`count` ids from `start`. Raises CorpusError past the end, unless `recycle` is set.

        With `recycle` the stream begins again at its start: text then occurs more than once.
        """
        end = start + count
        if start < 0 or count < 0:
            raise CorpusError(f"corpus {self.name}: start {start} and count {count} must be >= 0")
        if end <= self.num_tokens:
            return self.ids[start:end]
        if not recycle:
            raise CorpusError(
                f"corpus {self.name}: tokens {start} to {end} asked of {self.num_tokens}; "
                "text is not recycled unless recycle is set"
            )
        return np.take(self.ids, np.arange(start, end), mode="wrap")


def available_corpora() -> dict[str, str]:
    """Corpus names and forms of names, each with one line on what it is."""
    bundled_names = {name: entry.description for name, entry in BUNDLED.items()}
    return bundled_names | {name: find_text(name).description for name in GENERATED} | FORMS


def load_corpus(
    name: str, tokenizer: Tokenizer, min_tokens: int = 0, longest_prompt: int = 0
) -> Corpus:
    """The corpus called `name` under `tokenizer`; tokenised once, then memory-mapped.

    A generated corpus is made as long as `min_tokens`. If that is not given, it has 2,097,152
    tokens, or at least twice the `longest_prompt` where that is longer than these. Each longer one
    begins with the shorter. Raises CorpusError for an unknown name, text that fails its checksum
    or has no tokens, or a text with an end that has fewer than `min_tokens`.
    """
    endless_length = _endless_length(min_tokens, longest_prompt)
    if name == RANDOM_TOKENS:
        return _random_tokens(tokenizer, endless_length)
    text = find_text(name)
    limit = endless_length if text.endless else None
    ids = _stream(
        text.fingerprint,
        tokenizer,
        lambda: (tokenizer.encode(chunk) for chunk in line_chunks(text.open())),
        limit,
    )
    if not len(ids):
        raise CorpusError(f"corpus {name}: has no tokens for {tokenizer.name}")
    if len(ids) < min_tokens:
        raise CorpusError(f"corpus {name}: {min_tokens} tokens asked, it has {len(ids)}")
    return Corpus(
        name,
        text.fingerprint,
        tokenizer.fingerprint,
        len(ids),
        ids,
        text.licence,
        text.source,
        None if as_in_committed_runs(name, tokenizer) else tokenizer.starts_character,
    )


def as_in_committed_runs(name: str, tokenizer: Tokenizer) -> bool:
    """Whether positions in a text are not moved to where characters begin.

    Finished runs of this repository read the bundled texts with the bundled tokenizer. Of these
    texts' tokens 1 in 1,000 at most continues a character, and those runs' positions stay.
    """
    return name in BUNDLED and tokenizer.name == BUNDLED_NAME


def find_text(name: str) -> Text:
    """The text behind a corpus name. Raises CorpusError with the choices if there is none."""
    if name in BUNDLED:
        return bundled(name)
    if name in GENERATED:
        return GENERATED[name]()
    form, _, rest = name.partition(":")
    if form == "file" and rest:
        return local(rest)
    if form == "hf":
        return huggingface(rest)
    if form == "shuffled":
        return shuffled(find_text(rest))
    if form == "mixed":
        return mixed([find_text(part) for part in rest.split("+")])
    raise CorpusError(f"corpus: {name!r} is not one of {', '.join([*BUNDLED, *GENERATED, *FORMS])}")


def line_chunks(pieces: Iterable[str], chunk_chars: int = CHUNK_CHARS) -> Iterator[str]:
    """The same text in chunks of whole lines, each of about `chunk_chars` characters.

    The token stream is defined by these chunks: no token crosses from one to the next.
    """
    lines: list[str] = []
    size = 0
    for piece in pieces:
        for line in piece.splitlines(keepends=True):
            lines.append(line)
            size += len(line)
            if size >= chunk_chars:
                yield "".join(lines)
                lines, size = [], 0
    if lines:
        yield "".join(lines)


def _random_tokens(tokenizer: Tokenizer, length: int) -> Corpus:
    special = tokenizer.special_ids
    ordinary = np.array([i for i in range(tokenizer.vocab_size) if i not in special])
    rule = f"{RANDOM_TOKENS} {RANDOM_TOKENS_SEED} {CHUNK_TOKENS}"
    fingerprint = hashlib.sha256(rule.encode()).hexdigest()[:16]

    def chunks() -> Iterator[np.ndarray[Any, Any]]:
        rngs = (np.random.default_rng([RANDOM_TOKENS_SEED, index]) for index in count())
        return (rng.choice(ordinary, CHUNK_TOKENS) for rng in rngs)

    ids = _stream(fingerprint, tokenizer, chunks, length)
    source = "generated by haystacks from a fixed seed"
    return Corpus(
        RANDOM_TOKENS, fingerprint, tokenizer.fingerprint, len(ids), ids, "Apache-2.0", source
    )


def _stream(
    text_fingerprint: str,
    tokenizer: Tokenizer,
    chunks: Callable[[], Iterable[token_cache.Ids]],
    limit: int | None,
) -> np.ndarray[Any, Any]:
    parts = [text_fingerprint, tokenizer.fingerprint, f"v{STREAM_VERSION}"]
    if limit is None:
        make = chunks
    else:
        parts.append(str(limit))

        def make() -> Iterable[token_cache.Ids]:
            return _first(chunks(), limit)

    return token_cache.load_or_build(
        "-".join(parts), make, token_cache.dtype_for(tokenizer.vocab_size)
    )


def _first(chunks: Iterable[token_cache.Ids], limit: int) -> Iterator[token_cache.Ids]:
    left = limit
    for chunk in chunks:
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return


def _endless_length(min_tokens: int, longest_prompt: int) -> int:
    wanted = min_tokens or DEFAULT_ENDLESS_TOKENS
    if not min_tokens and longest_prompt > DEFAULT_ENDLESS_TOKENS:
        wanted = 2 * longest_prompt  # so that repeats read from different places
    return max(MIN_ENDLESS_TOKENS, 1 << (wanted - 1).bit_length())
