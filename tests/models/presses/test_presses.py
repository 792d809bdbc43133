"""Every press against a naive reading of its paper: whole attention weights, top-k by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.presses.contract import Past, kept, kept_tokens
from models.presses.observed import SINKS, Call, Needs, Observed, union
from models.presses.options import PRESSES, pressing
from models.presses.quest import Quest
from models.presses.rotary import NO_ROTATION, Rotary

HEADS, GROUPS, WIDTH = 4, 2, 8
ROTARY = Rotary(torch.tensor([1.0, 0.3, 0.05]), False, 2)  # two channels do not turn
Arrays = Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]


class Text:
    """Random states of a context: `plain` queries before their rotation, keys and values."""

    def __init__(self, tokens: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (HEADS, tokens, WIDTH)
        self.plain = torch.randn(shape, generator=generator, dtype=torch.float64) * 0.7
        self.keys = torch.randn(GROUPS, *shape[1:], generator=generator, dtype=torch.float64)
        self.values = torch.randn(GROUPS, tokens, 5, generator=generator, dtype=torch.float64)
        turns = [ROTARY.mean_matrix(torch.tensor([p]), WIDTH).double() for p in range(tokens)]
        self.queries = torch.stack([self.plain[:, p] @ turn.T for p, turn in enumerate(turns)], 1)

    def observed(self, needs: Needs, sizes: list[int]) -> Observed:
        """What is collected when the context is read in pieces of these sizes."""
        found, start = Observed(needs, ROTARY), 0
        for size in [*sizes, self.keys.shape[1] - sum(sizes)]:
            stop = start + size
            part = Call(self.queries[:, start:stop].float(), self.keys[:, :stop].float(), start)
            found.add(part)
            found, start = found.fork(), stop
        return found

    def past(self, needs: Needs, sizes: list[int] | None = None, layer: int = 0) -> Past:
        seen = self.observed(needs, sizes or [])
        return Past(layer, self.keys.float(), self.values.float(), seen)

    def weights(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """All attention weights [H, n, n], one by one."""
        queries, keys = self.queries.numpy(), self.keys.numpy()
        tokens = keys.shape[1]
        found = np.zeros((HEADS, tokens, tokens))
        for head in range(HEADS):
            for row in range(tokens):
                seen = keys[head * GROUPS // HEADS, : row + 1] @ queries[head, row]
                powers = np.exp(seen - seen.max())
                found[head, row, : row + 1] = powers / powers.sum()
        return found


def by_group(votes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[H, n] -> [G, n]: heads 0 and 1 share a KV head, and 2 and 3 another."""
    return np.stack([(votes[0] + votes[1]) / 2, (votes[2] + votes[3]) / 2])


def best(scores: np.ndarray[Any, Any], always: set[int], count: int) -> list[list[int]]:
    """For each KV head the tokens that always stay and those of the highest scores."""
    chosen = []
    for row in scores:
        ranked = sorted(set(range(len(row))) - always, key=lambda token: -row[token])
        chosen.append(sorted([*always, *ranked[: count - len(always)]]))
    return chosen


def naive_snapkv(text: Text, count: int, window: int, kernel: int) -> list[list[int]]:
    tokens = text.keys.shape[1]
    votes = text.weights()[:, tokens - window :, : tokens - window].mean(1)
    half = kernel // 2
    padded = np.pad(votes, ((0, 0), (half, half)))
    pooled = np.stack([padded[:, i : i + tokens - window] for i in range(kernel)]).sum(0) / kernel
    full = np.concatenate([by_group(pooled), np.zeros((GROUPS, window))], axis=1)
    return best(full, set(range(tokens - window, tokens)), count)


def naive_tova(text: Text, count: int) -> list[list[int]]:
    tokens = text.keys.shape[1]
    votes = text.weights()[:, -1].mean(0)
    return best(np.stack([votes] * GROUPS), {tokens - 1}, count)


def naive_h2o(text: Text, count: int) -> list[list[int]]:
    tokens = text.keys.shape[1]
    newest = set(range(tokens - (count - count // 2), tokens))
    return best(by_group(text.weights().sum(1)), newest, count)


def naive_knorm(text: Text, count: int) -> list[list[int]]:
    return best(-np.sqrt((text.keys.numpy() ** 2).sum(-1)), set(), count)


def naive_streaming(text: Text, count: int) -> list[list[int]]:
    tokens = text.keys.shape[1]
    return [[0, 1, 2, 3, *range(tokens - count + 4, tokens)]] * GROUPS


def naive_expected(text: Text, count: int, future: int) -> list[list[int]]:
    """The mean and covariance of the queries, turned by the average over positions to come."""
    tokens = text.keys.shape[1]
    turn = np.zeros((WIDTH, WIDTH))
    for position in range(tokens, tokens + future):
        one = np.eye(WIDTH)
        for pair, frequency in enumerate(ROTARY.frequencies.tolist()):
            a, b, angle = 2 + pair, 5 + pair, position * frequency
            one[a, a] = one[b, b] = math.cos(angle)
            one[a, b], one[b, a] = -math.sin(angle), math.sin(angle)
        turn += one / future
    votes = np.zeros((HEADS, tokens - SINKS))
    for head in range(HEADS):
        plain = text.plain[head, SINKS:].numpy()
        mean = turn @ plain.mean(0)
        covariance = turn @ np.cov(plain.T, bias=True) @ turn.T
        logits = np.array(
            [k @ mean + k @ covariance @ k / 2 for k in text.keys[head // 2, SINKS:].numpy()]
        )
        powers = np.exp(logits - logits.max())
        votes[head] = powers / powers.sum()
    scores = by_group(votes) * np.sqrt((text.values[:, SINKS:].numpy() ** 2).sum(-1))
    full = np.concatenate([np.zeros((GROUPS, SINKS)), scores], axis=1)
    return best(full, set(range(SINKS)), count)


Reference = Callable[[Text, int], list[list[int]]]
REFERENCES: dict[str, tuple[dict[str, int], Reference]] = {
    "streaming_llm": ({}, naive_streaming),
    "snapkv": ({"window": 9, "kernel": 3}, lambda text, count: naive_snapkv(text, count, 9, 3)),
    "h2o": ({}, naive_h2o),
    "tova": ({}, naive_tova),
    "knorm": ({}, naive_knorm),
    "expected_attention": ({"future": 20}, lambda text, count: naive_expected(text, count, 20)),
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("sizes", [[], [17, 1, 1, 40]])
@pytest.mark.parametrize("keep", [0.2, 0.5])
def test_the_tokens_kept_are_those_of_the_paper(name: str, sizes: list[int], keep: float) -> None:
    options, reference = REFERENCES[name]
    text = Text(90)
    found = pressing({"name": name, "keep": keep, **options})
    assert found is not None
    past = text.past(found.needs, sizes)
    assert kept(found.press, past).tolist() == reference(text, round(90 * keep))


@given(st.sampled_from(sorted(PRESSES)), st.integers(1, 70), st.floats(0.01, 1))
def test_any_share_of_any_context(name: str, tokens: int, keep: float) -> None:
    """The right number of different tokens of the context, for every KV head, in order."""
    found = pressing({"name": name, "keep": keep})
    assert found is not None
    text = Text(tokens, seed=tokens)
    rows = kept(found.press, text.past(found.needs))
    assert rows.shape == (GROUPS, kept_tokens(tokens, keep))
    assert bool((rows.diff(dim=-1) > 0).all())
    assert int(rows.min()) >= 0
    assert int(rows.max()) < tokens
    if keep == 1:
        assert rows.tolist() == [list(range(tokens))] * GROUPS


def test_shares_are_rounded_down_and_something_is_always_kept() -> None:
    shares = [(100, 0.29), (1000, 0.1), (7, 0.5), (3, 0.1), (5, 1.0)]
    assert [kept_tokens(n, keep) for n, keep in shares] == [29, 100, 3, 1, 5]


def test_random_differs_by_seed_layer_and_head_and_repeats_itself() -> None:
    def rows(seed: int, layer: int) -> list[list[int]]:
        found = pressing({"name": "random", "keep": 0.3, "seed": seed})
        assert found is not None
        kept_rows: list[list[int]] = kept(found.press, Text(50).past(Needs(), [], layer)).tolist()
        return kept_rows

    assert rows(1, 0) == rows(1, 0)
    assert rows(1, 0) != rows(2, 0)
    assert rows(1, 0) != rows(1, 1)
    assert rows(1, 0)[0] != rows(1, 0)[1]


def test_sinks_and_a_softcap_change_the_weights() -> None:
    """A sink takes the same share from every key; a cap bounds logits before the softmax."""
    text = Text(30)
    seen = text.observed(Needs(window=3), [])
    sinks = torch.tensor([0.5, -1.0, 2.0, 0.0])
    keys, values = text.keys.float(), text.values.float()
    found = Past(0, keys, values, seen, sinks=sinks, softcap=1.5).recent_attention(3)
    for head in range(HEADS):
        logits = text.keys[head // 2] @ text.queries[head, -1]
        powers = (1.5 * (logits / 1.5).tanh()).exp()
        expected = powers / (powers.sum() + sinks[head].exp())
        assert torch.allclose(found[head, -1], expected.float(), atol=1e-5)
    assert torch.all(found[:, 0, 28:] == 0)  # later tokens


def test_pages_are_chosen_by_their_upper_bounds() -> None:
    text = Text(45)
    pages = Quest(keep=0.4, page=8, dense_layers=1).pages(text.past(Needs(), [], layer=1))
    assert pages is not None
    queries = text.queries[:, -2:].float()
    chosen = pages.chosen(queries)
    assert chosen.shape == (HEADS, 2, 45)
    for head in range(HEADS):
        for row in range(2):
            bounds = []
            for start in range(0, 45, 8):
                keys = text.keys[head // 2, start : start + 8].float()
                query = queries[head, row]
                bounds.append(
                    float(torch.maximum(query * keys.amin(0), query * keys.amax(0)).sum())
                )
            read = sorted(range(6), key=lambda page: -bounds[page])[:2]  # 0.4 of 6 pages
            expected = [token // 8 in read for token in range(45)]
            assert chosen[head, row].tolist() == expected
    assert Quest(keep=0.4, dense_layers=2).pages(text.past(Needs(), [], layer=1)) is None


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_rotation_is_undone(interleaved: bool) -> None:
    rotary = Rotary(torch.tensor([1.0, 0.1]), interleaved, 1)
    positions = torch.tensor([3, 40])
    plain = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    turned = torch.stack(
        [row @ rotary.mean_matrix(p[None], 6).T for row, p in zip(plain, positions, strict=True)]
    )
    assert not torch.allclose(turned, plain, atol=0.1)
    assert torch.allclose(rotary.undo(turned, positions), plain, atol=1e-6)
    assert torch.equal(NO_ROTATION.undo(plain, positions), plain)


def test_one_reading_serves_several_presses() -> None:
    needs = union([Needs(window=4), Needs(statistics=True), Needs(window=9, attention=True)])
    assert needs == Needs(9, True, True)
    text = Text(60)
    for name, (options, _) in REFERENCES.items():
        found = pressing({"name": name, "keep": 0.3, **options})
        assert found is not None
        alone, shared = text.past(found.needs), text.past(needs, [13])
        assert kept(found.press, alone).tolist() == kept(found.press, shared).tolist(), name


WRONG = [
    ("snapkv", "options.press: got 'snapkv', expected a mapping such as {name: snapkv"),
    ({"keep": 0.5}, "expected a mapping such as {name: snapkv"),
    ({"name": "snap", "keep": 1}, "options.press.name: got 'snap', expected one of streaming_"),
    ({"name": "knorm"}, "options.press.keep: got None, expected a share above 0, at most 1"),
    ({"name": "knorm", "keep": 0}, "options.press.keep: got 0, expected a share above 0"),
    ({"name": "knorm", "keep": 1.5}, "options.press.keep: got 1.5, expected a share above 0"),
    ({"name": "knorm", "keep": True}, "options.press.keep: got True, expected a share above 0"),
    ({"name": "knorm", "keep": float("nan")}, "options.press.keep: got nan, expected a share"),
    ({"name": "knorm", "keep": 0.5, "window": 3},
     "options.press: got 'window', but knorm takes keep, sees_question"),
    ({"name": "snapkv", "keep": 0.5, "window": 0},
     "options.press.window: got 0, expected a whole number from 1"),
    ({"name": "snapkv", "keep": 0.5, "kernel": 4},
     "options.press.kernel: got 4, expected an odd number"),
    ({"name": "random", "keep": 0.5, "seed": -1},
     "options.press.seed: got -1, expected a whole number from 0"),
    ({"name": "tova", "keep": 0.5, "sees_question": 1},
     "options.press.sees_question: got 1, expected true or false"),
    ({"name": "quest", "keep": 0.5, "sees_question": True},
     "options.press.sees_question: quest chooses at each query; leave it out"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "told"), WRONG)
def test_what_does_not_fit_is_refused_in_one_line(option: object, told: str) -> None:
    with pytest.raises(ValueError, match=r"^options\.press") as caught:
        pressing(option)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_hold_every_option() -> None:
    found = pressing({"name": "snapkv", "keep": 0.25, "sees_question": True})
    assert found is not None
    assert found.settings() == {
        "name": "snapkv", "keep": 0.25, "window": 64, "kernel": 5, "sees_question": True,
    }  # fmt: skip
    assert pressing(None) is None
