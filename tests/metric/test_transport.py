import pytest
import torch

from sbflow.metric import transport
from sbflow.metric.transport import mean_squared_distance, pair_costs


def samples(n: int, *event: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *event, generator=torch.Generator().manual_seed(seed))


def test_mean_squared_distance_is_per_element():
    x = samples(10, 1, 4, 4)
    assert mean_squared_distance(x, x) == 0
    assert mean_squared_distance(x, x + 3) == pytest.approx(9, rel=1e-5)


def test_a_shifted_set_is_carried_back_by_the_shift():
    x = samples(60, 1, 3, 3)
    costs = pair_costs(x, x.flip(0) + 0.5)
    assert costs.optimal == pytest.approx(0.25, rel=1e-5)


def test_random_pairs_cost_the_variances_and_the_distance_of_the_means():
    x, y = samples(40, 5).double(), 2 * samples(70, 5, seed=1).double() + 1
    spread = x.var(0, correction=0).mean() + y.var(0, correction=0).mean()
    expected = spread + (x.mean(0) - y.mean(0)).square().mean()
    assert pair_costs(x, y).random == pytest.approx(expected.item(), rel=1e-9)


def test_on_the_line_the_optimal_coupling_sorts():
    x, y = samples(50, 1), samples(50, 1, seed=1).exp()
    expected = (x.sort(0).values - y.sort(0).values).square().mean().item()
    assert pair_costs(x, y).optimal == pytest.approx(expected, rel=1e-5)


def test_sets_of_unequal_size_carry_equal_mass():
    costs = pair_costs(torch.zeros(1, 1), torch.tensor([[0.0], [1.0]]))
    assert costs.optimal == costs.random == pytest.approx(0.5)


def test_large_sets_are_thinned_at_random(monkeypatch):
    monkeypatch.setattr(transport, "MAX_POINTS", 100)
    x = torch.cat([torch.zeros(1000, 1), torch.ones(1000, 1)])
    drawn = pair_costs(x, torch.zeros(1, 1)).random  # mean of 100 draws of a fair coin
    assert abs(drawn - 0.5) < 5 * (0.25 / 100) ** 0.5
    assert pair_costs(x, torch.zeros(1, 1), seed=1).random != pair_costs(x, torch.zeros(1, 1), seed=2).random
