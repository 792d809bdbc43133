"""Training the twins from scratch: same data, seed, optimiser and steps for either arm.

Resumable: the state is saved every few minutes and batches depend on (seed, step) alone.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from haystacks.corpus import load_corpus
from haystacks.tokenizer import load_tokenizer
from models.deepseek_v4 import weights
from models.deepseek_v4.attention import IndexerTraining
from models.deepseek_v4.config import DeepseekV4Config
from models.deepseek_v4.mhc import HyperConnection, HyperHead
from models.deepseek_v4.model import DeepseekV4
from models.dense import DenseTwin
from niah.mixture import Batch, Mixture, MixtureSettings
from niah.muon import build_optimizers

Arm = Literal["compressed", "dense"]


class TrainingError(ValueError):
    """A training configuration or folder that cannot be used; the message says why."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(_Strict):
    """A run of steps at one length."""

    steps: int = Field(ge=1)
    length: int = Field(ge=128)
    items: tuple[int, int]
    batch_tokens: int = Field(8192, ge=128)
    rate: float = Field(1.0, gt=0, description="multiplies both learning rates")
    sparse: bool = Field(True, description="False: the indexer's dense warm-up")
    jump_share: float = Field(0.0, ge=0, le=1)
    snippet_share: float = Field(0.3, ge=0, le=1)
    scattered_share: float = Field(0.5, ge=0, le=1)

    def mixture(self) -> MixtureSettings:
        return MixtureSettings(
            length=self.length,
            items=self.items,
            snippet_share=self.snippet_share,
            scattered_share=self.scattered_share,
            jump_share=self.jump_share,
        )


class TrainConfig(_Strict):
    """A training run; one YAML in configs/."""

    name: str
    seed: int = 0
    corpus: str = "manual"
    tokenizer: str = "bundled-bpe-2048"
    model: dict[str, Any]
    stages: tuple[Stage, ...] = Field(min_length=1)
    matrix_rate: float = Field(4e-3, gt=0)
    other_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(50, ge=0)
    cooldown_steps: int = Field(200, ge=0, description="at the end, linearly to a tenth")
    lm_weight: float = Field(0.3, ge=0)
    lm_share: float = Field(0.25, gt=0, le=1, description="of positions, to spare the head")
    index_weight: float = Field(0.1, ge=0)
    clip: float = Field(1.0, gt=0)
    compile: bool = Field(False, description="torch.compile the mHC; needs a C++ compiler")
    threads: int = Field(1, ge=1)
    save_minutes: float = Field(3.0, gt=0)

    @property
    def num_steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """The stage of a step; past the end, the last one."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def rate_at(self, step: int) -> float:
        """Warm-up, the stage's own factor, cool-down."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        left = (self.num_steps - step) / max(1, self.cooldown_steps)
        return self.stage_at(step).rate * warm * max(0.1, min(1.0, left))


def load_train_config(path: Path) -> TrainConfig:
    """Raises TrainingError with one line that names the field."""
    try:
        return TrainConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise TrainingError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise TrainingError(f"{path}: {field}: {first['msg']}, got {first['input']!r}") from error


def build_model(config: TrainConfig, arm: Arm, vocab_size: int) -> DeepseekV4:
    """A freshly initialised twin.

    Raises:
        ConfigError: the configuration's `model` section describes no model.
    """
    model_config = DeepseekV4Config.from_dict({**config.model, "vocab_size": vocab_size})
    model = DenseTwin(model_config) if arm == "dense" else DeepseekV4(model_config)
    weights.initialize(model, config.seed)
    return model


class Losses:
    """One forward pass's losses and accuracies."""

    def __init__(self, model: DeepseekV4, batch: Batch, config: TrainConfig, step: int) -> None:
        stage = config.stage_at(step)
        counted = batch.answers.float()
        everywhere = torch.full_like(counted, 1 / counted.numel())
        share = 0.5 * counted / counted.sum().clamp(min=1) + 0.5 * everywhere
        training = IndexerTraining(stage.sparse, share)
        states = model.hidden(batch.ids, positions=batch.positions, training=training)
        targets = batch.ids.roll(-1, dims=1)

        logits = model.lm_head(states[batch.answers])
        self.answer = F.cross_entropy(logits, targets[batch.answers])
        generator = torch.Generator().manual_seed(step)
        sampled = torch.rand(counted.shape, generator=generator) < config.lm_share
        sampled &= ~batch.answers
        sampled[:, -1] = False  # its next token lies outside
        self.text = F.cross_entropy(model.lm_head(states[sampled]), targets[sampled])
        self.index = torch.stack(training.losses).mean() if training.losses else torch.zeros(())
        self.total = self.answer + config.lm_weight * self.text + config.index_weight * self.index
        hits = torch.zeros_like(batch.answers)
        hits[batch.answers] = logits.argmax(-1) == targets[batch.answers]
        self.accuracy = fact_accuracy(hits, batch)

    def figures(self) -> dict[str, float]:
        losses = {"answer": self.answer, "text": self.text, "index": self.index}
        return {**{k: float(v.detach()) for k, v in losses.items()}, **self.accuracy}


def fact_accuracy(hits: Tensor, batch: Batch) -> dict[str, float]:
    """Share right of first digits (the key was matched), of later ones (copied), of whole answers.

    An answer is a space, the digits and a full stop; hits [B, S] is by predicting position.
    """
    rows = [hits[row, first:last] for row, first, last in batch.fact_spans]
    if not rows:
        return {}
    return {
        "first": torch.stack([r[1] for r in rows]).float().mean().item(),
        "rest": torch.cat([r[2:-1] for r in rows]).float().mean().item(),
        "exact": torch.stack([r[:-1].all() for r in rows]).float().mean().item(),
    }


class Trainer:
    """One arm's training, with its folder of state and curve."""

    def __init__(self, config: TrainConfig, arm: Arm, folder: Path) -> None:
        tokenizer = load_tokenizer(config.tokenizer)
        self.config, self.arm, self.folder = config, arm, folder
        self.mixture = Mixture(load_corpus(config.corpus, tokenizer), tokenizer, config.seed)
        self.model = build_model(config, arm, tokenizer.vocab_size)
        self.optimizers = build_optimizers(
            self.model, config.matrix_rate, config.other_rate, config.weight_decay
        )
        self.rates = [o.param_groups[0]["lr"] for o in self.optimizers]
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.stopping = False
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def run(self) -> None:
        """Train to the last stage's end."""
        began = saved = time.monotonic()
        before = self.seconds
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request_stop)
        bar = tqdm(total=self.config.num_steps, initial=self.step, desc=self.arm, unit="step")
        for figures in self._steps():
            now = time.monotonic()
            self.seconds = before + now - began
            if self.step % 10 == 0 or self.step == self.config.num_steps:
                self._log(figures)
                bar.set_postfix({k: f"{v:.2f}" for k, v in figures.items()}, refresh=False)
            bar.update()
            if now - saved > 60 * self.config.save_minutes:
                self.save()
                saved = now
            if self.stopping:
                break
        bar.close()
        self.save()

    def _request_stop(self, signum: int, frame: object) -> None:
        """Finish the step under way: a half-applied update must never be saved."""
        self.stopping = True

    def _steps(self) -> Iterator[dict[str, float]]:
        while self.step < self.config.num_steps:
            stage = self.config.stage_at(self.step)
            rows = max(1, stage.batch_tokens // stage.length)
            batch = self.mixture.batch(self.step, rows, stage.mixture())
            losses = Losses(self.model, batch, self.config, self.step)
            losses.total.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
                optimizer.param_groups[0]["lr"] = rate * self.config.rate_at(self.step)
                optimizer.step()
                optimizer.zero_grad()
            self.step += 1
            self.tokens += batch.ids.numel()
            yield {**losses.figures(), "grad": float(norm)}

    def _log(self, figures: dict[str, float]) -> None:
        row = {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 1)}
        rounded = {k: round(v, 4) for k, v in figures.items()}
        length = self.config.stage_at(self.step - 1).length
        with (self.folder / "curve.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "length": length, **rounded}) + "\n")

    def save(self) -> None:
        """Weights and optimiser state, each written beside and then moved into place."""
        weights.save(self.model, self.folder)
        moments = {
            f"{i}.{j}.{name}": value
            for i, optimizer in enumerate(self.optimizers)
            for j, state in enumerate(optimizer.state.values())
            for name, value in state.items()
        }
        progress = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds}
        metadata = {"progress": json.dumps(progress)}
        everything = {**moments, **{f"w.{k}": v for k, v in self.model.state_dict().items()}}
        save_file(everything, self.folder / "state.part", metadata=metadata)
        (self.folder / "state.part").replace(self.folder / "state.safetensors")

    def _resume(self) -> None:
        path = self.folder / "state.safetensors"
        if not path.exists():
            return
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            progress = json.loads(file.metadata()["progress"])
        tensors = load_file(path)
        self.model.load_state_dict({k[2:]: v for k, v in tensors.items() if k.startswith("w.")})
        for i, optimizer in enumerate(self.optimizers):
            parameters = optimizer.param_groups[0]["params"]
            for j, parameter in enumerate(parameters):
                prefix = f"{i}.{j}."
                state = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
                if state:
                    optimizer.state[parameter] = state
        self.step, self.tokens = progress["step"], progress["tokens"]
        self.seconds = progress["seconds"]


def keep_large_buffers() -> None:
    """Stop glibc from returning big buffers to the system: page faults would dominate."""
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            for option in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
                library.mallopt(option, 2**31 - 1)


def compile_hot_paths() -> None:
    """Fuse the many small operations of mHC; the results differ by rounding only."""
    for owner, name in (
        (HyperConnection, "forward"),
        (HyperConnection, "spread"),
        (HyperHead, "forward"),
    ):
        setattr(owner, name, torch.compile(getattr(owner, name), dynamic=False))


def train(config_path: Path, arm: Arm, out: Path) -> Path:
    """Train (or go on training) one arm into `out`/arm; returns that folder.

    Raises:
        TrainingError: the configuration is not usable.
    """
    config = load_train_config(config_path)
    torch.set_num_threads(config.threads)
    keep_large_buffers()
    if config.compile:
        compile_hot_paths()
    trainer = Trainer(config, arm, out / arm)
    trainer.run()
    return trainer.folder
