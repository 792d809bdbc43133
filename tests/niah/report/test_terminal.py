"""The heatmaps in a terminal: each panel shows its own numbers, in the width there is."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from niah.report.terminal import terminal_report
from tests.synthetic_rows import Synthetic, write_run


def panels(tmp_path: Path, width: int) -> dict[str, list[list[str]]]:
    """By title of a panel: the digits of its lines, depth first."""
    arms = {
        "dense": lambda length, depth, _: 0.0 if depth else 1.0,
        "v4": lambda length, *_: 0.0 if length > 2048 else 1.0,
    }
    run = write_run(tmp_path / "run", Synthetic((1024, 4096), (0.0, 1.0), repeats=3, arms=arms))
    console = Console(width=width, record=True, file=io.StringIO())
    terminal_report(run, console)
    lines = console.export_text().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    found: dict[str, list[list[str]]] = {}
    titles: list[tuple[str, int]] = []
    for line in lines:
        starts = [
            (m[1], m.start()) for m in re.finditer(r"(dense|v4|tax), (?:recall|points)", line)
        ]
        titles = starts or titles
        if re.match(r"\s*\d+% ", line):
            ends = [start for _, start in titles[1:]] + [len(line)]
            for (title, start), end in zip(titles, ends, strict=True):
                found.setdefault(title, []).append(line[start:end].split())
    return found


@pytest.mark.parametrize("width", [60, 160])
def test_each_panel_shows_its_own_numbers(tmp_path: Path, width: int) -> None:
    assert panels(tmp_path, width) == {
        "dense": [["0%", "100", "100"], ["100%", "0", "0"]],
        "v4": [["0%", "100", "0"], ["100%", "0", "0"]],
        "tax": [["0%", "0", "100"], ["100%", "–", "–"]],
    }
