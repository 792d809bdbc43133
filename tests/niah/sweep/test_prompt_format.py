"""Prompts with a BOS, an instruction or a chat's turns: exact positions, and the same forks."""

from pathlib import Path

import numpy as np
import pytest

from haystacks.needles.base import Fact
from haystacks.tokenizer import BUNDLED_FILE, BUNDLED_NAME, FastTokenizer, load_tokenizer
from niah.errors import PlanError, SpecError
from niah.sweep.config import PromptFormat
from niah.sweep.planner import Materials, make_plan
from niah.sweep.prompt_format import end_ids, frame, stop_texts
from niah.sweep.prompts import build_context
from tests.niah.fakes import sweep_of, tiny_materials

TEMPLATE = (
    "<b>{% for m in messages %}<{{ m.role }}>{{ m.content }}<e>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CONTROLS = ["<b>", "<e>", "<system>", "<user>", "<assistant>"]


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> FastTokenizer:
    """The bundled tokenizer with a chat template whose first control token is a BOS."""
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(BUNDLED_FILE), bos_token="<b>")
    fast.add_special_tokens({"additional_special_tokens": CONTROLS[1:]})
    fast.chat_template = TEMPLATE
    folder: Path = tmp_path_factory.mktemp("chatty")
    fast.save_pretrained(folder)
    return load_tokenizer(f"hf:{folder}")


def materials(tokenizer: FastTokenizer | None = None) -> Materials:
    plain = tiny_materials()
    return Materials(tokenizer, plain.corpora, plain.families) if tokenizer else plain


def test_the_end_of_a_turn_ends_an_answer(chatty: FastTokenizer) -> None:
    (end,) = end_ids(PromptFormat(kind="chat"), chatty)
    assert chatty.decode([end]) == "<e>"
    assert end_ids(PromptFormat(), chatty) == ()


@pytest.mark.parametrize("layout", ["stream", "isolated"])
@pytest.mark.parametrize("reuse", [True, False])
def test_a_chat_stands_around_haystack_and_question(
    chatty: FastTokenizer, layout: str, reuse: bool
) -> None:
    prompt = {"kind": "chat", "instruction": "Read.", "system": "Be brief."}
    sweep = sweep_of(prompt=prompt, layout=layout, reuse=reuse, needle_phase={"modulus": 4})
    found = materials(chatty)
    for stream, trial in make_plan(sweep, found).trials():
        context = build_context(stream, found.corpora["tiny"], layout)
        ids = context.prompt(trial)
        text = chatty.decode(ids)
        assert len(ids) == trial.length
        assert text.startswith("<b><system>Be brief.<e><user>Read.\n\n")
        after = f"\n\n{trial.fact.ask.strip()}<e><assistant>{trial.fact.statement.strip()}"
        assert text.endswith(after)
        assert text.count("<b>") == text.count("<user>") == 1
        for (start, end), piece in zip(trial.spans, trial.fact.pieces, strict=True):
            assert chatty.decode(ids[start:end]) == piece
        assert trial.actual_depth is not None
        assert abs(trial.actual_depth - (trial.depth or 0.0)) < 0.1
        shared = ids[: trial.fork_at]
        assert np.array_equal(shared, context.trunk[: trial.fork_at])
        assert (trial.fork_at > 0) == reuse


def test_the_phase_of_a_needle_counts_the_prefix(chatty: FastTokenizer) -> None:
    sweep = sweep_of(prompt={"kind": "chat"}, needle_phase={"modulus": 4, "residues": [3]})
    trials = [trial for _, trial in make_plan(sweep, materials(chatty)).trials()]
    assert {trial.starts[0] % 4 for trial in trials} == {3}
    assert all(trial.prefix_ids for trial in trials)


def test_a_bos_is_planted_once(chatty: FastTokenizer) -> None:
    (bos,) = chatty.encode_template("<b>")
    for prompt in ({}, {"instruction": "Read."}, {"kind": "chat"}):
        prefix = frame(sweep_of(prompt=prompt).prompt, _with_bos(chatty, bos)).prefix_ids
        assert prefix.count(bos) == 1
        assert prefix[0] == bos


def _with_bos(tokenizer: FastTokenizer, bos: int) -> FastTokenizer:
    tokenizer.start_ids = (bos,)
    return tokenizer


def test_without_an_answer_prefix_the_statement_is_left_out() -> None:
    sweep = sweep_of(prompt={"answer_prefix": False})
    found = materials()
    for _, trial in make_plan(sweep, found).trials():
        asked = found.tokenizer.decode(trial.question_ids)
        assert asked == f"{trial.fact.ask}\nAnswer:"
        assert trial.max_new_tokens > 60


def test_the_format_is_part_of_a_question() -> None:
    plans = [make_plan(sweep_of(prompt=p), materials()) for p in ({}, {"instruction": "Read."})]
    pairs = [{trial.pair for _, trial in plan.trials()} for plan in plans]
    assert pairs[0].isdisjoint(pairs[1])


def test_a_tokenizer_without_a_template_holds_no_chat() -> None:
    with pytest.raises(PlanError, match=f"tokenizer {BUNDLED_NAME} has no chat template"):
        make_plan(sweep_of(prompt={"kind": "chat"}), materials())


def test_a_system_text_needs_a_chat() -> None:
    with pytest.raises(SpecError, match="system should be left out unless kind is chat"):
        sweep_of(prompt={"system": "Be brief."})


@pytest.mark.parametrize(
    ("gold", "piece", "stops"),
    [
        ("48213", " It is 48213.", ("\n", ".")),
        ("48213", " It is 48213, he said.", ("\n",)),
        ("v1.22.3", " It is v1.22.3.", ("\n",)),
        ("Two lines,\none poem", "\nTwo lines,\none poem.\n", ()),
    ],
)
def test_a_text_that_the_value_holds_does_not_end_an_answer(
    gold: str, piece: str, stops: tuple[str, ...]
) -> None:
    fact = Fact("own", "key", (piece,), " What is it?", " It is", (gold,))
    assert stop_texts(PromptFormat(), fact) == stops
