"""Moves a stream's place, needles and cuts to where characters of its text begin.

Only texts with characters of several tokens are touched, such as Chinese under a small vocabulary:
there a prompt may become some tokens longer than it was asked to be, and a needle may stand some
tokens deeper. Residues of phases stay.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice, repeat

import numpy as np
from numpy.typing import NDArray

from haystacks.corpora.registry import Corpus
from haystacks.planting import PlantError, Stop, align
from niah.errors import PlanError
from niah.sweep.config import Sweep
from niah.sweep.trials import Trial

ROOM_STEPS = 64  # how far a place may move, in its phase's modulus


def aligned(
    sweep: Sweep, trials: Sequence[Trial], corpus: Corpus, offset: int
) -> tuple[int, list[Trial]]:
    """The stretch's first token, and the trials with no character cut.

    `offset` is where the stretch was to begin. Trials are in tokens of the haystack, as the planner
    places them before the prefix.

    Raises: PlanError where the text has no such place for a needle or a cut.
    """
    length = max(trial.haystack_tokens for trial in trials)
    if not length or corpus.boundaries(offset, offset + length).all():
        return offset, list(trials)
    moduli = [phase.modulus for phase in (sweep.length_phase, sweep.needle_phase) if phase]
    room = ROOM_STEPS * max(moduli, default=1)
    # A stretch at the end of the text moves back, so that there is room to move within it.
    for first in (offset, min(offset, max(0, corpus.num_tokens - length - room))):
        start = next_boundary(corpus, first)
        stop = min(corpus.num_tokens, start + length + room)
        try:
            found = moved(sweep, trials, corpus.boundaries(start, stop))
        except PlantError as error:
            reason = str(error)
            continue
        if start + max(trial.haystack_tokens for trial in found) <= corpus.num_tokens:
            return start, found
        reason = "too few tokens to move a cut to where one begins"
    raise PlanError(
        f"corpora: {corpus.name} has characters of several tokens: {reason}; choose a longer text "
        "or another phase"
    )


def next_boundary(corpus: Corpus, offset: int) -> int:
    """The first token from `offset` on that begins a character."""
    return offset + int(corpus.boundaries(offset, corpus.num_tokens).argmax())


def moved(sweep: Sweep, trials: Sequence[Trial], boundaries: NDArray[np.bool_]) -> list[Trial]:
    """The trials at their new places. Raises: PlantError."""
    if sweep.layout == "stream":
        return together(sweep, trials, boundaries)
    return [trial for each in trials for trial in together(sweep, [each], boundaries)]


def together(sweep: Sweep, trials: Sequence[Trial], boundaries: NDArray[np.bool_]) -> list[Trial]:
    """The same for trials whose needles all stand in one text. Raises: PlantError."""
    stops = [stops_of(sweep, trial) for trial in trials]
    places = iter(align([stop for of_trial in stops for stop in of_trial], boundaries))
    return [
        placed(sweep, trial, list(islice(places, len(of_trial))))
        for trial, of_trial in zip(trials, stops, strict=True)
    ]


def stops_of(sweep: Sweep, trial: Trial) -> list[Stop]:
    """Where a trial's needles begin, then where its haystack ends."""
    needle_modulus = sweep.needle_phase.modulus if sweep.needle_phase else 1
    moduli = chain(repeat(needle_modulus, len(trial.fact.pieces)), repeat(1))
    sizes = map(len, trial.piece_ids)
    needles = [Stop(*stop) for stop in zip(trial.starts, sizes, moduli, strict=False)]
    length_modulus = sweep.length_phase.modulus if sweep.length_phase else 1
    return [*needles, Stop(trial.haystack_tokens, modulus=length_modulus)]


def placed(sweep: Sweep, trial: Trial, places: list[int]) -> Trial:
    """The trial with its needles at all `places` but the last, where its haystack ends."""
    *starts, end = places
    return replace(
        trial,
        starts=tuple(starts),
        length=trial.length + end - trial.haystack_tokens,
        fork_at=end if sweep.layout == "stream" else min(starts, default=end),
    )
