"""Checks of options that several kinds of models have."""

from __future__ import annotations

from models.errors import ModelError


def whole_number(option: str, value: object, least: int = 1) -> int:
    """The value of an option that is a whole number. Raises: ModelError where it is not."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ModelError(f"options.{option}: got {value!r}, expected a whole number from {least}")
    return value
