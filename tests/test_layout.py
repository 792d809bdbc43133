"""Every module says what it does. `lint-imports` checks which room may import which."""

import ast
from pathlib import Path

import pytest

from tests.stubs import ROOT


def sources(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found, f"{room} holds no source"
    return found


@pytest.mark.parametrize("room", ["haystacks", "models", "niah"])
def test_every_module_says_what_it_does(room: str) -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources(room)
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent
