"""Where a needle was lost: the token at which an answer left the text, and the verdict."""

from dataclasses import dataclass, replace

import pytest

from haystacks.tokenizer import BUNDLED_NAME, load_tokenizer
from models.protocols import Decoding, Reply, Selection, Session, Trace
from niah.execution.ask import Asker
from niah.execution.needle_loss import find_deviation, lost_by, value_start
from niah.execution.streams import StreamReader
from niah.runs.row import RankedLayer, Row
from niah.sweep.planner import make_plan
from niah.sweep.prompts import build_context
from niah.sweep.trials import Trial
from tests.niah.fakes import RecallModel, RecallSession, sweep_of, tiny_materials
from tests.sessions import piece

TOKENIZER = load_tokenizer(BUNDLED_NAME)


def trials(**fields: object) -> list[Trial]:
    plan = make_plan(sweep_of(**fields), tiny_materials())
    return [trial for _, trial in plan.trials()]


@pytest.mark.parametrize("agreed", range(6))
def test_the_wanted_token_is_the_first_that_differs(agreed: int) -> None:
    for trial in trials():
        gold = trial.fact.gold[0]
        other = "9" if gold[agreed - 1] != "9" else "8"
        answer = gold[: agreed - 1] + other + gold[agreed:] if agreed else "nothing"
        ids = TOKENIZER.encode(f" {answer}")
        deviation = find_deviation(trial, ids, TOKENIZER)
        assert deviation is not None
        text = TOKENIZER.decode(trial.piece_ids[0])
        before = TOKENIZER.decode(trial.piece_ids[0][: deviation.wanted - trial.starts[0]])
        if agreed:
            assert text == before + gold[agreed - 1 :] + "."
            assert deviation.written == tuple(ids[:agreed])


def test_an_answer_cut_short_wants_what_comes_next() -> None:
    (trial, *_) = trials()
    deviation = find_deviation(trial, [], TOKENIZER)
    assert deviation is not None
    start = value_start(trial.piece_ids[0], f" {trial.fact.gold[0]}", TOKENIZER)
    assert deviation.wanted - trial.starts[0] == start


def test_a_whole_answer_and_controls_have_no_deviation() -> None:
    (trial, *_) = trials()
    assert find_deviation(trial, TOKENIZER.encode(f" {trial.fact.gold[0]}."), TOKENIZER) is None
    control = replace(trial, starts=(), piece_ids=())
    assert find_deviation(control, [], TOKENIZER) is None


@pytest.mark.parametrize(
    ("in_window", "selected", "verdict"),
    [
        (True, [False], "window"),
        (False, [], None),
        (True, [], None),
        (False, [False, False], "selection"),
        (False, [False, True], "compression"),
    ],
)
def test_one_layer_that_selected_it_suffices(
    in_window: bool, selected: list[bool], verdict: str | None
) -> None:
    selections = tuple(Selection(i, 70, 100, s) for i, s in enumerate(selected))
    assert lost_by(Trace(in_window, selections)) == verdict


@dataclass
class BlindSession(RecallSession):
    """Answers "I do not know", and says that the entry it was asked for ranked 70th."""

    def fork(self) -> Session:
        return BlindSession(self.model, self.chunks, self.position)

    def generate(self, decoding: Decoding) -> Reply:
        return Reply(" I do not know", tuple(TOKENIZER.encode(" I do not know")))

    def extend_traced(self, token_id: int, wanted: int) -> Trace:
        self.extend(piece([token_id]))
        asked.append((self.position, wanted))
        return Trace(False, (Selection(2, 70, 100, False),))


asked: list[tuple[int, int]] = []


class BlindModel(RecallModel):
    def session(self) -> Session:
        return BlindSession(self)


@pytest.mark.parametrize("layout", ["stream", "isolated"])
def test_rows_of_wrong_answers_say_where_the_needle_was_lost(layout: str) -> None:
    sweep, materials = sweep_of(layout=layout), tiny_materials()
    plan = make_plan(sweep, materials)
    runner = Asker(sweep, sweep.arms[1], BlindModel(), TOKENIZER, lambda _: None)
    asked.clear()
    rows: list[tuple[Trial, Row]] = []
    for stream in plan.streams:
        left = sorted(stream.trials, key=lambda trial: trial.fork_at)
        context = build_context(stream, materials.corpora["tiny"], sweep.layout)
        reader = StreamReader([runner], context)
        found = [pending.row().row for pending in reader.pending({runner.arm.name: left})]
        rows += zip(left, found, strict=True)
    assert rows
    for (trial, row), (position, wanted) in zip(rows, asked, strict=True):
        assert row.error is None
        assert row.lost_by == "selection"
        assert row.selection == (RankedLayer(layer=2, rank=70, entries=100, selected=False),)
        assert position == trial.length  # the query that should have found the value
        assert trial.starts[0] < wanted < trial.needle[1]  # type: ignore[index]
        excerpt = row.excerpt or {}
        assert trial.fact.gold[0] in excerpt["needle"]
        assert excerpt["needle"] not in excerpt["before"] + excerpt["after"]
