"""What every schedule and grid keeps, whatever its options."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import between, increasing_times, schedules, thrifty

from sbflow.integrator import Spacing, time_grid
from sbflow.process import OrnsteinUhlenbeck, equalise


@thrifty
@given(schedules, increasing_times)
def test_the_signal_starts_at_one_and_never_grows(schedule, times):
    alpha_bar = schedule.alpha_bar(times)
    assert alpha_bar[0] == 1
    assert (alpha_bar > 0).all()
    assert (alpha_bar.diff() <= 0).all()
    assert (schedule.beta(times) >= 0).all()


@thrifty
@given(schedules, between(0.1, 5), increasing_times)
def test_every_transition_keeps_the_stationary_variance(schedule, sigma, times):
    a, b = OrnsteinUhlenbeck(schedule, sigma=sigma).transition(times[:-1], times[1:])
    assert torch.allclose((a * sigma) ** 2 + b**2, torch.full_like(a, sigma**2), rtol=1e-10)


@thrifty
@given(increasing_times, st.data(), st.integers(1, 30), between(0, 1), st.sampled_from(["linear", "pchip"]))
def test_an_equalised_grid_increases_between_the_same_ends(times, data, num_steps, uniform_share, interpolation):
    nothing_or_some = st.one_of(st.just(0.0), between(0, 1e6))
    costs = data.draw(st.lists(nothing_or_some, min_size=len(times) - 1, max_size=len(times) - 1))
    options = {"uniform_share": uniform_share, "interpolation": interpolation}
    grid = equalise(times, torch.tensor(costs, dtype=torch.float64), num_steps, **options)
    assert len(grid) == num_steps + 1
    assert grid[0] == times[0] and grid[-1] == times[-1]
    assert (grid.diff() > 0).all()


@pytest.mark.parametrize("spacing", Spacing.__args__)
@thrifty
@given(st.integers(1, 500))
def test_a_named_grid_increases_from_zero_to_one(spacing, num_steps):
    grid = time_grid(spacing, num_steps)
    assert len(grid) == num_steps + 1 and grid[0] == 0 and grid[-1] == 1
    assert (grid.diff() > 0).all()
