"""Records of separate runs, put together."""

import math

import pytest
import torch

from sbflow.algorithm import ParticleDenoisingDiffusionSampler
from sbflow.process import OrnsteinUhlenbeck
from sbflow.smc import Cost
from sbflow.smc.islands import combine
from sbflow.target import GaussianTarget
from sbflow.whitening import Standard


@pytest.fixture(scope="module")
def sampler():
    target = GaussianTarget(mean=[0.3, -0.5], covariance=[[1.0, 0.6], [0.6, 2.0]])
    return ParticleDenoisingDiffusionSampler(target, Standard(), OrnsteinUhlenbeck(), num_steps=4, num_particles=60)


def test_log_z_is_that_of_the_mean_over_all_runs_and_the_weights_go_by_each_runs_own(sampler):
    islands = [sampler.estimate(replicates=r, island=k) for k, r in enumerate((2, 1, 3))]
    whole = combine(islands)
    z = torch.cat([island.log_z_replicates for island in islands]).exp()
    assert math.isclose(whole.log_z, float(z.mean().log()), abs_tol=1e-12)
    assert math.isclose(whole.log_z_stderr, float(z.std() / z.mean()) / math.sqrt(6), rel_tol=1e-9)
    # mean over the runs of Ẑ times the run's own weighted mean, over Ẑ
    means = [island.log_weights.exp() @ island.samples.double() for island in islands]
    expected = sum(mean * one.log_z_replicates.exp().sum() for mean, one in zip(means, islands, strict=True)) / z.sum()
    assert (whole.log_weights.exp() @ whole.samples.double()).allclose(expected, rtol=1e-6)
    assert math.isclose(float(whole.log_weights.exp().sum()), 1, rel_tol=1e-9)


def test_runs_of_one_process_are_split_into_islands_without_a_change(sampler):
    islands = [sampler.estimate(replicates=2, island=k) for k in range(2)]
    whole = combine(islands)
    assert whole.cost == Cost(*(a + b for a, b in zip(islands[0].cost, islands[1].cost, strict=True)))
    assert whole.ess_path.shape == (5, 4) and len(whole.samples) == 240
    assert whole.elbo == pytest.approx((islands[0].elbo + islands[1].elbo) / 2)
    assert str(whole).startswith("log Z = ")
    assert combine(islands[:1]) is islands[0]


def test_islands_draw_apart_and_the_first_one_as_a_single_process(sampler):
    first, other = (sampler.estimate(island=k, seed=4) for k in (0, 1))
    assert first.samples.equal(sampler.estimate(seed=4).samples)
    assert not first.samples.equal(other.samples)


def test_the_mean_over_islands_is_unbiased(sampler):
    whole = combine([sampler.estimate(replicates=200, num_particles=10, island=k) for k in range(4)])
    # E Ẑ = Z = 1 for a normalised density
    assert abs(math.expm1(whole.log_z)) < 5 * whole.log_z_stderr * math.exp(whole.log_z)


def test_what_cannot_be_put_together_is_refused(sampler):
    one, other = sampler.estimate(), sampler.estimate(num_particles=30, island=1)
    with pytest.raises(ValueError, match="at least one record"):
        combine([])
    with pytest.raises(ValueError, match="equally many particles, got 60 and 30"):
        combine([one, other])
    with pytest.raises(ValueError, match="same levels, got 5 and 4"):
        combine([one, sampler.estimate(num_steps=3, island=1)])
