"""Names to models: what each promises the harness, and what is refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models import registry
from models.deepseek_v4 import weights
from models.deepseek_v4.checkpoint_files import Card, write_card
from models.deepseek_v4.config import HCA, SLIDING, uncompressed
from models.deepseek_v4.loading import build, override
from models.errors import ModelError, UnknownModelError
from models.protocols import Model, Session, TokenizerRef
from models.registry import RANDOM, available_models, configuration, load_model
from tests.models.small import LATENT, REAL, random_ids, randomized
from tests.sessions import greedy_ids, held_total

CARD = Card("bundled-bpe-2048", "0123456789abcdef", "a test's model")


@pytest.fixture(params=[REAL, uncompressed(REAL), LATENT])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint, of each kind."""
    weights.save(randomized(build(request.param), seed=0), tmp_path)
    write_card(tmp_path, CARD)
    return tmp_path


@pytest.mark.parametrize("name", ["random-v4", "random-dense", "random-mla", "random-dsa"])
def test_random_models_keep_the_protocols(name: str) -> None:
    model: Model = load_model(name)
    assert model.name == name
    assert model.tokenizer == TokenizerRef("bundled-bpe-2048")
    assert (model.vocab_size, model.max_position) == (2048, 2**20)
    session: Session = model.session()
    session.read(random_ids(200, vocab_size=2048).numpy())
    assert session.position == 200
    assert len(greedy_ids(session.fork(), 3)) == 3
    assert held_total(session) > 0
    json.dumps(model.describe())
    assert model.describe()["parameters"] == sum(
        p.numel() for p in build(configuration(name)).parameters()
    )


def test_fingerprints_tell_weights_and_options_apart() -> None:
    options: list[dict[str, object]] = [{}, {"seed": 1}, {"index_topk": 8}, {"sliding_window": 64}]
    options += [{"cache": word} for word in ("bf16", "int4", "published")]
    options += [
        {"without": "hca"},
        {"without": "csa"},
        {"without": "window"},
        {"question_topk": 8},
        {"question_topk": 9},
    ]
    prints = [load_model("random-v4", choice).fingerprint for choice in options]
    assert len(set(prints)) == len(prints)
    assert load_model("random-v4", {"seed": 0}).fingerprint == prints[0]
    assert load_model("random-dense").fingerprint not in prints
    assert load_model("random-v4", {"cache": "full"}).fingerprint == prints[0]
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in prints[:4])
    assert prints[4] == f"{prints[0]}-bf16"


def test_a_fingerprint_of_the_weights_leaves_out_options() -> None:
    def described(**options: object) -> object:
        return load_model("random-v4", options).describe()["weights_fingerprint"]

    assert described() == described(index_topk=8) == described(sliding_window=64)
    assert described() == described(cache="int4")
    assert described() != described(seed=1)


def test_options_leave_a_checkpoints_weights_fingerprint(folder: Path) -> None:
    plain, narrow = (load_model(f"path:{folder}", o) for o in ({}, {"sliding_window": 4}))
    assert plain.describe()["weights_fingerprint"] == plain.fingerprint
    assert narrow.describe()["weights_fingerprint"] == plain.fingerprint != narrow.fingerprint


def test_a_checkpoint_is_the_model_saved(folder: Path) -> None:
    model = load_model(f"path:{folder}")
    assert model.tokenizer == TokenizerRef(CARD.tokenizer_name, CARD.tokenizer_fingerprint)
    assert model.describe()["description"] == "a test's model"
    saved = build(configuration(f"path:{folder}"))
    weights.load_weights(saved, folder)
    assert model.fingerprint == weights.fingerprint(saved, saved.config)
    session = model.session()
    session.read(random_ids(10).numpy())
    expected = saved(random_ids(10)[None])[0, -1]
    torch.testing.assert_close(session.next_logits(), expected.detach(), rtol=1e-4, atol=1e-4)


def test_options_change_what_is_selected() -> None:
    ids = random_ids(300, vocab_size=2048).numpy()
    logits = []
    for topk in (64, 1):
        session = load_model("random-v4", {"index_topk": topk}).session()
        session.read(ids)
        logits.append(session.next_logits())
    assert not torch.equal(*logits)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nano", {}, r"^model: got 'nano', expected one of nano-v4, nano-dense, nano-v4-engine, "),
        (
            "random-v4",
            {"topk": 4},
            r"^options: got 'topk', expected one of index_topk, .*, cache, without, question_topk$",
        ),
        ("random-v4", {"hidden_size": 4}, r"^options: got 'hidden_size', expected one of"),
        ("random-dense", {"index_topk": 4}, r"^options: got 'index_topk', expected one of slid"),
        ("random-mla", {"index_topk": 4}, r"^options: got 'index_topk', expected one of slid"),
        ("random-v4", {"index_topk": 0}, r"^options.index_topk: got 0, expected a whole number"),
        ("random-v4", {"index_topk": "8"}, r"^options.index_topk: got '8', expected a whole"),
        ("random-v4", {"index_topk": True}, r"^options.index_topk: got True, expected a whole"),
        (
            "random-v4",
            {"without": "mla"},
            r"^options.without: got 'mla', expected one of hca, csa, window$",
        ),
        (
            "random-v4",
            {"question_topk": 8, "without": "csa"},
            r"^options.question_topk: got 8, but without: csa leaves no entries to select",
        ),
        ("random-v4", {"question_topk": 0}, r"^options.question_topk: got 0, expected a whole n"),
        ("random-dense", {"without": "hca"}, r"^options: got 'without', expected one of sliding"),
        ("random-v4", {"cache": "fp4"}, r"^options.cache: got 'fp4', expected one of full, bf16"),
        (
            "random-dense",
            {"cache": "published"},
            r"^options.cache: got 'published', expected one of full, .*nvfp4$",
        ),
        (
            "random-v4",
            {"dtype": ["float32"]},
            r"^options.dtype: got \['float32'\], expected one of float32, bfloat16, float16$",
        ),
        ("random-v4", {"seed": -1}, r"^options.seed: got -1, expected a whole number from 0$"),
        ("path:/nowhere", {}, r"^model: /nowhere holds no config.json: no checkpoint there$"),
    ],
)
def test_refusals(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(name, options)


def test_an_unknown_name_is_an_error_of_its_own() -> None:
    with pytest.raises(UnknownModelError):
        configuration("gpt-2")


def test_threads_below_one() -> None:
    with pytest.raises(ModelError, match=r"^threads: got 0, expected at least 1$"):
        load_model("random-v4", threads=0)


def damage_card(folder: Path) -> None:
    (folder / "model.json").write_text('{"description": "which tokenizer?"}')


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"hidden_size": 32')


def damage_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def change_shape(folder: Path) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "hidden_size": 64}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_card, r"model\.json: .*tokenizer_name"),
        (lambda folder: (folder / "model.json").unlink(), r"model\.json is missing"),
        (damage_config, r"config\.json: "),
        (damage_weights, r"model\.safetensors cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors cannot be"),
        (change_shape, r"weights do not fit .*config\.json: lm_head.weight has shape \[97, 32\]"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(folder: Path, damage: object, message: str) -> None:
    assert callable(damage)
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(f"path:{folder}")
    assert "\n" not in str(caught.value)


def test_the_zoo_holds_what_it_lists() -> None:
    for name in sorted(path.name for path in registry.ZOO.glob("*") if path.is_dir()):
        model = load_model(name)
        assert name in available_models()
        assert model.tokenizer is not None
        assert model.tokenizer.fingerprint is not None
        assert (registry.ZOO / name / "README.md").exists(), "a model card"
        assert (registry.ZOO / name / "model.safetensors").stat().st_size <= 9e6


def test_listing_names_imports_no_torch() -> None:
    code = (
        "import sys, models.registry as r; r.available_models(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=registry.ZOO.parents[1])


def test_random_models_have_real_proportions() -> None:
    assert (RANDOM.sliding_window, RANDOM.csa_ratio, RANDOM.hca_ratio) == (128, 4, 128)


def test_an_option_for_layers_that_select_wants_such_layers() -> None:
    config = replace(RANDOM, layer_types=(SLIDING, HCA, HCA, SLIDING))
    assert override(config, {"without": "hca"}) == config
    with pytest.raises(ModelError, match=r"^options: got 'question_topk', expected one of"):
        override(config, {"question_topk": 8})
