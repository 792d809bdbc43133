"""How long 100,000 rows take: to judge, to write as a page, to open in Chromium, to open a cell.

python -m tests.benchmarks.page_time
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from niah.gate.verdict import run_gate
from niah.report.html.page import write_report
from niah.runs.store import read_rows
from tests.browser.conftest import NAMES
from tests.synthetic_rows import Synthetic, write_run

# 10 lengths x 11 depths x 2 families x 2 texts x 114 repeats x 2 arms
MADE = Synthetic(
    lengths=tuple(1024 * 2**i for i in range(10)),
    families=("single_number", "multi_key"),
    corpora=("kjv", "python"),
    repeats=114,
)


def main() -> None:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name:
        run = write_run(Path(name) / "run", MADE)
        found = read_rows(run)
        lines = b"".join(row.json_line() for row in found)
        (run / "rows.jsonl").write_bytes(lines)  # of today's schema: nothing to convert
        rows = len(found)
        began = time.perf_counter()
        result = run_gate(run, None, 0.05)
        print(f"{rows:,} rows: gate {result.verdict} in {time.perf_counter() - began:.1f} s")
        began = time.perf_counter()
        page_file = write_report([run], Path(name) / "page.html")
        written = time.perf_counter() - began
        print(f"{rows:,} rows: {page_file.stat().st_size / 1e6:.2f} MB written in {written:.1f} s")
        with sync_playwright() as playwright:
            path = next(filter(None, map(shutil.which, NAMES)))
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            page = browser.new_page()
            began = time.perf_counter()
            page.goto(page_file.as_uri())
            page.locator(".heat .cell").first.wait_for()
            loaded = time.perf_counter() - began
            began = time.perf_counter()
            page.locator(".heat .cell").first.click()
            page.locator("#questions-list li").first.wait_for()
            opened = time.perf_counter() - began
            print(f"first cell after {loaded:.2f} s, its questions {opened:.2f} s after a click")
            browser.close()


if __name__ == "__main__":
    main()
