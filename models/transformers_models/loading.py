"""Loads a model of transformers: options, weights (each held and hashed once), fingerprint."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from transformers import AutoModelForCausalLM

from models.devices import DTYPES, find_device
from models.errors import ModelError
from models.options import whole_number
from models.presses.observed import union
from models.presses.options import Pressing, pressing
from models.protocols import Decoding, Forks, Model, Reply, Session, TokenizerRef
from models.transformers_models.caches import CacheKind, cache_kind
from models.transformers_models.checks import split_fault
from models.transformers_models.growing import forks_of
from models.transformers_models.held import CACHE_KINDS
from models.transformers_models.hub import absence, local_path
from models.transformers_models.positions import allowed_positions, fix_rotary
from models.transformers_models.pressing import Layout, Presser, layout_of
from models.transformers_models.session import CHUNK_TOKENS, HuggingFaceSession, Network
from models.transformers_models.together import (
    can_go_together,
    generate_together,
    layers_go_together,
)

log = logging.getLogger(__name__)

OPTIONS = (
    "device",
    "device_map",
    "dtype",
    "attn_implementation",
    "revision",
    "gguf_file",
    "max_position_embeddings",
    "chunk_tokens",
    "batch",
    "cache",
    "press",
)
BATCH = 16
"""Answers that are decoded together, at most."""
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
NAMELESS = ("transformers_version", "_name_or_path", "dtype")
"""Fields of a configuration that do not decide answers, or are told apart from it."""


@dataclass(frozen=True)
class Source:
    """Where weights come from, and how they are to lie in memory: equal sources share weights."""

    location: str
    revision: str | None
    gguf_file: str | None
    device: str
    device_map: str | None  # as JSON
    dtype: str
    attention: str | None
    positions: int | None

    @property
    def is_folder(self) -> bool:
        return Path(self.location).is_dir()


@dataclass
class Weights:
    """A model in memory, its weights' digest, and what is wrong with it, if anything."""

    network: Network
    digest: str
    fault: str | None = None

    @cached_property
    def go_together(self) -> bool:
        """Whether sessions can be decoded together."""
        return can_go_together(self.network)


class HuggingFaceModel:
    """Implements `SharingModel` and `BatchingModel` over a transformers model in memory."""

    def __init__(
        self,
        name: str,
        weights: Weights,
        options: Mapping[str, object] | None = None,
        tokenizer: TokenizerRef | None = None,
    ) -> None:
        options = dict(options or {})
        network = weights.network
        self.name = name
        self.tokenizer = tokenizer
        self.cache_kinds = CACHE_KINDS
        self.vocab_size, self.max_position = network.vocab_size, network.max_position
        self.device = str(network.input_device)
        kind = options.get("cache", "full")
        self._cache = cache_kind(kind, network.module.config, self.device)
        self._chunk_tokens = whole_number("chunk_tokens", options.get("chunk_tokens", CHUNK_TOKENS))
        self._batch = whole_number("batch", options.get("batch", BATCH))
        self._weights = weights
        self._options = options
        self._pressing = self._find_press()
        # A press chooses from full precision; what it keeps is quantized then.
        self._read_into = (
            cache_kind("full", network.module.config) if self._pressing else self._cache
        )
        self._layout: Layout = {}
        if self._pressing:
            self._layout = layout_of(network, self._plain_session, self._pressing)
        self.forks: Forks = forks_of(self._read_into.make())
        self.fingerprint = _fingerprint(weights, options, self._cache, self._pressing)

    def _find_press(self) -> Pressing | None:
        """Raises: ModelError."""
        found = pressing(self._options.get("press"))
        cache = self._cache.settings.get("cache")
        if found and not self._cache.is_full and self._cache.few_bits is None:
            raise ModelError(
                f"options.cache: got {cache!r}, but with press it is full, fp8, int8, int4 or int2"
            )
        if found and not found.press.evicts and not self._cache.is_full:
            raise ModelError(
                f"options.cache: got {cache!r}, but {found.press.name} reads pages of full keys: "
                "leave it out"
            )
        return found

    def session(self) -> HuggingFaceSession:
        session = self._plain_session()
        if self._pressing:
            few_bits = self._cache.few_bits
            session.observe(Presser(self._pressing, self._pressing.needs, self._layout, few_bits))
        return session

    @property
    def trunk(self) -> str:
        """Implements `SharingModel`."""
        return f"{_fingerprint(self._weights, self._options, self._read_into)}@{self.device}"

    def share(self, session: Session, models: Sequence[Model]) -> None:
        """Implements `SharingModel`."""
        assert isinstance(session, HuggingFaceSession)
        others = [model for model in models if isinstance(model, HuggingFaceModel)]
        found = [(m._pressing.needs, m._layout) for m in others if m._pressing]
        if found:
            layout = max(found, key=lambda pair: pair[0].statistics)[1]  # the one with rotations
            session.observe(Presser(None, union(needs for needs, _ in found), layout))

    def adopt(self, session: Session) -> None:
        """Implements `SharingModel`."""
        assert isinstance(session, HuggingFaceSession)
        session.press_with(self._pressing, self._cache.few_bits)

    @property
    def batch(self) -> int:
        """Implements `BatchingModel`."""
        return self._batch if self._batch > 1 and self._weights.go_together else 1

    def batches(self, session: Session) -> bool:
        """Implements `BatchingModel`."""
        assert isinstance(session, HuggingFaceSession)
        return session.can_go_together and layers_go_together(session.cache)

    def generate_many(
        self, sessions: Sequence[Session], decodings: Sequence[Decoding]
    ) -> list[Reply | Exception]:
        """Implements `BatchingModel`."""
        return generate_together(
            [s for s in sessions if isinstance(s, HuggingFaceSession)], decodings
        )

    def _plain_session(self) -> HuggingFaceSession:
        return HuggingFaceSession(self._weights.network, self._chunk_tokens, self._read_into.make())

    def describe(self) -> dict[str, object]:
        module = self._weights.network.module
        return {
            "architecture": type(module).__name__,
            "parameters": sum(p.numel() for p in module.parameters()),
            "layers": module.config.get_text_config(decoder=True).num_hidden_layers,
            "dtype": _type_name(module.dtype),
            "attention": module.config._attn_implementation,
            "reads": "token by token" if self._weights.network.stepwise else "in chunks",
            "cache": dict(self._cache.settings) or "full",
            **({"press": self._pressing.settings()} if self._pressing else {}),
            "options": self._options,
            "weights_fingerprint": self._weights.digest,
        }


HELD: WeakValueDictionary[Source, Weights] = WeakValueDictionary()
"""The weights in this process that some model uses."""


def load(name: str, options: Mapping[str, object]) -> HuggingFaceModel:
    """`hf:NAME` or `hf:FOLDER`; a name or folder may end in `/FILE.gguf`. Remote code is never run.

    Options: `device` (auto, cpu, cuda, cuda:N, mps) or `device_map` (of accelerate); `dtype`
    (auto: as saved, float32 on the CPU; float32, bfloat16, float16); `attn_implementation`;
    `revision` of the hub; `gguf_file`; `max_position_embeddings`; `chunk_tokens` of a call;
    `batch`, how many answers are decoded together at most (1: each alone, and timed);
    `cache` (`caches.cache_kind`); `press` (`presses.options.pressing`).

    Raises:
        ModelError: an option that is unknown or does not fit, weights that cannot be loaded or are
            pickled, or a model whose answers depend on how a prompt is split.
    """
    _check_names(options)
    for option in ("chunk_tokens", "batch"):
        whole_number(option, options.get(option, 1))
    source = _source(name, options)
    weights = HELD.get(source)
    if weights is None:
        weights = HELD[source] = _read(name, source)
    if weights.fault:
        kind = type(weights.network.module).__name__
        raise ModelError(f"model: {name!r} ({kind}) {weights.fault}")
    return HuggingFaceModel(name, weights, options, _tokenizer(name, options))


def in_memory(module: Any, digest: str = "in memory", positions: int | None = None) -> Weights:
    """Weights of a module that is there already; `positions` as option `max_position_embeddings`.

    Raises:
        ModelError: more positions than the module's configuration allows.
    """
    config = module.config.get_text_config(decoder=True)
    limit = allowed_positions(config, positions)
    fix_rotary(module, limit)
    return Weights(Network(module.eval(), eos_ids(module), config.vocab_size, limit), digest)


def eos_ids(module: Any) -> frozenset[int]:
    """Ids that end an answer: of the configuration, and of the one for generation."""
    found: set[int] = set()
    configs = (module.config, module.config.get_text_config(decoder=True))
    for config in (*configs, getattr(module, "generation_config", None)):
        ids = getattr(config, "eos_token_id", None)
        found.update(ids if isinstance(ids, list | tuple) else [] if ids is None else [ids])
    return frozenset(found)


def _check_names(options: Mapping[str, object]) -> None:
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ModelError(f"options: got {unknown[0]!r}, expected one of {', '.join(OPTIONS)}")
    for name in ("attn_implementation", "revision", "gguf_file"):
        if not isinstance(options.get(name, ""), str):
            raise ModelError(f"options.{name}: got {options[name]!r}, expected a text")


def _source(name: str, options: Mapping[str, object]) -> Source:
    location, gguf_file = name.removeprefix("hf:"), options.get("gguf_file")
    if location.endswith(".gguf") and gguf_file is None:
        location, _, gguf_file = location.rpartition("/")
    device_map = options.get("device_map")
    if device_map is not None:
        if "device" in options:
            raise ModelError("options: device and device_map exclude each other; give one")
        _need("accelerate", "options.device_map")
    if Path(location).is_dir():
        location = str(Path(location).resolve())
    device = find_device(options.get("device", "auto"))
    positions: Any = options.get("max_position_embeddings")
    attention: Any = options.get("attn_implementation")
    revision: Any = options.get("revision")
    return Source(
        location,
        revision,
        None if gguf_file is None else str(gguf_file),
        "" if device_map is not None else str(device),
        None if device_map is None else json.dumps(device_map, sort_keys=True),
        _dtype(options.get("dtype", "auto"), device),
        attention,
        positions,
    )


def _dtype(value: object, device: torch.device) -> str:
    """What transformers is to load; half types are slow on a CPU."""
    if value == "auto":
        return "float32" if device.type == "cpu" else "auto"
    if not isinstance(value, str) or value not in DTYPES:
        raise ModelError(f"options.dtype: got {value!r}, expected one of auto, {', '.join(DTYPES)}")
    return value


def _need(package: str, what: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ModelError(f"{what}: needs the package {package}: pip install {package}")


def _tokenizer(name: str, options: Mapping[str, object]) -> TokenizerRef:
    """By the name that `haystacks` loads it under; a path stays as it was written."""
    for option, mark in (("gguf_file", "/"), ("revision", "@")):
        if options.get(option) is not None:
            name = f"{name.rstrip('/')}{mark}{options[option]}"
    return TokenizerRef(name)


def _read(name: str, source: Source) -> Weights:
    if source.gguf_file:
        _need("gguf", f"model: {name!r}")
        _need("accelerate", f"model: {name!r}")  # transformers reads GGUF with its help
    elif source.is_folder:
        _refuse_pickles(name, Path(source.location))
    absent = absence(source.location, source.gguf_file, source.revision)
    if absent:
        raise ModelError(f"model: {name!r} cannot be loaded: {absent}")
    placement: dict[str, Any] = {}
    if source.device_map is not None:
        placement["device_map"] = json.loads(source.device_map)
    if source.attention is not None:
        placement["attn_implementation"] = source.attention
    revision = source.revision or "main"
    try:
        module: Any = AutoModelForCausalLM.from_pretrained(
            source.location,
            dtype=DTYPES.get(source.dtype, "auto"),
            revision=revision,
            gguf_file=source.gguf_file,
            trust_remote_code=False,
            use_safetensors=None if source.gguf_file else True,
            **placement,
        )
        if source.device_map is None:
            module.to(torch.device(source.device))
        weights = in_memory(module, _digest(source), source.positions)
    except ModelError:
        raise
    except Exception as error:  # transformers and its readers raise what they like
        raise ModelError(f"model: {name!r} cannot be loaded: {_first_line(error)}") from None
    weights = checked(weights)
    if weights.network.stepwise and not weights.fault:
        log.warning("model %s: read token by token after the first call: slow", name)
    return weights


def checked(weights: Weights) -> Weights:
    """The weights with what is wrong with their sessions; read token by token where that helps."""
    fault = _fault(weights.network)
    if fault:
        stepwise = replace(weights.network, stepwise=True)
        if _fault(stepwise) is None:
            return replace(weights, network=stepwise)
    return replace(weights, fault=fault)


def _fault(network: Network) -> str | None:
    return split_fault(
        lambda: HuggingFaceSession(network),
        network.vocab_size,
        network.max_position,
        network.module.dtype,
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _refuse_pickles(name: str, folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if pickled:
        raise ModelError(
            f"model: {name!r} holds pickled weights ({pickled[0]}), which can run code: "
            "save it again with save_pretrained, which writes safetensors"
        )


def _digest(source: Source) -> str:
    """16 hex digits over the files that hold the weights."""
    names = [source.gguf_file] if source.gguf_file else _weight_files(source)
    digests = [file_digest(_local(source, name)) for name in names]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]


def _weight_files(source: Source) -> list[str]:
    index = local_path(source.location, INDEX, source.revision)
    if index is None or local_path(source.location, SINGLE, source.revision):
        return [SINGLE]
    mapping = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
    return sorted(set(mapping.values()))


def _local(source: Source, name: str) -> Path:
    found = local_path(source.location, name, source.revision)
    if found is None:
        raise ModelError(f"model: {source.location}: {name} is not on this machine")
    return Path(found)


DIGESTS: dict[tuple[str, int, int], str] = {}
"""By path, size and time of change in nanoseconds."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read once in a process as long as it does not change."""
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if key not in DIGESTS:
        with path.open("rb") as file:
            DIGESTS[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return DIGESTS[key]


def _fingerprint(
    weights: Weights,
    options: Mapping[str, object],
    cache: CacheKind,
    press: Pressing | None = None,
) -> str:
    """16 hex digits over weights, configuration, and all that decides answers.

    With a full cache the size of a call changes roundings only; there it counts where it is given.
    """
    module = weights.network.module
    forgets_reading = not cache.is_full and press is None
    config = {k: v for k, v in module.config.to_dict().items() if k not in NAMELESS}
    decides = {
        "weights": weights.digest,
        "config": config,
        "dtype": _type_name(module.dtype),
        "attention": module.config._attn_implementation,
        "positions": weights.network.max_position,
        "eos": sorted(weights.network.eos_ids),
        "chunk_tokens": options.get("chunk_tokens", CHUNK_TOKENS if forgets_reading else None),
        "cache": dict(cache.settings),
        **({"press": press.settings()} if press else {}),
    }
    text = json.dumps(decides, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
