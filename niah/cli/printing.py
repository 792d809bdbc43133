"""Owns what a person sees in the terminal: a plan's cost, a progress bar, a run's counts.

Knows rows and plans as values; runs nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Never

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from niah.execution.estimate import Estimate
from niah.execution.jobs import Job, Tally
from niah.runs.row import Row
from niah.statistics.power import smallest_detectable_tax
from niah.sweep.config import Arm
from niah.sweep.trials import Plan
from niah.text_format import length_text

ASSUMED_DISCORDANCE = 0.03  # share of questions that two close arms answer differently


def print_plan(console: Console, plan: Plan, estimates: Mapping[str, Estimate | None]) -> None:
    """What the sweep asks, what it computes, what it needs, what it can show."""
    sweep = plan.sweep
    cold, computed = plan.prompt_tokens, plan.computed_tokens
    console.print(
        f"[bold]{sweep.name}[/bold]: {plan.questions} questions for each of {len(sweep.arms)} arms "
        f"in {len(plan.streams)} streams (layout {sweep.layout})"
    )
    console.print(
        f"tokens an arm: {computed:,} computed; cell by cell it would be {cold:,} "
        f"({cold / computed:.1f} times as many)"
    )
    for arm, needs in estimates.items():
        console.print(f"arm {arm}: {estimate_text(needs)}")
    if any(arm.role == "compressed" for arm in sweep.arms):
        console.print(power_table(plan))
        console.print(
            f"(power .8, one-sided .05, {ASSUMED_DISCORDANCE:.0%} of pairs discordant; more "
            "where questions of a stream go together; one stream leaves a gate inconclusive)"
        )


def estimate_text(needs: Estimate | None) -> str:
    """Time and memory of an arm."""
    if needs is None:
        return "a server: its time and memory are not estimated"
    work = (
        "what reading takes is not known"
        if needs.work_bytes is None
        else f"{needs.memory_bytes / 2**20:,.0f} MiB with what reading takes"
    )
    cache = f"{needs.cache_bytes / 2**20:,.1f} MiB"
    return f"about {duration(needs.seconds)}, cache up to {cache} ({work})"


def power_table(plan: Plan) -> Table:
    """The smallest tax that the sweep can show, overall and by length, and with twice the
    repeats."""
    table = Table(title="detectable tax, points", box=None, header_style="dim")
    for name in ("length", "pairs", "streams", "this sweep", "repeats doubled"):
        table.add_column(name, justify="right")
    for name, streams in questions_by_length(plan).items():
        pairs, count = sum(streams.values()), len(streams)
        shown = [detectable(n * pairs, n * count) for n in (1, 2)]
        table.add_row(name, f"{pairs:,}", str(count), *shown)
    return table


def questions_by_length(plan: Plan) -> dict[str, Counter[tuple[str, int, int]]]:
    """How many questions each stream (corpus, repeat, index) is asked: all, then by length."""
    found: dict[int, Counter[tuple[str, int, int]]] = defaultdict(Counter)
    for stream, trial in plan.trials():
        if trial.control is None:
            of = (stream.corpus, stream.repeat, stream.index)
            found[trial.requested_length][of] += 1
    by_length = {length_text(length): found[length] for length in sorted(found)}
    return {"all": sum(found.values(), Counter()), **by_length}


def detectable(pairs: int, streams: int) -> str:
    """In points, with Student's quantile as in a gate; there is none to state for one stream."""
    if streams < 2:
        return "one stream"
    tax = smallest_detectable_tax(pairs, ASSUMED_DISCORDANCE, freedom=streams - 1)
    return f"{100 * tax:.1f}"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Bar:
    """Progress in prompt tokens, over all arms; silent where nobody is watching."""

    def __init__(self) -> None:
        self._bar: tqdm[Never] | None = None

    def start(self, jobs: Sequence[Job]) -> None:
        total = sum(job.tokens for job in jobs)
        self._bar = tqdm(total=total, unit="tok", unit_scale=True, disable=None)

    def advance(self, arm: Arm, tokens: int) -> None:
        if self._bar is not None:
            self._bar.set_description(arm.name, refresh=False)
            self._bar.update(tokens)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def print_summary(console: Console, tally: Tally, rows: Sequence[Row]) -> None:
    """Right answers by length, then what this run did."""
    asked = [row for row in rows if row.control is None]
    if asked:
        console.print(recall_table(asked))
    reused = tally.reused_tokens / max(1, tally.computed_tokens + tally.reused_tokens)
    outside = tally.seconds - tally.model_seconds
    console.print(
        f"{tally.rows} rows in {duration(tally.seconds)}: {tally.computed_tokens:,} prompt tokens "
        f"computed, {tally.reused_tokens:,} reused ({reused:.1%}); "
        f"{outside:.1f} s outside the models"
    )


def recall_table(rows: Sequence[Row]) -> Table:
    """Right answers over questions by length, one column an arm; an error is not a right answer."""
    arms = list(dict.fromkeys(row.arm for row in rows))
    cells: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in rows:
        cells[row.requested_length or row.length, row.arm].append(row)
    table = Table(title="right answers / questions", box=None, header_style="dim")
    table.add_column("length", style="dim", justify="right")
    for arm in arms:
        table.add_column(arm, justify="right")
    for length in sorted({length for length, _ in cells}):
        found = [cells.get((length, arm), []) for arm in arms]
        counts = [f"{sum(row.correct is True for row in some)}/{len(some)}" for some in found]
        table.add_row(length_text(length), *counts)
    return table
