"""Rebuilds the bundled text from the packages named in PROVENANCE.md, so that it can be verified.

Run as `python -m haystacks.corpora.build NAME=SOURCE[,SOURCE...] ...`, for example
`manual=/usr/share/doc/sqlite3,/usr/share/doc/jargon-text/jargon.txt.gz`. Not used at run time.
"""

import argparse
import gzip
import hashlib
import json
import lzma
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from haystacks.corpora.bundled.extract import (
    bible_blocks,
    html_blocks,
    jargon_blocks,
    plain_source,
    prose,
)
from haystacks.tokenizer import BUNDLED_FILE, train_bpe

HERE = Path(__file__).parent
INDEX = HERE / "index.json"
# Pages of SQLite's documentation that list or repeat what others say.
SQLITE_SKIPPED = (
    "crossref",
    "requirements",
    "keyword_index",
    "doclist",
    "sitemap",
    "toc",
    "syntax",
)

POSTGRESQL_SKIPPED = ("bookindex", "biblio", "legalnotice")
# Packages of the standard library beside its top-level modules; files that mention a copyright
# or a licence of their own are left out, so that the PSF licence alone applies.
PYTHON_PACKAGES = (
    *("asyncio", "collections", "concurrent/futures", "email", "http", "importlib", "json"),
    *("multiprocessing", "re", "sqlite3", "tomllib", "urllib", "zoneinfo"),
)
OWN_NOTICE = re.compile("copyright|licen[cs]e", re.IGNORECASE)


def sqlite_and_jargon(sqlite: Path, jargon: Path) -> str:
    """The training text: SQLite's documentation, then the Jargon File."""
    blocks: list[str] = []
    for page in _pages(sqlite):
        if not any(word in page.relative_to(sqlite).as_posix() for word in SQLITE_SKIPPED):
            blocks += html_blocks(_read(page))
    return prose(blocks + jargon_blocks(_read(jargon)))


def king_james(jsonl: Path) -> str:
    """The King James Bible, one chapter a line."""
    return prose(bible_blocks(_read(jsonl)))


def postgresql(folder: Path) -> str:
    """PostgreSQL's manual, pages by name."""
    blocks: list[str] = []
    for page in _pages(folder):
        if page.stem not in POSTGRESQL_SKIPPED:
            blocks += html_blocks(_read(page))
    return prose(blocks)


def python_library(library: Path) -> str:
    """Sources of CPython's standard library, as they are but for trailing blanks."""
    skipped = ("_", "chunk")  # the class in chunk.py is in wave.py too
    files = [p for p in library.glob("*.py") if not p.name.startswith(skipped)]
    for package in PYTHON_PACKAGES:
        files += (library / package).glob("*.py")
    names = sorted(p.relative_to(library).as_posix() for p in files)
    sources = (_read(library / name) for name in names)
    return "\n\n".join(plain_source(s) for s in sources if not OWN_NOTICE.search(s))


BUILDERS: dict[str, Callable[..., str]] = {
    "manual": sqlite_and_jargon,
    "kjv": king_james,
    "postgresql": postgresql,
    "python": python_library,
}


def _pages(folder: Path) -> Iterator[Path]:
    return iter(sorted(p for p in folder.rglob("*.html") if p.is_file()))


def _read(path: Path) -> str:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return data.decode("utf-8", errors="replace")


def build(name: str, sources: list[Path]) -> dict[str, object]:
    """Writes NAME.txt.xz; returns its index entry (file, sha256 of the text, characters)."""
    text = BUILDERS[name](*sources).encode()
    path = HERE / f"{name}.txt.xz"
    path.write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
    return {
        "file": path.name,
        "sha256": hashlib.sha256(text).hexdigest(),
        "characters": len(text.decode()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", nargs="+", metavar="NAME=SOURCE[,SOURCE...]")
    parser.add_argument("--bpe", action="store_true", help="train the bundled BPE on manual anew")
    index = json.loads(INDEX.read_text()) if INDEX.exists() else {}
    arguments = parser.parse_args()
    for argument in arguments.corpus:
        name, _, sources = argument.partition("=")
        if name not in BUILDERS:
            parser.error(f"corpus {name!r} is not one of {', '.join(BUILDERS)}")
        index[name] = build(name, [Path(s) for s in sources.split(",")])
        print(name, index[name])
    INDEX.write_text(json.dumps(dict(sorted(index.items())), indent=2) + "\n")
    if arguments.bpe:
        training_text = lzma.decompress((HERE / index["manual"]["file"]).read_bytes()).decode()
        train_bpe(training_text.splitlines(keepends=True)).save(str(BUNDLED_FILE))


if __name__ == "__main__":
    main()
