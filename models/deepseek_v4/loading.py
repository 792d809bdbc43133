"""Loads a checkpoint's folder: `config.json`, `model.safetensors`, and `model.json`, its card.

The card says which tokenizer the ids belong to.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError

from models.deepseek_v4 import session_files, weights
from models.deepseek_v4.config import FULL, DeepseekV4Config
from models.deepseek_v4.dense import DenseTwin
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from models.devices import find_device, find_dtype
from models.errors import ModelError
from models.protocols import Forks, Session, TokenizerRef

CARD_FILE = "model.json"


class Card(NamedTuple):
    """What a checkpoint says of itself."""

    tokenizer_name: str
    tokenizer_fingerprint: str | None = None
    description: str = ""


CACHE_KINDS = {
    "window": "exact keys of the newest tokens",
    "compressed": "entries of several tokens each",
    "index": "the indexer's keys, which choose entries",
    "tail": "tokens that do not fill an entry yet",
    "full": "every token's own key",
}
PLACEMENT = ("device", "dtype")


@dataclass
class LoadedModel:
    """Implements `KeepingModel`. `trained` is the network's configuration before options.

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

    def __post_init__(self) -> None:
        self.network.eval()
        self.fingerprint = weights.fingerprint(self.network, self.network.config)
        self.weights_fingerprint = weights.fingerprint(self.network, self.trained)
        self.tokenizer = TokenizerRef(self.card.tokenizer_name, self.card.tokenizer_fingerprint)
        self.vocab_size = self.network.config.vocab_size
        self.max_position = self.network.config.max_position_embeddings
        self.cache_kinds = CACHE_KINDS
        self.place()

    def place(self) -> None:
        """Move the network to its device and type."""
        dtype = find_dtype(self.options.get("dtype", "float32"))
        device = find_device(self.options.get("device", "cpu"))
        if dtype != torch.float32:
            self.fingerprint = f"{self.fingerprint}-{self.options['dtype']}"
        self.network.to(device=device, dtype=dtype)
        self.device = str(device)

    def session(self) -> DeepseekV4Session:
        return DeepseekV4Session(self.network)

    def save(self, session: Session, path: Path, notes: Mapping[str, str]) -> None:
        """Implements `KeepingModel`."""
        assert isinstance(session, DeepseekV4Session)
        session_files.save(path, self.fingerprint, session.state(notes))

    def restore(self, path: Path) -> tuple[DeepseekV4Session, dict[str, str]]:
        """Implements `KeepingModel`."""
        state = session_files.load(path, self.fingerprint)
        return DeepseekV4Session.restored(self.network, state), state.notes

    def describe(self) -> dict[str, object]:
        config = self.network.config
        return {
            "description": self.card.description,
            "architecture": "DeepSeek-V4, uncompressed" if is_dense(config) else "DeepSeek-V4",
            "parameters": weights.parameter_count(self.network),
            "layers": {kind: config.layer_types.count(kind) for kind in config.layer_types},
            "options": dict(self.options),
            "weights_fingerprint": self.weights_fingerprint,
            "config": {**config.as_dict(), "layer_types": list(config.layer_types)},
        }


def is_dense(config: DeepseekV4Config) -> bool:
    """Whether any layer keeps every token."""
    return FULL in config.layer_types


def build(config: DeepseekV4Config) -> DeepseekV4:
    """The class that the layer types ask for, weights not yet set."""
    return DenseTwin(config) if is_dense(config) else DeepseekV4(config)


def load_folder(name: str, folder: Path, options: Mapping[str, object]) -> LoadedModel:
    """Raises ModelError if a file is missing or does not fit, or an option does not apply."""
    trained = read_config(folder)
    config = override(trained, options)
    card = read_card(folder)
    network = build(config)
    try:
        weights.load_weights(network, folder)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"model: {folder / 'model.safetensors'} cannot be read: {error}") from None
    except RuntimeError as error:  # torch lists every tensor on a line of its own
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"model: weights do not fit {folder / 'config.json'}: {reason}") from None
    return LoadedModel(name, network, card, trained, options)


def read_config(folder: Path) -> DeepseekV4Config:
    """Raises ModelError if the folder holds no valid configuration."""
    try:
        return weights.load_config(folder)
    except OSError:
        raise ModelError(f"model: {folder} holds no config.json: no checkpoint there") from None
    except (ValueError, TypeError) as error:
        raise ModelError(f"model: {folder / 'config.json'}: {error}") from None


def read_card(folder: Path) -> Card:
    """Raises ModelError if `model.json` does not say which tokenizer the ids are of."""
    path = folder / CARD_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Card(**{key: values[key] for key in Card._fields if key in values})
    except OSError:
        raise ModelError(f"model: {path} is missing: it names the tokenizer") from None
    except (ValueError, TypeError) as error:
        expected = '{"tokenizer_name": ..., "tokenizer_fingerprint": ..., "description": ...}'
        raise ModelError(f"model: {path}: {error}; expected {expected}") from None


def write_card(folder: Path, card: Card) -> None:
    """Write `model.json` beside a session_files."""
    text = json.dumps(card._asdict(), indent=2) + "\n"
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def override(
    config: DeepseekV4Config, options: Mapping[str, object], others: Collection[str] = ()
) -> DeepseekV4Config:
    """The configuration with options in place of fields that change no weight.

    `others` are options that the caller takes care of.

    Raises:
        ModelError: an option that is unknown, has no effect on this model, or is no count.
    """
    others = (*others, *PLACEMENT)
    choices = ["sliding_window", "max_position_embeddings", *others]
    if not is_dense(config):
        choices.insert(0, "index_topk")
    fields = {name: value for name, value in options.items() if name not in others}
    for name, value in fields.items():
        if name not in choices:
            raise ModelError(f"options: got {name!r}, expected one of {', '.join(choices)}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModelError(f"options.{name}: got {value!r}, expected a whole number from 1")
    return replace(config, **fields)  # type: ignore[arg-type]
