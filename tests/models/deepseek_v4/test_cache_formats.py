"""Sessions whose rows are stored in few bits: rounded from the first call on, however split.

Models are float64 where answers of several splits are compared: sums in another order then move
no number across the border of two codes.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import kernels
from models.costs.deepseek_v4 import held_bytes
from models.deepseek_v4 import session_files
from models.deepseek_v4.cache import Rows
from models.deepseek_v4.loading import LoadedModel, chosen_format
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from models.devices import storage_bytes
from models.errors import ModelError
from models.number_formats import FULL, PUBLISHED, WORDS, cache_format
from models.registry import configuration, load_model
from tests.models.small import BUILDS, random_ids, relative_difference, score_in_pieces
from tests.sessions import greedy_ids, held

IDS = random_ids(262)
TOLERANCE = 1e-9
# Around the CSA ratio (4), the window and the HCA ratio (128).
BOUNDARIES = [0, 1, 3, 4, 5, 7, 8, 127, 128, 129, 131, 132, 255, 256, 257, 262]
ROUNDED = [word for word in (*WORDS, PUBLISHED) if word != FULL]
FEW = ["bf16", "int4", "published"]
MODELS = ["top 3", "uncompressed", "latent"]


def stored_in(name: str, word: str) -> DeepseekV4:
    """A small model of `MODELS` in float64 with an option `cache`."""
    model = BUILDS[name]().double()
    model.store_in(chosen_format(model.config, {"cache": word}))
    return model


def choices(words: list[str]) -> list[tuple[str, str]]:
    return [
        (name, word)
        for name in MODELS
        for word in words
        if not (name != "top 3" and word == PUBLISHED)
    ]


def forked_at_boundaries(model: DeepseekV4) -> Tensor:
    """Logits of a text whose pieces are each read by a fork of the session before."""
    session, logits = DeepseekV4Session(model), []
    for start, stop in pairwise(BOUNDARIES):
        session = session.fork()
        logits.append(session.score(IDS[start:stop].numpy()))
    return torch.cat(logits)


@pytest.mark.parametrize(("name", "word"), choices(ROUNDED))
def test_forks_at_every_boundary_round_as_one_call_does(name: str, word: str) -> None:
    model = stored_in(name, word)
    whole = score_in_pieces(model, IDS, [])
    assert relative_difference(forked_at_boundaries(model), whole) < TOLERANCE


@pytest.mark.parametrize(("name", "word"), choices(FEW))
def test_pieces_and_single_tokens_round_as_one_call_does(name: str, word: str) -> None:
    model = stored_in(name, word)
    whole = score_in_pieces(model, IDS, [])
    sizes = [5, *[1] * 4, 117, *[1] * 7, 50]
    assert relative_difference(score_in_pieces(model, IDS, sizes), whole) < TOLERANCE


@pytest.mark.parametrize(("name", "word"), choices(ROUNDED))
def test_the_first_call_reads_rounded_rows(name: str, word: str) -> None:
    """Its logits differ from the unrounded ones from the first token on, by the format's error."""
    model = stored_in(name, word)
    exact = score_in_pieces(stored_in(name, FULL), IDS[:20], [])
    first = score_in_pieces(model, IDS[:20], [])
    assert ((first - exact).abs().amax(-1) > 1e-5 * exact.abs().max()).all()


@pytest.mark.parametrize(("name", "word"), choices(ROUNDED))
def test_a_forward_pass_without_a_cache_rounds_as_a_session_does(name: str, word: str) -> None:
    """Training reads so: what it learns to bear is what a cache does to rows."""
    model = stored_in(name, word)
    whole = score_in_pieces(model, IDS, [])
    with torch.no_grad():
        forward = model(IDS[None])[0]
    assert relative_difference(forward, whole) < TOLERANCE


@pytest.mark.parametrize(("name", "word"), choices(ROUNDED))
def test_a_fork_shares_what_is_stored(name: str, word: str) -> None:
    parent = DeepseekV4Session(stored_in(name, word))
    parent.read(IDS[:200].numpy())
    child = parent.fork()
    for ours, theirs in zip(parent._caches, child._caches, strict=True):
        ours_at = {key: t.data_ptr() for key, t in ours.tensors().items()}
        frozen = {t.data_ptr() for t in theirs.tensors().values()}
        assert set(ours_at.values()) == frozen
    before = held(parent)
    child.read(IDS[200:].numpy())
    assert held(parent) == before
    parent.read(IDS[200:].numpy())
    assert relative_difference(parent.next_logits(), child.next_logits()) < TOLERANCE


@pytest.mark.parametrize("word", ROUNDED)
def test_held_bytes_are_those_of_the_layout(word: str) -> None:
    """1,024 tokens leave no storage unused."""
    compare_held("nano-v4", word, 1024)


@pytest.mark.parametrize("word", [word for word in ROUNDED if word != PUBLISHED])
@pytest.mark.parametrize("name", ["nano-dense", "random-mla", "random-dsa"])
def test_the_twins_held_bytes_are_those_of_the_layout(name: str, word: str) -> None:
    compare_held(name, word, 1024)


@pytest.mark.parametrize("name", ["random-mla", "random-dsa"])
def test_latents_have_no_layout_of_v4(name: str) -> None:
    with pytest.raises(ModelError, match=r"^options.cache: got 'published', expected one of full"):
        load_model(name, {"cache": PUBLISHED})


def compare_held(name: str, word: str, length: int) -> None:
    session = load_model(name, {"cache": word}).session()
    assert isinstance(session, DeepseekV4Session)
    session.read(random_ids(length).numpy())
    expected = held_bytes(configuration(name), length, cache=word)
    assert held(session) == {kind: count for kind, count in expected.items() if count}


@pytest.mark.parametrize(
    ("word", "entry_bytes", "key_bytes"),
    [("full", 2048, 512), ("bf16", 1024, 256), ("published", 584, 68), ("nvfp4", 384, 68)],
)
def test_storages_at_v4s_own_widths(word: str, entry_bytes: int, key_bytes: int) -> None:
    form = cache_format(word, 448, 64, 128, published=True)
    for width, each, size in (
        (512, form.entry, entry_bytes),
        (128, form.index, key_bytes),
    ):
        rows = Rows(format=each)
        for count in (1, 500, 523):
            rows.append(torch.randn(1, count, width))
        assert storage_bytes(rows.tensors().values()) == 1024 * size


@pytest.mark.parametrize(("name", "word"), choices(FEW))
def test_a_restored_session_goes_on_bit_for_bit(name: str, word: str, tmp_path: Path) -> None:
    model = stored_in(name, word)
    parent = DeepseekV4Session(model)
    parent.read(IDS[:130].numpy())
    session = parent.fork()
    session.read(IDS[130:150].numpy())
    path = tmp_path / "session.safetensors"
    session_files.save(path, "weights", session.state({}))
    restored = DeepseekV4Session.restored(model, session_files.load(path, "weights"))
    for other in (session, restored):
        other.read(IDS[150:].numpy())
    assert torch.equal(restored.next_logits(), session.next_logits())
    assert greedy_ids(restored, 2) == greedy_ids(session, 2)


def test_a_session_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "session.safetensors"
    published = load_model("random-v4", {"cache": "published"})
    other = load_model("random-v4", {"cache": "int4"})
    assert isinstance(published, LoadedModel)
    assert isinstance(other, LoadedModel)
    published.save(published.session(), path, {})
    with pytest.raises(ModelError, match=f"-published: expected {other.fingerprint}$"):
        other.restore(path)


@pytest.mark.parametrize("word", FEW)
def test_kernels_and_torch_read_the_same_rows(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """float32: now and then a number falls on the other side of a border, so most are compared."""
    model = BUILDS["top 3"]()
    model.store_in(chosen_format(model.config, {"cache": word}))
    fast = score_in_pieces(model, IDS, [200])
    monkeypatch.setenv(kernels.SWITCH, "0")
    slow = score_in_pieces(model, IDS, [200])
    apart = (fast - slow).abs().amax(-1) / slow.abs().max()
    assert apart.median() < 1e-4
