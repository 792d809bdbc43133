"""Thoughts are no answer."""

import pytest

from niah.scoring.answer_channel import answer_channel, opens_thought
from niah.scoring.answer_values import Case
from niah.scoring.outcomes import contains, judge

HARMONY = "<|channel|>analysis<|message|>58120?<|end|><|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("48213", "48213"),
        ("<think>58120?</think>48213", "48213"),
        ("58120?\n</think>\n\n48213", "\n\n48213"),
        ("<think>a</think>58120<think>b</think>48213", "48213"),
        ("[THINK]58120[/THINK]48213", "48213"),
        ("◁think▷58120◁/think▷48213", "48213"),
        (f"{HARMONY}48213<|return|>", "48213"),
        ("analysisWe look for 58120.assistantfinal48213", "48213"),
        ("48213<|im_end|>\n<|im_start|>user\n58120", "48213"),
        ("48213</s>58120", "48213"),
        ("<think>the code is 48213", None),
        ("48213<think>", None),
        ("<|channel|>analysis<|message|>It is 48213.<|end|>", None),
        ("<think></think>", ""),
    ],
)
def test_the_answer_follows_the_last_thought(reply: str, answer: str | None) -> None:
    assert answer_channel(reply) == answer


def test_a_thought_that_the_prompt_opened_has_to_be_closed() -> None:
    assert answer_channel("48213", opened=True) is None
    assert answer_channel("58120?</think>48213", opened=True) == "48213"
    assert judge(Case("The code is 48213", ("48213",), thinking=True)) == "truncated"
    assert judge(Case("58120?</think>48213", ("48213",), thinking=True)) == "exact"


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ("<think>58120?</think>48213", "exact"),
        ("<think>48213</think>58120", "distractor"),
        ("<think>48213</think>", "malformed"),
        ("<think>48213. 48213. 48213.", "truncated"),
        (f"{HARMONY}48213", "exact"),
    ],
)
def test_only_the_answer_channel_is_judged(reply: str, outcome: str) -> None:
    case = Case(reply, ("48213",), rivals=("58120",))
    assert judge(case) == outcome
    assert contains(case) == (outcome == "exact")


@pytest.mark.parametrize(
    ("end", "opened"),
    [
        ("<|assistant|>\n<think>\n", True),
        ("<|assistant|>\n<think>\n\n</think>\n\n", False),
        ("<|assistant|>\n", False),
    ],
)
def test_a_template_may_open_a_thought(end: str, opened: bool) -> None:
    assert opens_thought(end) == opened
