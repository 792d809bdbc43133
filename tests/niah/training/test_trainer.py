"""The training's parts: the optimiser, what batches hold, and a resume that changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from haystacks.corpora.registry import Corpus
from haystacks.needles.registry import FAMILIES
from haystacks.needles.values import value_split
from haystacks.needles.words import adjectives, nouns
from haystacks.tokenizer import FastTokenizer, load_tokenizer
from niah.training import wordings
from niah.training.batches import TAUGHT, TRAINABLE, Batch, Mixture, MixtureSettings
from niah.training.coined import CoinedWords
from niah.training.config import TrainConfig, TrainingError, load_train_config
from niah.training.optimizer import Muon, orthogonalize
from niah.training.trainer import Trainer, Twin

# --- optimiser -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (3, 16, 24), (5, 24, 16)])
def test_orthogonalize_brings_singular_values_near_one(shape: tuple[int, ...]) -> None:
    """Five iterations with these coefficients promise about 0.7 to 1.2, not exactly 1."""
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalize(matrices)
    assert result.shape == matrices.shape
    singular = torch.linalg.svdvals(result)
    assert float(singular.min()) > 0.6
    assert float(singular.max()) < 1.3
    # The same singular vectors: the polar factor's direction.
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    inner = ((u @ v) * result).sum((-2, -1)) / singular.sum(-1)
    torch.testing.assert_close(inner, torch.ones_like(inner), rtol=1e-3, atol=1e-3)


def test_a_step_of_muon_has_the_size_of_an_adamw_step() -> None:
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(24, 40))
    before = parameter.detach().clone()
    parameter.grad = 1e-6 * torch.randn(24, 40)  # the gradient's scale does not matter
    Muon([parameter], lr=0.1, weight_decay=0.0).step()
    step = (parameter.detach() - before).square().mean().sqrt()
    assert float(step) == pytest.approx(0.1 * 0.18, rel=0.2)


# --- batches ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> FastTokenizer:
    return load_tokenizer("bundled-bpe-2048")


class Dots(NamedTuple):
    """A text of full stops alone, so that every word of a batch is a statement's."""

    ids: np.ndarray
    num_tokens: int


@pytest.fixture(scope="module")
def mixture(tokenizer: FastTokenizer) -> Mixture:
    (dot,) = tokenizer.encode(".")
    dots = Dots(np.full(100_000, dot, dtype=np.uint16), 100_000)
    return Mixture(cast(Corpus, dots), tokenizer, seed=3)


FACTS = MixtureSettings(
    length=512, items=(3, 9), snippet_share=0.0, coined_key_share=0.0, noise_share=0.0
)
SNIPPETS = MixtureSettings(length=512, items=(3, 9), snippet_share=1.0, noise_share=0.0)
CROWDED = MixtureSettings(length=128, items=(8, 12))
JUMPING = MixtureSettings(length=512, items=(3, 9), jump_share=1.0)


@pytest.mark.parametrize("settings", [FACTS, SNIPPETS, CROWDED, JUMPING])
def test_a_batch_depends_on_seed_and_step_alone(
    mixture: Mixture, settings: MixtureSettings
) -> None:
    first = mixture.batch(7, 3, settings)
    mixture.batch(8, 2, settings)
    again = Mixture(mixture.corpus, mixture.tokenizer, seed=3).batch(7, 3, settings)
    other_step = mixture.batch(9, 3, settings)
    other_seed = Mixture(mixture.corpus, mixture.tokenizer, seed=4).batch(7, 3, settings)
    assert first.ids.shape == first.answers.shape == (3, settings.length)
    for ours, theirs in zip(first[:3], again[:3], strict=True):
        assert torch.equal(ours, theirs)
    assert first.facts == again.facts
    for other in (other_step, other_seed):
        assert not torch.equal(first.ids, other.ids)


def answer_texts(batch: Batch, tokenizer: FastTokenizer) -> Iterator[tuple[str, str]]:
    """Each fact's answer as the marked positions predict it, and the text before it."""
    for row, first, last, _ in batch.facts:
        ids = batch.ids[row].tolist()
        yield tokenizer.decode(ids[first + 1 : last + 1]), tokenizer.decode(ids[: first + 1])


def test_marks_are_exactly_the_answers_to_stated_facts(
    mixture: Mixture, tokenizer: FastTokenizer
) -> None:
    asked = 0
    for step in range(20):
        batch = mixture.batch(step, 2, FACTS)
        marked = torch.zeros_like(batch.answers)
        for row, first, last, _ in batch.facts:
            marked[row, first:last] = True
        assert torch.equal(marked, batch.answers)
        for answer, before in answer_texts(batch, tokenizer):
            match = re.fullmatch(r" (\d{5})\.", answer)
            assert match, answer
            assert match[1] in before  # stated earlier
            asked += 1
    assert asked > 100


def test_snippets_are_repeated_as_they_were_seen(mixture: Mixture) -> None:
    batch = mixture.batch(0, 4, SNIPPETS)
    assert not batch.facts
    for ids, marks in zip(batch.ids, batch.answers, strict=True):
        edges = torch.diff(marks.int(), prepend=torch.zeros(1), append=torch.zeros(1))
        runs = zip(edges.eq(1).nonzero(), edges.eq(-1).nonzero(), strict=True)
        for first, last in ((int(a), int(b)) for a, b in runs):
            repeated = bytes_of(ids[first - 1 : last + 1])  # two prompt tokens and the answer
            assert repeated in bytes_of(ids[: first - 1])


def bytes_of(ids: Tensor) -> bytes:
    return ids.to(torch.int32).numpy().tobytes()


def test_only_training_words_and_values_occur(mixture: Mixture, tokenizer: FastTokenizer) -> None:
    in_templates = {"access", "bear"}  # "The access code of", "What code does ... bear?"
    held_out = {*adjectives("eval"), *nouns("eval")} - in_templates
    trained = {*adjectives("train"), *nouns("train")}
    seen: set[str] = set()
    for step in range(20):
        batch = mixture.batch(step, 2, FACTS)
        text = " ".join(tokenizer.decode(ids.tolist()) for ids in batch.ids)
        seen |= set(re.findall(r"[a-z]+", text.lower()))
        values = [answer.strip(" .") for answer, _ in answer_texts(batch, tokenizer)]
        assert {value_split(value) for value in values} == {"train"}
    assert not seen & held_out
    assert len(seen & trained) > 100


LISTS = ("multi_value", "multi_query", "variable_tracking")
ALL_FAMILIES = MixtureSettings(
    length=2048,
    items=(5, 18),
    snippet_share=0.0,
    coined_key_share=0.0,
    noise_share=0.0,
    families=dict.fromkeys(TRAINABLE, 1.0),
    varied_share=0.6,
)


def test_every_family_is_asked_after_its_statement_and_answered_with_it(
    mixture: Mixture, tokenizer: FastTokenizer
) -> None:
    asked: set[str] = set()
    for step in range(20):
        batch = mixture.batch(step, 2, ALL_FAMILIES)
        families = [str(span.family) for span in batch.facts]
        texts = answer_texts(batch, tokenizer)
        for family, (answer, before) in zip(families, texts, strict=True):
            assert answer[0] == " "
            assert answer[-1] in ".\n"
            values = re.split(r", | and ", answer[1:-1]) if family in LISTS else [answer[1:-1]]
            assert all(f" {value}" in before for value in values), (family, answer)  # stated
            asked.add(family)
    assert asked == set(TRAINABLE)


def test_taught_facts_are_asked_for_and_stated_nowhere(
    mixture: Mixture, tokenizer: FastTokenizer
) -> None:
    taught = tuple(FAMILIES["single_number"].make_many(np.random.default_rng(1), 5, "train"))
    settings = replace(FACTS, taught_share=0.5)
    learning = Mixture(mixture.corpus, tokenizer, seed=3, taught=taught)
    answers = {fact.question: fact.gold[0] for fact in taught}
    asked = dict.fromkeys(answers, 0)
    planted = 0
    for step in range(20):
        batch = learning.batch(step, 2, settings)
        for (answer, before), span in zip(answer_texts(batch, tokenizer), batch.facts, strict=True):
            if span.family != TAUGHT:
                assert answer[1:-1] in before
                planted += 1
                continue
            (question,) = (text for text in answers if before.endswith(text))
            assert answer == f" {answers[question]}."
            assert (batch.sources[span.row, span.first : span.last] == -1).all()
            asked[question] += 1
        for text in map(tokenizer.decode, batch.ids.tolist()):
            assert all(text.count(gold) == text.count(asks) for asks, gold in answers.items())
    assert min(asked.values()) > 5
    assert planted > 50


def test_coined_words_are_stated_asked_for_and_in_no_list(
    mixture: Mixture, tokenizer: FastTokenizer
) -> None:
    listed = {*nouns("train"), *nouns("eval")}
    settings = replace(ALL_FAMILIES, families={"single_word": 1.0}, rival_share=0.5)
    found = {}
    for share in (0.0, 0.5, 1.0):
        words = []
        for step in range(10):
            batch = mixture.batch(step, 2, replace(settings, coined_word_share=share))
            for answer, before in answer_texts(batch, tokenizer):
                assert f"{answer[:-1]}" in before  # stated
                assert re.fullmatch(r" [a-z]+\.", answer)
                words.append(answer[1:-1])
        assert not set(words) & set(nouns("eval"))
        found[share] = sum(word not in listed for word in words) / len(words)
    assert found[0.0] == 0
    assert found[0.5] == pytest.approx(0.5, abs=0.15)
    assert found[1.0] > 0.98  # pieces may make a word of the training's list


def test_no_coined_word_is_kept_for_evaluation(tokenizer: FastTokenizer) -> None:
    coined = CoinedWords(tokenizer)
    coined.pieces = ["a", "corn"]  # of which "acorn" is held out
    rng = np.random.default_rng(0)
    words = {coined.draw(rng) for _ in range(300)}
    assert "acorn" in coined.held_out
    assert "acorn" not in words
    assert "corna" in words


def test_one_family_alone_draws_the_batches_it_always_drew(
    mixture: Mixture, tokenizer: FastTokenizer
) -> None:
    """A checkpoint's first stages can be repeated: more families came later."""
    digest = hashlib.sha256(mixture.batch(5, 2, FACTS).ids.numpy().tobytes()).hexdigest()
    assert digest[:16] == "0ac8dbcb01bc2b62"


def test_made_up_wordings_use_no_word_kept_for_evaluation() -> None:
    rng = np.random.default_rng(0)
    peculiar = {"locker", "clerk", "label", "parcel", "gate", "agreed", "printed"}
    held_out = {*adjectives("eval"), *nouns("eval")} - {"tell"}  # "Tell me the ... of"
    for _ in range(300):
        wording = wordings.english(rng)
        assert "{key}" in wording.statement
        said = f"{wording.ask} {wording.statement}".format(key="", noun="")
        assert not set(re.findall(r"[a-z]+", said.lower())) & (peculiar | held_out), said


def test_wordings_from_text_survive_braces() -> None:
    wording = wordings.scraps(np.random.default_rng(0), lambda rng, n: "a {b} c" * n)
    assert "k v" in wording.piece("k v", "code", "123")
    assert wording.question("k v", "code").endswith(wording.statement.format(key="k v"))


@pytest.mark.parametrize(
    ("families", "complaint"),
    [
        ("{common_words: 1}", "families should be among single_number"),
        ("{single_word: 0}", "the weight of single_word should be a positive number"),
        ("{}", "families should name one at least"),
    ],
)
def test_families_have_to_be_trainable(tmp_path: Path, families: str, complaint: str) -> None:
    stage = f"{{steps: 1, length: 128, items: [1, 2], families: {families}}}"
    path = tmp_path / "train.yaml"
    path.write_text(f"name: x\nmodel: {{}}\nstages: [{stage}]\n", encoding="utf-8")
    with pytest.raises(TrainingError, match=complaint):
        load_train_config(path)


def test_positions_jump_by_whole_windows(mixture: Mixture) -> None:
    positions = mixture.batch(0, 1, JUMPING).positions
    gaps = positions.diff()
    jumps = (gaps != 1).nonzero().flatten()
    assert len(jumps)
    assert bool(((jumps + 1) % 128 == 0).all())
    assert bool(((gaps[jumps] - 1) % 128 == 0).all())
    assert int(positions[-1]) < JUMPING.max_jump
    assert torch.equal(mixture.batch(0, 1, FACTS).positions, torch.arange(512))


# --- training --------------------------------------------------------------------------------

LATENTS = {"latent": {"kv_lora_rank": 8, "qk_nope_head_dim": 4, "v_head_dim": 8}}
TINY: dict[str, Any] = {
    "name": "tiny",
    "corpus": "random-tokens",
    "model": {
        "hidden_size": 16,
        "layer_types": [
            "sliding_attention",
            "compressed_sparse_attention",
            "heavily_compressed_attention",
        ],
        "num_attention_heads": 2,
        "head_dim": 8,
        "qk_rope_head_dim": 4,
        "q_lora_rank": 8,
        "o_groups": 2,
        "o_lora_rank": 4,
        "n_routed_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 8,
        "routed_scaling_factor": 1.5,
        "index_topk": 4,
        "index_n_heads": 2,
        "index_head_dim": 4,
        "num_hash_layers": 1,
        "hc_sinkhorn_iters": 3,
    },
    "stages": [
        {"steps": 2, "length": 256, "batch_tokens": 256, "items": [2, 4], "sparse": False},
        {"steps": 4, "length": 256, "batch_tokens": 512, "items": [2, 4], "jump_share": 0.5},
    ],
    "warmup_steps": 2,
    "mla": {"model": LATENTS},
    "dsa": {"model": {**LATENTS, "index_topk": 20}},
}


@pytest.fixture(autouse=True)
def quiet_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A cache of its own, and the signal handlers back as they were."""
    monkeypatch.setenv("NIAH_CACHE", str(tmp_path / "cache"))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """All weights and moments, by name."""
    state = {f"w.{k}": v for k, v in trainer.model.state_dict().items()}
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    for optimizer in trainer.optimizers:
        for parameter, moments in optimizer.state.items():
            state |= {f"{names[id(parameter)]}.{k}": v for k, v in moments.items()}
    return state


DISTANT = {"seen": 64, "kept": 200, "added": 50, "queries": 40, "index_flow": 0.3}


@pytest.mark.parametrize(
    ("arm", "distant"),
    [
        *(("compressed", None), ("compressed", DISTANT), ("dense", None), ("dense", DISTANT)),
        *(("mla", None), ("dsa", None)),
    ],
)
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    arm: Twin, distant: dict[str, Any] | None, tmp_path: Path
) -> None:
    config = TrainConfig.model_validate({**TINY, "distant": distant})
    whole = Trainer(config, arm, tmp_path / "whole")
    untrained = whole.model.state_dict()["lm_head.weight"].clone()
    whole.run()

    killed = Trainer(config, arm, tmp_path / "killed")
    steps = killed._steps()
    for _ in range(3):
        next(steps)
    killed.save()
    next(steps)  # a step that was never saved is lost with the process
    resumed = Trainer(config, arm, tmp_path / "killed")
    assert resumed.step == 3
    resumed.run()

    assert (resumed.step, resumed.tokens) == (whole.step, whole.tokens) == (6, 2 * 256 + 4 * 512)
    expected, actual = state_of(whole), state_of(resumed)
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name
    assert not torch.equal(expected["w.lm_head.weight"], untrained)


def test_a_stop_request_saves_and_the_next_run_goes_on(tmp_path: Path) -> None:
    config = TrainConfig.model_validate(TINY)
    trainer = Trainer(config, "compressed", tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    steps = trainer._steps

    def killed_in_the_first_step() -> Iterator[dict[str, float]]:
        for figures in steps():
            os.kill(os.getpid(), signal.SIGTERM)
            yield figures

    trainer._steps = killed_in_the_first_step  # type: ignore[method-assign]
    trainer.run()
    assert trainer.step == 1
    assert signal.getsignal(signal.SIGTERM) is before
    finished = Trainer(config, "compressed", tmp_path)
    assert finished.step == 1
    finished.run()
    curve = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert curve[-1]["step"] == 6
    assert all(np.isfinite(value) for row in curve for value in row.values())


def written(folder: Path, change: dict[str, Any]) -> Path:
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump({**TINY, **change}))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 3}, r"train\.yaml: stepz: Extra inputs are not permitted, got 3$"),
        ({"clip": 0}, r"clip: Input should be greater than 0, got 0$"),
        ({"stages": []}, r"stages: .*at least 1 item"),
        (
            {"stages": [{"steps": 1, "length": 256, "items": [1, 2], "taught_share": 0.5}]},
            r"train\.yaml: taught: names no file, but a stage has a taught_share$",
        ),
        (
            {"stages": [{"steps": 1, "items": [1, 2]}]},
            r"train\.yaml: stages\.0\.length: Field required$",
        ),
        (
            {"stages": [{"steps": 1, "length": 128, "items": [9, 2]}]},
            r"stages\.0: items should be \[fewest, most\], at least 1 and in order: \(9, 2\)$",
        ),
        (
            {"stages": [{"steps": 1, "length": 64, "items": [1, 2]}]},
            r"stages\.0\.length: Input should be greater than or equal to 128, got 64$",
        ),
    ],
)
def test_a_wrong_configuration_is_one_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        load_train_config(written(tmp_path, change))
    assert "\n" not in str(caught.value)


def test_a_missing_configuration_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"nowhere\.yaml"):
        load_train_config(tmp_path / "nowhere.yaml")


def test_an_impossible_model_is_named_before_anything_is_written(tmp_path: Path) -> None:
    model = {**TINY["model"], "o_groups": 3}
    config = load_train_config(written(tmp_path, {"model": model}))
    with pytest.raises(TrainingError, match=r"^model of arm dense: o_groups: got 3, expected a di"):
        Trainer(config, "dense", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("items", [[5, 2], [0, 0], [0, 3]])
def test_items_have_to_be_a_range_of_at_least_one(tmp_path: Path, items: list[int]) -> None:
    path = tmp_path / "train.yaml"
    stage = {"steps": 1, "length": 128, "items": items}
    path.write_text(yaml.safe_dump({"name": "t", "model": {}, "stages": [stage]}))
    with pytest.raises(TrainingError, match="items should be"):
        load_train_config(path)
