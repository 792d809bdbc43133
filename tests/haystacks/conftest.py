"""Shared: the bundled tokenizer, and a token cache of the test session's own."""

from collections.abc import Iterator

import pytest

from haystacks.tokenizer import BUNDLED_NAME, FastTokenizer, load_tokenizer


@pytest.fixture(scope="session", autouse=True)
def cache_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIAH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tokenizer() -> FastTokenizer:
    return load_tokenizer(BUNDLED_NAME)
