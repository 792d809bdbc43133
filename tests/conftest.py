"""For all tests: Hypothesis draws the same examples in CI; tests that take long are marked slow.

tests/slow_tests.txt lists them by measured time: see tests/mark_slow.py.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

SLOW = frozenset((Path(__file__).parent / "slow_tests.txt").read_text(encoding="utf-8").split())

# A loaded machine is slow, not wrong: no deadlines.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what slow_tests.txt names: files, and functions with all their parameters."""
    for item in items:
        path, _, name = item.nodeid.partition("::")
        if path in SLOW or f"{path}::{name.partition('[')[0]}" in SLOW:
            item.add_marker(pytest.mark.slow)
