"""Combinations of models known by their scores: diffusions with an exact score, bridges with exact drifts."""

import math
import warnings

import pytest
import torch
from assertions import assert_mean_close
from torch import nn

from sbflow.algorithm import ParticleDenoisingDiffusionSampler, SchrodingerBridgeFlow
from sbflow.algorithm.combination import combine
from sbflow.algorithm.score_diffusion import ScoreDiffusion
from sbflow.network import MLP
from sbflow.potential import MixturePotential
from sbflow.process import Brownian, Cosine, GaussianBridge, Linear, OrnsteinUhlenbeck
from sbflow.target import GaussianMixture
from sbflow.whitening.fixed import Fixed

PROCESS = OrnsteinUhlenbeck(Cosine(floor=math.exp(-8)))
FIXED = Fixed([0.3, -0.2], [[1.4, 0.0], [0.3, 0.8]])
MEANS, COVARIANCES = [[0.6, -0.4], [-0.8, 0.5]], [[[0.5, 0.1], [0.1, 0.4]], [[0.7, -0.2], [-0.2, 0.5]]]


def law(k: int) -> GaussianMixture:
    as_double = [torch.tensor(v, dtype=torch.float64) for v in ([MEANS[k]], [COVARIANCES[k]])]
    return GaussianMixture(*as_double, torch.ones(1, dtype=torch.float64))


class ExactScore(nn.Module):
    """What the network would be after training: the gradient of the exact potential."""

    def __init__(self, target: GaussianMixture, affine) -> None:
        super().__init__()
        self.potential = MixturePotential.of(target, affine, PROCESS)

    def forward(self, z, t):
        return self.potential.log_g_and_grad(z, t)[1]


def diffusion(k: int, process: OrnsteinUhlenbeck = PROCESS, whitening: Fixed = FIXED) -> ScoreDiffusion:
    model = ScoreDiffusion(law(k), whitening, process, MLP((2,), hidden=(4,), embed_dim=4)).double()
    model.whiten()
    model.ema.module = ExactScore(law(k), model.affine)
    return model


def log_overlap(exponents) -> float:
    """Log ∫ Π N(x; m, S)^a dx."""
    precision, shift, constant = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), 0.0
    for k, a in enumerate(exponents):
        mean, covariance = (torch.tensor(v[k], dtype=torch.float64) for v in (MEANS, COVARIANCES))
        inverse = torch.linalg.inv(covariance)
        precision, shift = precision + a * inverse, shift + a * inverse @ mean
        constant -= 0.5 * a * float(mean @ inverse @ mean + torch.linalg.slogdet(2 * math.pi * covariance)[1])
    centre = torch.linalg.solve(precision, shift)
    return constant + 0.5 * float(shift @ centre) - 0.5 * float(torch.linalg.slogdet(precision / (2 * math.pi))[1])


@pytest.mark.parametrize(("exponents", "noise_ratio"), [((2.0,), None), ((2.0,), 1.5), ((1.0, 1.0), None)])
def test_a_combination_of_exact_scores_has_its_integral_in_the_units_of_the_data(exponents, noise_ratio):
    corrected = combine([diffusion(k) for k in range(len(exponents))], list(exponents), noise_ratio=noise_ratio)
    evidence = corrected.estimate(num_particles=100, num_steps=25, replicates=4, seed=1)
    # the steps are not short: their bias is allowed for
    assert abs(evidence.log_z - log_overlap(exponents)) < 0.2 + 5 * evidence.log_z_stderr
    assert evidence.samples.shape == (400, 2) and evidence.quality["pilot_ess"] > 0.1
    if len(exponents) == 1:
        mean = (evidence.log_weights.exp()[:, None] * evidence.samples).sum(0)
        assert (mean - torch.tensor(MEANS[0])).abs().max() < 0.2


def test_diffusions_that_do_not_share_whitening_or_process_are_refused():
    with pytest.raises(ValueError, match="must share one whitening"):
        combine([diffusion(0), diffusion(1, whitening=Fixed([0.0, 0.0], [1.0, 1.0]))], [1.0, 1.0])
    with pytest.raises(ValueError, match="must share one process"):
        combine([diffusion(0), diffusion(1, OrnsteinUhlenbeck(Linear()))], [1.0, 1.0])


def test_models_of_different_kinds_are_refused():
    other = ParticleDenoisingDiffusionSampler(law(0), FIXED, PROCESS)
    with pytest.raises(ValueError, match="models must all be particle samplers, score diffusions or bridges, got Part"):
        combine([diffusion(0), other], [1.0, 1.0])


class ExactDrift(nn.Module):
    """Both drifts of the bridge from N(0, I) to another Gaussian."""

    def __init__(self, mean: list[float], variance: float) -> None:
        super().__init__()
        eye = torch.eye(2, dtype=torch.float64)
        ends = torch.zeros(2, dtype=torch.float64), torch.tensor(mean, dtype=torch.float64)
        forward = GaussianBridge(*ends, eye, variance * eye, 1.0)
        self.laws = forward, forward.reversed()

    def forward(self, x, u, direction):
        both = [law.drift(x, float(u[0])) if len(u.unique()) == 1 else self._rowwise(law, x, u) for law in self.laws]
        return torch.where(direction[:, None] == 0, *both)

    def _rowwise(self, law, x, u):
        return torch.cat([law.drift(x[i : i + 1], float(u[i])) for i in range(len(x))])


def bridge(mean: list[float], variance: float, *, epsilon: float = 1.0, start: float = 1.0) -> SchrodingerBridgeFlow:
    network = MLP((2,), hidden=(4,), embed_dim=4, num_directions=2)
    flow = SchrodingerBridgeFlow(network, Brownian(epsilon), (2,)).double()
    flow.drift.variance[0] = start
    flow.ema.module = ExactDrift(mean, variance)
    return flow


X0 = torch.randn(20_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
BRIDGES = (([1.0, -0.5], 0.5), ([-0.5, 0.5], 1.5))


def test_the_average_of_bridges_from_the_same_data_has_its_integral_and_mean():
    corrected = combine([bridge(*end) for end in BRIDGES], [0.5, 0.5], x0=X0)
    evidence = corrected.estimate(num_particles=500, num_steps=40, replicates=6)
    gap = sum((a - b) ** 2 for a, b in zip(BRIDGES[0][0], BRIDGES[1][0], strict=True))
    # Bhattacharyya
    exact = -0.125 * gap - math.log(1.0 / (0.5 * 1.5) ** 0.5)
    assert abs(evidence.log_z - exact) < 0.02 + 5 * evidence.log_z_stderr
    precision = 0.5 / 0.5 + 0.5 / 1.5
    mean = [(0.5 * a / 0.5 + 0.5 * b / 1.5) / precision for a, b in zip(BRIDGES[0][0], BRIDGES[1][0], strict=True)]
    found = (evidence.log_weights.exp()[:, None] * evidence.samples).sum(0)
    assert (found - torch.tensor(mean)).abs().max() < 0.08
    assert all(evidence.quality[f"nelson_residual_{k}"] < 0.15 for k in (0, 1))


def test_drifts_that_belong_to_no_common_process_are_told_by_their_residual():
    flow = bridge(*BRIDGES[0])

    class Nothing(nn.Module):
        def forward(self, x, u, direction):
            return torch.zeros_like(x)

    flow.ema.module = Nothing()
    assert combine(flow, 1.0, x0=X0).quality()["nelson_residual_0"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("others", "exponents", "message"),
    [
        ({}, [1.0, 1.0], "exponents must sum to 1"),
        ({"epsilon": 2.0}, [0.5, 0.5], "bridges must share event_shape and epsilon"),
        (
            {"start": 1.5},
            [0.5, 0.5],
            r"share their start, got means 0 deviations apart and variances .* 1.5",
        ),
    ],
)
def test_bridges_that_cannot_be_combined_are_refused(others, exponents, message):
    with pytest.raises(ValueError, match=message):
        combine([bridge(*BRIDGES[0]), bridge(*BRIDGES[1], **others)], exponents, x0=X0)


@pytest.mark.parametrize("option", ["num_particles", "num_steps", "replicates"])
def test_a_count_below_one_is_refused(option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        combine(diffusion(0), 2.0).estimate(**{option: 0})


def test_weights_that_collapse_are_warned_of():
    far = combine([diffusion(0), diffusion(1)], [20.0, 20.0], noise_ratio=1.0)
    with pytest.warns(UserWarning, match="without resampling only"):
        far.estimate(num_particles=20, num_steps=10)


def test_one_bridge_alone_is_itself():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evidence = combine(bridge(*BRIDGES[0]), 1.0, x0=X0).estimate(num_particles=2000, num_steps=30)
    assert evidence.log_z == 0.0 and evidence.ess == pytest.approx(2000)
    assert_mean_close(evidence.samples - torch.tensor(BRIDGES[0][0]), torch.zeros(2))


@pytest.mark.parametrize(("shape", "message"), [((0, 2), "at least one sample, got none"), ((9, 3), r"shape \[n, 2\]")])
def test_a_start_that_bridges_do_not_have_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        combine(bridge(*BRIDGES[0]), 1.0, x0=torch.zeros(shape, dtype=torch.float64))


def test_models_are_whitened_before_they_are_combined():
    models = [ScoreDiffusion(law(0), FIXED, PROCESS, MLP((2,), hidden=(4,), embed_dim=4)).double() for _ in range(2)]
    corrected = combine(models, [0.5, 0.5])
    assert torch.equal(corrected.affine.loc, FIXED.affine.loc)
    # untrained, all are the reference law; by the derivatives of a real network
    evidence = combine(models[0], 2.0).estimate(num_particles=3, num_steps=4)
    assert evidence.log_z == pytest.approx(
        -math.log(4 * math.pi) - float(torch.linalg.slogdet(FIXED.affine.scale)[1]), abs=1e-9
    )
