"""Names of models, and how each is loaded; torch is imported and files are read on use.

`zoo/NAME/` holds trained checkpoints; `path:FOLDER` names one elsewhere, `hf:NAME` any causal
language model that transformers can load. A package of one's own adds an `Entry` under its name
by the entry point group `niah.models`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from models.deepseek_v4.checkpoint_files import Card, read_config
from models.deepseek_v4.config import (
    CSA,
    DSA,
    HCA,
    MLA,
    SLIDING,
    DeepseekV4Config,
    LatentShape,
    uncompressed,
    with_latents,
)
from models.errors import ModelError, UnknownModelError
from models.options import whole_number
from models.protocols import Model

ZOO = Path(__file__).parent / "zoo"
BUNDLED_TOKENIZER = "bundled-bpe-2048"
ENTRY_POINTS = "niah.models"

RANDOM = DeepseekV4Config(
    vocab_size=2048,
    hidden_size=64,
    layer_types=(SLIDING, CSA, HCA, CSA),
    num_attention_heads=2,
    head_dim=32,
    qk_rope_head_dim=16,
    q_lora_rank=32,
    o_groups=2,
    o_lora_rank=32,
    n_routed_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    routed_scaling_factor=1.5,
    index_n_heads=4,
    index_head_dim=32,
    index_topk=64,
    num_hash_layers=1,
)
"""DeepSeek-V4's proportions (window 128, m 4, m' 128) in a model of no knowledge."""
RANDOM_LATENTS = LatentShape(kv_lora_rank=32, qk_nope_head_dim=16, v_head_dim=32)
RANDOM_CONFIGS = {
    "random-v4": RANDOM,
    "random-dense": uncompressed(RANDOM),
    "random-mla": with_latents(RANDOM, MLA, RANDOM_LATENTS),
    "random-dsa": with_latents(RANDOM, DSA, RANDOM_LATENTS),
}


def no_config(name: str) -> DeepseekV4Config:
    """For models of other architectures. Raises: ModelError."""
    raise ModelError(f"model: {name!r} has no DeepSeek-V4 configuration")


class Entry(NamedTuple):
    """A name's one line, its loader (of name and options), and its shapes where it has them."""

    description: str
    load: Callable[[str, Mapping[str, object]], Model]
    config: Callable[[str], DeepseekV4Config] = no_config
    needs_torch: bool = True


def load_model(
    name: str, options: Mapping[str, object] | None = None, threads: int | None = None
) -> Model:
    """The model called `name`, with options over those of its checkpoint.

    Args:
        name: one of `available_models()`.
        options: fields that change no weight, such as {"index_topk": 16}.
        threads: CPU threads of torch, for the whole process; unchanged if None.

    Raises:
        UnknownModelError: no such name.
        ModelError: an option or a checkpoint that does not fit.
    """
    entry = _find(name)
    if entry.needs_torch:
        _require_torch(name)
        if threads is not None:
            _set_threads(threads)
    return entry.load(name, dict(options or {}))


def configuration(name: str) -> DeepseekV4Config:
    """The shapes of a model of this repository, its weights unread. Raises as `load_model`."""
    return _find(name).config(name)


def needs_torch(name: str) -> bool:
    """Whether the model is computed by the process that loads it. Raises: UnknownModelError."""
    return _find(name).needs_torch


def available_models() -> dict[str, str]:
    """What each name is, in one line."""
    return {name: entry.description for name, entry in _entries().items()}


def _entries() -> dict[str, Entry]:
    return {**_installed(), **REGISTRY}


@cache
def _installed() -> dict[str, Entry]:
    """Models of other packages. Raises: ModelError where one cannot be imported or is no entry."""
    found = {}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            entry = point.load()
        except Exception as error:
            raise ModelError(
                f"entry point {point.name} = {point.value} of {ENTRY_POINTS} cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(entry, Entry):
            raise ModelError(
                f"entry point {point.name} = {point.value} of {ENTRY_POINTS} is "
                f"{type(entry).__name__}, expected models.registry.Entry"
            )
        found[point.name] = entry
    return found


def _find(name: str) -> Entry:
    scheme = name.partition(":")[0]
    entries = _entries()
    for known, entry in entries.items():
        if name == known or (":" in name and known.startswith(f"{scheme}:")):
            return entry
    raise UnknownModelError(f"model: got {name!r}, expected one of {', '.join(entries)}")


def _require_torch(name: str) -> None:
    if find_spec("torch") is None:
        raise ModelError(f"model: {name!r} needs torch: in a checkout, pip install '.[run]'")


def _set_threads(threads: int) -> None:
    import torch

    if threads < 1:
        raise ModelError(f"threads: got {threads}, expected at least 1")
    torch.set_num_threads(threads)


def _folder(name: str) -> Path:
    scheme, _, place = name.partition(":")
    return Path(place) if scheme == "path" else ZOO / name


def _checkpoint(name: str, options: Mapping[str, object]) -> Model:
    from models.deepseek_v4.loading import load_folder

    return load_folder(name, _folder(name), options)


def _checkpoint_config(name: str) -> DeepseekV4Config:
    return read_config(_folder(name))


def _random(name: str, options: Mapping[str, object]) -> Model:
    from models.deepseek_v4 import weights
    from models.deepseek_v4.loading import LoadedModel, build, override

    trained = _random_config(name)
    config = override(trained, options, others=["seed"])
    seed = whole_number("seed", options.get("seed", 0), 0)
    network = build(config)
    weights.initialize(network, seed)
    card = Card(BUNDLED_TOKENIZER, None, "random weights")
    return LoadedModel(name, network, card, trained, options)


def _random_config(name: str) -> DeepseekV4Config:
    return RANDOM_CONFIGS[name]


def _hugging_face(name: str, options: Mapping[str, object]) -> Model:
    from models.transformers_models import load

    return load(name, options)


def _server(name: str, options: Mapping[str, object]) -> Model:
    try:
        from models.servers.model import load
    except ImportError as error:
        if error.name not in ("httpx", "tenacity"):
            raise
        raise ModelError(
            f"model: {name!r} needs {error.name}: in a checkout, pip install '.[servers]'"
        ) from None
    return load(name, options)


REGISTRY = {
    "nano-v4": Entry(
        "DeepSeek-V4 with its compressed cache, trained from scratch here",
        _checkpoint,
        _checkpoint_config,
    ),
    "nano-dense": Entry(
        "its uncompressed twin, trained on the same data", _checkpoint, _checkpoint_config
    ),
    "nano-v4-engine": Entry(
        "DeepSeek-V4 in its own head, indexer and window widths, which engines' kernels are for",
        _checkpoint,
        _checkpoint_config,
    ),
    "nano-dense-engine": Entry(
        "the uncompressed twin of nano-v4-engine", _checkpoint, _checkpoint_config
    ),
    "nano-mla": Entry(
        "DeepSeek-V3's latent attention (MLA) in nano-v4's trunk", _checkpoint, _checkpoint_config
    ),
    "nano-dsa": Entry(
        "DeepSeek-V3.2's sparse latent attention (DSA) in nano-v4's trunk",
        _checkpoint,
        _checkpoint_config,
    ),
    "random-v4": Entry(
        "tiny, weights random from option seed: for dry runs and tests", _random, _random_config
    ),
    "random-dense": Entry("the same, uncompressed", _random, _random_config),
    "random-mla": Entry("the same with latent attention (MLA)", _random, _random_config),
    "random-dsa": Entry(
        "the same with sparse latent attention (DSA): top tokens", _random, _random_config
    ),
    "path:FOLDER": Entry(
        "a DeepSeek-V4's folder: of your own training, or in transformers' or the official layout",
        _checkpoint,
        _checkpoint_config,
    ),
    "hf:NAME": Entry(
        "any causal language model of transformers, a hub name or a folder (extra `hf`)",
        _hugging_face,
    ),
    "openai:MODEL": Entry(
        "a model behind a server: vLLM, SGLang, llama.cpp, transformers serve, hosted ones "
        "(extra `servers`)",
        _server,
        needs_torch=False,
    ),
}
