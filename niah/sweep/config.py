"""The sweep's configuration: what a YAML file may say, and one line for what is wrong.

Models, corpora and families are names here; `planner` and `execution` check that they exist.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from haystacks.corpora.external import resolve_name
from niah.errors import FileError, SpecError
from niah.files import read_yaml
from niah.text_format import counted

Role = Literal["baseline", "compressed", "repeat", "retrained"]
Layout = Literal["stream", "isolated"]
Templates = Literal["trained", "unseen"]
Control = Literal["no_needle", "question_only"]

THREADS_PER_CORE = 4
UNITS = {"": 1, "K": 1024, "M": 1024**2}


def parse_length(value: object) -> object:
    """`32K` or `32k` -> 32768; anything but text is left to pydantic."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"([0-9]+)([KM]?)", value.strip().upper())
    if not found:
        raise ValueError("should be a count of tokens, such as 4096 or 4K (K = 1024, M = 1024 K)")
    return int(found[1]) * UNITS[found[2]]


def as_tuple(value: object) -> object:
    """A single entry stands for a list of one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def spread_depths(value: object) -> object:
    """A count n stands for n depths evenly from 0 to 1."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 2:
        return tuple(round(i / (value - 1), 6) for i in range(value))
    if not isinstance(value, list | tuple):
        raise ValueError("should be a count of at least 2, or a list of shares from 0 to 1")
    return tuple(value)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Length = Annotated[int, BeforeValidator(parse_length), Field(ge=16)]
Depth = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Owner = TypeVar("Owner", bound=BaseModel)
Option = JsonValue  # a server's options hold mappings and lists


class Strict(BaseModel):
    """Nothing is coerced: `true` is no number and '5' is none. A YAML list is a tuple here."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SessionUse(Strict):
    """What happens to a session before its question is asked. A right cache answers the same.

    `decode_tail`: so many last tokens of the context are read one at a time, as in decoding.
    `question_before`: another question is answered on the same prefix first. `sibling_tokens`:
    after the fork another fork of the same prefix reads so many tokens and answers first.
    """

    decode_tail: int = Field(default=0, ge=0, le=65536)
    question_before: bool = False
    sibling_tokens: int = Field(default=0, ge=0, le=65536)

    @property
    def reuses_a_prefix(self) -> bool:
        return bool(self.decode_tail or self.question_before or self.sibling_tokens)


class Arm(Strict):
    """A model under test; every arm of a sweep answers the same questions about the same tokens.

    `repeat` is the baseline once more: how far two runs of the same differ is the noise floor.
    `retrained` is a model trained as the baseline from another seed: the luck of training.
    `technique` is a label: a report draws the arms of one technique in one colour.
    """

    name: Name
    role: Role
    model: str
    technique: str = ""
    options: dict[str, Option] = Field(default_factory=dict)
    session: SessionUse = Field(default_factory=SessionUse)


class DecodingFields(Strict):
    """Greedy always; `max_new_tokens` defaults to the gold answer's tokens and a margin."""

    max_new_tokens: int | None = Field(default=None, ge=1)


class PromptFormat(Strict):
    """What stands around the haystack: a plain text that goes on, or a user's turn of a chat.

    `answer_prefix`: the answer begins with the planted statement up to its value, which measures
    what the cache holds rather than how a model obeys (RULER's answer prefix, arXiv:2404.06654).
    """

    kind: Literal["completion", "chat"] = "completion"
    instruction: str = ""
    system: str = ""
    answer_prefix: bool = True

    @model_validator(mode="after")
    def system_needs_a_chat(self) -> "PromptFormat":
        if self.system and self.kind != "chat":
            raise ValueError("system should be left out unless kind is chat")
        return self


class Phase(Strict):
    """Residues to visit: a length or a needle's start modulo `modulus` takes each of them."""

    modulus: int = Field(ge=2, le=4096)
    residues: tuple[int, ...] = Field(default=(), strict=False)

    @model_validator(mode="before")
    @classmethod
    def all_residues(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("modulus"), int):
            data = {"residues": list(range(min(data["modulus"], 4096))), **data}
        return data

    @model_validator(mode="after")
    def residues_in_range(self) -> "Phase":
        outside = [r for r in self.residues if not 0 <= r < self.modulus]
        if outside or not self.residues:
            raise ValueError(f"residues should be from 0 to {self.modulus - 1}, each once")
        return unique(self, "residues")


def unique(owner: Owner, field: str) -> Owner:
    """`owner` itself, once the values of its `field` are seen to differ."""
    seen = set()
    for value in getattr(owner, field):
        if value in seen:
            raise ValueError(f"{field} should not repeat {value}")
        seen.add(value)
    return owner


class Sweep(Strict):
    """A sweep: arms × (corpus × family × templates × length × depth × phase) × repeats.

    Families of files keep the names that the YAML gives them; `folder` is where their relative
    paths begin. It decides no answer and is not written down with the sweep.
    """

    name: Name
    seed: int = Field(default=0, ge=0)
    arms: tuple[Arm, ...] = Field(min_length=1, strict=False)
    corpora: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = Field(min_length=1)
    families: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = Field(min_length=1)
    split: Literal["train", "eval"] = "eval"
    templates: Annotated[tuple[Templates, ...], BeforeValidator(as_tuple)] = Field(
        default=("trained",), min_length=1
    )
    layout: Layout = "stream"
    reuse: bool = True
    lengths: Annotated[tuple[Length, ...], BeforeValidator(as_tuple)] = Field(min_length=1)
    depths: Annotated[tuple[Depth, ...], BeforeValidator(spread_depths)] = Field(min_length=1)
    repeats: int = Field(default=4, ge=1)
    spread: float = Field(default=0.1, ge=0, le=1)
    max_needle_share: float = Field(default=0.02, gt=0, le=1)
    length_phase: Phase | None = None
    needle_phase: Phase | None = None
    controls: Annotated[tuple[Control, ...], BeforeValidator(as_tuple)] = ()
    decoding: DecodingFields = Field(default_factory=DecodingFields)
    prompt: PromptFormat = Field(default_factory=PromptFormat)
    threads: int | None = Field(default=None, ge=1)
    chunk_tokens: int = Field(default=2048, ge=1)
    max_memory_gb: float | None = Field(default=None, gt=0)
    checkpoint_minutes: float = Field(default=3.0, ge=0)
    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        return self._folder

    def begun_at(self, folder: Path) -> "Sweep":
        """The same sweep, whose relative paths begin at `folder`.

        Raises: ValueError where two families are one file.
        """
        files: dict[str, str] = {}
        for name in self.families:
            first = files.setdefault(resolve_name(name, folder), name)
            if first != name:
                raise ValueError(f"families should not repeat {first}, as {name} does")
        sweep = self.model_copy()
        sweep._folder = folder
        return sweep

    @model_validator(mode="after")
    def consistent(self) -> "Sweep":
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"arms should have different names, not {', '.join(names)}")
        if sum(arm.role == "baseline" for arm in self.arms) > 1:
            raise ValueError("arms should hold one baseline at most")
        self._check_repeats()
        for field in ("corpora", "families", "templates", "lengths", "depths", "controls"):
            unique(self, field)
        return self

    def _check_repeats(self) -> None:
        """A `repeat` is asked as the baseline is; a `retrained` arm is another model."""
        baseline = next((arm for arm in self.arms if arm.role == "baseline"), None)
        for arm in self.arms:
            if arm.role not in ("repeat", "retrained"):
                continue
            if baseline is None:
                verb = "repeats" if arm.role == "repeat" else "retrains"
                raise ValueError(f"arm {arm.name} {verb} the baseline, and arms hold no baseline")
            if arm.role == "repeat" and asked_as(arm) != asked_as(baseline):
                raise ValueError(
                    f"arm {arm.name} should have the model, options and session of "
                    f"{baseline.name}, which it repeats"
                )
            if arm.role == "retrained" and arm.model == baseline.model:
                raise ValueError(
                    f"arm {arm.name} should have another model than {baseline.name}, which it "
                    "retrains; role repeat asks the same model once more"
                )


SERVER = "openai:"
WAY_OPTIONS = frozenset({"base_url", "key_env", "timeout", "retries", "max_prompt_tokens"})
"""How a server is reached. What is asked there is decided by other options and by what the server
says of itself."""


def deciding_options(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """An arm's options without those that decide no answer."""
    left_out = WAY_OPTIONS if model.startswith(SERVER) else frozenset[str]()
    return {name: value for name, value in options.items() if name not in left_out}


def asked_as(arm: Arm) -> tuple[object, ...]:
    """What two arms have to have in common to be one and the same."""
    return arm.model, deciding_options(arm.model, arm.options), arm.session


def check_threads(threads: int | None) -> None:
    """Raises: SpecError where torch would start far more threads than this machine has cores."""
    cores = os.cpu_count() or 1
    if threads is not None and threads > THREADS_PER_CORE * cores:
        raise SpecError(
            f"threads = {threads}: this machine has {counted(cores, 'core')}; "
            f"choose {THREADS_PER_CORE * cores} at most, or null"
        )


PLAIN_WORDS = {
    "too_short": "should name one at least",
    "string_pattern_mismatch": "should be letters, digits, '.', '_', '-'; a letter or digit first",
    "model_type": "should be a mapping of fields",
}
"""By pydantic's kind of a complaint: what is said in place of its own words."""


def one_line(error: ValidationError) -> str:
    """The first complaint as `field = value: what would be right` (and how many more there are)."""
    complaints = error.errors(include_url=False, include_context=False)
    wrong = {each["loc"][:1] for each in complaints if len(each["loc"]) > 1}
    # A list whose items are all wrong is not too short as well.
    complaints = [c for c in complaints if c["type"] != "too_short" or c["loc"] not in wrong]
    first = complaints[0]
    field = ".".join(str(part) for part in first["loc"]) or "sweep"
    plain = first["msg"].removeprefix("Value error, ").replace("\n", " ")
    expected = PLAIN_WORDS.get(first["type"], plain)
    more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
    if first["type"] == "missing" or not first["loc"]:
        return f"{field}: {expected}{more}"
    if first["type"] == "extra_forbidden":
        return f"{field}: no such field{more}"
    got = first["input"]
    return f"{field} = {list(got) if isinstance(got, tuple) else got!r}: {expected}{more}"


def parse_sweep(data: object, origin: str) -> Sweep:
    """Raises: SpecError naming `origin`, the field, its value and what would be right."""
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"holds {data!r:.40}"
        raise SpecError(f"{origin}: {found}, and should be a mapping of fields")
    if "stages" in data:
        raise SpecError(f"{origin}: stages: is a training's configuration, for `niah train`")
    try:
        return Sweep.model_validate(data)
    except ValidationError as error:
        raise SpecError(f"{origin}: {one_line(error)}") from None


def load_sweep(path: Path) -> Sweep:
    """Read a sweep's YAML; relative paths in `file:` names begin at the YAML's folder.

    Corpora get absolute paths; families keep the names that they have in the YAML.

    Raises: SpecError where it cannot be read or is not a sweep.
    """
    try:
        data = read_yaml(path)
    except FileError as error:
        raise SpecError(str(error)) from None
    base = path.parent.absolute()
    sweep = parse_sweep(located(data, base), str(path))
    try:
        return sweep.begun_at(base)
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from None


def located(data: object, base: Path) -> object:
    """A sweep's fields with the paths of its corpora made absolute."""
    if not isinstance(data, dict):
        return data

    def resolved(names: object) -> object:
        if isinstance(names, list):
            return [resolved(name) for name in names]
        return resolve_name(names, base) if isinstance(names, str) else names

    return data | {"corpora": resolved(data["corpora"])} if "corpora" in data else data
