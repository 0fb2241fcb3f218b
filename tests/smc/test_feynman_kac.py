"""Correctors for scores: the rate of their weights, their evidence, and what they refuse."""

import math

import pytest
import torch
from assertions import assert_mean_close
from problems import GAUSSIAN, MIXTURE

from sbflow import smc
from sbflow.integrator.flow import Flow, flow_from_bridge, flow_from_score
from sbflow.potential import MixturePotential
from sbflow.process import Cosine, GaussianBridge, OrnsteinUhlenbeck, uniform_times

# the operational time that the formulas were measured for
PROCESS = OrnsteinUhlenbeck(Cosine(floor=math.exp(-8)))
POTENTIALS = [MixturePotential(*problem[:3], PROCESS) for problem in (GAUSSIAN, MIXTURE)]
EXPONENTS = [((1.0,), 1), ((2.3,), 1), ((0.7, 1.9), 2), ((-0.6, 1.6), 2)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(value) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def score_of(potential: MixturePotential):
    return lambda x, t: potential.log_g_and_grad(x, t)[1] - x


FLOWS = [flow_from_score(PROCESS, score_of(potential)) for potential in POTENTIALS]


def log_density(potential: MixturePotential, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return potential.log_g(x, t) - 0.5 * x.square().sum(-1)


def general_rate(log_p, drift, score, noise, x, clock, t_of) -> torch.Tensor:
    """h = ∂_τ log p + ∇·v + v·S − ½ σ² (∇·S + |S|²) by automatic differentiation, τ = −clock."""

    def at(point):
        row = lambda f: lambda y: f(y[None])[0]  # noqa: E731
        here = torch.autograd.functional.jacobian(lambda u: log_p(point[None], t_of(u))[0], clock)
        divergence = [torch.autograd.functional.jacobian(row(f), point).diagonal().sum() for f in (drift, score)]
        v, s = drift(point[None])[0], score(point[None])[0]
        return -here + divergence[0] + v @ s - 0.5 * noise * (divergence[1] + s @ s)

    return torch.stack([at(point) for point in x])


@pytest.mark.parametrize(("exponents", "number"), EXPONENTS)
@pytest.mark.parametrize("form", ["velocity 1", "velocity 3", "divergence"])
def test_the_rate_is_that_of_the_general_rule(exponents, number, form):
    potentials, flows = POTENTIALS[-number:], FLOWS[-number:]
    ratio = float(form.split()[-1]) if "velocity" in form else 1 / sum(exponents)
    kernel = (
        smc.FeynmanKacFlow(flows, exponents, noise_ratio=ratio)
        if "velocity" in form
        else smc.FeynmanKacDivergence(flows, exponents)
    )
    x, t = torch.randn(3, 2, dtype=torch.float64, generator=seeded()), double(0.37)
    clock = flows[0].clock(t)
    # ᾱ = e^{−2u}, inverted for the one schedule that has a closed form under autograd: by its derivative at t
    t_of = lambda u: t + (u - clock) / PROCESS.schedule.beta(t)  # noqa: E731
    combined = lambda f: sum(a * f(p) for a, p in zip(exponents, potentials, strict=True))  # noqa: E731
    found = general_rate(
        lambda y, time: combined(lambda p: log_density(p, y, time)),
        lambda y: kernel.field(y, t).grad_log_g,
        lambda y: combined(lambda p: score_of(p)(y, t)),
        2 * ratio,
        x,
        clock,
        t_of,
    )
    # the noised densities are normalised: log p is Σ a_i log q_i itself
    assert torch.allclose(kernel.field(x, t).log_g, found, rtol=1e-9, atol=1e-9)


def bridge(mean, variance) -> GaussianBridge:
    eye = torch.eye(3, dtype=torch.float64)
    return GaussianBridge(torch.zeros(3, dtype=torch.float64), double(mean), eye, variance * eye, 1.0)


BRIDGES = [bridge([1.0, 0.0, -1.0], 0.5), bridge([-0.5, 1.0, 0.0], 1.5)]


def flow_of(law: GaussianBridge) -> Flow:
    back = law.reversed()
    return flow_from_bridge(lambda x, t: law.drift(x, float(t)), lambda x, u: back.drift(x, float(u)), law.epsilon)


def test_the_flow_of_a_bridge_has_the_score_of_its_marginals_and_keeps_them():
    law, x = BRIDGES[1], torch.randn(9, 3, dtype=torch.float64, generator=seeded())
    fields = flow_of(law).fields(x, double(0.3))
    mean, covariance = law.marginal(0.3)
    assert torch.allclose(fields.score, -torch.linalg.solve(covariance, (x - mean).T).T, rtol=1e-9)
    slope = [law.marginal(0.3 + h)[1][0, 0] for h in (-1e-5, 1e-5)]
    rate = (slope[1] - slope[0]) / 2e-5 / covariance[0, 0] / 2
    expected = (law.mean1 - law.mean0) + (x - mean) * rate
    assert torch.allclose(fields.velocity, expected, rtol=1e-6)


@pytest.mark.parametrize("exponents", [(0.5, 0.5), (1.5, -0.5)])
def test_the_rate_for_bridges_is_that_of_the_general_rule(exponents):
    kernel = smc.FeynmanKacFlow(
        [flow_of(law) for law in BRIDGES], exponents, noise_ratio=2.0, start=smc.SampleStart(torch.zeros(1, 3))
    )
    x, t = torch.randn(3, 3, dtype=torch.float64, generator=seeded()), double(0.6)

    def log_p(y, time):
        laws = [law.marginal(time) for law in BRIDGES]
        parts = [torch.distributions.MultivariateNormal(*law).log_prob(y) for law in laws]
        return sum(a * part for a, part in zip(exponents, parts, strict=True))

    h = 1e-4
    along_time = (log_p(x, 0.6 + h) - log_p(x, 0.6 - h)) / (2 * h)
    flows = [flow_of(law) for law in BRIDGES]
    score = lambda y: sum(a * f.fields(y, t).score for a, f in zip(exponents, flows, strict=True))  # noqa: E731
    static = general_rate(
        lambda y, time: torch.zeros(1) + 0 * time,
        lambda y: kernel.field(y, t).grad_log_g,
        score,
        2.0,
        x,
        t,
        lambda u: u,
    )
    assert torch.allclose(kernel.field(x, t).log_g, static + along_time, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [smc.FeynmanKacFlow, smc.FeynmanKacDivergence])
def test_one_model_to_the_power_of_one_is_sampled_as_it_is(kind):
    kernel = kind(FLOWS[1:], [1.0])
    like, times = torch.empty(2, 50, 2, dtype=torch.float64), uniform_times(30).flip(0)
    particles, _ = smc.sample(kernel, like, times, generator=seeded())
    plain = smc.GuidedDenoising(PROCESS, POTENTIALS[1], "exponential", reach=1e9)
    expected, _ = smc.sample(plain, like, times, ess_threshold=0.0, generator=seeded())
    assert torch.equal(particles.log_z, torch.zeros(2, dtype=torch.float64))
    assert torch.equal(particles.log_weights, torch.full((2, 50), -math.log(50), dtype=torch.float64))
    assert torch.allclose(particles.x, expected.x, atol=1e-10)


def power_of(potential_covariance: torch.Tensor, power: float) -> float:
    """log ∫ N(x; m, S)^a dx."""
    d = len(potential_covariance)
    log_det = float(torch.linalg.slogdet(2 * math.pi * potential_covariance)[1])
    return 0.5 * (1 - power) * log_det - 0.5 * d * math.log(power)


@pytest.mark.parametrize("power", [0.5, 2.0])
def test_the_divergence_form_anneals_a_gaussian_without_variance(power):
    kernel = smc.FeynmanKacDivergence(FLOWS[:1], [power])
    like = torch.empty(1, 5, 2, dtype=torch.float64)
    exact = power_of(GAUSSIAN.covariances[0], power)
    errors = []
    for num_steps in (20, 40):
        particles, _ = smc.sample(kernel, like, uniform_times(num_steps).flip(0), generator=seeded())
        assert particles.log_weights.std() < 1e-9
        errors.append(abs(float(particles.log_z) - exact))
    # of first order in the step
    assert errors[1] < 0.3 and 1.6 < errors[0] / errors[1] < 2.4


def test_the_velocity_form_anneals_a_gaussian():
    kernel = smc.FeynmanKacFlow(FLOWS[:1], [2.0])
    like, times = torch.empty(6, 400, 2, dtype=torch.float64), uniform_times(200).flip(0)
    particles, _ = smc.sample(kernel, like, times, generator=seeded())
    exact = power_of(GAUSSIAN.covariances[0], 2.0)
    assert_mean_close((particles.log_z - exact).exp(), 1.0)


def test_the_average_of_two_bridges_has_its_closed_form():
    """√(q₁ q₂) of two isotropic Gaussians: precision and precision-weighted mean are averages."""
    n, replicates = 2000, 4
    start = smc.SampleStart(torch.randn(200_000, 3, dtype=torch.float64, generator=seeded(7)))
    kernel = smc.FeynmanKacFlow([flow_of(law) for law in BRIDGES], (0.5, 0.5), start=start)
    like = torch.empty(replicates, n, 3, dtype=torch.float64)
    particles, path = smc.sample(kernel, like, uniform_times(80), generator=seeded())
    precision = 0.5 / 0.5 + 0.5 / 1.5
    mean = (0.5 * double([1.0, 0.0, -1.0]) / 0.5 + 0.5 * double([-0.5, 1.0, 0.0]) / 1.5) / precision
    gap = double([1.0, 0.0, -1.0]) - double([-0.5, 1.0, 0.0])
    # Bhattacharyya
    exact = -0.125 * float(gap @ gap) - 1.5 * math.log(1.0 / (0.5 * 1.5) ** 0.5)
    weights = particles.log_weights.exp()[..., None]
    means = (weights * particles.x).sum(1)
    variance = (weights * (particles.x - mean) ** 2).sum(1).mean()
    assert abs(float(particles.log_z.mean()) - exact) < 0.03
    assert float((means.mean(0) - mean).abs().max()) < 0.03
    assert abs(float(variance) * precision - 1) < 0.03
    assert path.ess[-1].min() > 0.5 * n


def test_bridges_whose_exponents_do_not_sum_to_one_are_refused():
    flows = [flow_of(law) for law in BRIDGES]
    with pytest.raises(ValueError, match="exponents must sum to 1 to start from data"):
        smc.FeynmanKacFlow(flows, (1.0, 1.0), start=smc.SampleStart(torch.zeros(2, 3)))
    with pytest.raises(ValueError, match="start must be given for bridges"):
        smc.FeynmanKacFlow(flows, (0.5, 0.5))
    with pytest.raises(ValueError, match="use FeynmanKacFlow"):
        smc.FeynmanKacDivergence(flows, (0.5, 0.5))
    with pytest.raises(ValueError, match="flows must share their noise"):
        smc.FeynmanKacFlow([flows[0], FLOWS[0]], (0.5, 0.5))


@pytest.mark.parametrize("noise_ratio", [0.5, math.nan, math.inf])
def test_too_little_noise_is_refused_as_its_estimate_is_wrong_in_silence(noise_ratio):
    with pytest.raises(ValueError, match="noise_ratio must be finite and at least 1"):
        smc.FeynmanKacFlow(FLOWS, (1.0, 1.0), noise_ratio=noise_ratio)


def test_moves_and_tempering_are_refused_without_a_density():
    kernel, times = smc.FeynmanKacFlow(FLOWS, (1.0, 1.0)), uniform_times(2).flip(0)
    like = torch.empty(1, 10, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="moves need the density at every level"):
        smc.sample(kernel, like, times, moves=smc.Mala(), step_sizes=torch.ones(2))
    with pytest.raises(ValueError, match="exponents must be left out"):
        smc.sample(kernel, like, times, exponents=double([0.5, 1.0]))


def test_the_start_law_of_denoising_models_is_the_power_of_the_reference():
    start = smc.GaussianStart(2.5, log_det=0.3)
    x = start.sample(torch.empty(3, 4000, 2, dtype=torch.float64), seeded())
    assert_mean_close(x.flatten(0, 1).square(), 1 / 2.5)
    eye = torch.eye(2, dtype=torch.float64)
    assert start.log_normalizer(2) == pytest.approx(power_of(eye, 2.5) - 1.5 * 0.3)
