"""Tempered densities and products from samplers of their factors."""

import math
import warnings

import pytest
import torch
from assertions import assert_mean_close

from sbflow.algorithm import ParticleDenoisingDiffusionSampler
from sbflow.algorithm.combination import combine
from sbflow.algorithm.geometric_sampler import GeometricSampler
from sbflow.network import MLP
from sbflow.process import Linear, OrnsteinUhlenbeck
from sbflow.target import CallableTarget, GaussianTarget, as_target
from sbflow.target.geometric import GeometricTarget
from sbflow.whitening import Laplace, Standard
from sbflow.whitening.fixed import Fixed

LAW = ([0.4, -0.6], [[0.8, 0.2], [0.2, 0.5]])
OTHER = ([-0.3, 0.9], [[0.6, -0.3], [-0.3, 1.1]])
NARROW = ([-0.1, 0.5], [[0.4, -0.1], [-0.1, 0.3]])
FIXED = Fixed([0.1, 0.2], [[1.1, 0.0], [0.3, 0.9]])


def sampler(law=LAW, whitening=FIXED, *, trained: bool = False, process=None) -> ParticleDenoisingDiffusionSampler:
    """A sampler; trained means a guide that is as good as random."""
    torch.manual_seed(1)
    target = GaussianTarget(*law) if isinstance(law, tuple) else law
    network = MLP((target.dim,), hidden=(8,), embed_dim=8) if trained else None
    module = ParticleDenoisingDiffusionSampler(
        target, whitening, process or OrnsteinUhlenbeck(), network, num_steps=12, num_particles=400
    ).double()
    if trained:
        for parameter in module.drawing.parameters():
            parameter.data.normal_(0, 0.1)
        module.trained.fill_(True)
    return module


def log_integral(laws, exponents) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Log ∫ Π N(x; m, S)^a dx, mean and covariance of the product."""
    precision, shift, constant = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), 0.0
    for (mean, covariance), a in zip(laws, exponents, strict=True):
        mean, covariance = torch.tensor(mean, dtype=torch.float64), torch.tensor(covariance, dtype=torch.float64)
        inverse = torch.linalg.inv(covariance)
        precision, shift = precision + a * inverse, shift + a * inverse @ mean
        log_det = torch.linalg.slogdet(2 * math.pi * covariance)[1]
        constant -= 0.5 * a * float(mean @ inverse @ mean + log_det)
    centre = torch.linalg.solve(precision, shift)
    rest = 0.5 * float(shift @ centre) - 0.5 * float(torch.linalg.slogdet(precision / (2 * math.pi))[1])
    return constant + rest, centre, torch.linalg.inv(precision)


CASES = {
    "cold": ((LAW,), (2.5,)),
    "warm": ((LAW,), (0.4,)),
    "product": ((LAW, OTHER), (1.0, 1.0)),
    "average": ((LAW, OTHER), (0.5, 0.5)),
    "guidance": ((LAW, NARROW), (-0.4, 1.4)),
}


@pytest.mark.parametrize("trained", [False, True], ids=["naive", "badly trained"])
@pytest.mark.parametrize("name", CASES)
def test_the_integral_of_the_product_is_unbiased_whatever_was_learned(name, trained):
    laws, exponents = CASES[name]
    combined = combine([sampler(law, trained=trained) for law in laws], list(exponents), num_particles=200)
    evidence = combined.estimate(replicates=60, seed=2)
    exact, mean, covariance = log_integral(laws, exponents)
    ratio = (evidence.log_z_replicates - exact).exp()
    assert_mean_close(ratio, 1.0)
    x, w = evidence.samples.unflatten(0, (60, 200)), evidence.log_weights.reshape(60, 200).softmax(1)[..., None]
    assert_mean_close(ratio[:, None] * (w * (x - mean)).sum(1), torch.zeros(2))
    spread = (w * (x - mean) ** 2).sum(1) - covariance.diagonal()
    assert_mean_close(ratio[:, None] * spread, torch.zeros(2))
    assert 0 < evidence.quality["pilot_ess"] <= 1


def test_guidance_at_twice_the_speed_is_unbiased_too():
    laws, exponents = CASES["guidance"]
    combined = combine([sampler(law) for law in laws], list(exponents), speed=2.0, num_particles=100)
    evidence = combined.estimate(replicates=60)
    assert_mean_close((evidence.log_z_replicates - log_integral(laws, exponents)[0]).exp(), 1.0)


def test_the_power_of_one_is_the_sampler_itself():
    module = sampler()
    alone = module.estimate(replicates=2, seed=3)
    again = combine(module, 1.0).estimate(replicates=2, seed=3)
    assert torch.allclose(alone.log_z_replicates, again.log_z_replicates, rtol=1e-10)
    assert torch.allclose(alone.samples, again.samples, rtol=1e-8, atol=1e-10)


def test_the_cost_is_that_of_all_factors():
    combined = combine([sampler(), sampler(OTHER)], [1.0, 1.0], num_particles=50)
    before = [int(part.whitening_evaluations[0]) for part in combined.parts]
    evidence = combined.estimate(replicates=2, num_steps=5)
    assert evidence.cost == (2 * 2 * 50 * 6, 2 * 2 * 50 * 6)
    assert evidence.whitening_cost.density == sum(before) > 0
    # the pilot
    assert evidence.training_cost.density == 2 * 500 * 6
    assert combined.estimate(replicates=1, num_steps=5).training_cost == evidence.training_cost


def test_densities_of_bounded_parameters_come_back_by_name():
    target = as_target(lambda p: -p["rate"] - 0.3 * p["rate"] ** 2, None, {"rate": "positive"})
    evidence = combine(sampler(target, Standard(2.0)), 2.0, num_particles=300).estimate()
    assert (evidence.parameters["rate"] > 0).all()


@pytest.mark.parametrize(
    ("samplers", "exponents", "message"),
    [
        (lambda: [sampler(), sampler(OTHER, Laplace())], [1.0, 1.0], "must share one whitening"),
        (lambda: [sampler(), sampler(OTHER, Standard(1.0))], [1.0, 1.0], "must share one whitening"),
        (
            lambda: [sampler(), sampler(OTHER, process=OrnsteinUhlenbeck(Linear()))],
            [1.0, 1.0],
            "must share one process, got different noise schedules",
        ),
        (lambda: [sampler(), sampler(OTHER)], [1.0], "one number for each of 2"),
        (lambda: [sampler()], [-1.0], "positive sum"),
        (lambda: [sampler()], [math.nan], "finite"),
        (lambda: [], [], "one number for each of 0"),
    ],
)
def test_what_cannot_be_combined_is_refused(samplers, exponents, message):
    parts = samplers()
    with pytest.raises(ValueError, match=message):
        combine(parts, exponents)


@pytest.mark.parametrize("option", [{"num_steps": 0}, {"speed": 0.0}, {"ess_threshold": 2.0}, {"num_particles": 0}])
def test_an_option_out_of_range_is_refused(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} must"):
        combine(sampler(), 2.0, **option)


def test_exponents_that_make_no_density_are_warned_of():
    wide, narrow = ([0.0, 0.0], [[4.0, 0.0], [0.0, 4.0]]), ([0.0, 0.0], [[0.05, 0.0], [0.0, 0.05]])
    combined = GeometricSampler([sampler(wide), sampler(narrow)], [1.5, -0.4], num_steps=40)
    with pytest.warns(UserWarning, match=r"without resampling only 1\.\d of 500 particles count"):
        combined.prepare(None, trained=True)
    assert combined.pilot_ess[40, True] < 0.01


def test_a_good_density_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        combined = combine(sampler(), 2.0)
        combined.prepare(None, trained=True)
    assert min(combined.pilot_ess.values()) > 0.1


def test_a_fixed_whitening_is_taken_from_a_sampler_that_was_fitted():
    module = sampler(LAW, Laplace())
    module.whiten()
    law = Fixed.of(module.affine)
    for one, other in zip(law.fit(GaussianTarget(*OTHER)).buffers(), module.affine.buffers(), strict=True):
        assert torch.equal(one, other)
    assert combine([module, sampler(OTHER, law)], [1.0, 1.0]).exponents == (1.0, 1.0)
    with pytest.raises(ValueError, match="loc must have 3 numbers"):
        law.empty(3)


def test_the_tempered_density_is_a_target_of_its_own():
    tempered = GeometricTarget([CallableTarget(lambda x: -x.square().sum(1), 2)], [0.5])
    x = torch.randn(4, 2)
    assert torch.allclose(tempered.log_prob(x), -0.5 * x.square().sum(1))
    assert tempered.log_normalizer is None and GeometricTarget([GaussianTarget(*LAW)], [1.0]).log_normalizer == 0.0
