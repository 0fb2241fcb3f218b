"""Weights of the particle sampler as identities, particle by particle."""

import math
from itertools import pairwise

import pytest
import torch
from assertions import assert_mean_close
from problems import GAUSSIAN, MIXTURE, MixtureDensity

from sbflow import smc
from sbflow.potential import MixturePotential, NaivePotential
from sbflow.process import Linear, OrnsteinUhlenbeck, uniform_times
from sbflow.target import CallableTarget

PROCESS = OrnsteinUhlenbeck(Linear(0.1, 4.0))
COEFFICIENTS = ("lambda", "exponential", "tweedie")
TIMES = uniform_times(5).flip(0)


def like(replicates: int, n: int, d: int = 2) -> torch.Tensor:
    return torch.empty(replicates, n, d, dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal_log_prob(x: torch.Tensor, mean: torch.Tensor | float, std: torch.Tensor | float) -> torch.Tensor:
    return torch.distributions.Normal(mean, std).log_prob(x).sum(-1)


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
@pytest.mark.parametrize("potential", ["exact", "naive"])
def test_weight_times_proposal_is_density_times_noising_path_for_every_particle(coefficient, potential):
    exact = MixturePotential(*MIXTURE[:3], PROCESS, MIXTURE.log_z)
    g = exact if potential == "exact" else NaivePotential(MixtureDensity(MIXTURE), PROCESS)
    kernel = smc.GuidedDenoising(PROCESS, g, coefficient)
    particles = smc.init(kernel, like(2, 6), TIMES[0], generator=seeded())
    log_proposal = normal_log_prob(particles.x, 0.0, 1.0)
    log_noising = torch.zeros_like(log_proposal)
    for t, s in pairwise(TIMES):
        x = particles.x
        law = kernel.propose(x.flatten(0, 1), smc.Field(*(part.flatten(0, 1) for part in particles.field)), t, s)
        particles, _ = smc.step(particles, kernel, t, s, ess_threshold=0.0, generator=seeded(1))
        log_proposal += normal_log_prob(particles.x, law.mean.reshape(x.shape), law.std)
        keep = PROCESS.schedule.alpha_bar(t) / PROCESS.schedule.alpha_bar(s)
        log_noising += normal_log_prob(x, keep.sqrt() * particles.x, (1 - keep).sqrt())
    log_gamma = MixtureDensity(MIXTURE).log_prob(particles.x.flatten(0, 1)).reshape(2, 6)
    log_weights = particles.log_weights + particles.log_z[:, None] + math.log(6)
    assert torch.allclose(log_weights, log_gamma + log_noising - log_proposal, rtol=1e-9, atol=1e-9)
    assert log_weights.std() > 1e-3


@pytest.mark.parametrize("ess_threshold", [0.0, 0.5, 1.0])
def test_a_constant_factor_of_the_density_moves_log_z_by_its_logarithm_and_nothing_else(ess_threshold):
    def run(shift: float) -> smc.Particles:
        target = MixtureDensity(MIXTURE._replace(log_z=MIXTURE.log_z + shift))
        kernel = smc.GuidedDenoising(PROCESS, NaivePotential(target, PROCESS))
        return smc.sample(kernel, like(4, 50), TIMES, ess_threshold=ess_threshold, generator=seeded())[0]

    one, other = run(0.0), run(300.0)
    assert torch.allclose(other.log_z - one.log_z, torch.full((4,), 300.0, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(one.x, other.x, atol=1e-9)
    assert torch.allclose(one.log_weights, other.log_weights, atol=1e-9)


@pytest.mark.parametrize("ess_threshold", [0.0, 1.0])
def test_weights_stay_normalised_and_resampling_sets_them_equal(ess_threshold):
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(MixtureDensity(MIXTURE), PROCESS))
    particles = smc.init(kernel, like(3, 20), TIMES[0], generator=seeded())
    before = particles.log_z
    moved, chosen = smc.resample(particles, smc.systematic, ess_threshold, seeded(1))
    assert chosen.tolist() == [ess_threshold == 1.0] * 3
    assert torch.equal(moved.log_z, before)
    assert torch.allclose(moved.log_weights.logsumexp(-1), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    if ess_threshold:
        assert torch.allclose(moved.log_weights, torch.full_like(moved.log_weights, -math.log(20)))
        assert torch.equal(moved.x, particles.x.gather(1, moved.ancestors[:, :, None].expand(3, 20, 2)))
        assert torch.equal(moved.field.log_g, particles.field.log_g.gather(1, moved.ancestors))


def test_only_sets_below_the_threshold_are_resampled():
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(MixtureDensity(MIXTURE), PROCESS))
    particles = smc.init(kernel, like(2, 10), TIMES[0], generator=seeded())
    skewed = torch.tensor([[0.0] * 10, [0.0] * 4 + [-torch.inf] * 6], dtype=torch.float64).log_softmax(-1)
    moved, chosen = smc.resample(particles._replace(log_weights=skewed), smc.systematic, 0.5, seeded(1))
    assert chosen.tolist() == [False, True]
    assert torch.equal(moved.x[0], particles.x[0]) and (moved.ancestors[1] < 4).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (3, 1, 1), (2, 5, 1)])
def test_one_particle_and_one_dimension_are_no_special_case(shape):
    target = CallableTarget(lambda x: -0.7 * x.square().sum(1), shape[2])
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(target, PROCESS))
    particles, path = smc.sample(kernel, like(*shape), TIMES, generator=seeded())
    assert particles.x.shape == shape and particles.log_z.isfinite().all()
    assert path.ess.shape == (len(TIMES), shape[0])


def nan_beyond(limit: float) -> CallableTarget:
    return CallableTarget(lambda x: torch.where(x[:, 0] > limit, torch.nan, -x.square().sum(1)), 2)


def test_a_density_that_is_nan_is_reported_with_its_time_and_count():
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(nan_beyond(-1e9), PROCESS))
    with pytest.raises(FloatingPointError, match=r"log density is NaN for 80 particles at time 1 \(step 0 of 5\)"):
        smc.sample(kernel, like(2, 40), TIMES, generator=seeded())


def test_particles_where_the_density_is_nan_are_counted_and_lose_their_weight_at_the_end():
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(nan_beyond(0.9), PROCESS))
    particles, path = smc.sample(kernel, like(2, 40), TIMES, ess_threshold=0.0, generator=seeded())
    beyond = particles.x[..., 0] > 0.9
    assert beyond.any() and torch.equal(particles.log_weights == -torch.inf, beyond)
    assert torch.equal(path.num_nan[-1], beyond.sum(-1)) and path.num_nan.shape == (len(TIMES), 2)
    assert particles.log_z.isfinite().all() and path.ess.isfinite().all()


def test_nan_counts_as_outside_of_the_support():
    def run(outside: float) -> smc.Particles:
        target = CallableTarget(lambda x: torch.where(x[:, 0] > 0.9, outside, -x.square().sum(1)), 2)
        kernel = smc.GuidedDenoising(PROCESS, NaivePotential(target, PROCESS))
        return smc.sample(kernel, like(2, 40), TIMES, generator=seeded())[0]

    one, *others = (run(outside) for outside in (-torch.inf, torch.nan, torch.inf))
    assert all(torch.equal(one.log_z, other.log_z) and torch.equal(one.x, other.x) for other in others)


class Failing(CallableTarget):
    """Raises at its k-th call."""

    def __init__(self, k: int) -> None:
        super().__init__(lambda x: -x.square().sum(1), 2)
        self.left = k

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if not self.left:
            raise KeyError("a fault of the user's")
        return super().log_prob(x)


def test_a_density_that_raises_names_time_and_particles_and_leaves_what_was_computed():
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(Failing(4), PROCESS))
    message = r"raised KeyError .*fault.* at time 0.4 for 80 particles \(step 3 of 5\)"
    with pytest.raises(smc.SamplingError, match=message) as caught:
        smc.sample(kernel, like(2, 40), TIMES, generator=seeded())
    assert isinstance(caught.value.__cause__, KeyError)
    whole, path = smc.sample(
        smc.GuidedDenoising(PROCESS, NaivePotential(Failing(-1), PROCESS)), like(2, 40), TIMES[:3], generator=seeded()
    )
    assert torch.equal(caught.value.particles.x, whole.x) and torch.equal(caught.value.path.log_z, path.log_z)


def test_a_density_that_raises_at_once_leaves_nothing():
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(Failing(1), PROCESS))
    with pytest.raises(smc.SamplingError, match=r"at time 1 for 10 particles \(step 0 of 5\)") as caught:
        smc.sample(kernel, like(1, 10), TIMES)
    assert caught.value.particles is None and caught.value.path is None


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_the_density_can_be_evaluated_in_pieces(chunk_size):
    sizes = []

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return -x.square().sum(1)

    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(CallableTarget(log_prob, 2), PROCESS))
    moves = {"moves": smc.Mala(), "step_sizes": torch.full((5,), 0.5)}
    run = lambda size: smc.sample(kernel, like(2, 15), TIMES, chunk_size=size, generator=seeded(), **moves)[0]  # noqa: E731
    whole = run(None)
    sizes.clear()
    pieces = run(chunk_size)
    assert max(sizes) <= chunk_size
    assert torch.allclose(whole.x, pieces.x, atol=1e-12) and torch.allclose(whole.log_z, pieces.log_z, atol=1e-12)


def test_positions_in_single_precision_have_weights_in_double():
    target = CallableTarget(lambda x: -0.7 * x.square().sum(1) + 500, 3)
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(target, PROCESS))
    one, other = (
        smc.sample(kernel, like(50, 40, 3).to(dtype), TIMES, generator=seeded())[0]
        for dtype in (torch.float32, torch.float64)
    )
    assert one.x.dtype == torch.float32 and one.log_weights.dtype == one.log_z.dtype == torch.float64
    expected = 500 + 1.5 * math.log(math.pi / 0.7)
    assert_mean_close((one.log_z - expected).exp(), 1.0)
    assert_mean_close((other.log_z - expected).exp(), 1.0)


def test_a_density_that_is_zero_everywhere_is_reported():
    target = CallableTarget(lambda x: x[:, 0] * 0 - torch.inf, 2)
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(target, PROCESS))
    with pytest.raises(FloatingPointError, match="no particle has"):
        smc.sample(kernel, like(1, 10), TIMES, generator=seeded())


@pytest.mark.parametrize("ess_threshold", [-0.1, 1.1, math.nan])
def test_an_impossible_threshold_is_refused(ess_threshold):
    kernel = smc.GuidedDenoising(PROCESS, MixturePotential(*GAUSSIAN[:3], PROCESS))
    with pytest.raises(ValueError, match=r"ess_threshold must lie in \[0, 1\], got"):
        smc.sample(kernel, like(1, 10), TIMES, ess_threshold=ess_threshold)


def test_a_process_that_is_not_stationary_under_the_reference_is_refused():
    # with sigma ≠ 1 the weights are those of another path law, and Ẑ is biased in silence
    process = OrnsteinUhlenbeck(sigma=1.5)
    with pytest.raises(ValueError, match="sigma"):
        smc.GuidedDenoising(process, MixturePotential(*GAUSSIAN[:3], process))


def followed(kernel, x, grad, t, s):
    """The score, ∇ log ĝ − x, that the proposal from (x, t) to s follows; with c = λ."""
    law = kernel.propose(x, smc.Field.of(torch.zeros(len(x), dtype=x.dtype), grad), t, s)
    a, b = PROCESS.transition(s, t)
    return (law.mean - a * x) / b**2 - x


def test_proposals_follow_a_score_in_its_direction_as_far_as_they_reach():
    t, s = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    x = torch.randn(50, 3, dtype=torch.float64, generator=seeded())
    score = torch.randn(50, 3, dtype=torch.float64, generator=seeded(1)) * torch.logspace(-2, 6, 50)[:, None]
    longest = (3**0.5 + 2.5) / float(PROCESS.noise_level(t)) ** 0.5
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(MixtureDensity(MIXTURE), PROCESS), "lambda", reach=2.5)
    expected = score * (longest / score.norm(dim=1, keepdim=True)).clamp(max=1)
    assert (expected.norm(dim=1) < 0.99 * longest).any()
    assert torch.allclose(followed(kernel, x, score + x, t, s), expected, rtol=1e-9, atol=1e-9)


def test_a_score_too_steep_to_be_squared_keeps_its_direction():
    t, s = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    x, grad = torch.tensor([[0.5, -1.0]]), torch.tensor([[3e25, -4e25]])
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(MixtureDensity(MIXTURE), PROCESS), "lambda", reach=5.0)
    law = kernel.propose(x, smc.Field.of(torch.zeros(1), grad), t, s)
    a, b = (part.float() for part in PROCESS.transition(s, t))
    followed = (law.mean - a * x) / b**2 - x
    longest = (2**0.5 + 5) / PROCESS.noise_level(t).float().sqrt()
    assert torch.allclose(followed, longest * torch.tensor([[0.6, -0.8]]), rtol=1e-4)


def test_the_estimate_is_unbiased_where_the_score_is_shortened():
    mean, std = torch.tensor([0.4, -0.2], dtype=torch.float64), 0.25
    target = CallableTarget(lambda x: 0.7 - 0.5 * ((x - mean) / std).square().sum(-1), dim=2)
    kernel = smc.GuidedDenoising(PROCESS, NaivePotential(target, PROCESS), reach=1.4)
    x = torch.randn(200, 2, dtype=torch.float64, generator=seeded())
    field = kernel.field(x, TIMES[1])
    shortened = (field.grad_log_g - x).norm(dim=1) > (2**0.5 + 1.4) / PROCESS.noise_level(TIMES[1]).sqrt()
    assert shortened.double().mean() > 0.1
    particles, _ = smc.sample(kernel, like(4000, 30), TIMES, generator=seeded())
    log_z = 0.7 + math.log(2 * math.pi * std**2)
    assert_mean_close((particles.log_z - log_z).exp(), 1.0)
