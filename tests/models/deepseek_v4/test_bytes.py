"""Bytes reported against the storages that a session reaches, and against the formula."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from models.costs.deepseek_v4 import held_bytes
from models.deepseek_v4 import session_files
from models.deepseek_v4.cache import Rows
from models.deepseek_v4.config import DeepseekV4Config
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from models.registry import configuration, load_model
from tests.models.small import BUILDS, random_ids
from tests.sessions import greedy_ids, held, held_total

IDS = random_ids(700)


def reachable(thing: object, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor that can be reached from `thing`, its model's weights apart."""
    if id(thing) in seen or isinstance(thing, nn.Module):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
        return
    inside = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    if isinstance(thing, dict):
        inside += thing.values()
    elif isinstance(thing, (list, tuple)):
        inside += thing
    for each in inside:
        yield from reachable(each, seen)


def reached(session: DeepseekV4Session) -> int:
    """Bytes of all storages behind a session, but for the newest token's state: no cache."""
    assert session._last is not None
    found = (t.untyped_storage() for t in reachable(session, set()) if t is not session._last)
    return sum({s.data_ptr(): s.nbytes() for s in found if s.nbytes()}.values())


def needed(config: DeepseekV4Config, length: int, element_bytes: int = 4) -> dict[str, int]:
    """The formula's bytes, by the kinds that its layers have."""
    found = held_bytes(config, length, element_bytes)
    return {kind: count for kind, count in found.items() if count}


@pytest.mark.parametrize("sizes", [[700], [1] * 9, [130, 1, 256, 200], [3, 125, 128, 5]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", BUILDS)
def test_reported_bytes_are_those_held(
    name: str, dtype: torch.dtype, sizes: list[int], tmp_path: Path
) -> None:
    model = BUILDS[name]().to(dtype)
    session = DeepseekV4Session(model, chunk_size=300)
    for size in sizes:
        session.read(IDS[session.position : session.position + size].numpy())
    child = session.fork()
    child.read(IDS[:37].numpy())
    grandchild = child.fork()
    greedy_ids(grandchild, 3)
    path = tmp_path / "session.safetensors"
    session_files.save(path, "", session.state({}))
    restored = DeepseekV4Session.restored(model, session_files.load(path, ""))
    for each in (session, child, grandchild, restored):
        assert held_total(each) == reached(each)
    assert held(restored) == held(session)


@pytest.mark.parametrize("name", ["nano-v4", "nano-dense"])
def test_the_nano_pair_holds_what_the_formula_says(name: str) -> None:
    """Read in chunks of 2,048, as the harness does: tails that were views held 4.7 MB at 4,096.

    Lengths that are powers of two leave no storage unused (see below).
    """
    session = load_model(name).session()
    assert isinstance(session, DeepseekV4Session)
    for length in (2048, 4096, 6144, 8192):
        session.read(random_ids(2048).numpy())
        if length != 6144:
            assert held(session) == needed(configuration(name), length)
            assert held_total(session) == reached(session)


def test_the_nano_pair_at_a_million_tokens() -> None:
    """The caches of a short session, grown to the rows that a million tokens append."""
    length, totals = 2**20, []
    for name in ("nano-v4", "nano-dense"):
        session, config = load_model(name).session(), configuration(name)
        assert isinstance(session, DeepseekV4Session)
        session.read(random_ids(2048).numpy())
        for cache in session._caches:
            for part in vars(cache).values():
                if isinstance(part, Rows):
                    (rows,) = part.segments
                    part.append(rows.new_zeros(1, len(part) * (length // 2048 - 1), rows.shape[-1]))
        assert held(session) == needed(config, length)
        totals.append(held_total(session))
    assert totals == [203_592_448, 805_371_392]


@pytest.mark.parametrize("name", BUILDS)
def test_half_types_hold_half(name: str) -> None:
    model = BUILDS[name]().to(torch.float16)
    session = DeepseekV4Session(model)
    session.read(random_ids(1024).numpy())
    assert held(session) == needed(model.config, 1024, element_bytes=2)


@given(st.integers(Rows.STEP, 2**21))
@example(2**20)
def test_little_storage_is_unused(count: int) -> None:
    capacity = Rows.capacity(count)
    assert count <= capacity < count + max(Rows.STEP, count / Rows.SHARE)
    assert capacity == count or count & (count - 1)  # powers of two: nothing


@given(st.lists(st.integers(0, 70), max_size=30))
def test_storage_depends_on_the_number_of_rows_alone(sizes: list[int]) -> None:
    rows = Rows()
    for size in sizes:
        rows.append(torch.zeros(1, size, 2))
    tensors = list(rows.tensors().values())
    storage = tensors[0].untyped_storage().nbytes() if tensors else 0
    assert storage == 8 * Rows.capacity(len(rows))


def test_an_empty_session_holds_nothing(small: DeepseekV4) -> None:
    assert set(held(DeepseekV4Session(small)).values()) == {0}
