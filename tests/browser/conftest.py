"""A real Chromium for the page. Locally its absence skips these tests; in CI it fails them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from niah.report.html.page import write_report
from tests.browser.opened import HOSTILE, MADE, PATIENCE_MS, WIDE, Opened, open_page
from tests.synthetic_rows import Synthetic, write_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def give_up(missing: str) -> None:
    """Skip, unless this is CI, where the browser has to be there."""
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = os.environ.get("NIAH_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        give_up(f"no Chromium found ({', '.join(NAMES)}); install one or set NIAH_CHROMIUM")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        give_up("playwright is missing: pip install playwright (no `playwright install` needed)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-quic"],
            timeout=PATIENCE_MS,
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe() -> Path:
    """The script of axe-core."""
    path = Path(os.environ.get("NIAH_AXE", "node_modules/axe-core/axe.min.js"))
    if not path.is_file():
        give_up("axe-core is missing: npm install --no-save axe-core, or set NIAH_AXE to its file")
    return path


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_report([write_run(folder / "run", MADE)], folder / "page.html")


@pytest.fixture(scope="session")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    arms = {HOSTILE: lambda *_: 1.0, "v4": lambda *_: 0.5}
    made = Synthetic((1024,), (0.5,), (HOSTILE,), (HOSTILE,), 4, arms, answer=HOSTILE)
    run = write_run(folder / "<img src=x>", made)
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {"model": HOSTILE, "gold": [HOSTILE], "question": HOSTILE}
        row["excerpt"] = dict.fromkeys(("before", "needle", "after"), HOSTILE)
    rows[-1] |= {"correct": None, "error": HOSTILE, "outcome": "error"}
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return write_report([run], folder / "page.html")


@pytest.fixture(scope="session")
def several_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs with long names, eleven lengths, and a third arm."""
    folder = tmp_path_factory.mktemp("several")
    names = ("a-sweep-of-monday-with-a-long-name", "a-sweep-of-tuesday-with-another-name")
    runs = [write_run(folder / name, replace(WIDE, seed=seed)) for seed, name in enumerate(names)]
    return write_report(runs, folder / "page.html")


@pytest.fixture
def opened(chromium: Browser, report: Path) -> Iterator[Opened]:
    found = open_page(chromium, report, viewport={"width": 1400, "height": 1000})
    yield found
    found.page.context.close()
