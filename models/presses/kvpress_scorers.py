"""Presses of kvpress, where it is installed: `press: {name: kvpress.SnapKVPress, keep: 0.5}`.

Devoto et al. 2025, arXiv:2510.00636, section 4; github.com/NVIDIA/kvpress. Its presses hook the
attention layers while a context is read in one piece. Its scorers need what the layers were given
only when that is done: here `score` of such a class is asked once, when the context has ended, with
what its hook would have seen. How many tokens are kept is decided here (`contract.kept_tokens`).
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from difflib import get_close_matches
from typing import Any, ClassVar

import torch
from torch import Tensor

from models.errors import ModelError
from models.presses.contract import Past, Press
from models.presses.observed import Needs

PREFIX = "kvpress."
RATIO = "compression_ratio"  # of kvpress: the share that is dropped
OWN_WORK = ("compress", "forward_hook", "__call__", "post_init_from_model")
"""Methods that only those classes write anew that do more than score."""

UNSERVED = ("ObservedAttentionPress",)  # wants all attention weights of a layer at once

PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class KvpressScorer(Press):
    """A scorer of kvpress. A class that draws random numbers draws the same ones each time."""

    made: Any

    name: ClassVar[str] = "kvpress"

    @property
    def class_name(self) -> str:
        """As it stands in the option."""
        return PREFIX + type(self.made).__name__

    @property
    def needs(self) -> Needs:
        return Needs(inputs=True)

    def settings(self) -> dict[str, object]:
        options = {option.name: getattr(self.made, option.name) for option in _options(self.made)}
        return {"name": self.class_name, "keep": self.keep, "kvpress": _release(), **options}

    def scores(self, past: Past) -> Tensor:
        """Raises: ModelError, where the class cannot score the context."""
        assert past.inputs is not None
        layer, hidden, cos, sin = past.inputs
        given = {"position_embeddings": (cos, sin)}
        try:
            with torch.random.fork_rng():
                torch.manual_seed(past.layer)
                scores: Tensor = self.made.score(
                    layer, hidden, past.keys[None], past.values[None], None, given
                )[0]
        except Exception as error:  # whatever a class of kvpress raises
            reason = str(error).partition("\n")[0]
            raise ModelError(
                f"press: {self.class_name} cannot score {past.tokens} tokens from hidden states, "
                f"keys, values and positions ({type(error).__name__}: {reason})"
            ) from None
        if scores.shape != past.keys.shape[:2]:
            raise ModelError(
                f"press: {self.class_name} gives scores of shape {list(scores.shape)}, "
                f"expected {list(past.keys.shape[:2])}"
            )
        return scores


def scorer(name: str, keep: float, given: Mapping[str, object]) -> KvpressScorer:
    """The class `name` of kvpress, made with the options `given`.

    Raises:
        ModelError: kvpress is not installed, the class is unknown or does more than score, or an
            option does not fit.
    """
    kvpress = _package(name)
    classes = served(kvpress)
    kind = classes.get(name.removeprefix(PREFIX))
    if kind is None:
        raise ModelError(f"options.press.name: got {name!r}, {_instead(name, kvpress, classes)}")
    known = {option.name: option for option in _options(kind)}
    for option, value in given.items():
        if option not in known:
            takes = ", ".join(("keep", *known))
            raise ModelError(f"options.press: got {option!r}, but {name} takes {takes}")
        _check(known[option], value)
    try:
        return KvpressScorer(keep, kind(**{RATIO: 1 - keep, **given}))
    except Exception as error:  # assertions on values, mostly
        reason = str(error).partition("\n")[0]
        told = f"options.press: {name} cannot be made with {dict(given)}: {reason}"
        raise ModelError(told) from None


def _package(name: str) -> Any:
    try:
        return importlib.import_module("kvpress")
    except ModuleNotFoundError as error:
        if error.name != "kvpress":
            raise _broken(name, error) from None
    except Exception as error:  # it looks into transformers when it is imported
        raise _broken(name, error) from None
    raise ModelError(
        f"options.press.name: got {name!r}, which needs the package kvpress: install it beside "
        "the harness in an environment of its own (kvpress 0.5.5 wants transformers below 5.3 "
        "and pandas below 3)"
    )


def _broken(name: str, error: Exception) -> ModelError:
    reason = str(error).partition("\n")[0]
    return ModelError(
        f"options.press.name: got {name!r}, but kvpress cannot be imported "
        f"({type(error).__name__}: {reason}): see which transformers and pandas it wants"
    )


def served(kvpress: Any) -> dict[str, Any]:
    """The classes that score and do nothing else, by name."""
    found = {name: getattr(kvpress, name) for name in sorted({*kvpress.__all__} - {*UNSERVED})}
    return {name: kind for name, kind in found.items() if _only_scores(kind, kvpress)}


def _only_scores(kind: Any, kvpress: Any) -> bool:
    base = kvpress.ScorerPress
    return (
        isinstance(kind, type)
        and issubclass(kind, base)
        and kind is not base
        and all(getattr(kind, work) is getattr(base, work) for work in OWN_WORK)
        and all(_has_default(option) for option in fields(kind))
    )


def _has_default(option: Field[Any]) -> bool:
    return option.default is not MISSING or option.default_factory is not MISSING


def _options(kind: Any) -> list[Field[Any]]:
    """What may be given to a class beside the share that it drops."""
    return [
        option
        for option in fields(kind)
        if option.init
        and not option.name.startswith("_")
        and option.name != RATIO
        and isinstance(option.default, PLAIN)
    ]


def _instead(name: str, kvpress: Any, classes: Mapping[str, Any]) -> str:
    asked = name.removeprefix(PREFIX)
    if asked in kvpress.__all__:
        names = ", ".join(classes)
        return f"which needs more than states, keys and positions; served are {names}"
    near = get_close_matches(asked, classes, n=3) or list(classes)
    return f"expected a scorer of kvpress such as {', '.join(PREFIX + each for each in near)}"


def _check(option: Field[Any], value: object) -> None:
    """A number where the default is none, a whole one where it is whole, and so on."""
    default = option.default
    whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, str):
        fits, wanted = isinstance(value, str), "a text"
    elif isinstance(default, int):
        fits, wanted = whole, "a whole number"
    else:  # None, too: such as a seed
        fits, wanted = whole or isinstance(value, float), "a number"
    if not fits:
        raise ModelError(f"options.press.{option.name}: got {value!r}, expected {wanted}")


def _release() -> str | None:
    """None where it is not installed as a package."""
    try:
        return importlib.metadata.version("kvpress")
    except importlib.metadata.PackageNotFoundError:
        return None
