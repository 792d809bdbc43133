"""From a sweep to prompts: exact lengths, needles where the plan says, nothing twice."""

import time
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haystacks.corpora.external import resolve_name
from haystacks.corpora.registry import load_corpus
from haystacks.needles.registry import FAMILIES, Fact, TemplateSplit, ValueSplit
from haystacks.needles.single import SingleNumber
from niah.errors import PlanError
from niah.sweep.needle_positions import latest_starts
from niah.sweep.planner import Materials, make_plan
from niah.sweep.prompts import build_context
from niah.sweep.trials import Plan
from tests.niah.fakes import sweep_of, tiny_materials
from tests.niah.strategies import sweeps

few = settings(max_examples=25, deadline=None)


@cache
def materials() -> Materials:
    return tiny_materials(20_000)


def planned(**fields: object) -> Plan:
    return make_plan(sweep_of(**fields), materials())


@few
@given(sweeps)
def test_prompts_have_their_length_and_hold_their_needle(fields: dict[str, object]) -> None:
    plan = planned(**fields)
    for stream in plan.streams:
        context = build_context(stream, materials().corpora["tiny"], plan.sweep.layout)
        for trial in stream.trials:
            prompt = context.prompt(trial)
            assert len(prompt) == trial.length
            assert tuple(prompt[trial.cut :]) == trial.question_ids
            for start, ids in zip(trial.starts, trial.piece_ids, strict=True):
                assert tuple(prompt[start : start + len(ids)]) == ids
            text = materials().tokenizer.decode(prompt.tolist())
            pieces = trial.fact.pieces + trial.fact.distractor_pieces
            assert [text.count(piece) for piece in pieces] == len(pieces) * [trial.control is None]


@few
@given(sweeps)
def test_no_two_questions_of_a_context_share_a_key_or_a_value(fields: dict[str, object]) -> None:
    plan = planned(**fields)
    assert max(Counter(trial.pair for _, trial in plan.trials()).values()) == 1
    if plan.sweep.layout == "stream":
        for stream in plan.streams:
            told = [t.fact for t in stream.trials if t.control != "question_only"]
            claims = Counter(claim for fact in told for claim in fact.claims)
            assert not claims or max(claims.values()) == 1


def test_facts_are_new_within_a_repeat_where_there_are_enough() -> None:
    plan = planned(families=["single_number", "multi_key"], depths=6)
    claims = Counter((s.repeat, claim) for s, t in plan.trials() for claim in t.fact.claims)
    assert max(claims.values()) == 1


def test_no_fact_is_asked_in_two_corpora_or_repeats() -> None:
    """A fact that is hard wherever it stands would tie together what is counted as independent."""
    corpus = materials().corpora["tiny"]
    both = replace(materials(), corpora={n: replace(corpus, name=n) for n in ("one", "two")})
    plan = make_plan(sweep_of(corpora=["one", "two"]), both)
    facts = Counter((t.fact.key, t.fact.gold) for _, t in plan.trials())
    assert max(facts.values()) == 1


def test_a_text_of_the_users_gives_the_same_questions_wherever_it_lies(tmp_path: Path) -> None:
    pairs = []
    for place in ("here", "there"):
        folder = tmp_path / place
        folder.mkdir()
        (folder / "own.txt").write_text("All that was said was said in vain. " * 500)
        name = resolve_name("file:own.txt", folder)
        corpora = {name: load_corpus(name, materials().tokenizer)}
        plan = make_plan(sweep_of(corpora=name), replace(materials(), corpora=corpora))
        pairs.append([trial.pair for _, trial in plan.trials()])
    assert pairs[0] == pairs[1]


@pytest.mark.parametrize("layout", ["stream", "isolated"])
def test_few_facts_fill_a_large_grid_one_a_context(layout: str) -> None:
    lengths = [512, 1024, 2048, 4096, 8192, 16384]
    plan = planned(
        families="latent_association", lengths=lengths, depths=11, layout=layout, repeats=1
    )
    asked = Counter(trial.fact.key for _, trial in plan.trials())
    assert sum(asked.values()) == 66
    assert max(asked.values()) - min(asked.values()) <= 3  # every one of them comes up
    if layout == "stream":
        for stream in plan.streams:
            claims = Counter(claim for t in stream.trials for claim in t.fact.claims)
            assert max(claims.values()) == 1


@pytest.mark.parametrize("layout", ["stream", "isolated"])
def test_without_reuse_the_same_questions_are_asked_and_every_prompt_is_read_whole(
    layout: str,
) -> None:
    grid = {"layout": layout, "depths": 5, "max_needle_share": 0.2}
    warm, cold = (planned(**grid, reuse=reuse) for reuse in (True, False))
    assert cold.computed_tokens == cold.prompt_tokens == warm.prompt_tokens
    assert warm.computed_tokens < warm.prompt_tokens
    for (_, ours), (_, theirs) in zip(warm.trials(), cold.trials(), strict=True):
        assert replace(ours, fork_at=0) == theirs  # the pair, too


class Rival(SingleNumber):
    """Every fact is planted beside a sentence about one of very few keys."""

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        return replace(
            super().make(rng, split, templates), distractor_keys=(f"rival {rng.integers(4)}",)
        )


@pytest.mark.parametrize(("depths", "streams"), [(4, 1), (5, 2)])
def test_no_two_questions_of_a_stream_share_a_distractor(depths: int, streams: int) -> None:
    """A distractor is planted text: of another question it would be a second answer."""
    rivals = replace(materials(), families={"single_number": Rival()})
    plan = make_plan(
        sweep_of(lengths=[2048], depths=depths, repeats=1, max_needle_share=0.2), rivals
    )
    assert len(plan.streams) == streams
    for stream in plan.streams:
        claims = Counter(claim for trial in stream.trials for claim in trial.fact.claims)
        assert max(claims.values()) == 1


@few
@given(sweeps)
def test_every_cell_is_asked_once_a_repeat(fields: dict[str, object]) -> None:
    plan = planned(**fields)
    sweep = plan.sweep
    residues = len(sweep.needle_phase.residues) if sweep.needle_phase else 1
    phases = len(sweep.length_phase.residues) if sweep.length_phase else 1
    cells = Counter(
        (s.repeat, t.family, t.templates, t.requested_length, t.depth)
        for s, t in plan.trials()
        if t.control is None
    )
    assert set(cells.values()) == {residues * phases}
    kinds = len(sweep.families) * len(sweep.templates)
    assert len(cells) == sweep.repeats * kinds * len(sweep.lengths) * len(sweep.depths)


@few
@given(sweeps)
def test_needles_stand_near_the_depth_asked_for(fields: dict[str, object]) -> None:
    """Nearer than a slide and half a modulus, unless the context begins or ends there."""
    plan = planned(**fields)
    phase = plan.sweep.needle_phase
    modulus = phase.modulus if phase else 1
    for _, trial in plan.trials():
        if trial.needle:
            sizes = [end - start for start, end in trial.spans]
            latest = latest_starts(trial.cut, sizes, modulus, trial.needle[0] % modulus)[0]
            away = abs(trial.needle[0] - min(trial.depth * trial.cut, latest))
            near_start = trial.depth * trial.cut < modulus / 2
            assert away <= max(64, trial.cut // 100) + modulus / (1 if near_start else 2) + 1


@few
@given(sweeps)
def test_needles_keep_to_their_share_at_every_length(fields: dict[str, object]) -> None:
    plan = planned(**fields)
    if plan.sweep.layout == "isolated":
        return
    for stream in plan.streams:
        for trial in stream.trials:
            before = [
                sum(map(len, other.piece_ids))
                for other in stream.trials
                if other.starts and min(other.starts) < trial.cut
            ]
            assert len(before) <= 1 or sum(before) <= plan.sweep.max_needle_share * trial.cut


def test_the_same_sweep_gives_the_same_plan_and_another_seed_another() -> None:
    assert planned() == planned()
    pairs = [{trial.pair for _, trial in planned(seed=seed).trials()} for seed in (0, 1)]
    assert not pairs[0] & pairs[1]


def test_repeats_stand_elsewhere_in_the_text() -> None:
    plan = planned(repeats=8, lengths=[512], depths=[0.5])
    assert len({stream.offset for stream in plan.streams}) == 8


@given(st.sampled_from((4, 128)), st.data())
@settings(max_examples=10, deadline=None)
def test_phases_are_met_exactly(modulus: int, data: st.DataObject) -> None:
    residues = data.draw(st.lists(st.integers(0, modulus - 1), min_size=1, unique=True, max_size=4))
    phase = {"modulus": modulus, "residues": residues}
    plan = planned(lengths=[1000], depths=[0.3, 1.0], length_phase=phase, needle_phase=phase)
    met = {(t.length % modulus, t.needle[0] % modulus) for _, t in plan.trials() if t.needle}
    assert met == {(a, b) for a in residues for b in residues}
    assert all(0 <= t.length - t.requested_length < modulus for _, t in plan.trials())


@pytest.mark.parametrize("layout", ["stream", "isolated"])
def test_every_family_is_planted_in_order_from_its_depth_on(layout: str) -> None:
    plan = planned(layout=layout, lengths=[4096], depths=[0.5], families=list(FAMILIES), repeats=1)
    assert {trial.family for _, trial in plan.trials()} == set(FAMILIES)
    for stream in plan.streams:
        context = build_context(stream, materials().corpora["tiny"], plan.sweep.layout)
        for trial in stream.trials:
            text = materials().tokenizer.decode(context.prompt(trial).tolist())
            found = [text.index(piece) for piece in trial.fact.pieces]
            assert found == sorted(found)
            assert all(piece in text for piece in trial.fact.distractor_pieces)
            assert all(a[1] <= b[0] for a, b in pairwise(trial.spans))
            assert trial.needle[0] / trial.cut == pytest.approx(0.5, abs=0.02)
            rivals = trial.starts[len(trial.fact.pieces) :]
            assert not trial.fact.distractors_in_order or list(rivals) == sorted(rivals)


@pytest.mark.parametrize("family", ["variable_tracking", "variable_value"])
@pytest.mark.parametrize("length", [400, 2048])
def test_a_rival_chain_can_be_followed(family: str, length: int) -> None:
    plan = planned(families=family, lengths=[length], depths=6, repeats=4)
    for _, trial in plan.trials():
        rivals = trial.starts[len(trial.fact.pieces) :]
        assert len(rivals) == 5
        assert list(rivals) == sorted(rivals)


def test_pieces_start_at_the_depth_asked_for_in_every_family() -> None:
    """An item alone in its stream has nothing to slide away from."""
    families = ["uuid_chain", "multi_value", "nth_ask", "common_words"]
    plan = planned(families=families, lengths=[2048], depths=[0, 0.2, 0.7], layout="isolated")
    assert all(t.needle[0] == round(t.depth * t.cut) for _, t in plan.trials())


def test_residues_that_collide_keep_their_depth() -> None:
    """Four residues at one depth: in one stream some would have to slide a whole modulus."""
    phase = {"modulus": 128, "residues": [0, 1, 64, 127]}
    fields = {"lengths": [1024], "depths": [0.5], "needle_phase": phase, "max_needle_share": 0.2}
    plan = planned(**fields, repeats=1)
    depths = [trial.needle[0] / trial.cut for _, trial in plan.trials()]
    assert all(abs(depth - 0.5) <= 64 / 990 for depth in depths)
    assert len(plan.streams) > 1


@pytest.mark.parametrize("layout", ["stream", "isolated"])
def test_a_fork_shares_exactly_the_tokens_before_it(layout: str) -> None:
    plan = planned(layout=layout, lengths=[512, 1024], depths=4)
    for stream in plan.streams:
        context = build_context(stream, materials().corpora["tiny"], plan.sweep.layout)
        for trial in stream.trials:
            prompt = context.prompt(trial)
            assert np.array_equal(prompt[: trial.fork_at], context.trunk[: trial.fork_at])
            assert np.array_equal(prompt[trial.fork_at :], context.own_ids(trial))


def test_an_isolated_prompt_holds_no_other_needle() -> None:
    plan = planned(layout="isolated", depths=3)
    for stream in plan.streams:
        context = build_context(stream, materials().corpora["tiny"], "isolated")
        for trial in stream.trials:
            text = materials().tokenizer.decode(context.prompt(trial).tolist())
            others = [other.fact.gold[0] for other in stream.trials if other is not trial]
            assert not any(value in text for value in others)


@pytest.mark.parametrize(("shortest", "max_needle_share"), [(8192, 0.02), (4096, 0.05)])
def test_a_heatmap_costs_a_fifteenth_of_its_cells(shortest: int, max_needle_share: float) -> None:
    """Five lengths by eleven depths. Shorter grids gain less, for needles keep to their share:
    at 1,024 tokens one needle is two hundredths, so each of these questions has its own stream."""
    lengths = [shortest << i for i in range(5)]
    sweep = sweep_of(lengths=lengths, depths=11, max_needle_share=max_needle_share)
    plan = make_plan(sweep, tiny_materials(lengths[-1] + 10_000))
    assert plan.computed_tokens * 15 <= plan.prompt_tokens


def test_many_questions_are_planned_soon() -> None:
    """1,212 in one repeat took 22 s of a processor that now needs less than 1."""
    sweep = sweep_of(
        families=["single_number", "multi_key"],
        lengths=[1024 << i for i in range(6)],
        depths=101,
        repeats=1,
    )
    corpus = tiny_materials(40_000)
    began = time.process_time()
    assert make_plan(sweep, corpus).questions == 1212
    assert time.process_time() - began < 4


def test_totals_are_the_sums_of_what_is_read() -> None:
    for stream in planned(lengths=[512, 1024], depths=3, controls=["question_only"]).streams:
        read = max(trial.fork_at for trial in stream.trials)
        read += sum(len(trial.question_ids) for trial in stream.trials)
        assert stream.computed_tokens == read


def test_a_length_longer_than_the_corpus_is_refused() -> None:
    with pytest.raises(PlanError, match=r"lengths = 32768: corpus tiny has 20000 tokens"):
        planned(lengths=[32768])


def test_a_length_shorter_than_needle_and_question_is_refused() -> None:
    with pytest.raises(PlanError, match=r"lengths = 32: family single_number needs \d+ tokens"):
        planned(lengths=[32])
