"""Loads a checkpoint's folder: `config.json`, weights, and `model.json`, its card.

The layout is our own, transformers' or the official one. The card says which tokenizer the ids
belong to; a folder without a card has a tokenizer of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from models.deepseek_v3.model import LatentTwin
from models.deepseek_v4 import session_files, weights
from models.deepseek_v4.checkpoint_files import Card, read_card, read_config, read_eos_ids
from models.deepseek_v4.config import (
    CSA,
    DSA,
    HCA,
    MLA,
    SLIDING,
    DeepseekV4Config,
    is_uncompressed,
    selects,
)
from models.deepseek_v4.config import FULL as FULL_ATTENTION
from models.deepseek_v4.dense import DenseTwin
from models.deepseek_v4.layouts.folders import load_folder_into
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import AtQuestion, DeepseekV4Session, Memory
from models.devices import find_device, find_dtype
from models.errors import ModelError
from models.number_formats import FULL, CacheFormat, cache_format
from models.options import whole_number
from models.presses.observed import union
from models.presses.options import PRESSES, Pressing, pressing
from models.protocols import Forks, Model, Session, TokenizerRef

CACHE_KINDS = {
    "window": "exact keys of the newest tokens",
    "csa": "entries of a few tokens each, of which a query reads some (CSA)",
    "index": "the indexer's keys, by which a query chooses entries",
    "hca": "entries of many tokens each, all of which a query reads (HCA)",
    "tail": "the compressors' state: tokens that do not fill an entry yet",
    "full": "every token's own key, or its latent",
    "queries": "what a press has seen of queries, until the context ends",
    "pages": "bounds of the keys of each page, by which queries choose pages",
    "engram": "the newest token ids, for n-grams",
}
PLACEMENT = ("device", "dtype")
PRESS = "press"
CACHE = "cache"
WITHOUT = "without"
QUESTION_TOPK = "question_topk"
MEMORIES: dict[Memory, tuple[str, ...]] = {
    "hca": (HCA,),
    "csa": (CSA,),
    "window": (SLIDING, CSA, HCA),
}
"""What the option `without` may name, and the kinds of layers that have it."""
STORED_LAYERS = (SLIDING, CSA, HCA, FULL_ATTENTION, MLA, DSA)
"""Kinds of layers whose caches store their rows in a format."""


@dataclass
class LoadedModel:
    """Implements `KeepingModel` and `SharingModel`.

    `trained` is the network's configuration before options.

    The fingerprint covers weights, configuration and every option that decides answers;
    `weights_fingerprint` of `describe()` leaves out the options, so that it tells other weights
    from other options.
    """

    name: str
    network: DeepseekV4
    card: Card
    trained: DeepseekV4Config
    options: Mapping[str, object] = field(default_factory=dict)
    forks: Forks = "share"
    eos_ids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self.network.eval()
        self.fingerprint = weights.fingerprint(self.network, self.network.config)
        self.weights_fingerprint = weights.fingerprint(self.network, self.trained)
        self.tokenizer = TokenizerRef(self.card.tokenizer_name, self.card.tokenizer_fingerprint)
        self.vocab_size = self.network.config.vocab_size
        self.max_position = self.network.config.max_position_embeddings
        self.cache_kinds = CACHE_KINDS
        self.pressing = pressing(self.options.get(PRESS))
        self.place()
        cache_format = chosen_format(self.network.config, self.options)
        self.network.store_in(cache_format)
        self.changes = changes_at_question(self.network.config, self.options)
        if cache_format.name != FULL:
            self.fingerprint = f"{self.fingerprint}-{cache_format.name}"
        self.unpressed_fingerprint = self.fingerprint
        if self.pressing:
            self.fingerprint = self._pressed_fingerprint(self.pressing)
        for name in (WITHOUT, QUESTION_TOPK):
            if name in self.options:
                self.fingerprint = f"{self.fingerprint}-{name}-{self.options[name]}"

    def _pressed_fingerprint(self, asked: Pressing) -> str:
        """Raises: ModelError where the model keeps latents or entries instead of keys, or the press
        is one of kvpress."""
        if self.network.config.latent is not None:
            raise ModelError(
                f"options.press: {self.name} keeps one latent for all heads (MLA), not keys"
            )
        if not is_uncompressed(self.network.config):
            raise ModelError(
                f"options.press: {self.name} keeps compressed entries, not every token's keys; "
                "its uncompressed twin can be pressed"
            )
        if asked.needs.inputs:
            raise ModelError(
                f"options.press.name: got {asked.settings()['name']!r}, but {self.name} is no "
                f"model of transformers; expected one of {', '.join(PRESSES)}"
            )
        text = json.dumps([self.fingerprint, asked.settings()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def place(self) -> None:
        """Move the network to its device and type."""
        dtype = find_dtype(self.options.get("dtype", "float32"))
        device = find_device(self.options.get("device", "cpu"))
        if dtype != torch.float32:
            self.fingerprint = f"{self.fingerprint}-{self.options['dtype']}"
        if self.eos_ids:
            self.fingerprint += "".join(f"-eos{i}" for i in sorted(self.eos_ids))
        self.network.to(device=device, dtype=dtype)
        self.device = str(device)

    def session(self) -> DeepseekV4Session:
        return self._prepared(DeepseekV4Session(self.network, eos_ids=self.eos_ids))

    def _prepared(self, session: DeepseekV4Session) -> DeepseekV4Session:
        """The session with what options have it do when the context ends."""
        if self.pressing:
            session.observe(self.pressing, self.pressing.needs)
        session.change_at_question(self.changes)
        return session

    @property
    def trunk(self) -> str:
        """Implements `SharingModel`."""
        return f"{self.unpressed_fingerprint}@{self.device}"

    def share(self, session: Session, models: Sequence[Model]) -> None:
        """Implements `SharingModel`."""
        assert isinstance(session, DeepseekV4Session)
        asked = [model.pressing for model in models if isinstance(model, LoadedModel)]
        session.observe(None, union(each.needs for each in asked if each))
        session.change_at_question(AtQuestion())

    def adopt(self, session: Session) -> None:
        """Implements `SharingModel`."""
        assert isinstance(session, DeepseekV4Session)
        session.press_with(self.pressing)
        session.change_at_question(self.changes)

    def save(self, session: Session, path: Path, notes: Mapping[str, str]) -> None:
        """Implements `KeepingModel`."""
        assert isinstance(session, DeepseekV4Session)
        session_files.save(path, self.fingerprint, session.state(notes))

    def restore(self, path: Path) -> tuple[DeepseekV4Session, dict[str, str]]:
        """Implements `KeepingModel`."""
        state = session_files.load(path, self.fingerprint)
        session = DeepseekV4Session.restored(self.network, state, eos_ids=self.eos_ids)
        return self._prepared(session), state.notes

    def describe(self) -> dict[str, object]:
        config = self.network.config
        return {
            "description": self.card.description,
            "architecture": _architecture(config),
            "parameters": weights.parameter_count(self.network),
            "layers": {kind: config.layer_types.count(kind) for kind in config.layer_types},
            "options": dict(self.options),
            "weights_fingerprint": self.weights_fingerprint,
            "config": {**config.as_dict(), "layer_types": list(config.layer_types)},
        }


def build(config: DeepseekV4Config) -> DeepseekV4:
    """The class that the layer types ask for, weights not yet set."""
    if config.latent is not None:
        return LatentTwin(config)
    return DenseTwin(config) if is_uncompressed(config) else DeepseekV4(config)


def _architecture(config: DeepseekV4Config) -> str:
    """For the page."""
    names = {MLA: "latent attention (MLA)", DSA: "sparse latent attention (DSA)"}
    parts = [name for kind, name in names.items() if kind in config.layer_types]
    if is_uncompressed(config):
        parts.append("uncompressed")
    if config.engram is not None:
        parts.append("memory of n-grams (Engram)")
    return ", ".join(("DeepSeek-V4", *parts))


def load_folder(name: str, folder: Path, options: Mapping[str, object]) -> LoadedModel:
    """Raises ModelError if a file is missing or does not fit, or an option does not apply."""
    trained = read_config(folder)
    config = override(trained, options)
    card = read_card(folder)
    network = build(config)
    load_folder_into(network, folder)
    return LoadedModel(name, network, card, trained, options, eos_ids=read_eos_ids(folder))


def chosen_format(config: DeepseekV4Config, options: Mapping[str, object]) -> CacheFormat:
    """How the option `cache` has rows stored. Raises: ModelError."""
    word, others = options.get(CACHE, FULL), set(config.layer_types) - set(STORED_LAYERS)
    if word != FULL and others:
        raise ModelError(
            f"options.cache: got {word!r}, but layers of the kind {min(others)} are held in full "
            f"precision alone; expected {FULL}"
        )
    rotary = config.qk_rope_head_dim
    made = cache_format(
        word,
        config.head_dim - rotary,
        rotary,
        config.index_head_dim if selects(config) else None,
        published=not is_uncompressed(config) and config.latent is None,
    )
    if config.latent is None:
        return made
    return replace(made, latent=cache_format(word, config.latent.kv_lora_rank, rotary).entry)


def changes_at_question(config: DeepseekV4Config, options: Mapping[str, object]) -> AtQuestion:
    """What the options `without` and `question_topk` change. Raises: ModelError."""
    word = options.get(WITHOUT)
    topk = whole_number(QUESTION_TOPK, options[QUESTION_TOPK]) if QUESTION_TOPK in options else None
    if word is None:
        return AtQuestion(topk=topk)
    present = [name for name, kinds in MEMORIES.items() if set(kinds) & set(config.layer_types)]
    if word == "csa" and topk is not None:
        raise ModelError(
            f"options.{QUESTION_TOPK}: got {topk}, but without: csa leaves no entries to select; "
            "leave it out"
        )
    for name in present:
        if word == name:
            return AtQuestion(name, topk)
    raise ModelError(f"options.{WITHOUT}: got {word!r}, expected one of {', '.join(present)}")


def override(
    config: DeepseekV4Config, options: Mapping[str, object], others: Collection[str] = ()
) -> DeepseekV4Config:
    """The configuration with options in place of fields that change no weight.

    `others` are options that the caller takes care of.

    Raises:
        ModelError: an option that is unknown, has no effect on this model, or is no count.
    """
    others = (*others, *PLACEMENT, CACHE)
    dense = is_uncompressed(config)
    fields = ["sliding_window", "max_position_embeddings"]
    if selects(config):
        fields.insert(0, "index_topk")
    if dense:
        others = (*others, PRESS)
    elif CSA in config.layer_types:
        others = (*others, WITHOUT, QUESTION_TOPK)
    elif HCA in config.layer_types:
        others = (*others, WITHOUT)
    unknown = [name for name in options if name not in (*fields, *others, PRESS)]
    if unknown:
        choices = ", ".join((*fields, *others))
        raise ModelError(f"options: got {unknown[0]!r}, expected one of {choices}")
    chosen: dict[str, Any] = {n: whole_number(n, options[n]) for n in fields if n in options}
    return replace(config, **chosen)
