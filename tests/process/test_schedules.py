import pytest
import torch

from sbflow.process import Constant, Cosine, Linear, OrnsteinUhlenbeck, uniform_times

SCHEDULES = [
    Cosine(),
    Cosine(offset=0.0),
    Cosine(offset=0.5, floor=1e-4),
    Cosine(offset=0.5, floor=0.1),
    Linear(),
    Linear(0.0, 3.0),
    Constant(),
    Constant(0.3),
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
    t = torch.linspace(0, 1, 101, dtype=torch.float64, requires_grad=True)
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
