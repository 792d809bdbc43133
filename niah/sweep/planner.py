"""Turns a sweep into streams: draws a fact for each cell, places it, packs and places streams."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from haystacks.corpora.registry import Corpus
from haystacks.needles.registry import Fact, Family
from haystacks.tokenizer import Tokenizer
from niah.errors import PlanError
from niah.sweep.character_alignment import aligned
from niah.sweep.config import Sweep
from niah.sweep.grid import Cell, cells, longest_prompt
from niah.sweep.needle_positions import aim
from niah.sweep.prompt_format import Frame, answer_start, frame, question_text
from niah.sweep.stream_packing import Item, pack
from niah.sweep.trials import Plan, Stream, Trial, pair_identity, stream_identity

ANSWER_MARGIN = 8  # tokens after the gold answer, so that what follows it can be judged
FREE_MARGIN = 64  # where the answer does not begin with the planted statement
MAX_DRAWS = 100  # of a fact whose key and values are new


@dataclass(frozen=True)
class Materials:
    """What a sweep is made of, by name."""

    tokenizer: Tokenizer
    corpora: Mapping[str, Corpus]
    families: Mapping[str, Family]


def make_plan(sweep: Sweep, materials: Materials, before: Sequence[Sweep] = ()) -> Plan:
    """Lay out every question of `sweep`; the same sweep and materials give the same plan.

    `before` are the sweeps that a run was asked already and that `sweep` adds to, the oldest
    first: their questions and streams stay as they were, and what is new gets further streams.

    Raises: PlanError where a length is too short for a needle or longer than a corpus.
    """
    check_lengths(sweep, materials)
    streams = [
        stream
        for corpus, repeat in product(sweep.corpora, range(sweep.repeats))
        for stream in plan_repeat(sweep, materials, corpus, repeat, before)
    ]
    return Plan(sweep, tuple(streams), tuple(before))


def check_lengths(sweep: Sweep, materials: Materials) -> None:
    """Raises: PlanError naming the length and the corpus that is too short for it."""
    longest = longest_prompt(sweep)
    for name in sweep.corpora:
        if longest > materials.corpora[name].num_tokens:
            raise PlanError(
                f"lengths = {longest}: corpus {name} has {materials.corpora[name].num_tokens} "
                "tokens and is never repeated; choose a shorter length or a longer corpus"
            )


def plan_repeat(
    sweep: Sweep,
    materials: Materials,
    corpus: str,
    repeat: int,
    before: Sequence[Sweep] = (),
) -> list[Stream]:
    """The streams of one repeat: fresh facts, fresh places in the corpus.

    The cells that each sweep added to those before it have streams of their own.
    """
    text = materials.corpora[corpus]
    seen: set[str] = set()
    around = frame(sweep.prompt, materials.tokenizer)
    streams: list[Stream] = []
    for added, new in enumerate(added_cells([*before, sweep], corpus, repeat)):
        # Other facts in every corpus: a fact may be hard wherever it stands, so streams that share
        # their facts would not be the independent samples as which intervals count them.
        further = ["added", added] if added else []
        rng = seeded(sweep.seed, "facts", text.identity, repeat, *further)
        trials = []
        for cell in new:
            fact = draw_fact(materials.families[cell.family], cell, sweep, rng, seen)
            trials.append(make_trial(cell, fact, materials.tokenizer, sweep, around, rng))
        grouped = stream_groups if sweep.layout == "stream" else isolated
        for group in grouped(trials, sweep):
            streams.append(place_stream(sweep, group, text, repeat, len(streams)))
    return streams


def added_cells(sweeps: Sequence[Sweep], corpus: str, repeat: int) -> Iterator[list[Cell]]:
    """The cells that each of `sweeps` asks of a corpus and repeat, and none before it asked."""
    asked: set[Cell] = set()
    for sweep in sweeps:
        if corpus in sweep.corpora and repeat < sweep.repeats:
            new = [cell for cell in cells(sweep) if cell not in asked]
            asked.update(new)
            if new:
                yield new


def draw_fact(
    family: Family, cell: Cell, sweep: Sweep, rng: np.random.Generator, seen: set[str]
) -> Fact:
    """A fact with no key or value, distractors' included, that is in `seen`; adds its own.

    Where the family has no more of them, `seen` is emptied and facts come again: only in one
    context may no two share a key or a value, and packing keeps those apart.
    """
    for _ in range(MAX_DRAWS):
        fact = family.make(rng, sweep.split, cell.templates)
        if seen.isdisjoint(fact.claims):
            break
    else:
        seen.clear()
    seen |= fact.claims
    return fact


def make_trial(
    cell: Cell,
    fact: Fact,
    tokenizer: Tokenizer,
    sweep: Sweep,
    around: Frame,
    rng: np.random.Generator,
) -> Trial:
    """The cell's question, its needle not placed yet.

    `starts` are where the needle is wanted, and `fork_at` where the question begins, both in
    tokens of the haystack: `place_stream` adds the prefix.

    Raises: PlanError where needle and question do not fit into the length.
    """
    question_ids = tuple(tokenizer.encode(question_text(sweep.prompt, fact)))
    suffix_ids = (*around.suffix_ids, *tokenizer.encode(answer_start(sweep.prompt, fact)))
    fixed = len(around.prefix_ids) + len(question_ids) + len(suffix_ids)
    pieces = () if cell.control else fact.pieces + fact.distractor_pieces
    piece_ids = tuple(tuple(tokenizer.encode(piece)) for piece in pieces)
    length = cell.length or fixed
    needle_tokens = sum(map(len, piece_ids))
    cut = length - fixed
    if cut < needle_tokens:
        raise PlanError(
            f"lengths = {cell.requested_length}: family {cell.family} needs {needle_tokens} tokens "
            f"for a needle and {fixed} for its question; choose a longer length"
        )
    sizes = [len(ids) for ids in piece_ids]
    wanted = wanted_starts(cell, cut, sizes[: len(fact.pieces)], sweep, len(around.prefix_ids))
    anywhere = [int(rng.integers(cut - size + 1)) for size in sizes[len(fact.pieces) :]]
    if fact.distractors_in_order:
        anywhere.sort()
    return Trial(
        family=cell.family,
        templates=cell.templates,
        requested_length=cell.requested_length,
        length=length,
        depth=cell.depth,
        control=cell.control,
        fact=fact,
        piece_ids=piece_ids,
        question_ids=question_ids,
        starts=(*wanted, *anywhere),
        fork_at=cut,
        max_new_tokens=sweep.decoding.max_new_tokens
        or answer_budget(fact, tokenizer, sweep.prompt.answer_prefix),
        prefix_ids=around.prefix_ids,
        suffix_ids=suffix_ids,
    )


def answer_budget(fact: Fact, tokenizer: Tokenizer, prefixed: bool) -> int:
    """Tokens enough for every gold value, a separator after each, and a margin."""
    margin = ANSWER_MARGIN if prefixed else FREE_MARGIN
    return sum(len(tokenizer.encode(f" {gold}")) + 1 for gold in fact.gold) + margin


def wanted_starts(
    cell: Cell, cut: int, sizes: Sequence[int], sweep: Sweep, prefix_tokens: int
) -> tuple[int, ...]:
    """Where each of the fact's pieces should start, in tokens of a haystack of `cut`."""
    if cell.depth is None or not sizes:
        return ()
    modulus = sweep.needle_phase.modulus if sweep.needle_phase else 1
    residue = (cell.residue - prefix_tokens) % modulus
    return aim(cell.depth, cut, sizes, sweep.spread, modulus, residue)


def as_item(trial: Trial, sweep: Sweep) -> Item:
    return Item(
        length=trial.length,
        cut=trial.haystack_tokens,
        sizes=tuple(map(len, trial.piece_ids)),
        wanted=trial.starts,
        num_ordered=len(trial.fact.pieces) if trial.starts else 0,
        modulus=sweep.needle_phase.modulus if sweep.needle_phase else 1,
        rest_in_order=trial.fact.distractors_in_order,
        claims=trial.fact.claims,
    )


def stream_groups(trials: Sequence[Trial], sweep: Sweep) -> list[list[Trial]]:
    """Questions that share a stream, with their needles' final starts."""
    in_context = [trial for trial in trials if trial.control != "question_only"]
    packed = try_pack(in_context, sweep)
    groups = [
        [replace(in_context[i], starts=starts) for i, starts in sorted(placed.items())]
        for placed in packed
    ]
    alone = [trial for trial in trials if trial.control == "question_only"]
    if not groups:
        return [alone]
    groups[0] += alone
    return groups


def isolated(trials: Sequence[Trial], sweep: Sweep) -> list[list[Trial]]:
    """One group: every question has a context of its own, and shares the text before its needle."""
    placed = []
    for trial in trials:
        starts = try_pack([trial], sweep)[0][0]
        fork_at = min(starts, default=trial.haystack_tokens)
        placed.append(replace(trial, starts=starts, fork_at=fork_at))
    return [placed]


def try_pack(trials: Sequence[Trial], sweep: Sweep) -> list[dict[int, tuple[int, ...]]]:
    """`pack`, its failure told in the sweep's terms."""
    try:
        return pack([as_item(trial, sweep) for trial in trials], sweep.max_needle_share)
    except ValueError as error:
        raise PlanError(
            f"lengths = {min(sweep.lengths)}: cannot place {error} at the wanted phase and order; "
            "choose a longer length"
        ) from None


def place_stream(
    sweep: Sweep, trials: Sequence[Trial], corpus: Corpus, repeat: int, index: int
) -> Stream:
    """Choose the stream's place in the corpus and give each question its pair hash."""
    rng = seeded(sweep.seed, "offset", corpus.identity, repeat, index)
    offset = int(rng.integers(corpus.num_tokens - text_tokens(trials) + 1))
    offset, trials = aligned(sweep, trials, corpus, offset)
    trials = [behind_prefix(trial, sweep.reuse) for trial in trials]
    length = len(trials[0].prefix_ids) + text_tokens(trials)
    stream = Stream(corpus.name, repeat, index, offset, length, tuple(trials))
    identity = stream_identity(stream, corpus, sweep.layout)
    return replace(
        stream,
        trials=tuple(replace(t, pair=pair_identity(t, stream, corpus, identity)) for t in trials),
    )


def text_tokens(trials: Sequence[Trial]) -> int:
    """Tokens of a stream without the prefix. Where no question has a context, some text all the
    same: a row tells how dense it is."""
    return max(t.haystack_tokens for t in trials) or max(t.length for t in trials)


def behind_prefix(trial: Trial, reuse: bool) -> Trial:
    """The trial in tokens of the prompt. Without `reuse` each prompt is read by itself: every fork
    is of an empty session."""
    shift = len(trial.prefix_ids)
    return replace(
        trial,
        starts=tuple(start + shift for start in trial.starts),
        fork_at=trial.fork_at + shift if reuse else 0,
    )


def seeded(*parts: object) -> np.random.Generator:
    """A generator that depends on every part and on nothing else."""
    seed = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:16]
    return np.random.default_rng(list(seed))
