"""A training's configuration: what its YAML may say, and one line on what is wrong."""

from __future__ import annotations

import math
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from models.number_formats import FULL
from niah.errors import FileError, NiahError
from niah.files import read_yaml
from niah.training.batches import LONGEST_ITEM, LONGEST_RIVALS, TRAINABLE, MixtureSettings

MAX_SEED = 2**63 - 1  # what torch's generators take


class TrainingError(NiahError):
    """A training configuration or folder that cannot be used; the message says why."""


class _Strict(BaseModel):
    """Nothing is coerced: `true` is no number and '5' is none. A YAML list is a tuple here."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Stage(_Strict):
    """A run of steps at one length."""

    steps: int = Field(ge=1)
    length: int = Field(ge=128)
    items: tuple[int, int] = Field(strict=False)
    batch_tokens: int = Field(8192, ge=128)
    rate: float = Field(1.0, gt=0, description="multiplies both learning rates")
    end_rate: float | None = Field(None, gt=0, description="reached linearly; null: no change")
    sparse: bool = Field(True, description="False: the indexer's dense warm-up")
    rounded: bool = Field(False, description="rows of the cache are rounded to the arm's `cache`")
    jump_share: float = Field(0.0, ge=0, le=1)
    snippet_share: float = Field(0.3, ge=0, le=1)
    scattered_share: float = Field(0.5, ge=0, le=1)
    coined_word_share: float = Field(0.0, ge=0, le=1)
    varied_share: float = Field(0.0, ge=0, le=1)
    rival_share: float = Field(0.0, ge=0, le=1)
    taught_share: float = Field(0.0, ge=0, lt=1, description="of facts: those of `taught`")
    far: bool = Field(False, description="positions begin late, with gaps to 1M; no jumps")
    far_share: float = Field(0.5, ge=0, le=1)
    min_gap: int = Field(
        128, ge=128, le=1 << 19, multiple_of=128, description="tokens, of the long gaps"
    )
    families: dict[str, float] = Field(default_factory=lambda: {"single_number": 1.0})

    @model_validator(mode="after")
    def items_in_order(self) -> Stage:
        fewest, most = self.items
        if not 1 <= fewest <= most:
            raise ValueError(
                f"items should be [fewest, most], at least 1 and in order: {self.items}"
            )
        return self

    @model_validator(mode="after")
    def has_answers(self) -> Stage:
        """Every sequence has room for its longest item, so that no batch is without an answer."""
        rivals = LONGEST_RIVALS if self.rival_share else 0
        sizes = {
            family: LONGEST_ITEM[family] + rivals * family.startswith("single_")
            for family in self.families
        }
        family = max(sizes, key=lambda name: sizes[name])
        if sizes[family] > self.length:
            raise ValueError(
                f"a batch may hold no answer: {family} may take {sizes[family]} tokens, "
                f"and length is {self.length}"
            )
        return self

    @field_validator("families")
    @classmethod
    def can_be_trained(cls, families: dict[str, float]) -> dict[str, float]:
        for name, weight in families.items():
            if name not in TRAINABLE:
                raise ValueError(f"families should be among {', '.join(TRAINABLE)}")
            if not 0 < weight < math.inf:
                raise ValueError(f"the weight of {name} should be a positive number")
        if not families:
            raise ValueError("families should name one at least")
        return families

    def mixture(self) -> MixtureSettings:
        return MixtureSettings(
            length=self.length,
            items=self.items,
            snippet_share=self.snippet_share,
            scattered_share=self.scattered_share,
            jump_share=self.jump_share,
            coined_word_share=self.coined_word_share,
            varied_share=self.varied_share,
            rival_share=self.rival_share,
            taught_share=self.taught_share,
            far=self.far,
            far_share=self.far_share,
            min_gap=self.min_gap,
            families=self.families,
        )


class DistantSettings(_Strict):
    """Keys of earlier batches that a batch's asked queries see, and the losses of finding."""

    seen: int = Field(8192, ge=0, description="rows that a batch sees in each global layer")
    kept: int = Field(65536, ge=1, description="rows that each layer keeps")
    added: int = Field(2048, ge=1, description="rows at most that a batch adds to each layer")
    queries: int = Field(512, ge=1, description="asked queries of a batch, over all its rows")
    index_flow: float = Field(0.0, ge=0, le=1, description="of its indexers' gradient")
    find_weight: float = Field(0.1, ge=0, description="each CSA indexer finds what is asked for")
    look_weight: float = Field(0.05, ge=0, description="attention looks at what is asked for")


class ArmSettings(_Strict):
    """What is one arm's own."""

    initial: str | None = Field(None, description="a checkpoint's folder to begin from")
    sharpen: float = Field(1.0, gt=0, description="multiplies the global layers' logits")
    cache: str = Field(FULL, description="the number format that rounded stages train for")
    model: dict[str, Any] = Field(default_factory=dict, description="over the shared fields")


Twin = Literal["compressed", "dense", "mla", "dsa", "engram"]
"""The arms of a training: DeepSeek-V4, the trunk uncompressed, with MLA, with DSA, with Engram."""


class TrainConfig(_Strict):
    """A training run; one YAML in configs/."""

    name: str
    seed: int = Field(0, ge=0, le=MAX_SEED)
    corpus: str = "manual"
    tokenizer: str = "bundled-bpe-2048"
    taught: str | None = Field(None, description="a file of needles: asked for, stated nowhere")
    model: dict[str, Any]
    stages: tuple[Stage, ...] = Field(min_length=1, strict=False)
    matrix_rate: float = Field(4e-3, gt=0)
    other_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(50, ge=0)
    lm_weight: float = Field(0.3, ge=0)
    lm_share: float = Field(0.25, gt=0, le=1, description="of positions, to spare the head")
    index_weight: float = Field(0.1, ge=0)
    clip: float = Field(1.0, gt=0)
    compile: bool = Field(False, description="torch.compile the mHC; needs a C++ compiler")
    threads: int = Field(1, ge=1)
    keep_buffers: bool = Field(True, description="keep freed memory: fewer page faults")
    save_minutes: float = Field(3.0, gt=0)
    distant: DistantSettings | None = None
    compressed: ArmSettings = ArmSettings()
    dense: ArmSettings = ArmSettings()
    mla: ArmSettings = ArmSettings()
    dsa: ArmSettings = ArmSettings()
    engram: ArmSettings = ArmSettings()

    @model_validator(mode="after")
    def teaches_something(self) -> TrainConfig:
        if self.taught is None and any(stage.taught_share for stage in self.stages):
            raise ValueError("taught: names no file, but a stage has a taught_share")
        return self

    def arm(self, arm: Twin) -> ArmSettings:
        """What is `arm`'s own."""
        settings: ArmSettings = getattr(self, arm)
        return settings

    @property
    def num_steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def stage_ends(self) -> dict[int, int]:
        """The number of each stage, from 1, by the number of steps done at its end."""
        ends = accumulate(stage.steps for stage in self.stages)
        return {end: number for number, end in enumerate(ends, 1)}

    def stage_at(self, step: int) -> Stage:
        """The stage of a step; past the end, the last one."""
        return self._place(step)[0]

    def rate_at(self, step: int) -> float:
        """What multiplies the learning rates: warm-up, and the stage's own line."""
        stage, offset = self._place(step)
        end = stage.rate if stage.end_rate is None else stage.end_rate
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return warm * (stage.rate + (end - stage.rate) * offset / stage.steps)

    def _place(self, step: int) -> tuple[Stage, int]:
        """The stage of a step, and the steps since that stage began."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        return self.stages[-1], self.stages[-1].steps


def load_train_config(path: Path) -> TrainConfig:
    """Raises TrainingError with one line that names the field."""
    try:
        return TrainConfig.model_validate(read_yaml(path))
    except FileError as error:
        raise TrainingError(str(error)) from None
    except ValidationError as error:
        raise TrainingError(f"{path}: {_one_line(error)}") from error


def _one_line(error: ValidationError) -> str:
    """The first complaint. What was got is left out where it is a whole section."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    expected = first["msg"].removeprefix("Value error, ")
    if not field:
        return expected
    if first["type"] == "missing" or isinstance(first["input"], dict):
        return f"{field}: {expected}"
    return f"{field}: {expected}, got {first['input']!r}"
