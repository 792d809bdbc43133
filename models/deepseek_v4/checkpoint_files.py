"""The small files of a checkpoint's folder: `config.json` and `model.json`, its card.

They are read without torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from models.deepseek_v4.config import DeepseekV4Config
from models.deepseek_v4.layouts.configs import from_published, is_published
from models.errors import ModelError
from models.files import replacing

CONFIG_FILE = "config.json"
CARD_FILE = "model.json"
GENERATION_FILE = "generation_config.json"
TOKENIZER_FILE = "tokenizer.json"


class Card(NamedTuple):
    """What a checkpoint says of itself."""

    tokenizer_name: str
    tokenizer_fingerprint: str | None = None
    description: str = ""


def read_config(folder: Path) -> DeepseekV4Config:
    """The configuration, in any layout. Raises: ModelError if the folder holds no valid one."""
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        if is_published(values):
            return from_published(values)
        return DeepseekV4Config.from_dict(values)
    except OSError:
        raise ModelError(f"model: {folder} holds no {CONFIG_FILE}: no checkpoint there") from None
    except (ValueError, TypeError) as error:
        raise ModelError(f"model: {folder / 'config.json'}: {error}") from None


def read_eos_ids(folder: Path) -> frozenset[int]:
    """Ids that end an answer: of `config.json`, and of the configuration for generation."""
    found: set[int] = set()
    for name in (CONFIG_FILE, GENERATION_FILE):
        if (folder / name).exists():
            try:
                ids = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
            except (OSError, ValueError, AttributeError) as error:
                raise ModelError(f"model: {folder / name}: {error}") from None
            found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return frozenset(found)


def read_card(folder: Path) -> Card:
    """Which tokenizer the ids are of, from `model.json`; without it, the folder's own tokenizer.

    Raises:
        ModelError: neither is there, or the card cannot be read.
    """
    path = folder / CARD_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Card(**{key: values[key] for key in Card._fields if key in values})
    except OSError:
        if (folder / TOKENIZER_FILE).exists():
            return Card(f"hf:{folder}")
        raise ModelError(
            f"model: {path} is missing: it names the tokenizer; so is {TOKENIZER_FILE}"
        ) from None
    except (ValueError, TypeError) as error:
        expected = '{"tokenizer_name": ..., "tokenizer_fingerprint": ..., "description": ...}'
        raise ModelError(f"model: {path}: {error}; expected {expected}") from None


def write_card(folder: Path, card: Card) -> None:
    """Write `model.json` beside a checkpoint's weights."""
    text = json.dumps(card._asdict(), indent=2) + "\n"
    with replacing(folder / CARD_FILE) as partial:
        partial.write_text(text, encoding="utf-8")
