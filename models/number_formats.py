"""Formats in which rows of a cache are stored: a few bits a number, and scales for blocks of them.

A row is encoded when it arrives and decoded when it is read. Its code depends on this row alone.
So a row is rounded before anything attends to it, and any split of a text stores the same bytes.

KIVI (Liu et al. 2024, arXiv 2402.02750, section 3) rounds keys along tokens and values along
channels. Here one row is both key and value, and `Integers` takes the values' axis for it: blocks
of channels of one row. The keys' axis needs 32 tokens for a block, which stay in full precision
until they are there; so a row would be rounded after queries have read it. The price is measured in
docs/models.md: in the nano models the keys' axis would lose less, most where rotary channels are
larger than the others. Therefore no block crosses the border between the two.

Sources: DeepSeek-V4 (arXiv 2606.19348) and its inference code for e4m3 with ue8m0 scales and for
FP4 index keys; vLLM's and SGLang's NVFP4 cache of V4 (384 bytes an entry); vLLM's FP8 cache, whose
scale is 1 unless it was calibrated; OCP Microscaling Formats 1.0 for e2m1 and ue8m0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from models import kernels
from models.errors import ModelError

FULL = "full"
PUBLISHED = "published"
KIVI_BLOCK = 32
FP4_BLOCK = 32
HALF_LIMIT = float(torch.finfo(torch.float16).max)


class RowFormat(Protocol):
    """How rows [..., C] are stored, as [..., S] of the format's type.

    `is_plain`: rows are stored as they are, so that stored rows can be read where they lie.
    """

    @property
    def is_plain(self) -> bool: ...

    def encode(self, rows: Tensor) -> Tensor:
        """Rows [..., C] of any floating type -> stored rows [..., S]."""

    def decode(self, stored: Tensor) -> Tensor:
        """Stored rows [..., S] -> rows [..., C]."""


class Plain:
    """Rows as they are."""

    is_plain = True

    def encode(self, rows: Tensor) -> Tensor:
        return rows

    def decode(self, stored: Tensor) -> Tensor:
        return stored


class Bfloat16:
    """Rows rounded to bfloat16."""

    is_plain = False

    def encode(self, rows: Tensor) -> Tensor:
        return rows.to(torch.bfloat16)

    def decode(self, stored: Tensor) -> Tensor:
        return stored.float()


PLAIN = Plain()
BFLOAT16 = Bfloat16()


class Place(NamedTuple):
    """Where a section begins in a stored row, and in the decoded one."""

    byte: int
    channel: int


class Section(Protocol):
    """Some channels of a row as bytes."""

    @property
    def channels(self) -> int: ...

    @property
    def num_bytes(self) -> int: ...

    def encode(self, x: Tensor) -> Tensor:
        """float32 [..., channels] -> uint8 [..., num_bytes]."""

    def decode(self, stored: Tensor, at: Place, out: Tensor) -> None:
        """uint8 [n, S] from byte `at.byte` on -> float32 out [n, C] from channel `at.channel` on.

        Both are whole tables, whose rows lie one behind the other: kernels are fast on these.
        """


@dataclass(frozen=True)
class Packed:
    """Rows as bytes: sections of channels beside each other."""

    sections: tuple[Section, ...]
    is_plain = False

    @property
    def num_bytes(self) -> int:
        """Of a row."""
        return sum(section.num_bytes for section in self.sections)

    def encode(self, rows: Tensor) -> Tensor:
        parts = rows.float().split([section.channels for section in self.sections], dim=-1)
        coded = [s.encode(part) for s, part in zip(self.sections, parts, strict=True)]
        return torch.cat(coded, dim=-1)

    def decode(self, stored: Tensor) -> Tensor:
        rows = stored.flatten(0, -2)
        channels = sum(section.channels for section in self.sections)
        out = torch.empty(len(rows), channels, device=stored.device)
        at = Place(0, 0)
        for section in self.sections:
            section.decode(rows, at, out)
            at = Place(at.byte + section.num_bytes, at.channel + section.channels)
        return out.view(*stored.shape[:-1], channels)


@dataclass(frozen=True)
class Halves:
    """Channels in bfloat16."""

    channels: int

    @property
    def num_bytes(self) -> int:
        return 2 * self.channels

    def encode(self, x: Tensor) -> Tensor:
        return x.to(torch.bfloat16).view(torch.uint8)

    def decode(self, stored: Tensor, at: Place, out: Tensor) -> None:
        halves = as_type(stored[:, at.byte : at.byte + self.num_bytes], torch.bfloat16)
        out[:, at.channel : at.channel + self.channels] = halves


def as_type(stored: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes as numbers of a type; a copy, since a view of them need not begin where one may."""
    return stored.clone(memory_format=torch.contiguous_format).view(dtype)


@dataclass(frozen=True)
class Fill:
    """Bytes without a meaning, which bring a row to its published size."""

    num_bytes: int
    channels: int = 0

    def encode(self, x: Tensor) -> Tensor:
        return torch.zeros(*x.shape[:-1], self.num_bytes, dtype=torch.uint8, device=x.device)

    def decode(self, stored: Tensor, at: Place, out: Tensor) -> None:
        pass


class Scale(Protocol):
    """A block's scale in one byte."""

    def encode(self, wanted: Tensor) -> Tensor:
        """Scales > 0, float32 -> uint8 of the same shape."""

    def decode(self, stored: Tensor) -> Tensor: ...


class PowerOfTwo:
    """ue8m0: the least power of two that is not below the wanted scale."""

    def encode(self, wanted: Tensor) -> Tensor:
        mantissa, exponent = torch.frexp(wanted)  # wanted = mantissa * 2 ** exponent, from 1/2 up
        exponent = exponent - (mantissa == 0.5).int()
        return (exponent + 127).clamp(1, 254).to(torch.uint8)

    def decode(self, stored: Tensor) -> Tensor:
        return (stored.int() << 23).view(torch.float32)


class E4m3Scale:
    """e4m3: the nearest such number, above 0."""

    def encode(self, wanted: Tensor) -> Tensor:
        return e4m3(wanted.clamp(2.0**-9, E4M3.largest))

    def decode(self, stored: Tensor) -> Tensor:
        return stored.contiguous().view(torch.float8_e4m3fn).float()


@dataclass(frozen=True)
class FloatCode:
    """A floating-point number of few bits; several of them share a byte, the lowest bits first."""

    name: str
    bits: int
    largest: float
    encode: Callable[[Tensor], Tensor]  # within +-largest -> a code in each uint8


def e4m3(x: Tensor) -> Tensor:
    """The codes of numbers within +-448, rounded to the nearest, ties to even."""
    return x.to(torch.float8_e4m3fn).view(torch.uint8)


E2M1_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def e2m1(x: Tensor) -> Tensor:
    """The codes of numbers within +-6, rounded to the nearest, ties to even."""
    size = x.abs()
    code = (size > 0.25).to(torch.uint8)
    code += size >= 0.75
    code += size > 1.25
    code += size >= 1.75
    code += size > 2.5
    code += size >= 3.5
    code += size > 5.0
    code += torch.signbit(x).to(torch.uint8) << 3
    return code


E4M3 = FloatCode("e4m3", 8, 448.0, e4m3)
E2M1 = FloatCode("e2m1", 4, 6.0, e2m1)


@cache
def code_values(name: str, bits: int, device: torch.device) -> Tensor:
    """What the codes of a byte stand for, [256, 8 / bits]; `name` is a float code's or "uint"."""
    byte = torch.arange(256, device=device)[:, None]
    codes: Tensor = byte >> (bits * torch.arange(8 // bits, device=device)) & (2**bits - 1)
    if name == "uint":
        return codes.float()
    if name == E4M3.name:
        return codes.to(torch.uint8).view(torch.float8_e4m3fn).float()
    positive = torch.tensor(E2M1_VALUES, device=device)
    return torch.cat((positive, -positive))[codes]


def pack(codes: Tensor, bits: int) -> Tensor:
    """A code in each uint8 [..., C] -> 8 / bits codes in each, the lowest bits first."""
    each = 8 // bits
    if each == 1:
        return codes
    codes = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % each)).unflatten(-1, (-1, each))
    packed = codes[..., 0].clone()
    for place in range(1, each):
        packed |= codes[..., place] << (bits * place)
    return packed


def unpack(packed: Tensor, channels: int, name: str, bits: int) -> Tensor:
    """What packed codes [..., bytes] stand for, [..., channels]."""
    values = code_values(name, bits, packed.device)
    found = values.index_select(0, packed.int().flatten())
    return found.view(*packed.shape[:-1], packed.shape[-1] * (8 // bits))[..., :channels]


def has_kernels(stored: Tensor) -> bool:
    """Whether a kernel can decode these rows."""
    return stored.device.type == "cpu" and stored.is_contiguous() and kernels.usable()


def in_blocks(x: Tensor, block: int) -> Tensor:
    """[..., C] -> [..., blocks, block]; the last channel fills up the last block."""
    fill = -x.shape[-1] % block
    if fill:
        x = torch.cat((x, x[..., -1:].expand(*x.shape[:-1], fill)), dim=-1)
    blocks: Tensor = x.unflatten(-1, (-1, block))
    return blocks


def over_channels(each: Tensor, block: int, channels: int) -> Tensor:
    """A number for each block [..., blocks] -> the same for each channel [..., channels]."""
    spread = each.unsqueeze(-1).expand(*each.shape, block)
    return spread.flatten(-2)[..., :channels]


@dataclass(frozen=True)
class Floats:
    """Floating-point codes with a scale for each block of channels; without scales if None.

    A block's largest number is scaled to the code's largest one; the block counts as at least
    `least` in size.
    """

    channels: int
    code: FloatCode
    scale: Scale | None
    block: int
    least: float = 0.0

    @property
    def _code_bytes(self) -> int:
        return _up(self.channels * self.code.bits, 8)

    @property
    def num_bytes(self) -> int:
        return self._code_bytes + (_up(self.channels, self.block) if self.scale else 0)

    def encode(self, x: Tensor) -> Tensor:
        if self.scale is None:
            return self._codes(x)
        size = in_blocks(x, self.block).abs().amax(-1).clamp(min=self.least)
        scales = self.scale.encode(size / self.code.largest)
        spread = over_channels(self.scale.decode(scales), self.block, self.channels)
        return torch.cat((self._codes(x / spread), scales), dim=-1)

    def decode(self, stored: Tensor, at: Place, out: Tensor) -> None:
        end = at.byte + self._code_bytes
        if self.scale is None:
            scales = torch.ones(len(stored), 1, device=stored.device)
        else:
            scales = self.scale.decode(stored[:, end : at.byte + self.num_bytes])
        if has_kernels(stored) and self.channels * self.code.bits % 8 == 0:
            from models.kernels import unpacking

            fast = unpacking.unpack_e4m3 if self.code is E4M3 else unpacking.unpack_e2m1
            fast(stored, scales, self.block, self.channels, at, out)
        else:
            packed = stored[:, at.byte : end]
            values = unpack(packed, self.channels, self.code.name, self.code.bits)
            values = values * over_channels(scales, self.block, self.channels)
            out[:, at.channel : at.channel + self.channels] = values

    def _codes(self, x: Tensor) -> Tensor:
        largest = self.code.largest
        return pack(self.code.encode(x.clamp(-largest, largest)), self.code.bits)


@dataclass(frozen=True)
class Integers:
    """Whole numbers of `bits` between a block's least and largest, which float16 pairs tell."""

    channels: int
    bits: int
    block: int

    @property
    def _code_bytes(self) -> int:
        return _up(self.channels * self.bits, 8)

    @property
    def num_bytes(self) -> int:
        return self._code_bytes + 4 * _up(self.channels, self.block)

    def encode(self, x: Tensor) -> Tensor:
        blocks, levels = in_blocks(x, self.block), 2**self.bits - 1
        least = blocks.amin(-1).clamp(-HALF_LIMIT, HALF_LIMIT).half()
        step = ((blocks.amax(-1) - least.float()) / levels).clamp(0, HALF_LIMIT).half()
        divisor = torch.where(step > 0, step, 1.0).float()
        codes = ((blocks - least.float()[..., None]) / divisor[..., None]).round()
        codes = codes.clamp(0, levels).to(torch.uint8).flatten(-2)[..., : self.channels]
        pairs = torch.stack((least, step), dim=-1).flatten(-2).view(torch.uint8)
        return torch.cat((pack(codes, self.bits), pairs), dim=-1)

    def decode(self, stored: Tensor, at: Place, out: Tensor) -> None:
        end = at.byte + self._code_bytes
        pairs = as_type(stored[:, end : at.byte + self.num_bytes], torch.float16).float()
        if has_kernels(stored) and self.channels * self.bits % 8 == 0:
            from models.kernels.unpacking import unpack_integers

            unpack_integers(stored, self.bits, pairs, self.block, self.channels, at, out)
        else:
            values = unpack(stored[:, at.byte : end], self.channels, "uint", self.bits)
            least, step = (
                over_channels(pairs[:, which::2], self.block, self.channels) for which in (0, 1)
            )
            out[:, at.channel : at.channel + self.channels] = values * step + least


@cache
def hadamard(width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Sylvester's matrix [width, width] over sqrt(width): symmetric, and its own inverse."""
    matrix = torch.ones(1, 1, dtype=dtype, device=device)
    while len(matrix) < width:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    scaled: Tensor = matrix * width**-0.5
    return scaled


def rotated(x: Tensor) -> Tensor:
    """x [..., C] times Sylvester's matrix: a block's large numbers are spread over all."""
    return x @ hadamard(x.shape[-1], x.dtype, x.device)


@dataclass(frozen=True)
class RotatedFp4:
    """V4's index keys: rotated by Sylvester's matrix, then e2m1 with ue8m0 scales of 32 channels.

    Decoded rows stay rotated, since the queries that meet them are rotated, too: `queries`.
    """

    section: Floats
    is_plain = False

    @classmethod
    def of(cls, channels: int) -> RotatedFp4:
        return cls(Floats(channels, E2M1, PowerOfTwo(), FP4_BLOCK, least=6 * 2.0**-126))

    @property
    def num_bytes(self) -> int:
        """Of a row."""
        return self.section.num_bytes

    def encode(self, rows: Tensor) -> Tensor:
        return self.section.encode(rotated(rows).float())

    def decode(self, stored: Tensor) -> Tensor:
        return Packed((self.section,)).decode(stored)

    def queries(self, x: Tensor) -> Tensor:
        """Queries [..., C] as the published kernel multiplies them: rotated and in FP4, too."""
        return self.decode(self.encode(x)).to(x.dtype)


def rounded(rows: Tensor, form: RowFormat) -> Tensor:
    """Rows [..., C] as they are read again; the gradient passes as if nothing were rounded.

    The straight-through estimator (Bengio et al. 2013, arXiv 1308.3432, section 4). Rows of a
    rotated format are turned back, so that they meet queries that are `rounded`, too.
    """
    if form.is_plain:
        return rows
    with torch.no_grad():
        read = form.decode(form.encode(rows)).to(rows.dtype)
        if isinstance(form, RotatedFp4):
            read = rotated(read)
        error = read - rows
    return rows + error


@dataclass(frozen=True)
class CacheFormat:
    """How a model's rows are stored: `entry` those with keys and values in one, `index` keys,
    `latent` those of latent attention."""

    name: str = FULL
    entry: RowFormat = PLAIN
    index: RowFormat = PLAIN
    latent: RowFormat = PLAIN

    def index_queries(self, queries: Tensor) -> Tensor:
        """The indexer's queries [..., C] as they meet stored keys."""
        return self.index.queries(queries) if isinstance(self.index, RotatedFp4) else queries

    def rounded_queries(self, queries: Tensor) -> Tensor:
        """The indexer's queries [..., C] as they meet keys that are `rounded`."""
        return rounded(queries, self.index) if isinstance(self.index, RotatedFp4) else queries


def published_entry(plain: int, rotary: int) -> Packed:
    """DeepSeek-V4's: e4m3 with ue8m0 scales of 64 channels, filled to 8 bytes; rotary in bf16."""
    coded = Floats(plain, E4M3, PowerOfTwo(), 64, least=1e-4)
    return Packed((coded, Fill(-coded.num_bytes % 8), Halves(rotary)))


def nvfp4_entry(plain: int, rotary: int) -> Packed:
    """e2m1 with e4m3 scales of 16 channels; rotary in bf16; filled to 16 bytes."""
    coded, turned = Floats(plain, E2M1, E4m3Scale(), 16), Halves(rotary)
    return Packed((coded, turned, Fill(-(coded.num_bytes + turned.num_bytes) % 16)))


def fp8_row(channels: int) -> Packed:
    """e4m3 alone."""
    return Packed((Floats(channels, E4M3, None, channels),))


def integer_row(bits: int, *parts: int) -> Packed:
    """KIVI's whole numbers, in blocks of 32 channels that lie within one of `parts`."""
    return Packed(tuple(Integers(channels, bits, KIVI_BLOCK) for channels in parts))


BITS = {"int8": 8, "int4": 4, "int2": 2}
WORDS = (FULL, "bf16", "fp8", *BITS, "nvfp4")


def cache_format(
    word: object, plain: int, rotary: int, index: int | None = None, *, published: bool = False
) -> CacheFormat:
    """The format that an option `cache` names.

    Args:
        word: one of WORDS, or "published".
        plain, rotary: channels of an entry without and with rotary embedding.
        index: channels of an indexer's key; None where the model has no indexer.
        published: whether the model has a published layout.

    Raises:
        ModelError: another word, or an indexer's width that cannot be rotated.
    """
    words = (*WORDS, PUBLISHED) if published else WORDS
    if word not in words:
        raise ModelError(f"options.cache: got {word!r}, expected one of {', '.join(words)}")
    name = str(word)
    if name == FULL:
        return CacheFormat()
    if name == "bf16":
        return CacheFormat(name, BFLOAT16, BFLOAT16)
    if name in (PUBLISHED, "nvfp4"):
        entry = published_entry if name == PUBLISHED else nvfp4_entry
        return CacheFormat(name, entry(plain, rotary), fp4_keys(name, index) if index else PLAIN)

    if name == "fp8":
        return CacheFormat(name, fp8_row(plain + rotary), fp8_row(index) if index else PLAIN)
    bits = BITS[name]
    keys = integer_row(bits, index) if index else PLAIN
    return CacheFormat(name, integer_row(bits, plain, rotary), keys)


def fp4_keys(word: str, channels: int) -> RotatedFp4:
    """V4's index keys. Raises: ModelError where Sylvester's matrix has no such width."""
    if channels & (channels - 1):
        raise ModelError(
            f"options.cache: got {word!r}, but FP4 index keys need an index_head_dim that is a "
            f"power of two, and it is {channels}"
        )
    return RotatedFp4.of(channels)


def _up(amount: int, unit: int) -> int:
    """How many units hold `amount`."""
    return -(-amount // unit)
