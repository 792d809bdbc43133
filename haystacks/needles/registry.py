"""The needle families by name: one class each in haystacks/needles/, or a file of the user's.

A package of one's own adds a `Family` under its name by the entry point group `niah.needles`.
"""

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from haystacks.needles.base import (
    AnswerMode,
    Fact,
    Family,
    FamilyError,
    TemplateSplit,
    ValueSplit,
)
from haystacks.needles.chains import UuidChain, VariableTracking, VariableValue
from haystacks.needles.chat import NthAsk
from haystacks.needles.counting import CommonWords, FrequentWords
from haystacks.needles.documents import AgentLogFact, CodeDeclaration, ContractClause
from haystacks.needles.imported import mrcr_fact, ruler_fact
from haystacks.needles.latent import LatentAssociation
from haystacks.needles.multi import MultiKey, MultiQuery, MultiValue
from haystacks.needles.own_file import Reader, own_fact, read_family
from haystacks.needles.single import SingleNumber, SingleUuid, SingleWord

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

FAMILIES: dict[str, Family] = {
    "single_number": SingleNumber(),
    "single_word": SingleWord(),
    "single_uuid": SingleUuid(),
    "multi_key": MultiKey(),
    "multi_value": MultiValue(),
    "multi_query": MultiQuery(),
    "variable_tracking": VariableTracking(),
    "variable_value": VariableValue(),
    "uuid_chain": UuidChain(),
    "common_words": CommonWords(),
    "frequent_words": FrequentWords(),
    "latent_association": LatentAssociation(),
    "nth_ask": NthAsk(),
    "contract_clause": ContractClause(),
    "code_declaration": CodeDeclaration(),
    "agent_log_fact": AgentLogFact(),
}


ENTRY_POINTS = "niah.needles"
FILE_FORMATS: dict[str, Reader] = {"needles": own_fact, "ruler": ruler_fact, "mrcr": mrcr_fact}
FORMS = {
    "file:PATH": "a JSONL file: fact, question, answer on each line",
    "file:PATH?format=ruler": "the needles of a file of RULER's niah tasks",
    "file:PATH?format=mrcr": "the repeated requests of a file of MRCR",
}


def find_family(name: str, folder: Path = Path()) -> Family:
    """The family called `name`, or that of a file, whose relative path begins at `folder`.

    Raises FamilyError with the choices if there is none, or with the line that is wrong.
    """
    form, _, rest = name.partition(":")
    if form == "file" and rest:
        path, _, file_format = rest.partition("?format=")
        if (file_format or "needles") not in FILE_FORMATS:
            known = ", ".join(FILE_FORMATS)
            raise FamilyError(f"family: {name!r}: format {file_format!r} is not one of {known}")
        return read_family(name, path, FILE_FORMATS[file_format or "needles"], folder)
    known_families = {**_installed(), **FAMILIES}
    if name not in known_families:
        choices = ", ".join([*known_families, *FORMS])
        raise FamilyError(f"family: {name!r} is not one of {choices}")
    return known_families[name]


def available_families() -> dict[str, str]:
    """Family names and forms of names, each with one line on what it is."""
    families = {**_installed(), **FAMILIES}
    return {name: family.description for name, family in families.items()} | FORMS


@cache
def _installed() -> dict[str, Family]:
    """Families of other packages. Raises FamilyError where one cannot be imported or is none."""
    found: dict[str, Family] = {}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            family = point.load()
        except Exception as error:
            raise FamilyError(
                f"entry point {point.name} = {point.value} of {ENTRY_POINTS} cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(family, Family):
            raise FamilyError(
                f"entry point {point.name} = {point.value} of {ENTRY_POINTS} is a "
                f"{type(family).__name__}; it should be a haystacks.needles.base.Family"
            )
        found[point.name] = family
    return found
