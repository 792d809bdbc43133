"""Reads single fields of a `config.json`; whatever is missing or odd is named with its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import ModelError


class Fields:
    """The fields of one file.

    Every method raises ModelError for a field of the wrong kind; those without a default also for
    a missing one.
    """

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        self.values = values
        self.place = place

    def count(self, *names: str, least: int = 1) -> int:
        """A whole number under the first of `names` that is there."""
        for name in names:
            if self.values.get(name) is not None:
                value = self.values[name]
                if not isinstance(value, int) or isinstance(value, bool) or value < least:
                    raise self.error(f"{name}: got {value!r}, expected a whole number >= {least}")
                return value
        raise self.error(f"field {' or '.join(names)} is missing")

    def count_or(self, name: str, default: int, least: int = 1) -> int:
        """A whole number, or what the format derives where it is left out or null."""
        return default if self.values.get(name) is None else self.count(name, least=least)

    def count_or_null(self, name: str) -> int:
        """A field that has to be there: a whole number, or null for none, 0."""
        if name not in self.values:
            raise self.error(f"field {name} is missing (null for none)")
        return self.count_or(name, 0, least=0)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.error(f"{name}: got {value!r}, expected true or false")
        return default if value is None else value

    def window(self, name: str) -> int | None:
        """A field that has to be there: tokens, or null where there is no window."""
        if name not in self.values:
            raise self.error(f"field {name} is missing (null where there is no window)")
        return None if self.values[name] is None else self.count(name)

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, str):
            raise self.error(
                f"field {name} is missing"
                if value is None
                else f"{name}: got {value!r}, expected text"
            )
        return value

    def indices(self, name: str) -> list[int]:
        """Numbers of layers; none where it is left out."""
        value = self.values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(index, int) for index in value):
            raise self.error(f"{name}: got {value!r}, expected a list of layers' numbers")
        return value

    def per_layer(self, name: str, known: tuple[str, ...], layers: int) -> list[str] | None:
        """A word for each layer, each among `known`; None where it is left out."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) < layers:
            raise self.error(f"{name}: got {value!r}, expected a list of {layers} layers")
        unknown = sorted({str(word) for word in value} - set(known))
        if unknown:
            raise self.error(f"{name}: got {', '.join(unknown)}, expected {', '.join(known)}")
        return [str(word) for word in value[:layers]]

    def error(self, reason: str) -> ModelError:
        return ModelError(f"{self.place}: {reason}")


def read_fields(path: Path) -> Fields:
    """The fields of a `config.json`.

    Raises:
        ModelError: no such file, or no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ModelError(f"{path}: no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path}: got {type(values).__name__}, expected a JSON object")
    return Fields(values, str(path))
