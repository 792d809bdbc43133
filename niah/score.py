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

# What counts as a value, by answer format; letters and digits on either side make it another one,
# and so do those behind a dash or the like. A number may hold thousands separators: 48,213 is one
# value, 48, 213 are two.
VALUE_PATTERNS = {
    "number": r"(?:\d{1,3}(?:[,_'’]\d{3})+(?![,_'’]?\d)|\d+)(?:\.\d+)?",
    "date": r"\d{4}-\d{2}-\d{2}",
    "uuid": r"[0-9a-fA-F]+(?:-[0-9a-fA-F]+){1,}",
    "word": r"[^\W\d_]+(?:[-'’][^\W\d_]+)*",
}
ANY_VALUE = r"\w+(?:[-./:@'’,]\w+)*"
BEFORE, AFTER = r"(?<![^\W_])(?<![^\W_][-_:/@])", r"(?![^\W_])(?![-_:/@][^\W_])"
THOUSANDS = r"[,_'’\u00a0\u2009\u202f]?"
THIN_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")

# What stands between values that are listed together: no letter or digit but these words.
LISTED = re.compile(
    r"(?:[\W_]|\b(?:and|or|but|then|also|now|plus|maybe|perhaps|possibly|as well as)\b)+", re.I
)
ENUMERATED = re.compile(r"^\W*\d{1,2}\)\s+(?=.*\w)")  # (1) or 1) before a value
NOT_BUT = re.compile(r"\bnot\b[^.;\n]*?\bbut\s+", re.I)  # not this but that: that

SENTENCE_END = re.compile(r"[.!?;](?=\s|$|[\"”’)])|\n")
NEGATION = re.compile(
    r"\b(?:not|never|neither|nor|except|no longer|(?:any|every)thing but|all but|cannot)\b"
    r"|n['’]t\b",
    re.I,
)
REFUSAL = re.compile(
    r"\b(?:no (?:such|mention|information|record|code|value|answer|idea)|not (?:mentioned|given|"
    r"stated|specified|provided|known|sure|found|available|in the text)|unknown|unable to|cannot|"
    r"can['’]?t|could(?:n['’]t| not) (?:find|say|tell)|n/a|none|nothing|"
    r"(?:do|does|did|is|was)(?:n['’]t| not) (?:know|say|mention|contain|have|give|state|appear|"
    r"provide|specif\w*|mentioned|given|stated|provided)|sorry)\b",
    re.I,
)
TAKEN_BACK = re.compile(
    r"[^\w?]*\s(?:cannot be|can['’]t be|(?:is|was)(?:\s+(?:not|no|wrong|incorrect|false)|n['’]t))\b"
    r"|\W*\?\W*no\b",
    re.I,
)
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
        """The answer with digits and compatibility letters in their plain form, and without what
        it takes back itself (not this but that)."""
        plain = unicodedata.normalize("NFKC", THIN_SPACE.sub(",", self.answer))
        plain = "".join(plain_digit(char) for char in plain)
        return NOT_BUT.sub("", ENUMERATED.sub("", plain))

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
        found = find_values(self.text, self.answer_format, self.sentence[0], len(self.text))
        for i in range(1, len(found)):
            if not self.is_listed(found[i - 1], found[i]):
                return found[:i]
        return found

    def is_listed(self, before: re.Match[str], value: re.Match[str]) -> bool:
        """Whether a value goes with the one before it.

        In prose a word may follow a word, and a verse's number a full stop: there only what could
        be meant as an answer counts.
        """
        between = self.text[before.end() : value.start()]
        if not LISTED.fullmatch(between):
            return False
        ended = bool(SENTENCE_END.search(between))
        if self.answer_format == "word" and (ended or len(self.gold) == 1):
            return self.is_planted(value)
        as_long = any(len(value[0]) == len(gold) for gold in self.gold)
        return not ended or as_long or self.is_planted(value)

    def is_planted(self, value: re.Match[str]) -> bool:
        """Whether it is the answer to this or to another question."""
        return folded(value[0], self.answer_format) in {*self.wanted, *self.other}

    @cached_property
    def values(self) -> list[str]:
        """What the answer commits to, each once, in order; later rivals of its sentence too."""
        if not self.matches:
            return []
        end = self.matches[-1].end()
        later = find_values(self.text, self.answer_format, end, max(end, self.sentence[1]))
        named = [*self.matches, *(v for v in later if self.is_planted(v))]
        return list(dict.fromkeys(folded(match[0], self.answer_format) for match in named))

    @cached_property
    def other(self) -> frozenset[str]:
        """The rivals as they are compared."""
        return frozenset(folded(value, self.answer_format) for value in self.rivals)

    @cached_property
    def wanted(self) -> list[str]:
        return [folded(value, self.answer_format) for value in self.gold]


def plain_digit(char: str) -> str:
    """A digit of any script as 0 to 9; any other character as it is."""
    return str(unicodedata.digit(char)) if char.isdecimal() else char


def find_values(text: str, answer_format: str, start: int, end: int) -> list[re.Match[str]]:
    """Values of a format in text[start:end], bounded by something other than letters and digits."""
    pattern = VALUE_PATTERNS.get(answer_format, ANY_VALUE)
    found = list(re.compile(f"{BEFORE}(?:{pattern}){AFTER}").finditer(text, start, end))
    if answer_format == "word":
        return [match for match in found if match[0].lower() not in FILLERS] or found
    return found


def folded(value: str, answer_format: str) -> str:
    """A value as it is compared: case-folded, and a number without separators."""
    value = unicodedata.normalize("NFKC", value).casefold()
    return re.sub(r"[^\d.]", "", value) if answer_format == "number" else value


def refuses(case: Case) -> bool:
    """It says that the text does not tell, or denies the value that it names."""
    if not case.matches:
        return bool(REFUSAL.search(case.text))
    first = case.matches[0].start()
    if NEGATION.search(case.text, case.sentence[0], first):
        return True
    if TAKEN_BACK.match(case.text, case.matches[-1].end()):
        return True
    # In words a refusal is itself made of values; behind the right one it is prose.
    wordy = case.answer_format == "word" and case.values[0] not in case.wanted
    return bool(REFUSAL.search(case.text, 0, case.sentence[1] if wordy else first))


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
    return any(value in case.other for value in case.values)


def is_copied(case: Case) -> bool:
    """It names something that the haystack holds, with whatever separators."""
    context = unicodedata.normalize("NFKC", case.context()).casefold()
    between = THOUSANDS if case.answer_format == "number" else ""
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
