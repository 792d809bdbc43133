"""What a plan is said to cost: curves through measured points, and refusals in time."""

from dataclasses import dataclass

import numpy as np
import pytest

from models.protocols import Decoding, Forks, Piece, Reply, Session, Usage
from models.registry import load_model
from niah.errors import PlanError
from niah.execution.estimate import (
    Curve,
    Estimate,
    Point,
    Sending,
    as_piece,
    check_memory,
    check_models,
    estimate,
    estimate_arm,
    fit,
    measure,
    pressed_share,
)
from niah.sweep.planner import make_plan
from tests.niah.fakes import RecallModel, sweep_of, tiny_materials

WORK_BYTES = 1 << 26
COMPILING_SECONDS = 20.0


@pytest.mark.parametrize(("linear", "quadratic"), [(1e-4, 0.0), (1e-4, 1e-8), (0.0, 1e-8)])
def test_a_curve_is_recovered_from_points_on_it(linear: float, quadratic: float) -> None:
    def seconds(n: int) -> float:
        return linear * n + quadratic * n * n

    points = [Point(n, seconds(n), 64 + 3 * n) for n in (256, 512, 1024)]
    curve = fit(points, 0.01)
    assert curve.seconds(0, 65536) == pytest.approx(seconds(65536))
    assert curve.seconds(1024, 65536) == pytest.approx(seconds(65536) - seconds(1024))
    assert curve.cache_bytes(65536) == pytest.approx(64 + 3 * 65536)


def test_noise_never_makes_time_negative() -> None:
    curve = fit([Point(256, 0.5, 0), Point(512, 0.4, 0)], 0.0)
    assert curve.quadratic == 0
    assert curve.seconds(0, 1 << 20) > 0


def test_a_curve_is_not_drawn_through_two_points_side_by_side() -> None:
    """A compressed cache gives back its tail whenever a block is complete."""
    points = [Point(2048, 1.0, 2048), Point(4096, 2.0, 4096), Point(4100, 2.5, 3000)]
    curve = fit(points, 0.0)
    assert curve.cache_bytes(1 << 17) > 1 << 15
    assert curve.seconds(0, 1 << 17) < 64 * 64


@pytest.mark.parametrize("longest", [20, 256, 300, 5000])
def test_the_cache_is_foretold_from_what_sessions_hold(longest: int) -> None:
    curve = measure(RecallModel(), longest, 100)
    assert curve.cache_bytes(1 << 20) == pytest.approx(100 * (1 << 20))


@pytest.mark.parametrize("layout", ["stream", "isolated"])
def test_an_estimate_covers_what_a_plan_computes(layout: str) -> None:
    plan = make_plan(sweep_of(layout=layout), tiny_materials(20_000))
    needs = estimate(plan, Curve(1e-3, 0, 0, 100, 0))
    assert needs.seconds == pytest.approx(plan.computed_tokens * 1e-3)
    assert needs.cache_bytes >= 100 * max(stream.trunk_tokens for stream in plan.streams)


@dataclass
class HoldingSession:
    """Holds `held` float64 a token; forks share them or copy them."""

    forks: Forks
    held: np.ndarray
    position: int = 0

    def extend(self, piece: Piece) -> None:
        work = np.ones(WORK_BYTES // 8)
        rows = np.full((len(piece.ids), self.held.shape[1]), work[0])
        self.held = np.concatenate([self.held, rows])
        self.position += len(piece.ids)

    def fork(self) -> Session:
        held = self.held.copy() if self.forks == "copy" else self.held
        return HoldingSession(self.forks, held, self.position)

    def generate(self, decoding: Decoding) -> Reply:
        return Reply("", (0,) * decoding.max_new_tokens, "length")

    def usage(self) -> Usage:
        return Usage(0.001 * self.position, cache_bytes={"full": self.held.nbytes})


class HoldingModel(RecallModel):
    """A model of known appetite."""

    def __init__(self, forks: Forks, width: int) -> None:
        super().__init__(forks=forks)
        self.width = width

    def session(self) -> Session:
        return HoldingSession(self.forks, np.empty((0, self.width)))


@pytest.mark.parametrize("width", [8, 256])
@pytest.mark.parametrize(("forks", "copies"), [("share", 0), ("copy", 1)])
def test_a_fork_that_copies_costs_its_past(forks: Forks, copies: int, width: int) -> None:
    curve = measure(HoldingModel(forks, width), 2048, 256)
    assert curve.fork_share == copies
    plan = make_plan(sweep_of(lengths=[1024], depths=[0.5]), tiny_materials(20_000))
    trunk = curve.cache_bytes(max(stream.trunk_tokens for stream in plan.streams))
    share = estimate(plan, curve).cache_bytes / trunk
    assert 1 + copies < share < 1.5 + copies  # half for the question and the tokens' ids


@pytest.mark.parametrize(
    ("press", "share"),
    [
        (None, 0.0),
        ({"name": "knorm", "keep": 0.5}, 0.5),
        ({"name": "quest", "keep": 0.5, "dense_layers": 0}, 2 / 16),  # bounds of pages of 16
    ],
)
def test_a_fork_costs_what_its_press_keeps(press: dict[str, object] | None, share: float) -> None:
    model = load_model("random-dense", {"press": press} if press else {}, threads=1)
    session = model.session()
    session.extend(as_piece(range(1600)))
    assert pressed_share(session, session.fork()) == pytest.approx(share, abs=0.03)


ROW, WINDOW, QUERIES = 256, 300, 1 << 13  # bytes, tokens, bytes


@dataclass
class NewestSession:
    """Holds a row of every token, one more of each of the newest, and queries of a press.

    So slow that the measurement ends before the window is full.
    """

    position: int = 0
    pressed: bool = False

    def extend(self, piece: Piece) -> None:
        self.position += len(piece.ids)

    def fork(self) -> Session:
        return NewestSession(self.position)

    def generate(self, decoding: Decoding) -> Reply:
        return Reply("", (0,) * decoding.max_new_tokens, "length")

    def context_ends(self) -> None:
        self.pressed = True

    def question_ends(self) -> None:
        pass

    def window_bytes(self) -> tuple[int, int]:
        return ROW * min(self.position, WINDOW), ROW * WINDOW

    def usage(self) -> Usage:
        held = {"full": ROW * self.position // (2 if self.pressed else 1)}
        if self.position and not self.pressed:
            held["queries"] = QUERIES
        return Usage(1.0 * self.position, cache_bytes=held | {"window": self.window_bytes()[0]})


class NewestModel(RecallModel):
    """A model of such sessions."""

    def session(self) -> Session:
        return NewestSession()


@pytest.mark.parametrize(("longest", "window"), [(100, 100), (280, 280), (16_384, WINDOW)])
def test_windows_and_queries_stop_growing(longest: int, window: int) -> None:
    curve = measure(NewestModel(), longest, 1024)
    assert curve.cache_bytes(longest) == pytest.approx(ROW * (longest + window) + QUERIES)


def test_a_fork_shares_its_windows() -> None:
    curve = measure(NewestModel(), 16_384, 1024)
    assert curve.fork_share == pytest.approx(128 * ROW / (256 * ROW + QUERIES))


@dataclass
class SlowSession:
    """Takes time with the square of its length, and 5% more at every other doubling."""

    position: int = 0

    def extend(self, piece: Piece) -> None:
        self.position += len(piece.ids)

    def fork(self) -> Session:
        return SlowSession(self.position)

    def generate(self, decoding: Decoding) -> Reply:
        return Reply("", (0,) * decoding.max_new_tokens, "length")

    def usage(self) -> Usage:
        busy = 1.05 if self.position.bit_length() % 2 else 1.0
        return Usage(busy * slow_seconds(self.position), cache_bytes={"full": self.position})


class SlowModel(RecallModel):
    """A model of such sessions."""

    def session(self) -> Session:
        return SlowSession()


class CompilingModel(RecallModel):
    """As `SlowModel`; kernels are compiled for 20 s at each of these lengths, and for decoding."""

    def __init__(self, compiled_at: list[int]) -> None:
        super().__init__()
        self.missing = compiled_at
        self.decodes = False

    def session(self) -> Session:
        return CompilingSession(model=self)


@dataclass(kw_only=True)
class CompilingSession(SlowSession):
    """A session of a model that compiles."""

    model: CompilingModel
    compiling: float = 0.0
    decoding: float = 0.0

    def extend(self, piece: Piece) -> None:
        super().extend(piece)
        while self.model.missing and self.model.missing[0] <= self.position:
            self.compiling += COMPILING_SECONDS
            del self.model.missing[0]

    def fork(self) -> Session:
        return CompilingSession(self.position, model=self.model)

    def generate(self, decoding: Decoding) -> Reply:
        self.decoding = 0.01 * decoding.max_new_tokens
        self.decoding += 0.0 if self.model.decodes else COMPILING_SECONDS
        self.model.decodes = True
        return super().generate(decoding)

    def usage(self) -> Usage:
        used = super().usage()
        seconds = (used.prefill_seconds or 0.0) + self.compiling
        return Usage(seconds, decode_seconds=self.decoding, cache_bytes=used.cache_bytes)


def slow_seconds(tokens: int) -> float:
    return 3.7e-4 * tokens + 2.1e-8 * tokens**2


@pytest.mark.parametrize("doublings", [17, 19, 20])
def test_the_square_of_a_length_is_told_from_noise(doublings: int) -> None:
    """At the 4,096 tokens that a second and a half reads, it is a fifth of the time."""
    longest = 1 << doublings
    found = measure(SlowModel(), longest, 4096).seconds(0, longest)
    assert found == pytest.approx(slow_seconds(longest), rel=0.3)


@pytest.mark.parametrize("lengths", [[1], [1, 256, 512, 4096], [300], [200_000]])
def test_what_compiles_once_is_not_carried_to_every_token(lengths: list[int]) -> None:
    """On a new machine a sweep of two hours was told as two days."""
    longest = 1 << 17
    curve = measure(CompilingModel(lengths), longest, 4096)
    assert curve.seconds(0, longest) == pytest.approx(slow_seconds(longest), rel=0.3)
    assert curve.decode_seconds == pytest.approx(0.01)


def test_a_server_is_not_measured() -> None:
    materials = tiny_materials()
    plan = make_plan(sweep_of(), materials)
    model = RecallModel(forks="resend", fails_after=0)
    sent = estimate_arm(plan, model, materials.tokenizer)
    assert sent == Sending(
        plan.questions, plan.prompt_tokens, plan.prompt_tokens - plan.computed_tokens
    )
    check_memory({"remote": sent}, 0.001)


def test_what_is_held_only_while_reading_counts_as_work() -> None:
    curve = measure(HoldingModel("share", 8), 1024, 256)
    assert curve.work_bytes is not None
    assert curve.work_bytes >= 0.8 * WORK_BYTES
    needs = Estimate(1.0, 10**8, curve.work_bytes)
    check_memory({"dense": needs}, (needs.memory_bytes + 1) / 1e9)
    with pytest.raises(PlanError, match=r"arm dense will hold about .* \(0\.1 GB of cache\)"):
        check_memory({"dense": needs}, (needs.memory_bytes - 1) / 1e9)


def test_more_memory_than_there_is_is_refused_before_it_is_used() -> None:
    needs = {"dense": Estimate(1.0, 1 << 60)}
    with pytest.raises(PlanError, match=r"memory: arm dense will hold about .* that are free"):
        check_memory(needs, None)
    with pytest.raises(PlanError, match=r"more than the 0\.5 GB of max_memory_gb"):
        check_memory({"dense": Estimate(1.0, 10**9)}, 0.5)
    check_memory({"dense": Estimate(1.0, 10**6)}, 0.5)


def test_a_prompt_beyond_a_models_positions_is_refused() -> None:
    plan = make_plan(sweep_of(lengths=[512, 1024]), tiny_materials(20_000))
    with pytest.raises(PlanError, match=r"arm dense \(recall\) has positions for 1024"):
        check_models(plan, {"dense": RecallModel(max_position=1024)})
    check_models(plan, {"dense": RecallModel(max_position=1100)})
    check_models(plan, {"dense": RecallModel(max_position=None, vocab_size=None)})


def test_a_model_without_the_ids_of_a_needle_is_refused() -> None:
    plan = make_plan(sweep_of(), tiny_materials())
    with pytest.raises(PlanError, match=r"dense .* knows 100 token ids, but needles and questions"):
        check_models(plan, {"dense": RecallModel(vocab_size=100)})
