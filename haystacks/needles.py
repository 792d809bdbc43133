"""The needle families by name: seeded facts with their sentences, questions and answers.

Owns the registry only; each family is one class in haystacks/families/.
"""

from haystacks.families.base import (
    AnswerMode,
    Fact,
    Family,
    FamilyError,
    TemplateSplit,
    ValueSplit,
)
from haystacks.families.single import SingleNumber

__all__ = [
    "FAMILIES",
    "AnswerMode",
    "Fact",
    "Family",
    "FamilyError",
    "TemplateSplit",
    "ValueSplit",
    "available_families",
    "find_family",
]

FAMILIES: dict[str, Family] = {family.name: family for family in (SingleNumber(),)}


def find_family(name: str) -> Family:
    """The family called `name`. Raises FamilyError with the choices if there is none."""
    if name not in FAMILIES:
        raise FamilyError(f"family: {name!r} is not one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def available_families() -> dict[str, str]:
    """Family names, each with one line on what it is."""
    return {name: family.description for name, family in FAMILIES.items()}
