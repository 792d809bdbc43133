"""Documents to plain text: HTML, the Jargon File's layout, Bible verses, Python sources.

Decides what counts as prose and what as navigation.
"""

import json
import re
from collections.abc import Iterable
from html.parser import HTMLParser

SKIPPED_TAGS = frozenset({"script", "style", "head", "svg", "button", "nav", "form", "noscript"})
SKIPPED_DIV_CLASSES = frozenset(
    {"nosearch", "menu", "navheader", "navfooter", "toc", "startsearch", "endsearch"}
)
BLOCK_TAGS = frozenset(
    {"p", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "br", "table"}
    | {"dt", "dd", "ul", "ol", "dl", "blockquote", "hr", "body"}
)
# Typography that has an exact plain counterpart; other UTF-8 stays as it is.
PLAIN = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2013": "-",
        "\u2014": "--",
        "\u2026": "...",
        "\u00a0": " ",
        "\u00ad": "",
        "\u200b": "",
        "\u2060": "",
    }
)
LETTER = re.compile(r"[A-Za-z]")
BOX_DRAWING = re.compile(r"[\u2500-\u257f]")
MIN_REPEAT_CHARS = 30


class _Prose(HTMLParser):
    """Collects the text blocks of one page; `blocks` holds one line each."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self._parts: list[str] = []
        self._skipped_tag = ""
        self._skipped_depth = 0
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._skipped_depth:
            self._skipped_depth += tag == self._skipped_tag
            return
        classes = set((dict(attrs).get("class") or "").split())
        if tag in SKIPPED_TAGS or (tag == "div" and classes & SKIPPED_DIV_CLASSES):
            self._skipped_tag, self._skipped_depth = tag, 1
            return
        self._break_at(tag)
        self._preformatted += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if self._skipped_depth:
            self._skipped_depth -= tag == self._skipped_tag
            return
        self._break_at(tag)
        if tag == "pre" and self._preformatted:
            self._preformatted -= 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._skipped_depth:
            self._break_at(tag)

    def handle_data(self, data: str) -> None:
        if not self._skipped_depth:
            self._parts.append(data if self._preformatted else data.replace("\n", " "))

    def _break_at(self, tag: str) -> None:
        if tag in BLOCK_TAGS:
            self.flush()
        elif tag in ("td", "th"):
            self._parts.append(" ")

    def flush(self) -> None:
        self.blocks += "".join(self._parts).split("\n")
        self._parts.clear()


def html_blocks(page: str) -> list[str]:
    """Text blocks of an HTML page, in reading order, navigation left out."""
    parser = _Prose()
    parser.feed(page)
    parser.close()
    parser.flush()
    return parser.blocks


def jargon_blocks(text: str) -> list[str]:
    """Paragraphs of the Jargon File's plain-text layout, contents and drawings left out."""
    body = text.split("Welcome to the Jargon File", 2)[2]
    paragraphs = re.split(r"\n\s*\n", body)
    return [p.replace("\n", " ") for p in paragraphs if not BOX_DRAWING.search(p)]


def bible_blocks(jsonl: str) -> list[str]:
    """One block a chapter: the verses in order, without their numbers."""
    chapters: dict[tuple[str, int], list[str]] = {}
    for line in jsonl.splitlines():
        verse = json.loads(line)
        chapters.setdefault((verse["book"], verse["chapter"]), []).append(verse["text"].strip())
    return [" ".join(verses) for verses in chapters.values()]


def prose(blocks: Iterable[str]) -> str:
    """Plain text, one block a line: whitespace runs collapsed, repeated blocks dropped."""
    seen: set[str] = set()
    lines = []
    for block in blocks:
        line = " ".join(block.translate(PLAIN).split())
        if not LETTER.search(line) or line in seen:
            continue
        if len(line) >= MIN_REPEAT_CHARS:
            seen.add(line)
        lines.append(line)
    return "\n".join(lines) + "\n"


def plain_source(source: str) -> str:
    """A source file with its indentation, without trailing blanks."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines()) + "\n"
