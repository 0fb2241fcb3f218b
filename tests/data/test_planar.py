import math

import pytest
import torch
from assertions import assert_mean_close

from sbflow.data.planar import PLANAR_SETS, Planar


def points(name: str, n: int = 20_000) -> torch.Tensor:
    return PLANAR_SETS[name](n, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", PLANAR_SETS)
def test_a_set_is_finite_planar_and_a_function_of_its_generator(name):
    x = points(name, 500)
    assert x.shape == (500, 2) and x.isfinite().all() and x.dtype == torch.get_default_dtype()
    assert torch.equal(x, points(name, 500))


def test_eight_gaussians_have_the_published_radius_and_spread():
    x = points("eight_gaussians")
    angle = (torch.atan2(x[:, 1], x[:, 0]) / (math.pi / 4)).round() * math.pi / 4
    centres = 5 * torch.stack([angle.cos(), angle.sin()], 1)
    assert set((angle / (math.pi / 4)).round().long().remainder(8).tolist()) == set(range(8))
    # each deviates from its centre by N(0, √0.1 I); a point in a neighbour's sector, 3.4 deviations away, is rare
    assert (x - centres).square().mean().item() == pytest.approx(0.1**0.5, rel=0.03)
    # E‖x‖² = 25 + 2 √0.1, whatever the sectors
    assert_mean_close(x.square().sum(1), 25 + 2 * 0.1**0.5)


def test_moons_lie_on_two_half_circles_of_radius_three():
    x = (points("moons") + 1) / 3
    upper, lower = x, torch.tensor([1.0, 0.5]) - x
    distance = torch.minimum((upper.norm(dim=1) - 1).abs(), (lower.norm(dim=1) - 1).abs())
    assert (distance < 5 * 0.2).all() and distance.mean() < 0.2
    # arcs of mean (0, 2/π) and (1, 1/2 − 2/π), equally often
    assert_mean_close(x, torch.tensor([0.5, 0.25]))


def test_the_s_curve_winds_once_each_way():
    x = points("s_curve") / 2
    height = x[:, 1].abs()
    # cos θ = 1 − |x₂| and sin θ = x₁ on the curve
    radius = (x[:, 0].square() + (1 - height).square()).sqrt()
    assert ((radius - 1).abs() < 6 * 0.05).all()
    assert_mean_close(x, 0.0)


def test_the_checkerboard_fills_its_eight_squares_only():
    x = points("checkerboard")
    square = (x / 2).floor().long()
    assert x.abs().max() <= 4 and (square.sum(1) % 2 == 0).all()
    assert len(square.unique(dim=0)) == 8


def test_the_two_spirals_are_half_turns_of_each_other():
    x = points("spirals")
    assert_mean_close(x, 0.0)
    assert x.norm(dim=1).max() < 4 + 6 * 0.1


def test_ends_are_chosen_by_name_and_splits_are_independent():
    data = Planar(source="moons", target="spirals", num_samples=300, num_test=100)
    assert data.event_shape == (2,) and len(data.split("test").x1) == 100
    assert not torch.equal(data.split("train").x0[:100], data.split("test").x0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "rings"}, "source must be one of gaussian, moons, .*, got 'rings'"),
        ({"num_test": 0}, "num_test must be at least 1, got 0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Planar(**options)
