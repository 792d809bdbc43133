"""Presses in the uncompressed twin: answers, bytes, forks, files, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.deepseek_v4.dense import DenseTwin, FullCache
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from models.errors import ModelError
from models.presses.contract import Past, kept
from models.presses.observed import Call, Observed
from models.presses.options import PRESSES, pressing
from models.presses.rotary import Rotary
from models.registry import load_model
from tests.models.small import REAL, random_ids, randomized, relative_difference
from tests.sessions import held

CONTEXT, QUESTION = random_ids(300), random_ids(9, seed=4)
OPTIONS: dict[str, dict[str, Any]] = {
    name: {"name": name, "keep": 0.25} for name in (*PRESSES, "seen")
}
OPTIONS["quest"] |= {"dense_layers": 1}
OPTIONS["seen"] |= {"name": "snapkv", "window": 5, "sees_question": True}
EVICTING = [name for name in PRESSES if name != "quest"]


@pytest.fixture(scope="module")
def twin() -> DenseTwin:
    return randomized(DenseTwin(REAL), seed=2)  # type: ignore[return-value]


def session_of(model: DeepseekV4, press: dict[str, Any] | None = None) -> DeepseekV4Session:
    session = DeepseekV4Session(model)
    found = pressing(press)
    if found:
        session.observe(found, found.needs)
    return session


def read(session: DeepseekV4Session, *sizes: int) -> DeepseekV4Session:
    for part in CONTEXT.split([*sizes, len(CONTEXT) - sum(sizes)]):
        session.read(part.numpy())
    return session


def answer_to(session: DeepseekV4Session) -> Tensor:
    session.context_ends()
    logits = session.score(QUESTION.numpy())
    session.question_ends()
    return logits


def full_caches(session: DeepseekV4Session) -> dict[int, FullCache]:
    return {i: cache for i, cache in enumerate(session._caches) if isinstance(cache, FullCache)}


@pytest.mark.parametrize("name", EVICTING)
def test_what_is_kept_is_what_the_press_chooses_of_all_queries(twin: DenseTwin, name: str) -> None:
    """All queries of a forward pass in one piece, taken from the layers themselves."""
    queries: dict[int, Tensor] = {}
    original = type(twin.model.layers[1].self_attn).attend

    def collect(self: Any, x: Any, latent: Any, q: Tensor, *others: Any) -> Tensor:
        layer = next(i for i, each in enumerate(twin.model.layers) if each.self_attn is self)
        queries[layer] = q[0].transpose(0, 1)
        return original(self, x, latent, q, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(twin.model.layers[1].self_attn), "attend", collect)
        whole = session_of(twin)
        whole.score(CONTEXT.numpy())  # in every layer all tokens ask
    session = read(session_of(twin, OPTIONS[name]), 100, 1, 1, 128)
    session.context_ends()
    asked = pressing(OPTIONS[name])
    assert asked is not None
    frequencies = twin.compressed_frequencies
    for layer, cache in full_caches(whole).items():
        (keys,) = cache.full.segments
        rotary = Rotary(frequencies, True, REAL.head_dim - REAL.qk_rope_head_dim)
        seen = Observed(asked.needs, rotary)
        seen.add(Call(queries[layer], keys, 0, twin.model.layers[layer].self_attn.sinks))
        sinks = twin.model.layers[layer].self_attn.sinks
        rows = kept(asked.press, Past(layer, keys, keys, seen, sinks))[0]
        (found,) = full_caches(session)[layer].full.segments
        assert found.shape[1] == 75
        assert relative_difference(found, keys[:, rows]) < 1e-4


@pytest.mark.parametrize("name", OPTIONS)
def test_pieces_and_forks_change_nothing(twin: DenseTwin, name: str) -> None:
    whole = answer_to(read(session_of(twin, OPTIONS[name])))
    parts = answer_to(read(session_of(twin, OPTIONS[name]), 100, 1, 1, 128))
    assert relative_difference(parts, whole) < 2e-5
    trunk = session_of(twin, OPTIONS[name])
    trunk.read(CONTEXT[:150].numpy())
    answer_to(trunk.fork())
    trunk.read(CONTEXT[150:].numpy())
    before = held(trunk)
    forked, again = trunk.fork(), trunk.fork()
    assert relative_difference(answer_to(forked), whole) < 2e-5
    assert relative_difference(answer_to(again), whole) < 2e-5
    assert held(trunk) == before


@pytest.mark.parametrize("name", EVICTING)
def test_bytes_fall_to_the_share_that_is_kept(twin: DenseTwin, name: str) -> None:
    trunk, plain = read(session_of(twin, OPTIONS[name])), read(session_of(twin))
    fork = trunk.fork()
    fork.context_ends()
    row = 3 * REAL.head_dim * 4  # layers, width, bytes
    assert held(fork)["full"] == row * 80  # 75 rows, in steps of 8
    assert held(plain)["full"] == held(trunk)["full"] == row * 304
    assert set(held(fork)) == set(held(plain)) == {"window", "full"}
    assert held(fork)["window"] == held(plain)["window"]


def test_quest_reads_pages(twin: DenseTwin) -> None:
    full = answer_to(read(session_of(twin)))
    session = read(session_of(twin, OPTIONS["quest"]))
    assert relative_difference(answer_to(session), full) > 1e-3
    assert held(session)["pages"] == 3 * 2 * 19 * REAL.head_dim * 4
    everything = read(session_of(twin, OPTIONS["quest"] | {"keep": 1}))
    assert relative_difference(answer_to(everything), full) < 2e-5


def test_keeping_everything_changes_nothing(twin: DenseTwin) -> None:
    full = answer_to(read(session_of(twin)))
    for name in EVICTING:
        found = answer_to(read(session_of(twin, OPTIONS[name] | {"keep": 1})))
        assert relative_difference(found, full) < 2e-5, name


def test_an_empty_context(twin: DenseTwin) -> None:
    full = answer_to(session_of(twin))
    for name in PRESSES:
        assert relative_difference(answer_to(session_of(twin, OPTIONS[name])), full) < 2e-5


@pytest.mark.parametrize("kept_at", [200, 300])
@pytest.mark.parametrize("name", ["snapkv", "expected_attention", "h2o"])
def test_a_saved_session_presses_like_the_one_that_goes_on(
    tmp_path: Path, name: str, kept_at: int
) -> None:
    """Also where nothing is read between the file and the press."""
    model: Any = load_model("random-dense", {"press": OPTIONS[name]})
    session = model.session()
    session.read(CONTEXT[:kept_at].numpy())
    model.save(session, tmp_path / "kept", {})
    restored, _ = model.restore(tmp_path / "kept")
    for each in (session, restored):
        each.read(CONTEXT[kept_at:].numpy())
    assert torch.equal(answer_to(session), answer_to(restored))


def test_a_press_keeps_rows_as_they_are_stored() -> None:
    """Beside a cache in few bits: the rows that are kept are not rounded again."""
    model: Any = load_model("random-dense", {"press": OPTIONS["knorm"], "cache": "int4"})
    trunk = model.session()
    trunk.read(CONTEXT.numpy())
    fork = trunk.fork()
    fork.context_ends()
    assert held(fork)["full"] == pytest.approx(held(trunk)["full"] / 4, rel=0.1)
    for layer, cache in full_caches(fork).items():
        before = full_caches(trunk)[layer].full.read(300)[0]
        after = cache.full.read(75)[0]
        assert all(bool((before == row).all(-1).any()) for row in after)


def test_the_fingerprint_knows_the_press() -> None:
    presses = [None, *(OPTIONS[name] for name in OPTIONS), OPTIONS["random"] | {"seed": 1}]
    options = [{} if press is None else {"press": press} for press in presses]
    assert len({load_model("random-dense", each).fingerprint for each in options}) == 11


def test_compressed_entries_cannot_be_pressed() -> None:
    told = r"^options\.press: random-v4 keeps compressed entries, not every token's keys; its unc"
    with pytest.raises(ModelError, match=told):
        load_model("random-v4", {"press": OPTIONS["knorm"]})
    for name in ("random-mla", "random-dsa"):
        told = rf"^options\.press: {name} keeps one latent for all heads \(MLA\), not keys$"
        with pytest.raises(ModelError, match=told):
            load_model(name, {"press": OPTIONS["knorm"]})
    with pytest.raises(ModelError, match=r"^options\.press\.keep: got 2, expected a share"):
        load_model("random-dense", {"press": {"name": "knorm", "keep": 2}})
