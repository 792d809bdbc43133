"""Texts made from other texts: sentences shuffled, passages of several texts in turn."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from haystacks.corpora.texts import CorpusError, Text

SEED = 20260102
SENTENCE_END = re.compile(r"(?<=[.!?:;]) +|\n+")
PASSAGE_CHARS = 2000


def shuffled(text: Text) -> Text:
    """The sentences of `text` in random order, one a line. Raises CorpusError if it is endless."""
    if text.endless:
        raise CorpusError(f"corpus: 'shuffled:{text.name}' needs a text with an end")

    def sentences() -> Iterator[str]:
        parts = [part for part in SENTENCE_END.split("".join(text.open())) if part.strip()]
        order = np.random.default_rng(SEED).permutation(len(parts))
        return (parts[i] + "\n" for i in order)

    return Text(
        f"shuffled:{text.name}",
        f"sentences of {text.name} in random order",
        text.licence,
        text.source,
        _fingerprint("shuffled", [text]),
        sentences,
    )


def mixed(texts: Sequence[Text]) -> Text:
    """Passages of about 2,000 characters from each text in turn, until one of them ends."""
    names = "+".join(text.name for text in texts)
    if len(texts) < 2:
        raise CorpusError(f"corpus: 'mixed:{names}' needs two texts or more, joined by +")

    def turns() -> Iterator[str]:
        return chain.from_iterable(zip(*(passages(text.open()) for text in texts), strict=False))

    return Text(
        f"mixed:{names}",
        f"passages of {names} in turn",
        "; ".join(dict.fromkeys(text.licence for text in texts)),
        "; ".join(dict.fromkeys(text.source for text in texts)),
        _fingerprint("mixed", texts),
        turns,
        endless=all(text.endless for text in texts),
    )


def passages(pieces: Iterator[str]) -> Iterator[str]:
    """The same text in passages of whole lines, each of at least 2,000 characters but the last."""
    lines: list[str] = []
    size = 0
    for line in chain.from_iterable(piece.splitlines(keepends=True) for piece in pieces):
        lines.append(line)
        size += len(line)
        if size >= PASSAGE_CHARS:
            yield "".join(lines)
            lines, size = [], 0
    if lines:
        yield "".join(lines)


def _fingerprint(how: str, texts: Sequence[Text]) -> str:
    parts = [how, str(SEED), str(PASSAGE_CHARS), *(text.fingerprint for text in texts)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
