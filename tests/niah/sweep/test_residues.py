"""A sweep that meets a model's blocks at one place only is told; the gate's sweeps do not."""

from pathlib import Path

import pytest

from niah.sweep.config import Sweep, load_sweep
from niah.sweep.grid import cells
from niah.sweep.planner import make_plan
from niah.sweep.residues import residue_notes
from tests.niah.fakes import sweep_of, tiny_materials

ROOT = Path(__file__).parents[3]
WINDOWED = {"v4": {"config": {"sliding_window": 128, "csa_ratio": 4, "layers": 5}}}


def notes(sweep: Sweep, models: dict[str, dict[str, object]] | None = None) -> list[str]:
    plan = make_plan(sweep, tiny_materials(20_000))
    return residue_notes(plan, WINDOWED if models is None else models)  # type: ignore[arg-type]


def test_round_lengths_meet_a_block_at_one_place() -> None:
    (note,) = notes(sweep_of(lengths=["1K", "4K"]))
    assert "every length is 0 modulo 128, a block or window of v4" in note
    assert "length_phase: {modulus: 128, residues: [0, 1, 2, 127]}" in note
    (note,) = notes(sweep_of(lengths=[1023, 1027]))
    assert "every length is 3 modulo 4, a block or window of v4" in note
    assert "length_phase: {modulus: 4, residues: [0, 1, 2, 3]}" in note


def test_a_control_of_another_length_is_no_other_residue() -> None:
    assert len(notes(sweep_of(lengths=["1K"], controls=["question_only"]))) == 1


@pytest.mark.parametrize("described", [{}, {"config": {"sliding_window": None}}, {"config": 3}])
def test_a_model_without_blocks_has_nothing_to_meet(described: dict[str, object]) -> None:
    assert notes(sweep_of(), {"dense": described}) == []


def test_the_suggested_phase_leaves_nothing_to_say() -> None:
    phase = {"modulus": 128, "residues": [0, 1, 2, 127]}
    assert notes(sweep_of(lengths=["1K", "4K"], length_phase=phase)) == []


@pytest.mark.parametrize("name", ["gate", "nightly"])
def test_the_gates_own_sweeps_visit_every_residue_of_4_and_the_ends_of_128(name: str) -> None:
    """Those that the documentation tells people to copy."""
    sweep = load_sweep(ROOT / "configs" / f"{name}.yaml")
    for requested in sweep.lengths:
        lengths = [cell.length for cell in cells(sweep) if cell.requested_length == requested]
        assert {length % 4 for length in lengths} == {0, 1, 2, 3}
        assert {0, 1, 127} <= {length % 128 for length in lengths}
