"""Labels of the noised score: identities, closed variances and the mix of least variance."""

import math

import numpy as np
import pytest
import torch
from assertions import assert_mean_close

from sbflow.algorithm.pool import Pool
from sbflow.loss import Denoising, Fisher, Mixing, Novel, Target, named_mixing, score_label
from sbflow.target import GaussianMixture

MIXINGS = {"denoising": Denoising(), "target": Target(), "novel": Novel(), "fisher": Fisher(3.0)}
every_mixing = pytest.mark.parametrize("mixing", MIXINGS.values(), ids=MIXINGS)


def narrow_modes() -> GaussianMixture:
    """Three modes in the plane, narrow against their distances: far from the case I = d in which `Novel` is best."""
    variances = (0.09, 0.25, 0.04)
    means = torch.tensor([[2.0, 0.0], [-2.0, 0.5], [0.0, -2.0]], dtype=torch.float64)
    return GaussianMixture(means, [[[v, 0.0], [0.0, v]] for v in variances], [0.5, 0.3, 0.2])


def labels(mixing: Mixing, x0: torch.Tensor, score0: torch.Tensor, level: float) -> torch.Tensor:
    return score_label(torch.randn_like(x0), score0, math.sqrt(1 - level), level, mixing)


def variance_of_label(mixing: Mixing, score0: torch.Tensor, level: float) -> float:
    """Second moment of the label; that of the score itself is the same for all mixings."""
    return float(labels(mixing, score0, score0, level).square().sum(1).mean())


@every_mixing
@pytest.mark.parametrize("x", [-1.3, 0.2, 0.9])
def test_every_label_has_the_score_as_its_conditional_mean_by_quadrature(mixing, x):
    level = 0.3
    alpha = math.sqrt(1 - level)
    means, variances, weights = np.array([-1.0, 0.8]), np.array([0.25, 0.1]), np.array([0.4, 0.6])
    # trapezium on a wide grid is exact to rounding for such functions
    x0 = np.linspace(-8, 8, 20_001)
    parts = weights / np.sqrt(2 * math.pi * variances) * np.exp(-0.5 * (x0[:, None] - means) ** 2 / variances)
    score0 = (-(x0[:, None] - means) / variances * parts).sum(1) / parts.sum(1)
    noise = (x - alpha * x0) / math.sqrt(level)
    posterior = parts.sum(1) * np.exp(-0.5 * noise**2)
    column = [torch.from_numpy(value)[:, None] for value in (noise, score0)]
    label = score_label(*column, alpha, level, mixing)[:, 0].numpy()
    spread = alpha**2 * variances + level
    noised = weights / np.sqrt(spread) * np.exp(-0.5 * (x - alpha * means) ** 2 / spread)
    exact = (-(x - alpha * means) / spread * noised).sum() / noised.sum()
    assert (label * posterior).sum() / posterior.sum() == pytest.approx(exact, abs=1e-10)


def test_the_novel_label_is_the_shrunk_gradient_of_the_potential():
    x0, noise = torch.randn(2, 50, 3, dtype=torch.float64)
    score0, level = torch.sin(x0), 0.37
    alpha = math.sqrt(1 - level)
    x_t = alpha * x0 + math.sqrt(level) * noise
    label = score_label(noise, score0, alpha, level, Novel()) + x_t
    torch.testing.assert_close(label, alpha * (score0 + x0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("level", [1e-3, 0.2, 0.9])
def test_with_the_information_of_a_gaussian_the_label_is_the_score_sample_by_sample(level):
    v, dim = 0.4, 3
    x0 = 0.7 + math.sqrt(v) * torch.randn(100, dim, dtype=torch.float64)
    noise = torch.randn_like(x0)
    alpha = math.sqrt(1 - level)
    x_t = alpha * x0 + math.sqrt(level) * noise
    label = score_label(noise, -(x0 - 0.7) / v, alpha, level, Fisher(dim / v))
    torch.testing.assert_close(label, -(x_t - alpha * 0.7) / (alpha**2 * v + level), rtol=0, atol=1e-10)


def test_so_it_is_with_one_information_for_each_coordinate():
    v = torch.tensor([0.05, 0.4, 1.0, 3.0, 20.0], dtype=torch.float64)
    level = torch.rand(200, dtype=torch.float64) * 0.98 + 0.01
    alpha = (1 - level).sqrt()
    x0, noise = v.sqrt() * torch.randn(200, 5, dtype=torch.float64), torch.randn(200, 5, dtype=torch.float64)
    x_t = alpha[:, None] * x0 + level[:, None].sqrt() * noise
    label = score_label(noise, -x0 / v, alpha, level, Fisher(1 / v))
    exact = -x_t / (alpha[:, None] ** 2 * v + level[:, None])
    torch.testing.assert_close(label, exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("level", [0.01, 0.1, 0.5, 0.9])
def test_the_share_of_the_noise_is_the_one_that_regression_finds(level):
    target, n = narrow_modes(), 200_000
    score0 = target.score(target.sample(n))
    on_target, on_noise = score0 / math.sqrt(1 - level), -torch.randn_like(score0) / math.sqrt(level)
    difference = on_target - on_noise
    regressed = (on_target * difference).mean() / difference.square().mean()
    mixing = Fisher(per_coordinate=False)
    mixing.update(score0)
    alpha, sqrt_level = (torch.full((1, 1), value, dtype=torch.float64) ** 0.5 for value in (1 - level, level))
    share = mixing.coefficients(alpha, sqrt_level, score0[:1]).noise * sqrt_level
    assert float(share) == pytest.approx(float(regressed), abs=0.01)


@pytest.mark.parametrize("level", [1e-3, 0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])
def test_the_optimal_label_has_the_least_variance_and_far_less_than_the_novel_one_between(level):
    target = narrow_modes()
    x0 = target.sample(40_000)
    score0 = target.score(x0)
    mixing = Fisher()
    mixing.update(score0)
    optimal = variance_of_label(mixing, score0, level)
    assert optimal <= 1.02 * min(variance_of_label(other, score0, level) for other in (Denoising(), Target(), Novel()))
    if level == 0.3:
        # the second moment of the score itself, which no label goes below
        floor = float(noised_score(target, x0, level).square().sum(1).mean())
        novel = variance_of_label(Novel(), score0, level)
        assert 0 <= optimal - floor < 0.1 * (novel - floor)


def noised_score(target: GaussianMixture, x0: torch.Tensor, level: float) -> torch.Tensor:
    eye = level * torch.eye(2, dtype=torch.float64)
    noised = GaussianMixture(
        math.sqrt(1 - level) * target.means, (1 - level) * target.covariances + eye, target.weights
    )
    return noised.score(math.sqrt(1 - level) * x0 + math.sqrt(level) * torch.randn_like(x0))


def test_the_information_of_a_config_is_a_list_of_numbers():
    parts = torch.full((1, 1), 0.5, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    as_list, as_tensor = Fisher([1.0, 4.0]), Fisher(torch.tensor([1.0, 4.0]))
    for one, other in zip(*(m.coefficients(parts[0], *parts) for m in (as_list, as_tensor)), strict=True):
        torch.testing.assert_close(one, other)


def test_an_estimated_information_leaves_out_the_sample_that_it_weighs():
    pool = torch.tensor([[1.0], [2.0], [3.0], [10.0]], dtype=torch.float64)
    mixing = Fisher()
    mixing.update(pool)
    half = torch.full((2, 1), 0.5, dtype=torch.float64).sqrt()
    found = mixing.coefficients(half, half, pool[[0, 3]]).noise
    information = torch.tensor([[113 / 3], [14 / 3]], dtype=torch.float64)
    torch.testing.assert_close(found, half * information / (0.5 + 0.5 * information))


def test_an_estimated_information_leaves_the_label_unbiased_in_the_smallest_batches():
    # pairs of samples, each weighed by the other: the worst case for a weight that saw its own sample
    v, level = 0.3, 0.4
    alpha = math.sqrt(1 - level)
    x0, noise = torch.randn(2, 1000, 2, 1, dtype=torch.float64)
    x0 = math.sqrt(v) * x0
    label = torch.stack([score_label(e, -x / v, alpha, level, Fisher()) for e, x in zip(noise, x0, strict=True)])
    x_t = alpha * x0 + math.sqrt(level) * noise
    assert_mean_close((label + x_t / (alpha**2 * v + level)) * x_t, 0.0)


def test_heavy_tails_of_the_score_are_warned_of_and_light_ones_are_not(recwarn):
    light = torch.randn(1000, 2)
    Fisher().update(light)
    assert not recwarn
    heavy = light.clone()
    heavy[:5] *= 100
    with pytest.warns(UserWarning, match="heavy tails"):
        Fisher().update(heavy)


def test_one_information_for_all_coordinates_is_their_mean():
    score0 = torch.randn(50, 3, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.1], dtype=torch.float64)
    each, one = Fisher(), Fisher(per_coordinate=False)
    half = torch.full((50, 1), 0.5, dtype=torch.float64).sqrt()
    shares = [mixing.coefficients(half, half, score0).noise * half for mixing in (each, one)]
    informations = [share / (1 - share) for share in shares]
    assert informations[1].shape == (50, 1)
    torch.testing.assert_close(informations[0].mean(1, keepdim=True), informations[1])


@pytest.mark.parametrize("information", [0.0, -1.0, math.inf])
def test_an_information_that_cannot_be_is_refused(information):
    with pytest.raises(ValueError, match="information must be positive and finite"):
        Fisher(information)


def test_a_name_stands_for_its_mixing():
    names = {"novel": Novel, "denoising": Denoising, "target": Target, "fisher": Fisher}
    assert all(type(named_mixing(name)) is cls for name, cls in names.items())


@every_mixing
def test_nothing_of_a_mixing_goes_into_checkpoints(mixing):
    mixing.update(torch.randn(5, 2))
    assert not mixing.state_dict()


def test_a_pool_is_shown_to_a_mixing_and_to_no_plain_function():
    pool, mixing = Pool(torch.randn(5, 2), torch.randn(5, 2)), Fisher()
    assert pool.seen_by(mixing) is pool
    torch.testing.assert_close(mixing.total, (pool.grad_log_g - pool.x).square().sum(0))
    assert pool.seen_by(lambda *_, **__: torch.zeros(())) is pool
