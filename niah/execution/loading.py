"""Loads what a sweep names: models, one tokenizer, corpora, families; each once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from haystacks.corpora.registry import load_corpus
from haystacks.needles.own_file import FileFamily
from haystacks.needles.registry import find_family
from haystacks.tokenizer import Tokenizer, load_tokenizer
from models.errors import ModelError
from models.protocols import Model, TokenizerRef
from niah.errors import PlanError
from niah.sweep.config import Arm, SessionUse, Sweep, check_threads
from niah.sweep.grid import longest_prompt
from niah.sweep.planner import Materials
from niah.sweep.trials import digest

LoadModel = Callable[[Arm, Sweep], Model]


@dataclass(frozen=True)
class Bench:
    """Everything a sweep needs, loaded; `models` and `sessions` (their use) by arm."""

    models: Mapping[str, Model]
    materials: Materials
    sessions: Mapping[str, SessionUse] = field(default_factory=dict)

    @property
    def fingerprints(self) -> dict[str, str]:
        """By arm: the model's, and the use of its session."""
        plain = SessionUse()
        return {
            arm: arm_fingerprint(model, self.sessions.get(arm, plain))
            for arm, model in self.models.items()
        }

    def identity(self) -> dict[str, Any]:
        """What answers depend on beyond the sweep: a run is resumed with the same only."""
        materials = self.materials
        files = {
            name: family.fingerprint
            for name, family in materials.families.items()
            if isinstance(family, FileFamily)
        }
        return {
            "models": self.fingerprints,
            "tokenizer_name": materials.tokenizer.name,
            "tokenizer": materials.tokenizer.fingerprint,
            "corpora": {name: corpus.fingerprint for name, corpus in materials.corpora.items()},
            **({"families": files} if files else {}),
        }


def arm_fingerprint(model: Model, use: SessionUse) -> str:
    """What decides an arm's answers: the model, and what is done to its sessions."""
    done = use.model_dump(exclude_defaults=True)
    return digest([model.fingerprint, done]) if done else model.fingerprint


def load_arm(arm: Arm, sweep: Sweep) -> Model:
    """The arm's model from the registry, imported on use."""
    from models.registry import load_model

    check_threads(sweep.threads)
    try:
        return load_model(arm.model, arm.options, threads=sweep.threads)
    except ModelError as error:
        error.args = (f"arm {arm.name}: {error}",)
        raise


def load_bench(sweep: Sweep, load: LoadModel = load_arm) -> Bench:
    """Load what `sweep` names. Raises: ValueError naming what does not exist or does not match."""
    for name in sweep.families:
        find_family(name, sweep.folder)  # a wrong name is told before models are loaded
    models = {arm.name: load(arm, sweep) for arm in sweep.arms}
    sessions = {arm.name: arm.session for arm in sweep.arms}
    return Bench(models, load_materials(sweep, shared_tokenizer(models)), sessions)


def load_materials(sweep: Sweep, tokenizer: Tokenizer) -> Materials:
    """The families and corpora of `sweep`. Raises as `load_bench`."""
    families = {name: find_family(name, sweep.folder) for name in sweep.families}
    longest = longest_prompt(sweep)
    corpora = {name: load_corpus(name, tokenizer, longest_prompt=longest) for name in sweep.corpora}
    return Materials(tokenizer, corpora, families)


def tokenizer_of(model: Model, ref: TokenizerRef) -> Tokenizer:
    """The model's own, where a server is asked for it, else the one of that name."""
    own: Tokenizer | None = getattr(model, "own_tokenizer", None)
    return own or load_tokenizer(ref.name)


def shared_tokenizer(models: Mapping[str, Model]) -> Tokenizer:
    """The tokenizer of all arms: rows pair only where the tokens are the same.

    Two names are one tokenizer where their fingerprints are equal.
    """
    refs = {arm: model.tokenizer for arm, model in models.items() if model.tokenizer}
    if not refs:
        raise PlanError("arms: no arm says which tokenizer its ids belong to")
    loaded = {arm: tokenizer_of(models[arm], ref) for arm, ref in refs.items()}
    tokenizer = next(iter(loaded.values()))
    if any(other.fingerprint != tokenizer.fingerprint for other in loaded.values()):
        told = ", ".join(f"{arm} reads {ref.name}" for arm, ref in refs.items())
        raise PlanError(f"arms: all should read the same tokens, but {told}")
    for arm, ref in refs.items():
        if ref.fingerprint not in (None, tokenizer.fingerprint):
            raise PlanError(
                f"arms: {arm} was trained with tokenizer {ref.fingerprint}, "
                f"but {tokenizer.name} is {tokenizer.fingerprint}"
            )
    return tokenizer
