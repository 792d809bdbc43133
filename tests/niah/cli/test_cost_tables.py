"""What `niah cost` prints: tables of 80 columns, the caveat, and a verdict on published figures."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from models.costs.capacity import Cards
from models.costs.claims import CLAIMS
from models.costs.presets import PRESETS, SHOWN, find_architecture
from models.costs.tables import LENGTHS
from niah.cli.cost_tables import (
    amount,
    flops,
    print_capacity,
    print_claims,
    print_costs,
    share,
    short_name,
)
from niah.cli.main import app
from niah.text_format import length_text
from tests.stubs import ROOT

CONFIGS = ROOT / "tests" / "models" / "costs" / "configs"


class Screen:
    """A terminal of 80 columns."""

    def __init__(self) -> None:
        self.out = io.StringIO()
        self.console = Console(file=self.out, width=80)

    @property
    def text(self) -> str:
        return self.out.getvalue()

    def row(self, *starts: str) -> list[str]:
        """The cells of the first line that begins with these."""
        lines = (line.split() for line in self.text.splitlines())
        return next(cells for cells in lines if cells[: len(starts)] == list(starts))


def test_published_models() -> None:
    screen = Screen()
    print_costs(screen.console, {name: PRESETS[name] for name in SHOWN}, [10**6])
    row = screen.row("1,000,000", "v4-pro")
    assert row == ["1,000,000", "v4-pro", "4.690", "GiB", "10.5%", "17.84", "MiB", "642.71", "MiB"]
    assert screen.row("v4-flash")[-1] == "3,514"
    assert ["1,000,000", "v4-pro", "310", "G", "27.1%"] in [
        line.split() for line in screen.text.splitlines()
    ]
    assert "not documented by DeepSeek" in screen.text


def test_what_is_not_known_is_a_dash() -> None:
    screen = Screen()
    print_costs(screen.console, {"v4.1-flash": PRESETS["v4.1-flash"]}, [4096])
    assert screen.row("4K", "v4.1-flash")[-1] == "–"
    assert "its windows and pending tokens are not counted" in screen.text
    assert "FP8-equivalent" not in screen.text


def test_tables_fit_80_columns() -> None:
    screen = Screen()
    names = [*PRESETS, "nano-v4", "nano-dense", *map(str, sorted(CONFIGS.glob("*.json")))]
    models = {short_name(name): find_architecture(name) for name in names}
    print_costs(screen.console, models, LENGTHS, by_part=True)
    few = {name: PRESETS[name] for name in SHOWN}
    print_capacity(screen.console, few, Cards(80 * 10**9, 160 * 10**9, 4), LENGTHS)
    print_claims(screen.console)
    tables = [line for line in screen.text.splitlines() if line.startswith(" ")]
    assert max(map(len, tables)) <= 100  # notes are lines of text, and fold
    drawn = [line for line in screen.text.splitlines() if set(line.strip()) == {"─"}]
    assert len(drawn) > 20
    assert max(map(len, drawn)) <= 80
    assert "…" not in screen.text


def test_names_are_no_markup() -> None:
    screen = Screen()
    print_costs(screen.console, {"a[red]b": PRESETS["v3"]}, [4096], by_part=True)
    assert screen.row("4K", "a[red]b")


def test_claims_are_printed_beside_what_is_computed() -> None:
    screen = Screen()
    assert print_claims(screen.console) == 0
    lines = [line.split() for line in screen.text.splitlines()]
    assert ["V4-Pro,", "cache", "smaller", "9.5×", "9.54×", "+0.5%", "0.0%", "a"] in lines
    assert ["V4.1-Flash,", "B/token", "890", "890.0", "+0.0%", "0.0%", "f"] in lines
    assert "reconstructed from published ratios, not documented by DeepSeek" in screen.text
    assert f"all {len(CLAIMS)} figures agree" in screen.text
    assert max(map(len, screen.text.splitlines()[:25])) <= 80


def test_a_claim_that_is_off_ends_with_1() -> None:
    screen = Screen()
    assert print_claims(screen.console, [CLAIMS[2]._replace(printed=9.9)]) == 1
    assert "off by more than 2% beyond rounding: V4-Pro, cache smaller" in screen.text


def test_capacity_of_the_issue() -> None:
    """80 GB x 4, weights of 160 GB: 40 GB a card. V4-Flash at 1M takes 3,700,310,016 bytes."""
    screen = Screen()
    cards = Cards(80 * 10**9, 160 * 10**9, 4)
    print_capacity(screen.console, {"v4-flash": PRESETS["v4-flash"]}, cards, [2**20])
    assert screen.row("1M") == ["1M", "40"]
    assert 4 * (40 * 10**9 // (15420416 + 2**20 * 14057 // 4)) == 40
    assert "40 GB a card are left for caches" in screen.text
    assert "14.71 MiB + N × 3,514.25 B; the longest single one has 11,377,843 tokens" in screen.text
    assert "(the model is made for 1,048,576)" in screen.text


def test_no_torch_and_no_transformers() -> None:
    """The command serves where neither is installed."""
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from niah.cli.main import main\n"
        "sys.argv = ['niah', 'cost', 'nano-v4', 'nano-dense', 'v4-pro', sys.argv[1]]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, CONFIGS / "gpt-oss-20b.json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "gpt-oss-20b" in done.stdout


PAGE = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
SHOWN_ON_PAGE = re.findall(r"^```sh\nniah (.*?)\n```\n```text\n(.*?)\n```$", PAGE, re.S | re.M)


def test_the_page_shows_every_command_with_its_output() -> None:
    assert len(SHOWN_ON_PAGE) == PAGE.count("```sh\n") == PAGE.count("```text\n") > 3


@pytest.mark.parametrize(("command", "shown"), SHOWN_ON_PAGE, ids=[c for c, _ in SHOWN_ON_PAGE])
def test_the_page_shows_what_the_command_prints(
    command: str,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """To renew the page, put what the command prints at 80 columns below it."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(ROOT)
    assert not app(shlex.split(command), prog_name="niah", standalone_mode=False)
    printed = [line.rstrip() for line in capsys.readouterr().out.rstrip().splitlines()]
    assert printed == shown.rstrip().splitlines()


@pytest.mark.parametrize(
    ("length", "text"), [(4096, "4K"), (2**20, "1M"), (10**6, "1,000,000"), (0, "0")]
)
def test_lengths_in_words(length: int, text: str) -> None:
    assert length_text(length) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (512, "0.5 KiB"),
        (2**20, "1.00 MiB"),
        (5035988320, "4.690 GiB"),
        (2**40, "1.000 TiB"),
    ],
)
def test_amounts(size: int, text: str) -> None:
    assert amount(size) == text


@pytest.mark.parametrize(
    ("number", "text"), [(310.2e9, "310 G"), (1.146e12, "1.15 T"), (999, "999"), (0, "0")]
)
def test_flops(number: float, text: str) -> None:
    assert flops(number) == text


@pytest.mark.parametrize(("value", "text"), [(0.27, "27.0%"), (5.2, "×5.2"), (None, "–")])
def test_shares(value: float | None, text: str) -> None:
    assert share(value) == text


def test_short_names(tmp_path: Path) -> None:
    assert short_name("v4-pro") == "v4-pro"
    assert short_name(str(tmp_path / "mine" / "config.json")) == "mine"
    assert short_name("a/b/llama.json") == "llama"
