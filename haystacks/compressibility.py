"""How compressible a context is: the controlled variable behind "dense data is hard to compress".

Knows nothing about where text or ids come from.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

ZLIB_LEVEL = 6


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
