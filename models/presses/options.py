"""The option `press` of an arm: `{name: snapkv, keep: 0.25}`, with the options of that press.

`{name: kvpress.SnapKVPress, keep: 0.25}` takes a scorer of kvpress (`kvpress_scorers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any

from models.errors import ModelError
from models.options import whole_number
from models.presses.contract import Press
from models.presses.expected_attention import ExpectedAttention
from models.presses.h2o import H2O
from models.presses.knorm import KNorm
from models.presses.kvpress_scorers import PREFIX, scorer
from models.presses.observed import Needs
from models.presses.quest import Quest
from models.presses.random_control import Random
from models.presses.snapkv import SnapKV
from models.presses.streaming_llm import StreamingLLM
from models.presses.tova import Tova

PRESSES: dict[str, type[Press]] = {
    press.name: press
    for press in (StreamingLLM, SnapKV, H2O, Tova, KNorm, ExpectedAttention, Quest, Random)
}
SEES_QUESTION = "sees_question"
EXAMPLE = "{name: snapkv, keep: 0.25}"
LEAST = {"sinks": 0, "seed": 0, "dense_layers": 0}
"""Of options that may be smaller than 1."""


@dataclass(frozen=True)
class Pressing:
    """A press, and when it works: at the context's end, or the question's (`sees_question`)."""

    press: Press
    sees_question: bool = False

    @property
    def needs(self) -> Needs:
        return self.press.needs

    def settings(self) -> dict[str, object]:
        """All that decides answers, ready for JSON."""
        seen = {SEES_QUESTION: True} if self.sees_question else {}
        return self.press.settings() | seen


def pressing(option: object) -> Pressing | None:
    """What the option `press` asks for; None where it is absent.

    Raises:
        ModelError: no such press, or an option that it does not take or that does not fit.
    """
    if option is None:
        return None
    if not isinstance(option, Mapping) or "name" not in option:
        raise ModelError(f"options.press: got {option!r}, expected a mapping such as {EXAMPLE}")
    name = str(option["name"])
    given = {key: value for key, value in option.items() if key not in ("name", SEES_QUESTION)}
    seen = option.get(SEES_QUESTION, False)
    if not isinstance(seen, bool):
        raise ModelError(f"options.press.{SEES_QUESTION}: got {seen!r}, expected true or false")
    keep = _keep(given.pop("keep", None))
    press = scorer(name, keep, given) if name.startswith(PREFIX) else _own(name, keep, given)
    if seen and not press.evicts:
        raise ModelError(
            f"options.press.{SEES_QUESTION}: {press.name} chooses at each query; leave it out"
        )
    return Pressing(press, seen)


def _own(name: str, keep: float, given: Mapping[str, Any]) -> Press:
    """A press of this package with its options. Raises: ModelError."""
    kind = PRESSES.get(name)
    if kind is None:
        names = ", ".join((*PRESSES, f"{PREFIX}NAME"))
        raise ModelError(f"options.press.name: got {name!r}, expected one of {names}")
    known = {each.name: each for each in fields(kind)}
    for option, value in given.items():
        if option not in known:
            takes = ", ".join((*known, SEES_QUESTION))
            raise ModelError(f"options.press: got {option!r}, but {kind.name} takes {takes}")
        _check_number(known[option], value)
    return kind(keep=keep, **given)


def _keep(value: object) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < float(value) <= 1:  # type: ignore[arg-type]
        raise ModelError(f"options.press.keep: got {value!r}, expected a share above 0, at most 1")
    return float(value)  # type: ignore[arg-type]


def _check_number(option: Field[Any], value: object) -> None:
    least = LEAST.get(option.name, 1)
    number = whole_number(f"press.{option.name}", value, least)
    if option.name == "kernel" and number % 2 == 0:
        raise ModelError(f"options.press.kernel: got {value!r}, expected an odd number")
