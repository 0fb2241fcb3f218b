import pytest
import torch
from assertions import assert_mean_close

from sbflow.integrator import euler_maruyama, simulate
from sbflow.process import Brownian

EPSILON = 0.8
GRIDS = {
    "uniform": torch.linspace(0, 1, 6, dtype=torch.float64),
    "uneven": torch.tensor([0.0, 0.05, 0.3, 0.35, 0.9], dtype=torch.float64),
    "decreasing": torch.tensor([1.0, 0.6, 0.5, 0.1], dtype=torch.float64),
}


def brownian_kernel():
    process = Brownian(EPSILON)
    return euler_maruyama(process.drift, process.diffusion)


@pytest.mark.parametrize("times", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("last_noise", [True, False])
def test_without_drift_the_variance_is_the_time_that_drew_noise(times, last_noise):
    end = simulate(brownian_kernel(), torch.zeros(20_000, 2, dtype=torch.float64), times, last_noise=last_noise)
    noisy = (times[-1 if last_noise else -2] - times[0]).abs().item()
    assert_mean_close(end, 0.0)
    assert_mean_close(end**2, EPSILON * noisy)


def test_increments_over_disjoint_steps_are_independent():
    path = simulate(brownian_kernel(), torch.zeros(20_000, 1, dtype=torch.float64), GRIDS["uneven"], return_path=True)
    increments = path.diff(dim=0).squeeze(-1).T
    products = increments[:, :, None] * increments[:, None, :]
    assert_mean_close(products, torch.diag(EPSILON * GRIDS["uneven"].diff()))


def test_the_path_holds_every_state_and_its_last_step_without_noise_is_the_mean():
    x, times, kernel = torch.randn(5, 1, 2, 2), GRIDS["uneven"], brownian_kernel()
    runs = {
        noise: simulate(
            kernel, x, times, last_noise=noise, return_path=True, generator=torch.Generator().manual_seed(3)
        )
        for noise in (True, False)
    }
    assert runs[True].shape == (5, *x.shape) and torch.equal(runs[True][0], x)
    assert torch.equal(runs[True][:-1], runs[False][:-1])
    assert torch.equal(runs[False][-1], kernel(runs[False][-2], times[-2], times[-1]).mean)
    end = simulate(kernel, x, times, generator=torch.Generator().manual_seed(3))
    assert torch.equal(end, runs[True][-1])


def test_one_generator_per_sample_makes_paths_independent_of_the_batch():
    x = torch.randn(6, 3)

    def run(rows: slice) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in range(6)[rows]]
        return simulate(brownian_kernel(), x[rows], GRIDS["uniform"], generator=generators)

    assert torch.equal(run(slice(0, 6)), torch.cat([run(slice(0, 2)), run(slice(2, 6))]))
