"""One thread, and the small models built once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from models.deepseek_v4.model import DeepseekV4
from tests.models.small import BUILDS


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", params=BUILDS)
def small(request: pytest.FixtureRequest) -> DeepseekV4:
    """Each of: all entries selected, few selected and gathered, uncompressed."""
    return BUILDS[request.param]()
