"""How an answer ends, and what a right answer's probability is."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.decoding import greedy, log_probability
from models.protocols import Decoding, TokenIds
from models.stop_texts import stop_index

WORDS = ["<eos>", " 48213", ".", "\n", "\n\n", " 0", "2457", ".▁", "```", "text\n", " more", "5."]


def spell(ids: TokenIds) -> str:
    return "".join(WORDS[int(i)] for i in ids)


class Scripted:
    """Predicts a given text, token by token; counts what it consumes."""

    def __init__(self, *words: str) -> None:
        self.script = [WORDS.index(word) for word in words]
        self.consumed: list[int] = []

    def next_logits(self) -> torch.Tensor:
        logits = torch.zeros(len(WORDS))
        logits[self.script[len(self.consumed)]] = 5.0
        return logits

    def step(self, token: int) -> None:
        self.consumed.append(token)

    def score(self, ids: Sequence[int]) -> torch.Tensor:
        rows = []
        for token in ids:
            self.step(token)
            rows.append(self.next_logits())
        return torch.stack(rows)


def decode(*words: str, stop: tuple[str, ...] = ("\n", "."), limit: int = 20) -> tuple[str, str]:
    reply = greedy(Scripted(*words, " more", " more"), Decoding(limit, spell, stop), {0})
    return reply.text, reply.finish


def test_tokens_of_a_question_end_an_answer_beside_the_models_own() -> None:
    ended = greedy(
        Scripted(" 48213", " 0", " more"), Decoding(9, spell, end_ids=(WORDS.index(" 0"),))
    )
    assert (ended.text, ended.finish) == (" 48213", "eos")


@pytest.mark.parametrize(
    ("words", "text", "finish"),
    [
        ((" 48213", ".", " 0"), " 48213", "stop"),
        ((" 48213", "<eos>", " 0"), " 48213", "eos"),
        ((" 48213", "\n\n", " 0"), " 48213", "stop"),  # two line ends in one token
        ((" 48213", ".▁", " 0"), " 48213", "stop"),  # a full stop with a word mark
        ((" 48213", "5.", " 0"), " 482135", "stop"),  # a token that ends the answer inside
        (("\n", " 48213", "\n"), "\n 48213", "stop"),  # a line end before the answer
        (("\n\n", "```", "text\n", " 48213", "\n"), "\n\n```text\n 48213", "stop"),
        (("<eos>",), "", "eos"),
    ],
)
def test_an_answer_ends(words: tuple[str, ...], text: str, finish: str) -> None:
    assert decode(*words) == (text, finish)


def test_an_answer_without_an_end_is_cut() -> None:
    assert decode(" 48213", " more", " more", limit=2) == (" 48213 more", "length")


def test_what_ends_an_answer_is_not_consumed() -> None:
    for end in (".", "<eos>"):
        session = Scripted(" 48213", end, " more")
        reply = greedy(session, Decoding(9, spell, (".",)), {0})
        assert spell(session.consumed) == spell(reply.ids) == " 48213"


@given(st.text(alphabet="ab.\n `"), st.sampled_from(["\n", ".", "b."]))
def test_text_before_a_stop_holds_none(text: str, stop: str) -> None:
    end = stop_index(text, (stop,))
    if end is not None:
        assert text[end:].startswith(stop)
        assert stop_index(text[:end], (stop,)) is None


def test_a_probability_is_the_product_of_its_tokens() -> None:
    session = Scripted(" 48213", ".", " 0")
    each = float(torch.tensor([5.0] + [0.0] * (len(WORDS) - 1)).log_softmax(0)[0])
    right = [WORDS.index(" 48213"), WORDS.index(".")]
    assert log_probability(session, right) == pytest.approx(2 * each)
    wrong = [WORDS.index(" 48213"), WORDS.index(" more")]
    assert log_probability(Scripted(" 48213", "."), wrong) == pytest.approx(2 * each - 5.0)
