"""How compressible a context is: the variable behind "dense data is hard to compress"."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from haystacks.tokenizer import Tokenizer

ZLIB_LEVEL = 6
SAMPLE_PIECES = 8
PIECE_TOKENS = 1 << 14  # far more text than the 32 KB that zlib looks back on


def compression_ratio(content: str | Sequence[int] | np.ndarray[Any, Any]) -> float:
    """Bytes before over bytes after zlib (level 6): 1 is incompressible, more is more repetitive.

    Text is taken as UTF-8. Ids are taken as two little-endian bytes each (four above 65,535), so
    their ratio compares contexts of one tokenizer only. Raises ValueError if there is nothing.
    """
    if isinstance(content, str):
        data = content.encode()
    else:
        ids = np.asarray(content)
        wide = ids.size > 0 and ids.max() > np.iinfo(np.uint16).max
        data = ids.astype("<u4" if wide else "<u2").tobytes()
    if not data:
        raise ValueError("compression_ratio: the content is empty")
    return len(data) / len(zlib.compress(data, ZLIB_LEVEL))


def context_ratio(ids: np.ndarray[Any, Any], tokenizer: Tokenizer) -> float:
    """`compression_ratio` of the text of `ids` [S], at a cost that does not grow with S.

    Up to SAMPLE_PIECES * PIECE_TOKENS (131,072) tokens it is the whole text's ratio. Of a longer
    context only so many are decoded and compressed, in pieces that lie evenly from its beginning
    to its end; in prose, code and noise that was within a tenth of the whole text's at 1,048,576.
    Raises ValueError if there is nothing.
    """
    return compression_ratio("".join(tokenizer.decode(piece.tolist()) for piece in sample(ids)))


def sample(ids: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """`ids` itself where it is short, else pieces evenly spaced."""
    if len(ids) <= SAMPLE_PIECES * PIECE_TOKENS:
        return [ids]
    starts = np.linspace(0, len(ids) - PIECE_TOKENS, SAMPLE_PIECES).astype(int)
    return [ids[start : start + PIECE_TOKENS] for start in starts]
