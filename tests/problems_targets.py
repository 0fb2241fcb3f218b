"""One table of targets, so that none escapes the tests of their common contract."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sbflow.target import (
    GMM40,
    LGCP,
    Banana,
    Brownian,
    BrownianMotion,
    CallableTarget,
    ConstrainedTarget,
    CountingTarget,
    DoubleWell,
    ExternalTarget,
    Funnel,
    GaussianMixture,
    GaussianTarget,
    GeometricTarget,
    Ionosphere,
    LogGaussianCoxProcess,
    LogisticRegression,
    ManyWell,
    Mixture2D,
    ProductOfWells,
    Sonar,
    StudentTMixture,
    Target,
)
from sbflow.target.dataset import data_root

__all__ = [
    "CASES",
    "SAMPLED",
    "constrained",
    "cox_process",
    "external",
    "gaussian",
    "mixture",
    "motion",
    "needs_data",
    "points",
    "regression",
    "wells",
]

COVARIANCE = [[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]]


def gaussian() -> GaussianTarget:
    return GaussianTarget([1.0, -2.0, 0.5], COVARIANCE)


def mixture() -> GaussianMixture:
    return GaussianMixture([[0.0, 1.0], [3.0, -1.0]], [[[1.0, 0.4], [0.4, 0.5]], [[0.3, 0.0], [0.0, 2.0]]], [0.3, 0.7])


def regression() -> LogisticRegression:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    return LogisticRegression(features, (torch.arange(12) % 3 == 0).double())


def motion() -> BrownianMotion:
    return BrownianMotion(torch.tensor([0.3, math.nan, -0.2, 0.5], dtype=torch.float64))


def cox_process() -> LogGaussianCoxProcess:
    points = torch.rand(30, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return LogGaussianCoxProcess(points.square(), grid_size=4)


def wells() -> ProductOfWells:
    is_well = torch.tensor([False, True, True])
    return ProductOfWells(is_well, weight=0.7, separation=1.5, tilt=-0.3, offset=2.0)


def constrained() -> ConstrainedTarget:
    def log_prob(p: dict[str, Tensor]) -> Tensor:
        simplex = (p["p"] * torch.tensor([1.0, 2.0, 3.0]).to(p["p"])).sum(-1)
        return -p["tau"] - 0.5 * (p["mu"] / (1 + p["theta"].square().sum(-1))).square() + simplex

    return ConstrainedTarget(
        log_prob, {"mu": "real", "tau": "positive", "p": "simplex(3)", "theta": "interval(-1, 2)[2]"}
    )


def external() -> ExternalTarget:
    def value_and_gradient(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return -np.logaddexp(x, -x).sum(1), -np.tanh(x)

    return ExternalTarget(value_and_gradient, dim=3)


needs_data = pytest.mark.skipif(not (data_root() / "bayes").is_dir(), reason="no data sets: set SBFLOW_DATA")
CASES = [
    pytest.param(GaussianTarget, id="gaussian_1d"),
    pytest.param(gaussian, id="gaussian_3d"),
    pytest.param(mixture, id="mixture"),
    pytest.param(Mixture2D, id="mixture_2d"),
    pytest.param(GMM40, id="gmm40"),
    pytest.param(lambda: GMM40(dim=5, num_components=7), id="gmm40_5d"),
    pytest.param(Funnel, id="funnel"),
    pytest.param(lambda: Funnel(dim=2, std=1.0), id="funnel_2d"),
    pytest.param(Banana, id="banana"),
    pytest.param(lambda: Banana(dim=4, curvature=-0.2, std=2.0), id="banana_4d"),
    pytest.param(DoubleWell, id="double_well"),
    pytest.param(lambda: DoubleWell(dim=4, num_wells=2, separation=1.3, weight=0.8), id="double_well_4d"),
    pytest.param(ManyWell, id="many_well"),
    pytest.param(wells, id="product_of_wells"),
    pytest.param(StudentTMixture, id="student_t_mixture"),
    pytest.param(lambda: StudentTMixture(3, 4, freedom=5.0, half_width=2.0, scale=0.7), id="student_t_mixture_3d"),
    pytest.param(regression, id="logistic_regression"),
    pytest.param(motion, id="brownian_motion"),
    pytest.param(cox_process, id="cox_process"),
    pytest.param(lambda: CallableTarget(lambda x: -x.cosh().log().sum(1), dim=3), id="callable"),
    pytest.param(lambda: CallableTarget(lambda x: -x.cosh().log().sum(), dim=3), id="callable_of_a_point"),
    pytest.param(constrained, id="constrained"),
    pytest.param(external, id="external"),
    pytest.param(lambda: GeometricTarget((Mixture2D(), Banana()), (0.5, 1.5)), id="geometric"),
    pytest.param(lambda: CountingTarget(Mixture2D()), id="counting"),
    pytest.param(Sonar, id="sonar", marks=needs_data),
    pytest.param(Ionosphere, id="ionosphere", marks=needs_data),
    pytest.param(Brownian, id="brownian", marks=needs_data),
    pytest.param(lambda: LGCP(grid_size=5), id="lgcp_25d", marks=needs_data),
]
SAMPLED = [
    GaussianTarget, gaussian, mixture, Mixture2D, GMM40, lambda: GMM40(dim=5), Funnel, Banana,
    lambda: Banana(4, -0.2, 2.0), DoubleWell, lambda: DoubleWell(4, 2, 1.3, 0.8), ManyWell, wells, StudentTMixture,
    lambda: StudentTMixture(3, 4, freedom=5.0, half_width=2.0, scale=0.7), lambda: CountingTarget(Funnel()),
]  # fmt: skip


def points(target: Target, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(7, target.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
