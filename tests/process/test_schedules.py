import math

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from sbflow.cli import config_dir
from sbflow.process import Constant, Cosine, Dds, Linear, OrnsteinUhlenbeck, equalise, uniform_times
from sbflow.process.schedule import path_length

SCHEDULES = [
    Cosine(),
    Cosine(offset=0.0),
    Cosine(offset=0.5, floor=1e-4),
    Cosine(offset=0.5, floor=0.1),
    Linear(),
    Linear(0.0, 3.0),
    Constant(),
    Constant(0.3),
    Dds(),
    Dds(alpha_max=0.9, num_steps=5, offset=0.0),
]
name = lambda schedule: f"{type(schedule).__name__}-{'-'.join(f'{value:g}' for value in vars(schedule).values())}"  # noqa: E731
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=name)


@every_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_there_is_exactly_no_noise_at_time_zero(schedule, dtype):
    for zero in (torch.zeros((), dtype=dtype), torch.zeros(3, dtype=dtype)):
        assert (schedule.alpha_bar(zero) == 1).all()
        assert (OrnsteinUhlenbeck(schedule).noise_level(zero) == 0).all()


@every_schedule
def test_the_signal_decreases_and_stays_positive(schedule):
    alpha_bar = schedule.alpha_bar(torch.linspace(0, 1, 2001, dtype=torch.float64))
    assert (alpha_bar.diff() < 0).all() and alpha_bar[-1] > 0


@every_schedule
def test_the_rate_is_minus_half_the_logarithmic_derivative_of_the_signal(schedule):
    # between the knots of a rule that goes by steps
    t = torch.linspace(0, 1, 102, dtype=torch.float64)[1:-1].requires_grad_()
    (slope,) = torch.autograd.grad(schedule.alpha_bar(t).log().sum(), t)
    # near t = 1 the cosine's derivative is a small difference over a small floor
    assert torch.allclose(schedule.beta(t), -0.5 * slope, rtol=1e-8, atol=1e-8)


@every_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rate_is_nowhere_negative(schedule, dtype):
    t = torch.linspace(0, 1, 1001, dtype=dtype)
    assert (schedule.beta(t) >= 0).all()
    assert OrnsteinUhlenbeck(schedule).diffusion(t).isfinite().all()


def test_the_cosine_ends_at_its_floor():
    end = Cosine(floor=1e-6).alpha_bar(torch.ones((), dtype=torch.float64))
    assert end.item() == pytest.approx(1e-6, rel=1e-9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Cosine(floor=0.0), "floor lie in"),
        (lambda: Cosine(offset=-1.0), "offset must be at least 0"),
        (lambda: Linear(2.0, 1.0), "beta_min <= beta_max"),
        (lambda: Constant(0.0), "beta"),
        (lambda: Dds(alpha_max=1.0), "alpha_max in .0, 1., num_steps of at least 1 .* got 1.0, 64"),
        (lambda: Dds(num_steps=0), "num_steps of at least 1"),
        (lambda: uniform_times(0), "num_steps must be at least 1, got 0"),
        (lambda: OrnsteinUhlenbeck(sigma=0.0), "sigma must be positive and finite, got 0"),
    ],
)
def test_impossible_schedules_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_grid_of_times_is_equidistant_in_double_precision():
    times = uniform_times(7)
    assert times.dtype == torch.float64
    assert torch.allclose(times, torch.arange(8, dtype=torch.float64) / 7, rtol=0, atol=1e-15)


@pytest.mark.parametrize("num_steps", [1, 4, 16])
def test_equal_steps_of_the_dds_rule_have_its_noise(num_steps):
    alpha_max, offset = 0.7, 0.1
    keep = Dds(alpha_max, num_steps, offset).alpha_bar(uniform_times(num_steps))
    expected = [
        (alpha_max * math.cos(0.5 * math.pi * (1 - k / num_steps + offset) / (1 + offset)) ** 2) ** 2
        for k in range(1, num_steps + 1)
    ]
    assert (1 - keep[1:] / keep[:-1]).tolist() == pytest.approx(expected, rel=1e-9)


def test_equalised_steps_cost_the_same():
    # a length of t² along the path: a step from s to t costs (t² − s²)²
    times = uniform_times(400)
    grid = equalise(times, (times**2).diff() ** 2, 8)
    assert torch.allclose(grid, uniform_times(8).sqrt(), atol=2e-3)
    assert grid[0] == 0 and grid[-1] == 1


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_uniform_share_of_the_steps_is_spread_evenly(share):
    times = uniform_times(2)
    grid = equalise(times, torch.tensor([0.0, 1.0]), 1000, uniform_share=share)
    assert (grid < 0.5).double().mean().item() == pytest.approx(0.5 * share, abs=0.002)
    assert (grid.diff() > 0).all()


def test_costs_of_nothing_leave_an_even_grid():
    assert torch.allclose(equalise(uniform_times(3), torch.zeros(3), 5), uniform_times(5))


@pytest.mark.parametrize("interpolation", ["linear", "pchip"])
def test_the_cheapest_grid_costs_the_squared_length_over_the_steps(interpolation):
    # a length of t² along the path
    def costs(times):
        return (times**2).diff() ** 2

    grid = equalise(uniform_times(400), costs(uniform_times(400)), 8, interpolation=interpolation)
    assert path_length(costs(grid)) == pytest.approx(1, rel=1e-12)
    assert costs(grid).sum().item() == pytest.approx(1 / 8, rel=1e-3)
    assert costs(uniform_times(8)).sum() > 1.3 / 8


def test_a_smooth_interpolation_is_the_better_one_on_a_coarse_grid():
    times, wanted = uniform_times(6), uniform_times(20).sqrt()
    linear, smooth = (equalise(times, (times**2).diff() ** 2, 20, interpolation=how) for how in ("linear", "pchip"))
    assert (smooth - wanted).abs()[6:].max() < 0.2 * (linear - wanted).abs()[6:].max()


def test_the_floor_is_the_least_share_of_the_greatest_cost():
    times, costs = uniform_times(2), torch.tensor([0.0, 1.0])
    for floor, share in ((1.0, 0.5), (0.25, 1 / 3), (1e-12, 1e-6)):
        grid = equalise(times, costs, 1000, floor=floor)
        assert (grid < 0.5).double().mean().item() == pytest.approx(share, abs=0.002)


def test_single_precision_gives_the_grid_of_double_precision():
    times, costs = uniform_times(64), torch.rand(64, dtype=torch.float64)
    single = equalise(times.float(), costs.float(), 16)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), equalise(times, costs, 16), atol=1e-6)


@pytest.mark.parametrize(
    ("costs", "options", "message"),
    [
        ([1.0, 1.0], {"interpolation": "cubic"}, "interpolation must be 'linear' or 'pchip', got 'cubic'"),
        ([1.0, 1.0], {"floor": 0.0}, "floor must lie in .0, 1., got 0.0"),
        ([1.0, -1.0], {}, "costs must be 2 finite numbers of at least 0"),
        ([1.0, math.nan], {}, "costs must be 2 finite numbers"),
        ([1.0], {}, "costs must be 2 finite numbers"),
        ([1.0, 1.0], {"num_steps": 0}, "num_steps of at least 1"),
        ([1.0, 1.0], {"uniform_share": 1.5}, "uniform_share in .0, 1., got 3 and 1.5"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_impossible_grids_are_refused(costs, options, message):
    with pytest.raises(ValueError, match=message):
        equalise(uniform_times(2), torch.tensor(costs), **{"num_steps": 3, **options})


@pytest.mark.parametrize("times", [[0.0], [0.0, 1.0, 1.0], [1.0, 0.5, 0.0]])
def test_times_that_do_not_increase_are_refused(times):
    with pytest.raises(ValueError, match="times must be at least 2 that increase"):
        equalise(torch.tensor(times), torch.ones(len(times) - 1), 3)


@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "dds"])
def test_every_schedule_has_its_config(name):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides=["experiment=pdds_mixture_2d", f"+process/schedule={name}"])
    process = instantiate(config.process)
    assert type(process.schedule).__name__.lower() == name
