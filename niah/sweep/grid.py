"""Lists the cells of a sweep: family × wording × length × depth × phase, and the controls."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from niah.sweep.config import Control, Phase, Sweep, Templates


@dataclass(frozen=True)
class Cell:
    """A place in the grid, before a fact is drawn for it."""

    family: str
    templates: Templates
    requested_length: int
    length: int
    depth: float | None
    residue: int = 0
    control: Control | None = None


def cells(sweep: Sweep) -> Iterator[Cell]:
    """Every cell of the grid, then the controls."""
    kinds = list(product(sweep.families, sweep.templates))
    lengths = [
        (requested, length)
        for requested in sweep.lengths
        for length in at_residues(requested, sweep.length_phase)
    ]
    residues = sweep.needle_phase.residues if sweep.needle_phase else (0,)
    for (family, templates), (requested, length) in product(kinds, lengths):
        for depth, residue in product(sweep.depths, residues):
            yield Cell(family, templates, requested, length, depth, residue)
        if "no_needle" in sweep.controls:
            yield Cell(family, templates, requested, length, None, control="no_needle")
    if "question_only" in sweep.controls:
        for family, templates in kinds:
            yield Cell(family, templates, 0, 0, None, control="question_only")


def longest_prompt(sweep: Sweep) -> int:
    """Tokens of the longest prompt that is asked for."""
    return max(cell.length for cell in cells(sweep))


def at_residues(length: int, phase: Phase | None) -> list[int]:
    """The lengths from `length` on, less than a modulus longer, with the wanted residues."""
    if phase is None:
        return [length]
    return [length + (residue - length) % phase.modulus for residue in phase.residues]
