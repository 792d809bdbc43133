"""Owns the way from an answer's text to its outcome: what the answer commits to, and how it errs.

Knows nothing of models, tokens or where a needle stood. Every rule below is one line of the list
in `RULES`; the first that holds names the outcome.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

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

# What counts as a value, by answer format; letters and digits on either side make it another one.
# A number may hold thousands separators: 48,213 is one value, 48, 213 are two.
VALUE_PATTERNS = {
    "number": r"(?:\d{1,3}(?:[,_'’]\d{3})+(?![,_'’]?\d)|\d+)(?:\.\d+)?",
    "date": r"\d{4}-\d{2}-\d{2}",
    "uuid": r"[0-9a-fA-F]+(?:-[0-9a-fA-F]+){1,}",
    "word": r"[^\W\d_]+(?:[-'’][^\W\d_]+)*",
}
THIN_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
ANY_VALUE = r"\w+(?:[-./:@'’,]\w+)*"

# What may stand between values that are listed together. A space alone does where several are
# asked for, and between numbers; otherwise it may stand between the words of a sentence.
JOINT = re.compile(r"\s*(?:[,/&|+]|\band\b|\bor\b)[\s,]*(?:\band\b|\bor\b)?\s*", re.I)
SPACED = re.compile(rf"\s+|{JOINT.pattern}", re.I)

SENTENCE_END = re.compile(r"[.!?;](?=\s|$|[\"”’)])|\n")
NEGATION = re.compile(
    r"(?:\b(?:not|never|neither|nor|except|isn['’]t|wasn['’]t)|n['’]t)\s+\W*$", re.I
)
REFUSAL = re.compile(
    r"\b(?:no (?:such|mention|information|record|code|value|answer|idea)|not (?:mentioned|given|"
    r"stated|specified|provided|known|sure|found|in the text)|unknown|unable to|cannot|can['’]?t|"
    r"(?:do|does|did|is|was)(?:n['’]t| not) (?:know|say|mention|contain|have|give|state|appear|"
    r"provide|specif\w*|mentioned|given|stated|provided)|sorry)\b",
    re.I,
)
TAKEN_BACK = re.compile(r"\W*\s(?:is|was)(?:\s+not|n['’]t)\b", re.I)
NEGATIONS = ("not", "never", "neither", "nor", "isn't", "isn’t", "wasn't", "wasn’t")
FILLERS = frozenset(NEGATIONS).union(
    ("a", "an", "and", "or", "the", "is", "it", "are", "was", "answer", "value", "code", "word")
)


@dataclass(frozen=True)
class Case:
    """An answer beside what it is judged by.

    `in_order`: the gold values are asked for in this order. `cut_short`: decoding ended at its
    token limit. `rivals`: values that answer other questions about this context. `context`: the
    haystack's text, made only when it is looked at.
    """

    answer: str
    gold: tuple[str, ...]
    answer_format: str = "number"
    in_order: bool = False
    rivals: Sequence[str] = ()
    cut_short: bool = False
    context: Callable[[], str] = str

    @cached_property
    def text(self) -> str:
        """The answer with digits and compatibility letters in their plain form."""
        plain = unicodedata.normalize("NFKC", THIN_SPACE.sub(",", self.answer))
        return "".join(plain_digit(char) for char in plain)

    @cached_property
    def sentence(self) -> tuple[int, int]:
        """Start and end of the first sentence that names a value (of everything if none does)."""
        start = 0
        for end in [found.start() for found in SENTENCE_END.finditer(self.text)]:
            if find_values(self.text, self.answer_format, start, end):
                return start, end
            start = end
        return start, len(self.text)

    @cached_property
    def matches(self) -> list[re.Match[str]]:
        """The first value, and those listed with it: what is named later in prose is no answer."""
        found = find_values(self.text, self.answer_format, *self.sentence)
        several = self.answer_format == "number" or len(self.gold) > 1
        joint = SPACED if several else JOINT
        for i in range(1, len(found)):
            if not joint.fullmatch(self.text, found[i - 1].end(), found[i].start()):
                return found[:i]
        return found

    @cached_property
    def values(self) -> list[str]:
        """What the answer commits to, each once, in order."""
        return list(dict.fromkeys(folded(match[0], self.answer_format) for match in self.matches))

    @cached_property
    def wanted(self) -> list[str]:
        return [folded(value, self.answer_format) for value in self.gold]


def plain_digit(char: str) -> str:
    """A digit of any script as 0 to 9; any other character as it is."""
    return str(unicodedata.digit(char)) if char.isdecimal() else char


def find_values(text: str, answer_format: str, start: int, end: int) -> list[re.Match[str]]:
    """Values of a format in text[start:end], bounded by something other than letters and digits."""
    pattern = VALUE_PATTERNS.get(answer_format, ANY_VALUE)
    bounded = re.compile(rf"(?<![^\W_])(?:{pattern})(?![^\W_])")
    found = list(bounded.finditer(text, start, end))
    if answer_format == "word":
        return [match for match in found if match[0].lower() not in FILLERS] or found
    return found


def folded(value: str, answer_format: str) -> str:
    """A value as it is compared: case-folded, and a number without separators."""
    value = unicodedata.normalize("NFKC", value).casefold()
    return re.sub(r"[^\d.]", "", value) if answer_format == "number" else value


def refuses(case: Case) -> bool:
    """It says that the text does not tell, before naming anything, or takes its value back."""
    if not case.matches:
        return bool(REFUSAL.search(case.text))
    before, after = case.text[: case.matches[0].start()], case.text[case.matches[-1].end() :]
    if NEGATION.search(before) or TAKEN_BACK.match(after):
        return True
    # In words a refusal is itself made of values.
    heard = before if case.answer_format == "number" else case.text[: case.sentence[1]]
    return bool(REFUSAL.search(heard))


def is_cut_short(case: Case) -> bool:
    """The token limit came while the value was being written: what it would be is unknown."""
    return case.cut_short and bool(case.matches) and case.matches[-1].end() == len(case.text)


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
    rivals = {folded(value, case.answer_format) for value in case.rivals}
    return any(value in rivals for value in case.values)


def is_copied(case: Case) -> bool:
    """It names something that the haystack holds."""
    context = unicodedata.normalize("NFKC", case.context()).casefold()
    wrong = [value for value in case.values if value not in case.wanted]
    return any(re.search(rf"(?<!\w){re.escape(value)}(?!\w)", context) for value in wrong)


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
