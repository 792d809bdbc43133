"""Any causal language model of transformers as a `Model`, its own cache inside.

Needs the `hf` extra. A fork deep-copies the cache, so unlike the models of this repository it
costs time and memory linear in the position. Knows nothing of architectures beyond how
transformers' caches name their tensors.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.decoding import greedy, log_probability
from models.devices import DTYPES, Stopwatch
from models.errors import ModelError
from models.protocols import Decoding, Forks, Piece, Reply, TokenIds, TokenizerRef, Usage

CACHE_KINDS = {
    "window": "keys and values of the newest tokens, in layers with a sliding window",
    "full": "every token's keys and values",
    "compressed": "entries of several tokens each",
    "index": "keys of an indexer, which choose entries",
    "tail": "other state",
}


class HuggingFaceSession:
    """One timeline. Implements `Session`; any split agrees as far as the model itself does."""

    def __init__(self, model: Any, chunk_size: int = 1024) -> None:
        from transformers import DynamicCache

        self._model = model
        self._chunk_size = chunk_size
        self._cache = DynamicCache(config=model.config)
        self._position = 0
        self._logits: Tensor | None = None  # after the newest token, [V]
        self._clock = Stopwatch(model.device)

    @property
    def position(self) -> int:
        return self._position

    def extend(self, piece: Piece) -> None:
        with self._clock.timing("prefill"):
            self.read(piece.ids)

    def read(self, ids: TokenIds) -> None:
        """Consume token ids."""
        tokens = self._checked(ids)
        for chunk in tokens.split(self._chunk_size) if len(tokens) else ():
            self._logits = self._advance(chunk, 1)[-1]

    def step(self, token: int) -> None:
        """Consume one token."""
        self.read([token])

    def score(self, ids: TokenIds) -> Tensor:
        """Consume `ids`; logits [S, V] after each of them."""
        tokens = self._checked(ids)
        logits = self._advance(tokens, len(tokens))
        self._logits = logits[-1]
        return logits

    def next_logits(self) -> Tensor:
        """Logits [V] of the token after the last one."""
        if self._logits is None:
            raise ValueError("generate: the session is empty, extend it first")
        return self._logits

    @torch.no_grad()
    def _advance(self, chunk: Tensor, keep: int) -> Tensor:
        """Logits of the last `keep` tokens of a chunk [S], after it was consumed."""
        end = self._position + len(chunk)
        output = self._model(
            input_ids=chunk[None],
            past_key_values=self._cache,
            position_ids=torch.arange(self._position, end, device=chunk.device)[None],
            use_cache=True,
            logits_to_keep=keep,
        )
        self._position = end
        logits: Tensor = output.logits[0]
        return logits[-keep:]

    def fork(self) -> HuggingFaceSession:
        """A deep copy of the cache: O(position)."""
        child = HuggingFaceSession(self._model, self._chunk_size)
        child._cache = copy.deepcopy(self._cache)
        child._position, child._logits = self._position, self._logits
        return child

    def generate(self, decoding: Decoding) -> Reply:
        self.next_logits()  # refuses an empty session
        gold_logprob = None
        if decoding.gold_ids:
            with self._clock.timing("gold"):
                gold_logprob = log_probability(self.fork(), decoding.gold_ids)
        with self._clock.timing("decode"):
            return greedy(self, decoding)._replace(gold_logprob=gold_logprob)

    def usage(self) -> Usage:
        clock = self._clock
        return Usage(clock.prefill, clock.decode, clock.gold, self._held())

    def _held(self) -> dict[str, int]:
        """Bytes of distinct tensors by kind."""
        total: dict[str, int] = {}
        for layer in self._cache.layers:
            seen: set[int] = set()  # K and V may be one tensor
            for kind, tensor in _tensors(layer):
                if tensor.data_ptr() not in seen:
                    seen.add(tensor.data_ptr())
                    total[kind] = total.get(kind, 0) + tensor.numel() * tensor.element_size()
        return total

    def _checked(self, ids: TokenIds) -> Tensor:
        tokens = torch.from_numpy(np.array(ids, dtype=np.int64))
        vocab, limit = _sizes(self._model)
        if len(tokens) and (int(tokens.min()) < 0 or int(tokens.max()) >= vocab):
            raise ValueError(f"ids: token ids must lie in 0..{vocab - 1}")
        if limit is not None and self._position + len(tokens) > limit:
            raise ValueError(
                f"ids: {self._position} + {len(tokens)} tokens exceed max_position {limit}"
            )
        return tokens.to(self._model.device)


def _tensors(layer: Any) -> Iterator[tuple[str, Tensor]]:
    """Every non-empty tensor of a cache's layer, with its kind."""
    keys = "window" if layer.is_sliding else "full"
    kinds = {"keys": keys, "values": keys, "compressed_kv": "compressed"}
    for name, value in vars(layer).items():
        members = value.items() if isinstance(value, dict) else [("", value)]
        for member, tensor in members:
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.numel():
                kind = kinds.get(name, "tail")
                indexed = kind == "compressed" and member == "indexer"
                yield ("index" if indexed else kind), tensor


class HuggingFaceModel:
    """Implements `Model` over a transformers model in memory."""

    def __init__(self, name: str, model: Any, options: Mapping[str, object]) -> None:
        self.name = name
        revision = options.get("revision")
        self.tokenizer = TokenizerRef(f"{name}@{revision}" if revision else name)
        self.forks: Forks = "copy"
        self.cache_kinds = CACHE_KINDS
        self.device = str(model.device)
        self.fingerprint = _fingerprint(model)
        self.vocab_size, self.max_position = _sizes(model)
        self._model = model.eval()
        self._options = dict(options)

    def session(self) -> HuggingFaceSession:
        return HuggingFaceSession(self._model)

    def describe(self) -> dict[str, object]:
        config = self._model.config
        return {
            "architecture": type(self._model).__name__,
            "parameters": sum(p.numel() for p in self._model.parameters()),
            "layers": config.get_text_config().num_hidden_layers,
            "options": self._options,
        }


def load(name: str, options: Mapping[str, object]) -> HuggingFaceModel:
    """`hf:NAME`, a hub name or a folder of `save_pretrained`; remote code is never run.

    Options: dtype (float32 if absent), revision of the hub.

    Raises:
        ModelError: transformers is absent, an option is unknown, or nothing can be loaded.
    """
    unknown = sorted(set(options) - {"dtype", "revision"})
    if unknown:
        raise ModelError(f"options: got {unknown[0]!r}, expected one of dtype, revision")
    dtype = options.get("dtype", "float32")
    if dtype not in DTYPES:
        raise ModelError(f"options.dtype: got {dtype!r}, expected one of {', '.join(DTYPES)}")
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        raise ModelError(
            f"model: {name!r} needs transformers: in a checkout, pip install '.[hf]'"
        ) from None
    location = name.removeprefix("hf:")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            location,
            dtype=DTYPES[str(dtype)],
            revision=str(options.get("revision", "main")),
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"model: {name!r} cannot be loaded: {reason}") from None
    return HuggingFaceModel(name, model, options)


def _sizes(model: Any) -> tuple[int, int | None]:
    """Vocabulary and positions; some models (ALiBi, state space) have no limit."""
    config = model.config.get_text_config()
    return config.vocab_size, getattr(config, "max_position_embeddings", None)


def _fingerprint(model: Any) -> str:
    """16 hex digits over the configuration and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(model.config.to_json_string().encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
