"""Judges an answer: whether it is right, and how it errs.

Every rule below is one line of the list in `RULES`; the first that holds names the outcome.
docs/scoring.md says the rules in words. `contains` is RULER's rule, a second verdict.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

from niah.scoring import lead_ins
from niah.scoring.answer_values import Case
from niah.scoring.denials import REFUSALS, SORRY, says
from niah.scoring.plain_text import plain
from niah.scoring.value_formats import is_cut

Outcome = Literal[
    "exact",
    "reordered",
    "near_miss",
    "distractor",
    "copied",
    "invented",
    "repetition",
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
        end = len(case.text)
        return says(REFUSALS, case.text, 0, end, case.question) or says(
            SORRY, case.text, 0, end, ""
        )
    if not case.values or any(no and value in case.wanted for value, no in case.verdicts):
        return True
    # In words a refusal is itself made of values; behind the right one it is prose.
    wordy = case.is_prose and case.values[0] not in case.wanted
    first = next(value for value, no in case.judged if not no)
    end = case.sentence(first)[1] if wordy else first.start
    return says(REFUSALS, case.text, case.meant_again(first), end, case.question)


def is_cut_short(case: Case) -> bool:
    """The token limit came in a thought or before the value was complete."""
    if case.channel is None:
        return True
    if not case.cut_short or case.loops:
        return False
    if case.answers and case.text[case.answers[-1].end :].strip("-/"):
        return False
    return is_cut(case.text, case.answer_format) or (not case.named and introduces(case))


def introduces(case: Case) -> bool:
    """Whether the text repeats the question, or its last clause is on the way to a value."""
    said = case.text.strip().casefold()
    if said and said in plain(case.question).casefold():
        return True
    words = lead_ins.words((lead_ins.clauses(case.text) or [""])[-1])
    return len(words) > 1 and all(case.is_filler(word) for word in words[:-1])


def is_exact(case: Case) -> bool:
    """It names the gold values and no other."""
    named_in_order = case.values == case.wanted
    return (named_in_order if case.in_order else names_all(case)) and not case.contradicted


def names_all(case: Case) -> bool:
    return sorted(case.values) == sorted(case.wanted)


def repeats(case: Case) -> bool:
    """It ends in a loop."""
    return case.loops


def is_malformed(case: Case) -> bool:
    """It names nothing of the wanted format, more values than were asked for, or contradicts."""
    if not case.values or len(case.values) > len(case.wanted):
        return True
    return names_all(case) and case.contradicted


def is_reordered(case: Case) -> bool:
    """Every wrong value it names has the characters of a gold value in another order.

    A cache that condenses several tokens into one entry can lose the order of what it keeps.
    """
    wrong = [sorted(value) for value in case.values if value not in case.wanted]
    wanted = [sorted(gold) for gold in case.wanted]
    return bool(wrong) and all(value in wanted for value in wrong)


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
    ("exact", is_exact),
    ("repetition", repeats),
    ("malformed", is_malformed),
    ("distractor", is_distractor),
    ("reordered", is_reordered),
    ("near_miss", is_near_miss),
    ("copied", is_copied),
    ("invented", is_anything),
)


def judge(case: Case) -> Outcome:
    """The first rule that holds."""
    return next(outcome for outcome, rule in RULES if rule(case))


def contains(case: Case) -> bool:
    """Whether every gold value stands in the answer as it is written, in either case.

    RULER's `string_match_all` (arXiv:2404.06654) asks for the share of the gold values; a bool
    here is a full share. Thoughts are no part of the answer; nothing else is left out.
    """
    return contained_share(case) == 1


def contained_share(case: Case) -> float:
    """The share, 0 to 1, of the gold values that stand in the answer: RULER's score."""
    said = (case.channel or "").casefold()
    return sum(gold.casefold() in said for gold in case.gold) / len(case.gold)


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
