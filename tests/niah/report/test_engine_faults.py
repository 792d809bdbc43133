"""Faults of engines, planted one by one: the report names each in words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.protocols import Decoding, Model, Reply, Session
from niah.execution.jobs import Tally, open_store
from niah.execution.loading import Bench
from niah.execution.sweeps import ask_what_is_left
from niah.report.notices import WINDOW_FAULT, notices
from niah.runs.tables import load_run
from niah.statistics.comparisons import load_comparisons
from niah.sweep.config import Sweep, load_sweep
from niah.sweep.planner import make_plan
from tests.niah.engine_faults import (
    EngineSession,
    LostKeys,
    LostOverlap,
    StaleWindow,
    engine,
    with_last_digit_wrong,
)
from tests.niah.fakes import RecallModel, RecallSession, sweep_of, tiny_materials

ROOT = Path(__file__).parents[3]
MATERIALS = tiny_materials(40_000)
Uses = dict[str, dict[str, Any]]


def sweep_with(uses: Uses, **fields: Any) -> Sweep:
    """The first arm is the baseline; each asks one model, and uses its session as it says."""
    arms = [
        {"name": name, "role": "compressed" if at else "baseline", "model": "m", "session": use}
        for at, (name, use) in enumerate(uses.items())
    ]
    return sweep_of(arms=arms, **({"spread": 0.0, "max_needle_share": 0.5} | fields))


def said(folder: Path, sweep: Sweep, models: dict[str, Model]) -> list[str]:
    """What the report says of a run of `sweep`."""
    bench = Bench(models, MATERIALS, {arm.name: arm.session for arm in sweep.arms})
    plan = make_plan(sweep, MATERIALS)
    with open_store(folder, plan, bench) as store:
        ask_what_is_left(plan, bench, store, lambda arm, tokens: None, Tally())
    run = load_run(folder)
    assert not run.rows["failed"].any()
    return notices([run], *load_comparisons([run]))


def about(name: str, found: list[str]) -> list[str]:
    return [text.partition(": ")[2] for text in found if text.startswith(f"{name} against")]


class WrongResidueSession(RecallSession):
    def fork(self) -> Session:
        return WrongResidueSession(self.model, self.chunks, self.position)

    def generate(self, decoding: Decoding) -> Reply:
        reply = super().generate(decoding)
        return with_last_digit_wrong(reply) if self.position % 4 == 3 else reply


class WrongResidue(RecallModel):
    """The last digit is wrong where the prompt's length is 3 modulo 4 (vllm#55927)."""

    def session(self) -> Session:
        return WrongResidueSession(self)


@dataclass
class ShortWindowSession(RecallSession):
    def fork(self) -> Session:
        return ShortWindowSession(self.model, self.chunks, self.position)

    def generate(self, decoding: Decoding) -> Reply:
        read = np.concatenate([np.asarray(chunk) for chunk in self.chunks])
        self.chunks = (np.delete(read, len(read) - ShortWindow.WINDOW),)
        return super().generate(decoding)


class ShortWindow(RecallModel):
    """The token at the far edge of the window is in neither the window nor an entry."""

    WINDOW = 128

    def session(self) -> Session:
        return ShortWindowSession(self)


@pytest.fixture(scope="module")
def found_by_the_kit(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The conformance sweep's grid, asked of engines beside a right arm."""
    models: dict[str, Model] = {
        "right": RecallModel(),
        "right-too": RecallModel(),
        "residue": WrongResidue(),
        "window": ShortWindow(),
    }
    sweep = load_sweep(ROOT / "configs" / "conformance.yaml")
    arms = sweep_with({name: {} for name in models}).arms
    sweep = sweep.model_copy(update={"arms": arms, "corpora": ("tiny",)})
    return said(tmp_path_factory.mktemp("kit") / "run", sweep, models)


def test_a_residue_that_alone_is_wrong(found_by_the_kit: list[str]) -> None:
    assert about("residue", found_by_the_kit) == [
        "every lost question has a prompt length of 3 modulo 4 (127 modulo 128) (24 of 24 lost; "
        "0 of 72 at others)."
    ]


def test_a_window_that_is_one_token_short(found_by_the_kit: list[str]) -> None:
    assert about("window", found_by_the_kit) == [
        "every lost question has a depth of 100% (28 of 32 lost; 0 of 64 at others)."
    ]


def test_a_right_engine_is_blamed_for_nothing(found_by_the_kit: list[str]) -> None:
    assert about("right-too", found_by_the_kit) == []


@pytest.mark.parametrize(
    ("phase", "told"),
    [
        ({"modulus": 4}, "3 modulo 4 (16 of 16 lost; 0 of 48 at others)"),
        (
            {"modulus": 128, "residues": [0, 1, 2, 3, 64, 127]},
            "3 modulo 4 (3 or 127 modulo 128) (32 of 32 lost; 0 of 64 at others)",
        ),
    ],
)
def test_residues_of_128_that_are_one_of_4(
    tmp_path: Path, phase: dict[str, Any], told: str
) -> None:
    arms: Uses = {"right": {}, "engine": {}}
    fields = {"lengths": [256], "depths": [0.2, 0.7], "repeats": 8, "layout": "isolated"}
    sweep = sweep_with(arms, length_phase=phase, **fields)
    found = said(tmp_path, sweep, {"right": RecallModel(), "engine": WrongResidue()})
    assert about("engine", found) == [f"every lost question has a prompt length of {told}."]


def test_a_window_that_is_short_at_some_needle_starts(tmp_path: Path) -> None:
    sweep = sweep_with(
        {"right": {}, "engine": {}},
        lengths=[512],
        length_phase={"modulus": 128, "residues": [0, 1, 2, 127]},
        needle_phase={"modulus": 128, "residues": [64, 116]},
        depths=[0.1, 1.0],
        repeats=8,
        layout="isolated",
    )
    found = said(tmp_path, sweep, {"right": RecallModel(), "engine": ShortWindow()})
    assert about("engine", found) == [
        "every lost question has a depth of 100% (32 of 64 lost; 0 of 64 at others) and a needle "
        "start of 116 modulo 128 (32 of 64 lost; 0 of 64 at others)."
    ]


NANO: Uses = {
    "plain": {},
    "keys": {},
    "second-use": {"question_before": True},
    "decoded": {"decode_tail": 28},
}


@pytest.fixture(scope="module")
def found_in_nano_v4(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Sixteen questions in the second of three chunks, and sixteen in the window."""
    sweep = sweep_with(NANO, lengths=[400], depths=[0.4, 1.0], repeats=16, chunk_tokens=128)
    sessions = (EngineSession, LostKeys, StaleWindow, LostOverlap)
    models: dict[str, Model] = dict(zip(NANO, map(engine, sessions), strict=True))
    return said(tmp_path_factory.mktemp("nano") / "run", sweep, models)


def test_keys_lost_beyond_the_last_chunk(found_in_nano_v4: list[str]) -> None:
    (told,) = about("keys", found_in_nano_v4)
    found = re.fullmatch(
        r"every lost question has a depth of 40% \((\d+) of 16 lost; 0 of 16 at others\)\. "
        r"Lost by: (\d+) by selection(, 1 by compression)?\.",
        told,
    )
    assert found
    assert int(found[2]) >= int(found[1]) - 1


@pytest.mark.parametrize(
    ("arm", "use"), [("second-use", "question_before True"), ("decoded", "decode_tail 28")]
)
def test_a_use_that_alone_is_wrong(found_in_nano_v4: list[str], arm: str, use: str) -> None:
    first, *_ = about(arm, found_in_nano_v4)
    assert first.startswith(
        f"one model, used in another way ({use}). A right cache answers the same; here "
    )
    (window,) = (text for text in found_in_nano_v4 if text.startswith("Lost although the needle"))
    assert f"{arm} against " in window
    assert window.endswith(WINDOW_FAULT)
