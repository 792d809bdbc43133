"""Owns the way from an answer to its outcome: whether it is right, and how it errs.

Knows nothing of models, tokens or where a needle stood. Every rule below is one line of the list
in `RULES`; the first that holds names the outcome. What an answer says is read in `answer.py`,
what it denies in `denial.py`.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

from niah.scoring.answer_values import Case, plain
from niah.scoring.denials import REFUSALS, says

Outcome = Literal[
    "exact",
    "near_miss",
    "distractor",
    "copied",
    "invented",
    "denied",
    "malformed",
    "truncated",
    "error",
]

# What may stand between two characters of a value that the haystack holds.
BETWEEN = {"number": r"[,_'’\u00a0\u2009\u202f]?", "uuid": "-?"}


def refuses(case: Case) -> bool:
    """It says that the text does not tell, or denies a right value, or all that it names."""
    if not case.answers:
        return says(REFUSALS, case.text, 0, len(case.text), case.question)
    if not case.values or any(no and value in case.wanted for value, no in case.verdicts):
        return True
    # In words a refusal is itself made of values; behind the right one it is prose.
    wordy = case.answer_format == "word" and case.values[0] not in case.wanted
    end = case.sentence[1] if wordy else case.answers[0].start()
    return says(REFUSALS, case.text, 0, end, case.question)


def is_cut_short(case: Case) -> bool:
    """The token limit came before the value was complete: what it would be is unknown."""
    said = plain(case.question).casefold()
    repeats = bool(case.text.strip()) and case.text.strip().casefold() in said
    ends = bool(case.matches) and case.matches[-1].end() == len(case.text)
    return case.cut_short and (repeats or ends)


def is_malformed(case: Case) -> bool:
    """It names nothing of the wanted format, or more values than were asked for."""
    return not case.values or len(case.values) > len(case.wanted)


def is_exact(case: Case) -> bool:
    """It names the gold values and no other."""
    if case.in_order:
        return case.values == case.wanted
    return sorted(case.values) == sorted(case.wanted)


def is_near_miss(case: Case) -> bool:
    """Every value it names is gold or a slip of the pen away from it, or some gold is missing."""
    return all(any(is_near(value, gold) for gold in case.wanted) for value in case.values)


def is_distractor(case: Case) -> bool:
    """It names a value that answers another question about this context."""
    return any(value in case.other for value in case.values)


def is_copied(case: Case) -> bool:
    """It names something that the haystack holds, with whatever separators."""
    context = unicodedata.normalize("NFKC", case.context()).casefold()
    between = BETWEEN.get(case.answer_format, "")
    wrong = [value for value in case.values if value not in case.wanted]
    spellings = [between.join(map(re.escape, value)) for value in wrong]
    return any(re.search(rf"(?<!\w){spelling}(?!\w)", context) for spelling in spellings)


def is_anything(case: Case) -> bool:
    """It names a value that is nowhere in the text."""
    return True


# A distractor one digit away from gold is a distractor: it is in the text, a slip is not.
RULES: tuple[tuple[Outcome, Callable[[Case], bool]], ...] = (
    ("denied", refuses),
    ("truncated", is_cut_short),
    ("malformed", is_malformed),
    ("exact", is_exact),
    ("distractor", is_distractor),
    ("near_miss", is_near_miss),
    ("copied", is_copied),
    ("invented", is_anything),
)


def judge(case: Case) -> Outcome:
    """The first rule that holds."""
    return next(outcome for outcome, rule in RULES if rule(case))


def is_near(value: str, gold: str) -> bool:
    """At most one slip in five characters: another character, one more, one less, two swapped."""
    allowed = max(1, len(gold) // 5)
    return abs(len(value) - len(gold)) <= allowed and slips(value, gold) <= allowed


def slips(left: str, right: str) -> int:
    """Edit distance in which swapping two neighbours is one step (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        above, row = row, [i, *[0] * len(right)]
        for j, b in enumerate(right, start=1):
            row[j] = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                row[j] = min(row[j], before[j - 2] + 1)
        before = above
    return row[-1]
