"""Reads an answer: its plain text, the values that it names, and those that it commits to."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from niah.scoring import lead_ins, plain_text
from niah.scoring.answer_channel import answer_channel
from niah.scoring.denials import AFFIRMS, LISTED, MEANS_NEXT, denied
from niah.scoring.repetition import first_round, loops
from niah.scoring.value_formats import RARE_IN_PROSE, VALUE_PATTERNS, Value, find_values, folded

SPACED_NUMBER = re.compile(r"(?<![\w.,-])(?<!\d )\d{1,3}(?: \d{3})+(?![\w-]| \d)")
DASH = re.compile(r"(?<=[0-9a-fA-F])[\u2012\u2013\u2212](?=[0-9a-fA-F])")

SENTENCE_END = re.compile(r"[.!?;](?=\s|$|[\"”’)*`}])|\n")
FULL_STOP = re.compile(r"[.!?](?=\s|$|[\"”’)*`}])|\n")
KEYED = re.compile(r"\w\W*[=:]\W*$")  # a value after its key, as in JSON
NEW_KEY = re.compile(r"\n\W*\w[\w ]*\W*[=:|]\W*$")  # the same on a line of its own
ASSIGNED = re.compile(r"\s*=(?!=)")  # a name before its value, in code
JSON_KEY = re.compile(r'"\s*:')
POSSESSIVE = re.compile(r"['’]s$")
OR = re.compile(r"\b(?:or|oder|ou)\b|或|または|\bили\b", re.I)
ALONE_BEHIND = re.compile(r"\W*?(?:[,;/|()\n.!?\"”*`•]|\s[-–—]\s|$)")
NOTE = re.compile(r"\([^()]*\)")  # a remark in brackets

# A number in one of these roles counts or points: "5 digits", "paragraph 12".
COUNTS = re.compile(
    r"[- ](?:digit|character|letter|step|mention|occurrence|time|code|number|value|word|entr"
    r"|sentence|paragraph|line|item|token|different)",
    re.I,
)
POINTS_TO = re.compile(
    r"\b(?:paragraph|page|line|section|chapter|verse|sentence|article|clause|step|item|part|note"
    r"|figure|table|row|column|entry|document|passage|source)s?\W{0,2}$",
    re.I,
)


@dataclass(frozen=True)
class Case:
    """An answer beside what it is judged by.

    `in_order`: the gold values are asked for in this order. `rivals`: values that answer other
    questions about this context. `cut_short`: decoding ended at its token limit. `context`: the
    haystack's text, made only when it is looked at. `question`: what was asked; an answer may
    repeat it, whole or in part. `thinking`: the prompt opened a thought.
    """

    answer: str
    gold: tuple[str, ...]
    answer_format: str = "number"
    in_order: bool = False
    rivals: Sequence[str] = ()
    cut_short: bool = False
    context: Callable[[], str] = str
    question: str = ""
    thinking: bool = False

    @cached_property
    def wanted(self) -> list[str]:
        """The gold values as they are compared."""
        return [self.folded(value) for value in self.gold]

    @cached_property
    def other(self) -> frozenset[str]:
        """The rivals as they are compared."""
        return frozenset(map(self.folded, self.rivals))

    def folded(self, value: str) -> str:
        return folded(plain_text.plain(value), self.answer_format)

    @cached_property
    def is_prose(self) -> bool:
        """Whether any word may be a value."""
        return self.answer_format not in RARE_IN_PROSE

    @cached_property
    def channel(self) -> str | None:
        """The part of the answer that is no thought; None where a thought was cut off."""
        return answer_channel(self.answer, self.thinking)

    @cached_property
    def loops(self) -> bool:
        """Whether the answer ends in a loop that is no gold value ("999 999 999")."""
        gold = {alphanumeric(value) for value in self.gold}
        return loops(self.channel or "") and alphanumeric(self.channel or "") not in gold

    @cached_property
    def first_round(self) -> str:
        return first_round(self.channel or "") if self.loops else self.channel or ""

    @cached_property
    def text(self) -> str:
        """The answer in plain characters, without markup, list numbers, polite denials.

        Of a loop only the first round; of worked solutions only the final answer.
        """
        planted = {*self.wanted, *self.other}
        text = plain_text.final_part(plain_text.plain(self.first_round))
        text = plain_text.without_markup(text)
        if not any(":" in value for value in self.gold):
            text = plain_text.LABEL.sub(r"\1: ", text)
        text = plain_text.without_list_numbers(text, planted)
        text = plain_text.without_citations(text, planted)
        return AFFIRMS.sub("", self.joined(text))

    def joined(self, text: str) -> str:
        """The text with the value's own separators in the one form that the format has."""
        if self.answer_format == "number":
            text = plain_text.apart(text)
            if plain_text.SUM.search(self.question):
                text = plain_text.plain_sum(text)
            return SPACED_NUMBER.sub(self.closed_up, text)
        if not self.is_prose:
            return DASH.sub("-", text)
        for value in self.unspaced:
            text = text.replace(value, f" {value} ")
        return text

    @cached_property
    def unspaced(self) -> list[str]:
        """Planted values in scripts without spaces, which stand between words as they are."""
        return [v for v in (*self.gold, *self.rivals) if plain_text.WITHOUT_SPACES.fullmatch(v)]

    def closed_up(self, spaced: re.Match[str]) -> str:
        """48 213 as 48213, where a number that long is wanted and none as long as its parts."""
        parts = spaced[0].split(" ")
        lengths = set(map(len, self.wanted))
        joined = "".join(parts)
        return joined if {len(joined)} <= lengths - set(map(len, parts)) else spaced[0]

    @cached_property
    def literals(self) -> list[str]:
        """Planted values that the format's pattern does not find whole: names of several words."""
        pattern = re.compile(VALUE_PATTERNS.get(self.answer_format, r"\w+"))
        planted = map(plain_text.plain, (*self.gold, *self.rivals))
        return [value for value in planted if value.strip() and not pattern.fullmatch(value)]

    @cached_property
    def named(self) -> list[Value]:
        """Everything of the wanted format, but for what only leads to an answer.

        If there is nothing else, what the question says itself; if that neither, carrier words.
        """
        found = find_values(self.text, self.answer_format, self.literals)
        own = [value for value in found if not self.is_carrier(value)]
        own = [value for value in own if not self.is_echo(value)] or own or found
        return self.without_lead(own) if self.is_prose else own

    def without_lead(self, own: list[Value]) -> list[Value]:
        """From the first word that is offered as a value, if all before it introduces it."""
        offered = next((value for value in own if self.is_offered(value)), None)
        if offered is None:
            return own
        before = self.text[: offered.start]
        stated = lead_ins.states(self.text, offered.start, self.asked_words)
        is_lead = lead_ins.is_talk if stated else lead_ins.leads_in
        if is_lead(before, self.asked_words):
            return [value for value in own if value.start >= offered.start]
        return own

    def is_offered(self, value: Value) -> bool:
        """Whether it is planted, or said to be the answer, or set apart by marks."""
        if self.is_planted(value):
            return True
        if value.said in lead_ins.SOURCES:
            return False
        marked = lead_ins.MARKED.search(self.text[max(0, value.start - 9) : value.start])
        return bool(marked) or lead_ins.states(self.text, value.start, self.asked_words)

    def is_carrier(self, value: Value) -> bool:
        if self.is_planted(value):
            return False
        if self.answer_format == "number":
            return not self.is_as_long(value) and self.counts(value)
        leads = value.said in lead_ins.CARRIERS or value.said in lead_ins.OPENERS
        return self.is_prose and (leads or self.is_label(value))

    def is_label(self, value: Value) -> bool:
        """Whether it names a field, counts, or is of a script that the gold values are not."""
        if self.answer_format != "word" and (ASSIGNED.match(self.text, value.end)):
            return True
        if JSON_KEY.match(self.text, value.end):
            return True
        if not any(map(str.isascii, value.text)) and all(map(str.isascii, self.gold)):
            return True
        return value.text.isdigit() and not self.is_as_long(value)

    def counts(self, value: Value) -> bool:
        """Whether a number says how many or where, as in "5 digits" and "paragraph 12"."""
        before, behind = self.text[: value.start], self.text[value.end :]
        return bool(COUNTS.match(behind) or POINTS_TO.search(before))

    def is_echo(self, value: Value) -> bool:
        """Whether the question says it and it is not the answer."""
        return value.said not in self.wanted and POSSESSIVE.sub("", value.said) in self.asked

    @cached_property
    def asked(self) -> frozenset[str]:
        """What the question says in the wanted format."""
        found = find_values(plain_text.plain(self.question), self.answer_format)
        return frozenset(value.said for value in found) | self.asked_words

    @cached_property
    def asked_words(self) -> frozenset[str]:
        """The question's words, without the endings of genitive and plural too."""
        said = {POSSESSIVE.sub("", word) for word in lead_ins.words(self.question)}
        return frozenset(said | {word.removesuffix("s") for word in said})

    def sentence(self, value: Value) -> tuple[int, int]:
        """Start and end of the sentence of a value."""
        ends = list(SENTENCE_END.finditer(self.text))
        start = max((end.end() for end in ends if end.end() <= value.start), default=0)
        return start, next_end(SENTENCE_END, self.text, value.end)

    def listed(self, first: int) -> list[Value]:
        """A value and those listed with it: what is named later in prose is no answer."""
        for i in range(first + 1, len(self.named)):
            if not self.is_listed(self.named[i - 1], self.named[i]):
                return self.named[first:i]
        return self.named[first:]

    def is_listed(self, before: Value, value: Value) -> bool:
        """Whether a value goes with the one before it.

        In prose a word may follow a word, and a verse's number a full stop: there only what could
        be meant as an answer counts.
        """
        between = self.joint(before, value)
        if not LISTED.fullmatch(between):
            return False
        ended = bool(SENTENCE_END.search(between))
        if self.is_prose and (ended or len(self.gold) == 1):
            return self.is_planted(value) or self.is_alternative(between, value)
        return not ended or self.is_as_long(value) or self.is_planted(value)

    def joint(self, before: Value, value: Value) -> str:
        """What stands between two values; of several golds without remarks and the keys."""
        between = self.text[before.end : value.start]
        if len(self.gold) == 1:
            return between
        remarks = NOTE.sub("", between)
        return lead_ins.WORD.sub(
            lambda word: "" if self.is_filler(word[0].casefold()) else word[0], remarks
        )

    def is_filler(self, word: str) -> bool:
        return lead_ins.is_filler(word, self.asked_words) and not LISTED.fullmatch(word)

    def is_alternative(self, between: str, value: Value) -> bool:
        """Whether a word that nobody planted is offered beside the first: "x or y", "x, y"."""
        if OR.search(between):
            return True
        ends = ALONE_BEHIND.match(self.text, value.end)
        cut = self.cut_short and value.end == len(self.text)
        return bool(ends) and not cut

    def is_planted(self, value: Value) -> bool:
        """Whether it is the answer to this or to another question."""
        return value.said in self.wanted or value.said in self.other

    def is_as_long(self, value: Value) -> bool:
        """Whether it is as long as a value that is asked for."""
        return len(value.said) in map(len, self.wanted)

    def committed(self, first: int) -> list[Value]:
        """The values from `first` on, and later ones before the full stop that may be answers."""
        listed = self.listed(first)
        stop = next_end(FULL_STOP, self.text, listed[-1].end)
        later = self.named[first + len(listed) :]
        within = [value for value in later if value.start < stop]
        return [*listed, *(value for value in within if self.is_another(listed[0], value))]

    def is_another(self, first: Value, value: Value) -> bool:
        """Whether it is meant as an answer too, though other words stand between.

        So a dump of keys and values does not pass for the one that is right.
        """
        if self.is_planted(value):
            return True
        alike = self.is_keyed if self.is_prose else self.is_as_long
        return alike(first) and alike(value)

    def is_keyed(self, value: Value) -> bool:
        return bool(KEYED.search(self.text, 0, value.start))

    @cached_property
    def judged(self) -> list[tuple[Value, bool]]:
        """The answers, each with whether it is denied.

        Those of the first sentence that names a value; if it only denies wrong ones ("It is not
        58120."), those of the next that states another.
        """
        found: list[tuple[Value, bool]] = []
        first = 0
        while first < len(self.named):
            values = self.committed(first)
            spans = [(value.start, value.end) for value in values]
            flags = denied(self.text, self.sentence(values[0])[0], spans, self.question)
            found += zip(values, flags, strict=True)
            if not all(flags) or any(value.said in self.wanted for value in values):
                break
            first = self.next_statement(values[-1].end)
        return found

    def next_statement(self, end: int) -> int:
        """Index of the next value that is stated; past the last where none is."""
        for index, value in enumerate(self.named):
            if value.start >= end and (self.is_planted(value) or self.is_restated(value)):
                return index
        return len(self.named)

    def is_restated(self, value: Value) -> bool:
        """Whether a later sentence gives the value as the answer to the question."""
        if not self.is_prose and not (self.is_as_long(value) or self.is_planted(value)):
            return False
        if lead_ins.RESUMES.search(self.text, 0, value.start):
            alone = ALONE_BEHIND.match(self.text, value.end)
            return not self.is_prose or self.is_planted(value) or bool(alone)
        if NEW_KEY.search(self.text, 0, value.start):
            return True
        said = self.text[self.sentence(value)[0] : value.start]
        return lead_ins.names_asked(said, self.asked_words) and lead_ins.states(
            self.text, value.start, self.asked_words
        )

    def meant_again(self, value: Value) -> int:
        """Where "I am not sure, but" ends before a value, if nothing else comes between; or 0."""
        ends = [found.end() for found in MEANS_NEXT.finditer(self.text, 0, value.start)]
        between = lead_ins.words(self.text[max(ends, default=0) : value.start])
        return ends[-1] if ends and all(map(self.is_filler, between)) else 0

    @cached_property
    def answers(self) -> list[Value]:
        return [value for value, _ in self.judged]

    @cached_property
    def verdicts(self) -> list[tuple[str, bool]]:
        """The answers as they are compared, each with whether it is denied."""
        return [(value.said, is_denied) for value, is_denied in self.judged]

    @cached_property
    def values(self) -> list[str]:
        """What the answer commits to, each once, in order."""
        return list(dict.fromkeys(value for value, is_denied in self.verdicts if not is_denied))

    @cached_property
    def contradicted(self) -> bool:
        """Whether a later sentence gives another value as the answer."""
        if not self.answers:
            return False
        later = [value for value in self.named if value.start >= self.answers[-1].end]
        other = [value for value in later if value.said not in self.values]
        restated = [value for value in other if self.is_restated(value)]
        spans = [(value.start, value.end) for value in restated]
        starts = [self.sentence(value)[0] for value in restated]
        flags = [
            denied(self.text, start, [span], self.question)[0]
            for start, span in zip(starts, spans, strict=True)
        ]
        return not all(flags)


def alphanumeric(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def next_end(ends: re.Pattern[str], text: str, start: int) -> int:
    """Where the next of `ends` begins, or the text ends."""
    found = ends.search(text, start)
    return found.start() if found else len(text)
