"""Owns how an answer denies: that it can tell at all, or one of the values that it names.

Knows nothing of gold or outcomes. Every table below is a list of phrases, matched whole and in
either case.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

Value = re.Match[str]


def one_of(*phrases: str) -> re.Pattern[str]:
    """Any of the phrases, each of whole words."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(phrases)})(?!\w)", re.I)


# The text does not tell, or the model does not know.
REFUSALS = one_of(
    "no (?:such|mention|information|record|code|value|answer|idea)",
    "not (?:mentioned|given|stated|specified|provided|known|sure|found|available|in the text)",
    "(?:do|does|did|is|was)(?:n['’]t| not) (?:know|say|mention|contain|have|give|state|appear)",
    r"(?:do|does|did|is|was)(?:n['’]t| not) (?:provide|specif\w*|mentioned|given|stated|provided)",
    "could(?:n['’]t| not) (?:find|say|tell)",
    "cannot|can['’]?t|unable to",
    "unknown|none|nothing|n/a|sorry",
)
# Of the value that comes next: it is not that one.
DENIES_NEXT = one_of(
    r"not|never|neither|nor|cannot|\w*n['’]t",
    "no longer",
    "wrong|incorrect",
    "except|all but|(?:any|every)thing but",
    "rather than|other than|instead of",
)
# After one of those: what comes next is meant again.
MEANS_NEXT = re.compile(
    r"(?<!thing )(?<!all )\bbut\b"
    r"|[,;]\s*(?:(?:it|that)(?: is| was|['’]s)|rather|instead)\b(?! (?:of|than))",
    re.I,
)
# These sound like a denial and are none: they are left out before anything is looked for.
AFFIRMS = re.compile(
    r"\bnot (?:a )?(?:problem|trouble|worry|at all)\s*[:,.!–—-]"
    r"|\b(?:none|nothing|no one|no other) (?:but|other than)\b"
    r"|\bnot only\b",
    re.I,
)
# Right behind a value, in its sentence: it is not that one after all.
BEHIND = r"[^\w?.!\n]*"
IS = "(?:is|was|are|were)"
IT_IS = "(?:which|that|this|it)(?: is| was|['’]s)"
IT = "(?:the|an?|it|right|correct|true|valid)"  # so that "was never seen again" says nothing of it
DOES_NOT = (
    "(?:cannot|can['’]t|won['’]t|(?:do|does|did|can|could|would|should|must|will)(?: not|n['’]t))"
)
TAKES_BACK = re.compile(
    rf"{BEHIND}(?:wrong|incorrect|mistaken)\b"
    rf"|{BEHIND}\s{IS}(?:n['’]t| (?:an? |the |\w+ly )?(?:not|no|wrong|incorrect|false))\b"
    rf"|{BEHIND}\s{IT_IS} (?:\w+ly )?(?:wrong|incorrect|false|not {IT})\b"
    rf"|{BEHIND}\s(?:{IS} never|never {IS}|(?:has|have)(?: not|n['’]t| never) been) {IT}\b"
    rf"|{BEHIND}\s(?:cannot|can['’]t) be\b"
    rf"|{BEHIND}\s{DOES_NOT} (?:be {IT}|open|unlock|fit|work|match|belong|apply|answer)\b"
    r"|\W*\?\W*no\b",
    re.I,
)

# What stands between values that are listed together: no letter or digit but these words.
LISTED = re.compile(
    r"(?:[\W_]|\b(?:and|or|but|then|also|now|plus|maybe|perhaps|possibly|as well as)\b)+", re.I
)
NEXT_WORD = re.compile(r"\W*\w+")


def says(phrases: re.Pattern[str], text: str, start: int, end: int, question: str) -> bool:
    """Whether text[start:end] has one of the phrases, and not as the question itself has it."""
    found = phrases.finditer(text, start, end)
    return any(not is_echo(phrase, text, question) for phrase in found)


def is_echo(phrase: re.Match[str], text: str, question: str) -> bool:
    """Whether the question has the phrase and the next word too ("for wrong fox the code is")."""
    following = NEXT_WORD.match(text, phrase.end())
    said = text[phrase.start() : following.end()] if following else ""
    return bool(said) and said.casefold() in question.casefold()


def denied(text: str, start: int, values: Sequence[Value], question: str) -> list[bool]:
    """Which of the values the text denies, from `start` on, where the sentence of the first begins.

    A denial holds for all that are listed after it, until a "but".
    """
    before: list[bool] = []
    for value in values:
        end = value.start()
        means = [found.end() for found in MEANS_NEXT.finditer(text, start, end)]
        goes_on = bool(before) and before[-1] and not means
        before.append(says(DENIES_NEXT, text, max([start, *means]), end, question) or goes_on)
        start = value.end()
    return [either or other for either, other in zip(before, taken_back(text, values), strict=True)]


def taken_back(text: str, values: Sequence[Value]) -> list[bool]:
    """Which of the values the words behind them take back; with one go those listed before it."""
    taken = [bool(TAKES_BACK.match(text, value.end())) for value in values]
    for i, (value, following) in reversed(list(enumerate(pairwise(values)))):
        joint = text[value.end() : following.start()]
        taken[i] |= taken[i + 1] and bool(LISTED.fullmatch(joint))
    return taken
