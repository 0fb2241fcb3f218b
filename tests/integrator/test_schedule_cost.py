"""What a step costs, against closed forms, and the grids that come of it."""

import math
import warnings

import pytest
import torch
from problems import COVARIANCES, MEANS, MIXTURE, WEIGHTS, MixtureDensity

from sbflow.integrator import guided_denoising
from sbflow.integrator.schedule_cost import corrector_cost, path_cost
from sbflow.potential import MixturePotential
from sbflow.process import Brownian, Cosine, Linear, OrnsteinUhlenbeck, equalise, uniform_times
from sbflow.process.schedule import path_length

PROCESS = OrnsteinUhlenbeck()
# the law N(0, VARIANCE) on the line, noised
VARIANCE = 0.2


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noised_variance(process, t):
    keep, noise = process.transition(torch.zeros_like(t), t)
    return keep**2 * VARIANCE + noise**2


def gaussian_score(process):
    return lambda x, t: -x / noised_variance(process, t)


def gaussian_guide(process):
    """∇ log g for the reference N(0, 1)."""
    return lambda x, t: x - x / noised_variance(process, t)


def gaussian_samples(n: int, dim: int = 1) -> torch.Tensor:
    return VARIANCE**0.5 * torch.randn(n, dim, dtype=torch.float64, generator=seeded(9))


def mixture_guide(process):
    potential = MixturePotential(MEANS, COVARIANCES, WEIGHTS, process)
    return lambda x, t: potential.log_g_and_grad(x, t)[1]


def mixture_samples(n: int, seed: int) -> torch.Tensor:
    return MixtureDensity(MIXTURE).sample(n, generator=seeded(seed))


@pytest.mark.parametrize("velocity_at", ["noisy", "clean"])
@pytest.mark.parametrize("process", [PROCESS, Brownian(1.5)], ids=["ornstein_uhlenbeck", "brownian"])
def test_the_corrector_cost_of_a_gaussian_is_its_closed_form(process, velocity_at):
    times, velocity = uniform_times(256), lambda t: 0.3 + t
    found = corrector_cost(
        gaussian_score(process),
        process,
        gaussian_samples(10_000, 2),
        times,
        velocity=velocity,
        velocity_at=velocity_at,
        generator=seeded(),
    )
    s, t = times[:-1], times[1:]
    variance = noised_variance(process, t)
    v = velocity(t if velocity_at == "noisy" else s)
    expected = v**2 * 2 * variance * (1 / noised_variance(process, s) - 1 / variance) ** 2
    assert path_length(found) == pytest.approx(path_length(expected), rel=0.01)
    assert (equalise(times, found, 16) - equalise(times, expected, 16)).abs().max() < 0.002


def test_the_noise_is_the_velocity_by_default():
    times, x0 = uniform_times(128), gaussian_samples(100)
    by_name, by_hand = (
        corrector_cost(gaussian_score(PROCESS), PROCESS, x0, times, generator=seeded(), **options)
        for options in ({}, {"velocity": lambda t: PROCESS.noise_level(t).sqrt()})
    )
    one = corrector_cost(gaussian_score(PROCESS), PROCESS, x0, times, velocity="one", generator=seeded())
    assert torch.allclose(by_name, by_hand)
    assert torch.allclose(by_name, PROCESS.noise_level(times[1:]) * one)


@pytest.mark.parametrize("process", [PROCESS, OrnsteinUhlenbeck(Linear())], ids=["cosine", "linear"])
def test_the_path_cost_of_a_gaussian_is_its_closed_form(process):
    times = uniform_times(256)
    found = path_cost(gaussian_guide(process), process, gaussian_samples(10_000, 2), times, generator=seeded())
    s, t = times[:-1], times[1:]
    a, b = process.transition(s, t)
    # ∇ log g_t(x) = slope x, and X_t = a X_s + b ε
    slope_s, slope_t = (1 - 1 / noised_variance(process, time) for time in (s, t))
    expected = b**2 * 2 * ((a * slope_s - a * slope_t) ** 2 * noised_variance(process, s) + (b * slope_t) ** 2)
    assert path_length(found) == pytest.approx(path_length(expected), rel=0.01)
    assert (equalise(times, found, 16) - equalise(times, expected, 16)).abs().max() < 0.002


def test_a_grid_does_not_depend_on_the_clock_that_it_was_found_in():
    cosine = OrnsteinUhlenbeck(Cosine(floor=1e-6))
    linear = OrnsteinUhlenbeck(Linear(0.1, -math.log(1e-6) - 0.1))
    grids = []
    for process in (cosine, linear):
        costs = path_cost(
            mixture_guide(process), process, mixture_samples(1500, 1), uniform_times(256), generator=seeded()
        )
        grids.append(process.schedule.alpha_bar(equalise(uniform_times(256), costs, 16)))
    # both in the clock of the cosine, by its inverse on a fine grid
    fine = uniform_times(20_000)
    clocks = [fine[torch.searchsorted(-cosine.schedule.alpha_bar(fine), -keep).clamp_max(20_000)] for keep in grids]
    assert (clocks[0] - clocks[1]).abs().max() < 0.004


def test_the_steps_of_an_equalised_grid_cost_the_same_when_measured_anew():
    base, grids = uniform_times(256), []
    for seed in (0, 1):
        costs = path_cost(
            mixture_guide(PROCESS), PROCESS, mixture_samples(3000, 2 + seed), base, generator=seeded(seed)
        )
        grids.append(equalise(base, costs, 16))
    assert (grids[0] - grids[1]).abs().max() < 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = path_cost(
            mixture_guide(PROCESS), PROCESS, mixture_samples(3000, 4), grids[0], generator=seeded(5)
        ).sqrt()
    # a long step to pure noise forgets its start and is free
    assert again[:-1].max() / again[:-1].mean() < 1.12


def test_a_corrector_grid_that_is_measured_on_itself_settles():
    times = uniform_times(16)
    for _ in range(6):
        costs = _on_its_own_grid(times)
        times = equalise(times, costs, 16)
    lengths = _on_its_own_grid(times).sqrt()
    assert lengths.max() / lengths.mean() < 1.06
    assert times[1] < 0.15


def _on_its_own_grid(times):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return corrector_cost(gaussian_score(PROCESS), PROCESS, gaussian_samples(4000), times, generator=seeded())


@pytest.mark.parametrize("measure", [path_cost, corrector_cost])
def test_a_grid_that_is_too_coarse_for_its_costs_is_reported(measure):
    with pytest.warns(UserWarning, match=r"in 8 steps and .* in 4: measure it in more steps"):
        measure(gaussian_guide(PROCESS), PROCESS, gaussian_samples(500), uniform_times(8), generator=seeded())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(gaussian_guide(PROCESS), PROCESS, gaussian_samples(500), uniform_times(256), generator=seeded())


def test_an_error_that_differs_from_time_to_time_is_reported():
    noise = seeded(3)

    def rough(x, t):
        return gaussian_guide(PROCESS)(x, t) + 0.3 * torch.randn(x.shape, dtype=x.dtype, generator=noise)

    with pytest.warns(UserWarning, match="check that the field is smooth in time"):
        path_cost(rough, PROCESS, gaussian_samples(500), uniform_times(256), generator=seeded())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_costs_of_any_sample_come_in_double_precision(dtype):
    x0 = gaussian_samples(500, 6).to(dtype).reshape(500, 2, 3)
    seen = []

    def field(x, t):
        seen.append((x.dtype, x.shape, t.ndim))
        return gaussian_guide(PROCESS)(x, t).to(x.dtype)

    costs = path_cost(field, PROCESS, x0, uniform_times(128), generator=seeded())
    assert costs.dtype == torch.float64 and costs.shape == (128,)
    assert set(seen) == {(dtype, x0.shape, 0)} and len(seen) == 129


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"velocity_at": "clean"}, "velocity must be positive, got 0 at time 0, where the step would be free"),
        ({"velocity": lambda t: t - 0.5}, "velocity must be positive, got -0.25 at time 0.25"),
        ({"velocity": "none"}, "velocity must be 'sigma', 'one' or a function of time, got 'none'"),
        ({"velocity_at": "left"}, "velocity_at must be 'noisy' or 'clean', got 'left'"),
        ({"times": torch.tensor([0.1, 0.5, 1.0])}, "times must increase from 0, got .0.1, 0.5, 1.0"),
        ({"times": torch.tensor([0.0, 0.5, 0.5])}, "times must increase from 0"),
        ({"times": torch.tensor([0.0])}, "times must increase from 0"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_impossible_costs_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        corrector_cost(gaussian_score(PROCESS), PROCESS, gaussian_samples(5), **{"times": uniform_times(4)} | options)


class Line:
    """A mixture of narrow Gaussians on the line, and what a denoiser makes of it, on a grid of positions."""

    def __init__(self, means: list[float], weights: list[float], std: float, spacing: float) -> None:
        self.means, self.weights = torch.tensor(means).double(), torch.tensor(weights).double()
        self.std = std
        self.x = torch.arange(-4, 4, spacing, dtype=torch.float64)
        self.spacing = spacing
        variances = torch.full((len(means), 1, 1), std**2, dtype=torch.float64)
        potential = MixturePotential(self.means[:, None], variances, self.weights, PROCESS)
        self.guide = lambda x, t: potential.log_g_and_grad(x, t)[1]

    def density(self) -> torch.Tensor:
        return (self.weights * torch.distributions.Normal(self.means, self.std).log_prob(self.x[:, None]).exp()).sum(1)

    def sample(self, n: int) -> torch.Tensor:
        chosen = torch.multinomial(self.weights, n, replacement=True, generator=seeded(1))
        return self.means[chosen, None] + self.std * torch.randn(n, 1, dtype=torch.float64, generator=seeded(2))

    def path_grid(self, num_steps: int, uniform_share: float = 0.0) -> torch.Tensor:
        base = uniform_times(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            costs = path_cost(self.guide, PROCESS, self.sample(2000), base, generator=seeded())
        return equalise(base, costs, num_steps, uniform_share=uniform_share)

    def denoised(self, times: torch.Tensor) -> torch.Tensor:
        """Density after all steps, by quadrature."""
        kernel = guided_denoising(PROCESS, self.guide, "tweedie")
        density = torch.distributions.Normal(0.0, 1.0).log_prob(self.x).exp()
        for t, s in zip(times.flip(0)[:-1], times.flip(0)[1:], strict=True):
            law = kernel(self.x[:, None], t, s)
            z = (self.x - law.mean) / law.std
            density = (density @ torch.exp(-0.5 * z**2)) * self.spacing / (law.std * math.sqrt(2 * math.pi))
        return density

    def divergence(self, times: torch.Tensor) -> float:
        """KL(target ‖ denoised)."""
        target, found = self.density(), self.denoised(times)
        return float(torch.where(target > 1e-30, target * (target / found).log(), 0.0).sum() * self.spacing)

    def distance(self, times: torch.Tensor) -> float:
        """W2 of target and denoised, from their quantiles."""
        levels = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
        cumulative = [density.cumsum(0) / density.sum() for density in (self.density(), self.denoised(times))]
        one, other = (self.x[torch.searchsorted(each, levels).clamp_max(len(self.x) - 1)] for each in cumulative)
        return float(((one - other) ** 2).mean().sqrt())


@pytest.mark.slow
def test_a_path_grid_brings_a_denoiser_nearer_to_two_modes_and_half_of_it_keeps_their_masses():
    line = Line([-1.0, 0.8], [0.3, 0.7], 0.1, 0.004)
    path, even = line.path_grid(16), uniform_times(16)
    assert line.divergence(path) <= 0.025 and line.divergence(even) >= 0.09
    assert line.distance(line.path_grid(16, 0.5)) <= 1.3 * line.distance(even)


@pytest.mark.slow
def test_a_path_grid_resolves_what_an_even_one_blurs():
    means = [2 / 3 * (i + j / 3 + k / 9) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]
    line = Line(means, [0.125] * 8, 0.02, 0.002)
    assert line.divergence(line.path_grid(32)) <= 0.025
    assert line.divergence(uniform_times(32)) >= 0.4
