import math

import pytest
import torch
from torch import Tensor

from sbflow.target import CallableTarget, ConstrainedTarget, CountingTarget, Funnel, Mixture2D, Target, check_target


def uniform(x: Tensor) -> Tensor:
    inside = (x.abs() < 1).all(1)
    return torch.where(inside, torch.zeros_like(x[:, 0]), -torch.inf)


SOUND = {
    "a target with its own score": Mixture2D(),
    "a function": CallableTarget(lambda x: -x.square().sum(1), dim=2),
    "a function of one point": CallableTarget(lambda x: -x.square().sum(), dim=2),
    "flat on its support": CallableTarget(uniform, dim=2),
    "no density at most points": CallableTarget(lambda x: torch.where(x[:, 0] > 1, -x[:, 0], -torch.inf), dim=1),
    "NaN at most points": CallableTarget(lambda x: -x[:, 0].log().square() - x[:, 0], dim=1),
    "a constant of a bounded parameter": ConstrainedTarget(lambda x: 0 * x.sum(1), "unit_interval", num_parameters=2),
    "a kink at the origin": CallableTarget(lambda x: -x.norm(dim=1), dim=2),
}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sound_density_passes(name, dtype) -> None:
    check_target(SOUND[name], like=torch.empty(0, dtype=dtype))


def detached(x: Tensor) -> Tensor:
    return -x.detach().square().sum(1) + 0 * x.sum(1)


UNSOUND = [
    (lambda x: torch.full_like(x[:, 0], math.nan), r"nowhere finite at the 64 points .*: NaN at 64, -inf at 0"),
    (lambda x: torch.full_like(x[:, 0], -math.inf), r"nowhere finite at the 64 points .*: NaN at 0, -inf at 64"),
    (lambda x: torch.where(x[:, 0] > 0, torch.inf, -x[:, 0]), r"log_prob is \+inf at \d+ of 64 points"),
    (lambda x: -(x[:, 1] * 0).sqrt() - x[:, 0] ** 2, "gradient .* not finite at any of the 64 points .* coordinate 1"),
    (detached, "gradient of log_prob is zero at every point although its value changes"),
    (
        lambda x: -(x - x.mean(0)).square().sum(1),
        "for a point in a batch of 64 and -0 for the point alone",
    ),
    (lambda x: -x.square().sum(1) - torch.rand(len(x)), "function of each point by itself, without randomness"),
    (lambda x: x, r"log_prob must return a tensor of shape \[64\]"),
]


@pytest.mark.parametrize(("function", "message"), UNSOUND)
def test_an_unsound_density_is_refused_in_one_line(function, message) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_target(CallableTarget(function, dim=2))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unchecked_types")
def test_a_target_of_ones_own_with_wrong_shapes_or_dtypes_is_refused() -> None:
    class Own(Target):
        dim = 2

        def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return -x.square().sum(1), -2 * x[:, :1]

    class Double(Own):
        def log_prob_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return -x.square().sum(1).double(), -2 * x

    with pytest.raises(ValueError, match=r"gradient of log_prob must have shape \[64, 2\] .*, got \[64, 1\]"):
        check_target(Own())
    with pytest.raises(ValueError, match=r"must have shape \[64\] in torch.float32 .*, got \[64\] in torch.float64"):
        check_target(Double())


def test_points_of_the_start_are_used_where_they_are_given() -> None:
    density = CallableTarget(lambda x: torch.where((x > 100).all(1), -x.sum(1), -torch.inf), dim=2)
    check_target(density, 101 + torch.rand(4, 2))
    with pytest.raises(ValueError, match="nowhere finite at the 4 points"):
        check_target(density, torch.rand(4, 2))


def test_a_check_costs_one_evaluation_a_point_and_one_more() -> None:
    target = CountingTarget(Funnel())
    check_target(target)
    assert (target.density_evaluations, target.gradient_evaluations) == (65, 64)
