"""Finds where a stop text ends an answer, for models in this process and for servers."""

from __future__ import annotations

import re
from collections.abc import Sequence

LEAD = re.compile(r"\s*(?:```[^\n`]*\n\s*)?")
"""White space and an opening code fence: a stop text there comes before the answer."""


def stop_index(text: str, stops: Sequence[str]) -> int | None:
    """Where the first stop text begins, looked for behind the text's lead; None without one."""
    start = lead_end(text)
    found = [at for stop in stops if (at := text.find(stop, start)) >= 0]
    return min(found, default=None)


def cut_in_lead(text: str, stops: Sequence[str]) -> bool:
    """Whether a server that cut `text` before a stop text may have met that stop in its lead."""
    return any(lead_end(text + stop) > len(text) for stop in stops)


def lead_end(text: str) -> int:
    """Where the text's lead ends."""
    found = LEAD.match(text)
    return found.end() if found else 0
