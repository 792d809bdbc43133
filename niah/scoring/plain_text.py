"""Takes an answer out of its dress: odd characters, markup, list numbers, citations, currencies."""

import re
import unicodedata
from collections.abc import Collection

THIN_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
FOOTNOTE = re.compile(r"(?<=[^\W_])[⁰¹²³⁴-⁹]+")  # a raised digit behind a value
SIGNS = str.maketrans(  # Arabic 1,000.0; hyphen; the full stop of Chinese and Japanese
    {"\u066c": ",", "\u066b": ".", "\u2010": "-", "\u3002": ". "}
)
# Scripts that are written without spaces, or that join endings to a foreign word (Hangul).
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
WITHOUT_SPACES = re.compile(rf"[{UNSPACED}]+")
SCRIPT_CHANGE = re.compile(
    rf"(?<=[{UNSPACED}])(?=[^\W{UNSPACED}])|(?<=[^\W{UNSPACED}])(?=[{UNSPACED}])"
)

FENCE = re.compile(r"^[ \t]*(?:```|~~~)[\w+-]*[ \t]*$", re.M)
LATEX = re.compile(r"\\(?:boxed|fbox|mbox|text\w*|math\w*)\s*(?=\{)")
LATEX_COMMA = re.compile(r"(?<=\d)(?:\{,\}|\\,)(?=\d)")
TAG = re.compile(
    r"</?(?:answer|final|result|output|response|solution|b|i|u|a|em|strong|mark|code|pre|p|div|span"
    r"|br|hr|h[1-6]|ul|ol|li|table|thead|tbody|tr|td|th|sup|sub)(?: [^<>]*)?/?>",
    re.I,
)
STRUCK = re.compile(r"~~[^~\n]*~~|<(?:del|strike)>.*?</(?:del|strike)>", re.I | re.S)
URN = re.compile(r"\burn:uuid:", re.I)
LABEL = re.compile(r"(?<![^\W_])(?<![^\W_][-_:/@.])([^\W\d_]+):(?=[^\s:/])")  # "Answer:48213"
LIST_NUMBER = re.compile(
    r"(?:^[^\w\n]*?|(?<=[\s,;]))[\[(]?(\d{1,2}|[a-zA-Z])[.)\]][ \t]+(?=\S)", re.M
)
CITATION = re.compile(r"[ \t]?\[\^?(\d{1,3}(?:\s*[,–-]\s*\d{1,3})*)\]|[ \t]?【[^】\n]*】")
FINAL = re.compile(r"\bfinal answer\b|\\boxed\s*\{|<answer>", re.I)
SENTENCE_BEFORE = re.compile(r"[.!?][\"”’)*]*\s")

CURRENCY = "EUR|USD|GBP|CHF|JPY|CNY|INR"
CURRENCY_JOINED = re.compile(rf"\b({CURRENCY})(?=\d)|(?<=\d)({CURRENCY})\b")
SUM = re.compile(
    rf"[$€£¥]|\b(?:{CURRENCY}|sum|amount|price|cost|fee|how much|dollars?|euros?|pounds?)\b", re.I
)
NO_CENTS = re.compile(r"(?<=\d)[.,]0{1,2}(?![.,]?\d)")
POINTS = re.compile(r"(?<![\w.,])\d{1,3}(?:\.\d{3})+(?!\w|[.,]\d)")


def plain(text: str) -> str:
    """Without invisible characters; compatibility letters, digits and signs in their plain form.

    A space parts scripts that need none from those that do.
    """
    if text.isascii():
        return text
    visible = "".join(char for char in text if unicodedata.category(char) != "Cf")
    joined = THIN_SPACE.sub(",", FOOTNOTE.sub("", visible))
    joined = unicodedata.normalize("NFKC", joined).translate(SIGNS)
    return SCRIPT_CHANGE.sub(" ", "".join(map(plain_digit, joined)))


def plain_digit(char: str) -> str:
    """A digit of any script as 0 to 9; any other character as it is."""
    return str(unicodedata.digit(char)) if char.isdecimal() else char


def final_part(text: str) -> str:
    """From the sentence that announces a final answer on; all of it where there is none."""
    found = FINAL.search(text)
    starts = (
        [end.end() for end in SENTENCE_BEFORE.finditer(text, 0, found.start())] if found else []
    )
    return text[starts[-1] :] if starts else text


def without_markup(text: str) -> str:
    """Without code fences, LaTeX commands, tags, and what is struck out."""
    text = STRUCK.sub(" ", FENCE.sub("", text))
    text = LATEX_COMMA.sub(",", LATEX.sub("", text)).replace("\\_", "_")
    return URN.sub("", TAG.sub(" ", text))


def without_list_numbers(text: str, values: Collection[str]) -> str:
    """Without the numbers 1, 2, 3 ... or letters of a list, unless one of them is a value."""
    expected = 1

    def blanked(found: re.Match[str]) -> str:
        nonlocal expected
        in_line = found.start() > 0 and text[found.start() - 1] != "\n"
        counted = (str(expected), chr(ord("a") + expected - 1))
        if found[1].lower() not in counted or found[1] in values or (expected == 1 and in_line):
            return found[0]
        expected += 1
        return ""

    return LIST_NUMBER.sub(blanked, text)


def without_citations(text: str, values: Collection[str]) -> str:
    """Without [1] and the like, unless it holds a value."""

    def kept(found: re.Match[str]) -> str:
        said = re.findall(r"\d+", found[1] or "")
        return found[0] if any(number in values for number in said) else ""

    return CITATION.sub(kept, text)


def apart(text: str) -> str:
    """With a space between a number and a currency's code."""
    return CURRENCY_JOINED.sub(r" \1\2 ", text)


def plain_sum(text: str) -> str:
    """48,213.00 and 48.213,00 as 48,213: for an answer to a question about a sum of money."""
    whole = NO_CENTS.sub("", text)
    return POINTS.sub(lambda found: found[0].replace(".", ","), whole)
