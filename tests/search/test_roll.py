import pytest
import torch
from assertions import assert_mean_close
from search_bridges import EPSILON, euler_law, gaussian_roll, pull, zeros

from sbflow.integrator import euler_maruyama, simulate, time_grid
from sbflow.network import MLP, BridgeDrift
from sbflow.process import Brownian
from sbflow.search import Roll, bridge_roll
from sbflow.search.streams import Streams, draw


def test_a_roll_is_the_simulation_with_this_noise():
    x, noise = torch.randn(5, 2, dtype=torch.float64), torch.randn(6, 5, 2, dtype=torch.float64)
    process = Brownian(EPSILON)
    for last_noise in (True, False):
        times = time_grid("cosine", 6)
        expected = x
        for k in range(6):
            step = times[k + 1] - times[k]
            drawn = noise[k] if last_noise or k < 5 else 0.0
            expected = expected + step * pull(expected, times[k]) + (EPSILON * step).sqrt() * drawn
        made = Roll(pull, process, times, last_noise=last_noise)(x, noise)
        torch.testing.assert_close(made, expected)
        kernel = euler_maruyama(pull, process.diffusion)
        assert torch.equal(made, simulate(kernel, x, times, noise=noise, last_noise=last_noise))


def test_noise_given_is_noise_drawn():
    x, times = torch.randn(4, 3), time_grid("uniform", 5)
    kernel = euler_maruyama(pull, Brownian(EPSILON).diffusion)
    streams = Streams.of(3, len(x))
    drawn = simulate(kernel, x, times, generator=streams.open(0))
    assert torch.equal(simulate(kernel, x, times, noise=draw(streams.open(0), 5, x)), drawn)
    with pytest.raises(ValueError, match="noise must hold one draw for each of the 5 steps, got 4"):
        simulate(kernel, x, times, noise=torch.randn(4, 4, 3))


def test_a_roll_in_parts_is_the_roll_in_one():
    roll, x, noise = gaussian_roll(7), torch.randn(3, 2, dtype=torch.float64), torch.randn(7, 3, 2).double()
    for one in (roll, roll.coarse(3)):
        middle = one.partial(x, noise[: one.fine_steps(0, 2)], 0, 2)
        end = one.partial(middle, noise[one.fine_steps(0, 2) :], 2, one.num_steps)
        assert torch.equal(end, one(x, noise))
    assert roll.evaluations == 3 * 2 * (7 + 3)


@pytest.mark.parametrize("spacing", ["uniform", "cosine"])
@pytest.mark.parametrize("steps", [1, 3, 8, 11])
def test_without_drift_a_coarse_roll_ends_where_the_fine_one_does(spacing, steps):
    roll = Roll(lambda x, t: torch.zeros_like(x), Brownian(EPSILON), time_grid(spacing, 11))
    x, noise = torch.randn(4, 2, dtype=torch.float64), torch.randn(11, 4, 2, dtype=torch.float64)
    coarse = roll.coarse(steps)
    assert coarse.num_steps == steps
    torch.testing.assert_close(coarse(x, noise), roll(x, noise))


def test_half_precision_does_not_round_the_noise():
    roll, x, noise = gaussian_roll(10).coarse(3), torch.randn(4, 2), torch.randn(10, 4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        half = roll(x, noise)
    assert torch.equal(half, roll(x, noise))


@pytest.mark.parametrize("back", [0, 10, 35, 39])
def test_going_back_by_the_bridge_keeps_the_law_of_the_path(back):
    roll, x0 = gaussian_roll(80), 0.3
    # the path is linear in its noise, so its variance is the sum of its squared responses to each single draw
    count = 40 + 1 + 80 - back
    noise = torch.cat([torch.zeros(1, count), torch.eye(count)]).double().T[:, :, None]
    start = torch.full(noise.shape[1:], x0, dtype=torch.float64)
    x = roll.partial(start, noise[:40], 0, 40)
    earlier = roll.renoise(start, x, 40, back, noise[40])
    end = roll.partial(earlier, noise[41:], back, 80)
    for states, steps in ((earlier, back), (end, 80)):
        mean, variance = euler_law(80, x0, steps)
        # the discretised path is a mixture of bridges up to its discretisation
        assert abs(states[0] - mean) <= 0.015 * variance**0.5 + 1e-12
        assert abs((states - states[0]).square().sum() - variance) <= 0.015 * variance + 1e-12


def test_the_look_ahead_is_the_mean_of_the_end():
    # exact for the process in continuous time, and for its discretisation where the drift does not depend on x
    roll = Roll(lambda x, t: torch.full_like(x, 0.4), Brownian(EPSILON), time_grid("uniform", 10))
    x = zeros(20_000, 1)
    ends = roll.partial(x, torch.randn(6, *x.shape, dtype=torch.float64), 4, 10)
    assert_mean_close(ends, roll.look_ahead(x, 4)[0])
    before = roll.evaluations
    assert roll.look_ahead(ends, 10) is ends and roll.evaluations == before


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_roll_of_a_network_takes_its_direction(direction):
    drift = BridgeDrift(MLP((2,), hidden=(8,), num_directions=2), (2,), EPSILON)
    torch.nn.init.normal_(next(iter(drift.network.parameters())))
    drift.mean[1] = 3.0
    roll = bridge_roll(drift, Brownian(EPSILON), direction=direction, num_steps=3)
    x, noise, flag = torch.randn(4, 2), torch.randn(3, 4, 2), int(direction == "backward")
    expected, step = x, 1 / 3
    with torch.no_grad():
        for k in range(3):
            slope = drift(expected, torch.tensor([k / 3]), torch.full((4,), flag))
            expected = expected + step * slope + (EPSILON * step) ** 0.5 * noise[k]
    torch.testing.assert_close(roll(x, noise), expected)


def test_wrong_options_are_refused(unchecked_types):
    drift = BridgeDrift(MLP((2,), hidden=(8,), num_directions=2), (2,), EPSILON)
    with pytest.raises(ValueError, match="direction must be 'forward' or 'backward', got 'up'"):
        bridge_roll(drift, Brownian(EPSILON), direction="up")
    for steps in (0, 6):
        with pytest.raises(ValueError, match=f"between 1 and the 5 steps, got {steps}"):
            gaussian_roll(5).coarse(steps)


def test_streams_depend_on_the_input_and_the_candidate_alone():
    x = torch.zeros(6, 3)
    whole = Streams.of([(4, 1), (4, 1), (5, 0), (5, 1), (5, 2), (6, 0)], 6)
    noise = {j: draw(whole.open(j), 2, x) for j in range(3)}
    assert torch.equal(draw(whole.part(2, 5).open(1), 2, x[2:5]), noise[1][:, 2:5])
    assert torch.equal(noise[0][:, 0], noise[0][:, 1])
    rows = torch.cat([noise[j][:, 1:].flatten(2) for j in noise], 1)[0]
    assert len(rows.unique(dim=0)) == 15
    mixed = draw(whole.open([2, 0, 1, 1, 0, 2]), 2, x)
    assert torch.equal(mixed, torch.stack([noise[j][:, i] for i, j in enumerate([2, 0, 1, 1, 0, 2])], 1))
    with pytest.raises(ValueError, match="one for each input: got 2 for 6 inputs"):
        Streams.of([1, 2], 6)
