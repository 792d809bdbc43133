"""Owns how `niah cost` looks: the tables of `models.cost` as aligned text.

Knows no formula.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.table import Table

from models.costs.tables import FLOPS_CAVEAT, LENGTHS, own_table, table
from models.deepseek_v4.config import DeepseekV4Config
from niah.text_format import length_text

GIB = 2**30
MIB = 2**20


def published_table(lengths: Iterable[int] = LENGTHS) -> Table:
    """Cache and single-token compute of the published models, with V3.2 as the measure."""
    view = Table(
        title="Published models: KV cache of one sequence, compute of one more token",
        caption=f"GFLOP: {FLOPS_CAVEAT} GQA8: 61 layers of 8 key-value heads of 128 in bf16.",
        box=box.SIMPLE,
    )
    for name in ("length", "model"):
        view.add_column(name)
    for name in ("cache GiB", "times smaller than V3.2", "GFLOP", "of V3.2's"):
        view.add_column(name, justify="right")
    for row in table(lengths):
        view.add_row(*_published_cells(row), end_section=row["model"] == "GQA8")
    return view


def _published_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    unknown = row["token_flops"] is None
    return (
        length_text(row["length"]),
        row["model"],
        f"{row['cache_bytes'] / GIB:.3f}",
        f"{row['times_smaller']:.2f}×",
        "–" if unknown else f"{row['token_flops'] / 1e9:.0f}",
        "–" if unknown else f"{row['flops_share']:.1%}",
    )


def cache_table(configs: Mapping[str, DeepseekV4Config], lengths: Iterable[int] = LENGTHS) -> Table:
    """What sessions of these configurations hold in fp32, by kind."""
    return _by_part(
        own_table(configs, lengths), "cache_bytes", MIB, "fp32 cache of one session, MiB by kind"
    )


def compute_table(
    configs: Mapping[str, DeepseekV4Config], lengths: Iterable[int] = LENGTHS
) -> Table:
    """What reading contexts of these lengths takes, by component."""
    title = "compute of reading the whole context, GFLOP by component, all precisions alike"
    return _by_part(own_table(configs, lengths), "prefill_flops", 1e9, title)


def _by_part(rows: list[dict[str, Any]], column: str, unit: float, title: str) -> Table:
    """One column for every part that any row has something of."""
    used = [part for part in rows[0][column] if any(row[column][part] for row in rows)]
    view = Table("length", "model", title=title, box=box.SIMPLE)
    for part in used:
        view.add_column(part, justify="right")
    for row in rows:
        amounts = [f"{row[column][part] / unit:,.2f}" for part in used]
        view.add_row(length_text(row["length"]), row["model"], *amounts)
    return view
