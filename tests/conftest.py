"""Hypothesis for all tests: in CI the same examples every time, elsewhere new ones at every run."""

import os

from hypothesis import settings

# A loaded machine is slow, not wrong: no deadlines.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")
