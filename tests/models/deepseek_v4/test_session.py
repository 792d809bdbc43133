"""What a session refuses, in one line, and what it leaves untouched when it does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from models.deepseek_v4.loading import LoadedModel
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from models.errors import NonFiniteError
from models.finite import require_finite
from models.registry import load_model
from tests.models.small import REAL, random_ids
from tests.sessions import greedy_ids, held


@pytest.fixture
def session(small: DeepseekV4) -> DeepseekV4Session:
    session = DeepseekV4Session(small)
    session.read([1, 2, 3])
    return session


@pytest.mark.parametrize("bad", [[-1], [5, REAL.vocab_size], [10**12]])
def test_ids_out_of_range(session: DeepseekV4Session, bad: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"^ids: .*0\.\.{REAL.vocab_size - 1}$"):
        session.read(bad)
    assert session.position == 3


def test_too_many_tokens(session: DeepseekV4Session) -> None:
    limit = REAL.max_position_embeddings
    before = held(session)
    with pytest.raises(
        ValueError, match=rf"^ids: 3 \+ {limit} tokens exceed max_position {limit}$"
    ):
        session.read(np.zeros(limit, dtype=np.int32))
    assert session.position == 3
    assert held(session) == before


def test_an_empty_session_cannot_generate(small: DeepseekV4) -> None:
    with pytest.raises(ValueError, match=r"^generate: the session is empty"):
        greedy_ids(DeepseekV4Session(small), 1)


def test_extending_by_nothing_changes_nothing(session: DeepseekV4Session) -> None:
    before, expected = held(session), session.next_logits()
    session.read([])
    assert session.position == 3
    assert held(session) == before
    assert torch.equal(session.next_logits(), expected)
    assert greedy_ids(session, 0) == []


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint16])
def test_arrays_of_any_integer_type(small: DeepseekV4, kind: type[np.integer]) -> None:
    from_list, from_array = DeepseekV4Session(small), DeepseekV4Session(small)
    ids = random_ids(20).tolist()
    from_list.read(ids)
    from_array.read(np.asarray(ids, dtype=kind))
    assert torch.equal(from_list.next_logits(), from_array.next_logits())


def test_read_only_arrays_such_as_a_memory_mapped_corpus(small: DeepseekV4) -> None:
    ids = random_ids(20).numpy().copy()
    ids.setflags(write=False)
    session = DeepseekV4Session(small)
    session.read(ids)
    assert session.position == 20


def use(session: DeepseekV4Session, how: str) -> object:
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: session.read([1]),
        "read nothing": lambda: session.read([]),
        "fork": session.fork,
        "generate": lambda: greedy_ids(session, 1),
        "next_logits": session.next_logits,
        "score": lambda: session.score([1]),
        "trace": lambda: session.extend_traced(1, wanted=0),
        "save": lambda: session.state({}),
    }
    return calls[how]()


USES = (
    *("read", "read nothing", "fork", "generate"),
    *("next_logits", "score", "trace", "save"),
)


@pytest.mark.parametrize("how", USES)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("failing", ["read", "score"])
def test_a_session_that_failed_in_the_middle_refuses_to_go_on(
    small: DeepseekV4, how: str, failing: str, error: type[BaseException]
) -> None:
    """Layer 3 fails: the caches of the layers before hold a token more than its own."""
    session = DeepseekV4Session(small)
    session.read([1, 2, 3])

    def fail(*_: object) -> None:
        raise error

    hook = small.model.layers[3].register_forward_pre_hook(fail)
    try:
        with pytest.raises(error):
            use(session, failing)
    finally:
        hook.remove()
    assert session.position == 3
    with pytest.raises(ValueError, match=r"^the session failed before and cannot go on: "):
        use(session, how)


def test_a_fork_taken_before_outlives_a_failure(small: DeepseekV4) -> None:
    session = DeepseekV4Session(small)
    session.read([1, 2, 3])
    child, other = session.fork(), session.fork()
    hook = small.model.layers[3].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.read(random_ids(200).numpy())
    hook.remove()
    assert greedy_ids(child, 5) == greedy_ids(other, 5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_stop_the_first_call(small: DeepseekV4, value: float) -> None:
    model = copy.deepcopy(small)
    with torch.no_grad():
        model.model.norm.weight[3] = value
    session = DeepseekV4Session(model)
    with pytest.raises(NonFiniteError, match=r"^logits are not finite after token 3$"):
        session.read([1, 2, 3])  # of a call, only the newest token's final state is computed
    with pytest.raises(ValueError, match="cannot go on: NonFiniteError"):
        session.next_logits()


@pytest.mark.parametrize(("at", "chunk"), [(0, 512), (13, 512), (512, 512), (600, 512), (13, 1)])
def test_the_token_is_named_after_which_numbers_are_not_finite(
    small: DeepseekV4, at: int, chunk: int
) -> None:
    """One token's embedding is not finite. Within its chunk, earlier tokens may suffer too."""
    model = copy.deepcopy(small)
    ids = random_ids(700, vocab_size=REAL.vocab_size - 1).numpy().copy()
    ids[at] = REAL.vocab_size - 1
    with torch.no_grad():
        model.model.embed_tokens.weight[-1] = torch.nan
    session = DeepseekV4Session(model, chunk)
    with pytest.raises(NonFiniteError) as found:
        session.read(ids)
    assert session.position == at // chunk * chunk
    assert session.position < found.value.token <= at + 1
    assert str(pickle.loads(pickle.dumps(found.value))) == str(found.value)  # noqa: S301


def test_a_head_that_is_not_finite_stops_decoding(small: DeepseekV4) -> None:
    model = copy.deepcopy(small)
    with torch.no_grad():
        model.lm_head.weight[5, 5] = torch.nan
    session = DeepseekV4Session(model)
    session.read([1, 2, 3])
    with pytest.raises(NonFiniteError, match=r"after token 3$"):
        greedy_ids(session, 1)


def test_large_finite_values_are_no_error() -> None:
    require_finite(torch.full((2, 9), 3e38), before=0)


@pytest.mark.parametrize(
    ("name", "cache", "weight"),
    [
        ("random-v4", "full", "compressor.indexer.kv_norm.weight"),
        ("random-v4", "full", "compressor.indexer.q_b_proj.weight"),
        ("random-v4", "full", "compressor.indexer.scorer.weights_proj.weight"),
        ("random-v4", "published", "compressor.indexer.kv_norm.weight"),
        ("random-v4", "published", "compressor.kv_norm.weight"),
        ("random-v4", "fp8", "kv_norm.weight"),
        ("random-dense", "fp8", "kv_norm.weight"),
        ("random-mla", "fp8", "kv_a_layernorm.weight"),
        ("random-dsa", "full", "indexer.k_norm.weight"),
        ("random-dsa", "full", "indexer.wq_b.weight"),
        ("random-dsa", "full", "indexer.weights_proj.weight"),
    ],
)
def test_what_selects_and_what_is_rounded_has_to_be_finite_too(
    name: str, cache: str, weight: str
) -> None:
    """Logits do not show it: NaN is no score, and a code of few bits need not have one."""
    model = load_model(name, {"cache": cache})
    assert isinstance(model, LoadedModel)
    with torch.no_grad():
        network = dict(model.network.named_parameters())
        network[f"model.layers.1.self_attn.{weight}"].view(-1)[0] = torch.nan
    with pytest.raises(NonFiniteError):
        model.session().read(random_ids(400, vocab_size=2048).numpy())
