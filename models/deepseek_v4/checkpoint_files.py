"""The small files of a checkpoint's folder: `config.json` and `model.json`, its card.

They are read without torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from models.deepseek_v4.config import DeepseekV4Config
from models.errors import ModelError
from models.files import replacing

CONFIG_FILE = "config.json"
CARD_FILE = "model.json"


class Card(NamedTuple):
    """What a checkpoint says of itself."""

    tokenizer_name: str
    tokenizer_fingerprint: str | None = None
    description: str = ""


def read_config(folder: Path) -> DeepseekV4Config:
    """Raises ModelError if the folder holds no valid configuration."""
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return DeepseekV4Config.from_dict(values)
    except OSError:
        raise ModelError(f"model: {folder} holds no {CONFIG_FILE}: no checkpoint there") from None
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
    """Write `model.json` beside a checkpoint's weights."""
    text = json.dumps(card._asdict(), indent=2) + "\n"
    with replacing(folder / CARD_FILE) as partial:
        partial.write_text(text, encoding="utf-8")
