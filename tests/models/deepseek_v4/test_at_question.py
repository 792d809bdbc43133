"""A layer's memory taken away, or more entries selected, when the question begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import kernels
from models.deepseek_v4 import attention
from models.deepseek_v4.loading import LoadedModel
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import AtQuestion, DeepseekV4Session, Memory
from models.protocols import PressedSession
from models.registry import load_model
from tests.models.small import BUILDS, random_ids, relative_difference, score_in_pieces
from tests.sessions import greedy_ids, held, held_total

CONTEXT = random_ids(300)
QUESTION = random_ids(30, seed=1)


def asked(model: DeepseekV4, changes: AtQuestion, *, forked: bool = True) -> DeepseekV4Session:
    """A session that has read the context and stands before the question."""
    session = DeepseekV4Session(model)
    session.change_at_question(changes)
    session.read(CONTEXT.numpy())
    session = session.fork() if forked else session
    session.context_ends()
    return session


def logits(session: DeepseekV4Session) -> Tensor:
    return session.score(QUESTION.numpy())


@pytest.fixture(params=["kernels", "torch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.SWITCH, "1" if request.param == "kernels" else "0")


def hide_entries(monkeypatch: pytest.MonkeyPatch, ratio: int) -> None:
    """No query sees an entry of so many tokens."""
    real = attention.visible_entries

    def visible(indices: Tensor, of: int) -> Tensor:
        return real(indices, of) * (of != ratio)

    monkeypatch.setattr(attention, "visible_entries", visible)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(("kind", "ratio"), [("hca", 128), ("csa", 4)])
def test_what_is_left_is_what_hiding_every_entry_leaves(
    kind: Memory, ratio: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BUILDS["top 3"]()
    whole, found = logits(asked(model, AtQuestion())), logits(asked(model, AtQuestion(kind)))
    assert relative_difference(found, whole) > 1e-3
    session = asked(model, AtQuestion())
    hide_entries(monkeypatch, ratio)
    assert relative_difference(logits(session), found) < 1e-5


@pytest.mark.usefixtures("path")
def test_without_a_window_the_question_sees_its_own_tokens_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = BUILDS["top 3"]()
    whole, found = logits(asked(model, AtQuestion())), logits(asked(model, AtQuestion("window")))
    assert relative_difference(found, whole) > 1e-3
    session = asked(model, AtQuestion())
    monkeypatch.setattr(attention, "window_keys", lambda kv, *_: kv)
    assert relative_difference(logits(session), found) < 1e-5


@pytest.mark.usefixtures("path")
def test_more_entries_are_selected_for_the_question_alone() -> None:
    model = BUILDS["top 3"]()
    found = logits(asked(model, AtQuestion(topk=20)))
    session = asked(model, AtQuestion())
    wider = DeepseekV4(replace(model.config, index_topk=20)).eval()
    wider.load_state_dict(model.state_dict())
    session._model = wider
    assert relative_difference(found, logits(session)) < 1e-5
    assert relative_difference(found, logits(asked(model, AtQuestion()))) > 1e-3
    assert relative_difference(found, score_in_pieces(wider, both(), [300])[300:]) > 1e-4


def both() -> Tensor:
    return torch.cat((CONTEXT, QUESTION))


@pytest.mark.parametrize(
    ("kind", "gone"),
    [
        ("window", {"window"}),
        ("csa", {"csa", "index"}),
        ("hca", {"hca"}),
    ],
)
def test_the_bytes_of_what_was_taken_away_are_gone(kind: Memory, gone: set[str]) -> None:
    model = BUILDS["top 3"]()
    parent = DeepseekV4Session(model)
    parent.change_at_question(AtQuestion(kind))
    parent.read(CONTEXT.numpy())
    child = parent.fork()
    before = held(parent)
    child.context_ends()
    after = held(child)
    assert held(parent) == before
    assert after["tail"] < before["tail"] or kind == "window"
    for name in before.keys() - {"tail"}:
        assert after[name] == (0 if name in gone else before[name])
        assert before[name] > 0
    assert relative_difference(parent.score(QUESTION.numpy()), logits(child)) > 1e-3


def test_forks_stay_without_it_and_answer() -> None:
    session = asked(BUILDS["top 3"](), AtQuestion("hca", topk=5))
    grandchild = session.fork().fork()
    assert relative_difference(logits(grandchild), logits(session)) < 1e-6
    assert greedy_ids(grandchild, 3) == greedy_ids(session, 3)


@pytest.mark.parametrize(("without", "near"), [(None, True), ("window", False)])
def test_what_was_taken_away_is_not_told_to_hold_a_token(
    without: Memory | None, near: bool
) -> None:
    session = asked(BUILDS["top 3"](), AtQuestion(without))
    assert session.extend_traced(7, wanted=len(CONTEXT) - 2).in_window is near


def test_a_session_without_a_memory_is_not_saved(tmp_path: Path) -> None:
    model = load_model("random-v4", {"without": "hca"})
    assert isinstance(model, LoadedModel)
    session = model.session()
    assert isinstance(session, PressedSession)
    session.read(CONTEXT.numpy())
    model.save(session, tmp_path / "session", {})
    restored, _ = model.restore(tmp_path / "session")
    for each in (session, restored):
        each.context_ends()
    assert relative_difference(logits(restored), logits(session)) < 1e-6
    for each in (session, restored):
        with pytest.raises(ValueError, match=r"^the session has lost a layer's memory and cannot"):
            model.save(each, tmp_path / "other", {})


def test_arms_that_differ_at_the_question_share_one_reading() -> None:
    plain, without = load_model("random-v4"), load_model("random-v4", {"without": "hca"})
    wider = load_model("random-v4", {"question_topk": 9, "without": "hca"})
    coded = load_model("random-v4", {"cache": "int4"})
    assert isinstance(plain, LoadedModel)
    assert isinstance(without, LoadedModel)
    assert isinstance(wider, LoadedModel)
    assert isinstance(coded, LoadedModel)
    assert plain.trunk == without.trunk == wider.trunk != coded.trunk
    trunk = without.session()
    without.share(trunk, [plain, without, wider])
    trunk.read(CONTEXT.numpy())
    kept, less = trunk.fork(), trunk.fork()
    for model, fork in ((plain, kept), (without, less)):
        model.adopt(fork)
        fork.context_ends()
    assert held(kept) == held(trunk)
    assert held_total(less) < held_total(trunk)
