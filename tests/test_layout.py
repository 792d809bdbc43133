"""The arrows between the rooms: haystacks and models know neither each other nor the experiment."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "haystacks": {"torch", "models", "niah"},
    "models": {"haystacks", "niah"},
    "niah": {"tests"},
}
UNSAFE = {"pickle", "marshal", "shelve", "dill", "joblib"}


def imported(path: Path) -> Iterator[str]:
    """Top-level names of every import in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0]


def sources(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found, f"{room} holds no source"
    return found


@pytest.mark.parametrize("room", FORBIDDEN)
def test_rooms_import_only_what_they_may_know(room: str) -> None:
    crossed = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(room)
        for name in imported(path)
        if name in FORBIDDEN[room] | UNSAFE
    }
    assert not crossed


@pytest.mark.parametrize("room", FORBIDDEN)
def test_every_module_says_what_it_owns(room: str) -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources(room)
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent
