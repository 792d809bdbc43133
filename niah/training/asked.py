"""Which queries of a training batch see distant rows: those of some questions and their answers."""

from __future__ import annotations

import numpy as np
import torch

from models.deepseek_v4.distant import Asked
from niah.training.batches import Batch


def choose_asked(batch: Batch, per_row: int, seed: int) -> Asked:
    """`per_row` tokens of every row: whole questions in random order, then any other tokens.

    The last question may be cut: its newest tokens, with the answer, are kept.
    """
    rng = np.random.default_rng(seed)
    length = batch.ids.shape[1]
    per_row = min(per_row, length)
    rows = [_of_row(rng, asked, per_row) for asked in batch.asked.numpy()]
    queries = torch.from_numpy(np.stack(rows))
    sources = batch.sources.gather(1, queries)
    return Asked(queries, sources, batch.planted)


def _of_row(
    rng: np.random.Generator, asked: np.ndarray[tuple[int], np.dtype[np.int64]], count: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Ascending tokens [count]; `asked` [S] numbers the questions from 1."""
    chosen: list[int] = []
    for question in rng.permutation(int(asked.max(initial=0))) + 1:
        room = count - len(chosen)
        if room:
            # Nothing that is asked for comes after a question's last token.
            chosen += np.flatnonzero(asked == question)[:-1][-room:].tolist()
    others = np.setdiff1d(np.arange(len(asked)), chosen)
    if len(chosen) < count:
        chosen += rng.choice(others, count - len(chosen), replace=False).tolist()
    return np.sort(np.array(chosen, dtype=np.int64))
