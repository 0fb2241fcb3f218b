"""Options of the two evidence samplers, what a user may rely on whatever they are, and what they cost."""

import math

import pytest
import torch
from assertions import assert_mean_close
from problems import GAUSSIAN, MixtureDensity, linear_regression

from sbflow.algorithm import AnnealedSMC, IncompleteRun, ParticleDenoisingDiffusionSampler
from sbflow.process import OrnsteinUhlenbeck
from sbflow.smc import Hmc
from sbflow.target import CallableTarget, ConstrainedTarget, Target
from sbflow.whitening import FullRank, Laplace, Pilot, Standard

OPTIONS = {
    "multinomial": {"resampling": "multinomial", "ess_threshold": 0.9},
    "ssp": {"resampling": "ssp", "ess_threshold": 1.0},
    "mala": {"moves": "mala", "num_moves": 2},
    "hmc": {"moves": Hmc(num_leapfrog=3)},
    "waste_free": {"moves": "mala", "num_moves": 3, "waste_free": True},
    "adaptive": {"time_grid": "adaptive"},
    "optimal": {"time_grid": "optimal"},
    "online": {"time_grid": "online"},
    "tempered": {"moves": "mala", "tempering": 0.7},
    "chunks": {"chunk_size": 701},
    "chunks by memory": {"chunk_size": "50kB"},
    "tweedie": {"coefficient": "tweedie"},
}


def pdds(target, whitening=None, **options):
    settings = {"num_steps": 4, "num_particles": 60} | options
    return ParticleDenoisingDiffusionSampler(
        target, whitening or Laplace(inflation=1.3), OrnsteinUhlenbeck(), **settings
    )


def smc(target, whitening=None, **options):
    settings = {"moves": Hmc(num_leapfrog=3), "num_particles": 60, "num_steps": 3} | options
    return AnnealedSMC(target, whitening or Laplace(inflation=1.3), **settings)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_evidence_of_a_linear_regression_is_unbiased_with_every_option(options):
    target = linear_regression()
    record = pdds(target, **options).estimate(replicates=300)
    assert_mean_close((record.log_z_replicates - target.log_normalizer).exp(), 1.0)


@pytest.mark.parametrize(
    "options", [{}, {"moves": "mala", "num_moves": 2}, {"num_steps": None}, {"waste_free": True, "moves": "mala"}]
)
def test_annealing_finds_the_evidence_of_a_linear_regression(options):
    target = linear_regression()
    record = smc(target, Standard(), **options).estimate(replicates=200)
    assert_mean_close((record.log_z_replicates - target.log_normalizer).exp(), 1.0)
    weights = record.log_weights.exp()[:, None]
    assert torch.allclose((weights * record.samples.double()).sum(0), target.posterior().means[0], atol=0.1)


class Moved(Target):
    """γ(A⁻¹(x − b)) exp(c) / |det A|: the constant of γ times exp(c)."""

    def __init__(self, target: Target, matrix: torch.Tensor, shift: torch.Tensor, constant: float) -> None:
        super().__init__()
        self.target, self.matrix, self.shift, self.constant = target, matrix, shift, constant
        self.dim = target.dim

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.linalg.solve(self.matrix, (x.double() - self.shift).T).T
        log_det = torch.linalg.slogdet(self.matrix).logabsdet
        return (self.target.log_prob(z) + self.constant - log_det).to(x.dtype)


EYE, ZERO = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)


@pytest.mark.parametrize("make", [pdds, smc])
def test_a_constant_in_the_log_density_shifts_log_z_by_it(make):
    target = linear_regression()
    records = [make(Moved(target, EYE, ZERO, c), Standard()).double().estimate(seed=2) for c in (0.0, 123.5)]
    assert records[1].log_z - records[0].log_z == pytest.approx(123.5, abs=1e-9)
    assert torch.allclose(records[0].samples, records[1].samples)


@pytest.mark.parametrize("whitening", [Laplace(inflation=1.3), FullRank(inflation=1.3)], ids=["laplace", "full_rank"])
@pytest.mark.parametrize("make", [pdds, smc])
def test_an_affine_change_of_variables_leaves_log_z_alone(make, whitening):
    target = linear_regression()
    lower = torch.tensor([[2.0, 0.0, 0.0], [-1.0, 0.1, 0.0], [0.5, 3.0, 5.0]], dtype=torch.float64)
    moved = Moved(target, lower, torch.tensor([10.0, -3.0, 0.2], dtype=torch.float64), 0.0)
    records = [make(t, whitening).double().estimate(replicates=50, seed=2) for t in (target, moved)]
    if isinstance(whitening, Laplace):
        # a lower-triangular map takes Cholesky factors to Cholesky factors: the same particles in whitened coordinates
        assert torch.allclose(records[0].log_z_replicates, records[1].log_z_replicates, atol=1e-5)
    spread = math.hypot(*(record.log_z_stderr for record in records))
    assert abs(records[0].log_z - records[1].log_z) < 5 * spread + 1e-6


@pytest.mark.parametrize("make", [pdds, smc])
def test_the_order_of_the_coordinates_does_not_matter(make):
    target = linear_regression()
    permuted = Moved(target, EYE[[2, 0, 1]], ZERO, 0.0)
    records = [make(t).double().estimate(replicates=50, seed=s) for s, t in enumerate((target, permuted))]
    spread = math.hypot(*(record.log_z_stderr for record in records))
    assert abs(records[0].log_z - records[1].log_z) < 5 * spread
    assert torch.allclose(records[0].samples.mean(0)[[2, 0, 1]], records[1].samples.mean(0), atol=0.15)


def test_a_pilot_whitening_takes_the_moments_of_a_first_run():
    target = linear_regression()
    module = pdds(target, Pilot(Standard()))
    module.whiten()
    posterior = target.posterior()
    scale = module.affine.scale
    assert torch.allclose(module.affine.loc, posterior.means[0], atol=0.2)
    assert torch.allclose(scale @ scale.T, posterior.covariances[0], atol=0.15)
    assert module.whitening_evaluations[0] > 1000
    record = module.estimate(replicates=100)
    assert_mean_close((record.log_z_replicates - target.log_normalizer).exp(), 1.0)


def test_costs_are_booked_where_they_arise():
    target = linear_regression()
    module = pdds(target, moves="mala")
    record = module.estimate(replicates=2)
    # one evaluation per particle and level, and one per move at each level that is left
    assert record.cost == (60 * 2 * (5 + 4), 60 * 2 * (5 + 4))
    assert record.whitening_cost.density > 0 and record.training_cost.density > 0
    again = module.estimate(replicates=2)
    assert (again.cost, again.whitening_cost, again.training_cost) == (
        record.cost,
        record.whitening_cost,
        record.training_cost,
    )


def test_samples_and_parameters_come_back_within_their_constraints():
    target = ConstrainedTarget(
        lambda p: -p["tau"].log() - 0.5 * p["tau"].log() ** 2 - 0.5 * p["mu"].square().sum(-1),
        {"tau": "positive", "mu": "real[2]"},
    )
    record = pdds(target).estimate()
    assert (record.parameters["tau"] > 0).all()
    assert record.parameters["mu"].shape == (60, 2) and record.samples.shape == (60, 3)


def test_a_density_that_raises_on_the_way_leaves_what_was_computed():
    calls = []

    def fragile(x):
        calls.append(len(x))
        if len(calls) > 12:
            raise RuntimeError("the solver did not converge")
        return -0.5 * x.square().sum(1)

    module = pdds(CallableTarget(fragile, 2, batched=True, dtype=torch.float32), Standard(), num_steps=50)
    with pytest.raises(IncompleteRun, match=r"solver did not converge.*at time 0\.\d+.*60 particles") as caught:
        module.estimate()
    partial = caught.value.evidence
    assert 0 < len(partial.ess_path) < 51
    assert partial.samples.shape == (60, 2) and math.isfinite(partial.log_z)


def test_a_density_that_is_nan_for_some_particles_is_counted_and_survives():
    law = torch.distributions.Normal(0.5, 1.0)
    # the logarithm of a negative number, where others would write −inf
    target = CallableTarget(lambda x: law.log_prob(x[:, 0]) + 0 * x[:, 0].log(), 1)
    record = pdds(target, Standard(), num_particles=400).estimate(replicates=100)
    assert record.num_nan > 0
    assert_mean_close(record.log_z_replicates.exp() / (1 - law.cdf(torch.tensor(0.0))), 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resampling": "no"}, "systematic"),
        ({"moves": "gibbs"}, "moves must be 'mala', 'hmc' or null, got 'gibbs'"),
        ({"waste_free": True}, "need moves="),
        ({"time_grid": "log"}, "time_grid must be one of uniform, adaptive, optimal, online, got 'log'"),
        ({"time_rate": 0.0}, "time_rate must lie in .0, 1., got 0.0"),
        ({"tempering": 0.5}, "tempering needs moves"),
        ({"tempering": 2.0, "moves": "mala"}, "tempering must be null or lie in"),
        ({"chunk_size": 0}, "chunk_size must be null, a number from 1 on or a memory such as '2GB', got 0"),
        (
            {"chunk_size": "2 gigabytes"},
            "chunk_size must be null, a number from 1 on or a memory such as '2GB', got '2 giga",
        ),
        ({"loss": "mse"}, "loss must be one of novel, denoising, target, fisher or a function, got 'mse'"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pdds(linear_regression(), **options)


def test_an_upper_bound_from_exact_samples_lies_above_log_z():
    module = pdds(MixtureDensity(GAUSSIAN), Standard()).double()
    bounds = module.upper_bound(2000)
    assert bounds.mean() > GAUSSIAN.log_z - 5 * bounds.std() / 2000**0.5
    assert_mean_close((GAUSSIAN.log_z - bounds).exp(), 1.0)


def test_annealing_has_nothing_to_train():
    with pytest.raises(ValueError, match="nothing to train"):
        smc(linear_regression()).max_steps  # noqa: B018
