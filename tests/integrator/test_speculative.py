"""What speculation costs, and what it keeps apart from the law."""

import pytest
import torch
from assertions import assert_mean_close
from chains import bridge_kernel, bridge_pairs, slope

from sbflow.integrator import (
    FieldKernel,
    SpeculationInfo,
    euler_maruyama,
    guided_denoising,
    langevin,
    simulate,
    simulate_speculative,
)
from sbflow.process import Brownian, OrnsteinUhlenbeck, uniform_times


def generators(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("window", [1, 4, 7, 8, 30])
def test_a_perfect_draft_is_always_kept_and_costs_one_call_a_window(window):
    kernel = bridge_kernel(2.0, 1.0)
    _, info = simulate_speculative(kernel, torch.randn(5, 3), uniform_times(30), window=window, draft=kernel.field)
    # what the last state of a window needs is asked for in the window before it
    assert torch.equal(info.accepted, info.tried)
    assert info.sequential_calls.tolist() == [-(-29 // window)] * 5
    assert info.rows == 5 * 30 and info.rows_per_step == 1


@pytest.mark.parametrize("policy", ["stale", "root"])
def test_a_window_of_one_step_asks_once_a_step_as_simulation_does(policy):
    _, info = simulate_speculative(
        bridge_kernel(4.0, 1.0), torch.randn(20, 2), uniform_times(9), window=1, policy=policy
    )
    assert info.sequential_calls.tolist() == [9] * 20 and info.rows == 180
    assert torch.equal(info.accepted, info.tried) and info.tried.tolist() == [180]


@pytest.mark.parametrize("policy", ["stale", "root"])
def test_even_a_useless_draft_makes_a_step_a_round_and_never_costs_two_calls_a_step(policy):
    kernel = euler_maruyama(lambda x, t: 100 * torch.sin(40 * x), Brownian(1e-4).diffusion)
    _, info = simulate_speculative(kernel, torch.randn(6, 50), uniform_times(12), window=5, policy=policy)
    assert (info.sequential_calls >= 12).all() and (info.sequential_calls <= 24).all()
    assert (info.accepted <= info.tried).all() and (info.tried.diff() <= 0).all()
    assert info.accepted.sum() < 0.6 * info.tried.sum()


def test_only_the_first_step_after_a_root_call_is_sure_to_be_kept():
    info = {
        policy: simulate_speculative(
            bridge_kernel(1.0, 1.0), torch.randn(64, 200), uniform_times(20), window=6, policy=policy
        )[1]
        for policy in ("stale", "root")
    }
    assert info["root"].accepted[0] == info["root"].tried[0]
    assert info["stale"].accepted[0] < info["stale"].tried[0]
    assert info["root"].sequential_calls.sum() > info["stale"].sequential_calls.sum()


@pytest.mark.parametrize(("policy", "most"), [("stale", 10.5), ("root", 14.0)])
def test_a_hundred_steps_in_fifty_dimensions_cost_the_calls_that_were_measured(policy, most):
    x = torch.randn(64, 50, dtype=torch.float64)
    _, info = simulate_speculative(bridge_kernel(1.0, 1.0), x, uniform_times(100), window=16, policy=policy)
    assert 8 <= info.sequential_calls.double().mean() <= most
    assert info.rows_per_step <= 1.4


@pytest.mark.slow
def test_a_thousand_steps_of_784_coordinates_take_thirty_calls():
    x = torch.randn(16, 784, dtype=torch.float64)
    _, info = simulate_speculative(bridge_kernel(1.0, 1.0), x, uniform_times(1000), window=64)
    assert info.sequential_calls.double().mean() <= 33


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [100, 300, 1000])
def test_rejections_follow_the_curvature_of_the_drift_and_the_cube_root_of_the_steps(num_steps):
    times = uniform_times(num_steps)
    x = torch.randn(8, 784, dtype=torch.float64)
    _, info = simulate_speculative(bridge_kernel(1.0, 1.0), x, times, window=128)
    jacobian = slope(bridge_pairs(1.0, 1.0), 1.0, times[:-1]).abs() * 784**0.5
    predicted = 0.459 * (jacobian ** (2 / 3)).mean() * num_steps ** (1 / 3)
    assert (info.tried - info.accepted).sum().item() / 8 == pytest.approx(predicted.item(), rel=0.25)


def test_a_better_model_draft_saves_more_calls():
    kernel, x = bridge_kernel(4.0, 0.25), torch.randn(32, 20)

    def calls(error: float) -> float:
        draft = lambda x, t: (1 + error) * kernel.field(x, t)  # noqa: E731
        return simulate_speculative(kernel, x, uniform_times(60), draft=draft)[1].sequential_calls.double().mean()

    assert calls(0.0) == 8 and calls(0.0) < calls(0.2) < calls(1.0)


@pytest.mark.parametrize("policy", ["stale", "root"])
@pytest.mark.parametrize("window", [1, 3, 8])
def test_the_last_step_without_noise_is_the_mean_of_the_target(policy, window):
    kernel, times, x = bridge_kernel(2.0, 1.0), uniform_times(7), torch.randn(4, 1, 3, 3, dtype=torch.float64)
    seen = []
    recording = FieldKernel(lambda x, t: seen.append((x, t)) or kernel.field(x, t), kernel.step)
    end, info = simulate_speculative(recording, x, times, last_noise=False, window=window, policy=policy)
    assert info.tried.sum() == 6 * 4
    # one of the states that were asked about at the last time but one is the last state of each trajectory
    states, at = (torch.cat(parts) for parts in zip(*seen, strict=True))
    means = kernel(states[at == times[-2]], times[-2], times[-1]).mean
    assert all((row == means).flatten(1).all(1).any() for row in end)


def test_without_any_noise_speculation_is_simulation():
    kernel = euler_maruyama(lambda x, t: torch.cos(3 * x), torch.zeros_like)
    x, times = torch.randn(5, 2, dtype=torch.float64), uniform_times(11)
    end, info = simulate_speculative(kernel, x, times, window=4)
    assert torch.allclose(end, simulate(kernel, x, times), rtol=1e-12)
    assert info.tried.sum() == 0 and (info.sequential_calls <= 11).all()


def test_a_step_without_noise_in_the_middle_is_passed():
    # noise that stops and comes back
    kernel = euler_maruyama(lambda x, t: torch.zeros_like(x), lambda t: (t - 0.5).abs().gt(0.2).to(t.dtype))
    end, _ = simulate_speculative(kernel, torch.zeros(20_000, 1, dtype=torch.float64), uniform_times(10), window=3)
    noisy = (uniform_times(10)[:-1] - 0.5).abs().gt(0.2).sum().item() / 10
    assert 0 < noisy < 1
    assert_mean_close(end**2, noisy)


def test_the_secant_draft_is_right_about_an_isotropic_field_after_one_window():
    x = torch.randn(6, 400, dtype=torch.float64)
    kernel = langevin(lambda x, t: -x / 0.3, 0.02)
    frozen, secant = (
        simulate_speculative(kernel, x, uniform_times(60), window=10, draft=draft)[1] for draft in (None, "secant")
    )
    assert (secant.tried - secant.accepted).sum() <= len(x) < (frozen.tried - frozen.accepted).sum()
    # the root, the first window, what a rejection left of it, and five more
    assert secant.sequential_calls.max() <= 8


@pytest.mark.parametrize("policy", ["stale", "root"])
def test_the_secant_draft_saves_calls_where_the_field_bends(policy):
    x = torch.randn(16, 784, dtype=torch.float64)
    frozen, secant = (
        simulate_speculative(bridge_kernel(4.0, 1.0), x, uniform_times(50), policy=policy, draft=draft)[1]
        for draft in (None, "secant")
    )
    assert secant.sequential_calls.sum() < 0.9 * frozen.sequential_calls.sum() and secant.rows < frozen.rows


@pytest.mark.parametrize("policy", ["stale", "root"])
@pytest.mark.parametrize("draft", [None, "secant"])
def test_with_a_generator_for_each_sample_a_result_does_not_depend_on_the_batch(policy, draft):
    x, times = torch.randn(7, 2, 3, 3, dtype=torch.float64), uniform_times(25)

    def run(rows: slice):
        seeds = generators(range(7)[rows])
        options = {"policy": policy, "draft": draft, "generator": seeds}
        return simulate_speculative(bridge_kernel(2.0, 0.5), x[rows], times, **options)

    whole, info = run(slice(0, 7))
    parts, infos = zip(run(slice(0, 1)), run(slice(1, 7)), strict=True)
    assert torch.equal(whole, torch.cat(parts))
    for one, other in zip(info, SpeculationInfo.combined(infos), strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_trajectories_that_go_at_different_paces_are_asked_at_their_own_times():
    x = torch.cat([torch.zeros(3, 40), 3 * torch.randn(3, 40)]).double()
    kernel = euler_maruyama(lambda x, t: -x * x.abs() * t.reshape(-1, 1), Brownian(0.05).diffusion)
    asked = []

    def field(x, t):
        asked.append(t)
        return kernel.field(x, t)

    end, info = simulate_speculative(FieldKernel(field, kernel.step), x, uniform_times(40), window=6)
    assert info.sequential_calls[:3].max() < info.sequential_calls[3:].min()
    assert all(t.shape == (len(t),) for t in asked) and sum(map(len, asked)) == info.rows
    alone, _ = simulate_speculative(kernel, x, uniform_times(40), window=6)
    assert end.shape == alone.shape and end.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_keep_their_precision(dtype):
    x, times = torch.randn(3, 4, dtype=dtype), uniform_times(6)
    kernels = {
        "euler": (bridge_kernel(1.0, 1.0), times),
        "denoising": (guided_denoising(OrnsteinUhlenbeck(), lambda x, t: -x, "tweedie"), times.flip(0)),
        "langevin": (langevin(lambda x, t: -x, 0.1), times),
    }
    for kernel, grid in kernels.values():
        assert simulate_speculative(kernel, x, grid)[0].dtype == dtype


def test_a_field_that_is_not_a_number_ends_and_shows():
    kernel = euler_maruyama(lambda x, t: torch.full_like(x, torch.nan), Brownian(1.0).diffusion)
    end, info = simulate_speculative(kernel, torch.zeros(2, 3), uniform_times(5))
    assert end.isnan().all() and (info.sequential_calls <= 10).all()


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"policy": "fresh"}, "policy must be 'stale' or 'root', got 'fresh'"),
        ({"draft": "small"}, r"draft must be 'secant', a function of \(x, t\) or None, got 'small'"),
        ({"times": torch.zeros(1)}, "times must hold at least 2 times, got 1"),
    ],
)
def test_impossible_speculation_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        simulate_speculative(bridge_kernel(1.0, 1.0), torch.zeros(1, 1), **{"times": uniform_times(3)} | options)


def test_a_langevin_step_climbs_by_its_length_and_takes_noise_of_twice_it():
    x, t = torch.randn(5, 2, 2, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    law = langevin(lambda x, t: -3 * x, 0.01)(x, t, t)
    assert torch.allclose(law.mean, 0.97 * x) and torch.allclose(law.std, torch.full_like(t, 0.02**0.5))
    with pytest.raises(ValueError, match=r"step_size must be positive and finite, got 0\.0"):
        langevin(lambda x, t: x, 0.0)
