"""The needle families by name: seeded facts with their sentences, questions and answers.

Owns the registry only; each family is one class in haystacks/families/.
"""

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
from haystacks.needles.latent import LatentAssociation
from haystacks.needles.multi import MultiKey, MultiQuery, MultiValue
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


def find_family(name: str) -> Family:
    """The family called `name`. Raises FamilyError with the choices if there is none."""
    if name not in FAMILIES:
        raise FamilyError(f"family: {name!r} is not one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def available_families() -> dict[str, str]:
    """Family names, each with one line on what it is."""
    return {name: family.description for name, family in FAMILIES.items()}
