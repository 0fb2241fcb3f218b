from types import SimpleNamespace

import pytest
import torch

from sbflow.data.mixture_bridge import MixtureBridgeData
from sbflow.metric.plan import ConditionalPlan


class Exact:
    """Draws from the plan, forward; backward, fresh samples of π₀."""

    device = torch.device("cpu")

    def __init__(self, data: MixtureBridgeData) -> None:
        self.data = data
        self.process = SimpleNamespace(epsilon=data.epsilon)

    def translate(self, x, direction, *, num_steps=30, generator=None):
        if direction == "forward":
            return self.data.bridge.sample(x, generator)
        return torch.randn(x.shape, generator=generator)


class Independent(Exact):
    """The right marginals without any coupling."""

    def translate(self, x, direction, *, num_steps=30, generator=None):
        x1 = self.data.split("train").x1
        return x1[torch.randint(len(x1), (len(x),), generator=generator)]


class Shifted(Exact):
    def translate(self, x, direction, *, num_steps=30, generator=None):
        return super().translate(x, direction, generator=generator) + 0.5


@pytest.fixture(scope="module")
def data() -> MixtureBridgeData:
    return MixtureBridgeData(dim=3, num_samples=20_000, num_test=4000)


@pytest.fixture(scope="module")
def metric() -> ConditionalPlan:
    return ConditionalPlan(num_inputs=20, num_per_input=400, num_samples=4000)


def test_the_exact_plan_is_at_the_floor(data, metric):
    values = metric(Exact(data), data)
    assert 0.5 < values["test/cbw2_uvp"] / values["test/cbw2_uvp_floor"] < 2
    assert values["test/cbw2_uvp_floor"] < 2
    for suffix in ("", "_backward"):
        assert values["test/bw2_uvp" + suffix] < 0.5


def test_the_floor_falls_as_the_inverse_of_the_draws(data):
    few, many = (
        ConditionalPlan(num_inputs=20, num_per_input=n, num_samples=100)(Exact(data), data)["test/cbw2_uvp_floor"]
        for n in (100, 1600)
    )
    assert few / many == pytest.approx(16, rel=0.5)


def test_a_shift_costs_its_square_over_half_the_variance(data, metric):
    values = metric(Shifted(data), data)
    half_variance = data.split("train").x1.var(0).sum().item() / 2
    expected = 100 * 3 * 0.25 / half_variance
    floor = values["test/cbw2_uvp_floor"]
    # the cross term of shift and sampling error has mean zero and deviation 2 √(expected · floor / inputs)
    assert abs(values["test/cbw2_uvp"] - expected - floor) < 5 * 2 * (expected * floor / 20) ** 0.5 + floor
    assert values["test/bw2_uvp"] == pytest.approx(expected, rel=0.3)


def test_the_independent_coupling_has_good_marginals_and_a_bad_plan(data, metric):
    values = metric(Independent(data), data)
    assert values["test/bw2_uvp"] < 0.5 and values["test/cbw2_uvp"] > 20


def test_what_does_not_fit_is_refused_before_anything_runs(data, metric):
    with pytest.raises(ValueError, match=r"needs data with a known plan \(data=mixture_bridge\), got SimpleNamespace"):
        metric.check(Exact(data), SimpleNamespace(split=None))
    wrong = Exact(data)
    wrong.process = SimpleNamespace(epsilon=2.0)
    with pytest.raises(ValueError, match=r"process.epsilon must equal data.epsilon, .* 2.0 and 1.0"):
        metric.check(wrong, data)
    with pytest.raises(ValueError, match="measures a translation, and object does not translate"):
        metric.check(object(), data)
    with pytest.raises(ValueError, match="num_per_input must be at least 2, got 1"):
        ConditionalPlan(num_per_input=1)
