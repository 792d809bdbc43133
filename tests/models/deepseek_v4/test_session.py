"""What a session refuses, in one line, and what it leaves untouched when it does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from tests.models.small import REAL, random_ids
from tests.sessions import greedy_ids, held


@pytest.fixture
def session(small: DeepseekV4) -> DeepseekV4Session:
    session = DeepseekV4Session(small)
    session.read([1, 2, 3])
    return session


@pytest.mark.parametrize("bad", [[-1], [5, REAL.vocab_size], [10**12]])
def test_ids_out_of_range(session: DeepseekV4Session, bad: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"^ids: .*0\.\.{REAL.vocab_size - 1}$"):
        session.read(bad)
    assert session.position == 3


def test_too_many_tokens(session: DeepseekV4Session) -> None:
    limit = REAL.max_position_embeddings
    before = held(session)
    with pytest.raises(
        ValueError, match=rf"^ids: 3 \+ {limit} tokens exceed max_position {limit}$"
    ):
        session.read(np.zeros(limit, dtype=np.int32))
    assert session.position == 3
    assert held(session) == before


def test_an_empty_session_cannot_generate(small: DeepseekV4) -> None:
    with pytest.raises(ValueError, match=r"^generate: the session is empty"):
        greedy_ids(DeepseekV4Session(small), 1)


def test_extending_by_nothing_changes_nothing(session: DeepseekV4Session) -> None:
    before, expected = held(session), session.next_logits()
    session.read([])
    assert session.position == 3
    assert held(session) == before
    assert torch.equal(session.next_logits(), expected)
    assert greedy_ids(session, 0) == []


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint16])
def test_arrays_of_any_integer_type(small: DeepseekV4, kind: type[np.integer]) -> None:
    from_list, from_array = DeepseekV4Session(small), DeepseekV4Session(small)
    ids = random_ids(20).tolist()
    from_list.read(ids)
    from_array.read(np.asarray(ids, dtype=kind))
    assert torch.equal(from_list.next_logits(), from_array.next_logits())


def test_read_only_arrays_such_as_a_memory_mapped_corpus(small: DeepseekV4) -> None:
    ids = random_ids(20).numpy().copy()
    ids.setflags(write=False)
    session = DeepseekV4Session(small)
    session.read(ids)
    assert session.position == 20
