"""`niah ARGUMENTS` in this process."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from niah.cli import main as cli


class Called(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Called]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def called(*arguments: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["niah", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return Called(code if isinstance(code, int) else 0, *capsys.readouterr())

    return called
