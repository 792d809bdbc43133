"""What a person sees in the terminal: a plan's cost and power, a progress bar, a run's counts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Never

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from niah.execution.estimate import Estimate, Sending
from niah.execution.jobs import Job, Tally
from niah.runs.row import Row
from niah.statistics.clusters import DECIDABLE, FEW_STREAMS, satterthwaite_freedom
from niah.statistics.overlap import overlap_text
from niah.statistics.power import can_pass, copies_to_pass, smallest_detectable_tax
from niah.sweep.config import Arm
from niah.sweep.trials import Plan
from niah.text_format import counted, length_text, points

ASSUMED_DISCORDANCE = 0.03  # share of questions that two close arms answer differently


def print_plan(
    console: Console,
    plan: Plan,
    estimates: Mapping[str, Estimate | Sending | None],
    max_tax: float | None = None,
) -> None:
    """What the sweep asks, what it computes, what it needs, what it can show.

    Args:
        max_tax: the margin of a gate, for the streams that a pass takes.
    """
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
    if together := total_text(estimates.values()):
        console.print(together)
    if any(arm.role == "compressed" for arm in sweep.arms):
        console.print(power_table(plan))
        console.print(
            f"(power .8, one-sided .05, {ASSUMED_DISCORDANCE:.0%} of pairs discordant; more "
            "where questions of a stream go together; too few streams leave a gate inconclusive)"
        )
        for line in stream_lines(plan, max_tax):
            console.print(line)
        for line in overlap_lines(plan):
            console.print(line)


def print_left(console: Console, plan: Plan, jobs: Sequence[Job]) -> None:
    """Of a run that goes on: what each arm still has to answer. Nothing where that is all."""
    left = Counter({arm.name: 0 for arm in plan.sweep.arms})
    for job in jobs:
        left[job.arm] += len(job.pairs)
    if left.total() == plan.questions * len(left):
        return
    told = ", ".join(f"{arm} {count:,}" for arm, count in left.items())
    console.print(f"left to ask of {plan.questions:,} questions each: {told}", soft_wrap=True)


def estimate_text(needs: Estimate | Sending | None) -> str:
    """Time and memory of an arm; of a server, what it will be sent."""
    if needs is None:
        return "its time and memory are not estimated"
    if isinstance(needs, Sending):
        return (
            f"a server: {needs.prompt_tokens:,} prompt tokens in {needs.requests:,} requests will "
            f"be sent; {needs.shared_tokens:,} of them begin as an earlier prompt does, which a "
            "prefix cache saves; time and memory are not estimated"
        )
    work = (
        "what reading takes is not known"
        if needs.work_bytes is None
        else f"{needs.memory_bytes / 2**20:,.0f} MiB with what reading takes"
    )
    cache = f"{needs.cache_bytes / 2**20:,.1f} MiB"
    own = (
        f" for {needs.computed_tokens:,} tokens of its own (reading shared with {needs.read_with})"
        if needs.read_with
        else ""
    )
    return f"about {duration(needs.seconds)}{own}, cache up to {cache} ({work})"


def total_text(estimates: Iterable[Estimate | Sending | None]) -> str | None:
    """Time and tokens of all arms, where some share their reading and each is estimated."""
    found = list(estimates)
    known = [needs for needs in found if isinstance(needs, Estimate)]
    if len(known) < len(found) or not any(needs.read_with for needs in known):
        return None
    seconds = sum(needs.seconds for needs in known)
    tokens = sum(needs.computed_tokens or 0 for needs in known)
    return f"all arms: about {duration(seconds)}, {tokens:,} prompt tokens computed"


def power_table(plan: Plan) -> Table:
    """The smallest tax that the sweep can show, overall and by length, and with twice the
    repeats."""
    table = Table(title="detectable tax, points", box=None, header_style="dim")
    for name in ("length", "pairs", "streams", "this sweep", "repeats doubled"):
        table.add_column(name, justify="right")
    for name, streams in questions_by_length(plan).items():
        sizes = list(streams.values())
        shown = [detectable(sizes * times) for times in (1, 2)]
        table.add_row(name, f"{sum(sizes):,}", str(len(sizes)), *shown)
    return table


def stream_lines(plan: Plan, max_tax: float | None) -> Iterator[str]:
    """Whether the sweep's streams can decide anything, and what a pass at `max_tax` takes."""
    streams = questions_by_length(plan)["all"]
    sizes = list(streams.values())
    freedom = satterthwaite_freedom(np.array(sizes, dtype=float))
    if freedom < DECIDABLE:
        yield (
            f"[yellow]warning[/yellow]: {counted(len(sizes), 'stream')} of such sizes can decide "
            f"nothing: worth {freedom + 1:.1f}, where 3 are needed; raise repeats"
        )
    if max_tax is None:
        return
    of_first = [number for (_, repeat, _), number in streams.items() if repeat == 0]
    least, likely = (
        f"{counted(times * len(of_first), 'stream')} (repeats: {times:,})"
        for times in (
            copies_to_pass(of_first, max_tax, discordance)
            for discordance in (0.0, ASSUMED_DISCORDANCE)
        )
    )
    yield (
        f"a pass at {points(max_tax)} points takes about {likely} if nothing is lost and "
        f"{ASSUMED_DISCORDANCE:.0%} of pairs are discordant, and {least} if no pair differs; "
        f"here are {len(sizes):,} (repeats: {plan.sweep.repeats:,})"
    )
    if freedom >= DECIDABLE and not can_pass(sizes, max_tax):
        yield (
            f"[yellow]warning[/yellow]: {counted(len(sizes), 'stream')} cannot pass at "
            f"{points(max_tax)} points, even if no pair differs; raise repeats"
        )


def overlap_lines(plan: Plan) -> Iterator[str]:
    """Corpora that are short for their streams."""
    by_corpus = defaultdict(list)
    for stream in plan.streams:
        by_corpus[stream.corpus].append((stream.offset, stream.offset + stream.length))
    for corpus, places in by_corpus.items():
        if text := overlap_text(corpus, *np.array(places).T):
            yield f"note: {text}"


def questions_by_length(plan: Plan) -> dict[str, Counter[tuple[str, int, int]]]:
    """How many questions each stream (corpus, repeat, index) is asked: all, then by length."""
    found: dict[int, Counter[tuple[str, int, int]]] = defaultdict(Counter)
    for stream, trial in plan.trials():
        if trial.control is None:
            of = (stream.corpus, stream.repeat, stream.index)
            found[trial.requested_length][of] += 1
    by_length = {length_text(length): found[length] for length in sorted(found)}
    return {"all": sum(found.values(), Counter()), **by_length}


def detectable(sizes: Sequence[int]) -> str:
    """In points; none where streams can decide nothing."""
    tax = smallest_detectable_tax(sizes, ASSUMED_DISCORDANCE)
    return FEW_STREAMS if tax is None else f"{100 * tax:.1f}"


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


@dataclass
class Answers:
    """Right answers and questions by length and arm, and the errors by key, counted row by row.

    A retried error gives way to what came after it. Controls are left out of `cells`.
    """

    cells: dict[tuple[int, str], list[int]] = field(default_factory=dict)  # [right, asked]
    errors: dict[str, tuple[str, tuple[int, str] | None]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        of = (row.requested_length or row.length, row.arm) if row.control is None else None
        again = self.errors.pop(row.key, None)
        if of and not again:
            self.cells.setdefault(of, [0, 0])[1] += 1
        if row.error is not None:
            self.errors[row.key] = row.error, of
        elif of:
            self.cells[of][0] += row.correct is True

    @property
    def first_error(self) -> str:
        return next(iter(self.errors.values()))[0]


def count_answers(rows: Iterable[Row]) -> Answers:
    answers = Answers()
    for row in rows:
        answers.add(row)
    return answers


def print_summary(console: Console, tally: Tally, answers: Answers, arms: Sequence[str]) -> None:
    """Right answers by length, then what this run did."""
    if answers.cells:
        console.print(recall_table(answers, arms))
    reused = tally.reused_tokens / max(1, tally.computed_tokens + tally.reused_tokens)
    outside = tally.seconds - tally.model_seconds
    # Servers and workers that answer several questions at once leave no time outside.
    told = f"; {outside:.1f} s outside the models" if outside >= 0 else ""
    if tally.untold:
        told += f"; {counted(tally.untold, 'answer')} of servers that do not count computed tokens"
    console.print(
        f"{tally.rows} rows in {duration(tally.seconds)}: {tally.computed_tokens:,} prompt tokens "
        f"computed, {tally.reused_tokens:,} reused ({reused:.1%}){told}"
    )


def recall_table(answers: Answers, arms: Sequence[str]) -> Table:
    """Right answers over questions by length, one column an arm; an error is not a right answer."""
    cells = answers.cells
    table = Table(title="right answers / questions", box=None, header_style="dim")
    table.add_column("length", style="dim", justify="right")
    for arm in arms:
        table.add_column(arm, justify="right")
    for length in sorted({length for length, _ in cells}):
        counts = ["{}/{}".format(*cells.get((length, arm), (0, 0))) for arm in arms]
        table.add_row(length_text(length), *counts)
    return table
