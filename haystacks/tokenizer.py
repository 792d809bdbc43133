"""Text to token ids and back, with a fingerprint that says which tokenizer it was.

Owns the bundled byte-level BPE and its training. Never adds special tokens: what is planted is
exactly what was written. Knows nothing about corpora or needles.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

BUNDLED_NAME = "bundled-bpe-2048"
BUNDLED_FILE = Path(__file__).parent / "bpe2048.json"
BUNDLED_VOCAB_SIZE = 2048


class TokenizerError(ValueError):
    """A tokenizer that does not exist or cannot be loaded; the message says what would be right."""


class Tokenizer(Protocol):
    """What haystacks need of a tokenizer; `fingerprint` is 16 hex digits of its definition."""

    name: str
    fingerprint: str
    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, no special token added."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special tokens, if any are among them, are kept."""


class FastTokenizer:
    """A Hugging Face `tokenizers` tokenizer, bundled or taken from a transformers tokenizer.

    `special_ids` are the ids that no ordinary text should contain (empty for the bundled one).
    """

    def __init__(self, name: str, rust: RustTokenizer) -> None:
        rust.no_padding()
        rust.no_truncation()
        self.name = name
        self.fingerprint = hashlib.sha256(rust.to_str().encode()).hexdigest()[:16]
        self.vocab_size = rust.get_vocab_size(with_added_tokens=True)
        added = rust.get_added_tokens_decoder()
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self._rust = rust

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._rust.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        plain = ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids]
        text: str = self._rust.decode(plain, skip_special_tokens=False)
        return text


@lru_cache(maxsize=8)
def load_tokenizer(name: str) -> FastTokenizer:
    """The tokenizer called `name`: "bundled-bpe-2048", or "hf:PATH_OR_NAME".

    Raises TokenizerError for an unknown name, or where the hf extra or its files are missing.
    """
    if name == BUNDLED_NAME:
        return FastTokenizer(name, RustTokenizer.from_file(str(BUNDLED_FILE)))
    kind, _, location = name.partition(":")
    if kind == "hf" and location:
        return FastTokenizer(name, _huggingface(location))
    raise TokenizerError(f"tokenizer: {name!r} is not {BUNDLED_NAME!r} or 'hf:PATH_OR_NAME'")


def _huggingface(location: str) -> RustTokenizer:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise TokenizerError(
            f"tokenizer: 'hf:{location}' needs transformers: in a checkout, pip install '.[hf]'"
        ) from None
    try:
        loaded = AutoTokenizer.from_pretrained(location)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TokenizerError(f"tokenizer: 'hf:{location}' cannot be loaded: {reason}") from None
    rust = getattr(loaded, "backend_tokenizer", None)
    if rust is None:
        raise TokenizerError(f"tokenizer: 'hf:{location}' has no fast (tokenizers) version")
    return RustTokenizer.from_str(rust.to_str())


def train_bpe(lines: Iterable[str], vocab_size: int = BUNDLED_VOCAB_SIZE) -> RustTokenizer:
    """Byte-level BPE of exactly `vocab_size` entries, every digit a token, no special tokens.

    The procedure has no randomness: the same lines give the same file.
    """
    rust = RustTokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    rust.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    rust.train_from_iterator(lines, trainer=trainer)
    if rust.get_vocab_size() != vocab_size:
        raise TokenizerError(f"training text gave {rust.get_vocab_size()} of {vocab_size} entries")
    return rust
