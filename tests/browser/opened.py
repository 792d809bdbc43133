"""A page opened in Chromium, and the made-up run it reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.synthetic_rows import Synthetic, baseline_chance, compressed_chance

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE_MS = 90_000  # a busy machine is slow, not wrong
HOSTILE = '</script><img src=x onerror="window.attacked=1"><script>window.attacked=1</script>'
MADE = Synthetic(
    lengths=(1024, 4096, 16384), families=("single", "multi"), corpora=("kjv", "code"), repeats=4
)
WIDE = Synthetic(
    lengths=tuple(1024 * 2**power for power in range(11)),
    families=("single", "multi"),
    repeats=2,
    arms={
        "dense": baseline_chance,
        "v4-with-half-the-entries": compressed_chance,
        "v4-with-a-quarter": lambda *_: 0.7,
    },
)


@dataclass
class Opened:
    """What was opened, what it fetched and what it complained about."""

    page: Page
    fetched: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def open_page(browser: Browser, path: Path, **context: Any) -> Opened:
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(PATIENCE_MS)
    opened = Opened(page)
    page.on("request", lambda request: opened.fetched.append(request.url))
    page.on("console", lambda message: opened.complaints.append(message.text))
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    page.goto(path.as_uri())
    return opened
