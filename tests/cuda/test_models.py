"""On a CUDA device the models give the CPU's numbers: split, forked, rounded, pressed.

Models are float64 where rounding could decide what an indexer, a router or a format chooses.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from models.deepseek_v4.loading import chosen_format
from models.deepseek_v4.session import DeepseekV4Session
from models.devices import find_device, free_bytes, peak_bytes, reset_peak
from models.number_formats import PUBLISHED, WORDS
from models.registry import load_model
from tests.models.small import BUILDS, random_ids, relative_difference, score_in_pieces
from tests.sessions import greedy_ids, held

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

IDS = random_ids(400)
PIECES = [1, 3, 120, 4, 1, 128, 100]
FORMATS = [
    (name, word)
    for name in BUILDS
    for word in (*WORDS, PUBLISHED)
    if word != PUBLISHED or name in ("all entries", "top 3")
]
PRESSES = ["snapkv", "h2o", "tova", "knorm", "expected_attention", "streaming_llm", "quest"]


@pytest.mark.parametrize("name", BUILDS)
def test_logits_whole_and_in_pieces_are_the_cpus(name: str) -> None:
    model = BUILDS[name]().double()
    expected = score_in_pieces(model, IDS, [])
    model.to("cuda")
    assert relative_difference(score_in_pieces(model, IDS, []).cpu(), expected) < 1e-9
    assert relative_difference(score_in_pieces(model, IDS, PIECES).cpu(), expected) < 1e-9


@pytest.mark.parametrize("name", BUILDS)
def test_forks_share_rows_and_answer_as_on_the_cpu(name: str) -> None:
    answers, sizes = [], []
    model = BUILDS[name]().double()
    for device in ("cpu", "cuda"):
        model.to(device)
        session = DeepseekV4Session(model, chunk_size=150)
        for start, stop in pairwise([0, 127, 129, 256, 300]):
            session = session.fork()
            session.read(IDS[start:stop].numpy())
        answers.append([greedy_ids(session.fork(), 8), greedy_ids(session.fork(), 8)])
        sizes.append(held(session))
    assert answers[0] == answers[1]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(("name", "word"), FORMATS)
def test_rows_are_rounded_to_the_same_codes(name: str, word: str) -> None:
    model = BUILDS[name]().double()
    model.store_in(chosen_format(model.config, {"cache": word}))
    expected = score_in_pieces(model, IDS, PIECES)
    model.to("cuda")
    # Decoded in float32, where a GPU rounds a product and a sum once; another code moves far more.
    assert relative_difference(score_in_pieces(model, IDS, PIECES).cpu(), expected) < 1e-4


@pytest.mark.parametrize("press", PRESSES)
def test_a_press_keeps_what_it_keeps_on_the_cpu(press: str) -> None:
    ids, scores = random_ids(640, seed=3, vocab_size=2048).numpy(), []
    for device in ("cpu", "cuda"):
        options = {"press": {"name": press, "keep": 0.25}, "device": device}
        model: Any = load_model("nano-dense", options)
        session = model.session()
        session.read(ids[:600])
        session.context_ends()
        scores.append(session.score(ids[600:]).cpu())
    # A near tie may fall the other way: a wrong choice of rows differs by far more.
    assert relative_difference(scores[1], scores[0]) < 0.02


def test_memory_of_the_device_is_told() -> None:
    device = str(find_device("auto"))
    assert device == "cuda"
    reset_peak(device)
    before, free = peak_bytes(device), free_bytes(device)
    block = torch.empty(1 << 26, dtype=torch.uint8, device=device)
    after, left = peak_bytes(device), free_bytes(device)
    assert before is not None
    assert after is not None
    assert after - before >= block.nbytes
    assert free is not None
    assert left is not None
