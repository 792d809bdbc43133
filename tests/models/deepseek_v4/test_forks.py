"""Forks: an independent future, a shared past, a cost that does not grow with the position."""

from __future__ import annotations

from typing import TypeVar

import pytest
import torch
from torch import Tensor

from models.deepseek_v4.cache import LayerCache, Rows
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from tests.models.small import full_logits, random_ids, relative_difference, session_of
from tests.sessions import held

P = TypeVar("P")
IDS = random_ids(300)
OTHER = random_ids(300, seed=9)
TOLERANCE = 2e-5


def follows(session: DeepseekV4Session, ids: Tensor, start: int) -> bool:
    """Whether scoring ids[start:] equals a full pass over ids."""
    expected = full_logits(session._model, ids)[start:]
    return relative_difference(session.score(ids[start:].numpy()), expected) < TOLERANCE


@pytest.mark.parametrize("at", [1, 3, 4, 5, 127, 128, 129, 130, 255, 256, 257])
def test_parent_and_child_go_separate_ways(small: DeepseekV4, at: int) -> None:
    parent = session_of(small)
    parent.read(IDS[:at].numpy())
    child = parent.fork()
    diverged = torch.cat((IDS[:at], OTHER[at:]))
    assert follows(child, diverged, at)
    assert follows(parent, IDS, at)
    assert child.position == parent.position == len(IDS)


def test_interleaved_steps_do_not_disturb_each_other(small: DeepseekV4) -> None:
    parent = session_of(small)
    parent.read(IDS[:126].numpy())
    child = parent.fork()
    diverged = torch.cat((IDS[:126], OTHER[126:]))
    expected = full_logits(small, IDS), full_logits(small, diverged)
    for p in range(126, 140):
        for session, ids, logits in ((parent, IDS, expected[0]), (child, diverged, expected[1])):
            scored = session.score(ids[p : p + 1].numpy())[0]
            assert relative_difference(scored, logits[p]) < TOLERANCE


def test_nested_forks(small: DeepseekV4) -> None:
    """A chain of forks, each extended by a few tokens, and siblings of every link."""
    session = session_of(small)
    siblings = []
    sizes = [2, 3, 100, 24, 1, 6, 120, 9]
    at = 0
    for size in sizes:
        session.read(IDS[at : at + size].numpy())
        at += size
        siblings.append((at, session.fork()))
        session = session.fork()
    assert follows(session, IDS, at)
    for start, sibling in siblings:
        assert follows(sibling, torch.cat((IDS[:start], OTHER[start:])), start)


def test_a_fork_of_an_empty_session_starts_from_nothing(small: DeepseekV4) -> None:
    assert follows(session_of(small).fork(), IDS, 0)


def parts_of(cache: LayerCache, kind: type[P]) -> list[P]:
    return [part for part in vars(cache).values() if isinstance(part, kind)]


@pytest.mark.parametrize("position", [260, 2600])
def test_a_fork_copies_no_tensor(small: DeepseekV4, position: int) -> None:
    parent = session_of(small)
    parent.read(random_ids(position).numpy())
    child = parent.fork()
    for ours, theirs in zip(parent._caches, child._caches, strict=True):
        assert pointers(ours) == pointers(theirs)
    before = [pointers(cache) for cache in child._caches]
    child.read([1, 2, 3, 4])
    for ours, theirs, shared in zip(parent._caches, child._caches, before, strict=True):
        assert pointers(ours) == shared
        for mine, forked in zip(parts_of(ours, Rows), parts_of(theirs, Rows), strict=True):
            for segment, kept in zip(mine.segments, forked.segments, strict=False):
                assert segment.data_ptr() == kept.data_ptr()
            own = 0 if forked._own is None else forked._own.shape[1]
            assert own <= Rows.STEP


def pointers(cache: LayerCache) -> list[int]:
    return [tensor.data_ptr() for tensor in cache.tensors().values()]


def test_a_fork_reports_the_whole_past_as_its_bytes(small: DeepseekV4) -> None:
    parent = session_of(small)
    parent.read(IDS.numpy())
    assert held(parent.fork()) == held(parent)


def test_rows_are_found_in_any_segment() -> None:
    table = torch.arange(1000.0).view(1, -1, 1)
    rows = Rows()
    rows.append(table[:, :3])
    for start, stop in ((3, 4), (4, 300), (300, 1000)):
        rows = rows.fork()
        rows.append(table[:, start:stop])
    indices = torch.tensor([[0, 2, 3], [299, 300, 999]])
    assert torch.equal(rows.take(indices)[..., 0], indices.float())
    assert len(rows) == 1000
