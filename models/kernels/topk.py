"""The lightning indexer's scores and their causal top-k in one pass over the keys.

Report section 2.3.1, equations 16 and 17. Scores of a tile of keys live in registers; what
exceeds a query's running threshold joins its candidates, and whenever these fill up, the k best
of them stay. Nothing of size queries x entries is written. A score is one fixed chain of
operations, so it depends neither on the tile nor on how queries and keys are split.

Keys are float32, or V4's FP4 index keys as `models.number_formats` stores them, which are decoded
tile by tile.

Shapes: S queries, H heads (a multiple of 4), C index width, n entries, T = LANES * VECTORS
entries a tile, k selected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from models.kernels.compile import LANES, VECTORS, kernel
from models.kernels.floats import as_float
from models.kernels.team import in_shares
from models.kernels.threads import How
from models.number_formats import FP4_BLOCK, PowerOfTwo

TILE = LANES * VECTORS
HEADS = 4  # scored together
HALF_SCALES = PowerOfTwo().decode(torch.arange(256)).numpy() * np.float32(0.5)
"""Half of what the scales of ue8m0 stand for."""
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Keys = NDArray[np.float32] | NDArray[np.uint8]


@intrinsic
def _score_tile(
    typing: Any, query: Any, weights: Any, groups: Any, dim: Any, tile: Any, least: Any, out: Any
) -> Any:
    """Scores of one query for a tile of keys, and a bit for each that exceeds `least`.

    Addresses of: the query [groups * 4, C], its head weights [groups * 4], the tile [C, T], and
    room for the scores [T].
    """
    address, count, real = types.uintp, types.intp, types.float32
    signature = types.uint64(address, address, count, count, address, real, address)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _TileBuilder(builder).build(*args)

    return signature, generate


class _TileBuilder:
    """Writes `_score_tile`: for each group of heads a loop over channels, all sums in registers."""

    def __init__(self, builder: Any) -> None:
        self.b = builder
        self.float, self.word = ir.FloatType(), ir.IntType(64)
        self.vector = ir.VectorType(self.float, LANES)
        name = f"llvm.fma.v{LANES}f32"
        if name not in builder.module.globals:
            ir.Function(builder.module, ir.FunctionType(self.vector, [self.vector] * 3), name)
        self.fma = builder.module.globals[name]
        self.zero = ir.Constant(self.vector, [0.0] * LANES)

    def build(
        self, query: Any, weights: Any, groups: Any, dim: Any, tile: Any, least: Any, out: Any
    ) -> Any:
        b = self.b
        before = b.block
        outer, inner, fold, done = (
            b.append_basic_block(f"tile.{name}") for name in ("heads", "channels", "fold", "done")
        )
        b.branch(outer)

        b.position_at_end(outer)
        group = self._phi(self.word, before, self._int(0))
        totals = [self._phi(self.vector, before, self.zero) for _ in range(VECTORS)]
        first = b.mul(group, self._int(HEADS))
        b.branch(inner)

        b.position_at_end(inner)
        channel = self._phi(self.word, outer, self._int(0))
        sums = [self._phi(self.vector, outer, self.zero) for _ in range(HEADS * VECTORS)]
        row = b.mul(channel, self._int(TILE))
        keys = [self._load(tile, b.add(row, self._int(v * LANES))) for v in range(VECTORS)]
        grown = []
        for h in range(HEADS):
            at = b.add(b.mul(b.add(first, self._int(h)), dim), channel)
            q = self._broadcast(query, at)
            for v in range(VECTORS):
                grown.append(b.call(self.fma, [q, keys[v], sums[h * VECTORS + v]]))
        following = b.add(channel, self._int(1))
        self._close(inner, [channel, *sums], [following, *grown])
        b.cbranch(b.icmp_signed("<", following, dim), inner, fold)

        b.position_at_end(fold)
        folded = list(totals)
        for h in range(HEADS):
            weight = self._broadcast(weights, b.add(first, self._int(h)))
            for v in range(VECTORS):
                dots = grown[h * VECTORS + v]
                positive = b.select(b.fcmp_ordered(">", dots, self.zero), dots, self.zero)
                folded[v] = b.call(self.fma, [positive, weight, folded[v]])
        following = b.add(group, self._int(1))
        self._close(fold, [group, *totals], [following, *folded])
        b.cbranch(b.icmp_signed("<", following, groups), outer, done)

        b.position_at_end(done)
        threshold = self._splat(least)
        hits = self._int(0)
        for v, scores in enumerate(folded):
            pointer = self._pointer(out, self._int(v * LANES), self.vector)
            b.store(scores, pointer, align=4)
            bits = b.bitcast(b.fcmp_ordered(">", scores, threshold), ir.IntType(LANES))
            hits = b.or_(hits, b.shl(b.zext(bits, self.word), self._int(v * LANES)))
        return hits

    def _int(self, value: int) -> Any:
        return ir.Constant(self.word, value)

    def _phi(self, kind: Any, source: Any, value: Any) -> Any:
        phi = self.b.phi(kind)
        phi.add_incoming(value, source)
        return phi

    def _close(self, block: Any, phis: list[Any], values: list[Any]) -> None:
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(value, block)

    def _pointer(self, address: Any, offset: Any, kind: Any) -> Any:
        bytes_in = self.b.add(address, self.b.mul(offset, self._int(4)))
        return self.b.inttoptr(bytes_in, kind.as_pointer())

    def _load(self, address: Any, offset: Any) -> Any:
        return self.b.load(self._pointer(address, offset, self.vector), align=4)

    def _broadcast(self, address: Any, offset: Any) -> Any:
        return self._splat(self.b.load(self._pointer(address, offset, self.float), align=4))

    def _splat(self, value: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        single = self.b.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return self.b.shuffle_vector(single, undefined, lanes)


@intrinsic
def _decode_pairs(typing: Any, codes: Any, halves: Any, out: Any) -> Any:
    """Bytes of two FP4 codes [T] -> numbers [2, T], times twice `halves` [T]; of addresses."""
    address = types.uintp
    signature = types.void(address, address, address)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _PairBuilder(builder).build(*args)
        return context.get_dummy_value()

    return signature, generate


class _PairBuilder:
    """Writes `_decode_pairs`: twice the numbers 0, .5, 1, 1.5, 2, 3, 4, 6 are sums of bytes."""

    def __init__(self, builder: Any) -> None:
        self.b = builder
        self.word = ir.IntType(64)
        self.bytes = ir.VectorType(ir.IntType(8), TILE)
        self.floats = ir.VectorType(ir.FloatType(), TILE)

    def build(self, codes: Any, halves: Any, out: Any) -> None:
        b = self.b
        pairs = self._load(codes, self.bytes)
        factors = self._load(halves, self.floats)
        for place, code in enumerate((b.and_(pairs, self._all(15)), b.lshr(pairs, self._all(4)))):
            numbers = b.fmul(b.sitofp(self._twice(code), self.floats), factors)
            row = b.add(out, ir.Constant(self.word, 4 * TILE * place))
            b.store(numbers, b.inttoptr(row, self.floats.as_pointer()), align=4)

    def _twice(self, code: Any) -> Any:
        """Twice the number that a code of e2m1 stands for."""
        b = self.b
        size = b.and_(code, self._all(7))
        above_two = self._positive(b.sub(size, self._all(4)))
        above_four = self._positive(b.sub(size, self._all(6)))
        twice = b.add(b.add(size, above_two), b.add(above_four, above_four))
        negative = b.icmp_unsigned(">", code, self._all(7))
        return b.select(negative, b.neg(twice), twice)

    def _positive(self, x: Any) -> Any:
        return self.b.select(self.b.icmp_signed(">", x, self._all(0)), x, self._all(0))

    def _all(self, value: int) -> Any:
        return ir.Constant(self.bytes, [value] * TILE)

    def _load(self, address: Any, kind: Any) -> Any:
        return self.b.load(self.b.inttoptr(address, kind.as_pointer()), align=1)


@intrinsic
def _lowest_bit(typing: Any, bits: Any) -> Any:
    """Position of the lowest set bit of a number that has one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@kernel
def _largest(scores: Floats, count: int) -> np.float32:
    """The largest magnitude; of integers, because these are compared in vectors."""
    bits, most = scores.view(np.int32), np.int32(0)
    for i in range(count):
        most = max(most, bits[i] & np.int32(0x7FFFFFFF))
    largest: Any = as_float(most)  # type: ignore[call-arg]  # the first is the compiler's
    return np.float32(largest)


@kernel
def _bounds(scores: Floats, count: int, k: int) -> tuple[np.float32, np.float32, int]:
    """Bisection: of `count` > k scores at least k reach `low`, at most k reach `high`; where these
    are fewer, scores between the two are equal. Returns low, high, and how many reach high.
    """
    middle = _largest(scores, count)
    low, high, above = -middle, np.float32(np.inf), 0
    while above < k:
        reached = 0
        for i in range(count):
            reached += scores[i] >= middle
        if reached > k:
            low = middle
        else:
            high, above = middle, reached
        middle = np.float32(0.5) * low + np.float32(0.5) * high
        if not low < middle < high:
            break
    return low, high, above


@kernel
def _keep_best(scores: Floats, places: Ints, count: int, k: int) -> float:
    """The k best of `count` > k candidates, their order kept; returns what the next must exceed.

    Candidates are in ascending order of place: of equal scores the earlier ones stay.
    """
    low, high, above = _bounds(scores, count, k)
    ties, kept = k - above, 0
    for i in range(count):
        score = scores[i]
        best = int(score >= high)
        tied = int(score >= low) - best
        scores[kept], places[kept] = score, places[i]
        kept += best | (tied & int(ties > 0))
        ties -= tied
    return float(low if above < k else high)


def _fill(tile: Any, keys: Any, start: Any, width: Any, columns: Any, halves: Any) -> None:
    """Have keys start .. start + width - 1 of [n, ...] as columns of the tile [C, T].

    `columns` [..., T] and `halves` [T] are room for the bytes and the scales of FP4 keys.
    """
    raise NotImplementedError  # a kernel is compiled with one of the two below


def _fill_plain(tile: Any, keys: Any, start: Any, width: Any, columns: Any, halves: Any) -> None:
    for j in range(width):
        for c in range(tile.shape[0]):
            tile[c, j] = keys[start + j, c]


def _fill_fp4(tile: Any, keys: Any, start: Any, width: Any, columns: Any, halves: Any) -> None:
    num_codes = tile.shape[0] // 2  # bytes of two codes, before the scales
    for j in range(width):
        key = keys[start + j]
        for c in range(len(key)):
            columns[c, j] = key[c]
    source, target = columns.ctypes.data, tile.ctypes.data
    for first in range(0, num_codes, FP4_BLOCK // 2):
        scales = columns[num_codes + 2 * first // FP4_BLOCK]
        for j in range(width):
            halves[j] = HALF_SCALES[scales[j]]
        for c in range(first, min(first + FP4_BLOCK // 2, num_codes)):
            _decode_pairs(  # type: ignore[call-arg]  # the first is the compiler's
                source + c * TILE, halves.ctypes.data, target + 8 * c * TILE
            )


@overload(_fill)
def _fill_of(
    tile: Any, keys: Any, start: Any, width: Any, columns: Any, halves: Any
) -> Callable[..., None]:
    return _fill_fp4 if keys.dtype == types.uint8 else _fill_plain


@kernel
def scan(
    queries: Floats,
    weights: Floats,
    visible: Ints,
    scores: Floats,
    places: Ints,
    counts: Ints,
    least: Floats,
    keys: Keys,
    base: int,
    k: int,
) -> None:
    """Add the best of `keys`, entries base .. base + n - 1, to every query's candidates.

    Keys are float32 [n, C], or in FP4 uint8 [n, C / 2 + blocks]. They come in ascending order over
    calls. Candidates are scores and places [S, room] of which
    `counts` [S] are filled, room >= k + T; `least` [S] is what an entry has to exceed, -inf at
    first. `visible` [S] ascends.
    """
    num_queries, heads, dim = queries.shape
    room = scores.shape[1]
    tile = np.zeros((dim, TILE), np.float32)
    found, halves = np.empty(TILE, np.float32), np.zeros(TILE, np.float32)
    columns = np.zeros((keys.shape[1], TILE), np.uint8)
    query_address, weight_address = queries.ctypes.data, weights.ctypes.data
    tile_address, found_address = tile.ctypes.data, found.ctypes.data
    first = 0
    for start in range(0, keys.shape[0], TILE):
        place = base + start
        while first < num_queries and visible[first] <= place:
            first += 1
        if first == num_queries:
            break
        width = min(TILE, keys.shape[0] - start)
        _fill(tile, keys, start, width, columns, halves)
        for s in range(first, num_queries):
            hits: Any = _score_tile(  # type: ignore[call-arg]  # the first is the compiler's
                query_address + 4 * s * heads * dim,
                weight_address + 4 * s * heads,
                heads // HEADS,
                dim,
                tile_address,
                least[s],
                found_address,
            )
            limit = min(width, visible[s] - place)
            if limit < TILE:
                hits &= (np.uint64(1) << np.uint64(limit)) - np.uint64(1)
            if hits == 0:
                continue
            count = counts[s]
            while hits != 0:
                j = np.int64(_lowest_bit(hits))
                scores[s, count] = found[j]
                places[s, count] = place + j
                count += 1
                hits &= hits - np.uint64(1)
            if count > room - TILE:
                least[s] = _keep_best(scores[s], places[s], count, k)
                count = k
            counts[s] = count


@kernel
def finish(scores: Floats, places: Ints, counts: Ints, visible: Ints, chosen: Ints, k: int) -> None:
    """Candidates -> indices [S, k] in ascending order; what k exceeds `visible` by is filled up
    with the first hidden entries."""
    for s in range(len(counts)):
        count = counts[s]
        if count > k:
            _keep_best(scores[s], places[s], count, k)
            count = k
        for i in range(count):
            chosen[s, i] = places[s, i]
        for i in range(count, k):
            chosen[s, i] = visible[s] + i - count


@kernel
def scan_ranges(
    starts: Ints,
    stops: Ints,
    scores: Floats,
    places: Ints,
    counts: Ints,
    least: Floats,
    queries: Floats,
    weights: Floats,
    visible: Ints,
    keys: Keys,
    base: int,
    k: int,
) -> None:
    """As `scan`, the candidates of entries starts[i] .. stops[i] - 1 in scores[i] and so on."""
    for i in range(len(starts)):
        start, stop = max(starts[i] - base, 0), min(stops[i] - base, len(keys))
        if start < stop:
            found = scores[i], places[i], counts[i], least[i]
            scan(queries, weights, visible, *found, keys[start:stop], base + start, k)


@kernel
def scan_shares(how: How) -> int:
    return in_shares(scan, how)


@kernel
def finish_shares(how: How) -> int:
    return in_shares(finish, how)


@kernel
def scan_ranges_shares(how: How) -> int:
    return in_shares(scan_ranges, how)
