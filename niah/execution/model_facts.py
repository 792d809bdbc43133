"""What a worker says of its model, as plain values; the driver plans with it and loads no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from models.errors import ModelError
from models.protocols import Forks, GoldScoring, Model, RemoteModel, Session, TokenizerRef
from niah.execution.estimate import Curve, measured_curve
from niah.execution.memory import free_bytes


@dataclass(frozen=True)
class ModelFacts:
    """A `Model` without sessions.

    `curve` is None where nothing was measured. `free_bytes` is what its device has left.
    """

    name: str
    fingerprint: str
    tokenizer: TokenizerRef | None
    vocab_size: int | None
    max_position: int | None
    forks: Forks
    cache_kinds: Mapping[str, str]
    device: str
    described: Mapping[str, object]
    curve: Curve | None
    free_bytes: int

    def describe(self) -> dict[str, object]:
        return dict(self.described)

    def session(self) -> Session:
        raise ModelError(f"model {self.name}: is loaded by workers, not here")


@dataclass(frozen=True)
class ServerFacts(ModelFacts):
    """A `RemoteModel` without sessions."""

    concurrency: int = 1
    max_prompt_tokens: int | None = None
    sends_prefixes: bool = False
    reuses_prefixes: bool = True
    steps: bool = False
    gold_scoring: GoldScoring = "none"


def facts_of(model: Model, longest: int, chunk_tokens: int) -> dict[str, Any]:
    """The facts of a loaded model, ready for JSON; it is measured up to `longest` tokens."""
    curve = None if model.forks == "resend" else measured_curve(model, longest, chunk_tokens)
    facts = ModelFacts(
        name=model.name,
        fingerprint=model.fingerprint,
        tokenizer=model.tokenizer,
        vocab_size=model.vocab_size,
        max_position=model.max_position,
        forks=model.forks,
        cache_kinds=dict(model.cache_kinds),
        device=model.device,
        described=model.describe(),
        curve=curve,
        free_bytes=free_bytes(model.device) if model.device != "remote" else 0,
    )
    if isinstance(model, RemoteModel):
        served = {
            "concurrency": model.concurrency,
            "max_prompt_tokens": model.max_prompt_tokens,
            "sends_prefixes": model.sends_prefixes,
            "reuses_prefixes": model.reuses_prefixes,
            "steps": model.steps,
            "gold_scoring": model.gold_scoring,
        }
        return asdict(facts) | served
    return asdict(facts)


def parse_facts(told: Mapping[str, Any]) -> ModelFacts:
    """The facts that `facts_of` told, after they went through JSON."""
    tokenizer, curve = told["tokenizer"], told["curve"]
    fields = {
        **told,
        "tokenizer": tokenizer and TokenizerRef(*tokenizer),
        "curve": curve and Curve(*curve),
    }
    return ServerFacts(**fields) if "concurrency" in told else ModelFacts(**fields)
