"""Speculation has the law of the chain: moments of a recursion, Kolmogorov–Smirnov, and mutants that they tell."""

import pytest
import torch
from assertions import assert_mean_close
from chains import bridge_kernel, bridge_pairs
from problems import euler_moments
from scipy import stats

from sbflow.gaussian import reflection_maximal
from sbflow.integrator import guided_denoising, langevin, simulate, simulate_speculative, speculative
from sbflow.potential import MixturePotential
from sbflow.process import Cosine, OrnsteinUhlenbeck, uniform_times

NUM_STEPS = 20


def ends(variance1: float, epsilon: float, n: int, *, dim: int = 1, **options):
    x = torch.randn(n, dim, dtype=torch.float64)
    kernel = bridge_kernel(variance1, epsilon)
    return x, simulate_speculative(kernel, x, uniform_times(NUM_STEPS), **options)[0]


def assert_law_of_the_chain(x, end, variance1, epsilon, last_noise=True):
    variance, cross = euler_moments(1.0, bridge_pairs(variance1, epsilon), epsilon, NUM_STEPS, last_noise)
    assert_mean_close(end, 0.0)
    assert_mean_close(end**2, variance)
    assert_mean_close(x * end, cross)
    noise = (end - cross * x)[:, 0] / (variance - cross**2) ** 0.5
    assert stats.kstest(end[:, 0].numpy() / variance**0.5, "norm").pvalue > 1e-4
    assert stats.kstest(noise.numpy(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("policy", ["stale", "root"])
@pytest.mark.parametrize(("last_noise", "draft"), [(True, None), (False, None), (True, "secant")])
def test_the_ends_have_the_law_of_the_discretised_bridge(policy, last_noise, draft):
    x, end = ends(4.0, 1.0, 20_000, policy=policy, window=6, last_noise=last_noise, draft=draft)
    assert_law_of_the_chain(x, end, 4.0, 1.0, last_noise)


@pytest.mark.parametrize("policy", ["stale", "root"])
def test_a_window_may_be_longer_than_the_chain(policy):
    x, end = ends(4.0, 0.25, 10_000, policy=policy, window=64)
    assert_law_of_the_chain(x, end, 4.0, 0.25)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["stale", "root"])
@pytest.mark.parametrize(("window", "draft"), [(1, None), (3, None), (8, None), (8, "secant")])
@pytest.mark.parametrize(("variance1", "epsilon"), [(1.0, 1.0), (1.0, 0.25), (4.0, 1.0), (4.0, 0.25)])
def test_the_ends_have_the_law_of_the_discretised_bridge_for_any_window(policy, window, draft, variance1, epsilon):
    x, end = ends(variance1, epsilon, 100_000, policy=policy, window=window, draft=draft)
    assert_law_of_the_chain(x, end, variance1, epsilon)


@pytest.mark.parametrize("error", [-1.0, 0.5])
def test_a_wrong_model_draft_leaves_the_law_as_it_is(error):
    kernel = bridge_kernel(4.0, 1.0)
    x, end = ends(4.0, 1.0, 20_000, draft=lambda x, t: (1 + error) * kernel.field(x, t) + error)
    assert_law_of_the_chain(x, end, 4.0, 1.0)


def redrawn(draft, target, y, *, generator=None):
    x, kept = reflection_maximal(draft, target, y)
    return torch.where(kept[:, None], x, target.sample()), kept


def kept_in_spite(draft, target, y, *, generator=None):
    return y, reflection_maximal(draft, target, y)[1]


def averaged(draft, target, y, *, generator=None):
    # the mean over the coordinates in place of the sum
    shift = (draft.mean - target.mean) / target.std[:, None]
    z = (y - draft.mean) / target.std[:, None]
    kept = torch.rand(len(y)).log() <= -(z * shift + shift**2 / 2).mean(1)
    reflected = target.mean + target.std[:, None] * (
        z - 2 * (z * shift).sum(1, keepdim=True) * shift / (shift**2).sum(1, keepdim=True).clamp_min(1e-300)
    )
    return torch.where(kept[:, None], y, reflected), kept


def never_stopped(draft, target, y, *, generator=None):
    x, kept = reflection_maximal(draft, target, y)
    return x, torch.ones_like(kept)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [redrawn, kept_in_spite, averaged, never_stopped])
def test_the_variance_tells_every_mutant_of_the_coupling(mutant, monkeypatch):
    monkeypatch.setattr(speculative, "reflection_maximal", mutant)
    _, end = ends(4.0, 1.0, 50_000, dim=4, window=8)
    variance, _ = euler_moments(1.0, bridge_pairs(4.0, 1.0), 1.0, NUM_STEPS, True)
    square = (end**2).flatten()
    assert abs(square.mean() - variance) > 6 * square.std() / len(square) ** 0.5


# four modes of unequal weight and width, one of them slanted
MEANS = 2.0 * torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.5, -0.5]], dtype=torch.float64)
SHAPES = torch.tensor([[0.3, 0.0], [0.0, 0.2]], dtype=torch.float64).expand(4, 2, 2).clone()
SHAPES[1] = torch.tensor([[0.4, 0.25], [0.25, 0.3]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def denoised(n: int, num_steps: int, coefficient, **options):
    """Ends of the diffusion sampler with an exact score, plain and speculative."""
    process = OrnsteinUhlenbeck(Cosine())
    potential = MixturePotential(MEANS, SHAPES, WEIGHTS, process)
    kernel = guided_denoising(process, lambda x, t: potential.log_g_and_grad(x, t)[1], coefficient)
    x, times = torch.randn(2, n, 2, dtype=torch.float64), uniform_times(num_steps).flip(0)
    plain = simulate(kernel, x[0], times)
    return plain, *simulate_speculative(kernel, x[1], times, **options)


def assert_same_law(a, b):
    """Weights of the modes, and three projections by Kolmogorov–Smirnov."""
    shares = [torch.nn.functional.one_hot(torch.cdist(x, MEANS).argmin(1), 4).double() for x in (a, b)]
    difference = shares[0].mean(0) - shares[1].mean(0)
    stderr = sum(x.var(0) / len(x) for x in shares) ** 0.5
    assert (difference.abs() < 5 * stderr).all()
    for axis in torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, -0.8]], dtype=torch.float64):
        assert stats.ks_2samp((a @ axis).numpy(), (b @ axis).numpy()).pvalue > 1e-4


@pytest.mark.parametrize(("coefficient", "draft"), [("lambda", None), ("tweedie", "secant")])
def test_diffusion_sampling_with_an_exact_score_keeps_its_law(coefficient, draft):
    plain, fast, info = denoised(4000, 50, coefficient, draft=draft)
    assert_same_law(plain, fast)
    assert info.sequential_calls.double().mean() < 0.35 * 50


@pytest.mark.slow
def test_a_hundred_thousand_samples_of_a_mixture_do_not_tell_speculation():
    plain, fast, _ = denoised(100_000, 50, "exponential")
    assert_same_law(plain, fast)


def test_langevin_dynamics_keep_their_stationary_law_and_need_few_calls():
    # ULA of N(0, v) is the recursion x (1 − h / v) + √(2h) noise, of stationary variance v / (1 − h / 2v)
    v, h, n = 0.5, 0.01, 20_000
    x = torch.randn(n, 1, dtype=torch.float64) * (v / (1 - h / (2 * v))) ** 0.5
    kernel = langevin(lambda x, t: -x / v, h)
    end, info = simulate_speculative(kernel, x, torch.arange(41, dtype=torch.float64), window=16)
    assert_mean_close(end**2, v / (1 - h / (2 * v)))
    assert_mean_close(x * end, v / (1 - h / (2 * v)) * (1 - h / v) ** 40)
    assert info.sequential_calls.double().mean() < 8
