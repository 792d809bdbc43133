"""Ranks of the entries that hold a token, against scores taken from the indexer itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.deepseek_v4.indexer import Indexer, select
from models.deepseek_v4.model import DeepseekV4
from models.protocols import TracedSession
from tests.models.small import BUILDS, GATHERED, random_ids, relative_difference, session_of
from tests.sessions import held

IDS = random_ids(400)


@pytest.fixture(scope="module")
def gathered() -> DeepseekV4:
    return BUILDS["top 3"]()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The scores of every call to the indexer from here on."""
    scores: list[Tensor] = []
    score = Indexer.score

    def recorded(queries: Tensor, weights: Tensor, keys: Tensor) -> Tensor:
        scores.append(score(queries, weights, keys))
        return scores[-1]

    monkeypatch.setattr(Indexer, "score", staticmethod(recorded))
    return scores


@pytest.mark.parametrize("at", [259, 300, 303])
@pytest.mark.parametrize("wanted", [0, 5, 63, 64, 120])
def test_ranks_are_those_of_the_entries_that_hold_the_token(
    gathered: DeepseekV4, seen: list[Tensor], at: int, wanted: int
) -> None:
    session = session_of(gathered)
    session.read(IDS[:at].numpy())
    seen.clear()
    trace = session.extend_traced(int(IDS[at]), wanted)
    assert not trace.in_window
    assert [s.layer for s in trace.selections] == [1, 3]
    entries = (at + 1) // 4
    for scores in (s for s in seen if s.shape[1] == 1):
        assert scores.shape[-1] == entries
    by_layer = seen[0], seen[-1]
    for selection, scores in zip(trace.selections, by_layer, strict=True):
        row = scores.flatten().tolist()
        order = sorted(range(entries), key=lambda i: (-row[i], i))
        rank = min(order.index(wanted // 4), order.index(wanted // 4 + 1))
        chosen, real = select(scores, torch.tensor([entries]), GATHERED.index_topk)
        picks = set(chosen[real].tolist())
        assert (selection.rank, selection.entries) == (rank, entries)
        assert selection.selected == bool(picks & {wanted // 4, wanted // 4 + 1})


def test_the_window_is_exact(gathered: DeepseekV4) -> None:
    session = session_of(gathered)
    session.read(IDS[:299].numpy())
    window = GATHERED.sliding_window
    assert session.fork().extend_traced(int(IDS[299]), 300 - window).in_window
    assert not session.fork().extend_traced(int(IDS[299]), 299 - window).in_window


def test_a_token_whose_entry_is_not_closed_yet_has_no_rank(gathered: DeepseekV4) -> None:
    session = session_of(gathered)
    session.read(IDS[:299].numpy())
    assert session.extend_traced(int(IDS[299]), 299).selections  # its entry has just closed
    assert not session.extend_traced(int(IDS[300]), 300).selections


def test_tracing_changes_nothing(small: DeepseekV4) -> None:
    traced, plain = session_of(small), session_of(small)
    assert isinstance(traced, TracedSession)
    for session in (traced, plain):
        session.read(IDS[:299].numpy())
    traced.extend_traced(int(IDS[299]), 12)
    plain.read(IDS[299:300].numpy())
    assert relative_difference(traced.next_logits(), plain.next_logits()) == 0
    assert held(traced) == held(plain)


def test_the_uncompressed_twin_selects_nothing() -> None:
    session = session_of(BUILDS["uncompressed"]())
    session.read(IDS[:299].numpy())
    assert session.extend_traced(int(IDS[299]), 12).selections == ()
