"""Any split into calls gives the logits of one uncached pass: no state is lost or seen early."""

from __future__ import annotations

import pytest
import torch

from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from tests.models.small import full_logits, random_ids, relative_difference, score_in_pieces
from tests.sessions import greedy_ids

IDS = random_ids(390)
TOLERANCE = 2e-5
# Around the CSA ratio (4), the window and the HCA ratio (128), and multiples.
BOUNDARIES = [*range(1, 21), 127, 128, 129, 130, 255, 256, 257, 383, 384, 385]
PATTERNS = {
    "token by token": [1] * len(IDS),
    "sevens": [7] * len(IDS),
    "mixed": [3, 5, 1, 130, 2, 4, 127, 1, 1, 64],
    "prefill, then tokens": [200, *[1] * 190],
    "two prefills": [257, 17, 1, 1, 1],
}


@pytest.mark.parametrize("split", BOUNDARIES)
def test_two_pieces(small: DeepseekV4, split: int) -> None:
    pieces = score_in_pieces(small, IDS, [split])
    assert relative_difference(pieces, full_logits(small, IDS)) < TOLERANCE


@pytest.mark.parametrize("sizes", PATTERNS.values(), ids=PATTERNS)
def test_many_pieces(small: DeepseekV4, sizes: list[int]) -> None:
    pieces = score_in_pieces(small, IDS, sizes)
    assert relative_difference(pieces, full_logits(small, IDS)) < TOLERANCE


@pytest.mark.parametrize("chunk_size", [50, 128, 1000])
def test_the_session_splits_long_calls_itself(small: DeepseekV4, chunk_size: int) -> None:
    session = DeepseekV4Session(small, chunk_size)
    session.read(IDS.numpy())
    assert session.position == len(IDS)
    expected = full_logits(small, IDS)[-1]
    assert relative_difference(session.next_logits(), expected) < TOLERANCE


def test_small_query_blocks_give_the_same(
    small: DeepseekV4, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.deepseek_v4 import blocked

    whole = score_in_pieces(small, IDS, [])
    monkeypatch.setattr(blocked, "CPU_LIMIT", 1)  # 16 queries a block
    assert relative_difference(score_in_pieces(small, IDS, []), whole) < TOLERANCE


def test_generated_tokens_are_the_greedy_ones_of_full_passes(small: DeepseekV4) -> None:
    ids = IDS[:126]  # the answer crosses the window's and the HCA entry's edge
    session = DeepseekV4Session(small)
    session.read(ids.numpy())
    generated = greedy_ids(session, 6)
    for token in generated:
        assert token == int(full_logits(small, ids)[-1].argmax())
        ids = torch.cat((ids, torch.tensor([token])))
    assert session.position == len(ids)


def test_generation_stops_before_a_stop_text(small: DeepseekV4) -> None:
    session = DeepseekV4Session(small)
    session.read(IDS[:50].numpy())
    unstopped = greedy_ids(session.fork(), 5)
    stop = f" {unstopped[2]}"
    expected = unstopped[: unstopped.index(unstopped[2])]
    assert greedy_ids(session, 5, stop) == expected
    assert session.position == 50 + len(expected)


def test_gathering_happens_where_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's path: the few-entries model really gathers rows; the other never does."""
    from models import kernels
    from models.deepseek_v4 import attention
    from models.deepseek_v4.parts import Part, gathered_part
    from tests.models.small import BUILDS

    monkeypatch.setenv(kernels.SWITCH, "0")
    calls = dict.fromkeys(BUILDS, 0)
    for name, build in BUILDS.items():

        def counted(*args: torch.Tensor, name: str = name) -> Part:
            calls[name] += 1
            return gathered_part(*args)

        monkeypatch.setattr(attention, "gathered_part", counted)
        score_in_pieces(build(), IDS, [200])
    assert calls["top 3"] > 0
    assert calls["all entries"] == calls["uncompressed"] == 0
