"""The option `press` with a class of kvpress: a fake package stands for it."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any

import pytest

from models.errors import ModelError
from models.presses.options import pressing
from tests.models.presses import fake_kvpress


@pytest.fixture
def kvpress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kvpress", fake_kvpress)


@pytest.mark.usefixtures("kvpress")
def test_settings_hold_every_option_and_the_release() -> None:
    found = pressing({"name": "kvpress.WindowPress", "keep": 0.25, "window_size": 7, "scale": 2})
    assert found is not None
    assert found.settings() == {
        "name": "kvpress.WindowPress",
        "keep": 0.25,
        "kvpress": None,  # not installed as a package
        "window_size": 7,
        "scale": 2,
        "loud": False,
    }
    assert found.press.made.compression_ratio == 0.75  # type: ignore[attr-defined]
    assert found.needs.inputs
    assert not found.needs.queries


SERVED = "served are KnormPress, RandomPress, WindowPress"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "kvpress.WindowPres", "keep": 1},
     "options.press.name: got 'kvpress.WindowPres', expected a scorer of kvpress such as "
     "kvpress.WindowPress"),
    ({"name": "kvpress.", "keep": 1}, "such as kvpress.KnormPress, kvpress.RandomPress, kvpress."),
    ({"name": "kvpress.MaskPress", "keep": 1}, SERVED),
    ({"name": "kvpress.BudgetPress", "keep": 1}, SERVED),
    ({"name": "kvpress.ScorerPress", "keep": 1}, SERVED),
    ({"name": "kvpress.ObservedAttentionPress", "keep": 1}, SERVED),
    ({"name": "kvpress.KnormPress"}, "options.press.keep: got None, expected a share above 0"),
    ({"name": "kvpress.KnormPress", "keep": 0.5, "compression_ratio": 0.5},
     "options.press: got 'compression_ratio', but kvpress.KnormPress takes keep"),
    ({"name": "kvpress.WindowPress", "keep": 0.5, "window": 3},
     "options.press: got 'window', but kvpress.WindowPress takes keep, window_size, scale, loud"),
    ({"name": "kvpress.WindowPress", "keep": 0.5, "window_size": 2.5},
     "options.press.window_size: got 2.5, expected a whole number"),
    ({"name": "kvpress.WindowPress", "keep": 0.5, "loud": 1},
     "options.press.loud: got 1, expected true or false"),
    ({"name": "kvpress.WindowPress", "keep": 0.5, "scale": "x"},
     "options.press.scale: got 'x', expected a number"),
    ({"name": "kvpress.RandomPress", "keep": 0.5, "seed": "x"},
     "options.press.seed: got 'x', expected a number"),
    ({"name": "kvpress.WindowPress", "keep": 0.5, "window_size": 500},
     "options.press: kvpress.WindowPress cannot be made with {'window_size': 500}: a window below"),
]  # fmt: skip


@pytest.mark.usefixtures("kvpress")
@pytest.mark.parametrize(("option", "told"), WRONG)
def test_what_does_not_fit_is_refused_in_one_line(option: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelError, match=r"^options\.press[^\n]*$") as caught:
        pressing(option)
    assert told in str(caught.value)


class Failing(MetaPathFinder):
    """Raises instead of finding kvpress."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "kvpress":
            raise self.error


@pytest.fixture
def failing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "kvpress", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Failing(request.param), *sys.meta_path])


ABSENT = ModuleNotFoundError("No module named 'kvpress'", name="kvpress")
MOVED = ImportError("cannot import name 'X' from 'transformers'\nmore")
LACKING = ModuleNotFoundError("No module named 'nltk'", name="nltk")


@pytest.mark.parametrize(
    ("failing", "told"),
    [
        (ABSENT, "which needs the package kvpress: install it"),
        (MOVED, r"but kvpress cannot be imported \(ImportError: cannot import name 'X'"),
        (LACKING, r"but kvpress cannot be imported \(ModuleNotFoundError: No module named 'nltk'"),
    ],
    indirect=["failing"],
)
@pytest.mark.usefixtures("failing")
def test_without_kvpress_or_what_it_wants(told: str) -> None:
    with pytest.raises(ModelError, match=f"^options.press.name: got '[^\n]*{told}[^\n]*$"):
        pressing({"name": "kvpress.KnormPress", "keep": 0.5})
