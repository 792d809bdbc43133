"""Says where a needle was lost: before an entry was selected, or after.

An answer goes wrong at its first token that the planted sentence does not have there. The query
that should have found that token is put once more, and every layer that selects is asked for the
rank of the entries that hold it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from haystacks.tokenizer import Tokenizer
from models.protocols import Selection, Trace
from niah.runs.row import LostBy, RankedLayer
from niah.sweep.trials import Trial


class Deviation(NamedTuple):
    """Where an answer left the planted text."""

    written: tuple[int, ...]  # the answer's tokens before it
    wanted: int  # index in the prompt of the token that should have come


def find_deviation(
    trial: Trial, answer_ids: Sequence[int], tokenizer: Tokenizer
) -> Deviation | None:
    """None where no one place holds the answer (controls, several values), or none is wrong."""
    fact = trial.fact
    if not trial.starts or fact.answer_mode != "one" or len(fact.gold_pieces) != 1:
        return None
    (piece,) = fact.gold_pieces
    ids = trial.piece_ids[piece]
    start = value_start(ids, f" {fact.gold[0]}", tokenizer)
    if start is None:
        return None
    expected = ids[start:]
    agreed = 0
    while agreed < min(len(expected), len(answer_ids)) and answer_ids[agreed] == expected[agreed]:
        agreed += 1
    if agreed == len(expected):
        return None
    return Deviation(tuple(answer_ids[:agreed]), trial.starts[piece] + start + agreed)


def value_start(ids: Sequence[int], value: str, tokenizer: Tokenizer) -> int | None:
    """The last token at which the text goes on with `value`; None where a token straddles it."""
    for start in reversed(range(len(ids))):
        if tokenizer.decode(ids[start:]).startswith(value):
            return start
    return None


def lost_by(trace: Trace) -> LostBy | None:
    """None for a model that selects nothing."""
    if not trace.selections:
        return None
    if trace.in_window:
        return "window"
    return "compression" if any(s.selected for s in trace.selections) else "selection"


def ranked(selections: Sequence[Selection]) -> tuple[RankedLayer, ...]:
    """For a row."""
    return tuple(RankedLayer(**selection._asdict()) for selection in selections)
