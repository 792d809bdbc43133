"""Rebuilds the word lists from wonderwords' assets folder, so that they can be verified.

Run as `python haystacks/wordlists/build.py ASSETS_FOLDER`. Not used at run time.
"""

import hashlib
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
SIMPLE_WORD = re.compile(r"[a-z]{3,9}")


def split_of(word: str) -> str:
    """The split a word belongs to, by its own hash, whichever list it is in."""
    byte = hashlib.sha256(word.encode()).digest()[0]
    return "train" if byte < 128 else "eval" if byte < 216 else "filler"


def main(assets: Path) -> None:
    profane = set((assets / "profanitylist.txt").read_text().split())
    for kind in ("adjective", "noun"):
        words = set((assets / f"{kind}list.txt").read_text().splitlines()) - profane
        simple = sorted(word for word in words if SIMPLE_WORD.fullmatch(word))
        for split in ("train", "eval", "filler"):
            chosen = [word for word in simple if split_of(word) == split]
            (HERE / f"{kind}s_{split}.txt").write_text("\n".join(chosen) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
