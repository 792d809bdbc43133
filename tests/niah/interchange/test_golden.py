"""Golden vectors: written, read, and held against models that are right and wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from haystacks.tokenizer import load_tokenizer
from models.protocols import Decoding, Model, Piece, Reply, TokenizerRef
from models.registry import load_model
from niah.errors import FileError
from niah.interchange.golden import (
    Finding,
    Golden,
    GoldenError,
    Top,
    Vector,
    agrees,
    check,
    finding_line,
    make_golden,
    read_golden,
    write_golden,
)
from tests.niah.cli.conftest import Call, call

__all__ = ["call"]  # a fixture
LONGEST = 200
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def golden() -> Golden:
    """Prompts of 5, 127, 130 and 200 tokens."""
    whole = make_golden(load_model("random-v4"), LONGEST)
    return replace(whole, vectors=tuple(whole.vectors[i] for i in (0, 2, 5, 7)))


@pytest.fixture(scope="module")
def file(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("golden") / "golden.json"
    write_golden(golden, path)
    return path


def verdicts(model: Model, golden: Golden) -> dict[str, bool]:
    return {f.name: agrees(f, TOLERANCE) for f in check(model, golden, TOLERANCE)}


def test_what_is_written_is_read(golden: Golden, file: Path) -> None:
    assert read_golden(file) == golden
    assert golden.fingerprint == load_model("random-v4").fingerprint


def test_prompts_are_what_their_names_say(golden: Golden) -> None:
    tokenizer = load_tokenizer("bundled-bpe-2048")
    for vector in golden.vectors:
        kind, length = vector.name.split("-")
        assert len(vector.prompt_ids) == int(length)
        assert tokenizer.decode(vector.prompt_ids) == vector.text
        assert (vector.gold is not None) == (kind == "asked")
        assert vector.gold is None or f" {vector.gold}." in vector.text
        positions = [entry.position for entry in vector.top]
        assert positions == sorted(set(positions))
        assert positions[-1] == len(vector.prompt_ids) + len(vector.answer_ids) - 2
        steps = dict(zip(positions, vector.top, strict=True))
        first = len(vector.prompt_ids) - 1
        assert [steps[first + i].ids[0] for i in range(8)] == list(vector.answer_ids)
        assert all(list(e.logprobs) == sorted(e.logprobs, reverse=True) for e in vector.top)


def test_the_same_model_agrees(golden: Golden) -> None:
    assert set(verdicts(load_model("random-v4"), golden).values()) == {True}


def test_a_window_off_by_one_is_found_where_it_matters(golden: Golden) -> None:
    """Nobody notices up to 119 tokens with the answer; from 127 on everybody does."""
    found = verdicts(load_model("random-v4", {"sliding_window": 127}), golden)
    assert found.pop("text-5")
    assert set(found.values()) == {False}


def test_other_weights_are_found(golden: Golden) -> None:
    assert set(verdicts(load_model("random-v4", {"seed": 1}), golden).values()) == {False}


@dataclass
class Telling:
    """A model behind a server: it answers as told, with or without ids, and tells no logits."""

    answer: Callable[[tuple[int, ...]], tuple[int, ...]]
    ids: bool
    name: str = "told"
    tokenizer: TokenizerRef | None = TokenizerRef("bundled-bpe-2048")  # noqa: RUF009

    def session(self) -> Any:
        return TellingSession(self)


class TellingSession:
    def __init__(self, model: Telling) -> None:
        self.model = model
        self.read: tuple[int, ...] = ()

    def extend(self, piece: Piece) -> None:
        self.read += tuple(piece.ids)

    def generate(self, decoding: Decoding) -> Reply:
        ids = self.model.answer(self.read)
        return Reply(decoding.decode(ids), ids if self.model.ids else ())


@pytest.mark.parametrize("ids", [True, False])
def test_a_model_that_tells_no_logits_is_held_to_its_answers(golden: Golden, ids: bool) -> None:
    right = {vector.prompt_ids: vector.answer_ids for vector in golden.vectors}
    some = next(iter(right))

    def wrong_once(read: tuple[int, ...]) -> tuple[int, ...]:
        return (*right[read][:-1], (right[read][-1] + 1) % 2048) if read == some else right[read]

    told: Any = Telling(right.__getitem__, ids)
    findings = list(check(told, golden, TOLERANCE))
    assert all(f.difference is None and f.answers_alike for f in findings)
    told = Telling(wrong_once, ids)
    wrong = [f.name for f in check(told, golden, TOLERANCE) if not agrees(f, TOLERANCE)]
    assert wrong == [golden.vectors[0].name]


@pytest.mark.parametrize(("rival", "alike"), [(-2.0, False), (-1.015, True)])
def test_what_follows_a_close_rival_is_not_compared(rival: float, alike: bool) -> None:
    """The second token of the answer has a rival; the model says that one."""
    tokenizer = load_tokenizer("bundled-bpe-2048")
    a, b, c = (tokenizer.encode(letter)[0] for letter in "abc")
    top = (Top(0, (a, c), (-1.0, -9.0)), Top(1, (b, c), (-1.0, rival)))
    vector = Vector("close", "a", (a,), (a, b), None, top)
    told: Any = Telling(lambda _: (a, c), ids=True)
    (finding,) = check(told, Golden("", "", "", (vector,)), tolerance=0.01)
    assert finding.answers_alike is alike


def test_ids_that_say_another_text_are_refused(golden: Golden) -> None:
    other = replace(golden.vectors[0], text="what another tokenizer says")
    with pytest.raises(GoldenError, match=r"^model: 'random-v4' reads bundled-bpe-2048, in which "):
        list(check(load_model("random-v4"), replace(golden, vectors=(other,)), TOLERANCE))
    nameless: Any = Telling(lambda _: (), ids=True, tokenizer=None)
    with pytest.raises(GoldenError, match=r"^model: 'told' does not say which tokenizer it reads$"):
        list(check(nameless, golden, TOLERANCE))


def test_a_model_without_logits_has_no_golden_vectors() -> None:
    told: Any = Telling(lambda _: (), ids=True)
    with pytest.raises(GoldenError, match=r"^model: 'told' tells no log-probabilities"):
        make_golden(told, LONGEST)
    with pytest.raises(GoldenError, match=r"^golden: got 4, expected at least 5 tokens$"):
        make_golden(told, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(schema=9), r"golden.json: schema: got 9, expected 1$"),
        (
            lambda values: values.pop("vectors"),
            r"golden.json: holds no golden vectors: has no field vectors",
        ),
        (lambda values: values["vectors"][0].pop("top"), r"no golden vectors: has no field top"),
        (
            lambda values: values.update(vectors=3),
            r"holds no golden vectors: 'int' object is not iter",
        ),
    ],
)
def test_other_files_are_one_line(
    file: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    values = json.loads(file.read_text())
    change(values)
    (tmp_path / "golden.json").write_text(json.dumps(values))
    with pytest.raises((FileError, GoldenError), match=message) as caught:
        read_golden(tmp_path / "golden.json")
    assert "\n" not in str(caught.value)


def test_lines_say_what_differs() -> None:
    right = Finding("asked-200", 200, 0.0004, 199, True, " 48213.")
    assert finding_line(right, 0.01) == (
        "agrees   asked-200: log-probabilities off by 0.00040 after token 199; the same answer"
    )
    wrong = right._replace(difference=None, position=None, answers_alike=False)
    assert finding_line(wrong, 0.01) == (
        "DIFFERS  asked-200: log-probabilities not told; another answer: ' 48213.'"
    )


def test_the_commands(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "model"
    written = call("export-model", "random-v4", "--out", out, "--golden", 5)
    assert (written.code, written.out) == (0, f"checkpoint: {out}\n")
    checked = call("check-model", f"path:{out}", out / "golden.json")
    assert checked.code == 0
    assert checked.out.endswith("1 of 1 prompts agree\n")
    other = call("check-model", "random-v4", out / "golden.json", "--option", "seed=1")
    assert other.code == 1
    assert other.out.startswith("DIFFERS  text-5: ")
    for arguments, message in (
        (("--option", "seed"), "'seed' is not NAME=VALUE"),
        (("--tolerance", "0"), "0.0 is not above 0"),
    ):
        refused = call("check-model", "random-v4", out / "golden.json", *arguments)
        assert refused.code == 2
        assert message in refused.err
