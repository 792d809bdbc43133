"""Endless contracts: own boilerplate with drawn parties, amounts, dates and definitions.

Not legal advice, and in no jurisdiction a sensible contract.
"""

import numpy as np

from haystacks.corpora.generated.chunks import Slots, endless_text
from haystacks.corpora.texts import Text
from haystacks.needles.base import pick, pick_distinct

KINDS = (
    "Supply Agreement",
    "Licence Agreement",
    "Lease of Premises",
    "Services Agreement",
    "Distribution Agreement",
    "Loan Agreement",
    "Non-Disclosure Agreement",
    "Maintenance Agreement",
)
SUFFIXES = ("Ltd", "LLP", "GmbH", "Holdings plc", "& Sons", "Trust", "Cooperative", "Inc.")
TERMS = (
    '"{Term}" means the {word}, the {word} and every {adjective} {word} delivered before {date}.',
    '"{Term}" means any {word} which {a} has marked as {adjective} in writing.',
    '"{Term}" has the meaning given to it in Schedule {few}, as amended on {date}.',
    '"{Term}" means the sum of {amount} euros, adjusted by {percent} per cent a year.',
    '"{Term}" means a period of {few} days that begins on the day after the {word} is received.',
)
CLAUSES: dict[str, tuple[str, ...]] = {
    "Payment": (
        "{b} shall pay {amount} euros within {few} days of the receipt of a valid invoice.",
        "A late payment bears interest at {percent} per cent a year from the day it fell due.",
        "{b} may withhold the part of an invoice that it disputes in good faith.",
        "All sums exclude taxes, which {b} shall bear in addition where the law so requires.",
        "The price of each {word} shall be reviewed on {date} and every {few} months thereafter.",
    ),
    "Term and Termination": (
        "This Agreement begins on {date} and continues for {few} years unless ended earlier.",
        "Either party may end it by giving {few} weeks' notice in writing.",
        "{a} may end it at once if {b} fails to remedy a material breach within {few} days.",
        "On termination every {word} shall be returned to {a} in {adjective} condition.",
        "Clauses {few} and {few} survive the end of this Agreement for whatever reason.",
    ),
    "Delivery": (
        "{a} shall deliver the {word} to the premises of {b} no later than {date}.",
        "Risk in the {word} passes on delivery; title passes on payment in full.",
        "{b} shall inspect each {word} within {few} days and give notice of any defect.",
        "A delivery of up to {percent} per cent more or less than was ordered is accepted.",
    ),
    "Confidentiality": (
        "Neither party shall disclose the {adjective} {word} of the other to any third person.",
        "This does not apply to what was public before {date} or was independently developed.",
        "{b} shall keep no more than {few} copies and shall destroy them on request.",
        "A disclosure required by a court is permitted to the extent of the requirement.",
    ),
    "Liability": (
        "The liability of {a} is limited to {amount} euros for each event and in total.",
        "Neither party is liable for loss of profit, of goodwill or of any {word}.",
        "Nothing here limits liability for death, personal injury or fraud.",
        "{b} shall insure the {word} for not less than {amount} euros until {date}.",
    ),
    "Force Majeure": (
        "A party is not in breach while a {word}, a {word} or an act of government prevents it.",
        "It shall give notice within {few} days and resume performance as soon as it can.",
        "If the event lasts longer than {few} weeks, either party may end this Agreement.",
    ),
    "Assignment": (
        "{b} shall not assign this Agreement without the consent of {a}, given in writing.",
        "{a} may subcontract the {adjective} work but remains liable for its performance.",
        "This Agreement binds the successors of {a} and of {b}.",
    ),
    "Notices": (
        "A notice shall be in writing and is deemed received {few} days after it was posted.",
        "Notices to {a} shall be sent to {many} {Word} Street, marked for the {word} manager.",
        "Notices to {b} shall be sent to {many} {Word} Lane, with a copy to its solicitor.",
    ),
    "Governing Law": (
        "This Agreement is governed by the law of the place where {a} has its seat.",
        "The courts of {Word}ton have exclusive jurisdiction over every dispute.",
        "The parties shall first attempt mediation for a period of {few} days.",
    ),
    "General": (
        "No amendment is effective unless it is in writing and signed by both parties.",
        "If a provision is void, the remainder of this Agreement stays in force.",
        "A failure to exercise a right on {date} is not a waiver of it.",
        "This Agreement may be signed in {few} counterparts, which together are one document.",
        "Headings are for convenience only and do not affect the reading of a {word}.",
    ),
}
NUM_TERMS = 6


def legal() -> Text:
    """The corpus "legal"."""
    return endless_text("legal", "legal text: generated contracts", contract)


def contract(rng: np.random.Generator) -> str:
    """One contract of some 6,000 characters, a numbered clause a line."""
    slots = Slots(rng)
    kind = pick(rng, KINDS)
    a, b = (f"{slots.name()} {pick(rng, SUFFIXES)}" for _ in range(2))
    lines = [
        f"{kind.upper()} NO. {slots['hex']}",
        f"This {kind} is made on {slots.date()} between {a} and {b}.",
        "1. Definitions",
    ]
    for number in range(1, NUM_TERMS + 1):
        lines.append(f"1.{number} {_fill(pick(rng, TERMS), rng, a, b)}")
    for section, title in enumerate(pick_distinct(rng, tuple(CLAUSES), len(CLAUSES)), start=2):
        lines.append(f"{section}. {title}")
        clauses = pick_distinct(rng, CLAUSES[title], len(CLAUSES[title]))
        lines += [
            f"{section}.{number} {_fill(clause, rng, a, b)}"
            for number, clause in enumerate(clauses, start=1)
        ]
    return "\n".join(lines) + f"\nSigned for {a} and for {b} on {slots.date()}.\n"


def _fill(template: str, rng: np.random.Generator, a: str, b: str) -> str:
    slots = Slots(rng)
    drawn = {"a": a, "b": b, "Term": slots.name(), "Word": slots.word().title()}
    return template.format_map(Slots(rng, drawn))
