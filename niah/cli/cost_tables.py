"""Writes the tables of `niah cost` as text, at most 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from models.costs.architecture import Architecture
from models.costs.capacity import Capacity, Cards, Split, fit
from models.costs.claims import CLAIMS, FLOPS_CAVEAT, SOURCES, TOLERANCE, Checked, Claim, check
from models.costs.layouts import LAYOUTS, PUBLISHED
from models.costs.tables import LENGTHS, requests, table
from niah.text_format import length_text

UNKNOWN = "–"
GIB = 2**30
SPLIT_TEXT: dict[Split, str] = {
    "sequences": "each sequence lies whole on one card",
    "heads": "every card holds its share of the key-value heads of every sequence; "
    "latents, index keys and tails lie on every card",
    "tokens": "each sequence is spread evenly over all cards",
}


def print_costs(
    console: Console,
    architectures: Mapping[str, Architecture],
    lengths: Sequence[int] = LENGTHS,
    layout: str = PUBLISHED,
    block: int = 1,
    by_part: bool = False,
) -> None:
    """Bytes per request, cache and compute by length; `by_part` adds tables for each model."""
    rows = table(architectures, lengths, layout, block)
    described = requests(architectures, layout, block)
    show(console, request_table(described, block))
    say(console, notes(described))
    show(console, cache_table(rows))
    show(console, compute_table(rows))
    if any(row["weighted_flops"] is not None for row in rows):
        show(console, weighted_table(rows))
        say(console, [FLOPS_CAVEAT])
    for name in architectures if by_part else ():
        own = [row for row in rows if row["model"] == name]
        show(console, part_table(own, "cache_bytes", f"{name}: cache by kind"))
        if own[0]["prefill_flops"] is not None:
            show(console, part_table(own, "prefill_flops", f"{name}: prefill FLOPs by part"))
            show(console, part_table(own, "token_flops", f"{name}: FLOPs of one token by part"))


def print_claims(console: Console, claims: Sequence[Claim] = CLAIMS) -> int:
    """Published figures beside the computed ones; the exit code, 1 where one is off."""
    checked = check(claims)
    show(console, claims_table(checked))
    say(console, claims_lines(checked))
    return 0 if all(found.holds for found in checked) else 1


def print_capacity(
    console: Console,
    architectures: Mapping[str, Architecture],
    cards: Cards,
    lengths: Sequence[int] = LENGTHS,
    layout: str = PUBLISHED,
    block: int = 1,
    split: Split = "sequences",
) -> None:
    """What fits into the memory that weights leave."""
    found = {
        name: fit(architecture, cards, lengths, layout, block, split)
        for name, architecture in architectures.items()
    }
    limits = {name: architecture.max_position for name, architecture in architectures.items()}
    say(console, capacity_lines(found, cards, split, limits))
    show(console, capacity_table(found, lengths))
    described = requests(architectures, layout, block)
    say(console, notes(described))


def request_table(described: Sequence[Mapping[str, Any]], block: int = 1) -> Table:
    """A request of N tokens takes the fixed part and N times the bytes a token."""
    pages = "" if block == 1 else f", and up to one page of {block} tokens"
    view = _table(f"Cache of one request of N tokens: fixed part + N × B/token{pages}")
    _columns(view, ("model", "layout"), ("fixed part", "B/token"))
    for row in described:
        slope = row["slope"]
        view.add_row(
            escape(row["model"]),
            row["layout"],
            amount(row["fixed"]),
            f"{slope:,.0f}" if slope >= 100 else f"{slope:,.1f}",
        )
    return view


def notes(described: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the layouts are, and what the figures leave out."""
    used = dict.fromkeys(row["layout"] for row in described)
    told = [f"  {name}: {LAYOUTS[name].description}" for name in used]
    return told + [f"  {row['model']}: {note}" for row in described for note in row["notes"]]


def cache_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The cache, beside it tails and states of constant size, and what a query reads."""
    view = _table(
        f"KV cache of one sequence (share: of {rows[0]['model']}'s), its state, what a query reads"
    )
    _columns(view, ("length", "model"), ("cache", "share", "state", "reads"))
    for row, last in _by_length(rows):
        held, read = row["cache_bytes"], row["decode_reads"]
        view.add_row(
            length_text(row["length"]),
            escape(row["model"]),
            amount(row["rows_bytes"]),
            share(row["share"]),
            amount(sum(held.values()) - row["rows_bytes"]),
            UNKNOWN if read is None else amount(sum(read.values())),
            end_section=last,
        )
    return view


def compute_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """FLOPs of prefill and of one decoded token."""
    view = _table("Compute, all precisions alike: prefill of all tokens, decoding of one more")
    _columns(view, ("length", "model"), ("prefill FLOP", "token FLOP"))
    for row, last in _by_length(rows):
        prefill, token = row["prefill_flops"], row["token_flops"]
        view.add_row(
            length_text(row["length"]),
            escape(row["model"]),
            UNKNOWN if prefill is None else flops(prefill["total"]),
            UNKNOWN if token is None else flops(token["total"]),
            end_section=last,
        )
    return view


def weighted_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """FP8-equivalent FLOPs, where the precisions are published; show FLOPS_CAVEAT with it."""
    known = [row for row in rows if row["weighted_flops"] is not None]
    view = _table(f"FP8-equivalent FLOPs of one more token (share: of {rows[0]['model']}'s)")
    _columns(view, ("length", "model"), ("FP8-eq. FLOP", "share"))
    for row, last in _by_length(known):
        view.add_row(
            length_text(row["length"]),
            escape(row["model"]),
            flops(row["weighted_flops"]),
            share(row["weighted_share"]),
            end_section=last,
        )
    return view


def part_table(rows: Sequence[Mapping[str, Any]], column: str, title: str) -> Table:
    """One model's bytes or FLOPs: a column for every part of which any row has something."""
    parts = [part for part in rows[0][column] if any(row[column][part] for row in rows)]
    text = amount if column == "cache_bytes" else flops
    view = _table(title)
    _columns(view, ("length",), parts)
    for row in rows:
        view.add_row(length_text(row["length"]), *(text(row[column][part]) for part in parts))
    return view


def claims_table(checked: Sequence[Checked]) -> Table:
    """Printed and computed figures; `source_lines` explains the last column."""
    view = _table("Published figures beside those computed from the architecture")
    _columns(view, ("figure",), ("printed", "computed", "off", "beyond"))
    view.add_column("source")
    for found in checked:
        claim = found.claim
        digits = claim.decimals + (claim.decimals < 3)
        view.add_row(
            claim.what,
            f"{claim.printed:,.{claim.decimals}f}{claim.unit}",
            f"{found.value:,.{digits}f}{claim.unit}",
            f"{round(found.off, 3) + 0.0:+.1%}",
            f"{found.beyond:.1%}" + ("" if found.holds else " !"),
            claim.source,
        )
    return view


def claims_lines(checked: Sequence[Checked]) -> list[str]:
    """Where the figures were printed, how FLOPs are weighted, and the verdict."""
    used = dict.fromkeys(found.claim.source for found in checked)
    wrong = [found.claim.what for found in checked if not found.holds]
    verdict = (
        f"off by more than {TOLERANCE:.0%} beyond rounding: {'; '.join(wrong)}"
        if wrong
        else f"all {len(checked)} figures agree within {TOLERANCE:.0%} beyond rounding"
    )
    return [
        "off: from the printed figure; beyond: what its rounding does not explain",
        *(f"{key}: {SOURCES[key]}" for key in used),
        f"FLOPs: {FLOPS_CAVEAT}",
        verdict,
    ]


def capacity_table(found: Mapping[str, Capacity], lengths: Sequence[int]) -> Table:
    """Sequences that fit, by length."""
    view = _table("Sequences that fit at once, all of one length")
    _columns(view, ("length",), tuple(found))
    for length in lengths:
        counts = (f"{capacity.sequences[length]:,}" for capacity in found.values())
        view.add_row(length_text(length), *counts)
    return view


def capacity_lines(
    found: Mapping[str, Capacity],
    cards: Cards,
    split: Split,
    limits: Mapping[str, int | None],
) -> list[str]:
    """What is free, what a request takes, and the longest single sequence."""
    free = next(iter(found.values())).free
    reserve = f", {gigabytes(cards.reserve)} reserved" if cards.reserve else ""
    lines = [
        f"{cards.number} × {gigabytes(cards.memory)}, weights of {gigabytes(cards.weights)} spread "
        f"evenly{reserve}: {gigabytes(free)} a card are left for caches",
        f"split by {split}: {SPLIT_TEXT[split]}",
    ]
    for name, capacity in found.items():
        request, longest = capacity.request, capacity.longest
        line = f"{name}: a request of N tokens takes {amount(request.fixed)} + N × "
        line += f"{request.slope:,.2f} B; the longest single one has "
        line += "no limit" if longest is None else f"{longest:,} tokens"
        limit = limits[name]
        if limit is not None and (longest is None or longest > limit):
            line += f" (the model is made for {limit:,})"
        lines.append(line)
    return lines


def short_name(name: str) -> str:
    """What a table calls a model: the name of a file, or of the folder of a config.json."""
    if not name.endswith(".json"):
        return name
    path = Path(name)
    return path.resolve().parent.name if path.name == "config.json" else path.stem


def amount(size: float) -> str:
    """Bytes in the largest binary unit of which there is one: 4.690 GiB, 23.3 KiB."""
    for unit, factor, digits in (("TiB", 2**40, 3), ("GiB", GIB, 3), ("MiB", 2**20, 2)):
        if size >= factor:
            return f"{size / factor:,.{digits}f} {unit}"
    return f"{size / 1024:,.1f} KiB" if size else "0"


def gigabytes(size: float) -> str:
    """Bytes in units of 10^9, as memory is sold."""
    return f"{size / 1e9:,.4g} GB"


def flops(number: float) -> str:
    """FLOPs in the largest decimal unit of which there is one: 310 G, 1.15 T."""
    for unit, factor in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= factor:
            return f"{number / factor:,.3g} {unit}"
    return f"{number:,.0f}"


def share(value: float | None) -> str:
    """A part of the measure: 27.1%, and ×5.2 where it is more than twice."""
    if value is None:
        return UNKNOWN
    return f"×{value:.1f}" if value > 2 else f"{value:.1%}"


def show(console: Console, view: Table) -> None:
    """A table below its title: within the table, a narrow one would fold it."""
    title, view.title = str(view.title), None
    console.print(Text(title, style="bold"), soft_wrap=True)
    console.print(view)


def say(console: Console, lines: Iterable[str]) -> None:
    """Lines as they are: a name may hold what rich takes for markup."""
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))


def _columns(view: Table, left: Iterable[str], right: Iterable[str]) -> None:
    for name in left:
        view.add_column(name, overflow="fold")
    for name in right:
        view.add_column(escape(name), justify="right")


def _by_length(
    rows: Sequence[Mapping[str, Any]],
) -> Iterable[tuple[Mapping[str, Any], bool]]:
    """Each row, and whether it is the last of its length."""
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        yield row, following is None or following["length"] != row["length"]
