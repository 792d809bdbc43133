"""Which token ids count as one for a memory of n-grams (Engram, arXiv 2601.07372, section 2.2)."""

from __future__ import annotations

import unicodedata

import torch
from torch import Tensor

from haystacks.tokenizer import Tokenizer
from models.deepseek_v4.engram import Engram
from models.deepseek_v4.model import DeepseekV4


def set_canonical_ids(model: DeepseekV4, tokenizer: Tokenizer) -> None:
    """Give every module of the model the tokenizer's canonical ids."""
    modules = [module for module in model.modules() if isinstance(module, Engram)]
    if modules:
        ids = canonical_ids(tokenizer)
        for module in modules:
            module.canonical.copy_(ids)


def canonical_ids(tokenizer: Tokenizer) -> Tensor:
    """For each id [V] the first one whose text is the same but for case, accents and spaces.

    A token that is no whole text, a part of a character, counts as itself.
    """
    first: dict[str, int] = {}
    ids = []
    for token in range(tokenizer.vocab_size):
        text = tokenizer.decode([token])
        ids.append(token if "\ufffd" in text else first.setdefault(_plain(text), token))
    return torch.tensor(ids, device="cpu")


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text))
    bare = "".join(c for c in decomposed if not unicodedata.combining(c)).lower()
    return " ".join(bare.split()) or " " * bool(text)
