"""Finds the part of a reply that answers: what follows the thoughts of a model that thinks.

The marks are those of published chat formats: `<think>` and its kin, `[THINK]` (Magistral),
`◁think▷` (Kimi), `<|begin_of_thought|>`, and the channels of the harmony format
(`<|channel|>analysis<|message|>`, `<|channel|>final<|message|>`), which some servers print without
their marks as `analysis...assistantfinal...`.
"""

import re

TAG = "(?:seed:)?(?:think|thinking|thoughts?|reasoning|analysis|reflection|scratchpad)"
OPENS = re.compile(
    rf"<{TAG}>|\[THINK\]|◁think▷|<\|begin_of_thought\|>"
    r"|<\|channel\|>\s*(?:analysis|commentary)\b|\A\s*(?-i:analysis(?=[A-Z]))",
    re.I,
)
CLOSES = re.compile(
    rf"</{TAG}>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>"
    r"|<\|channel\|>\s*final\b(?:[^<]*<\|message\|>)?|(?-i:assistantfinal)",
    re.I,
)
TURN_ENDS = re.compile(
    r"<\|(?:end|return|endoftext|end_of_text|im_end|eot_id|eom_id)\|>|</s>|<eos>|<end_of_turn>",
    re.I,
)
OTHER_MARKS = re.compile(r"<\|\w*\|>")


def answer_channel(reply: str, opened: bool = False) -> str | None:
    """The text after the last thought, up to the end of that turn; None in a cut-off thought.

    `opened`: the prompt itself opened a thought, which the reply has to close.
    """
    closed = [found.end() for found in CLOSES.finditer(reply)]
    answer = reply[closed[-1] :] if closed else reply
    if OPENS.search(answer) or (opened and not closed):
        return None
    turns = (OTHER_MARKS.sub("", turn) for turn in TURN_ENDS.split(answer))
    return next((turn for turn in turns if turn.strip()), "")


def opens_thought(prompt_end: str) -> bool:
    """Whether the end of a prompt, such as a chat template writes, opens a thought."""
    opened = [found.start() for found in OPENS.finditer(prompt_end)]
    closed = [found.start() for found in CLOSES.finditer(prompt_end)]
    return bool(opened) and max(opened) > max(closed, default=-1)
