"""Finds values of a format in text, and writes them as they are compared."""

import datetime
import re
import unicodedata
from collections.abc import Collection
from typing import NamedTuple

from niah.scoring.plain_text import UNSPACED

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH = "|".join(
    (
        *("jan(?:uary)?", "feb(?:ruary)?", "mar(?:ch)?", "apr(?:il)?", "may", "june?", "july?"),
        *("aug(?:ust)?", "sept?(?:ember)?", "oct(?:ober)?", "nov(?:ember)?", "dec(?:ember)?"),
    )
)
DAY = r"\d{1,2}(?:st|nd|rd|th)?"
# The parts of a date by name. Day before month where points part them; slashes only where one of
# the two cannot be a month.
DATE_FORMS = tuple(
    re.compile(form, re.I)
    for form in (
        r"(?P<y>\d{4})(?P<sep>[-/.])(?P<m>\d{1,2})(?P=sep)(?P<d>\d{1,2})(?:T00:00(?::00)?Z?)?",
        r"(?P<y>\d{4})\s*年\s*(?P<m>\d{1,2})\s*月\s*(?P<d>\d{1,2})\s*日",
        rf"(?P<d>{DAY})(?: day)?(?: of)?[\s-]+(?P<m>{MONTH})\.?,?[\s-]+(?P<y>\d{{4}})",
        rf"(?P<m>{MONTH})\.?\s+(?P<d>{DAY}),?\s+(?P<y>\d{{4}})",
        r"(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d{4})",
        r"(?P<d>1[3-9]|2\d|3[01])/(?P<m>\d{1,2})/(?P<y>\d{4})",
        r"(?P<m>\d{1,2})/(?P<d>1[3-9]|2\d|3[01])/(?P<y>\d{4})",
    )
)


def unnamed(form: re.Pattern[str]) -> str:
    """A date's form as part of a longer pattern, where no group may have a name twice."""
    separated = form.pattern.replace("(?P=sep)", "[-/.]")
    return "(?i:" + re.sub(r"\(\?P<\w+>", "(?:", separated) + ")"


# What counts as a value, by answer format; letters and digits on either side make it another one,
# and so do those behind a dash or the like. A number may hold thousands separators: 48,213 is one
# value, 48, 213 are two. In formats that are not here prose has as many values as words.
VALUE_PATTERNS = {
    "number": r"(?:\d{1,3}(?:[,_'’]\d{3})+(?![,_'’]?\d)|\d+)(?:\.\d+)?",
    "date": "|".join(map(unnamed, DATE_FORMS)),
    "uuid": r"[0-9a-fA-F]{32}|(?=[0-9a-fA-F-]{9})[0-9a-fA-F]+(?:-[0-9a-fA-F]+)+",
    "version": r"[vV]?\d+(?:\.\d+)+(?:[-+.]?[A-Za-z]\w*(?:[.-]\w+)*)?",
    "word": rf"[^\W\d_{UNSPACED}]+(?:[-'’][^\W\d_{UNSPACED}]+)*|[{UNSPACED}]+",
}
RARE_IN_PROSE = ("number", "date", "uuid", "version")
ANY_VALUE = r"\w+(?:[-./:@'’]\w+|(?<=\d),(?=\d)\w+)*"
BEFORE, AFTER = r"(?<![^\W_])(?<![^\W_][-_:/@])", r"(?![^\W_])(?![-_:/@][^\W_])"
# The beginning of a value at the end of a text that the token limit cut.
CUT = {
    "word": r"[^\W\d_][\w-]*",
    "number": r"\d[\d,.]*",
    "date": rf"\d{{1,4}}[-/.\d]*|(?:{DAY}\s+)?(?:{MONTH})\w*\s*[\d,\s]*",
    "uuid": r"[0-9a-fA-F][0-9a-fA-F-]*",
    "version": r"[vV]?\d[\w.-]*",
}
# At the end of such a text a value that is complete all the same.
WHOLE = {
    "date": re.compile(r"\d{4}([-/.])\d{2}\1\d{2}|.*\D\d{4}"),
    "uuid": re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", re.I),
}


class Value(NamedTuple):
    """Something of the wanted format: its place in the text, and how it is compared."""

    start: int
    end: int
    text: str
    said: str


def find_values(text: str, answer_format: str, literals: Collection[str] = ()) -> list[Value]:
    """Values of a format, bounded by something other than letters and digits.

    `literals` are values of any shape, such as names of several words; they come first.
    """
    pattern = VALUE_PATTERNS.get(answer_format, ANY_VALUE)
    named = sorted(literals, key=len, reverse=True)
    spelled = ["(?i:" + r"\s+".join(map(re.escape, value.split())) + ")" for value in named]
    found = re.finditer(f"{BEFORE}(?:{'|'.join([*spelled, pattern])}){AFTER}", text)
    return [Value(*hit.span(), hit[0], folded(hit[0], answer_format)) for hit in found]


def is_cut(text: str, answer_format: str) -> bool:
    """Whether the text ends within what may be the beginning of a value."""
    pattern = CUT.get(answer_format, r"[^\W_][\w-]*")
    found = re.search(f"{BEFORE}(?:{pattern})$", text, re.I)
    whole = WHOLE.get(answer_format)
    return bool(found) and not (found and whole and whole.fullmatch(found[0]))


def folded(value: str, answer_format: str) -> str:
    """A value as it is compared: case-folded, a number and a UUID without separators.

    A date becomes YYYY-MM-DD, a version loses its "v".
    """
    value = " ".join(unicodedata.normalize("NFKC", value).casefold().split())
    if answer_format == "number" and any(map(str.isdigit, value)):
        return re.sub(r"[^\d.]", "", value)
    if answer_format == "date":
        return iso_date(value)
    if answer_format == "version":
        return re.sub(r"^v(?=\d)", "", value)
    return value.replace("-", "") if answer_format == "uuid" else value


def iso_date(value: str) -> str:
    """A date of any of the forms as YYYY-MM-DD; the text itself where it is none."""
    for form in DATE_FORMS:
        if found := form.fullmatch(value):
            month = found["m"] if found["m"].isdigit() else 1 + MONTHS.index(found["m"][:3])
            day = int(re.sub(r"\D", "", found["d"]))
            try:
                return datetime.date(int(found["y"]), int(month), day).isoformat()
            except ValueError:
                return value
    return value
