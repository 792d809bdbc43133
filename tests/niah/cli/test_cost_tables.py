"""The tables of `niah cost` show what the cost model says, and the caveat."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table

from models.deepseek_v4.config import V4_FLASH, uncompressed
from niah.cli.cost_tables import cache_table, compute_table, published_table
from niah.text_format import length_text

CONFIGS = {"tiny": V4_FLASH, "twin": uncompressed(replace(V4_FLASH, head_dim=64))}


def text_of(view: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=140).print(view)
    return out.getvalue()


def test_published_table() -> None:
    text = text_of(published_table([10**6]))
    row = next(line for line in text.splitlines() if "V4-Pro" in line)
    assert row.split() == ["1,000,000", "V4-Pro", "4.690", "9.54×", "310", "27.1%"]
    assert "not documented by DeepSeek" in text.replace("\n", " ")


def test_own_tables_have_columns_for_what_there_is() -> None:
    cache, compute = cache_table(CONFIGS, [4096]), compute_table(CONFIGS, [4096])
    kinds = ["window", "compressed", "index", "full", "total"]  # no tail at a multiple of 128
    named = [str(column.header) for column in cache.columns]
    assert [name for name in named[2:] if name != "tail"] == kinds
    assert [str(c.header) for c in compute.columns][2:] == [
        "weights", "indexer", "sliding", "csa", "hca", "full", "total",
    ]  # fmt: skip
    assert "tiny" in text_of(cache)


@pytest.mark.parametrize(
    ("length", "text"), [(4096, "4K"), (2**20, "1M"), (10**6, "1,000,000"), (0, "0")]
)
def test_lengths_in_words(length: int, text: str) -> None:
    assert length_text(length) == text
