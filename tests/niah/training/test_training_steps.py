"""What a training step does: its optimiser, rates and losses, and what it keeps."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from models.deepseek_v4 import weights
from models.deepseek_v4.config import DSA, FULL, MLA, SLIDING
from models.deepseek_v4.mhc import HyperConnection, HyperHead
from models.deepseek_v4.model import DecoderLayer, DeepseekV4
from niah.sweep.config import load_sweep
from niah.training.config import (
    ArmSettings,
    DistantSettings,
    Stage,
    TrainConfig,
    TrainingError,
    Twin,
    load_train_config,
)
from niah.training.optimizer import UPDATE_RMS, Muon, orthogonalize
from niah.training.trainer import (
    Losses,
    Trainer,
    build_model,
    over_one_sequence,
    taught_facts,
    train,
)
from tests.devices import no_default_device
from tests.models.small import REAL, randomized
from tests.niah.training.test_trainer import DISTANT, LATENTS, TINY

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def quiet_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A cache of its own, and the signal handlers back as they were."""
    monkeypatch.setenv("NIAH_CACHE", str(tmp_path / "cache"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def tiny(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({**TINY, **changes})


# --- optimiser -------------------------------------------------------------------------------


def muon_steps(gradients: list[Tensor], start: Tensor, lr: float, decay: float) -> Tensor:
    """The parameter after one step of Muon for each gradient."""
    parameter = nn.Parameter(start.clone())
    optimizer = Muon([parameter], lr, decay)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def test_weight_decay_draws_weights_towards_zero() -> None:
    start = torch.ones(4, 6)
    after = muon_steps([torch.zeros(4, 6)], start, lr=0.1, decay=0.5)
    torch.testing.assert_close(after, start * (1 - 0.1 * 0.5))


def test_a_step_of_muon_is_nesterov_momentum_made_orthogonal() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, 6, generator=generator)
    gradients = [torch.randn(4, 6, generator=generator) for _ in range(3)]
    expected, momentum = start, torch.zeros(4, 6)
    for gradient in gradients:
        momentum = 0.95 * momentum + 0.05 * gradient
        direction = orthogonalize(0.05 * gradient + 0.95 * momentum)
        expected = expected - 0.1 * UPDATE_RMS * 6**0.5 * direction
    after = muon_steps(gradients, start, lr=0.1, decay=0.0)
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-5)


def test_momentum_goes_on_where_there_is_no_gradient_any_more() -> None:
    start, gradient = torch.zeros(4, 6), torch.eye(4, 6)
    once = muon_steps([gradient], start, lr=0.1, decay=0.0)
    twice = muon_steps([gradient, torch.zeros(4, 6)], start, lr=0.1, decay=0.0)
    torch.testing.assert_close(twice, 2 * once, rtol=1e-3, atol=1e-4)
    assert (once.diagonal() < 0).all()  # against the gradient


# --- rates -----------------------------------------------------------------------------------

STAGES = [
    {"steps": 4, "length": 256, "batch_tokens": 256, "items": [1, 2], "rate": 0.8, "end_rate": 0.4},
    {"steps": 2, "length": 256, "batch_tokens": 256, "items": [1, 2], "rate": 0.5},
]
RATES = [0.8 / 2, 0.7, 0.6, 0.5, 0.5, 0.5]  # two steps of warm-up; then lines


def test_rates_warm_up_and_follow_the_line_of_their_stage() -> None:
    config = tiny(stages=STAGES, warmup_steps=2)
    assert [config.rate_at(step) for step in range(6)] == pytest.approx(RATES)
    assert config.stage_ends() == {4: 1, 6: 2}


def test_every_step_is_taken_at_its_rate(tmp_path: Path) -> None:
    config = tiny(stages=STAGES, warmup_steps=2, matrix_rate=0.01, other_rate=0.02)
    trainer = Trainer(config, "compressed", tmp_path)
    for rate, _ in zip(RATES, trainer._steps(), strict=True):
        used = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
        assert used == pytest.approx([0.01 * rate, 0.02 * rate])


# --- losses ----------------------------------------------------------------------------------


def test_the_text_loss_is_of_all_but_answers_and_the_last_position(tmp_path: Path) -> None:
    """The token after the last one is not known: the first one must not stand in for it."""
    config = tiny(lm_share=1.0)
    trainer = Trainer(config, "dense", tmp_path)
    torch.nn.init.normal_(trainer.model.lm_head.weight)  # no two tokens are nearly as likely
    batch = trainer.mixture.batch(0, 2, config.stages[0].mixture())
    losses = Losses(trainer.model, batch, config, 0)
    with torch.no_grad():
        logits = trainer.model.lm_head(trainer.model.hidden(batch.ids, positions=batch.positions))
    next_tokens = batch.ids[:, 1:]
    terms = F.cross_entropy(logits[:, :-1].transpose(1, 2), next_tokens, reduction="none")
    counted = ~batch.answers[:, :-1]
    torch.testing.assert_close(losses.text.detach(), terms[counted].mean(), rtol=1e-4, atol=1e-5)
    answered = batch.answers[:, :-1]
    torch.testing.assert_close(losses.answer.detach(), terms[answered].mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arm", ["compressed", "dense"])
def test_losses_of_finding_are_part_of_the_whole(arm: str, tmp_path: Path) -> None:
    settings = {**DISTANT, "find_weight": 0.2, "look_weight": 0.03}
    config = tiny(distant=settings, lm_weight=0.5, index_weight=0.25)
    trainer = Trainer(config, "dense" if arm == "dense" else "compressed", tmp_path)
    for step in range(2):  # the second batch sees the first
        batch = trainer.mixture.batch(step, 2, config.stages[1].mixture())
        losses = Losses(trainer.model, batch, config, step, trainer.distant)
    figures = losses.figures()
    looks = [value for name, value in figures.items() if name.startswith("look")]
    finds = [value for name, value in figures.items() if name.startswith("find")]
    assert (len(finds), len(looks)) == ((1, 1) if arm == "compressed" else (0, 2))
    expected = figures["answer"] + 0.5 * figures["text"] + 0.25 * figures["index"]
    expected += 0.03 * sum(looks) / len(looks) + 0.2 * sum(finds)
    assert float(losses.total.detach()) == pytest.approx(expected, rel=1e-5)
    assert losses.total.isfinite()


def test_paths_are_compiled_over_one_sequence_that_stands_for_all() -> None:
    model = randomized(DeepseekV4(REAL), seed=2)
    layer = model.model.layers[0]
    assert isinstance(layer, DecoderLayer)
    streams = torch.randn(3, 7, REAL.hc_mult, REAL.hidden_size)
    collapsed = layer.attn_hc(streams)
    found = over_one_sequence(HyperConnection.forward)(layer.attn_hc, streams)
    for ours, theirs in zip(found, collapsed, strict=True):
        torch.testing.assert_close(ours, theirs)
    x, post, mix = collapsed
    spread = over_one_sequence(HyperConnection.spread)(layer.attn_hc, x, streams, post, mix)
    torch.testing.assert_close(spread, layer.attn_hc.spread(x, streams, post, mix))
    head = model.model.hc_head
    torch.testing.assert_close(over_one_sequence(HyperHead.forward)(head, streams), head(streams))


@pytest.mark.parametrize("arm", ["compressed", "dense"])
def test_losses_make_every_tensor_on_the_models_device(arm: Twin, tmp_path: Path) -> None:
    """Without an accelerator: a tensor made without a device lands on `meta` and is refused."""
    config = tiny(distant=DISTANT)
    trainer = Trainer(config, arm, tmp_path)
    batches = [trainer.mixture.batch(step, 2, config.stages[1].mixture()) for step in range(2)]
    for step, batch in enumerate(batches):  # the second batch sees the first
        with no_default_device():
            losses = Losses(trainer.model, batch, config, step, trainer.distant)
            losses.total.backward()
    assert all(np.isfinite(value) for value in losses.figures().values())


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:99", "^device: got 'cuda:99', expected auto, cpu"),
        ("meta", "^device: got 'meta', expected one that holds numbers, such as cpu$"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(tmp_path: Path, device: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Trainer(tiny(), "dense", tmp_path / "arm", device)
    assert not (tmp_path / "arm").exists()


def test_rows_are_rounded_in_the_stages_that_say_so(tmp_path: Path) -> None:
    plain, *others = TINY["stages"]
    stages = [plain, {**plain, "rounded": True}, *others]
    config = tiny(stages=stages, compressed={"cache": "published"})
    trainer = Trainer(config, "compressed", tmp_path)
    formats = []
    for _ in trainer._steps():
        attention = {layer.self_attn.cache_format.name for layer in trainer.model.model.layers}
        formats.append(attention)
    steps = plain["steps"]
    assert formats[: 2 * steps] == [{"full"}] * steps + [{"published"}] * steps
    assert formats[2 * steps] == {"full"}


def test_a_format_that_an_arm_does_not_have_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"^dense\.cache: got .published., expected one"):
        Trainer(tiny(dense={"cache": "published"}), "dense", tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- what a training begins from and keeps ---------------------------------------------------


def test_a_stage_that_may_hold_no_answer_is_refused(tmp_path: Path) -> None:
    stage = {"steps": 1, "length": 128, "items": [1, 2], "families": {"single_uuid": 1}}
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump({**TINY, "stages": [stage]}), encoding="utf-8")
    message = r"stages\.0: .*no answer: single_uuid may take 170 tokens, and length is 128"
    with pytest.raises(TrainingError, match=message) as caught:
        load_train_config(path)
    assert "\n" not in str(caught.value)


def test_every_field_is_documented() -> None:
    told = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "training.md").read_text("utf-8")))
    for section in (TrainConfig, Stage, DistantSettings, ArmSettings):
        assert set(section.model_fields) <= told


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": True}, r"seed"),
        ({"clip": "1.0"}, r"clip"),
        ({"compile": "yes"}, r"compile"),
        ({"stages": [{**TINY["stages"][0], "steps": "5"}]}, r"stages\.0\.steps"),
        ({"stages": [{**TINY["stages"][0], "items": [True, 2]}]}, r"stages\.0\.items\.0"),
    ],
)
def test_nothing_is_coerced(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}), encoding="utf-8")
    with pytest.raises(TrainingError, match=f"train.yaml: {message}: .*valid"):
        load_train_config(path)


def test_every_stage_leaves_weights_and_half_precise_moments(tmp_path: Path) -> None:
    config = tiny()
    Trainer(config, "compressed", tmp_path / "whole").run()
    first = load_file(tmp_path / "whole" / "stage-1.safetensors")
    last = load_file(tmp_path / "whole" / "stage-2.safetensors")
    full = load_file(tmp_path / "whole" / "state.safetensors")
    assert first.keys() == last.keys() == full.keys()
    for name, tensor in full.items():
        kept = tensor if name.startswith("w.") or tensor.numel() == 1 else tensor.bfloat16()
        assert torch.equal(last[name], kept), name

    again = tmp_path / "again"
    again.mkdir()
    (tmp_path / "whole" / "stage-1.safetensors").rename(again / "state.safetensors")
    resumed = Trainer(config, "compressed", again)
    assert resumed.step == config.stages[0].steps
    resumed.run()
    curves = [
        [json.loads(line)["step"] for line in (folder / "curve.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "whole", again)
    ]
    assert curves[0][-1] == curves[1][-1] == 6
    moments = (s for o in resumed.optimizers for s in o.state.values())
    assert all(tensor.dtype == torch.float32 for state in moments for tensor in state.values())


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(ValidationError, match="seed"):
        tiny(seed=seed)


def test_another_seed_is_another_training_in_a_folder_of_its_own(tmp_path: Path) -> None:
    path, out = tmp_path / "tiny.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump({**TINY, "seed": 1, "keep_buffers": False}), encoding="utf-8")
    folders = [train(path, "dense", out, seed=seed).folder for seed in (None, 1, 2)]
    assert folders == [out / name for name in ("dense", "dense-seed-1", "dense-seed-2")]
    default, same, other = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(tensor, same[name]) for name, tensor in default.items())
    assert not torch.equal(default["lm_head.weight"], other["lm_head.weight"])
    first, second = (
        json.loads((folder / "curve.jsonl").read_text().splitlines()[0]) for folder in folders[1:]
    )
    assert first["text"] != second["text"]


def test_an_arm_begins_from_its_checkpoint_with_its_own_fields(tmp_path: Path) -> None:
    base = tiny()
    before = build_model(base, "compressed", 64)
    weights.initialize(before, 5)
    weights.save(before, tmp_path)
    own = {"initial": str(tmp_path), "sharpen": 2.0, "model": {"index_topk": 2}}
    model = build_model(tiny(compressed=own), "compressed", 64)
    assert model.config.index_topk == 2
    scaled = {
        f"model.layers.{layer}.self_attn.{name}.weight": factor
        for layer in (1, 2)
        for name, factor in (("kv_norm", 2.0), ("compressor.kv_norm", 2.0), ("o_a_proj", 0.5))
    }
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before.state_dict()[name] * scaled.get(name, 1)), name
    dense = build_model(tiny(compressed=own), "dense", 64)
    assert dense.config.index_topk == 4  # the other arm keeps the shared fields


def test_arms_differ_in_their_global_layers_alone() -> None:
    """Sliding layers, width and trunk are the same; so are the batches, which no arm decides."""
    arms: tuple[Twin, ...] = ("compressed", "dense", "mla", "dsa")
    configs = {arm: build_model(tiny(), arm, 64).config for arm in arms}
    compressed = configs["compressed"].layer_types
    kinds = {"dense": FULL, "mla": MLA, "dsa": DSA}
    for arm, kind in kinds.items():
        expected = tuple(each if each == SLIDING else kind for each in compressed)
        assert configs[arm].layer_types == expected
        same = replace(
            configs[arm],
            layer_types=compressed,
            latent=None,
            index_topk=TINY["model"]["index_topk"],
        )
        assert same == configs["compressed"]


def test_engram_is_the_compressed_arm_with_a_memory_beside_it() -> None:
    memory = {"layers": [1], "rows": 64}
    config = tiny(engram={"model": {"engram": memory}})
    found, plain = (build_model(config, arm, 64).config for arm in ("engram", "compressed"))
    assert replace(found, engram=None) == plain
    assert found.engram is not None
    with pytest.raises(TrainingError, match=r"^engram.model.engram: is missing, expected at least"):
        build_model(tiny(), "engram", 64)


def test_an_engram_that_its_checkpoint_does_not_have_begins_silent(tmp_path: Path) -> None:
    before = build_model(tiny(), "compressed", 64)
    weights.initialize(before, 5)
    weights.save(before, tmp_path)
    memory = {"engram": {"layers": [1], "rows": 64}}
    own = {"initial": str(tmp_path), "model": memory}
    with_engram = build_model(tiny(engram=own), "engram", 64)
    tables = [tensor for name, tensor in with_engram.state_dict().items() if "table" in name]
    assert tables
    assert all(tensor.std() > 0.1 for tensor in tables)
    ids = torch.arange(40).unsqueeze(0) % 64
    torch.testing.assert_close(with_engram(ids), before(ids))
    (tmp_path / "with").mkdir()
    weights.save(with_engram, tmp_path / "with")
    with pytest.raises(TrainingError, match=r"^compressed\.initial: .*engram"):
        build_model(tiny(compressed={"initial": str(tmp_path / "with")}), "compressed", 64)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, r"^taught: family: .*facts.jsonl cannot be read"),
        (["{}"], r"^taught: family: .*facts.jsonl, line 1: fact: is missing"),
        (
            ['{"fact": "A is 1 and 2.", "question": "A?", "answer": ["1", "2"]}'],
            r"^taught: needle 1 has 2 answers, expected 1$",
        ),
    ],
)
def test_taught_facts_that_cannot_be_used_are_one_line(
    tmp_path: Path, lines: list[str] | None, message: str
) -> None:
    path = tmp_path / "facts.jsonl"
    if lines is not None:
        path.write_text("\n".join(lines))
    with pytest.raises(TrainingError, match=message):
        taught_facts(tiny(taught=str(path)))


def test_the_changed_facts_are_the_taught_ones_with_other_values() -> None:
    config = load_train_config(ROOT / "configs" / "train-engram.yaml")
    sweep = load_sweep(ROOT / "configs" / "engram.yaml")
    taught, changed = (name for name in sweep.families if name.startswith("file:"))
    files = [(sweep.folder / name.removeprefix("file:")).resolve() for name in (taught, changed)]
    assert files[0] == ROOT / str(config.taught)
    ours, theirs = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
    assert [line["question"] for line in ours] == [line["question"] for line in theirs]
    assert not {line["answer"] for line in ours} & {line["answer"] for line in theirs}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mla": {"sharpen": 2.0, "model": LATENTS}}, r"^mla.sharpen: got 2.0, expected 1"),
        ({"distant": {"seen": 4}}, r"^distant: got settings, expected null: arm mla"),
        (
            {"mla": {}},
            r"^model of arm mla: latent: got None, "
            r"expected widths if and only if a layer is one of lat",
        ),
        (
            {"mla": {"model": {"latent": {**LATENTS["latent"], "v_head_dim": 0}}}},
            r"^model of arm mla: latent.v_head_dim: got 0, expected a whole number from 1$",
        ),
        (
            {"mla": {"model": {"latent": {"rank": 4}}}},
            r"^model of arm mla: latent: got \['rank'\], "
            r"expected fields among kv_lora_rank, mscale_all_dim, qk",
        ),
        (
            {"mla": {"model": {"latent": 4}}},
            r"^model of arm mla: latent: got 4, expected fields among kv_lora_rank",
        ),
    ],
)
def test_what_an_arm_of_latents_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(tiny(**changes), "mla", 64)


def test_a_checkpoint_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    config = tiny(dense={"initial": str(tmp_path / "nothing")})
    with pytest.raises(TrainingError, match=r"dense\.initial: .*nothing") as caught:
        Trainer(config, "dense", tmp_path / "run")
    assert "\n" not in str(caught.value)
