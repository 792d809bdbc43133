"""Caches that an arm can ask for: the option `cache` of a model of transformers.

Only the full layers of a model change; windows and states of linear attention stay as they are.
Quantized layers are transformers' own (KIVI's scheme, Liu et al. 2024, arXiv:2402.02750, with the
backends hqq and quanto; fp8 with one scale a tensor), but what they answer from is quantized at the
first call, too. They quantize anew what they hold whenever their residual is full, so that the
size of a call is part of the treatment.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, cache_utils
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    HQQQuantizedLayer,
    QuantoQuantizedLayer,
)

from models.errors import ModelError
from models.transformers_models.growing import mixed, new_cache

GROUP = 64  # channels with a scale of their own, at most
RESIDUAL = 128  # newest tokens that are not quantized yet, at most
BITS = {"int8": 8, "int4": 4, "int2": 2}
BACKENDS = {"hqq": (8, 4, 2), "quanto": (4, 2)}
CHOICES = f"full, {', '.join(BITS)}, fp8, offloaded or sliding:N"


class _FromTheFirstCall:
    """Answers from quantized states at the first call, too."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        layer: Any = self
        first = not layer.is_initialized
        keys, values = super().update(key_states, value_states, *args, **kwargs)  # type: ignore[misc]
        if not first:
            return keys, values
        return (
            layer._dequantize(layer._quantized_keys),
            layer._dequantize(layer._quantized_values),
        )


class HQQLayer(_FromTheFirstCall, HQQQuantizedLayer):  # type: ignore[no-untyped-call]
    """Few bits with hqq."""


class QuantoLayer(_FromTheFirstCall, QuantoQuantizedLayer):  # type: ignore[no-untyped-call]
    """Few bits with quanto."""


class _Fp8(_FromTheFirstCall):
    """E4M3 with the first call's scale; later states beyond it are clipped."""

    def _quantize(self, tensor: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        largest = torch.finfo(torch.float8_e4m3fn).max
        if scale is None:
            scale = tensor.abs().amax().float() / largest
            scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
        scaled = (tensor.float() / scale).clamp(-largest, largest)
        return scaled.to(torch.float8_e4m3fn), scale


def fp8_layer() -> Any:
    """An empty layer. Raises: ModelError, where transformers is too old for it."""
    base = getattr(cache_utils, "Fp8QuantizedLayer", None)
    if base is None:
        raise ModelError("options.cache: fp8 needs a newer transformers, such as 5.23")
    return mixed(_Fp8, base)()


class NewestLayer(DynamicSlidingWindowLayer):  # type: ignore[no-untyped-call]
    """The newest tokens, and older ones only within the call that brought them."""

    is_sliding = False  # the mask stays that of a full layer, over what is held


@dataclass(frozen=True)
class CacheKind:
    """How sessions begin: `make` gives an empty cache; `settings` are all that decides it.

    `few_bits` gives an empty layer, where layers are quantized.
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    make: Callable[[], Any] = field(default=dict, repr=False)
    few_bits: Callable[[], Any] | None = field(default=None, repr=False)

    @property
    def is_full(self) -> bool:
        return not self.settings


def cache_kind(option: object, config: Any, device: str = "cpu") -> CacheKind:
    """What the option `cache` asks for, for a model's configuration on a device.

    Raises:
        ModelError: no such cache, a backend is absent, the device cannot, or the model has no full
            layer.
    """
    if option == "full":
        return CacheKind({}, lambda: new_cache(config))
    if option == "offloaded":
        return _offloaded(config, device)
    layer, settings = _layer(option, config)
    if not any(type(found) is DynamicLayer for found in DynamicCache(config=config).layers):
        raise ModelError(f"options.cache: got {option!r}, but no layer of the model is a full one")

    def make() -> Any:
        cache = DynamicCache(config=config)
        cache.layers = [layer() if type(found) is DynamicLayer else found for found in cache.layers]
        return cache

    quantizes = option == "fp8" or option in BITS
    return CacheKind({"cache": option, **settings}, make, layer if quantizes else None)


def _offloaded(config: Any, device: str) -> CacheKind:
    """transformers' own: the cache lies in the CPU's memory, but for the layer that works."""
    if torch.device(device).type != "cuda":
        raise ModelError(
            f"options.cache: offloaded needs an accelerator (device: cuda), got device {device}"
        )
    return CacheKind({"cache": "offloaded"}, lambda: OffloadedCache(config=config, offloading=True))


class OffloadedCache(DynamicCache):
    """transformers' own, whose copies back to the device wait for those to the CPU.

    Early releases (5.17) do not wait: on an H100 the first answer to a short text was wrong.
    """

    def update(self, key_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.prefetch_stream.wait_stream(torch.cuda.default_stream(key_states.device))
        return super().update(key_states, *args, **kwargs)


def _layer(option: object, config: Any) -> tuple[Callable[[], Any], dict[str, object]]:
    if option == "fp8":
        fp8_layer()  # refuses
        return fp8_layer, {"format": "e4m3", "scale": "the first call's, one a tensor"}
    if isinstance(option, str) and option in BITS:
        return _few_bits(option, config)
    kind, _, size = str(option).partition(":")
    if kind == "sliding" and size.isdecimal() and int(size) > 1:
        return lambda: NewestLayer(int(size)), {"tokens": int(size) - 1}
    raise ModelError(f"options.cache: got {option!r}, expected {CHOICES}")


def _few_bits(option: str, config: Any) -> tuple[Callable[[], Any], dict[str, object]]:
    bits = BITS[option]
    able = [name for name, widths in BACKENDS.items() if bits in widths]
    installed = [name for name in able if _is_installed(name)]
    if not installed:
        names = {"hqq": "hqq", "quanto": "optimum-quanto"}
        wanted = " or ".join(names[name] for name in able)
        raise ModelError(f"options.cache: {option} needs the package {wanted}")
    settings: dict[str, object] = {
        "nbits": bits,
        "q_group_size": math.gcd(_head_width(config), GROUP),
        "residual_length": RESIDUAL,
    }
    layers: dict[str, Any] = {"hqq": HQQLayer, "quanto": QuantoLayer}
    layer = layers[installed[0]]
    return lambda: layer(**settings), {"backend": installed[0], **settings}


def _is_installed(backend: str) -> bool:
    if backend == "quanto":
        return (
            importlib.util.find_spec("optimum") is not None
            and importlib.util.find_spec("optimum.quanto") is not None
        )
    return importlib.util.find_spec(backend) is not None


def _head_width(config: Any) -> int:
    text = config.get_text_config(decoder=True)
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(width)
