import math

import pytest
import torch
from assertions import assert_mean_close
from torch import Tensor
from torch.distributions import (
    Beta,
    Dirichlet,
    Gamma,
    LKJCholesky,
    LogNormal,
    Normal,
    TransformedDistribution,
    Uniform,
    biject_to,
    constraints,
    transforms,
)

from sbflow.target import CallableTarget, ConstrainedTarget, Mixture2D, as_target

CONCENTRATION = torch.tensor([2.0, 3.0, 4.5], dtype=torch.float64)


def log_prob_by_name(p: dict[str, Tensor]) -> Tensor:
    """A normalised law of parameters of four kinds, of which two depend on each other."""
    scale = p["tau"]
    log_prob = Normal(torch.zeros_like(scale), scale).log_prob(p["mu"]) + Gamma(3.0, 2.0).log_prob(scale)
    log_prob = log_prob + Dirichlet(CONCENTRATION.to(scale)).log_prob(p["p"])
    return log_prob + Beta(2.0, 3.0).log_prob((p["theta"] + 1) / 4).sum(-1) - 2 * math.log(4)


BY_NAME = {
    "mu": "real",
    "tau": constraints.positive,
    "p": "simplex(3)",
    "theta": (constraints.interval(-1.0, 3.0), 2),
}


def importance(target: ConstrainedTarget, n: int = 40_000, width: float = 1.6) -> tuple[Tensor, Tensor]:
    """Points from a wide law in unconstrained space, and their weights, of mean Z."""
    freedom = 5.0
    law = torch.distributions.StudentT(torch.tensor(freedom).double(), 0.0, width)
    z = law.sample((n, target.dim))
    return z, (target.log_prob(z) - law.log_prob(z).sum(1)).exp()


def test_a_change_of_variables_leaves_the_normaliser_as_it_was() -> None:
    target = ConstrainedTarget(log_prob_by_name, BY_NAME)
    assert target.dim == 6
    z, weights = importance(target)
    assert_mean_close(weights, 1.0)
    x = target.parameters_by_name(z)
    shape = CONCENTRATION / CONCENTRATION.sum()
    assert_mean_close(weights[:, None] * (x["p"] - shape), 0.0)
    assert_mean_close(weights * (x["tau"] - 1.5), 0.0)
    assert_mean_close(weights[:, None] * ((x["theta"] + 1) / 4 - 0.4), 0.0)


def affine_gamma(start: float, slope: float) -> TransformedDistribution:
    return TransformedDistribution(Gamma(2.0, 1.0), transforms.AffineTransform(start, slope))


@pytest.mark.parametrize(
    ("constraint", "law", "dim"),
    [
        ("positive", LogNormal(0.3, 0.7), 1),
        ("greater_than(2)", affine_gamma(2.0, 1.0), 1),
        ("less_than(-1)", affine_gamma(-1.0, -1.0), 1),
        ("unit_interval", Beta(2.0, 5.0), 1),
        ("interval(-2, 5)", Uniform(-2.0, 5.0), 1),
        ("simplex(4)", Dirichlet(torch.tensor([1.0, 2.0, 3.0, 1.5])), 3),
        (transforms.SoftplusTransform(), Gamma(2.0, 1.0), 1),
        ((constraints.corr_cholesky, (3, 3)), LKJCholesky(3, 2.0), 3),
    ],
)  # fmt: skip
def test_every_constraint_keeps_a_normalised_law_normalised(constraint, law, dim) -> None:
    target = ConstrainedTarget(lambda p: law.log_prob(p["x"]), {"x": constraint})
    assert target.dim == dim
    assert_mean_close(importance(target)[1], 1.0)


def test_points_come_back_in_the_support_and_under_their_names() -> None:
    target = ConstrainedTarget(log_prob_by_name, BY_NAME)
    z = 2 * torch.randn(50, 6, dtype=torch.float64)
    x = target.parameters_by_name(z)
    assert {name: tuple(value.shape) for name, value in x.items()} == {
        "mu": (50,), "tau": (50,), "p": (50, 3), "theta": (50, 2)
    }  # fmt: skip
    assert (x["tau"] > 0).all() and (x["theta"].abs() < 3).all() and (x["theta"] > -1).all()
    torch.testing.assert_close(x["p"].sum(1), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(x["p"], biject_to(constraints.simplex)(z[:, 2:4]))
    torch.testing.assert_close(
        target.constrain(z), torch.cat([x["mu"][:, None], x["tau"][:, None], x["p"], x["theta"]], 1)
    )


def test_a_function_of_one_named_point_is_vectorised() -> None:
    def of_a_point(p: dict[str, Tensor]) -> Tensor:
        return -p["tau"] - p["theta"][0] ** 2 - p["theta"][1]

    def of_a_batch(p: dict[str, Tensor]) -> Tensor:
        return -p["tau"] - p["theta"][:, 0] ** 2 - p["theta"][:, 1]

    blocks = {"tau": "positive", "theta": "positive[2]"}
    z = torch.randn(5, 3)
    one, many = ConstrainedTarget(of_a_point, blocks), ConstrainedTarget(of_a_batch, blocks)
    torch.testing.assert_close(one.log_prob(z), many.log_prob(z))
    torch.testing.assert_close(one.score(z), many.score(z))


def test_blocks_without_names_are_laid_side_by_side() -> None:
    z = torch.randn(5, 4, dtype=torch.float64)
    target = ConstrainedTarget(lambda x: -x[:, 1] + x[:, 2:].log().sum(1), ["real", "positive", "simplex(3)"])
    simplex = biject_to(constraints.simplex)
    p = simplex(z[:, 2:])
    jacobian = z[:, 1] + simplex.log_abs_det_jacobian(z[:, 2:], p)
    torch.testing.assert_close(target.log_prob(z), -z[:, 1].exp() + p.log().sum(1) + jacobian)
    assert list(target.parameters_by_name(z)) == ["x"] and target.constrain(z).shape == (5, 5)


def test_one_constraint_stands_for_all_parameters() -> None:
    z = torch.randn(4, 3)
    for given in (constraints.positive, "positive", ("positive", 3), ["positive"] * 3):
        target = as_target(lambda x: -x.sum(1), 3, given)
        assert target.dim == 3
        torch.testing.assert_close(target.log_prob(z), z.sum(1) - z.exp().sum(1))
        torch.testing.assert_close(target.constrain(z), z.exp())


def test_data_in_float64_and_points_in_float32_go_together() -> None:
    data = torch.tensor([0.4, 1.7, 2.2], dtype=torch.float64)
    target = ConstrainedTarget(lambda p: Gamma(2.0, p["rate"][..., None]).log_prob(data).sum(-1), {"rate": "positive"})
    z = torch.tensor([[0.3], [-0.4]])
    assert target.log_prob(z).dtype == target.constrain(z).dtype == target.score(z).dtype == torch.float32
    torch.testing.assert_close(target.log_prob(z).double(), target.log_prob(z.double()), rtol=1e-5, atol=1e-5)


def test_a_module_as_the_function_moves_with_the_target() -> None:
    class Rate(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.ones(()))

        def forward(self, p: dict[str, Tensor]) -> Tensor:
            return -self.scale * p["x"]

    module = Rate()
    ConstrainedTarget(module, {"x": "positive"}).double()
    assert module.scale.dtype == torch.float64


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "constraints must name at least one parameter"),
        ("positiv", "constraints.x must be one of real, positive, .* got 'positiv'"),
        ({"a": "interval(1, 0)"}, r"constraints.a needs a lower end below the upper one, got 'interval\(1, 0\)'"),
        ({"a": "interval(1)"}, "constraints.a takes 2 numbers in parentheses"),
        ({"a": "simplex(two)"}, "constraints.a takes 1 numbers in parentheses"),
        ({"a": "simplex(2.5)"}, "constraints.a takes 1 numbers in parentheses"),
        ({"a": "simplex(1)"}, r"constraints.a leaves nothing free in a parameter of shape \[1\]"),
        ({"a": constraints.simplex}, "constraints.a needs the shape of the parameter"),
        ({"a": ("real", 0)}, "constraints.a needs the shape of the parameter"),
        ({"a": constraints.nonnegative_integer}, "constraints.a: no bijection onto .* is known"),
        ({"a": transforms.LowerCholeskyTransform()}, "constraints.a needs the shape of the parameter"),
        ({"a": (transforms.LowerCholeskyTransform(), (2, 2))}, "the Jacobian of LowerCholeskyTransform is not known"),
    ],
)
def test_bad_constraints_are_named(given, message) -> None:
    with pytest.raises(ValueError, match=message):
        ConstrainedTarget(lambda x: x, given)


@pytest.mark.usefixtures("unchecked_types")
def test_what_is_no_constraint_is_named() -> None:
    with pytest.raises(ValueError, match=r"constraints.a must be a constraint or transform .* got 3"):
        ConstrainedTarget(lambda x: x, {"a": 3})


def test_what_a_user_means_becomes_a_target() -> None:
    mixture = Mixture2D()
    assert as_target(mixture, None) is mixture and as_target(mixture, 2) is mixture
    assert isinstance(as_target(lambda x: -x.square().sum(1), 3), CallableTarget)
    for arguments, message in (
        ((mixture, 3), "dim must be that of the target, 2, or left out, got 3"),
        ((mixture, None, "positive"), "constraints go with a function"),
        ((lambda x: x, None), "dim must be given for a density without constraints"),
        (
            (lambda x: x, 3, {"a": "real[2]"}),
            "dim must be the number of parameters .*, 2, got 3",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            as_target(*arguments)
