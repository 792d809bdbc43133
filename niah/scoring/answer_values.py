"""Owns what an answer's text says: its plain form, the values it names, those it commits to.

Knows nothing of outcomes, models, tokens or where a needle stood.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from niah.scoring.denials import AFFIRMS, LISTED, Value, denied

# What counts as a value, by answer format; letters and digits on either side make it another one,
# and so do those behind a dash or the like. A number may hold thousands separators: 48,213 is one
# value, 48, 213 are two. In formats that are not here prose has as many values as words.
VALUE_PATTERNS = {
    "number": r"(?:\d{1,3}(?:[,_'’]\d{3})+(?![,_'’]?\d)|\d+)(?:\.\d+)?",
    "date": r"\d{4}-\d{2}-\d{2}",
    "uuid": r"[0-9a-fA-F]{32}|[0-9a-fA-F]+(?:-[0-9a-fA-F]+)+",
    "word": r"[^\W\d_]+(?:[-'’][^\W\d_]+)*",
}
RARE_IN_PROSE = ("number", "date", "uuid")
ANY_VALUE = r"\w+(?:[-./:@'’,]\w+)*"
BEFORE, AFTER = r"(?<![^\W_])(?<![^\W_][-_:/@])", r"(?![^\W_])(?![-_:/@][^\W_])"

THIN_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
SPACED_NUMBER = re.compile(r"(?<![\w.,-])(?<!\d )\d{1,3}(?: \d{3})+(?![\w-]| \d)")
DASH = re.compile(r"(?<=[0-9a-fA-F])[\u2012\u2013\u2212](?=[0-9a-fA-F])")
SIGNS = str.maketrans({"\u066c": ",", "\u066b": ".", "\u2010": "-"})  # Arabic 1,000.0; hyphen
ENUMERATED = re.compile(r"^\W*\d{1,2}\)\s+(?=.*\w)")  # (1) or 1) before a value

SENTENCE_END = re.compile(r"[.!?;](?=\s|$|[\"”’)])|\n")
FULL_STOP = re.compile(r"[.!?](?=\s|$|[\"”’)])|\n")
KEYED = re.compile(r"\w\W*[=:]\W*$")  # a value after its key, as in JSON
POSSESSIVE = re.compile(r"['’]s$")

# Words that lead to a value and are none, unless this very context has them as values.
CARRIER_WORDS = """
    a an the this that these those it its he his she her they their there here i we you my your
    is are was were be been being am has have had do does did
    will would shall should must may might can could
    isn't isn’t wasn't wasn’t doesn't doesn’t it's it’s that's that’s
    not never neither nor except rather other than instead but
    and or also then so as of for to in on at by with from according
    answer value code word words number identifier name
    called named known said says say given listed stated states reads read mentioned
    text sentence passage document context
    yes sure well okay please believe think remember recall
"""
CARRIERS = frozenset(CARRIER_WORDS.split())


@dataclass(frozen=True)
class Case:
    """An answer beside what it is judged by.

    `in_order`: the gold values are asked for in this order. `cut_short`: decoding ended at its
    token limit. `rivals`: values that answer other questions about this context. `context`: the
    haystack's text, made only when it is looked at. `question`: what was asked; an answer may
    repeat it, whole or in part.
    """

    answer: str
    gold: tuple[str, ...]
    answer_format: str = "number"
    in_order: bool = False
    rivals: Sequence[str] = ()
    cut_short: bool = False
    context: Callable[[], str] = str
    question: str = ""

    @cached_property
    def wanted(self) -> list[str]:
        """The gold values as they are compared."""
        return [folded(value, self.answer_format) for value in self.gold]

    @cached_property
    def other(self) -> frozenset[str]:
        """The rivals as they are compared."""
        return frozenset(folded(value, self.answer_format) for value in self.rivals)

    @cached_property
    def text(self) -> str:
        """The answer in plain characters, without a number before it and polite denials."""
        text = plain(self.answer)
        if self.answer_format == "number":
            text = SPACED_NUMBER.sub(self.closed_up, text)
        elif self.answer_format in RARE_IN_PROSE:
            text = DASH.sub("-", text)
        return AFFIRMS.sub("", ENUMERATED.sub("", text))

    def closed_up(self, spaced: Value) -> str:
        """48 213 as 48213, where a number that long is wanted and none as long as its parts."""
        parts = spaced[0].split(" ")
        lengths = set(map(len, self.wanted))
        joined = "".join(parts)
        return joined if {len(joined)} <= lengths - set(map(len, parts)) else spaced[0]

    @cached_property
    def named(self) -> list[Value]:
        """Everything of the wanted format, but for what only leads to an answer.

        If there is nothing else, what the question says itself; if that neither, carrier words.
        """
        found = find_values(self.text, self.answer_format)
        own = [value for value in found if not self.is_carrier(value)]
        return [value for value in own if not self.is_echo(value)] or own or found

    def is_carrier(self, value: Value) -> bool:
        word = value[0].casefold()
        return self.answer_format == "word" and word in CARRIERS and not self.is_planted(value)

    def is_echo(self, value: Value) -> bool:
        """Whether the question says it and it is not the answer."""
        said = folded(value[0], self.answer_format)
        return said not in self.wanted and POSSESSIVE.sub("", said) in self.asked

    @cached_property
    def asked(self) -> frozenset[str]:
        """What the question says in the wanted format."""
        found = find_values(plain(self.question), self.answer_format)
        return frozenset(POSSESSIVE.sub("", folded(v[0], self.answer_format)) for v in found)

    @cached_property
    def sentence(self) -> tuple[int, int]:
        """Start and end of the sentence of the first value."""
        first = self.named[0]
        ends = list(SENTENCE_END.finditer(self.text))
        start = max((end.end() for end in ends if end.end() <= first.start()), default=0)
        return start, next_end(SENTENCE_END, self.text, first.end())

    @cached_property
    def matches(self) -> list[Value]:
        """The first value, and those listed with it: what is named later in prose is no answer."""
        for i in range(1, len(self.named)):
            if not self.is_listed(self.named[i - 1], self.named[i]):
                return self.named[:i]
        return self.named

    def is_listed(self, before: Value, value: Value) -> bool:
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
        return not ended or self.is_as_long(value) or self.is_planted(value)

    def is_planted(self, value: Value) -> bool:
        """Whether it is the answer to this or to another question."""
        return folded(value[0], self.answer_format) in {*self.wanted, *self.other}

    def is_as_long(self, value: Value) -> bool:
        """Whether it is as long as a value that is asked for."""
        return len(folded(value[0], self.answer_format)) in map(len, self.wanted)

    @cached_property
    def answers(self) -> list[Value]:
        """The first values, and later ones before the full stop that could be answers as well."""
        if not self.matches:
            return []
        end = self.matches[-1].end()
        stop = next_end(FULL_STOP, self.text, end)
        later = [value for value in self.named if end <= value.start() < stop]
        return [*self.matches, *(value for value in later if self.is_another(value))]

    def is_another(self, value: Value) -> bool:
        """Whether it is meant as an answer too, though other words stand between.

        So a dump of keys and values does not pass for the one that is right.
        """
        alike = self.is_as_long if self.answer_format in RARE_IN_PROSE else self.is_keyed
        return self.is_planted(value) or (alike(self.matches[0]) and alike(value))

    def is_keyed(self, value: Value) -> bool:
        return bool(KEYED.search(self.text, 0, value.start()))

    @cached_property
    def verdicts(self) -> list[tuple[str, bool]]:
        """The answers as they are compared, each with whether it is denied."""
        if not self.answers:
            return []
        flags = denied(self.text, self.sentence[0], self.answers, self.question)
        said = [folded(value[0], self.answer_format) for value in self.answers]
        return list(zip(said, flags, strict=True))

    @cached_property
    def values(self) -> list[str]:
        """What the answer commits to, each once, in order."""
        return list(dict.fromkeys(value for value, is_denied in self.verdicts if not is_denied))


def plain(text: str) -> str:
    """Without invisible characters; compatibility letters, digits and signs in their plain form."""
    visible = "".join(char for char in text if unicodedata.category(char) != "Cf")
    joined = unicodedata.normalize("NFKC", THIN_SPACE.sub(",", visible)).translate(SIGNS)
    return "".join(map(plain_digit, joined))


def plain_digit(char: str) -> str:
    """A digit of any script as 0 to 9; any other character as it is."""
    return str(unicodedata.digit(char)) if char.isdecimal() else char


def find_values(text: str, answer_format: str) -> list[Value]:
    """Values of a format, bounded by something other than letters and digits."""
    pattern = VALUE_PATTERNS.get(answer_format, ANY_VALUE)
    return list(re.finditer(f"{BEFORE}(?:{pattern}){AFTER}", text))


def next_end(ends: re.Pattern[str], text: str, start: int) -> int:
    """Where the next of `ends` begins, or the text ends."""
    found = ends.search(text, start)
    return found.start() if found else len(text)


def folded(value: str, answer_format: str) -> str:
    """A value as it is compared: case-folded, a number and a UUID without separators."""
    value = unicodedata.normalize("NFKC", value).casefold()
    if answer_format == "number":
        return re.sub(r"[^\d.]", "", value)
    return value.replace("-", "") if answer_format == "uuid" else value
