"""Batches that ask from afar: where answers were stated, gaps, rivals, and which queries look."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from haystacks.tokenizer import FastTokenizer, load_tokenizer
from niah.training.asked import choose_asked
from niah.training.batches import (
    LONGEST_ITEM,
    LONGEST_RIVALS,
    TRAINABLE,
    Batch,
    Mixture,
    MixtureSettings,
    far_positions,
    near_key,
)
from tests.niah.training.test_trainer import Dots

FAR = MixtureSettings(
    length=1024,
    items=(4, 12),
    noise_share=0.0,
    families=dict.fromkeys(TRAINABLE, 1.0),
    varied_share=0.5,
    rival_share=0.5,
    far=True,
    far_share=1.0,
)
NEAR = replace(FAR, far=False)
LISTS = ("multi_value", "multi_query", "variable_tracking")


@pytest.fixture(scope="module")
def tokenizer() -> FastTokenizer:
    return load_tokenizer("bundled-bpe-2048")


@pytest.fixture(scope="module")
def mixture(tokenizer: FastTokenizer) -> Mixture:
    (dot,) = tokenizer.encode(".")
    return Mixture(Dots(np.full(100_000, dot, dtype=np.uint16), 100_000), tokenizer, seed=3)  # type: ignore[arg-type]


def gap_of(batch: Batch) -> int:
    """The first token behind the batch's gap."""
    (jumps,) = (batch.positions.diff() != 1).nonzero(as_tuple=True)
    assert len(jumps) == 1
    return int(jumps[0]) + 1


@pytest.mark.parametrize("settings", [FAR, NEAR])
def test_sources_are_where_the_next_token_was_stated(
    mixture: Mixture, settings: MixtureSettings
) -> None:
    for step in range(10):
        batch = mixture.batch(step, 2, settings)
        assert not (batch.sources >= 0)[~batch.answers].any()
        for row, first, last, family in batch.facts:
            sources = batch.sources[row, first:last]
            if family in LISTS:
                assert (sources == -1).all()
                continue
            assert (sources >= 0).all(), family
            assert int(sources[-1]) < first
            # The stop after a value may differ from what follows where it was stated.
            stated = batch.ids[row, sources[:-1]]
            assert torch.equal(stated, batch.ids[row, first + 1 : last]), family
            assert batch.planted[row, sources].all()


def test_a_gap_parts_statements_from_questions(mixture: Mixture) -> None:
    for step in range(10):
        batch = mixture.batch(step, 2, FAR)
        gap = gap_of(batch)
        assert gap % 128 == 0
        assert not batch.asked[:, :gap].any()
        assert int(batch.sources.max()) < gap
        assert batch.asked.any()
        assert batch.planted[batch.asked > 0].all()


def test_gaps_and_reaches_are_spread_evenly_in_log_length() -> None:
    rng = np.random.default_rng(0)
    settings = replace(FAR, length=512)
    draws = [far_positions(rng, settings, 256) for _ in range(3000)]
    gaps = np.array([int(late[-1] - late[0]) for late in draws])
    assert gaps.min() >= 128
    assert max(int(late[-1]) for late in draws) + 512 < settings.max_jump
    assert all(int(late[0]) % 128 == 0 for late in draws)
    octaves = np.log2(gaps / 128)  # 0 to 13
    assert np.histogram(octaves, bins=[0, 4.33, 8.66, 13])[0] == pytest.approx(1000, rel=0.12)
    reach = np.array([int(late[-1]) for late in draws])
    assert (reach >= gaps).all()
    alone = [int(far_positions(rng, settings, None)[0]) for _ in range(500)]
    assert min(alone) >= 128
    assert max(alone) > 500_000


def test_gaps_may_begin_late() -> None:
    rng = np.random.default_rng(0)
    settings = replace(FAR, length=512, min_gap=4096)
    draws = [far_positions(rng, settings, 256) for _ in range(500)]
    gaps = np.array([int(late[-1] - late[0]) for late in draws])
    assert gaps.min() >= 4096
    assert (gaps > 65_536).mean() == pytest.approx(0.5, abs=0.1)


def test_no_batch_is_without_an_answer_however_crowded(mixture: Mixture) -> None:
    crowded = MixtureSettings(
        length=256, items=(10, 14), snippet_share=0.0, scattered_share=0.0, noise_share=0.0
    )
    for settings in (crowded, replace(crowded, far=True, far_share=1.0)):
        for step in range(20):
            batch = mixture.batch(step, 2, settings)
            assert batch.answers.any(dim=1).all()
            assert (batch.sources >= 0).any(dim=1).all()  # what is asked for was stated


def test_near_keys_share_a_word_or_differ_in_one_letter() -> None:
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(200):
        key = near_key(rng, "amber falcon")
        words = zip(key.split(), ("amber", "falcon"), strict=True)
        same_words = sum(ours == theirs for ours, theirs in words)
        letters = sum(a != b for a, b in zip(key, "amber falcon", strict=False))
        close = len(key) == len("amber falcon") and letters <= 1
        assert same_words == 1 or close, key
        kinds.add("letter" if close else "word")
    assert kinds == {"letter", "word"}


def test_rivals_give_other_values_in_the_same_words(
    mixture: Mixture, tokenizer: FastTokenizer
) -> None:
    settings = replace(NEAR, families={"single_number": 1.0}, coined_key_share=0.0, rival_share=1.0)
    rng = np.random.default_rng(0)
    items = [item for _ in range(10) for item in mixture._items(rng, settings, 4) if item.family]
    for item in items:
        texts = [tokenizer.decode(ids) for ids in item.statements]
        answer = tokenizer.decode(item.answer)
        assert len(texts) >= 2 or "\ufffd" in texts[0]
        assert answer in texts[0]
        assert all(answer not in rival for rival in texts[1:])
        assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("family", ["", *TRAINABLE])
def test_items_are_as_short_as_stages_are_told(mixture: Mixture, family: str) -> None:
    rng = np.random.default_rng(1)
    settings = replace(
        NEAR,
        families={family or "single_number": 1.0},
        snippet_share=0.0 if family else 1.0,
        rival_share=1.0,
    )
    limit = LONGEST_ITEM[family] + LONGEST_RIVALS * family.startswith("single_")
    for _ in range(40):
        for item in mixture._items(rng, settings, 3):
            sizes = [len(ids) for ids in (*item.statements, item.prompt, item.answer)]
            assert sum(sizes) <= limit


def test_asked_queries_are_whole_questions_with_their_answers(mixture: Mixture) -> None:
    batch = mixture.batch(1, 3, FAR)
    asked = choose_asked(batch, 150, seed=5)
    assert asked.queries.shape == asked.sources.shape == (3, 150)
    assert (asked.queries.diff(dim=1) > 0).all()
    assert torch.equal(asked.sources, batch.sources.gather(1, asked.queries))
    again = choose_asked(batch, 150, seed=5)
    assert torch.equal(asked.queries, again.queries)
    assert not torch.equal(asked.queries, choose_asked(batch, 150, seed=6).queries)
    for row, numbers in enumerate(batch.asked):
        chosen = set(asked.queries[row].tolist())
        whole = [
            set((numbers == n).nonzero().flatten()[:-1].tolist())
            for n in range(1, int(numbers.max()) + 1)
        ]
        cut = [tokens for tokens in whole if tokens & chosen and not tokens <= chosen]
        assert len(cut) <= 1
        assert any(tokens <= chosen for tokens in whole)
        for tokens in cut:  # the newest are kept
            assert min(tokens & chosen) > max(tokens - chosen)


def test_asked_queries_are_filled_up_where_few_questions_are(mixture: Mixture) -> None:
    batch = mixture.batch(1, 2, replace(FAR, items=(1, 1), families={"single_number": 1.0}))
    asked = choose_asked(batch, 200, seed=5)
    assert (asked.queries.diff(dim=1) > 0).all()
    for row, numbers in enumerate(batch.asked):
        tokens = (numbers == 1).nonzero().flatten()[:-1].tolist()
        assert set(tokens) <= set(asked.queries[row].tolist())
