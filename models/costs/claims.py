"""Published figures about caches and FLOPs, each beside the value computed from the architecture.

FLOPs are weighted by precision. The weighting is RECONSTRUCTED from the ratios that DeepSeek
printed, and is not documented by DeepSeek: show `FLOPS_CAVEAT` beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from models.costs.flops import PUBLISHED, token_flops
from models.costs.memory import cache_bytes, request, total
from models.costs.presets import PRESETS

FLOPS_CAVEAT = (
    "FP8-equivalent FLOPs; their weighting by precision is reconstructed from published ratios, "
    "not documented by DeepSeek."
)
TOLERANCE = 0.02
MILLION = 10**6
MEBI = 2**20
GIB = 2**30

SOURCES = {
    "a": "DeepSeek-V4 report (arXiv 2606.19348), Figure 1; at 1,000,000 tokens",
    "b": "the same report, against 8 key-value heads in bf16",
    "c": "vLLM blog, 2026-04-24; bf16, 1,048,576 tokens, no windows",
    "d": "r/LocalLLaMA, 'The exact KV cache usage of DeepSeek V4'; bf16, no windows",
    "e": "ik_llama.cpp, a log in pull request 287: R1 (V3's shapes), 32,768 tokens",
    "f": "DeepSeek-V4.1 report (arXiv 2609.19969); no windows",
    "g": "Insights into DeepSeek-V3 (arXiv 2505.09343), Table 1; bf16",
}


class Claim(NamedTuple):
    """A printed figure, its digits after the point, and how it is computed."""

    what: str
    printed: float
    decimals: int
    unit: str
    computed: Callable[[], float]
    source: str  # a key of SOURCES


class Checked(NamedTuple):
    """A claim beside its computed value.

    `off` is the distance from the printed figure, `beyond` the part of it that the rounding of the
    printed figure does not explain; both are shares of the printed figure.
    """

    claim: Claim
    value: float
    off: float
    beyond: float

    @property
    def holds(self) -> bool:
        return self.beyond <= TOLERANCE


def check(claims: Iterable[Claim]) -> list[Checked]:
    """Every claim with what is computed for it."""
    return [_checked(claim, claim.computed()) for claim in claims]


def _checked(claim: Claim, value: float) -> Checked:
    distance = abs(value - claim.printed)
    rounding = 0.5 * 10.0**-claim.decimals
    return Checked(
        claim,
        value,
        (value - claim.printed) / claim.printed,
        max(0.0, distance - rounding) / claim.printed,
    )


def _cache(name: str, length: int, layout: str = "published", *left_out: str) -> int:
    """Bytes of rows; tails are of constant size, and no published figure counts them."""
    held = cache_bytes(PRESETS[name], length, layout)
    return total({k: v for k, v in held.items() if k not in ("tail", *left_out)})


def _smaller(name: str, than: str = "v3.2") -> float:
    return _cache(than, MILLION) / _cache(name, MILLION)


def _flops(name: str) -> float:
    return token_flops(PRESETS[name], MILLION, PUBLISHED).total


def _gib(name: str, length: int = MEBI) -> float:
    return _cache(name, length, "bf16", "window") / GIB


def _share_of(name: str) -> float:
    return 100 * _flops(name) / _flops("v3.2")


def _fewer(name: str) -> float:
    return _flops("v3.2") / _flops(name)


def _slope(name: str) -> float:
    return request(PRESETS[name]).slope


CLAIMS = (
    Claim("V4-Pro, cache of V3.2's", 10, 0, "%", lambda: 100 / _smaller("v4-pro"), "a"),
    Claim("V4-Flash, cache of V3.2's", 7, 0, "%", lambda: 100 / _smaller("v4-flash"), "a"),
    Claim("V4-Pro, cache smaller", 9.5, 1, "×", lambda: _smaller("v4-pro"), "a"),
    Claim("V4-Flash, cache smaller", 13.7, 1, "×", lambda: _smaller("v4-flash"), "a"),
    Claim("V4-Pro, FLOPs of V3.2's", 27, 0, "%", lambda: _share_of("v4-pro"), "a"),
    Claim("V4-Flash, FLOPs of V3.2's", 10, 0, "%", lambda: _share_of("v4-flash"), "a"),
    Claim("V4-Pro, FLOPs fewer", 3.7, 1, "×", lambda: _fewer("v4-pro"), "a"),
    Claim("V4-Flash, FLOPs fewer", 9.8, 1, "×", lambda: _fewer("v4-flash"), "a"),
    Claim("V4-Pro, cache of GQA8's", 2, 0, "%", lambda: 100 / _smaller("v4-pro", "gqa8"), "b"),
    Claim("V4-Pro at 1M, GiB", 9.62, 2, "", lambda: _gib("v4-pro"), "c"),
    Claim("V3.2 at 1M, GiB", 83.9, 1, "", lambda: _gib("v3.2"), "c"),
    Claim("V4-Pro smaller than V3.2", 8.7, 1, "×", lambda: _gib("v3.2") / _gib("v4-pro"), "c"),
    Claim("V4-Flash at 1M, GiB", 6.72, 2, "", lambda: _gib("v4-flash"), "d"),
    Claim("V4-Pro at 128K, GiB", 1.20, 2, "", lambda: _gib("v4-pro", 2**17), "d"),
    Claim("V3 at 160K, llama.cpp, GiB", 10.72, 2, "", lambda: _gib("v3", 163840), "d"),
    Claim(
        "V3 at 32K in q8_0, MiB", 1166.62, 2, "", lambda: _cache("v3", 2**15, "q8_0") / 2**20, "e"
    ),
    Claim("V4.1-Flash, B/token", 890, 0, "", lambda: _slope("v4.1-flash"), "f"),
    Claim("V4-Flash, B/token", 3514, 0, "", lambda: _slope("v4-flash"), "f"),
    Claim("V3, KB/token", 70.272, 3, "", lambda: _slope("v3") / 1000, "g"),
)
