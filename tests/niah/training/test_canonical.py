"""Canonical ids of the bundled tokenizer, and who gets them."""

from __future__ import annotations

import torch

from haystacks.tokenizer import load_tokenizer
from models.deepseek_v4.config import EngramShape
from models.deepseek_v4.engram import Engram
from niah.training.canonical import canonical_ids, set_canonical_ids
from niah.training.config import TrainConfig
from niah.training.optimizer import build_optimizers
from niah.training.trainer import build_model
from tests.niah.training.test_trainer import TINY


def test_ids_of_one_text_are_one() -> None:
    tokenizer = load_tokenizer("bundled-bpe-2048")
    ids = canonical_ids(tokenizer).tolist()

    def id_of(text: str) -> int:
        (token,) = tokenizer.encode(text)
        return ids[token]

    assert id_of("the") == id_of(" the") == id_of("The") == id_of(" The")
    assert id_of("the") != id_of("a")
    assert all(ids[ids[token]] == ids[token] <= token for token in range(tokenizer.vocab_size))
    assert len(set(ids)) < tokenizer.vocab_size


def test_a_model_in_training_gets_them_and_its_tables_a_rate_of_their_own() -> None:
    tokenizer = load_tokenizer("bundled-bpe-2048")
    shape = EngramShape(layers=(1,), rows=64)
    fields = {**TINY["model"], "engram": {"layers": [1], "rows": 64}}
    config = TrainConfig.model_validate({**TINY, "model": fields})
    model = build_model(config, "dsa", tokenizer.vocab_size)
    assert model.config.engram == shape
    set_canonical_ids(model, tokenizer)
    (module,) = (m for m in model.modules() if isinstance(m, Engram))
    assert torch.equal(module.canonical, canonical_ids(tokenizer))
    optimizers = build_optimizers(model, 0.01, 0.02, 0.0)
    rates = {id(p): g["lr"] for o in optimizers for g in o.param_groups for p in g["params"]}
    assert rates[id(module.table)] == 5 * 0.02
    assert rates[id(module.key_norm)] == 0.02
    assert rates[id(module.value_proj.weight)] == 0.01
    assert len(rates) == len(list(model.parameters()))
