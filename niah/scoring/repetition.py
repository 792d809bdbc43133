"""Finds answers that end in a loop: one value, phrase or character again and again."""

import re
from collections.abc import Sequence

TIMES = 3  # a unit said three times in a row is a loop
MIN_CHARACTERS = 20  # of a loop without spaces: "33333" is a number
LONGEST_UNIT = 60  # words, or characters where there are no spaces
WORD = re.compile(r"\S+")


def first_round(text: str) -> str:
    """The text up to the end of the first round of its loop; all of it where there is none."""
    words = list(WORD.finditer(text))
    start, size = loop([bare(word[0]) for word in words])
    return text[: words[start + size - 1].end()] if size else text


def loops(text: str) -> bool:
    """Whether at least half of the text is a loop that goes on to its end."""
    if loop([bare(word) for word in text.split()])[1]:
        return True
    text = text.strip()
    start, size = loop(text)
    return bool(size) and len(text) - start >= max(MIN_CHARACTERS, (TIMES + 1) * size)


def loop(units: Sequence[str]) -> tuple[int, int]:
    """Where a loop to the end begins and the size of its unit; (0, 0) where there is none.

    The last unit may be cut off.
    """
    for size in range(1, min(LONGEST_UNIT, len(units) // TIMES) + 1):
        start = len(units) - size
        while start and agrees(units, start - 1, size):
            start -= 1
        if len(units) - start >= TIMES * size and start <= len(units) / 2:
            return start, size
    return 0, 0


def agrees(units: Sequence[str], at: int, size: int) -> bool:
    """Whether a unit comes again one round later; the very last may be cut short."""
    again = at + size
    last = again == len(units) - 1
    return units[again] == units[at] or (last and units[at].startswith(units[again]))


def bare(word: str) -> str:
    """A word without the punctuation around it, unless it is nothing else."""
    return word.casefold().strip(".,;:!?*\"'`()[]") or word
