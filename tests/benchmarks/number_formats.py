"""Number formats of the cache: bytes and errors of a row, and reading speed against full precision.

    python -m tests.benchmarks.number_formats                    # bytes and errors
    python -m tests.benchmarks.number_formats --speed [--tokens 32768] [--arms nano-dense]
    python -m tests.benchmarks.number_formats --indexer [--tokens 32768]

Times are CPU seconds of one thread, as ratios to full precision, measured in turns with it: a
loaded machine slows both. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from haystacks.corpora.registry import load_corpus
from haystacks.tokenizer import load_tokenizer
from models.deepseek_v4.cache import CsaCache, LayerCache, Rows
from models.deepseek_v4.config import is_uncompressed
from models.deepseek_v4.dense import FullCache
from models.deepseek_v4.loading import LoadedModel
from models.deepseek_v4.session import DeepseekV4Session
from models.kernels.selection import best_entries
from models.number_formats import (
    BITS,
    FULL,
    KIVI_BLOCK,
    PUBLISHED,
    WORDS,
    Integers,
    Packed,
    RotatedFp4,
    RowFormat,
    cache_format,
    rotated,
)
from models.registry import load_model

V4_WIDTHS = 448, 64, 128
NANO_WIDTHS = 48, 16, 32
ALL = (*WORDS, PUBLISHED)
TEXT_TOKENS = 4096
CHUNK = 1024
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--speed", action="store_true", help="reading, against full precision")
    parser.add_argument("--indexer", action="store_true", help="scores of FP4 keys, against fp32")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument(
        "--arms", type=lambda text: text.split(","), default=["nano-dense", "nano-v4"]
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if options.speed:
        for arm in options.arms:
            speed_table(arm, options.tokens)
    elif options.indexer:
        indexer_table(options.tokens)
    else:
        size_table()
        axis_table()


def size_table() -> None:
    """Bytes of an entry and of an index key, and errors on normal numbers and on nano rows."""
    noise = normal(4096, 512)
    rows = nano_rows("nano-v4")
    print("| `cache` | entry, V4 | index key, V4 | entry, nano | index key, nano |", end="")
    print(" error, normal numbers | error, nano-v4's entries |\n|---|---|---|---|---|---|---|")
    for word in ALL:
        cells = [f"`{word}`"]
        for widths in (V4_WIDTHS, NANO_WIDTHS):
            form = cache_format(word, *widths, published=True)
            cells += [
                str(stored_bytes(form.entry, sum(widths[:2]))),
                str(stored_bytes(form.index, widths[2])),
            ]
        entry = cache_format(word, *V4_WIDTHS, published=True).entry
        cells.append(f"{error(entry, noise):.4f}")
        entry = cache_format(word, *NANO_WIDTHS, published=True).entry
        cells.append(", ".join(f"{error(entry, found):.4f}" for found in rows.values()))
        print("| " + " | ".join(cells) + " |")
    keys = RotatedFp4.of(128)
    noise = normal(4096, 128)
    found = rotated(keys.decode(keys.encode(noise)))
    print(f"\nFP4 index keys on normal numbers: {relative(found, noise):.4f}")


def axis_table() -> None:
    """Whole numbers in blocks of channels of one row, and of 32 rows of one channel."""
    print("\n| rows of | bits | blocks of channels (values' axis) | of rows (keys' axis) |")
    print("|---|---|---|---|")
    for model in ("nano-dense", "nano-v4"):
        for layer, rows in nano_rows(model).items():
            whole = rows[: len(rows) // KIVI_BLOCK * KIVI_BLOCK]
            for word, bits in BITS.items():
                entry = cache_format(word, *NANO_WIDTHS).entry
                along_rows = Packed((Integers(len(whole), bits, KIVI_BLOCK),))
                print(f"| {model}, layer {layer} | {bits} | {error(entry, whole):.4f} | ", end="")
                print(f"{error(along_rows, whole.T):.4f} |")


def nano_rows(model: str) -> dict[int, Tensor]:
    """K = V rows [n, C] of the global layers after a bundled text, by layer."""
    session = load_model(model).session()
    assert isinstance(session, DeepseekV4Session)
    corpus = load_corpus("postgresql", load_tokenizer("bundled-bpe-2048"))
    session.read(np.asarray(corpus.read(0, TEXT_TOKENS)))
    tables = {i: table_of(cache) for i, cache in enumerate(session._caches)}
    return {i: table.read(len(table))[0] for i, table in tables.items() if table is not None}


def table_of(cache: LayerCache) -> Rows | None:
    return getattr(cache, "full" if isinstance(cache, FullCache) else "entries", None)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def stored_bytes(form: RowFormat, width: int) -> int:
    return form.encode(torch.zeros(1, width)).nbytes


def error(form: RowFormat, rows: Tensor) -> float:
    return relative(form.decode(form.encode(rows)), rows)


def relative(found: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference over that of the numbers."""
    return float((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


def speed_table(arm: str, tokens: int) -> None:
    """A chunk read, and a token decoded, behind `tokens` rows of noise."""
    print(f"\n{arm} behind {tokens} tokens, CPU time against full precision\n")
    print(f"| `cache` | chunk of {CHUNK} | one token |\n|---|---|---|")
    base = filled(arm, FULL, tokens)
    for word in ALL:
        if word == PUBLISHED and is_uncompressed(base._model.config):
            continue
        other = filled(arm, word, tokens)
        chunk = ratio(reading(other, CHUNK), reading(base, CHUNK), ROUNDS)
        token = ratio(reading(other, 1), reading(base, 1), 4 * ROUNDS)
        print(f"| `{word}` | {chunk:.2f} | {token:.2f} |", flush=True)


def filled(arm: str, word: str, tokens: int) -> DeepseekV4Session:
    """A session whose tables hold what `tokens` tokens of noise leave."""
    longest = tokens + 2 * CHUNK
    model = load_model(arm, {"cache": word, "max_position_embeddings": longest})
    assert isinstance(model, LoadedModel)
    session, config = model.session(), model.network.config
    session.read(np.arange(1) % 7)  # a window
    for layer, cache in zip(model.network.model.layers, session._caches, strict=True):
        table = table_of(cache)
        if table is None:
            continue
        each = 1 if isinstance(cache, FullCache) else layer.self_attn.compressor.ratio
        table.append(normal(1, tokens // each, config.head_dim))
        if isinstance(cache, CsaCache):
            cache.index.append(normal(1, tokens // each, config.index_head_dim))
    session._position = tokens
    return session


def reading(session: DeepseekV4Session, tokens: int) -> Callable[[], object]:
    ids = np.random.default_rng(0).integers(0, 2048, tokens)
    return lambda: session.fork().read(ids)


def ratio(one: Callable[[], object], other: Callable[[], object], rounds: int) -> float:
    """Median CPU time of `one` over that of `other`, measured in turns."""
    one(), other()
    pairs = [(cpu_seconds(one), cpu_seconds(other)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)


def cpu_seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def indexer_table(tokens: int) -> None:
    """Scores and top-k over FP4 keys against float32 keys of the same numbers."""
    print("| queries | widths | FP4 against fp32 |\n|---|---|---|")
    for name, heads, width, k in (("nano", 4, 32, 64), ("V4", 64, 128, 512)):
        form = RotatedFp4.of(width)
        table, plain = Rows(format=form), Rows()
        table.append(normal(1, tokens // 4, width))
        plain.append(table.read(len(table)))
        for count in (CHUNK, 1):
            queries = form.queries(normal(1, count, heads, width))
            weights = normal(1, count, heads)
            visible = torch.full((count,), tokens // 4)
            calls: Mapping[bool, Callable[[], object]] = {
                fp4: lambda rows=rows, q=queries, w=weights, v=visible, k=k: best_entries(  # type: ignore[misc]
                    q, w, rows.scored(len(rows)), v, k
                )
                for fp4, rows in ((True, table), (False, plain))
            }
            print(f"| {count} | {name} | {ratio(calls[True], calls[False], ROUNDS):.2f} |")


if __name__ == "__main__":
    main()
