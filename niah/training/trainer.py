"""Training the twins from scratch: same data, seed, optimiser and steps for every arm.

Resumable: the state is saved every few minutes and batches depend on (seed, step) alone.
"""

from __future__ import annotations

import ctypes
import functools
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from haystacks.corpora.registry import load_corpus
from haystacks.needles.base import Fact, FamilyError
from haystacks.needles.own_file import FileFamily
from haystacks.needles.registry import find_family
from haystacks.tokenizer import load_tokenizer
from models.deepseek_v4 import weights
from models.deepseek_v4.attention import IndexerTraining
from models.deepseek_v4.checkpoint_files import Card, write_card
from models.deepseek_v4.config import (
    CSA,
    DSA,
    FULL,
    HCA,
    LATENT_TYPES,
    MLA,
    ConfigError,
    DeepseekV4Config,
)
from models.deepseek_v4.distant import DistantPast
from models.deepseek_v4.engram import Engram
from models.deepseek_v4.loading import CACHE, build, chosen_format
from models.deepseek_v4.mhc import HyperConnection, HyperHead
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.sharpen import sharpen
from models.devices import find_device
from models.errors import ModelError
from models.number_formats import CacheFormat
from niah.files import replacing, write_atomically
from niah.sweep.config import check_threads
from niah.training.asked import choose_asked
from niah.training.batches import AnswerSpan, Batch, Mixture
from niah.training.canonical import set_canonical_ids
from niah.training.config import (
    DistantSettings,
    TrainConfig,
    TrainingError,
    Twin,
    load_train_config,
)
from niah.training.optimizer import build_optimizers

GLOBAL_LAYERS: dict[Twin, str] = {"dense": FULL, "mla": MLA, "dsa": DSA}
"""What stands in an arm in the place of the layers that compress."""


def build_model(config: TrainConfig, arm: Twin, vocab_size: int) -> DeepseekV4:
    """A twin with fresh weights, or with those of the checkpoint that its arm begins from.

    An Engram that the checkpoint does not have begins fresh, which is silent.

    Raises:
        TrainingError: the section `model`, with what is the arm's own, describes no model; the
            checkpoint to begin from cannot be read; or the arm cannot be trained so.
    """
    own = config.arm(arm)
    if own.sharpen != 1.0 and arm != "compressed":
        raise TrainingError(f"{arm}.sharpen: got {own.sharpen}, expected 1: it is of compressed")
    model = build(model_config(config, arm, vocab_size))
    weights.initialize(model, config.seed)
    if own.initial is not None:
        try:
            weights.load_weights(model, Path(own.initial), fresh=Engram)
        except (OSError, RuntimeError) as error:
            raise TrainingError(f"{arm}.initial: {own.initial}: {error}") from error
    if own.sharpen != 1.0:
        sharpen(model, own.sharpen)
    return model


def model_config(config: TrainConfig, arm: Twin, vocab_size: int) -> DeepseekV4Config:
    """The arm's model: the shared fields and its own, with its kind of global layers.

    Raises: as `build_model`.
    """
    own = config.arm(arm)
    fields = {**config.model, **own.model, "vocab_size": vocab_size}
    kind = GLOBAL_LAYERS.get(arm)
    if arm == "engram" and not fields.get("engram"):
        raise TrainingError("engram.model.engram: is missing, expected at least {layers: [1]}")
    if kind in LATENT_TYPES and config.distant is not None:
        raise TrainingError(f"distant: got settings, expected null: arm {arm} has no distant past")
    if kind is not None:
        kinds = fields.get("layer_types", ())
        fields["layer_types"] = [kind if each in (CSA, HCA) else each for each in kinds]
    try:
        return DeepseekV4Config.from_dict(fields)
    except ConfigError as error:
        raise TrainingError(f"model of arm {arm}: {error}") from None


def rows_format(config: TrainConfig, arm: Twin, model: DeepseekV4) -> CacheFormat:
    """How an arm's rows are rounded in stages that ask for it.

    Raises: TrainingError where the model has no such format.
    """
    try:
        return chosen_format(model.config, {CACHE: config.arm(arm).cache})
    except ModelError as error:
        told = str(error).removeprefix("options.")
        raise TrainingError(f"{arm}.{told}") from error


def chosen_device(name: str) -> torch.device:
    """Raises: TrainingError where this machine has no such device, or it holds no numbers."""
    try:
        device = find_device(name)
    except ModelError as error:
        raise TrainingError(str(error).removeprefix("options.")) from error
    if device.type == "meta":
        raise TrainingError("device: got 'meta', expected one that holds numbers, such as cpu")
    return device


def taught_facts(config: TrainConfig) -> tuple[Fact, ...]:
    """The facts that are asked for and stated nowhere.

    Raises: TrainingError where the file cannot be read, or a fact has several answers.
    """
    if config.taught is None:
        return ()
    try:
        family = find_family(f"file:{config.taught}")
    except FamilyError as error:
        raise TrainingError(f"taught: {error}") from error
    assert isinstance(family, FileFamily)
    for number, fact in enumerate(family.facts, start=1):
        if len(fact.gold) != 1:
            raise TrainingError(f"taught: needle {number} has {len(fact.gold)} answers, expected 1")
    return family.facts


class Losses:
    """One forward pass's losses and accuracies."""

    def __init__(
        self,
        model: DeepseekV4,
        batch: Batch,
        config: TrainConfig,
        step: int,
        distant: DistantPast | None = None,
    ) -> None:
        if distant is not None and config.distant is not None:
            per_row = max(1, config.distant.queries // len(batch.ids))
            distant.begin(choose_asked(batch, per_row, step).to(model.device), step)
        generator = torch.Generator("cpu").manual_seed(step)
        drawn = torch.rand(batch.answers.shape, generator=generator, device="cpu")
        batch = batch.to(model.device)
        stage = config.stage_at(step)
        counted = batch.answers.float()
        everywhere = torch.full_like(counted, 1 / counted.numel())
        share = 0.5 * counted / counted.sum().clamp(min=1) + 0.5 * everywhere
        training = IndexerTraining(stage.sparse, share, distant=distant)
        states = model.hidden(batch.ids, positions=batch.positions, training=training)
        targets = batch.ids.roll(-1, dims=1)

        logits = model.lm_head(states[batch.answers])
        self.answer = F.cross_entropy(logits, targets[batch.answers])
        sampled = (drawn < config.lm_share).to(model.device) & ~batch.answers
        sampled[:, -1] = False  # its next token lies outside
        self.text = F.cross_entropy(model.lm_head(states[sampled]), targets[sampled])
        self.index = (
            torch.stack(training.losses).mean() if training.losses else counted.new_zeros(())
        )
        self.total = self.answer + config.lm_weight * self.text + config.index_weight * self.index
        self.finding: dict[str, Tensor] = {}
        if distant is not None and config.distant is not None:
            self._add_finding(distant, config.distant)
        self._batch, self._right = batch, logits.detach().argmax(-1) == targets[batch.answers]

    def figures(self) -> dict[str, float]:
        """By name; waits for the device."""
        hits = torch.zeros_like(self._batch.answers)
        hits[self._batch.answers] = self._right
        accuracy = fact_accuracy(hits.cpu(), self._batch.facts)
        losses = {"answer": self.answer, "text": self.text, "index": self.index}
        figures = {k: float(v.detach()) for k, v in losses.items()}
        finding = {name: float(value) for name, value in self.finding.items()}
        return {**figures, **finding, **accuracy}

    def _add_finding(self, distant: DistantPast, settings: DistantSettings) -> None:
        """Add the losses of finding what is asked for, and note them by layer.

        `find` and `rank`: an indexer's loss and its median rank of the wanted entry, of as many as
        the positions reached would hold. `look`: the loss of attention.
        """
        kinds = (
            ("find", distant.index_losses, settings.find_weight),
            ("look", distant.attention_losses, settings.look_weight),
        )
        for name, losses, weight in kinds:
            if losses:
                self.total = self.total + weight * torch.stack(list(losses.values())).mean()
            self.finding |= {f"{name}{i}": loss.detach() for i, loss in losses.items()}
        self.finding |= {f"rank{i}": rank.median() for i, rank in distant.ranks.items()}


def fact_accuracy(hits: Tensor, facts: Sequence[AnswerSpan]) -> dict[str, float]:
    """Share right of first digits (the key was matched), of later ones (copied), of whole answers.

    The answer of `single_number` is a space, the digits and a full stop; hits [B, S] is by
    predicting position. Whole answers of any family are under its name.
    """
    by_family: dict[str, list[Tensor]] = {}
    for row, first, last, family in facts:
        by_family.setdefault(str(family), []).append(hits[row, first:last])
    figures = {}
    if numbers := by_family.pop("single_number", None):
        figures = {
            "first": torch.stack([r[1] for r in numbers]).float().mean().item(),
            "rest": torch.cat([r[2:-1] for r in numbers]).float().mean().item(),
            "exact": torch.stack([r[:-1].all() for r in numbers]).float().mean().item(),
        }
    for family, rows in sorted(by_family.items()):
        figures[family] = torch.stack([r[:-1].all() for r in rows]).float().mean().item()
    return figures


def build_distant_past(config: TrainConfig, model: DeepseekV4) -> DistantPast | None:
    """An empty one, where the configuration asks for it."""
    if config.distant is None:
        return None
    return DistantPast(
        model,
        seen=config.distant.seen,
        kept=config.distant.kept,
        added=config.distant.added,
        index_flow=config.distant.index_flow,
    )


class Trainer:
    """One arm's training, with its folder of state and curve.

    Weights are initialised and batches are made on the CPU, so that they are the same on any
    device; the sums of a GPU differ from a CPU's by rounding.
    """

    def __init__(self, config: TrainConfig, arm: Twin, folder: Path, device: str = "cpu") -> None:
        tokenizer = load_tokenizer(config.tokenizer)
        self.config, self.arm, self.folder = config, arm, folder
        corpus = load_corpus(config.corpus, tokenizer)
        self.mixture = Mixture(corpus, tokenizer, config.seed, taught_facts(config))
        self.model = build_model(config, arm, tokenizer.vocab_size)
        self.rows_format = rows_format(config, arm, self.model)
        set_canonical_ids(self.model, tokenizer)
        self.model.to(chosen_device(device))
        self.optimizers = build_optimizers(
            self.model, config.matrix_rate, config.other_rate, config.weight_decay
        )
        self.distant = build_distant_past(config, self.model)
        self.rates = [o.param_groups[0]["lr"] for o in self.optimizers]
        card = f"{arm} twin of the training {config.name}"
        self.card = Card(tokenizer.name, tokenizer.fingerprint, card)
        self.stage_ends = config.stage_ends()
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.stopping = False
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    @property
    def finished(self) -> bool:
        return self.step >= self.config.num_steps

    def run(self) -> None:
        """Train to the last stage's end, or until asked to stop; either way the state is saved."""
        with self._stops_between_steps():
            self._train()

    def _train(self) -> None:
        began = saved = time.monotonic()
        before = self.seconds
        bar = tqdm(total=self.config.num_steps, initial=self.step, desc=self.arm, unit="step")
        for take_figures in self._steps():
            now = time.monotonic()
            self.seconds = before + now - began
            if self.step % 10 == 0 or self.finished:
                figures = take_figures()
                self._log(figures)
                bar.set_postfix({k: f"{v:.2f}" for k, v in figures.items()}, refresh=False)
            bar.update()
            if now - saved > 60 * self.config.save_minutes:
                self.save()
                saved = now
            if self.step in self.stage_ends:
                self._keep_stage(self.stage_ends[self.step])
            if self.stopping:
                break
        bar.close()
        self.save()

    @contextmanager
    def _stops_between_steps(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM let the step under way finish: half an update must not be saved."""

        def request_stop(signum: int, frame: object) -> None:
            self.stopping = True

        before = {n: signal.signal(n, request_stop) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _steps(self) -> Iterator[Callable[[], dict[str, float]]]:
        """Each yields its figures, for whoever wants to wait for them."""
        while not self.finished:
            stage = self.config.stage_at(self.step)
            rows = max(1, stage.batch_tokens // stage.length)
            self.model.store_in(self.rows_format if stage.rounded else CacheFormat())
            batch = self.mixture.batch(self.step, rows, stage.mixture())
            losses = Losses(self.model, batch, self.config, self.step, self.distant)
            losses.total.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
                optimizer.param_groups[0]["lr"] = rate * self.config.rate_at(self.step)
                optimizer.step()
                optimizer.zero_grad()
            self.step += 1
            self.tokens += batch.ids.numel()
            yield functools.partial(_figures, losses, norm)

    def _log(self, figures: dict[str, float]) -> None:
        row = {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 1)}
        rounded = {k: round(v, 4) for k, v in figures.items()}
        length = self.config.stage_at(self.step - 1).length
        with (self.folder / "curve.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "length": length, **rounded}) + "\n")

    def save(self) -> None:
        """Weights and optimiser state, each written beside and then moved into place."""
        weights.save(self.model, self.folder)
        write_card(self.folder, self.card)
        if self.distant is not None:
            self._write("distant", self.distant.state())
        self._write("state", self._state())

    def _keep_stage(self, number: int) -> None:
        """The state at a stage's end, with moments in bfloat16: small enough to be published.

        Copied to `state.safetensors` in a folder of its own, it is gone on from.
        """
        state = {
            name: tensor.bfloat16() if not name.startswith("w.") and tensor.numel() > 1 else tensor
            for name, tensor in self._state().items()
        }
        self._write(f"stage-{number}", state)

    def _state(self) -> dict[str, Tensor]:
        """Weights and the optimisers' moments."""
        moments = {
            f"{i}.{j}.{name}": value
            for i, optimizer in enumerate(self.optimizers)
            for j, parameter in enumerate(optimizer.param_groups[0]["params"])
            for name, value in optimizer.state.get(parameter, {}).items()
        }
        return {**moments, **{f"w.{k}": v for k, v in self.model.state_dict().items()}}

    def _write(self, name: str, tensors: dict[str, Tensor]) -> None:
        progress = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds}
        metadata = {"progress": json.dumps(progress)}
        with replacing(self.folder / f"{name}.safetensors") as partial:
            save_file(tensors, partial, metadata=metadata)

    def _read(self, name: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Progress and tensors of a file of the folder; None if there is none."""
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            return None
        with safe_open(path, framework="pt") as file:
            progress = json.loads(file.metadata()["progress"])
        return progress, load_file(path)

    def _resume(self) -> None:
        read = self._read("state")
        if read is None:
            return
        progress, tensors = read
        kept = self._read("distant")
        if self.distant is not None and kept is not None and kept[0]["step"] == progress["step"]:
            self.distant.restore(kept[1])  # otherwise the next batches fill it anew
        self.model.load_state_dict({k[2:]: v for k, v in tensors.items() if k.startswith("w.")})
        for i, optimizer in enumerate(self.optimizers):
            parameters = optimizer.param_groups[0]["params"]
            for j, parameter in enumerate(parameters):
                prefix = f"{i}.{j}."
                state = {
                    name.removeprefix(prefix): _moment(tensor, parameter)
                    for name, tensor in tensors.items()
                    if name.startswith(prefix)
                }
                if state:
                    optimizer.state[parameter] = state
        self.step, self.tokens = progress["step"], progress["tokens"]
        self.seconds = progress["seconds"]
        self._forget_lost_steps()

    def _forget_lost_steps(self) -> None:
        """Drop the curve's rows of steps after the last save: they are trained again."""
        path = self.folder / "curve.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] <= self.step]
            write_atomically(path, "".join(kept))


def _figures(losses: Losses, norm: Tensor) -> dict[str, float]:
    return {**losses.figures(), "grad": float(norm)}


def _moment(tensor: Tensor, parameter: Tensor) -> Tensor:
    """As float32 where the parameter is; AdamW counts its steps on the CPU."""
    return tensor.float() if tensor.ndim == 0 else tensor.float().to(parameter.device)


def keep_large_buffers() -> None:
    """Stop glibc from returning big buffers to the system: page faults would dominate."""
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            for option in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
                library.mallopt(option, 2**31 - 1)


def compile_hot_paths(*, dynamic: bool) -> None:
    """Fuse the many small operations of mHC; the results differ by rounding only.

    `dynamic`: once for all numbers of tokens.
    """
    for owner, name in (
        (HyperConnection, "forward"),
        (HyperConnection, "spread"),
        (HyperHead, "forward"),
    ):
        compiled = torch.compile(getattr(owner, name), dynamic=dynamic)
        setattr(owner, name, over_one_sequence(compiled))


def over_one_sequence(function: Callable[..., Any]) -> Callable[..., Any]:
    """A method over tensors [B, S, ...], called with [1, B * S, ...]: fewer shapes to compile."""

    def call(owner: object, *tensors: Tensor) -> Any:
        shape = tensors[0].shape[:2]
        found = function(owner, *(x.flatten(0, 1).unsqueeze(0) for x in tensors))
        if isinstance(found, Tensor):
            return found.squeeze(0).unflatten(0, shape)
        return tuple(x.squeeze(0).unflatten(0, shape) for x in found)

    return call


def train(
    config_path: Path, arm: Twin, out: Path, device: str = "cpu", seed: int | None = None
) -> Trainer:
    """Train (or go on training) one arm into `out`/arm, to its end or until asked to stop.

    A `seed` other than the configuration's draws other weights and other batches, and its folder
    is `out`/arm-seed-N: trained so, arms tell the luck of training.

    Raises:
        TrainingError: the configuration is not usable, or the device is not there.
        SpecError: more threads than this machine can run.
    """
    config = load_train_config(config_path)
    check_threads(config.threads)
    torch.set_num_threads(config.threads)
    if config.keep_buffers:
        keep_large_buffers()
    folder = out / arm
    if seed is not None:
        config, folder = config.model_copy(update={"seed": seed}), out / f"{arm}-seed-{seed}"
    trainer = Trainer(config, arm, folder, device)
    if config.compile:
        compile_hot_paths(dynamic=trainer.model.device.type != "cpu")
    trainer.run()
    return trainer
