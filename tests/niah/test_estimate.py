"""What a plan is said to cost: curves through measured points, and refusals in time."""

import pytest

from niah.errors import PlanError
from niah.estimate import (
    Curve,
    Estimate,
    Point,
    check_memory,
    check_models,
    estimate,
    fit,
    measure,
)
from niah.plan import make_plan
from tests.niah.fakes import RecallModel, sweep_of, tiny_materials


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


def test_more_memory_than_there_is_is_refused_before_it_is_used() -> None:
    needs = {"dense": Estimate(1.0, 1 << 60)}
    with pytest.raises(PlanError, match=r"memory: arm dense will hold about .* that are free"):
        check_memory(needs, None)
    with pytest.raises(PlanError, match=r"more than the 0\.50 GB of max_memory_gb"):
        check_memory({"dense": Estimate(1.0, 10**9)}, 0.5)
    check_memory({"dense": Estimate(1.0, 10**6)}, 0.5)


def test_a_prompt_beyond_a_models_positions_is_refused() -> None:
    plan = make_plan(sweep_of(lengths=[512, 1024]), tiny_materials(20_000))
    with pytest.raises(PlanError, match=r"arm dense \(recall\) has positions for 1024"):
        check_models(plan, {"dense": RecallModel(max_position=1024)})
    check_models(plan, {"dense": RecallModel(max_position=1100)})
