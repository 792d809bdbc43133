"""Sessions in files: taken up again they go on bit for bit; what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.deepseek_v4 import session_files
from models.deepseek_v4.loading import LoadedModel
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from models.errors import ModelError
from models.protocols import KeepingModel
from models.registry import load_model
from tests.models.small import random_ids, session_of
from tests.sessions import greedy_ids, held

IDS = random_ids(400).numpy()
CHUNK = 37


def read(session: DeepseekV4Session, until: int) -> None:
    """In chunks whose boundaries depend on the position alone."""
    while session.position < until:
        session.read(IDS[session.position : min(until, session.position + CHUNK)])


def through_file(model: DeepseekV4, session: DeepseekV4Session, path: Path) -> DeepseekV4Session:
    session_files.save(path, "weights", session.state({"seconds": "1.5"}))
    state = session_files.load(path, "weights")
    assert state.notes == {"seconds": "1.5"}
    return DeepseekV4Session.restored(model, state)


@pytest.mark.parametrize("at", [1, 3, 4, 5, 37, 127, 128, 129, 131, 132, 255, 256, 257, 300])
def test_a_restored_session_goes_on_bit_for_bit(small: DeepseekV4, tmp_path: Path, at: int) -> None:
    session = session_of(small)
    read(session, at)
    restored = through_file(small, session, tmp_path / "session.safetensors")
    assert restored.position == at
    assert held(restored) == held(session)
    for other in (session, restored):
        read(other, 390)
    assert torch.equal(restored.next_logits(), session.next_logits())
    assert greedy_ids(restored, 8) == greedy_ids(session, 8)


@pytest.mark.parametrize("at", [130, 260])
def test_forks_are_kept_too(small: DeepseekV4, tmp_path: Path, at: int) -> None:
    parent = session_of(small)
    read(parent, at)
    child = parent.fork()
    read(child, at + 50)
    grandchild = child.fork()
    read(grandchild, at + 70)
    for number, session in enumerate((parent, child, grandchild)):
        restored = through_file(small, session, tmp_path / f"{number}.safetensors")
        for other in (session, restored):
            read(other, 390)
        assert torch.equal(restored.next_logits(), session.next_logits())


def test_an_empty_session_can_be_kept(small: DeepseekV4, tmp_path: Path) -> None:
    restored = through_file(small, session_of(small), tmp_path / "session.safetensors")
    assert restored.position == 0
    with pytest.raises(ValueError, match="empty"):
        restored.next_logits()


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    loaded = load_model("random-v4", {}, threads=1)
    assert isinstance(loaded, LoadedModel)
    return loaded


def test_models_keep_their_own_sessions_only(model: LoadedModel, tmp_path: Path) -> None:
    assert isinstance(model, KeepingModel)
    session, path = model.session(), tmp_path / "session.safetensors"
    session.read([1, 2, 3])
    model.save(session, path, {})
    restored, notes = model.restore(path)
    assert (restored.position, notes) == (3, {})
    other = load_model("random-v4", {"index_topk": 7}, threads=1)
    assert isinstance(other, LoadedModel)
    with pytest.raises(ModelError, match=f"fingerprint = .*: expected {other.fingerprint}"):
        other.restore(path)


def test_a_torn_or_foreign_file_is_refused(model: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "session.safetensors"
    session = model.session()
    session.read([1, 2, 3])
    model.save(session, path, {})
    whole = path.read_bytes()
    for content in (b"", whole[:50], whole[:-10]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="cannot be read as a session"):
            model.restore(path)
    with pytest.raises(ModelError, match="cannot be read as a session"):
        model.restore(tmp_path / "nothing")


def test_another_format_is_refused(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "session.safetensors"
    monkeypatch.setattr(session_files, "FORMAT", "0")
    model.save(model.session(), path, {})
    monkeypatch.undo()
    with pytest.raises(ModelError, match="format = 0: expected 2"):
        model.restore(path)


def test_nothing_half_written_is_left(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session_files, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        model.save(model.session(), tmp_path / "session.safetensors", {})
    assert list(tmp_path.iterdir()) == []
